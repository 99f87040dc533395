//! Reading an image back: its members, its files, and from the manifest the reasons.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compress::{Compression, UNPACKED_LIMIT, unpack_one};
use super::cpio::{self, BadCpio, S_IFLNK, S_IFMT};
use super::error::BuildError;
use super::manifest::{Manifest, sha256};

/// What is in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Listing {
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// The archives, in order.
    pub members: Vec<ListedMember>,
    /// Every entry of every archive, in order; of two with one path, the later one holds.
    pub files: Vec<Listed>,
    /// The manifest beside the image, if it is this image's.
    pub manifest: Option<Manifest>,
    /// Why there are no reasons: `None` with a manifest.
    pub no_manifest: Option<String>,
}

/// One archive of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ListedMember {
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
    /// Index into [`Listing::members`].
    pub member: usize,
    /// A symlink's target.
    pub target: Option<String>,
    /// Why it is in: `listed in modules.list:12`, `igb needs it`, `firmware of tg3`.
    pub reason: Option<String>,
}

/// A file is no initrd that we can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The file, or the manifest beside it, can't be read.
    #[error(transparent)]
    Read(#[from] BuildError),
    /// A member can't be unpacked.
    #[error("unpack the member at offset {offset} of {}", path.display())]
    Unpack {
        /// The image.
        path: PathBuf,
        /// Bytes into the image.
        offset: usize,
        /// Why.
        source: io::Error,
    },
    /// A member is no newc archive.
    #[error("read the cpio archive at offset {offset} of {}: {problem}", path.display())]
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
    let mut listing = Listing {
        bytes: bytes.len() as u64,
        sha256: sha256(&bytes),
        members: Vec::new(),
        files: Vec::new(),
        manifest: None,
        no_manifest: None,
    };
    let mut offset = 0;
    while let Some(zeros) = bytes[offset..].iter().position(|byte| *byte != 0) {
        offset += zeros;
        offset += listing.add_member(path, &bytes, offset)?;
    }
    listing.explain(Manifest::beside(path)?);
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
            offset: offset as u64,
            compression,
            size: size as u64,
            unpacked_size: full as u64,
        });
    }

    fn add_entries(&mut self, entries: &[cpio::Entry<'_>]) {
        let member = self.members.len();
        self.files.extend(entries.iter().map(|entry| {
            Listed {
                path: entry.name.to_owned(),
                mode: entry.mode,
                size: entry.data.len() as u64,
                member,
                target: (entry.mode & S_IFMT == S_IFLNK)
                    .then(|| String::from_utf8_lossy(entry.data).into_owned()),
                reason: None,
            }
        }));
    }

    fn explain(&mut self, manifest: Option<Manifest>) {
        let Some(manifest) = manifest else {
            self.no_manifest = Some("there is no manifest of schema 1 beside the image".into());
            return;
        };
        if manifest.image_sha256 != self.sha256 {
            self.no_manifest = Some("the manifest beside the image is another image's".into());
            return;
        }
        let modules = manifest.modules.iter();
        let modules = modules.map(|module| (module.path.as_str(), module.reason.to_string()));
        let firmware = manifest.firmware.iter();
        let firmware =
            firmware.map(|file| (file.path.as_str(), format!("firmware of {}", file.module)));
        let reasons: HashMap<&str, String> = modules.chain(firmware).collect();
        for file in &mut self.files {
            file.reason = reasons.get(file.path.as_str()).cloned();
        }
        self.manifest = Some(manifest);
    }
}
