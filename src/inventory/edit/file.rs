//! The file under the editor: one writer at a time, and the new text or the old one, never half.
//!
//! Who edits may be root in a directory of somebody else, who may put other things in the place of names while that
//! goes on. So each name is resolved once, and what it led to is kept open: the directory, and the file in it.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::EditError;
use crate::inventory::include::Seen;

/// Another edit takes a moment; longer than this it is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The right to write, as long as it is held: a lock on the inventory's directory, for the file
/// itself is another one after each edit.
#[derive(Debug)]
pub(super) struct Turn {
    _directory: File,
}

impl Turn {
    pub(super) fn take(inventory: &Path) -> Result<Self, EditError> {
        let directory = directory_of(inventory);
        let fail = |source| EditError::io("open", &directory, source);
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
        let file = options.open(&directory).map_err(fail)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _directory: file }),
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(EditError::Busy(directory)),
                Err(TryLockError::Error(source)) => {
                    return Err(EditError::io("lock", &directory, source));
                }
            }
        }
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What tells one state of a file from the next.
fn state(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

/// A directory that is kept open.
#[derive(Debug)]
struct Directory(File);

impl Directory {
    /// The directory of this path, which has no links: one that was put there since is refused.
    fn of(path: &Path) -> io::Result<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let directory = openat2(AT_FDCWD, &directory_of(path), how)?;
        Ok(Self(directory.into()))
    }

    /// A regular file in it, itself and no link to one; a pipe is not waited for.
    fn open(&self, name: &Path) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is no regular file")),
        }
    }

    /// A new file in it, its owner's alone.
    fn create(&self, name: &Path) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(openat(&self.0, name, flags, mode)?.into())
    }
}

/// A file's text, and what it was when it was read.
#[derive(Debug)]
pub(super) struct Original {
    /// Links followed: a link is kept, and what it leads to is edited.
    pub(super) path: PathBuf,
    pub(super) text: String,
    directory: Directory,
    name: PathBuf,
    metadata: Metadata,
}

