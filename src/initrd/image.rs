//! The image file: cpio members in a row, each packed on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::append::Appended;
use super::compress::{Compression, pack_zstd};
use super::cpio;
use super::error::BuildError;
use super::manifest::{FileRecord, Manifest, MemberRecord, sha256};
use super::microcode;
use super::tree::{Item, Node, Tree, fault};

/// Paths that change when the kernel or the list changes, and not when a script is edited.
const DRIVER_PATHS: [&str; 3] = ["lib/modules", "lib/firmware", super::busybox::PATH];

const MICROCODE: &str = "microcode";
/// What the processor demands of an update that the kernel hands it where it lies (Intel SDM,
/// volume 3, "Microcode Update Loader"); iucode-tool does the same.
const MICROCODE_ALIGNMENT: usize = 16;

/// Raise it with every change that makes other bytes of the same files: a member of the last build's image is taken
/// over only if it has the same layout, and between two releases the version says nothing of that.
const LAYOUT: u32 = 1;

/// What decides the bytes besides the files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    /// zstd level.
    pub(crate) level: i32,
    /// Time of every entry, seconds since 1970.
    pub(crate) mtime: u32,
}

/// The image of the last build, if its manifest describes it.
#[derive(Debug)]
pub(crate) struct Old {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
}

impl Old {
    /// Anything wrong with the old image only means that all is packed again.
    pub(crate) fn read(image: &Path) -> Option<Self> {
        let manifest = Manifest::beside(image).ok()??;
        let bytes = fs::read(image).ok()?;
        let old = Self { manifest, bytes };
        (sha256(&old.bytes) == old.manifest.image_sha256).then_some(old)
    }

    fn member(&self, inputs: &str) -> Option<(&MemberRecord, &[u8])> {
        let record = self.manifest.members.iter();
        let record = record.into_iter().find(|member| member.inputs == inputs)?;
        let start = usize::try_from(record.offset).ok()?;
        let end = start.checked_add(usize::try_from(record.size).ok()?)?;
        let bytes = self.bytes.get(start..end)?;
        (sha256(bytes) == record.sha256).then_some((record, bytes))
    }
}

/// The finished bytes.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) members: Vec<MemberRecord>,
}

/// The image's own members, in the order in which the kernel unpacks them: what operators
/// edit has the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    /// Not compressed: the kernel looks into it before it can unpack anything.
    Microcode,
    Drivers,
    Files,
    System,
}

impl Member {
    const ALL: [Self; 4] = [Self::Microcode, Self::Drivers, Self::Files, Self::System];

    fn name(self) -> &'static str {
        match self {
            Self::Microcode => MICROCODE,
            Self::Drivers => "drivers",
            Self::Files => "files",
            Self::System => "system",
        }
    }

    /// Where a file, link or device belongs.
    fn of(path: &str, item: &Item) -> Self {
        let below = |root: &str| {
            let rest = path.strip_prefix(root);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if below(microcode::PATH) {
            Self::Microcode
        } else if DRIVER_PATHS.into_iter().any(below) {
            Self::Drivers
        } else if item.listed {
            Self::Files
        } else {
            Self::System
        }
    }
}

/// The members that each path is in: a directory is in each that has something below it, because
/// each must unpack by itself.
fn members(tree: &Tree) -> BTreeMap<&str, BTreeSet<Member>> {
    let mut members: BTreeMap<&str, BTreeSet<Member>> = BTreeMap::new();
    for (path, item) in tree.0.iter().filter(|(_, item)| item.node != Node::Dir) {
        let member = Member::of(path, item);
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        for path in above.chain([path.as_str()]) {
            members.entry(path).or_default().insert(member);
        }
    }
    for path in tree.0.keys() {
        let empty = || BTreeSet::from([Member::System]);
        members.entry(path).or_insert_with(empty);
    }
    members
}

/// Packs the tree's members, and behind them what is appended.
pub(crate) fn pack(
    tree: &Tree,
    files: &[FileRecord],
    appended: &[Appended],
    packing: Packing,
    old: Option<&Old>,
) -> Result<Image, BuildError> {
    let mut image = Image::default();
    let members = members(tree);
    for member in Member::ALL {
        let belongs = |path: &str| members[path].contains(&member);
        let records: Vec<&FileRecord> = files.iter().filter(|file| belongs(&file.path)).collect();
        if records.is_empty() {
            continue;
        }
        let inputs = inputs_of(&records, packing);
        let (packed, unpacked_size) = match old.and_then(|old| old.member(&inputs)) {
            Some((record, bytes)) => (bytes.to_vec(), record.unpacked_size),
            None => {
                let items = tree.0.iter().filter(|(path, _)| belongs(path));
                pack_member(member, items, packing)?
            }
        };
        let compression = match member {
            Member::Microcode => Compression::None,
            _ => Compression::Zstd,
        };
        image.push(member.name(), compression, unpacked_size, inputs, &packed);
    }
    for archive in appended {
        image.append(archive);
    }
    Ok(image)
}

