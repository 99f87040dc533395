//! Just enough ELF64 little-endian: sections by name, the interpreter, what the dynamic linker
//! reads, the machine.
//!
//! Layout from the System V ABI, chapter 4 and 5 (`Elf64_Ehdr`, `Elf64_Shdr`,
//! `Elf64_Phdr`). Every offset is checked against the file; nothing panics.

/// The bytes are no ELF64 little-endian file, or a header points outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadElf {
    #[error("not an ELF file")]
    Magic,
    #[error("not a 64-bit little-endian ELF file")]
    Class,
    #[error("truncated ELF file")]
    Truncated,
}

/// An ELF file's bytes with a checked header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
}

/// What a program or library tells the dynamic linker (System V ABI, "Dynamic Section").
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dynamic<'a> {
    pub(crate) needed: Vec<&'a str>,
    pub(crate) rpath: Option<&'a str>,
    pub(crate) runpath: Option<&'a str>,
}

/// A part of the file and where it is loaded.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const SHT_NOBITS: u64 = 8;

impl<'a> Elf<'a> {
    /// Checks `e_ident` and that the header is whole.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, BadElf> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err(BadElf::Magic);
        }
        if bytes.get(4..6) != Some(&[2, 1]) {
            return Err(BadElf::Class);
        }
        if bytes.len() < 64 {
            return Err(BadElf::Truncated);
        }
        Ok(Self { bytes })
    }

    /// `e_machine`.
    pub(crate) fn machine(self) -> u16 {
        self.number(18, 2).unwrap_or_default() as u16
    }

    /// The program interpreter (`PT_INTERP`); `None`: static.
    pub(crate) fn interpreter(self) -> Result<Option<&'a str>, BadElf> {
        match self.segment(PT_INTERP)? {
            Some(part) => Ok(Some(c_string(self.slice(part.offset, part.size)?)?)),
            None => Ok(None),
        }
    }

    /// Empty for a static program.
    pub(crate) fn dynamic(self) -> Result<Dynamic<'a>, BadElf> {
        let mut dynamic = Dynamic::default();
        let Some(table) = self.segment(PT_DYNAMIC)? else {
            return Ok(dynamic);
        };
        let mut entries = Vec::new();
        for entry in self.slice(table.offset, table.size)?.chunks_exact(16) {
            let (tag, value) = (little_endian(&entry[..8]), little_endian(&entry[8..]));
            if tag == DT_NULL {
                break;
            }
            entries.push((tag, value));
        }
        let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else {
            return Ok(dynamic);
        };
        let strings = self.at_address(*strings)?;
        for (tag, value) in entries {
            match tag {
                DT_NEEDED => dynamic.needed.push(string_at(strings, value)?),
                DT_RPATH => dynamic.rpath = Some(string_at(strings, value)?),
                DT_RUNPATH => dynamic.runpath = Some(string_at(strings, value)?),
                _ => {}
            }
        }
        Ok(dynamic)
    }

    /// From what is loaded at `address` to the end of its segment.
    fn at_address(self, address: u64) -> Result<&'a [u8], BadElf> {
        for part in self.segments()? {
            let inside = address.checked_sub(part.address);
            if let Some(inside) = inside.filter(|at| part.kind == PT_LOAD && *at < part.size) {
                let offset = part.offset.checked_add(inside).ok_or(BadElf::Truncated)?;
                return self.slice(offset, part.size - inside);
            }
        }
        Err(BadElf::Truncated)
    }

    fn segment(self, kind: u64) -> Result<Option<Segment>, BadElf> {
        Ok(self.segments()?.into_iter().find(|part| part.kind == kind))
    }

    fn segments(self) -> Result<Vec<Segment>, BadElf> {
        let (offset, size, count) = (
            self.number(32, 8)?,
            self.number(54, 2)?,
            self.number(56, 2)?,
        );
        let segment = |index| {
            let header = at(offset, size, index)?;
            Ok(Segment {
                kind: self.number(header, 4)?,
                offset: self.number(header + 8, 8)?,
                address: self.number(header + 16, 8)?,
                size: self.number(header + 32, 8)?,
            })
        };
        (0..count).map(segment).collect()
    }

    /// The bytes of the section called `name`; `None`: no such section.
    pub(crate) fn section(self, name: &str) -> Result<Option<&'a [u8]>, BadElf> {
        let (offset, size, count) = (
            self.number(40, 8)?,
            self.number(58, 2)?,
            self.number(60, 2)?,
        );
        let names = self.section_bytes(at(offset, size, self.number(62, 2)?)?)?;
        for index in 0..count {
            let header = at(offset, size, index)?;
            let start = usize::try_from(self.number(header, 4)?).map_err(|_| BadElf::Truncated)?;
            let label = names.get(start..).ok_or(BadElf::Truncated)?;
            if c_string(label)? == name {
                return self.section_bytes(header).map(Some);
            }
        }
        Ok(None)
    }

    fn section_bytes(self, header: u64) -> Result<&'a [u8], BadElf> {
        if self.number(header + 4, 4)? == SHT_NOBITS {
            return Ok(&[]);
        }
        self.slice(self.number(header + 24, 8)?, self.number(header + 32, 8)?)
    }

    /// A little-endian number of `width` bytes.
    fn number(self, offset: u64, width: u64) -> Result<u64, BadElf> {
        Ok(little_endian(self.slice(offset, width)?))
    }

    fn slice(self, offset: u64, length: u64) -> Result<&'a [u8], BadElf> {
        let end = offset.checked_add(length).ok_or(BadElf::Truncated)?;
        let (Ok(start), Ok(end)) = (usize::try_from(offset), usize::try_from(end)) else {
            return Err(BadElf::Truncated);
        };
        self.bytes.get(start..end).ok_or(BadElf::Truncated)
    }
}

