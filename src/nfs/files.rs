//! File content: opened beneath the root, kept open for a while, read by `pread`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::index::{Body, Tree};
use super::scan::identity;

/// Open files kept; well under the usual limit of 1024 descriptors.
const OPEN_FILES: usize = 384;

/// Why content cannot be had.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Not a regular file.
    NotAFile,
    /// It is not the file that was indexed, or it is gone.
    Changed,
    /// The system refused.
    Failed(io::Error),
}

/// Files that were read of late, open.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    clock: u64,
    /// By scan and place in its index: the file and when it was last used.
    files: HashMap<(u64, usize), (Arc<File>, u64)>,
}

impl OpenFiles {
    /// Reads up to `count` bytes at `offset`; fewer only at the end. Blocks on the disk.
    pub(super) fn read(
        &self,
        tree: &Tree,
        node: usize,
        offset: u64,
        count: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let size = tree.nodes[node].attributes.size;
        let file = self.file(tree, node)?;
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; count.min(left)];
        match file.read_exact_at(&mut data, offset) {
            Ok(()) => Ok(data),
            // It was cut short after it was indexed.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Changed),
            Err(error) => Err(ReadError::Failed(error)),
        }
    }

    /// Closes all; for after a rescan.
    pub(super) fn clear(&self) {
        self.table().files.clear();
    }

    fn file(&self, tree: &Tree, node: usize) -> Result<Arc<File>, ReadError> {
        let key = (tree.serial, node);
        if let Some(file) = self.table().touch(key) {
            return Ok(file);
        }
        // The lock is free meanwhile: two may open the same file at once, and the later one stays.
        let file = Arc::new(open_beneath(tree, node)?);
        self.table().insert(key, Arc::clone(&file));
        Ok(file)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn touch(&mut self, key: (u64, usize)) -> Option<Arc<File>> {
        self.clock += 1;
        let (file, used) = self.files.get_mut(&key)?;
        *used = self.clock;
        Some(Arc::clone(file))
    }

    fn insert(&mut self, key: (u64, usize), file: Arc<File>) {
        if self.files.len() >= OPEN_FILES {
            self.close_oldest();
        }
        self.files.insert(key, (file, self.clock));
    }

    /// Closes the quarter that was not used for longest.
    fn close_oldest(&mut self) {
        let mut times: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
        let (_, &mut limit, _) = times.select_nth_unstable(self.files.len() / 4);
        self.files.retain(|_, (_, used)| *used > limit);
    }
}

/// Opens a file beneath the tree's top. The kernel refuses every way out: `..`, symlinks (put there after the
/// scan), other mounts (openat2(2)).
fn open_beneath(tree: &Tree, node: usize) -> Result<File, ReadError> {
    let Body::File {
        path,
        identity: indexed,
    } = &tree.nodes[node].body
    else {
        return Err(ReadError::NotAFile);
    };
    let how = OpenHow::new()
        // Non-blocking: a fifo may stand in the file's place now.
        .flags(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    let file = File::from(openat2(&tree.top, &**path, how).map_err(open_error)?);
    let metadata = file.metadata().map_err(ReadError::Failed)?;
    if metadata.is_file() && identity(&metadata) == *indexed {
        Ok(file)
    } else {
        Err(ReadError::Changed)
    }
}

fn open_error(error: Errno) -> ReadError {
    match error {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV | Errno::ENXIO => {
            ReadError::Changed
        }
        _ => ReadError::Failed(error.into()),
    }
}
