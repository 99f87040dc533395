//! The server: takes requests, answers those that can't be served, and gives each other one a socket and a task.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::contract::{Ignored, Observer, Refusal, Request, Source, TransferEvent, What};
use super::desk::{Admission, Desk, Seat};
use super::negotiate::{Ceiling, Terms};
use super::outcome::{Outcome, Patience};
use super::session::{Reports, Session};
use super::socket::{self, Received};
use super::transfer::Transfer;
use super::worker::{self, Crew};
use crate::floodgate::Floodgate;
use crate::wire::tftp::{self as wire, ErrorCode, Malformed, Packet};

/// Rest after a failed receive, so that a broken socket doesn't burn a core.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// Bounds on what the server takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Transfers at once. Each costs a file descriptor and a few KiB.
    pub transfers: usize,
    /// Transfers at once for one client address, so that one mad client leaves room for the others.
    pub transfers_per_client: usize,
    /// Requests in a second from one client address, and four seconds' worth at once. What is beyond gets no answer:
    /// to refuse costs more than to ask.
    pub requests_per_client: u32,
    /// Largest options granted.
    pub ceiling: Ceiling,
    /// How long clients are waited for.
    pub patience: Patience,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfers: 4096,
            transfers_per_client: 1024,
            requests_per_client: 1000,
            ceiling: Ceiling::default(),
            patience: Patience::default(),
        }
    }
}

/// Why a server can't start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The kernel refused the address.
    #[error("failed to listen for TFTP on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said: in use, no such address, no privilege for a port below 1024.
        source: io::Error,
    },
    /// The socket was made but can't be used.
    #[error("failed to set up the TFTP socket: it must be an IPv4 UDP socket")]
    Prepare {
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TFTP server that listens, but doesn't answer yet.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<StdUdpSocket>,
    limits: Limits,
}

impl Server {
    /// Listens on one address; port 0 takes any free port, `0.0.0.0` every address of the machine.
    ///
    /// # Errors
    /// [`BindError`] where the address can't be had.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let socket =
            StdUdpSocket::bind(address).map_err(|source| BindError::Bind { address, source })?;
        Self::from_sockets(vec![socket])
    }

    /// Takes bound IPv4 UDP sockets: inherited ones, ones bound to a device, or several that share a port by
    /// `SO_REUSEPORT`.
    ///
    /// # Errors
    /// [`BindError::Prepare`] where one isn't such a socket.
    pub fn from_sockets(sockets: Vec<StdUdpSocket>) -> Result<Self, BindError> {
        for socket in &sockets {
            socket::prepare_listener(socket).map_err(|source| BindError::Prepare { source })?;
        }
        let limits = Limits::default();
        Ok(Self { sockets, limits })
    }

    /// The same server with other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The sockets that requests come in by.
    pub fn sockets(&self) -> &[StdUdpSocket] {
        &self.sockets
    }

    /// Where it listens.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().filter_map(|s| s.local_addr().ok())
    }

    /// Serves until `shutdown` is cancelled, then takes no new request, lets running transfers finish for at most
    /// `drain`, ends the rest with an ERROR, and returns. Dropping the future ends all at once.
    ///
    /// # Errors
    /// [`BindError::Prepare`] where a socket can't be given to the runtime. Nothing that happens later ends it.
    ///
    /// # Panics
    /// Where `source` or `observer` panics.
    pub async fn run(
        self,
        source: Arc<dyn Source>,
        observer: Arc<dyn Observer>,
        shutdown: CancellationToken,
        drain: Duration,
    ) -> Result<(), BindError> {
        let office = Arc::new(Office {
            desk: Desk::new(self.limits.transfers, self.limits.transfers_per_client),
            floodgate: Mutex::new(Floodgate::new(self.limits.requests_per_client)),
            limits: self.limits,
            source,
            observer,
            sessions: TaskTracker::new(),
            crew: Crew::new().map_err(|source| BindError::Prepare { source })?,
        });
        let stop_all = StopAll(office.clone());
        let (mut listeners, mut workers) = (JoinSet::new(), JoinSet::new());
        for post in office.crew.posts() {
            workers.spawn_blocking(|| worker::work(post));
        }
        for socket in self.sockets {
            let socket =
                UdpSocket::from_std(socket).map_err(|source| BindError::Prepare { source })?;
            listeners.spawn(office.clone().listen(Arc::new(socket), shutdown.clone()));
        }
        tokio::select! {
            () = all(&mut listeners) => {}
            () = all(&mut workers) => {}
        }
        office.sessions.close();
        let _ = timeout(drain, office.sessions.wait()).await;
        drop(stop_all);
        all(&mut workers).await;
        Ok(())
    }
}

/// Waits for the end of all. A panic of the source or the observer is the house's fault, and not to be hidden here.
async fn all(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Ends every transfer when dropped, also where nobody waits for the server any more.
struct StopAll(Arc<Office>);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.sessions.close();
        self.0.desk.stop_all();
        self.0.crew.close();
    }
}

/// What all listeners and transfers share.
struct Office {
    desk: Arc<Desk>,
    floodgate: Mutex<Floodgate>,
    limits: Limits,
    source: Arc<dyn Source>,
    observer: Arc<dyn Observer>,
    sessions: TaskTracker,
    crew: Crew,
}

impl Office {
    async fn listen(self: Arc<Self>, listener: Arc<UdpSocket>, shutdown: CancellationToken) {
        let requests = async {
            loop {
                match socket::receive(&listener).await {
                    Ok(received) => self.take(&listener, received),
                    Err(source) => {
                        self.report_trouble("receive a TFTP request", source);
                        sleep(AFTER_FAILURE).await;
                    }
                }
            }
        };
        shutdown.run_until_cancelled(requests).await;
    }