impl Original {
    /// Reads one of the files that were just `seen`, which it must be still.
    pub(super) fn read(path: &Path, seen: &[Seen]) -> Result<Self, EditError> {
        let fail = |source| EditError::io("read", path, source);
        let real = path.canonicalize().map_err(fail)?;
        let name = PathBuf::from(real.file_name().unwrap_or_default());
        let directory = Directory::of(&real).map_err(fail)?;
        let mut file = directory.open(&name).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        let mut seen = seen.iter();
        if !seen.any(|seen| state(&seen.metadata) == state(&metadata)) {
            return Err(EditError::Changed(real));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(fail)?;
        Ok(Self {
            path: real,
            text,
            directory,
            name,
            metadata,
        })
    }

    /// Puts the new text in the old one's place, with its owner and mode. What is said is true of an edit that was made.
    pub(super) fn replace(&self, text: &str) -> Result<Option<String>, EditError> {
        // Hidden, so that no wildcard of `include:` means it.
        let new = format!(".{}.new-{}", self.name.display(), std::process::id());
        let new = Path::new(&new);
        let directory = &self.directory;
        let written = self.write(new, text).and_then(|()| {
            let now = directory.open(&self.name)?.metadata()?;
            if state(&now) != state(&self.metadata) {
                return Ok(false);
            }
            renameat(&directory.0, new, &directory.0, &self.name)?;
            Ok(true)
        });
        match written {
            Ok(true) => Ok(self.settle(directory.0.sync_all())),
            Ok(false) => {
                self.remove(new);
                Err(EditError::Changed(self.path.clone()))
            }
            Err(source) => {
                self.remove(new);
                Err(EditError::io("write", &self.path, source))
            }
        }
    }

    fn remove(&self, new: &Path) {
        let _ = unlinkat(&self.directory.0, new, UnlinkatFlags::NoRemoveDir);
    }

    /// The edit is in place, whatever the directory's disk says.
    fn settle(&self, synced: io::Result<()>) -> Option<String> {
        let error = synced.err()?;
        let directory = directory_of(&self.path);
        let (path, directory) = (self.path.display(), directory.display());
        Some(format!(
            "{path} is written, but {directory} could not be flushed to its disk ({error}): look whether the edit is still there after a power cut"
        ))
    }

    fn write(&self, name: &Path, text: &str) -> io::Result<()> {
        let mut file = self.directory.create(name)?;
        file.write_all(text.as_bytes())?;
        give(&self.metadata, |owner, group| fchown(&file, owner, group))?;
        // Nobody runs it: no set-user-ID.
        let mode = self.metadata.mode() & 0o777;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    }
}

/// Gives the new file the old one's owner and group, by `chown`.
///
/// Who edits may not be able to give the owner; the group is by what a daemon of another user reads it.
fn give(
    old: &Metadata,
    chown: impl Fn(Option<u32>, Option<u32>) -> io::Result<()>,
) -> io::Result<()> {
    let (owner, group) = (Some(old.uid()), Some(old.gid()));
    let given = chown(owner, group).or_else(|_| chown(None, group));
    let mode = old.mode();
    let group_only = (mode >> 3) & !mode & 0o7;
    given.or_else(|error| match group_only {
        0 => Ok(()),
        _ => Err(io::Error::new(
            error.kind(),
            format!(
                "its group {} can't be kept, which may do more with it than others ({error}); edit it as its owner or root",
                old.gid()
            ),
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What became of owner and group, as one who may not give the owner, or neither, edits a file of this mode.
    fn given(mode: u32, may_give_group: bool) -> Option<Vec<bool>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let calls = std::cell::RefCell::new(Vec::new());
        let chown = |owner: Option<u32>, group: Option<u32>| {
            let fine = owner.is_none() && group.is_some() && may_give_group;
            calls.borrow_mut().push(fine);
            fine.then_some(())
                .ok_or(io::ErrorKind::PermissionDenied.into())
        };
        give(&fs::metadata(path).unwrap(), chown)
            .ok()
            .map(|()| calls.into_inner())
    }

    #[test]
    fn the_group_stays_where_the_owner_cannot_and_counts_where_it_may_do_more() {
        assert_eq!(given(0o640, true), Some(vec![false, true]));
        assert_eq!(given(0o640, false), None);
        assert_eq!(given(0o664, false), None);
        assert_eq!(given(0o644, false), Some(vec![false, false]));
        assert_eq!(given(0o600, false), Some(vec![false, false]));
    }

    fn seen(path: &Path) -> Vec<Seen> {
        let metadata = fs::metadata(path).unwrap();
        vec![Seen {
            path: path.to_owned(),
            metadata,
        }]
    }

    /// As the directory's owner may do it at any moment of an edit.
    #[test]
    fn what_is_put_in_the_place_of_a_name_meanwhile_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["own", "secret"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("hosts.yaml"), name).unwrap();
        }
        let (file, secret) = (at("own/hosts.yaml"), at("secret/hosts.yaml"));
        let loaded = seen(&file);

        // A link or a pipe after the inventory was loaded.
        fs::rename(&file, at("own/real")).unwrap();
        std::os::unix::fs::symlink(&secret, &file).unwrap();
        let error = Original::read(&file, &loaded).unwrap_err();
        assert!(matches!(error, EditError::Changed(_)), "{error:?}");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let error = Original::read(&file, &loaded).unwrap_err();
        assert!(matches!(error, EditError::Io { .. }), "{error:?}");
        fs::remove_file(&file).unwrap();
        fs::rename(at("own/real"), &file).unwrap();

        // Another directory after the file was read.
        let original = Original::read(&file, &loaded).unwrap();
        fs::rename(at("own"), at("moved")).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("own")).unwrap();
        assert_eq!(original.replace("new").unwrap(), None);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(fs::read_to_string(at("moved/hosts.yaml")).unwrap(), "new");
        assert_eq!(fs::read_dir(at("moved")).unwrap().count(), 1);
        assert!(Directory::of(&file).is_err(), "a link on the way");
    }

    #[test]
    fn a_file_that_another_wrote_or_put_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("hosts.yaml"), dir.path().join("other"));
        fs::write(&file, "old").unwrap();
        let original = Original::read(&file, &seen(&file)).unwrap();
        fs::write(&other, "theirs").unwrap();
        fs::rename(&other, &file).unwrap();
        let error = original.replace("new").unwrap_err();
        assert!(matches!(error, EditError::Changed(_)), "{error:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_mode_stays_but_for_what_would_run_it_as_another() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real"), dir.path().join("hosts.yaml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let original = Original::read(&link, &seen(&link)).unwrap();
        original.replace("new").unwrap();
        let mode = fs::metadata(&file).unwrap().mode() & 0o7777;
        assert_eq!((mode, &*fs::read_to_string(&file).unwrap()), (0o640, "new"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    /// Some file systems flush no directory.
    #[test]
    fn an_edit_that_is_in_place_is_not_called_unwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts.yaml");
        fs::write(&file, "old").unwrap();
        let original = Original::read(&file, &seen(&file)).unwrap();
        assert_eq!(original.settle(Ok(())), None);
        let said = original
            .settle(Err(io::Error::from_raw_os_error(5)))
            .unwrap();
        assert!(said.contains("hosts.yaml is written, but"), "{said}");
    }
}
