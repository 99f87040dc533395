//! Last words of hosts: what a failing initrd sends of its kernel log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::policy::event::{AttemptId, MachineId};

/// Files kept per host.
const KEPT: usize = 5;

/// `console/HOST/ATTEMPT.log` in the state directory; names come from the inventory and
/// from ids that the daemon made, never from the wire.
#[derive(Debug, Clone)]
pub struct Consoles {
    directory: PathBuf,
}

impl Consoles {
    /// Below the state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            directory: state.join("console"),
        }
    }

    /// Keeps what a host sent, and the newest few of what it sent before.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn keep(&self, machine: &MachineId, attempt: &AttemptId, text: &[u8]) -> io::Result<()> {
        let directory = self.directory.join(&machine.0);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("{attempt}.log")), text)?;
        let mut files = logs(&directory);
        while files.len() > KEPT {
            fs::remove_file(files.remove(0))?;
        }
        Ok(())
    }

    /// The newest of a host, without control characters; empty if there is none.
    pub fn last(&self, machine: &MachineId) -> String {
        let newest = logs(&self.directory.join(&machine.0)).pop();
        newest.map(|file| readable(&file)).unwrap_or_default()
    }

    /// That of one attempt; empty if there is none.
    pub fn of(&self, machine: &MachineId, attempt: &AttemptId) -> String {
        let directory = self.directory.join(&machine.0);
        readable(&directory.join(format!("{attempt}.log")))
    }
}

/// Without control characters; empty if it can't be read.
fn readable(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.chars()
        .filter(|c| matches!(c, '\n' | '\t') || !c.is_control())
        .collect()
}

/// Attempt ids sort by time.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_shown_without_escapes() {
        let dir = tempfile::tempdir().unwrap();
        let consoles = Consoles::new(dir.path());
        let host = MachineId("kvm01".into());
        for index in 0..9 {
            consoles
                .keep(&host, &AttemptId(index.to_string()), b"said \x1b[2J this\n")
                .unwrap();
        }
        assert_eq!(consoles.last(&host), "said [2J this\n");
        assert_eq!(logs(&dir.path().join("console/kvm01")).len(), KEPT);
        assert_eq!(consoles.last(&MachineId("none".into())), "");
        assert_eq!(
            consoles.of(&host, &AttemptId("8".into())),
            "said [2J this\n"
        );
        assert_eq!(consoles.of(&host, &AttemptId("new".into())), "");
    }
}
