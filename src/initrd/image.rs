//! The image file: cpio members in a row, each packed on its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::compress::{Compression, pack_zstd};
use super::cpio;
use super::error::BuildError;
use super::manifest::{FileRecord, Manifest, MemberRecord, sha256};
use super::tree::{Item, Node, Tree, fault};

/// Paths that change when the kernel or the list changes, and not when a script is edited.
const DRIVER_PATHS: [&str; 3] = ["lib/modules", "lib/firmware", super::busybox::PATH];

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

/// Packs the tree as a member of drivers and one of everything else. The kernel unpacks them
/// in this order, so what operators edit has the last word.
pub(crate) fn pack(
    tree: &Tree,
    files: &[FileRecord],
    packing: Packing,
    old: Option<&Old>,
) -> Result<Image, BuildError> {
    let mut image = Image::default();
    for (name, drivers) in [("drivers", true), ("system", false)] {
        let belongs = |path: &str| in_member(tree, path, drivers);
        let records: Vec<&FileRecord> = files.iter().filter(|file| belongs(&file.path)).collect();
        let inputs = inputs_of(&records, packing);
        match old.and_then(|old| old.member(&inputs)) {
            Some((record, bytes)) => image.push(name, record.unpacked_size, inputs, bytes),
            None => {
                let items = tree.0.iter().filter(|(path, _)| belongs(path));
                let (packed, unpacked) = pack_member(name, items, packing)?;
                image.push(name, unpacked, inputs, &packed);
            }
        }
    }
    Ok(image)
}

impl Image {
    fn push(&mut self, name: &str, unpacked_size: u64, inputs: String, bytes: &[u8]) {
        self.members.push(MemberRecord {
            name: name.to_owned(),
            compression: Compression::Zstd,
            offset: self.bytes.len() as u64,
            size: bytes.len() as u64,
            unpacked_size,
            sha256: sha256(bytes),
            inputs,
        });
        self.bytes.extend(bytes);
    }
}

fn pack_member<'a>(
    name: &str,
    items: impl Iterator<Item = (&'a String, &'a Item)>,
    packing: Packing,
) -> Result<(Vec<u8>, u64), BuildError> {
    let entries = items.map(|(path, item)| item.entry(path));
    let archive =
        cpio::write(entries, packing.mtime).map_err(|problem| fault(name, problem.to_string()))?;
    let packed = pack_zstd(&archive, packing.level)
        .map_err(|problem| fault(name, format!("zstd level {}: {problem}", packing.level)))?;
    Ok((packed, archive.len() as u64))
}

/// Directories above drivers are in both members: each must unpack by itself.
fn in_member(tree: &Tree, path: &str, drivers: bool) -> bool {
    let below = |root: &str, path: &str| {
        let rest = path.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_driver = DRIVER_PATHS.iter().any(|root| below(root, path));
    let above_driver = DRIVER_PATHS.iter().any(|root| below(path, root));
    let is_dir = tree.0.get(path).is_some_and(|item| item.node == Node::Dir);
    match drivers {
        true => is_driver || (above_driver && is_dir),
        false => !is_driver,
    }
}

fn inputs_of(records: &[&FileRecord], packing: Packing) -> String {
    let mut text = format!(
        "{} zstd {} level {} mtime {}\n",
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