/// Offset of entry `index` in a table; leaves room for a header's own fields.
fn at(offset: u64, size: u64, index: u64) -> Result<u64, BadElf> {
    let header = size
        .checked_mul(index)
        .and_then(|skip| offset.checked_add(skip))
        .ok_or(BadElf::Truncated)?;
    header.checked_add(64).ok_or(BadElf::Truncated)?;
    Ok(header)
}

fn little_endian(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn string_at(strings: &[u8], at: u64) -> Result<&str, BadElf> {
    let at = usize::try_from(at).map_err(|_| BadElf::Truncated)?;
    c_string(strings.get(at..).ok_or(BadElf::Truncated)?)
}

fn c_string(bytes: &[u8]) -> Result<&str, BadElf> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = bytes.get(..end.unwrap_or(bytes.len()));
    text.and_then(|text| std::str::from_utf8(text).ok())
        .ok_or(BadElf::Truncated)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dynamic, executable, module};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_a_section_and_the_interpreter() {
        let module = module(&[("license", "GPL")]);
        let elf = Elf::new(&module).unwrap();
        assert_eq!(elf.section(".modinfo"), Ok(Some(&b"license=GPL\0"[..])));
        assert_eq!(elf.section(".none"), Ok(None));
        assert_eq!(elf.machine(), 62);
        assert_eq!(Elf::new(&executable(None)).unwrap().interpreter(), Ok(None));
        let dynamic = executable(Some("/lib64/ld.so"));
        let elf = Elf::new(&dynamic).unwrap();
        assert_eq!(elf.interpreter(), Ok(Some("/lib64/ld.so")));
    }

    #[test]
    fn reads_what_the_dynamic_linker_reads() {
        let bytes = dynamic(&[
            (DT_NEEDED, "libone.so.1"),
            (DT_RUNPATH, "$ORIGIN/../lib"),
            (DT_NEEDED, "libtwo.so"),
        ]);
        let found = Elf::new(&bytes).unwrap().dynamic().unwrap();
        assert_eq!(found.needed, ["libone.so.1", "libtwo.so"]);
        assert_eq!((found.rpath, found.runpath), (None, Some("$ORIGIN/../lib")));
        let fixed = executable(None);
        let found = Elf::new(&fixed).unwrap().dynamic().unwrap();
        assert_eq!(found, Dynamic::default());
    }

    #[test]
    fn refuses_what_is_not_elf64() {
        assert_eq!(Elf::new(b"#!/bin/sh").unwrap_err(), BadElf::Magic);
        assert_eq!(Elf::new(b"\x7fELF\x01\x01").unwrap_err(), BadElf::Class);
        assert_eq!(Elf::new(b"\x7fELF\x02\x01").unwrap_err(), BadElf::Truncated);
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 64..300)) {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let elf = Elf::new(&bytes).unwrap();
            let _ = (elf.interpreter(), elf.section(".modinfo"), elf.machine());
        }

        #[test]
        fn never_panics_on_a_damaged_module(at in 0usize..400, value: u8) {
            let mut bytes = module(&[("firmware", "a/b.fw"), ("depends", "x,y")]);
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(elf) = Elf::new(&bytes) {
                let _ = (elf.interpreter(), elf.section(".modinfo"));
            }
        }

        #[test]
        fn never_panics_on_a_damaged_library(at in 0usize..400, value: u8) {
            let mut bytes = dynamic(&[(DT_NEEDED, "liba.so"), (DT_RPATH, "/lib")]);
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(elf) = Elf::new(&bytes) {
                let _ = (elf.interpreter(), elf.dynamic());
            }
        }
    }
}