    /// Deals with one datagram; never waits.
    fn take(self: &Arc<Self>, listener: &Arc<UdpSocket>, received: Received) {
        if received.broadcast {
            return self.ignore(&received, Ignored::Broadcast);
        }
        if received.peer.port() == 0 {
            return self.ignore(&received, Ignored::NoPeerPort);
        }
        if !self.passes(*received.peer.ip()) {
            return self.ignore(&received, Ignored::TooMany);
        }
        match Packet::parse(&received.bytes) {
            Ok(Packet::Read(request)) => {
                let request = accepted(&received, &request);
                self.read(listener, received, request);
            }
            Ok(Packet::Write(request)) => {
                let request = accepted(&received, &request);
                let because = Refusal::new(ErrorCode::AccessViolation, "this server only reads");
                self.refuse(listener, &received, request.name, because);
            }
            Ok(Packet::Error { .. }) => self.ignore(&received, Ignored::NoSuchTransfer),
            Ok(_) => {
                let code = ErrorCode::UnknownTransferId;
                socket::send_error(listener, &received, code, "unknown transfer");
                self.ignore(&received, Ignored::NoSuchTransfer);
            }
            Err(because) => self.reject(listener, &received, because),
        }
    }

    fn passes(&self, client: Ipv4Addr) -> bool {
        let gate = self.floodgate.lock();
        // No code panics while it holds the lock.
        gate.unwrap_or_else(PoisonError::into_inner)
            .pass(client, Instant::now())
    }

    fn read(self: &Arc<Self>, listener: &Arc<UdpSocket>, received: Received, request: Request) {
        let now = Instant::now();
        match self.desk.admit(received.peer, &received.bytes, now) {
            Admission::Seated(seat) => self.serve(listener, received, request, seat),
            Admission::Repeated => self.ignore(&received, Ignored::RepeatedRequest),
            Admission::Stale => self.ignore(&received, Ignored::StaleRequest),
            Admission::Full => self.refuse(listener, &received, request.name, busy()),
        }
    }

    fn serve(
        self: &Arc<Self>,
        listener: &Arc<UdpSocket>,
        received: Received,
        request: Request,
        seat: Seat,
    ) {
        let file = match self.source.open(&request) {
            Ok(file) => file,
            Err(because) => return self.refuse(listener, &received, request.name, because),
        };
        let socket = match socket::transfer_socket(received.local, received.peer) {
            Ok(socket) => socket,
            Err(source) => {
                self.report_trouble("make a socket for a TFTP transfer", source);
                return self.refuse(listener, &received, request.name, busy());
            }
        };
        let ceiling = self.limits.ceiling.for_mtu(socket::route_mtu(&socket));
        let size = file.len() as u64;
        let terms = Terms::agree(&request.options, ceiling, size);
        let name = request.name.clone();
        self.report(
            received.peer,
            received.local,
            What::Started { name, size, terms },
        );
        let transfer = Transfer::new(file, terms, self.limits.patience, Instant::now());
        let moving = {
            let (office, name) = (self.clone(), request.name.clone());
            let (peer, local) = (received.peer, received.local);
            move |reached| {
                let name = name.clone();
                office.report(peer, local, What::Moving { name, reached });
            }
        };
        let (office, listener) = (self.clone(), listener.clone());
        let running = self.sessions.token();
        let finished = move |seat: Seat, outcome: Outcome| {
            let by_client = outcome.is_by_client();
            let name = request.name.clone();
            office.report(
                received.peer,
                received.local,
                What::Finished { name, outcome },
            );
            // The very same request came after the client had ended this one: it waits for an answer.
            if seat.leave() && by_client && !office.sessions.is_closed() {
                office.read(&listener, received, request);
            }
            drop(running);
        };
        let reports = Reports {
            moving: Box::new(moving),
            finished: Box::new(finished),
        };
        self.crew
            .start(Session::new(socket, transfer, seat, reports));
    }

    fn refuse(&self, listener: &UdpSocket, received: &Received, name: Arc<str>, because: Refusal) {
        socket::send_error(listener, received, because.code, &because.text);
        self.report(
            received.peer,
            received.local,
            What::Refused { name, because },
        );
    }

    fn reject(&self, listener: &UdpSocket, received: &Received, because: Malformed) {
        // An answer to a broken ERROR could go back and forth for ever between two servers.
        if !received.bytes.starts_with(&[0, 5]) {
            let code = ErrorCode::IllegalOperation;
            socket::send_error(listener, received, code, &because.to_string());
        }
        self.report(received.peer, received.local, What::Malformed { because });
    }

    fn ignore(&self, received: &Received, because: Ignored) {
        self.report(received.peer, received.local, What::Ignored { because });
    }

    fn report(&self, peer: SocketAddrV4, local: Ipv4Addr, what: What) {
        self.observer.observe(TransferEvent {
            peer: Some(peer.into()),
            local: Some(local.into()),
            what,
        });
    }

    fn report_trouble(&self, operation: &'static str, source: io::Error) {
        self.observer.observe(TransferEvent {
            peer: None,
            local: None,
            what: What::Trouble { operation, source },
        });
    }
}

fn busy() -> Refusal {
    Refusal::new(ErrorCode::NotDefined, "server busy, try again")
}

fn accepted(received: &Received, request: &wire::Request<'_>) -> Request {
    let (peer, local) = (received.peer.into(), received.local.into());
    Request::new(peer, local, request)
}
