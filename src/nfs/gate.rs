//! Decides on every call: answered here, refused, or passed to the engine.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use nfs3_server::nfs3_types::mount::{self, MOUNT_PROGRAM, mountstat3};
use nfs3_server::nfs3_types::nfs3::{self, NFS_PROGRAM};
use nfs3_server::nfs3_types::rpc::{accept_stat_data, auth_stat};

use super::acl;
use super::answers::{self, Answer};
use super::call::{Call, MAX_DATA, Shape, has_shape, mount_path};
use super::event::{Event, Observer, Refusal, Scope};
use super::exports::Exports;
use super::server::Limits;
use crate::metrics::Gauge;

/// Whether a client may mount and read.
pub(super) type Allow = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// What all connections share.
pub(super) struct Gate {
    pub(super) exports: Exports,
    pub(super) observer: Observer,
    pub(super) allow: Allow,
    pub(super) limits: Limits,
    /// Where the engine listens, on loopback.
    pub(super) engine: SocketAddr,
    /// Goes with every call to the engine.
    pub(super) secret: [u8; 16],
    /// Open connections by address.
    pub(super) open: Mutex<HashMap<IpAddr, usize>>,
    /// How many they are.
    pub(super) connections: Gauge,
}

/// What to do with a call.
pub(super) enum Route {
    Answer(Answer),
    Engine {
        /// Bounded: no number in them makes the engine allocate more than [`MAX_DATA`].
        arguments: Vec<u8>,
        /// Most bytes that the reply will hold.
        reply: u32,
    },
}

/// A place among the open connections; given back when dropped.
pub(super) struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .gate
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
        self.gate.connections.dec();
    }
}

impl Gate {
    /// A place for one more connection, or why there is none.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Result<Place, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |limit, scope| Err(Refusal::TooManyConnections { limit, scope });
        if open.values().sum::<usize>() >= self.limits.connections {
            return full(self.limits.connections, Scope::All);
        }
        let count = open.entry(peer.ip()).or_default();
        if *count >= self.limits.connections_per_address {
            return full(self.limits.connections_per_address, Scope::Address);
        }
        *count += 1;
        self.connections.inc();
        Ok(Place {
            gate: Arc::clone(self),
            address: peer.ip(),
        })
    }

    pub(super) fn tell(&self, event: Event) {
        (self.observer)(event);
    }

    /// Decides on a call. `allowed` is what `allow` said when the client connected.
    pub(super) fn route(&self, call: &Call<'_>, peer: SocketAddr, allowed: bool) -> Route {
        let known = [nfs3::PROGRAM, mount::PROGRAM, acl::PROGRAM].contains(&call.program);
        if !known {
            // Port mapper, NLM, NSM: a client mounts without them.
            return refuse(call, accept_stat_data::PROG_UNAVAIL);
        }
        // All three have version 3.
        if call.version != nfs3::VERSION {
            return refuse(call, accept_stat_data::PROG_MISMATCH { low: 3, high: 3 });
        }
        if call.program == mount::PROGRAM {
            self.mount(call, peer, allowed)
        } else if !allowed && call.procedure != NFS_PROGRAM::NFSPROC3_NULL as u32 {
            Route::Answer(answers::denied(call.xid, auth_stat::AUTH_TOOWEAK))
        } else if call.program == acl::PROGRAM {
            Route::Answer(acl::answer(call, &self.exports))
        } else {
            self.nfs(call)
        }
    }

    /// The MOUNT protocol (RFC 1813 section 5).
    fn mount(&self, call: &Call<'_>, peer: SocketAddr, allowed: bool) -> Route {
        use MOUNT_PROGRAM::*;
        let xid = call.xid;
        Route::Answer(match MOUNT_PROGRAM::try_from(call.procedure) {
            Ok(MOUNTPROC3_NULL | MOUNTPROC3_UMNTALL) => answers::void(xid),
            Ok(MOUNTPROC3_MNT) => match mount_path(call.arguments) {
                Some(path) => return self.mnt(call, peer, allowed, path),
                None => return refuse(call, accept_stat_data::GARBAGE_ARGS),
            },
            Ok(MOUNTPROC3_UMNT) => {
                if let Some(path) = mount_path(call.arguments) {
                    self.tell(Event::Unmounted { peer, path });
                }
                answers::void(xid)
            }
            // Nobody keeps the list of mounts that this procedure asks for: it is empty.
            Ok(MOUNTPROC3_DUMP) => answers::success(xid, &false),
            Ok(MOUNTPROC3_EXPORT) => answers::export_list(xid, &self.exports),
            Err(_) => return refuse(call, accept_stat_data::PROC_UNAVAIL),
        })
    }

    fn mnt(&self, call: &Call<'_>, peer: SocketAddr, allowed: bool, path: String) -> Route {
        let (why, status) = match self.exports.by_path(&path) {
            _ if !allowed => (Refusal::NotAllowed { path }, mountstat3::MNT3ERR_ACCES),
            None => (Refusal::UnknownExport { path }, mountstat3::MNT3ERR_NOENT),
            Some(tree) => {
                self.tell(Event::Mounted {
                    peer,
                    export: tree.name.clone(),
                });
                return pass(call, 0);
            }
        };
        self.tell(Event::Refused { peer, why });
        Route::Answer(answers::mount_refused(call.xid, status))
    }

    /// The NFS protocol (RFC 1813 section 3).
    fn nfs(&self, call: &Call<'_>) -> Route {
        use NFS_PROGRAM::*;
        let Ok(procedure) = NFS_PROGRAM::try_from(call.procedure) else {
            return refuse(call, accept_stat_data::PROC_UNAVAIL);
        };
        let (exports, arguments) = (&self.exports, call.arguments);
        let answer = match procedure {
            NFSPROC3_NULL => Some(answers::void(call.xid)),
            NFSPROC3_ACCESS => answers::access(call.xid, exports, arguments, &call.caller),
            NFSPROC3_FSSTAT => answers::fsstat(call.xid, exports, arguments),
            NFSPROC3_PATHCONF => answers::pathconf(call.xid, exports, arguments),
            NFSPROC3_GETATTR | NFSPROC3_READLINK | NFSPROC3_FSINFO => {
                return engine(call, Shape::Fixed(0), 0);
            }
            NFSPROC3_LOOKUP => return engine(call, Shape::Name, 0),
            // After the handle: offset, count.
            NFSPROC3_READ => return engine(call, Shape::Fixed(12), 1),
            // Cookie, verifier, count; or cookie, verifier, dircount, maxcount.
            NFSPROC3_READDIR => return engine(call, Shape::Fixed(20), 1),
            NFSPROC3_READDIRPLUS => return engine(call, Shape::Fixed(24), 2),
            // Two wcc_data; post_op_attr and wcc_data; one wcc_data.
            NFSPROC3_RENAME => Some(answers::read_only(call.xid, 4)),
            NFSPROC3_LINK => Some(answers::read_only(call.xid, 3)),
            NFSPROC3_SETATTR | NFSPROC3_WRITE | NFSPROC3_CREATE | NFSPROC3_MKDIR
            | NFSPROC3_SYMLINK | NFSPROC3_MKNOD | NFSPROC3_REMOVE | NFSPROC3_RMDIR
            | NFSPROC3_COMMIT => Some(answers::read_only(call.xid, 2)),
        };
        answer.map_or_else(
            || refuse(call, accept_stat_data::GARBAGE_ARGS),
            Route::Answer,
        )
    }
}

