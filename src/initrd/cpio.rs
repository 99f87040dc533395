//! The newc format (cpio(5) "New ASCII Format"; kernel, `buffer-format.rst`): a 110-byte
//! header of hexadecimal fields, name and data each padded to 4 bytes.

/// File type bits of `mode`.
pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;
pub(crate) const S_IFCHR: u32 = 0o020_000;

const HEADER: usize = 110;
/// Where name and data end, and where an archive may begin.
pub(crate) const ALIGNMENT: usize = 4;
const TRAILER: &str = "TRAILER!!!";
/// Archives end on a whole block, as cpio's own do.
const BLOCK: usize = 512;
/// Longer names than the kernel takes (`PATH_MAX`).
const NAME_LIMIT: usize = 4096;

/// One entry, borrowed from whatever holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Without a leading `/`.
    pub(crate) name: &'a str,
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// Major and minor of a device node.
    pub(crate) rdev: (u32, u32),
    /// Content, or the target of a symlink.
    pub(crate) data: &'a [u8],
}

/// Too large for the format's 32-bit fields.
#[derive(Debug, thiserror::Error)]
#[error("larger than 4 GiB, the limit of newc")]
pub(crate) struct TooLarge;

/// Writes an archive: owner 0:0, the given time, inodes counted from 1.
pub(crate) fn write<'a>(
    entries: impl Iterator<Item = Entry<'a>>,
    mtime: u32,
) -> Result<Vec<u8>, TooLarge> {
    write_aligned(entries, mtime, ALIGNMENT)
}

/// The same, with every entry's data at a multiple of `alignment`, by zeros behind its name.
pub(crate) fn write_aligned<'a>(
    entries: impl Iterator<Item = Entry<'a>>,
    mtime: u32,
    alignment: usize,
) -> Result<Vec<u8>, TooLarge> {
    let mut archive = Vec::new();
    let mut inode = 0;
    for entry in entries {
        inode += 1;
        push(&mut archive, inode, mtime, alignment, &entry)?;
    }
    let trailer = Entry {
        name: TRAILER,
        mode: 0,
        rdev: (0, 0),
        data: &[],
    };
    push(&mut archive, 0, 0, ALIGNMENT, &trailer)?;
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    Ok(archive)
}

fn push(
    archive: &mut Vec<u8>,
    inode: u32,
    mtime: u32,
    alignment: usize,
    entry: &Entry<'_>,
) -> Result<(), TooLarge> {
    let links = if entry.mode & S_IFMT == S_IFDIR { 2 } else { 1 };
    let size = u32::try_from(entry.data.len()).map_err(|_| TooLarge)?;
    let mut name = entry.name.as_bytes().to_vec();
    name.push(0);
    if alignment > ALIGNMENT {
        let name_at = archive.len() + HEADER;
        name.resize(
            (name_at + name.len()).next_multiple_of(alignment) - name_at,
            0,
        );
    }
    let name_size = u32::try_from(name.len()).map_err(|_| TooLarge)?;
    archive.extend(b"070701");
    let fields = [
        inode,
        entry.mode,
        0,
        0,
        links,
        mtime,
        size,
        0,
        0,
        entry.rdev.0,
        entry.rdev.1,
        name_size,
        0,
    ];
    for field in fields {
        archive.extend(format!("{field:08X}").into_bytes());
    }
    archive.extend(name);
    pad(archive);
    archive.extend(entry.data);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(ALIGNMENT), 0);
}

/// The bytes are no newc archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCpio {
    #[error("no newc header at offset {0}")]
    Header(usize),
    #[error("the archive ends in the middle of the entry at offset {0}")]
    Truncated(usize),
    #[error("the name at offset {0} is not valid")]
    Name(usize),
}

/// Whether an archive starts here: `070701`, or `070702` with checksums.
pub(crate) fn starts_here(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701") || bytes.starts_with(b"070702")
}

/// Reads up to and with the trailer; also says how many bytes that took.
pub(crate) fn read(bytes: &[u8]) -> Result<(Vec<Entry<'_>>, usize), BadCpio> {
    let mut entries = Vec::new();
    let mut offset = 0;
    loop {
        let (entry, next) = read_entry(bytes, offset)?;
        offset = next;
        if entry.name == TRAILER {
            return Ok((entries, offset));
        }
        entries.push(entry);
    }
}

