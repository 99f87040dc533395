//! File handles: which export, which file, and nothing that changes with a restart.

use nfs3_server::vfs::FileHandle;
use sha2::{Digest, Sha256};

/// Engine's prefix of every handle. Fixed: its default, the start time, makes every handle stale at each
/// restart, and a client that has its root here would not survive it.
pub(super) const GENERATION: u64 = 0x6272_6964_6765_0001;

/// Bytes of a handle on the wire: generation, export id, file id.
const WIRE_LEN: usize = 24;

/// The part of a handle that is ours: export id and file id, both big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handle([u8; 16]);

impl Handle {
    pub(super) fn new(export: u64, file: u64) -> Self {
        Self((u128::from(export) << 64 | u128::from(file)).to_be_bytes())
    }

    pub(super) fn export(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    pub(super) fn file(self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }

    /// Reads an `nfs_fh3`; `None` if the length or the generation is not ours.
    pub(super) fn from_wire(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; WIRE_LEN] = bytes.try_into().ok()?;
        let (generation, own) = bytes.split_at(8);
        if generation == GENERATION.to_le_bytes() {
            own.try_into().ok().map(Self)
        } else {
            None
        }
    }
}

impl FileHandle for Handle {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// The id of an export (also its `fsid`): the first 64 bits of SHA-256 over its name.
pub(super) fn export_id(name: &str) -> u64 {
    first_u64(Sha256::digest(name).as_slice())
}

/// The id of a file: the first 64 bits of SHA-256 over export name, NUL, path. Never 0, which `nfs3_server`
/// reserves.
pub(super) fn file_id(export: &str, path: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(export);
    hash.update([0]);
    hash.update(path);
    first_u64(hash.finalize().as_slice()).max(1)
}

/// A directory cookie from an entry's name alone, so that a listing goes on over a rescan: above the cookies
/// of `.` and `..`, and within the 63 bits that a client can hand to `telldir`.
pub(super) fn cookie(name: &[u8]) -> u64 {
    (first_u64(Sha256::digest(name).as_slice()) >> 2).max(3)
}

fn first_u64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_change_between_releases() {
        // printf 'kvm-host\0etc/fstab' | sha256sum
        assert_eq!(export_id("kvm-host"), 0x9090_16f3_76fa_b85a);
        assert_eq!(file_id("kvm-host", b"etc/fstab"), 0x5fef_9011_a77d_74ee);
    }

    #[test]
    fn only_our_own_handles_are_read() {
        let handle = Handle::new(7, 9);
        let mut wire = GENERATION.to_le_bytes().to_vec();
        wire.extend_from_slice(handle.as_bytes());
        assert_eq!(Handle::from_wire(&wire), Some(handle));
        assert_eq!((handle.export(), handle.file()), (7, 9));
        assert_eq!(Handle::from_wire(&wire[..23]), None);
        assert_eq!(Handle::from_wire(&[]), None);
        wire[0] ^= 1;
        assert_eq!(Handle::from_wire(&wire), None);
    }
}
