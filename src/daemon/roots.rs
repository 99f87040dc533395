//! Which root images are exported, and for how long.
//!
//! Each image has an export of its own, so a rebuilt one never appears under the feet of a
//! host that runs on the old one. An image stays exported as long as its directory is
//! there, over reloads and restarts: `roots.json` in the state directory remembers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::state;
use crate::nfs::{Exports, ScanErrors};
use crate::site::Snapshot;

/// Images kept exported beside those that the inventory names.
const OLD_IMAGES: usize = 16;

/// Name of an export and its directory.
type Root = (String, PathBuf);

/// The images that are exported.
#[derive(Debug)]
pub(super) struct Roots {
    exports: Exports,
    listed: Vec<Root>,
    memory: PathBuf,
}

impl Roots {
    /// Indexes what the inventory names and what running hosts may still have as their root.
    ///
    /// # Errors
    /// Every image of the inventory that can't be exported.
    pub(super) fn open(snapshot: &Snapshot, state: &Path) -> Result<Self, ScanErrors> {
        let memory = state.join("roots.json");
        let listed = union(wanted(snapshot), remembered(&memory));
        let (exports, faults) = Exports::scan_available(&listed);
        let missing = faults_of(snapshot, &exports);
        if !missing.is_empty() {
            return Err(ScanErrors(faults));
        }
        let roots = Self {
            exports,
            listed,
            memory,
        };
        roots.remember();
        Ok(roots)
    }

    /// The exports, for the servers.
    pub(super) fn exports(&self) -> Exports {
        self.exports.clone()
    }

    /// Exports what a new inventory names as well; indexes everything anew where the
    /// operator asked for it. Blocks while it reads directories.
    ///
    /// # Errors
    /// What is wrong with the images of the inventory; the others go on being exported.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, asked: bool) -> Result<(), String> {
        let listed = union(wanted(snapshot), self.listed.clone());
        if listed == self.listed && !asked {
            return Ok(());
        }
        let outcome = self.exports.replace(&listed);
        if faults_of(snapshot, &self.exports).is_empty() {
            self.listed = listed;
            self.remember();
            return Ok(());
        }
        Err(outcome.map_or_else(
            |faults| faults.to_string(),
            |()| String::from("a root vanished while it was read"),
        ))
    }

    fn remember(&self) {
        let listed = serde_json::to_vec(&self.listed).map_err(io::Error::from);
        let written = listed.and_then(|bytes| state::replace(&self.memory, &bytes));
        if let Err(error) = written {
            tracing::warn!(
                "cannot write {}: {error}; after a restart, hosts on older root images lose their root",
                self.memory.display()
            );
        }
    }
}

fn remembered(memory: &Path) -> Vec<Root> {
    let read = fs::read(memory).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    read.unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(
                "cannot use {} (another version's, perhaps): {error}; hosts on root images that the inventory does not name any more lose their root",
                memory.display()
            );
        }
        Vec::new()
    })
}

fn wanted(snapshot: &Snapshot) -> Vec<Root> {
    let images = snapshot.roots.values();
    images
        .map(|image| (image.export.clone(), image.path.clone()))
        .collect()
}

/// The wanted ones first, then those that are still on disk, newest knowledge first.
fn union(mut wanted: Vec<Root>, older: Vec<Root>) -> Vec<Root> {
    wanted.sort();
    wanted.dedup();
    let fresh =
        |(name, path): &Root| path.is_dir() && !wanted.iter().any(|(known, _)| known == name);
    let kept: Vec<Root> = older.into_iter().filter(fresh).take(OLD_IMAGES).collect();
    wanted.extend(kept);
    wanted
}

/// Images that the inventory names and that are not exported.
fn faults_of(snapshot: &Snapshot, exports: &Exports) -> Vec<String> {
    let there = exports.list();
    let missing = |name: &String| !there.iter().any(|export| export.name == *name);
    wanted(snapshot)
        .into_iter()
        .map(|(name, _)| name)
        .filter(missing)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_image_stays_as_long_as_it_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let root = |name: &str| (name.to_owned(), dir.path().join(name));
        fs::create_dir(dir.path().join("a-1")).unwrap();
        let now = union(
            vec![root("a-2")],
            vec![root("a-1"), root("a-0"), root("a-2")],
        );
        assert_eq!(now, [root("a-2"), root("a-1")]);
    }

    #[test]
    fn what_another_version_remembers_stops_no_start() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("roots.json");
        assert!(remembered(&memory).is_empty());
        fs::write(&memory, r#"[["a-1","/roots/a-1"]]"#).unwrap();
        assert_eq!(remembered(&memory), [("a-1".into(), "/roots/a-1".into())]);
        fs::write(&memory, r#"{"format":2,"roots":[]}"#).unwrap();
        assert!(remembered(&memory).is_empty());
    }
}
