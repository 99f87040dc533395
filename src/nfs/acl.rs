//! NFS_ACL (program 100227, version 3; no RFC, Linux `fs/nfs/nfs3acl.c`): "no list, the mode says it all".
//!
//! It must be spoken for the sake of an overlay. Without it Linux answers EOPNOTSUPP when overlayfs asks the
//! NFS client for a list (`nfs3_get_acl`), and overlayfs hands that to whoever enters a directory of another
//! owner: root then can't make a file in `/var/lib/libvirt/qemu` (seen with Linux 6.1, libvirt, timesyncd).

use std::io::Write;

use nfs3_server::nfs3_types::nfs3::{nfsstat3, post_op_attr};
use nfs3_server::nfs3_types::rpc::accept_stat_data;
use nfs3_server::nfs3_types::xdr_codec::{Pack, Result};

use super::answers::{self, Answer};
use super::call::{Call, Reader};
use super::exports::Exports;

/// Sun's number for it.
pub(super) const PROGRAM: u32 = 100_227;

const NULL: u32 = 0;
const GETACL: u32 = 1;
const SETACL: u32 = 2;

/// The bits of a mask: both lists, and their lengths.
const ALL: u32 = 0xf;

pub(super) fn answer(call: &Call<'_>, exports: &Exports) -> Answer {
    let answer = match call.procedure {
        NULL => Some(answers::void(call.xid)),
        GETACL => get(call.xid, exports, call.arguments),
        SETACL => Some(answers::read_only(call.xid, 1)),
        _ => return answers::not_done(call.xid, accept_stat_data::PROC_UNAVAIL),
    };
    answer.unwrap_or_else(|| answers::not_done(call.xid, accept_stat_data::GARBAGE_ARGS))
}

/// The attributes, what was asked for, and two lists without entries.
fn get(xid: u32, exports: &Exports, arguments: &[u8]) -> Option<Answer> {
    let mut rest = Reader(arguments);
    let (handle, mask) = (rest.handle()?, rest.u32()?);
    let found = answers::attributes(exports, handle).map(|(attributes, ..)| attributes);
    let result = match found {
        Ok(attributes) => Lists {
            status: nfsstat3::NFS3_OK,
            attributes: post_op_attr::Some(attributes),
            mask: Some(mask & ALL),
        },
        Err(status) => Lists {
            status,
            attributes: post_op_attr::None,
            mask: None,
        },
    };
    rest.0.is_empty().then(|| answers::success(xid, &result))
}

struct Lists {
    status: nfsstat3,
    attributes: post_op_attr,
    /// `None` in an error.
    mask: Option<u32>,
}

impl Lists {
    /// The mask, then each list as its length and an array of that length.
    fn words(&self) -> impl Iterator<Item = u32> {
        self.mask.into_iter().flat_map(|mask| [mask, 0, 0, 0, 0])
    }
}

impl Pack for Lists {
    fn packed_size(&self) -> usize {
        self.status.packed_size() + self.attributes.packed_size() + 4 * self.words().count()
    }

    fn pack(&self, out: &mut impl Write) -> Result<usize> {
        self.status.pack(out)?;
        self.attributes.pack(out)?;
        for word in self.words() {
            word.pack(out)?;
        }
        Ok(self.packed_size())
    }
}
