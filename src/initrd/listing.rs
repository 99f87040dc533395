//! Reading an image back: its members, its files, and from the manifest the reasons.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compress::{Compression, UNPACKED_LIMIT, unpack_one};
use super::cpio::{self, BadCpio, S_IFLNK, S_IFMT};
use super::error::{BuildError, full_text};
use super::kinds::{self, Kind, Total};
use super::manifest::{Manifest, MemberRecord, sha256};
use super::names;

/// What is in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Listing {
    /// Version of this shape: 1.
    pub schema: u32,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// The archives, in order.
    pub members: Vec<ListedMember>,
    /// Every entry of every archive, in order; of two with one path, the later one holds.
    pub files: Vec<Listed>,
    /// Files and bytes by kind.
    pub totals: Vec<Total>,
    /// The manifest beside the image, if it is this image's.
    pub manifest: Option<Manifest>,
    /// Why reasons are what the image's own `modules.dep` says: `None` with a manifest.
    pub no_manifest: Option<String>,
    /// The image's `modules.dep`.
    #[serde(skip)]
    dependencies: String,
}

/// One archive of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedMember {
    /// What it is called in the manifest: `drivers`, or the file that was appended.
    pub name: Option<String>,
    /// Whether it was appended as it was.
    pub appended: bool,
    /// Where it starts, bytes.
    pub offset: u64,
    /// How it is packed.
    pub compression: Compression,
    /// Packed bytes.
    pub size: u64,
    /// Unpacked bytes.
    pub unpacked_size: u64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Without leading `/`.
    pub path: String,
    /// Type and permission bits, as stat(2) has them.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// What it is; `None` for directories, links and devices.
    pub kind: Option<Kind>,
    /// Index into [`Listing::members`].
    pub member: usize,
    /// A symlink's target.
    pub target: Option<String>,
    /// Why it is in: `listed in modules.list:12`, `igb needs it`, `firmware of tg3`.
    pub reason: Option<String>,
}

impl ListError {
    /// The error with its causes, on one line.
    pub(crate) fn full_text(&self) -> String {
        full_text(self)
    }
}