fn read_entry(bytes: &[u8], offset: usize) -> Result<(Entry<'_>, usize), BadCpio> {
    let cut = BadCpio::Truncated(offset);
    let header = bytes.get(offset..offset + HEADER).ok_or(cut.clone())?;
    if !starts_here(header) {
        return Err(BadCpio::Header(offset));
    }
    let field = |index: usize| {
        let digits = header.get(6 + 8 * index..14 + 8 * index);
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        text.and_then(|text| u32::from_str_radix(text, 16).ok())
            .ok_or(BadCpio::Header(offset))
    };
    let (size, name_size) = (field(6)? as usize, field(11)? as usize);
    if name_size == 0 || name_size > NAME_LIMIT {
        return Err(BadCpio::Name(offset));
    }
    let name_at = offset + HEADER;
    let name = bytes.get(name_at..name_at + name_size).ok_or(cut.clone())?;
    let name = std::str::from_utf8(&name[..name_size - 1]).map_err(|_| BadCpio::Name(offset))?;
    let name = name.trim_end_matches('\0');
    let data_at = (name_at + name_size).next_multiple_of(4);
    let data = bytes.get(data_at..data_at + size).ok_or(cut)?;
    let entry = Entry {
        name,
        mode: field(1)?,
        rdev: (field(9)?, field(10)?),
        data,
    };
    Ok((entry, (data_at + size).next_multiple_of(4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry<'a>(name: &'a str, mode: u32, data: &'a [u8]) -> Entry<'a> {
        Entry {
            name,
            mode,
            rdev: (0, 0),
            data,
        }
    }

    #[test]
    fn golden_bytes() {
        let console = Entry {
            rdev: (5, 1),
            ..entry("dev/console", S_IFCHR | 0o600, b"")
        };
        let entries = [
            entry("dev", S_IFDIR | 0o755, b""),
            console,
            entry("init", S_IFREG | 0o755, b"hi\n"),
        ];
        let archive = write(entries.into_iter(), 0x1234).unwrap();
        let expected = concat!(
            "070701",
            "00000001",
            "000041ED",
            "00000000",
            "00000000",
            "00000002",
            "00001234",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000004",
            "00000000",
            "dev\0",
            "\0\0",
            "070701",
            "00000002",
            "00002180",
            "00000000",
            "00000000",
            "00000001",
            "00001234",
            "00000000",
            "00000000",
            "00000000",
            "00000005",
            "00000001",
            "0000000C",
            "00000000",
            "dev/console\0",
            "\0\0",
            "070701",
            "00000003",
            "000081ED",
            "00000000",
            "00000000",
            "00000001",
            "00001234",
            "00000003",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000005",
            "00000000",
            "init\0",
            "\0",
            "hi\n",
            "\0",
            "070701",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "0000000B",
            "00000000",
            "TRAILER!!!\0",
            "\0\0\0",
        );
        let (head, padding) = archive.split_at(expected.len());
        assert_eq!(String::from_utf8_lossy(head), expected);
        assert!(padding.iter().all(|byte| *byte == 0));
        assert_eq!(archive.len() % 512, 0);
        let (read_back, used) = read(&archive).unwrap();
        assert_eq!(read_back, entries);
        assert_eq!(used, expected.len());
    }

    #[test]
    fn damage_is_located() {
        let archive = write([entry("a", S_IFREG, b"data")].into_iter(), 0).unwrap();
        assert_eq!(read(&archive[..50]), Err(BadCpio::Truncated(0)));
        assert_eq!(read(&archive[..114]), Err(BadCpio::Truncated(0)));
        assert_eq!(read(&[b'x'; 200]), Err(BadCpio::Header(0)));
        let mut long = archive.clone();
        long[94..102].copy_from_slice(b"FFFFFFFF");
        assert_eq!(read(&long), Err(BadCpio::Name(0)));
    }

    proptest! {
        #[test]
        fn reading_never_panics(at in 0usize..110, value: u8, cut in 0usize..300) {
            let mut archive = write([entry("name", S_IFREG, b"data")].into_iter(), 0).unwrap();
            archive[at] = value;
            let _ = read(&archive[..cut.min(archive.len())]);
        }
    }
}
