//! The state directory: private, and one daemon's alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory in it.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("another bridgehead uses the state directory {}: two of them would give addresses twice; stop that one, or name another directory with --state", .0.display())]
    InUse(PathBuf),
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io {
        operation,
        path,
        source,
    }
}

/// Makes the directory (mode 0750) and takes its lock, which goes with the process.
pub(super) fn prepare(state: &Path) -> Result<Flock<File>, StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(state)
        .map_err(failed("make the state directory", state))?;
    let path = state.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| StateError::InUse(state.to_owned()))
}

/// The control socket's path in a state directory.
pub fn control_path(state: &Path) -> PathBuf {
    state.join("bridgehead.sock")
}

/// Listens on `bridgehead.sock`, mode 0660; whoever may open it may ask. The lock is held,
/// so one that is there is a dead daemon's.
pub(super) fn control_socket(state: &Path) -> Result<UnixListener, StateError> {
    let path = control_path(state);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove the old", &path)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed("listen on", &path))?;
    listener
        .set_nonblocking(true)
        .map_err(failed("listen on", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))
        .map_err(failed("protect", &path))?;
    Ok(listener)
}
