//! What the gate answers by itself: what the engine does not know or does not get right.

use nfs3_server::nfs3_types::mount::{dirpath, export_node, exports, mountstat3};
use nfs3_server::nfs3_types::nfs3::{
    ACCESS3_EXECUTE, ACCESS3_EXTEND, ACCESS3_LOOKUP, ACCESS3_MODIFY, ACCESS3_READ, ACCESS3res,
    ACCESS3resfail, ACCESS3resok, FSSTAT3res, FSSTAT3resfail, FSSTAT3resok, Nfs3Result,
    PATHCONF3res, PATHCONF3resfail, PATHCONF3resok, fattr3, ftype3, nfsstat3, post_op_attr,
};
use nfs3_server::nfs3_types::rpc::{
    accept_stat_data, accepted_reply, auth_stat, fragment_header, msg_body, opaque_auth,
    rejected_reply, reply_body, rpc_msg,
};
use nfs3_server::nfs3_types::xdr_codec::{List, Opaque, Pack, Void};

use super::EXPORT_PREFIX;
use super::call::{Caller, Reader};
use super::exports::Exports;
use super::handle::Handle;

/// A reply with its record mark, ready to be sent.
pub(super) type Answer = Vec<u8>;

pub(super) fn success(xid: u32, result: &impl Pack) -> Answer {
    accepted(xid, accept_stat_data::SUCCESS, result)
}

pub(super) fn void(xid: u32) -> Answer {
    success(xid, &Void)
}

/// PROG_UNAVAIL, PROC_UNAVAIL, PROG_MISMATCH, GARBAGE_ARGS (RFC 5531 section 9).
pub(super) fn not_done(xid: u32, why: accept_stat_data) -> Answer {
    accepted(xid, why, &Void)
}

pub(super) fn denied(xid: u32, why: auth_stat) -> Answer {
    let reply = reply_body::MSG_DENIED(rejected_reply::auth_error(why));
    record(xid, reply, &Void)
}

pub(super) fn rpc_mismatch(xid: u32) -> Answer {
    let reply = reply_body::MSG_DENIED(rejected_reply::rpc_mismatch(2, 2));
    record(xid, reply, &Void)
}

pub(super) fn mount_refused(xid: u32, why: mountstat3) -> Answer {
    success(xid, &why)
}

/// NFS3ERR_ROFS, followed by that many absent attributes (each a word of zero).
pub(super) fn read_only(xid: u32, absent: usize) -> Answer {
    struct ReadOnly(usize);
    impl Pack for ReadOnly {
        fn packed_size(&self) -> usize {
            4 + 4 * self.0
        }

        fn pack(
            &self,
            out: &mut impl std::io::Write,
        ) -> nfs3_server::nfs3_types::xdr_codec::Result<usize> {
            nfsstat3::NFS3ERR_ROFS.pack(out)?;
            for _ in 0..self.0 {
                0_u32.pack(out)?;
            }
            Ok(self.packed_size())
        }
    }
    success(xid, &ReadOnly(absent))
}

/// MOUNTPROC3_EXPORT (RFC 1813 section 5.2.5), what `showmount -e` shows.
pub(super) fn export_list(xid: u32, all: &Exports) -> Answer {
    let node = |name: &str| export_node {
        ex_dir: dirpath(Opaque::owned(format!("{EXPORT_PREFIX}{name}").into_bytes())),
        ex_groups: List::default(),
    };
    let list: exports<'_, '_> = List(all.list().iter().map(|export| node(&export.name)).collect());
    success(xid, &list)
}

/// ACCESS (RFC 1813 section 3.3.4) by mode bits; never MODIFY, EXTEND or DELETE of a file or directory.
pub(super) fn access(
    xid: u32,
    exports: &Exports,
    arguments: &[u8],
    caller: &Caller,
) -> Option<Answer> {
    let mut rest = Reader(arguments);
    let (handle, asked) = (rest.handle()?, rest.u32()?);
    let result: ACCESS3res = match attributes(exports, handle) {
        Ok((attributes, ..)) => Nfs3Result::Ok(ACCESS3resok {
            access: asked & granted(&attributes, caller),
            obj_attributes: post_op_attr::Some(attributes),
        }),
        Err(status) => Nfs3Result::Err((status, ACCESS3resfail::default())),
    };
    rest.0.is_empty().then(|| success(xid, &result))
}

/// FSSTAT (RFC 1813 section 3.3.18): full, as a read-only file system is.
pub(super) fn fsstat(xid: u32, exports: &Exports, arguments: &[u8]) -> Option<Answer> {
    let mut rest = Reader(arguments);
    let result: FSSTAT3res = match attributes(exports, rest.handle()?) {
        Ok((attributes, bytes, files)) => Nfs3Result::Ok(FSSTAT3resok {
            obj_attributes: post_op_attr::Some(attributes),
            tbytes: bytes,
            fbytes: 0,
            abytes: 0,
            tfiles: files,
            ffiles: 0,
            afiles: 0,
            invarsec: 3600,
        }),
        Err(status) => Nfs3Result::Err((status, FSSTAT3resfail::default())),
    };
    rest.0.is_empty().then(|| success(xid, &result))
}

