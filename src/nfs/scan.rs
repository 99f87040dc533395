//! Walks a root once and makes its index.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nfs3_server::nfs3_types::nfs3::{fattr3, ftype3, nfstime3, specdata3};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, major, minor};
use walkdir::{DirEntry, WalkDir};

use super::handle::{cookie, export_id, file_id};
use super::index::{Body, Child, Identity, Node, Tree, in_listing_order};

/// Why a root is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The name cannot stand in a mount path.
    #[error(
        "export `{export}`: a name is one path component: not empty, no `/`, no NUL, not `.` or `..`"
    )]
    BadName {
        /// The name.
        export: String,
    },
    /// The name is taken.
    #[error("export `{export}`: the name is used twice")]
    Duplicate {
        /// The name.
        export: String,
    },
    /// The root or a file beneath it cannot be read.
    #[error("export `{export}`: cannot index {}: {}", path.display(), advice(source))]
    Unreadable {
        /// The export's name.
        export: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Two files of the tree have the same id (chance: 1 in 10^10 for a million files).
    #[error("export `{export}`: {} has the file id of another file; rename it", path.display())]
    Collision {
        /// The export's name.
        export: String,
        /// The later of the two.
        path: PathBuf,
    },
}

/// What is wrong with the roots, each with its own fault.
#[derive(Debug, thiserror::Error)]
#[error("{} of the roots cannot be exported", .0.len())]
pub struct ScanErrors(
    /// Never empty.
    pub Vec<ScanError>,
);

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "it is not there; build the root (make root), or rescan if it was being rebuilt"
        }
        io::ErrorKind::NotADirectory => "it is not a directory",
        io::ErrorKind::PermissionDenied => {
            "permission denied; a root is read as root (CAP_DAC_READ_SEARCH)"
        }
        _ => "the system refused it",
    }
}

/// Indexes the tree at `root`; a symlink there is followed, none beneath it is.
///
/// Blocks: about 20 µs a file, more when the disk is cold.
pub(super) fn scan(export: &str, root: &Path) -> Result<Tree, ScanError> {
    if !is_component(export) {
        return Err(ScanError::BadName {
            export: export.to_owned(),
        });
    }
    let fault = |source| unreadable(export, root, source);
    let root = fs::canonicalize(root).map_err(fault)?;
    let top = open_top(&root).map_err(fault)?;
    Scan::new(export).run(&root)?.finish(top)
}

fn is_component(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

fn open_top(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(open(root, flags, Mode::empty())?)
}

fn unreadable(export: &str, path: &Path, source: io::Error) -> ScanError {
    ScanError::Unreadable {
        export: export.to_owned(),
        path: path.to_owned(),
        source,
    }
}

struct Scan<'a> {
    export: &'a str,
    fsid: u64,
    nodes: Vec<Node>,
    /// Names by directory, as they come.
    names: HashMap<usize, Vec<Child>>,
    by_id: HashMap<u64, usize>,
    /// Inodes with several links, by device and number.
    linked: HashMap<(u64, u64), usize>,
    /// The directories from the top to here.
    ancestors: Vec<usize>,
    bytes: u64,
}

impl<'a> Scan<'a> {
    fn new(export: &'a str) -> Self {
        Self {
            export,
            fsid: export_id(export),
            nodes: Vec::new(),
            names: HashMap::new(),
            by_id: HashMap::new(),
            linked: HashMap::new(),
            ancestors: Vec::new(),
            bytes: 0,
        }
    }

