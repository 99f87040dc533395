//! What a file of an image is, for the totals of a listing.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::cpio::{S_IFMT, S_IFREG};
use super::listing::Listed;
use super::{hooks, names};

/// What a regular file of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Loaded by the kernel before anything else of the image is unpacked.
    Microcode,
    /// A kernel module.
    Module,
    /// What a driver gives to its device.
    Firmware,
    /// Something executable, or a shared library.
    Program,
    /// The operator's, after a stage.
    Hook,
    /// Stages, their library, indexes, what the root gets.
    Other,
}

/// The files of one kind together; of two with one path, the later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Which kind.
    pub kind: Kind,
    /// How many files.
    pub files: u64,
    /// Their bytes, unpacked.
    pub bytes: u64,
}

impl Kind {
    /// Told by path and mode; `None` for what is no regular file.
    pub(crate) fn of(path: &str, mode: u32) -> Option<Self> {
        if mode & S_IFMT != S_IFREG {
            return None;
        }
        // Others' images have /lib as a link to usr/lib.
        let path = path.strip_prefix("usr/").unwrap_or(path);
        Some(if path.starts_with("kernel/x86/microcode/") {
            Self::Microcode
        } else if path.starts_with("lib/modules/") && names::is_module_file(path) {
            Self::Module
        } else if path.starts_with("lib/firmware/") {
            Self::Firmware
        } else if path.starts_with(hooks::PATH) {
            Self::Hook
        } else if mode & 0o111 != 0 || is_library(path) {
            Self::Program
        } else {
            Self::Other
        })
    }

    /// The plural, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Microcode => "microcode",
            Self::Module => "modules",
            Self::Firmware => "firmware",
            Self::Program => "programs",
            Self::Hook => "hooks",
            Self::Other => "other",
        }
    }
}

/// `lib/x86_64-linux-gnu/libc.so.6`.
fn is_library(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    path.starts_with("lib") && (file.ends_with(".so") || file.contains(".so."))
}

/// Totals by kind, in the order of [`Kind`]; a kind that is not there has none.
pub(crate) fn totals(files: &[Listed]) -> Vec<Total> {
    let last: HashMap<&str, &Listed> = files
        .iter()
        .map(|file| (file.path.as_str(), file))
        .collect();
    let mut sums: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
    for file in last.values() {
        if let Some(kind) = file.kind {
            let sum = sums.entry(kind).or_default();
            *sum = (sum.0 + 1, sum.1 + file.size);
        }
    }
    let total = |(kind, (files, bytes))| Total { kind, files, bytes };
    sums.into_iter().map(total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_path_and_mode() {
        for (path, mode, kind) in [
            (
                "kernel/x86/microcode/GenuineIntel.bin",
                0o100_644,
                Some(Kind::Microcode),
            ),
            ("lib/modules/6.1/kernel/a.ko", 0o100_644, Some(Kind::Module)),
            (
                "usr/lib/modules/6.1/kernel/a.ko.zst",
                0o100_644,
                Some(Kind::Module),
            ),
            ("lib/modules/6.1/modules.dep", 0o100_644, Some(Kind::Other)),
            ("lib/firmware/a.fw", 0o100_644, Some(Kind::Firmware)),
            (
                "lib/bridgehead/hooks/nic.d/10-a",
                0o100_755,
                Some(Kind::Hook),
            ),
            ("bin/busybox", 0o100_755, Some(Kind::Program)),
            (
                "lib/x86_64-linux-gnu/libc.so.6",
                0o100_644,
                Some(Kind::Program),
            ),
            ("bin/sh", 0o120_777, None),
            ("bin", 0o040_755, None),
        ] {
            assert_eq!(Kind::of(path, mode), kind, "{path}");
        }
    }
}