/// A file is no initrd that we can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The file, or the manifest beside it, can't be read.
    #[error(transparent)]
    Read(#[from] BuildError),
    /// A member can't be unpacked.
    #[error("cannot unpack the member at offset {offset} of {}", path.display())]
    Unpack {
        /// The image.
        path: PathBuf,
        /// Bytes into the image.
        offset: usize,
        /// Why.
        source: io::Error,
    },
    /// A member is no newc archive.
    #[error("cannot read the cpio archive at offset {offset} of {}: {problem}", path.display())]
    Cpio {
        /// The image.
        path: PathBuf,
        /// Bytes into the image.
        offset: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads the image at `path` and its manifest. Members may be plain, gzip, xz or zstd; zeros
/// between them are skipped, as the kernel does (`init/initramfs.c`, `unpack_to_rootfs`).
///
/// # Errors
/// The file can't be read, or a member is damaged or of an unknown kind.
pub fn list(path: &Path) -> Result<Listing, ListError> {
    let bytes = std::fs::read(path).map_err(BuildError::io("read initrd", path))?;
    let mut listing = read(path, &bytes)?;
    listing.totals = kinds::totals(&listing.files);
    listing.explain(Manifest::beside(path)?);
    Ok(listing)
}

/// The members and entries of `bytes`, which `path` holds.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Listing, ListError> {
    let mut listing = Listing {
        schema: 1,
        bytes: bytes.len() as u64,
        sha256: sha256(bytes),
        members: Vec::new(),
        files: Vec::new(),
        manifest: None,
        no_manifest: None,
        totals: Vec::new(),
        dependencies: String::new(),
    };
    let mut offset = 0;
    while let Some(zeros) = bytes[offset..].iter().position(|byte| *byte != 0) {
        offset += zeros;
        offset += listing.add_member(path, bytes, offset)?;
    }
    Ok(listing)
}

impl Listing {
    /// Adds the member at `offset`; says how many bytes it takes.
    fn add_member(&mut self, path: &Path, bytes: &[u8], offset: usize) -> Result<usize, ListError> {
        let rest = &bytes[offset..];
        let damaged = |problem: BadCpio| ListError::Cpio {
            path: path.to_owned(),
            offset,
            problem: problem.to_string(),
        };
        if cpio::starts_here(rest) {
            let (entries, used) = cpio::read(rest).map_err(damaged)?;
            let used = used.min(rest.len());
            self.add_entries(&entries);
            self.push_member(offset, Compression::None, used, used);
            return Ok(used);
        }
        let unpacked_so_far: u64 = self.members.iter().map(|part| part.unpacked_size).sum();
        let limit = UNPACKED_LIMIT.saturating_sub(unpacked_so_far);
        let unpacked = unpack_one(rest, limit).map_err(|source| ListError::Unpack {
            path: path.to_owned(),
            offset,
            source,
        });
        let (unpacked, used) = unpacked?;
        let mut inside = 0;
        while let Some(zeros) = unpacked[inside..].iter().position(|byte| *byte != 0) {
            inside += zeros;
            let (entries, taken) = cpio::read(&unpacked[inside..]).map_err(damaged)?;
            self.add_entries(&entries);
            inside += taken.min(unpacked.len() - inside);
        }
        self.push_member(offset, Compression::detect(rest), used, unpacked.len());
        Ok(used)
    }

    fn push_member(&mut self, offset: usize, compression: Compression, size: usize, full: usize) {
        self.members.push(ListedMember {
            name: None,
            appended: false,
            offset: offset as u64,
            compression,
            size: size as u64,
            unpacked_size: full as u64,
        });
    }

    fn add_entries(&mut self, entries: &[cpio::Entry<'_>]) {
        let member = self.members.len();
        for entry in entries {
            if entry.name.ends_with("/modules.dep") {
                self.dependencies = String::from_utf8_lossy(entry.data).into_owned();
            }
        }
        self.files.extend(entries.iter().map(|entry| {
            Listed {
                path: entry.name.to_owned(),
                mode: entry.mode,
                size: entry.data.len() as u64,
                kind: Kind::of(entry.name, entry.mode),
                member,
                target: (entry.mode & S_IFMT == S_IFLNK)
                    .then(|| String::from_utf8_lossy(entry.data).into_owned()),
                reason: None,
            }
        }));
    }

    fn explain(&mut self, manifest: Option<Manifest>) {
        let Some(manifest) = manifest else {
            let why = "there is no manifest of schema 1 beside the image";
            return self.explain_by_dependencies(why);
        };
        if manifest.image_sha256 != self.sha256 {
            let why = "the manifest beside the image is another image's";
            return self.explain_by_dependencies(why);
        }
        let modules = manifest.modules.iter();
        let modules = modules.map(|module| {
            let reason = format!("{}{}", module.reason, module.origin);
            (module.path.as_str(), reason)
        });
        let firmware = manifest.firmware.iter();
        let firmware = firmware.map(|file| (file.path.as_str(), file.reason.to_string()));
        let others = manifest.files.iter();
        let others = others.filter_map(|file| Some((file.path.as_str(), file.reason.clone()?)));
        let reasons: HashMap<&str, String> = modules.chain(firmware).chain(others).collect();
        for member in &mut self.members {
            let mut records = manifest.members.iter();
            let within = |record: &&MemberRecord| {
                (record.offset..record.offset + record.size).contains(&member.offset)
            };
            if let Some(record) = records.find(within) {
                member.name = Some(record.name.clone());
                member.appended = record.appended;
            }
        }
        for file in &mut self.files {
            file.reason = match &self.members[file.member] {
                part if part.appended => part.name.as_ref().map(|name| format!("appended {name}")),
                _ => reasons.get(file.path.as_str()).cloned(),
            };
        }
        self.manifest = Some(manifest);
    }

    /// An image that another tool made, or that lost its manifest, still says who needs whom.
    fn explain_by_dependencies(&mut self, why: &str) {
        self.no_manifest = Some(why.to_owned());
        let mut needed_by: HashMap<String, BTreeSet<String>> = HashMap::new();
        for (module, needs) in self
            .dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
        {
            let Some(module) = names::of_path(module) else {
                continue;
            };
            for need in needs.split_whitespace().filter_map(names::of_path) {
                needed_by.entry(need).or_default().insert(module.clone());
            }
        }
        for file in &mut self.files {
            let module = file.module();
            let by = module.and_then(|name| needed_by.get(&name));
            file.reason = by.map(needs_it);
        }
    }
}

impl Listed {
    /// The name of a kernel module, as lsmod shows it; `None` for every other file.
    pub fn module(&self) -> Option<String> {
        let path = (self.kind == Some(Kind::Module)).then_some(&self.path)?;
        names::of_path(path)
    }
}

/// `igb needs it`, `igb and 2 more need it`.
fn needs_it(by: &BTreeSet<String>) -> String {
    let first = by.first().map_or("", String::as_str);
    match by.len() {
        0 | 1 => format!("{first} needs it"),
        more => format!("{first} and {} more need it", more - 1),
    }
}
