//! `NAME.manifest`: what is in `NAME.img` and why, as JSON.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::catalog::Origin;
use super::closure::Reason;
use super::compress::Compression;
use super::error::BuildError;
use super::firmware::FirmwareReason;
use super::tree::{Item, Node};

/// The version of this JSON shape.
pub(crate) const SCHEMA: u32 = 1;

/// The record that stands beside an image. It holds nothing of the machine that built it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this shape: 1.
    pub schema: u32,
    /// Who built it: `bridgehead 0.1.0`.
    pub tool: String,
    /// The kernel that the modules are for, `uname -r`.
    pub kernel_release: String,
    /// SHA-256 of the image file, hexadecimal.
    pub image_sha256: String,
    /// Bytes of the image file.
    pub image_size: u64,
    /// Bytes of the members before compression.
    pub unpacked_size: u64,
    /// The image's members, in order.
    pub members: Vec<MemberRecord>,
    /// Modules by name.
    pub modules: Vec<ModuleRecord>,
    /// Listed drivers that the kernel has built in.
    pub builtin: Vec<String>,
    /// Firmware by path.
    pub firmware: Vec<FirmwareRecord>,
    /// Everything, by path.
    pub files: Vec<FileRecord>,
}

/// One cpio archive of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// `microcode`, `drivers`, `files` or `system`; of an appended one, its file's name.
    pub name: String,
    /// How it is packed.
    pub compression: Compression,
    /// Where it starts in the image, bytes.
    pub offset: u64,
    /// Packed bytes.
    pub size: u64,
    /// Bytes before packing.
    pub unpacked_size: u64,
    /// Whether it is the operator's own, taken as it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub appended: bool,
    /// SHA-256 of the packed bytes.
    pub sha256: String,
    /// SHA-256 over everything that decides the packed bytes; equal inputs are not packed again.
    pub inputs: String,
}

/// A kernel module in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRecord {
    /// As lsmod shows it.
    pub name: String,
    /// In the image, without leading `/`.
    pub path: String,
    /// Why it is in.
    pub reason: Reason,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Origin::is_kernel")]
    pub origin: Origin,
    /// Unpacked bytes.
    pub size: u64,
}

/// A firmware file in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareRecord {
    /// In the image, without leading `/`.
    pub path: String,
    /// Why it is in.
    pub reason: FirmwareReason,
    /// Unpacked bytes.
    pub size: u64,
}

/// A path of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Without leading `/`.
    pub path: String,
    /// Type and permissions, octal, as stat(2) has them: `100755`.
    pub mode: String,
    /// Bytes; of a symlink, its target's length.
    pub size: u64,
    /// SHA-256 of a file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// A symlink's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// A device's major and minor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Why it is in: `hook after nic`. Modules and firmware have theirs in their own records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl FileRecord {
    pub(crate) fn of(path: &str, item: &Item) -> Self {
        let entry = item.entry(path);
        let mut record = Self {
            path: path.to_owned(),
            mode: format!("{:o}", entry.mode),
            size: entry.data.len() as u64,
            sha256: None,
            target: None,
            device: None,
            reason: item.reason.clone(),
        };
        match &item.node {
            Node::Dir => {}
            Node::File(bytes) => record.sha256 = Some(sha256(bytes)),
            Node::Symlink(target) => record.target = Some(target.clone()),
            Node::Char(major, minor) => record.device = Some((*major, *minor)),
        }
        record
    }
}

impl Manifest {
    /// Where the manifest of `image` stands: `NAME.img` has `NAME.manifest`.
    pub fn path_for(image: &Path) -> PathBuf {
        image.with_extension("manifest")
    }

    /// Reads the manifest beside `image`; `None` if there is none of this schema.
    ///
    /// # Errors
    /// The file is there and can't be read.
    pub fn beside(image: &Path) -> Result<Option<Self>, BuildError> {
        let path = Self::path_for(image);
        match fs::read(&path) {
            Ok(bytes) => {
                let manifest: Option<Self> = serde_json::from_slice(&bytes).ok();
                Ok(manifest.filter(|manifest| manifest.schema == SCHEMA))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BuildError::io("read manifest", &path)(error)),
        }
    }

    /// The JSON text, with a newline at its end.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// SHA-256 as lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
