//! Bytes in memory that nobody can change and that the kernel can send by itself: a sealed memfd, mapped.

use std::fs::File;
use std::io::{self, Read, Seek};

use bytes::Bytes;
use memmap2::MmapOptions;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Reads `source` to its end; gives the memory file, and the same as bytes.
///
/// # Errors
/// The source can't be read, or there is no memory.
pub(super) fn read(source: &mut impl Read, length: u64) -> io::Result<(File, Bytes)> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut memory = File::from(memfd_create("bridgehead-boot-file", flags)?);
    memory.set_len(length)?;
    io::copy(source, &mut memory)?;
    // What was shorter or longer than its metadata said, because somebody was writing it.
    let length = memory.stream_position()?;
    memory.set_len(length)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    // Before Linux 6.7 a file sealed against writing could not be mapped shared, not even to be read.
    // SAFETY: the seals keep everybody, us too, from changing or truncating what is mapped.
    let mapped = unsafe { MmapOptions::new().map_copy_read_only(&memory)? };
    Ok((memory, Bytes::from_owner(mapped)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_sealed_is_what_was_read_and_stays_so() {
        let text = vec![7; 300_000];
        for announced in [0, 300_000, 500_000] {
            let (mut memory, bytes) = read(&mut text.as_slice(), announced).unwrap();
            assert!(bytes == text, "{announced}");
            assert!(memory.rewind().is_ok() && memory.write(b"x").is_err());
            assert!(memory.set_len(0).is_err() && memory.set_len(400_000).is_err());
        }
    }
}
