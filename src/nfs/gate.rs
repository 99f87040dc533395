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
use crate::metrics::NfsMetrics;

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
    pub(super) open: Arc<Mutex<Open>>,
    pub(super) metrics: NfsMetrics,
}

/// Open connections.
#[derive(Debug, Default)]
pub(super) struct Open {
    by_address: HashMap<IpAddr, Held>,
    all: Held,
}

/// Tells who is connected, as long as it is.
#[derive(Debug, Clone)]
pub struct Connected(pub(super) Arc<Mutex<Open>>);

impl Connected {
    /// Whether an address holds a connection.
    pub fn has(&self, address: IpAddr) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_address.contains_key(&address)
    }
}

/// The connections that a limit counts.
#[derive(Debug, Default)]
struct Held {
    open: usize,
    /// That there were too many: said once, until there are few again. Who comes again and again would fill the log.
    told: bool,
}

impl Held {
    /// Whether one more is too many; and whether that was said already.
    fn is_full(&mut self, limit: usize) -> Option<bool> {
        (self.open >= limit).then(|| std::mem::replace(&mut self.told, true))
    }

    fn leave(&mut self, limit: usize) {
        self.open -= 1;
        self.told &= self.open > limit / 2;
    }
}

/// Why there is no place for a connection.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) why: Refusal,
    /// Whether it was said already.
    pub(super) told: bool,
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
        let limits = self.gate.limits;
        open.all.leave(limits.connections);
        if let Some(held) = open.by_address.get_mut(&self.address) {
            held.leave(limits.connections_per_address);
            if held.open == 0 {
                open.by_address.remove(&self.address);
            }
        }
        self.gate.metrics.connections.dec();
    }
}

impl Gate {
    /// A place for one more connection, or why there is none.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Result<Place, Full> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |limit, scope, told| {
            let why = Refusal::TooManyConnections { limit, scope };
            self.metrics.refused.of((&why).into()).inc();
            Err(Full { why, told })
        };
        let limits = self.limits;
        if let Some(told) = open.all.is_full(limits.connections) {
            return full(limits.connections, Scope::All, told);
        }
        let held = open.by_address.entry(peer.ip()).or_default();
        if let Some(told) = held.is_full(limits.connections_per_address) {
            return full(limits.connections_per_address, Scope::Address, told);
        }
        held.open += 1;
        open.all.open += 1;
        self.metrics.connections.inc();
        Ok(Place {
            gate: Arc::clone(self),
            address: peer.ip(),
        })
    }

    pub(super) fn tell(&self, event: Event) {
        (self.observer)(event);
    }

    /// Tells that a client did not get what it asked for.
    pub(super) fn refuse(&self, peer: SocketAddr, why: Refusal) {
        self.metrics.refused.of((&why).into()).inc();
        self.tell(Event::Refused { peer, why });
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
                self.metrics.mounts.inc();
                self.tell(Event::Mounted {
                    peer,
                    export: tree.name.clone(),
                });
                return pass(call, 0);
            }
        };
        self.refuse(peer, why);
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
    use crate::metrics::NfsRefusal;

    fn gate() -> Arc<Gate> {
        Arc::new(Gate {
            exports: Exports::scan(&[]).unwrap(),
            observer: Arc::new(|_| {}),
            allow: Arc::new(|_| true),
            limits: Limits::default(),
            engine: SocketAddr::from(([127, 0, 0, 1], 1)),
            secret: [0; 16],
            open: Arc::default(),
            metrics: NfsMetrics::default(),
        })
    }

    /// The words, and whether they were said already.
    fn refusal(gate: &Arc<Gate>, peer: SocketAddr, told: bool) -> String {
        let full = gate.admit(peer).err().unwrap();
        assert_eq!(full.told, told, "{peer}");
        full.why.to_string()
    }

    /// docs/operations.md and the refusals' words name these numbers.
    #[test]
    fn one_address_has_32_connections_all_together_512_and_each_place_comes_back() {
        let gate = gate();
        let from = |host: u8| SocketAddr::from(([10, 77, 0, host], 700));
        let mut places: Vec<_> = (0..32).map(|_| gate.admit(from(0)).unwrap()).collect();
        let said = refusal(&gate, from(0), false);
        assert!(
            said.starts_with("connection: 32 are open already, from this address; "),
            "{said}"
        );
        places.extend((32..512).map(|n| gate.admit(from((n / 32) as u8)).unwrap()));
        assert_eq!(gate.metrics.connections.get(), 512);
        let said = refusal(&gate, from(99), false);
        assert_eq!(refusal(&gate, from(98), true), said, "it is said once");
        assert!(
            said.starts_with("connection: 512 are open already, in all; "),
            "{said}"
        );
        drop(places.swap_remove(0));
        places.push(gate.admit(from(99)).unwrap());
        refusal(&gate, from(98), true);
        // Few are open again: the next time is said again.
        places.truncate(256);
        places.extend((0..256).map(|n| gate.admit(from((100 + n / 32) as u8)).unwrap()));
        refusal(&gate, from(98), false);
        let refused = gate.metrics.refused.of(NfsRefusal::Connections).get();
        assert_eq!(refused, 4, "each is counted");
        drop(places);
        assert_eq!(gate.metrics.connections.get(), 0);
        assert!(gate.open.lock().unwrap().by_address.is_empty());
    }
}
