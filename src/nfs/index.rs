//! One root in memory: attributes, symlink targets, directory listings.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use nfs3_server::nfs3_types::nfs3::{fattr3, nfsstat3};

use super::handle::{Handle, cookie};

/// Longest name in a directory, bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// Cookies of `.` and `..`, which stand before every name.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// A root tree as it was when it was scanned.
#[derive(Debug)]
pub(super) struct Tree {
    /// The export's name.
    pub(super) name: String,
    /// From the name; also the file system's id.
    pub(super) id: u64,
    /// Tells this scan's files from an earlier scan's in the cache of open files.
    pub(super) serial: u64,
    /// The top directory (`O_PATH`): every file is opened beneath it.
    pub(super) top: OwnedFd,
    /// All files; the first is the top directory.
    pub(super) nodes: Vec<Node>,
    /// Place in `nodes` by file id.
    pub(super) by_id: HashMap<u64, usize>,
    /// Sum of the space used, bytes.
    pub(super) bytes: u64,
    /// A change under the tree was told already.
    pub(super) changed: AtomicBool,
}

/// One inode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: fattr3,
    pub(super) body: Body,
}

/// What an inode holds.
#[derive(Debug)]
pub(super) enum Body {
    Directory {
        parent: usize,
        /// Sorted by cookie.
        children: Box<[Child]>,
    },
    File {
        /// Path of the first link, relative to the top.
        path: Box<[u8]>,
        identity: Identity,
    },
    Symlink(Box<[u8]>),
    /// A device, fifo or socket: all of it is in the attributes.
    Special,
}

/// What tells that an open file is the one that was indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, i64),
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) cookie: u64,
    pub(super) name: Box<[u8]>,
    pub(super) node: usize,
}

/// A name as a listing gives it.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    pub(super) cookie: u64,
    pub(super) name: &'a [u8],
    pub(super) node: usize,
}

impl Tree {
    /// The handle of the file at this place.
    pub(super) fn handle(&self, node: usize) -> Handle {
        Handle::new(self.id, self.nodes[node].attributes.fileid)
    }

    /// The place of a handle's file; NFS3ERR_STALE if there is none.
    pub(super) fn node(&self, handle: Handle) -> Result<usize, nfsstat3> {
        self.by_id
            .get(&handle.file())
            .copied()
            .ok_or(nfsstat3::NFS3ERR_STALE)
    }

    /// LOOKUP (RFC 1813 section 3.3.3). A name with `/` or NUL is in no directory; `..` of the top is the top.
    pub(super) fn lookup(&self, directory: usize, name: &[u8]) -> Result<usize, nfsstat3> {
        let (parent, children) = self.directory(directory)?;
        match name {
            b"." => Ok(directory),
            b".." => Ok(parent),
            _ if name.len() > NAME_MAX => Err(nfsstat3::NFS3ERR_NAMETOOLONG),
            _ => find(children, name).ok_or(nfsstat3::NFS3ERR_NOENT),
        }
    }

    /// The first name after the cookie; `None` at the end.
    pub(super) fn next_listed(
        &self,
        directory: usize,
        after: u64,
    ) -> Result<Option<Listed<'_>>, nfsstat3> {
        let (parent, children) = self.directory(directory)?;
        Ok(match after {
            0 => Some(Listed {
                cookie: DOT,
                name: b".",
                node: directory,
            }),
            DOT => Some(Listed {
                cookie: DOT_DOT,
                name: b"..",
                node: parent,
            }),
            _ => children
                .get(children.partition_point(|child| child.cookie <= after))
                .map(Child::listed),
        })
    }

    fn directory(&self, node: usize) -> Result<(usize, &[Child]), nfsstat3> {
        match &self.nodes[node].body {
            Body::Directory { parent, children } => Ok((*parent, children)),
            _ => Err(nfsstat3::NFS3ERR_NOTDIR),
        }
    }
}

impl Child {
    fn listed(&self) -> Listed<'_> {
        Listed {
            cookie: self.cookie,
            name: &self.name,
            node: self.node,
        }
    }
}

/// Sorts by cookie and moves names whose cookies fall together apart.
pub(super) fn in_listing_order(mut children: Vec<Child>) -> Box<[Child]> {
    children.sort_by(|a, b| (a.cookie, &a.name).cmp(&(b.cookie, &b.name)));
    let mut least = 0;
    for child in &mut children {
        child.cookie = child.cookie.max(least);
        least = child.cookie + 1;
    }
    children.into()
}

fn find(children: &[Child], name: &[u8]) -> Option<usize> {
    let wanted = cookie(name);
    let from = children.partition_point(|child| child.cookie < wanted);
    let last = wanted + children.len() as u64;
    let mut near = children[from..]
        .iter()
        .take_while(|child| child.cookie <= last);
    near.find(|child| *child.name == *name)
        .map(|child| child.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(cookie: u64, name: &[u8], node: usize) -> Child {
        Child {
            cookie,
            name: name.into(),
            node,
        }
    }

    #[test]
    fn names_with_one_cookie_are_told_apart() {
        let same = cookie(b"b");
        let children = in_listing_order(vec![
            child(same, b"b", 2),
            child(same, b"a", 1),
            child(same + 1, b"c", 3),
        ]);
        let cookies: Vec<_> = children.iter().map(|child| child.cookie - same).collect();
        assert_eq!(cookies, [0, 1, 2]);
        assert_eq!(find(&children, b"b"), Some(2));
        assert_eq!(find(&children, b"x"), None);
    }
}
