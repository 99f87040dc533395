//! The set of roots that are served now, replaced whole by a rescan.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, ScopedJoinHandle};

use nfs3_server::nfs3_types::nfs3::nfsstat3;

use super::EXPORT_PREFIX;
use super::files::OpenFiles;
use super::handle::{Handle, export_id};
use super::index::Tree;
use super::scan::{ScanError, ScanErrors, scan};

type Trees = HashMap<u64, Arc<Tree>>;
type Roots = Vec<(String, PathBuf)>;

/// The exported roots, indexed. Clones share one set.
#[derive(Debug, Clone)]
pub struct Exports(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    trees: RwLock<Arc<Trees>>,
    roots: Mutex<Roots>,
    files: OpenFiles,
}

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name; it is mounted as `/roots/NAME`.
    pub name: String,
    /// Inodes.
    pub files: usize,
    /// Space used, bytes.
    pub bytes: u64,
}

impl Exports {
    /// Indexes every `(name, directory)`; the directory may be a symlink to one.
    ///
    /// Blocks for about 20 µs a file, the roots at the same time: call it off the async runtime.
    ///
    /// # Errors
    /// Every root that cannot be exported, with its cause; nothing is exported then.
    pub fn scan(roots: &[(String, PathBuf)]) -> Result<Self, ScanErrors> {
        let (exports, faults) = Self::scan_available(roots);
        if faults.is_empty() {
            Ok(exports)
        } else {
            Err(ScanErrors(faults))
        }
    }

    /// Like [`scan`](Self::scan), but the roots that are sound are exported beside the faults of the others.
    pub fn scan_available(roots: &[(String, PathBuf)]) -> (Self, Vec<ScanError>) {
        let (trees, faults) = scan_all(roots);
        let shared = Shared {
            trees: RwLock::new(Arc::new(trees)),
            roots: Mutex::new(roots.to_vec()),
            files: OpenFiles::default(),
        };
        (Self(Arc::new(shared)), faults)
    }

    /// Indexes the same roots anew, for when an image was rebuilt or a symlink moved. Handles of paths that
    /// are still there stay valid, those of vanished paths become stale.
    ///
    /// Blocks as [`scan`](Self::scan) does; the old trees are served until it is done.
    ///
    /// # Errors
    /// The roots that cannot be read now. Their last good index stays; the others are replaced.
    pub fn rescan(&self) -> Result<(), ScanErrors> {
        let roots = self
            .0
            .roots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.replace(&roots)
    }

    /// Like [`rescan`](Self::rescan), with another list of roots. A root that is on the list no more is
    /// exported no more.
    ///
    /// # Errors
    /// As for [`rescan`](Self::rescan).
    pub fn replace(&self, roots: &[(String, PathBuf)]) -> Result<(), ScanErrors> {
        // Held to the end: of two calls at once the later one wins.
        let mut listed = self.0.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut trees, faults) = scan_all(roots);
        let old = self.trees();
        for (name, _) in roots {
            if let Some(last_good) = old.get(&export_id(name)) {
                trees
                    .entry(last_good.id)
                    .or_insert_with(|| Arc::clone(last_good));
            }
        }
        *self.0.trees.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trees);
        *listed = roots.to_vec();
        self.0.files.clear();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ScanErrors(faults))
        }
    }

    /// The exports, by name.
    pub fn list(&self) -> Vec<Export> {
        let summary = |tree: &Arc<Tree>| Export {
            name: tree.name.clone(),
            files: tree.nodes.len(),
            bytes: tree.bytes,
        };
        let mut list: Vec<_> = self.trees().values().map(summary).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// The tree with this mount path. A trailing slash is allowed; a path beneath an export is not.
    pub(super) fn by_path(&self, path: &str) -> Option<Arc<Tree>> {
        let name = path.strip_prefix(EXPORT_PREFIX)?.trim_end_matches('/');
        let tree = self.trees().get(&export_id(name)).cloned()?;
        (tree.name == name).then_some(tree)
    }

    /// The tree and place of a handle; NFS3ERR_STALE if there is none.
    pub(super) fn resolve(&self, handle: Handle) -> Result<(Arc<Tree>, usize), nfsstat3> {
        let tree = self
            .trees()
            .get(&handle.export())
            .cloned()
            .ok_or(nfsstat3::NFS3ERR_STALE)?;
        let node = tree.node(handle)?;
        Ok((tree, node))
    }

    pub(super) fn files(&self) -> &OpenFiles {
        &self.0.files
    }

    fn trees(&self) -> Arc<Trees> {
        Arc::clone(&self.0.trees.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn scan_all<'a>(roots: &'a [(String, PathBuf)]) -> (Trees, Vec<ScanError>) {
    let results: Vec<_> = thread::scope(|scope| {
        let start = |(name, root): &'a (String, PathBuf)| scope.spawn(move || scan(name, root));
        let running: Vec<_> = roots.iter().map(start).collect();
        let wait = |thread: ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        running.into_iter().map(wait).collect()
    });
    let (mut trees, mut faults) = (Trees::new(), Vec::new());
    for result in results {
        match result {
            Ok(tree) if trees.contains_key(&tree.id) => {
                faults.push(ScanError::Duplicate { export: tree.name })
            }
            Ok(tree) => drop(trees.insert(tree.id, Arc::new(tree))),
            Err(fault) => faults.push(fault),
        }
    }
    (trees, faults)
}
