//! Made-up kernels for the builder's unit tests.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::catalog::Catalog;
use super::closure::{self, Closure};
use super::error::BuildError;
use super::faults::Faults;
use super::firmware::FirmwareDirs;
use super::list::ModuleList;

pub(crate) const RELEASE: &str = "6.1.0-test";

/// A relocatable x86-64 ELF with nothing but `.modinfo` and `.shstrtab`.
pub(crate) fn module(entries: &[(&str, &str)]) -> Vec<u8> {
    let modinfo: Vec<u8> = entries
        .iter()
        .flat_map(|(key, value)| format!("{key}={value}\0").into_bytes())
        .collect();
    let names = b"\0.modinfo\0.shstrtab\0";
    let names_at = 64 + modinfo.len() as u64;
    let table_at = names_at + names.len() as u64;
    let mut elf = header(1, table_at, 3, 2, 0);
    elf.extend(&modinfo);
    elf.extend(names);
    elf.extend([0; 64]);
    elf.extend(section(1, 1, 64, modinfo.len() as u64));
    elf.extend(section(10, 3, names_at, names.len() as u64));
    elf
}

/// An executable x86-64 ELF with one program header; dynamic if it has an interpreter.
pub(crate) fn executable(interpreter: Option<&str>) -> Vec<u8> {
    let mut elf = header(2, 0, 0, 0, 1);
    let path = interpreter.map_or(Vec::new(), |path| format!("{path}\0").into_bytes());
    let kind = if interpreter.is_some() { 3u32 } else { 1 };
    elf.extend(kind.to_le_bytes());
    elf.extend(5u32.to_le_bytes());
    for number in [120, 0, 0, path.len() as u64, path.len() as u64, 1] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(path);
    elf
}

/// A dynamic x86-64 ELF whose dynamic section has these strings, by tag; loaded at 0x1000.
/// Tag 0 is no entry but the interpreter.
pub(crate) fn dynamic(entries: &[(u64, &str)]) -> Vec<u8> {
    const PROGRAMS: u64 = 3;
    const BASE: u64 = 0x1000;
    let mut strings = vec![0];
    let mut table = Vec::new();
    let mut interpreter = (0, 0);
    for (tag, text) in entries {
        let at = strings.len() as u64;
        strings.extend(format!("{text}\0").into_bytes());
        match tag {
            0 => interpreter = (at, text.len() as u64 + 1),
            _ => table.extend([*tag, at]),
        }
    }
    let strings_at = 64 + PROGRAMS * 56;
    let table_at = strings_at + strings.len() as u64;
    table.extend([5, BASE + strings_at, 0, 0]);
    let size = table_at + table.len() as u64 * 8;
    let mut elf = header(3, 0, 0, 0, PROGRAMS as u16);
    let kind = if interpreter.1 == 0 { 4 } else { 3 };
    elf.extend(program(1, 0, BASE, size));
    elf.extend(program(
        2,
        table_at,
        BASE + table_at,
        table.len() as u64 * 8,
    ));
    elf.extend(program(kind, strings_at + interpreter.0, 0, interpreter.1));
    elf.extend(strings);
    elf.extend(table.iter().flat_map(|number| number.to_le_bytes()));
    elf
}

fn program(kind: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(kind.to_le_bytes());
    header.extend(4u32.to_le_bytes());
    for number in [offset, address, address, size, size, 1] {
        header.extend(u64::to_le_bytes(number));
    }
    header
}

fn header(kind: u16, sections_at: u64, sections: u16, names: u16, programs: u16) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    for number in [kind, 62] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    for number in [0, u64::from(programs.min(1)) * 64, sections_at] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for number in [64, 56, programs, 64, sections, names] {
        elf.extend(number.to_le_bytes());
    }
    elf
}

fn section(name: u32, kind: u32, offset: u64, size: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(name.to_le_bytes());
    header.extend(kind.to_le_bytes());
    for number in [0, 0, offset, size, 0, 1, 0] {
        header.extend(number.to_le_bytes());
    }
    header.resize(64, 0);
    header
}

/// A data directory with one kernel, an `initrd/` source and a stand-in for BusyBox.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            dir: TempDir::new().unwrap(),
        };
        lab.write("kernel/release", format!("{RELEASE}\n"));
        lab.write("kernel/vmlinuz", "kernel");
        lab.write("kernel/modules/modules.builtin", "");
        lab.write("kernel/modules/modules.dep", "");
        lab.write("initrd/modules.list", "");
        lab.write("initrd/tree/init", "#!/bin/sh\n");
        lab.chmod("initrd/tree/init", 0o755);
        // Not executable: the fixed applet list is used.
        lab.write("busybox", executable(None));
        lab
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Appends to a file of the kernel's `modules/`.
    pub(crate) fn append(&self, file: &str, line: &str) {
        let path = format!("kernel/modules/{file}");
        let old = fs::read_to_string(self.path(&path)).unwrap_or_default();
        self.write(&path, format!("{old}{line}\n"));
    }

    /// Puts a module in place, with its line in `modules.dep`.
    pub(crate) fn module(&self, path: &str, deps: &[&str], entries: &[(&str, &str)]) {
        let mut all = vec![("vermagic", "6.1.0-test SMP")];
        all.extend(entries);
        self.write(&format!("kernel/modules/{path}"), module(&all));
        self.append("modules.dep", &format!("{path}: {}", deps.join(" ")));
    }

    pub(crate) fn list(&self, text: &str) {
        self.write("initrd/modules.list", text);
    }

    pub(crate) fn spec(&self) -> super::BuildSpec {
        let mut spec = super::BuildSpec::new(
            &self.path("kernel"),
            &self.path("initrd"),
            &self.path("out/default.img"),
        );
        spec.busybox = self.path("busybox");
        spec.level = 3;
        spec
    }

    pub(crate) fn firmware_dirs(&self) -> FirmwareDirs {
        FirmwareDirs::new(&self.path("initrd"), &self.kernel_dir(), RELEASE)
    }

    /// What `modules.list` brings in.
    pub(crate) fn close(&self, catalog: &Catalog) -> Result<Closure, BuildError> {
        let mut faults = Faults::default();
        let list = ModuleList::read(&[self.path("initrd/modules.list")], &mut faults);
        let closure = closure::resolve(catalog, &list, &self.firmware_dirs(), &mut faults);
        faults.done().map(|()| closure)
    }

    pub(crate) fn kernel_dir(&self) -> PathBuf {
        self.path("kernel")
    }
}

impl AsRef<Path> for Lab {
    fn as_ref(&self) -> &Path {
        self.dir.path()
    }
}
