//! What a host gets as one tar archive that its initrd can unpack.

use std::io;

use tar::{Builder, EntryType, Header};

/// One member.
pub(crate) struct Member<'a> {
    /// Path below `/`.
    pub(crate) path: &'a str,
    /// Permission bits.
    pub(crate) mode: u32,
    /// User id; no names, which only the host's root knows.
    pub(crate) owner: u32,
    /// Group id.
    pub(crate) group: u32,
    /// Seconds since the epoch.
    pub(crate) modified: u64,
    /// `None`: a directory.
    pub(crate) bytes: Option<&'a [u8]>,
}

/// Writes the archive; the same members make the same bytes.
///
/// # Errors
/// A path that tar can't hold.
pub(crate) fn archive<'a>(members: impl IntoIterator<Item = Member<'a>>) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for member in members {
        let bytes = member.bytes.unwrap_or_default();
        let mut header = Header::new_gnu();
        header.set_entry_type(match member.bytes {
            Some(_) => EntryType::Regular,
            None => EntryType::Directory,
        });
        header.set_mode(member.mode);
        header.set_uid(member.owner.into());
        header.set_gid(member.group.into());
        header.set_mtime(member.modified);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, member.path, bytes)?;
    }
    builder.into_inner()
}