impl Image {
    /// A plain archive must begin at a multiple of four (kernel, `init/initramfs.c`); the zeros
    /// before it are skipped.
    fn push(
        &mut self,
        name: &str,
        compression: Compression,
        unpacked_size: u64,
        inputs: String,
        bytes: &[u8],
    ) {
        let aligned = self.bytes.len().next_multiple_of(cpio::ALIGNMENT);
        self.bytes.resize(aligned, 0);
        self.members.push(MemberRecord {
            name: name.to_owned(),
            compression,
            offset: self.bytes.len() as u64,
            size: bytes.len() as u64,
            unpacked_size,
            appended: false,
            sha256: sha256(bytes),
            inputs,
        });
        self.bytes.extend(bytes);
    }

    fn append(&mut self, archive: &Appended) {
        let inputs = sha256(&archive.bytes);
        let (name, compression) = (&archive.name, archive.compression);
        self.push(
            name,
            compression,
            archive.unpacked_size,
            inputs,
            &archive.bytes,
        );
        if let Some(record) = self.members.last_mut() {
            record.appended = true;
        }
    }

    /// Bytes of the microcode.
    pub(crate) fn microcode(&self) -> u64 {
        let mut members = self.members.iter();
        let microcode = members.find(|member| member.name == MICROCODE && !member.appended);
        microcode.map_or(0, |member| member.size)
    }
}

/// The packed bytes, and how many they were.
fn pack_member<'a>(
    member: Member,
    items: impl Iterator<Item = (&'a String, &'a Item)>,
    packing: Packing,
) -> Result<(Vec<u8>, u64), BuildError> {
    let entries = items.map(|(path, item)| item.entry(path));
    let bad = |problem: String| fault(member.name(), problem);
    if member == Member::Microcode {
        let archive = cpio::write_aligned(entries, packing.mtime, MICROCODE_ALIGNMENT)
            .map_err(|problem| bad(problem.to_string()))?;
        let size = archive.len() as u64;
        return Ok((archive, size));
    }
    let archive = cpio::write(entries, packing.mtime).map_err(|error| bad(error.to_string()))?;
    let packed = pack_zstd(&archive, packing.level)
        .map_err(|problem| bad(format!("zstd level {}: {problem}", packing.level)))?;
    Ok((packed, archive.len() as u64))
}

fn inputs_of(records: &[&FileRecord], packing: Packing) -> String {
    let mut text = format!(
        "{} layout {LAYOUT} zstd {} level {} mtime {}\n",
        tool(),
        zstd::zstd_safe::version_string(),
        packing.level,
        packing.mtime
    );
    for file in records {
        text += &format!(
            "{:?} {} {} {:?} {:?} {:?}\n",
            file.path, file.mode, file.size, file.sha256, file.target, file.device
        );
    }
    sha256(text.as_bytes())
}

/// Name and version of the builder.
pub(crate) fn tool() -> String {
    format!("bridgehead {}", env!("CARGO_PKG_VERSION"))
}

/// Replaces a file whole: a reader sees the old or the new one, also after a crash.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let unfinished = dir.join(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    let result = write_synced(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if result.is_err() {
        drop(fs::remove_file(&unfinished));
    }
    result
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both members of one of each kind of node, as the kernel unpacks them.
    fn archives() -> Vec<u8> {
        let items = BTreeMap::from([
            ("dev".to_owned(), Item::dir(0o755)),
            ("dev/console".to_owned(), Item::char(0o600, 5, 1)),
            (
                "init".to_owned(),
                Item::file(0o755, b"#!/bin/sh\n".to_vec()),
            ),
            ("sbin".to_owned(), Item::symlink("bin".to_owned())),
        ]);
        let packing = Packing { level: 1, mtime: 1 };
        let (plain, _) = pack_member(Member::Microcode, items.iter(), packing).unwrap();
        let (packed, size) = pack_member(Member::System, items.iter(), packing).unwrap();
        let unpacked = super::super::compress::unpack(packed).unwrap();
        assert_eq!(unpacked.len() as u64, size);
        [plain, unpacked].concat()
    }

    #[test]
    fn other_bytes_of_the_same_files_are_another_layout() {
        let pinned = (
            1,
            "8d77ff88a3ec3cefa39219917c4a0e7587ca3ed623ee9e211c5ca4dd4fe9c30b",
        );
        let found = sha256(&archives());
        assert_eq!(
            (LAYOUT, found.as_str()),
            pinned,
            "raise LAYOUT, then pin both"
        );
    }
}
