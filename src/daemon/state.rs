//! The state directory: private, and one daemon's alone.

use std::error::Error;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use walkdir::{DirEntry, WalkDir};

use crate::http::Tokens;
use crate::regular;

/// A shorter token could be guessed, characters.
const LEAST_TOKEN: usize = 16;
/// A larger file holds none, bytes.
const MOST_TOKEN: u64 = 4096;

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
    #[error("another bridgehead{} uses the state directory {}: two of them would give addresses twice; stop that one, or name another directory with --state", process(*pid), path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other's process, where it left its number.
        pid: Option<u32>,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
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
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            sign(&lock);
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let path = state.to_owned();
            let pid = signed(&mut file);
            Err(StateError::InUse { path, pid })
        }
        // Some network file systems know no locks.
        Err((_, errno)) => Err(failed("lock", &path)(errno.into())),
    }
}

/// What the daemon writes and nobody else has a use for. Tokens are the operator's to share.
const OURS: [&str; 13] = [
    "events.jsonl",
    "events.kept.jsonl",
    "events.kept.new",
    "events.old.jsonl",
    "inventory.kept",
    "inventory.kept.new",
    "inventory.kept.old",
    "inventory.new",
    "leases.jsonl",
    "leases.jsonl.new",
    "lock",
    "roots.json",
    "roots.new",
];
/// Last words, and all below.
const CONSOLES: &str = "console";
/// And journals that were put aside, by how their names begin.
const ASIDE: &str = "leases.jsonl.damaged-";

/// Serial numbers, last words of hosts, and who has which address are for the daemon's eyes, and for who asks it: what
/// is there becomes so, and what it makes from now on is. What else lies there is somebody else's.
pub(super) fn keep_private(state: &Path) {
    nix::sys::stat::umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let walk = WalkDir::new(state).min_depth(1).into_iter();
    let ours = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy();
        match entry.file_type().is_dir() {
            _ if entry.depth() > 1 => true,
            true => name == CONSOLES,
            false => OURS.contains(&&*name) || name.starts_with(ASIDE),
        }
    };
    for entry in walk.filter_entry(ours).filter_map(Result::ok) {
        if let Err(error) = close(&entry) {
            tracing::warn!("cannot close {} to others: {error}", entry.path().display());
        }
    }
}

fn close(entry: &DirEntry) -> io::Result<()> {
    let (kind, mode) = (entry.file_type(), entry.metadata()?.mode());
    if mode & 0o077 == 0 || !(kind.is_file() || kind.is_dir()) {
        return Ok(());
    }
    fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode & 0o700))
}

/// Leaves our number for one who finds the lock taken. Without it the lock is as good.
fn sign(mut file: &File) {
    let number = format!("{}\n", std::process::id());
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all(number.as_bytes()));
}

fn signed(file: &mut File) -> Option<u32> {
    let mut number = String::new();
    file.take(16).read_to_string(&mut number).ok()?;
    number.trim().parse().ok()
}

/// Reads what lets somebody read or write over the network. A file that is no good closes that way, and no more: hosts
/// boot without it.
pub(super) fn read_tokens(state: &Path, tokens: &Tokens) {
    let read = |name: &str, what: &str| {
        let token = token(state, name).inspect_err(|error| {
            let source = error.source().map(|source| format!(": {source}"));
            let source = source.unwrap_or_default();
            tracing::error!(
                "{error}{source}; nobody {what} over the network by a token until that is mended (SIGHUP reads it anew)"
            );
        });
        warn_if_open(&state.join(name));
        token.ok()
    };
    tokens.set(
        read("read.token", "reads"),
        read("write.token", "changes anything"),
    );
}

fn warn_if_open(path: &Path) {
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o007 != 0) {
        let path = path.display();
        tracing::warn!("others may read or change {path}, which is a secret: `chmod 600 {path}`");
    }
}

/// What lets somebody read or write over the network: 32 hexadecimal digits in a file of this name (`read.token`,
/// `write.token`), made the first time. An operator may put others in their place.
fn token(state: &Path, name: &str) -> Result<String, StateError> {
    let path = state.join(name);
    match regular::text(&path, MOST_TOKEN) {
        Ok(text) if text.trim().len() >= LEAST_TOKEN => Ok(text.trim().to_owned()),
        Ok(_) => Err(failed("use", &path)(io::Error::other(
            "it has fewer than 16 characters; remove it to have a new one made",
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = format!("{:032x}", rand::random::<u128>());
            let line = format!("{token}\n");
            replace(&path, line.as_bytes()).map_err(failed("write", &path))?;
            Ok(token)
        }
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Puts these bytes in the file's place, mode 0600: on disk, and all of them or none.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    // A half of it would take the room that is missing.
    write().inspect_err(|_| drop(fs::remove_file(&beside)))?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_is_one_daemons_alone_and_the_other_is_told_whose() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let held = prepare(&state).unwrap();
        let said = prepare(&state).unwrap_err().to_string();
        let (us, at) = (std::process::id(), state.display());
        assert_eq!(
            said,
            format!(
                "another bridgehead (process {us}) uses the state directory {at}: two of them would give addresses twice; stop that one, or name another directory with --state"
            )
        );
        drop(held);
        drop(prepare(&state).unwrap());
    }

    #[test]
    fn a_token_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let token = |name| super::token(dir.path(), name).unwrap();
        let read = token("read.token");
        assert_ne!(token("write.token"), read);
        assert_eq!((read.len(), token("read.token")), (32, read));
        let path = dir.path().join("read.token");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, "short\n").unwrap();
        let said = super::token(dir.path(), "read.token").unwrap_err();
        assert!(said.to_string().contains("read.token"), "{said}");
    }
}
