//! An NFSv3 client: ONC RPC over TCP, one call at a time.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nfs3_types::mount::{self, MOUNT_PROGRAM, dirpath, mountres3, mountstat3};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::*;
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) uid: u32,
    xid: u32,
}

impl Client {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            stream,
            uid: 0,
            xid: 0,
        }
    }

    /// The result, or what the server said instead.
    pub(crate) fn try_call<R: Unpack>(
        &mut self,
        program: u32,
        procedure: u32,
        arguments: &impl Pack,
    ) -> Result<R, String> {
        self.xid += 1;
        let auth = auth_unix {
            uid: self.uid,
            gid: self.uid,
            ..auth_unix::default()
        };
        let call = call_body {
            rpcvers: RPC_VERSION_2,
            prog: program,
            vers: 3,
            proc: procedure,
            cred: opaque_auth::auth_unix(&auth),
            verf: opaque_auth::default(),
        };
        let mut bytes = Vec::new();
        rpc_msg {
            xid: self.xid,
            body: msg_body::CALL(call),
        }
        .pack(&mut bytes)
        .unwrap();
        arguments.pack(&mut bytes).unwrap();
        self.send_record(&bytes);
        let reply = self.read_record().ok_or("closed")?;
        let mut reply = Cursor::new(reply);
        let message = rpc_msg::unpack(&mut reply).unwrap().0;
        assert_eq!(message.xid, self.xid);
        match message.body {
            msg_body::REPLY(reply_body::MSG_ACCEPTED(accepted_reply {
                reply_data: accept_stat_data::SUCCESS,
                ..
            })) => {
                let result = R::unpack(&mut reply).unwrap().0;
                assert_eq!(
                    reply.position(),
                    reply.get_ref().len() as u64,
                    "bytes left in the reply"
                );
                Ok(result)
            }
            other => Err(format!("{other:?}")),
        }
    }

    pub(crate) fn nfs<R: Unpack>(&mut self, procedure: NFS_PROGRAM, arguments: &impl Pack) -> R {
        self.try_call(PROGRAM, procedure as u32, arguments).unwrap()
    }

    pub(crate) fn send_record(&mut self, record: &[u8]) {
        let mark = fragment_header::new(u32::try_from(record.len()).unwrap(), true);
        self.stream
            .write_all(&[&mark.into_xdr_buf()[..], record].concat())
            .unwrap();
    }

    /// `None` when the server has closed.
    pub(crate) fn read_record(&mut self) -> Option<Vec<u8>> {
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark).ok()?;
        let mark = fragment_header::from(mark);
        assert!(mark.eof(), "a reply in fragments");
        let mut record = vec![0; mark.fragment_length() as usize];
        self.stream.read_exact(&mut record).unwrap();
        Some(record)
    }

    pub(crate) fn mount(&mut self, path: &str) -> Result<nfs_fh3, mountstat3> {
        let arguments = dirpath(Opaque::borrowed(path.as_bytes()));
        match self
            .try_call(
                mount::PROGRAM,
                MOUNT_PROGRAM::MOUNTPROC3_MNT as u32,
                &arguments,
            )
            .unwrap()
        {
            mountres3::Ok(ok) => Ok(nfs_fh3 {
                data: Opaque::owned(ok.fhandle.0.to_vec()),
            }),
            mountres3::Err(status) => Err(status),
        }
    }

    pub(crate) fn lookup(&mut self, directory: &nfs_fh3, name: &[u8]) -> Result<nfs_fh3, nfsstat3> {
        let what = diropargs3 {
            dir: directory.clone(),
            name: name.into(),
        };
        let found: LOOKUP3res = self.nfs(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what });
        match found {
            Nfs3Result::Ok(ok) => Ok(ok.object),
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    pub(crate) fn path(&mut self, from: &nfs_fh3, path: &str) -> nfs_fh3 {
        path.split('/').fold(from.clone(), |at, name| {
            self.lookup(&at, name.as_bytes()).unwrap()
        })
    }

    pub(crate) fn getattr(&mut self, object: &nfs_fh3) -> Result<fattr3, nfsstat3> {
        let result: GETATTR3res = self.nfs(
            NFS_PROGRAM::NFSPROC3_GETATTR,
            &GETATTR3args {
                object: object.clone(),
            },
        );
        match result {
            Nfs3Result::Ok(ok) => Ok(ok.obj_attributes),
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    pub(crate) fn access(&mut self, object: &nfs_fh3) -> u32 {
        let arguments = ACCESS3args {
            object: object.clone(),
            access: 0x3f,
        };
        let result: ACCESS3res = self.nfs(NFS_PROGRAM::NFSPROC3_ACCESS, &arguments);
        result.unwrap().access
    }

    pub(crate) fn readlink(&mut self, symlink: &nfs_fh3) -> Result<Vec<u8>, nfsstat3> {
        let arguments = READLINK3args {
            symlink: symlink.clone(),
        };
        let result: READLINK3res<'static> = self.nfs(NFS_PROGRAM::NFSPROC3_READLINK, &arguments);
        match result {
            Nfs3Result::Ok(ok) => Ok(ok.data.as_ref().to_vec()),
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    pub(crate) fn read(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        count: u32,
    ) -> Result<(Vec<u8>, bool), nfsstat3> {
        let arguments = READ3args {
            file: file.clone(),
            offset,
            count,
        };
        let result: READ3res<'static> = self.nfs(NFS_PROGRAM::NFSPROC3_READ, &arguments);
        match result {
            Nfs3Result::Ok(ok) => Ok((ok.data.to_vec(), ok.eof)),
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    pub(crate) fn read_all(&mut self, file: &nfs_fh3, step: u32) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let (more, eof) = self.read(file, data.len() as u64, step).unwrap();
            data.extend(more);
            if eof {
                return data;
            }
        }
    }

    /// The whole listing, in replies of at most `maxcount` bytes.
    pub(crate) fn readdirplus(&mut self, dir: &nfs_fh3, maxcount: u32) -> Vec<entryplus3<'static>> {
        let (mut cookie, mut cookieverf, mut all) = (0, cookieverf3::default(), Vec::new());
        loop {
            let arguments = READDIRPLUS3args {
                dir: dir.clone(),
                cookie,
                cookieverf,
                dircount: maxcount,
                maxcount,
            };
            let result: READDIRPLUS3res<'static> =
                self.nfs(NFS_PROGRAM::NFSPROC3_READDIRPLUS, &arguments);
            let result = result.unwrap();
            cookieverf = result.cookieverf;
            all.extend(result.reply.entries.into_inner());
            if result.reply.eof {
                return all;
            }
            cookie = all.last().unwrap().cookie;
        }
    }

    pub(crate) fn readdir(&mut self, dir: &nfs_fh3, count: u32) -> Vec<Vec<u8>> {
        let (mut cookie, mut cookieverf, mut all) = (0, cookieverf3::default(), Vec::new());
        loop {
            let arguments = READDIR3args {
                dir: dir.clone(),
                cookie,
                cookieverf,
                count,
            };
            let result: READDIR3res<'static> = self.nfs(NFS_PROGRAM::NFSPROC3_READDIR, &arguments);
            let result = result.unwrap();
            cookieverf = result.cookieverf;
            for entry in result.reply.entries.into_inner() {
                cookie = entry.cookie;
                all.push(entry.name.as_ref().to_vec());
            }
            if result.reply.eof {
                return all;
            }
        }
    }
}
