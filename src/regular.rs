//! Files that an operator names, or may put into a place that we read.
//!
//! Somebody may have put a pipe there: its opening, or its reading, would be waited for without end, and a reload with
//! it. A device could be worse.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Opens a regular file to be read.
///
/// # Errors
/// What the system says; that it is a directory; that it is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Of what it is, nothing is opened yet. To open it with O_NONBLOCK would be simpler, but fails with EAGAIN where
    // Samba or knfsd have given out a lease of the file (fcntl(2)).
    let place = regular(with(path, OFlag::O_PATH)?)?;
    match File::open(format!("/proc/self/fd/{}", place.as_raw_fd())) {
        // In a chroot without /proc.
        Err(error) if error.kind() == io::ErrorKind::NotFound => without_proc(path),
        opened => opened,
    }
}

fn without_proc(path: &Path) -> io::Result<File> {
    regular(with(path, OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?)
}

fn with(path: &Path, flags: OFlag) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits()).open(path)
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(file),
        (false, true) => Err(io::ErrorKind::IsADirectory.into()),
        (false, false) => Err(io::Error::other("it is no regular file")),
    }
}

/// The text of a regular file of at most so many bytes.
///
/// # Errors
/// As [`open`]; that it has more; that it is not UTF-8.
pub(crate) fn text(path: &Path, most: u64) -> io::Result<String> {
    let bytes = bytes(path, most)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// A regular file of at most so many bytes.
///
/// # Errors
/// As [`open`]; that it has more.
pub(crate) fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        false => Ok(bytes),
        true => Err(io::Error::other(format!("it has more than {most} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mkfifo(&at("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("pipe", at("link")).unwrap();
        let said = |path: &Path| text(path, 9).unwrap_err().to_string();
        for name in ["pipe", "socket", "link"] {
            assert_eq!(said(&at(name)), "it is no regular file", "{name}");
        }
        assert_eq!(said(Path::new("/dev/zero")), "it is no regular file");
        assert_eq!(said(dir.path()), "is a directory");
        std::fs::write(at("file"), "nine byte").unwrap();
        assert_eq!(text(&at("file"), 9).unwrap(), "nine byte");
        assert_eq!(
            text(&at("file"), 8).unwrap_err().to_string(),
            "it has more than 8 bytes"
        );
    }
    #[test]
    fn without_proc_a_file_is_read_and_a_pipe_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mkfifo(&at("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let refused = without_proc(&at("pipe")).unwrap_err().to_string();
        assert_eq!(refused, "it is no regular file");
        std::fs::write(at("file"), "text").unwrap();
        let text = io::read_to_string(without_proc(&at("file")).unwrap());
        assert_eq!(text.unwrap(), "text");
    }
}