    fn run(mut self, root: &Path) -> Result<Self, ScanError> {
        // Sorted, so that the first link of an inode is the same in every scan.
        let mut walk = WalkDir::new(root).sort_by_file_name().into_iter();
        let mut device = None;
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(|error| self.unreadable(root, error))?;
            let metadata = entry
                .metadata()
                .map_err(|error| self.unreadable(root, error))?;
            self.ancestors.truncate(entry.depth());
            let path = entry.path().strip_prefix(root).unwrap_or(Path::new(""));
            self.add(&entry, path, &metadata)?;
            // Another file system mounted in the tree is not part of it: its mount point is served empty.
            if metadata.is_dir() && *device.get_or_insert(metadata.dev()) != metadata.dev() {
                walk.skip_current_dir();
            }
        }
        Ok(self)
    }

    fn unreadable(&self, root: &Path, error: walkdir::Error) -> ScanError {
        let path = error.path().unwrap_or(root).to_owned();
        unreadable(self.export, &path, error.into())
    }

    fn add(&mut self, entry: &DirEntry, path: &Path, metadata: &Metadata) -> Result<(), ScanError> {
        let key = (metadata.dev(), metadata.ino());
        let known = self
            .linked
            .get(&key)
            .copied()
            .filter(|_| !metadata.is_dir());
        let node = match known {
            Some(node) => node,
            None => self.add_inode(entry, path, metadata)?,
        };
        if let Some(&parent) = self.ancestors.last() {
            let name = entry.file_name().as_bytes();
            let child = Child {
                cookie: cookie(name),
                name: name.into(),
                node,
            };
            self.names.entry(parent).or_default().push(child);
        }
        if metadata.is_dir() {
            self.ancestors.push(node);
        } else if metadata.nlink() > 1 {
            self.linked.insert(key, node);
        }
        Ok(())
    }

    fn add_inode(
        &mut self,
        entry: &DirEntry,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<usize, ScanError> {
        let id = file_id(self.export, path.as_os_str().as_bytes());
        let place = self.nodes.len();
        if self.by_id.insert(id, place).is_some() {
            return Err(ScanError::Collision {
                export: self.export.to_owned(),
                path: entry.path().to_owned(),
            });
        }
        let attributes = attributes(metadata, self.fsid, id);
        self.bytes += attributes.used;
        let parent = self.ancestors.last().copied().unwrap_or(place);
        let body = body(entry.path(), path, metadata, parent)
            .map_err(|error| unreadable(self.export, entry.path(), error))?;
        self.nodes.push(Node { attributes, body });
        Ok(place)
    }

    fn finish(mut self, top: OwnedFd) -> Result<Tree, ScanError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        for (directory, names) in self.names {
            if let Body::Directory { children, .. } = &mut self.nodes[directory].body {
                *children = in_listing_order(names);
            }
        }
        Ok(Tree {
            name: self.export.to_owned(),
            id: self.fsid,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            top,
            nodes: self.nodes,
            by_id: self.by_id,
            bytes: self.bytes,
            changed: AtomicBool::new(false),
        })
    }
}

fn body(full: &Path, path: &Path, metadata: &Metadata, parent: usize) -> io::Result<Body> {
    let kind = metadata.file_type();
    Ok(if kind.is_dir() {
        Body::Directory {
            parent,
            children: Box::default(),
        }
    } else if kind.is_file() {
        Body::File {
            path: path.as_os_str().as_bytes().into(),
            identity: identity(metadata),
        }
    } else if kind.is_symlink() {
        Body::Symlink(bytes(fs::read_link(full)?.as_os_str()))
    } else {
        Body::Special
    })
}

fn bytes(text: &OsStr) -> Box<[u8]> {
    text.as_bytes().into()
}

/// What [`Identity`] holds of an open file or a directory entry.
pub(super) fn identity(metadata: &Metadata) -> Identity {
    Identity {
        dev: metadata.dev(),
        ino: metadata.ino(),
        size: metadata.size(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// `fattr3` (RFC 1813 section 2.6), ownership and every mode bit as they are: nothing is squashed.
fn attributes(metadata: &Metadata, fsid: u64, fileid: u64) -> fattr3 {
    fattr3 {
        type_: file_type(metadata),
        mode: metadata.mode() & 0o7777,
        nlink: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        used: metadata.blocks().saturating_mul(512),
        rdev: device(metadata),
        fsid,
        fileid,
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn file_type(metadata: &Metadata) -> ftype3 {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => ftype3::NF3DIR,
        () if kind.is_symlink() => ftype3::NF3LNK,
        () if kind.is_block_device() => ftype3::NF3BLK,
        () if kind.is_char_device() => ftype3::NF3CHR,
        () if kind.is_fifo() => ftype3::NF3FIFO,
        () if kind.is_socket() => ftype3::NF3SOCK,
        () => ftype3::NF3REG,
    }
}

fn device(metadata: &Metadata) -> specdata3 {
    let number = metadata.rdev();
    let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    specdata3 {
        specdata1: part(major(number)),
        specdata2: part(minor(number)),
    }
}

/// `nfstime3` counts from 1970 in 32 bits; what lies outside is moved to the nearest end.
fn time(seconds: i64, nanoseconds: i64) -> nfstime3 {
    match u32::try_from(seconds) {
        Ok(seconds) => nfstime3 {
            seconds,
            nseconds: u32::try_from(nanoseconds).unwrap_or(0),
        },
        Err(_) => nfstime3 {
            seconds: if seconds < 0 { 0 } else { u32::MAX },
            nseconds: 0,
        },
    }
}