/// PATHCONF (RFC 1813 section 3.3.20).
pub(super) fn pathconf(xid: u32, exports: &Exports, arguments: &[u8]) -> Option<Answer> {
    let mut rest = Reader(arguments);
    let result: PATHCONF3res = match attributes(exports, rest.handle()?) {
        Ok((attributes, ..)) => Nfs3Result::Ok(PATHCONF3resok {
            obj_attributes: post_op_attr::Some(attributes),
            linkmax: 65000,
            name_max: 255,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        }),
        Err(status) => Nfs3Result::Err((status, PATHCONF3resfail::default())),
    };
    rest.0.is_empty().then(|| success(xid, &result))
}

/// A handle's attributes, and bytes and files of its export.
pub(super) fn attributes(exports: &Exports, handle: &[u8]) -> Result<(fattr3, u64, u64), nfsstat3> {
    let handle = Handle::from_wire(handle).ok_or(nfsstat3::NFS3ERR_BADHANDLE)?;
    let (tree, node) = exports.resolve(handle)?;
    Ok((
        tree.nodes[node].attributes.clone(),
        tree.bytes,
        tree.nodes.len() as u64,
    ))
}

/// What the mode allows, in ACCESS bits. Root reads and writes all, and executes what anybody may.
///
/// A device, fifo or socket is only named here and lives on the client, so writing to it is no write to this
/// file system: Linux asks for MODIFY before it opens `/dev/null`, and nfsd grants it on read-only exports too.
fn granted(file: &fattr3, caller: &Caller) -> u32 {
    let bits = match caller.uid {
        0 => 0o6 | (file.mode | file.mode >> 3 | file.mode >> 6) & 0o1,
        uid if uid == file.uid => file.mode >> 6,
        _ if caller.gids.contains(&file.gid) => file.mode >> 3,
        _ => file.mode,
    };
    let (write, execute) = match file.type_ {
        ftype3::NF3REG | ftype3::NF3LNK => (0, ACCESS3_EXECUTE),
        ftype3::NF3DIR => (0, ACCESS3_LOOKUP),
        _ => (ACCESS3_MODIFY | ACCESS3_EXTEND, ACCESS3_EXECUTE),
    };
    let searches_all = caller.uid == 0 && file.type_ == ftype3::NF3DIR;
    let when = |allowed: bool, access: u32| if allowed { access } else { 0 };
    when(bits & 0o4 != 0, ACCESS3_READ)
        | when(bits & 0o2 != 0, write)
        | when(bits & 0o1 != 0 || searches_all, execute)
}

fn accepted(xid: u32, reply_data: accept_stat_data, result: &impl Pack) -> Answer {
    let verf = opaque_auth::default();
    record(
        xid,
        reply_body::MSG_ACCEPTED(accepted_reply { verf, reply_data }),
        result,
    )
}

fn record(xid: u32, reply: reply_body<'_>, result: &impl Pack) -> Answer {
    let message = rpc_msg {
        xid,
        body: msg_body::REPLY(reply),
    };
    let length = message.packed_size() + result.packed_size();
    let mark = fragment_header::new(u32::try_from(length).unwrap_or(0), true);
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend_from_slice(&mark.into_xdr_buf());
    // Packing into memory fails only for an object of 4 GiB, which no reply of the gate is.
    let _ = message
        .pack(&mut bytes)
        .and_then(|_| result.pack(&mut bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, type_: ftype3) -> fattr3 {
        let time = nfs3_server::nfs3_types::nfs3::nfstime3::default();
        fattr3 {
            type_,
            mode,
            nlink: 1,
            uid: 10,
            gid: 20,
            size: 0,
            used: 0,
            rdev: Default::default(),
            fsid: 1,
            fileid: 1,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    fn caller(uid: u32, gids: &[u32]) -> Caller {
        Caller {
            uid,
            gids: gids.to_vec(),
        }
    }

    #[test]
    fn access_follows_the_mode() {
        let secret = file(0o600, ftype3::NF3REG);
        assert_eq!(granted(&secret, &caller(0, &[0])), ACCESS3_READ);
        assert_eq!(granted(&secret, &caller(10, &[99])), ACCESS3_READ);
        assert_eq!(granted(&secret, &caller(11, &[20])), 0);
        let program = file(0o4750, ftype3::NF3REG);
        assert_eq!(
            granted(&program, &caller(0, &[0])),
            ACCESS3_READ | ACCESS3_EXECUTE
        );
        assert_eq!(
            granted(&program, &caller(11, &[1, 20])),
            ACCESS3_READ | ACCESS3_EXECUTE
        );
        assert_eq!(granted(&program, &caller(11, &[1])), 0);
        let null = file(0o622, ftype3::NF3CHR);
        assert_eq!(
            granted(&null, &caller(11, &[1])),
            ACCESS3_MODIFY | ACCESS3_EXTEND
        );
        let closed = file(0o700, ftype3::NF3DIR);
        assert_eq!(
            granted(&closed, &caller(0, &[0])),
            ACCESS3_READ | ACCESS3_LOOKUP
        );
        assert_eq!(granted(&closed, &caller(11, &[1])), 0);
    }
}
