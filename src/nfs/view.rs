//! The exports as `nfs3_server` wants to see a file system.

use std::sync::Arc;

use nfs3_server::nfs3_types::nfs3::{
    FSF3_HOMOGENEOUS, FSF3_LINK, FSF3_SYMLINK, FSINFO3resok, createverf3, fattr3, filename3,
    nfspath3, nfsstat3, nfstime3, post_op_attr, sattr3, stable_how,
};
use nfs3_server::nfs3_types::rpc::auth_unix;
use nfs3_server::vfs::{
    DirEntryPlus, NextResult, NfsFileSystem, NfsReadFileSystem, ReadDirPlusIterator,
    VFSCapabilities,
};
use std::sync::atomic::Ordering;
use tokio::sync::Semaphore;

use super::call::MAX_DATA;
use super::event::{Event, Observer};
use super::exports::Exports;
use super::files::ReadError;
use super::handle::Handle;
use super::index::{Body, Tree};

/// Reads that wait for the disk at once: a share of the runtime's 512 blocking threads, so that a slow disk
/// leaves some to the rest of the daemon.
const READS_AT_ONCE: usize = 64;

/// Largest WRITE that clients are asked to send: all are refused, so there is no use in large ones.
const WRITE_SIZE: u32 = 4096;

/// Preferred size of a READDIRPLUS reply: some 300 entries.
const LISTING_SIZE: u32 = 64 << 10;

#[derive(Debug)]
pub(super) struct View {
    exports: Exports,
    watch: Watch,
    /// What the gate's calls carry, so that no other local process can use the engine's port.
    secret: [u8; 16],
    reads: Semaphore,
}

struct Watch(Observer);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl View {
    pub(super) fn new(exports: Exports, observer: Observer, secret: [u8; 16]) -> Self {
        Self {
            exports,
            watch: Watch(observer),
            secret,
            reads: Semaphore::new(READS_AT_ONCE),
        }
    }

    async fn content(
        &self,
        tree: Arc<Tree>,
        node: usize,
        offset: u64,
        count: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let closed = |_| ReadError::Failed(std::io::ErrorKind::Interrupted.into());
        let _turn = self.reads.acquire().await.map_err(|_| closed(()))?;
        let exports = self.exports.clone();
        let read = move || exports.files().read(&tree, node, offset, count);
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| closed(()))?
    }

    fn tell(&self, tree: &Tree, node: usize, error: ReadError) -> nfsstat3 {
        let export = tree.name.clone();
        let path = match &tree.nodes[node].body {
            Body::File { path, .. } => String::from_utf8_lossy(path).into_owned(),
            _ => String::new(),
        };
        match error {
            ReadError::NotAFile => nfsstat3::NFS3ERR_INVAL,
            ReadError::Changed => {
                if !tree.changed.swap(true, Ordering::Relaxed) {
                    (self.watch.0)(Event::Changed { export, path });
                }
                nfsstat3::NFS3ERR_STALE
            }
            ReadError::Failed(error) => {
                let status = read_status(&error);
                (self.watch.0)(Event::ReadFailed {
                    export,
                    path,
                    error,
                });
                status
            }
        }
    }
}

/// A hard mount tries again after NFS3ERR_JUKEBOX, and takes NFS3ERR_IO for the last word: the first is for
/// what passes.
fn read_status(error: &std::io::Error) -> nfsstat3 {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => nfsstat3::NFS3ERR_ACCES,
        Some(Errno::EIO | Errno::ENOSYS | Errno::ENAMETOOLONG) => nfsstat3::NFS3ERR_IO,
        Some(Errno::ESTALE) => nfsstat3::NFS3ERR_STALE,
        _ => nfsstat3::NFS3ERR_JUKEBOX,
    }
}

impl NfsReadFileSystem for View {
    type Handle = Handle;

    /// No client can have this handle: exports are mounted by name.
    fn root_dir(&self) -> Handle {
        Handle::new(0, 0)
    }

    fn authorize(&self, auth: Option<&auth_unix>) -> bool {
        auth.is_some_and(|auth| *auth.machinename == self.secret)
    }

    async fn lookup(&self, directory: &Handle, name: &filename3<'_>) -> Result<Handle, nfsstat3> {
        let (tree, node) = self.exports.resolve(*directory)?;
        Ok(tree.handle(tree.lookup(node, name.as_ref())?))
    }

    /// The engine strips the leading slash of a mount path.
    async fn lookup_by_path(&self, path: &str) -> Result<Handle, nfsstat3> {
        let tree = self.exports.by_path(&format!("/{path}"));
        tree.map(|tree| tree.handle(0))
            .ok_or(nfsstat3::NFS3ERR_NOENT)
    }