fn refuse(call: &Call<'_>, why: accept_stat_data) -> Route {
    Route::Answer(answers::not_done(call.xid, why))
}

fn engine(call: &Call<'_>, shape: Shape, counts: usize) -> Route {
    if has_shape(call.arguments, shape) {
        pass(call, counts)
    } else {
        refuse(call, accept_stat_data::GARBAGE_ARGS)
    }
}

/// Passes a call on. Its last `counts` words say how much the client takes: they are cut to [`MAX_DATA`].
fn pass(call: &Call<'_>, counts: usize) -> Route {
    let mut arguments = call.arguments.to_vec();
    let mut reply = 0;
    let tail = arguments.len().saturating_sub(4 * counts);
    for word in arguments[tail..].chunks_exact_mut(4) {
        let count = word
            .iter()
            .fold(0, |count, byte| count << 8 | u32::from(*byte));
        reply = count.min(MAX_DATA);
        word.copy_from_slice(&reply.to_be_bytes());
    }
    Route::Engine { arguments, reply }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate> {
        Arc::new(Gate {
            exports: Exports::scan(&[]).unwrap(),
            observer: Arc::new(|_| {}),
            allow: Arc::new(|_| true),
            limits: Limits::default(),
            engine: SocketAddr::from(([127, 0, 0, 1], 1)),
            secret: [0; 16],
            open: Mutex::default(),
            connections: Gauge::default(),
        })
    }

    /// README and the refusals' words name these numbers.
    #[test]
    fn one_address_has_32_connections_all_together_512_and_each_place_comes_back() {
        let gate = gate();
        let from = |host: u8| SocketAddr::from(([10, 77, 0, host], 700));
        let mut places: Vec<_> = (0..32).map(|_| gate.admit(from(0)).unwrap()).collect();
        let said = gate.admit(from(0)).err().unwrap().to_string();
        assert!(
            said.starts_with("connection: 32 are open already, from this address; "),
            "{said}"
        );
        places.extend((32..512).map(|n| gate.admit(from((n / 32) as u8)).unwrap()));
        assert_eq!(gate.connections.get(), 512);
        let said = gate.admit(from(99)).err().unwrap().to_string();
        assert!(
            said.starts_with("connection: 512 are open already, in all; "),
            "{said}"
        );
        drop(places.swap_remove(0));
        places.push(gate.admit(from(99)).unwrap());
        drop(places);
        assert_eq!(gate.connections.get(), 0);
        assert!(gate.open.lock().unwrap().is_empty());
    }
}
