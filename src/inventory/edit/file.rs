//! The file under the editor: one writer at a time, and the new text or the old one, never half.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::EditError;

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
        let file = File::open(&directory).map_err(fail)?;
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
fn state(metadata: &Metadata) -> (u64, u64, i64, i64) {
    (
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

/// A file's text, and what it was when it was read.
#[derive(Debug)]
pub(super) struct Original {
    /// Links followed: a link is kept, and what it leads to is edited.
    pub(super) path: PathBuf,
    pub(super) text: String,
    metadata: Metadata,
}

impl Original {
    pub(super) fn read(path: &Path) -> Result<Self, EditError> {
        let fail = |source| EditError::io("read", path, source);
        let real = path.canonicalize().map_err(fail)?;
        let metadata = fs::metadata(&real).map_err(fail)?;
        let text = fs::read_to_string(&real).map_err(fail)?;
        Ok(Self {
            path: real,
            text,
            metadata,
        })
    }

    /// Puts the new text in the old one's place, durably, with its owner and mode.
    pub(super) fn replace(&self, text: &str) -> Result<(), EditError> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        // Hidden, so that no wildcard of `include:` means it.
        let new = self
            .path
            .with_file_name(format!(".{name}.new-{}", std::process::id()));
        let written = self.write(&new, text).and_then(|()| {
            let now = fs::metadata(&self.path)?;
            if state(&now) != state(&self.metadata) {
                return Ok(false);
            }
            fs::rename(&new, &self.path)?;
            File::open(directory_of(&self.path))?.sync_all()?;
            Ok(true)
        });
        if !matches!(written, Ok(true)) {
            let _ = fs::remove_file(&new);
        }
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(EditError::Changed(self.path.clone())),
            Err(source) => Err(EditError::io("write", &self.path, source)),
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        give(&self.metadata, |owner, group| fchown(&file, owner, group))?;
        let mode = self.metadata.mode() & 0o7777;
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
}