    async fn getattr(&self, id: &Handle) -> Result<fattr3, nfsstat3> {
        let (tree, node) = self.exports.resolve(*id)?;
        Ok(tree.nodes[node].attributes.clone())
    }

    async fn read(
        &self,
        id: &Handle,
        offset: u64,
        count: u32,
    ) -> Result<(Vec<u8>, bool), nfsstat3> {
        let (tree, node) = self.exports.resolve(*id)?;
        let size = tree.nodes[node].attributes.size;
        match self
            .content(
                Arc::clone(&tree),
                node,
                offset,
                count.min(MAX_DATA) as usize,
            )
            .await
        {
            Ok(data) => {
                let end = offset.saturating_add(data.len() as u64);
                Ok((data, end >= size))
            }
            Err(error) => Err(self.tell(&tree, node, error)),
        }
    }

    async fn readdirplus(
        &self,
        directory: &Handle,
        cookie: u64,
    ) -> Result<impl ReadDirPlusIterator<Handle>, nfsstat3> {
        let (tree, directory) = self.exports.resolve(*directory)?;
        tree.next_listed(directory, 0)?;
        Ok(Listing {
            tree,
            directory,
            cookie,
        })
    }

    async fn readlink(&self, id: &Handle) -> Result<nfspath3<'_>, nfsstat3> {
        let (tree, node) = self.exports.resolve(*id)?;
        match &tree.nodes[node].body {
            Body::Symlink(target) => Ok(target.to_vec().into()),
            _ => Err(nfsstat3::NFS3ERR_INVAL),
        }
    }

    /// RFC 1813 section 3.3.19.
    async fn fsinfo(&self, id: &Handle) -> Result<FSINFO3resok, nfsstat3> {
        let attributes = self.getattr(id).await?;
        Ok(FSINFO3resok {
            obj_attributes: post_op_attr::Some(attributes),
            rtmax: MAX_DATA,
            rtpref: MAX_DATA,
            rtmult: 4096,
            wtmax: WRITE_SIZE,
            wtpref: WRITE_SIZE,
            wtmult: WRITE_SIZE,
            dtpref: LISTING_SIZE,
            maxfilesize: i64::MAX as u64,
            time_delta: nfstime3 {
                seconds: 0,
                nseconds: 1,
            },
            properties: FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS,
        })
    }
}

/// A walk over one directory.
struct Listing {
    tree: Arc<Tree>,
    directory: usize,
    cookie: u64,
}

impl ReadDirPlusIterator<Handle> for Listing {
    async fn next(&mut self) -> NextResult<DirEntryPlus<Handle>> {
        let listed = match self.tree.next_listed(self.directory, self.cookie) {
            Ok(Some(listed)) => listed,
            Ok(None) => return NextResult::Eof,
            Err(status) => return NextResult::Err(status),
        };
        self.cookie = listed.cookie;
        let attributes = &self.tree.nodes[listed.node].attributes;
        NextResult::Ok(DirEntryPlus {
            fileid: attributes.fileid,
            name: listed.name.to_vec().into(),
            cookie: listed.cookie,
            name_attributes: Some(attributes.clone()),
            name_handle: Some(self.tree.handle(listed.node)),
        })
    }
}

/// The gate refuses every write before the engine sees it; this is the second lock on that door. The crate's
/// own read-only adapter is not used: it clears setuid, setgid, sticky and all write bits of every mode.
impl NfsFileSystem for View {
    fn capabilities(&self) -> VFSCapabilities {
        VFSCapabilities::ReadOnly
    }

    async fn setattr(&self, _: &Handle, _: sattr3) -> Result<fattr3, nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn write(
        &self,
        _: &Handle,
        _: u64,
        _: &[u8],
        _: stable_how,
    ) -> Result<(fattr3, stable_how), nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn create(
        &self,
        _: &Handle,
        _: &filename3<'_>,
        _: sattr3,
    ) -> Result<(Handle, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn create_exclusive(
        &self,
        _: &Handle,
        _: &filename3<'_>,
        _: createverf3,
    ) -> Result<Handle, nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn mkdir(&self, _: &Handle, _: &filename3<'_>) -> Result<(Handle, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn remove(&self, _: &Handle, _: &filename3<'_>) -> Result<(), nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn rename<'a>(
        &self,
        _: &Handle,
        _: &filename3<'a>,
        _: &Handle,
        _: &filename3<'a>,
    ) -> Result<(), nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn symlink<'a>(
        &self,
        _: &Handle,
        _: &filename3<'a>,
        _: &nfspath3<'a>,
        _: &sattr3,
    ) -> Result<(Handle, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }

    async fn commit(&self, _: &Handle, _: u64, _: u32) -> Result<(), nfsstat3> {
        Err(nfsstat3::NFS3ERR_ROFS)
    }
}
