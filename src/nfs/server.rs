//! The server: binds, accepts, stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nfs3_server::tcp::{NFSTcp, NFSTcpListener};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use super::event::{Event, Observer};
use super::exports::Exports;
use super::gate::{Allow, Connected, Full, Gate};
use super::handle::GENERATION;
use super::view::View;
use crate::metrics::NfsMetrics;

/// Pause after a failed accept (out of descriptors, mostly), so that it is not tried in a tight loop.
const BREATHER: Duration = Duration::from_millis(100);

/// How many connections may be open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all. Each costs two descriptors, and at worst 8 MiB.
    pub connections: usize,
    /// From one address. A client uses one per server, up to 16 with `nconnect`.
    pub connections_per_address: usize,
    /// How long a client may say nothing before its first call on an export. Who only holds places is let go.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_address: 32,
            silence: Duration::from_secs(30),
        }
    }
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("cannot serve NFS on {address}: TCP port {} is taken; stop who has it (ss -ltnp) or choose another", address.port())]
    Taken {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("cannot serve NFS on {address}: the system refused TCP port {}", address.port())]
    Refused {
        /// What was asked for.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The engine has no loopback port.
    #[error(
        "cannot serve NFS: no port on 127.0.0.1 for the protocol engine; is the loopback interface up?"
    )]
    Engine {
        /// The cause.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { address },
            _ => Self::Refused { address, source },
        }
    }
}

/// Whether a client's port is one that only root can have (below 1024), for [`Server::allow`]. The kernel's
/// client uses such ports (unless `noresvport`); a program of an ordinary user on the same host cannot.
pub fn reserved_port(peer: SocketAddr) -> bool {
    peer.port() < 1024
}

/// A bound NFS server; [`serve`](Self::serve) runs it.
pub struct Server {
    listener: TcpListener,
    engine: Arc<NFSTcpListener<View>>,
    gate: Gate,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Binds NFS and MOUNT (one port for both; there is no port mapper, clients name `port=` and `mountport=`).
    ///
    /// # Errors
    /// [`BindError`], which names the port.
    pub async fn bind(
        address: SocketAddr,
        exports: Exports,
        observer: Observer,
    ) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError::new(address, source))?;
        Self::with_listener(listener, exports, observer).await
    }

    /// Serves on a socket that listens already (socket activation, or handed over by an earlier process).
    ///
    /// # Errors
    /// [`BindError::Engine`].
    pub async fn with_listener(
        listener: TcpListener,
        exports: Exports,
        observer: Observer,
    ) -> Result<Self, BindError> {
        let fault = |source| BindError::Engine { source };
        let secret = rand::random();
        let view = View::new(exports.clone(), Arc::clone(&observer), secret);
        let engine = NFSTcpListener::bind_with_generation("127.0.0.1:0", view, GENERATION)
            .await
            .map_err(fault)?;
        let gate = Gate {
            exports,
            observer,
            allow: Arc::new(|_| true),
            limits: Limits::default(),
            engine: SocketAddr::new(engine.get_listen_ip(), engine.get_listen_port()),
            secret,
            open: Arc::default(),
            metrics: NfsMetrics::default(),
        };
        Ok(Self {
            listener,
            engine: Arc::new(engine),
            gate,
        })
    }

    /// Asks `allow` for every connection; a client that is refused gets MNT3ERR_ACCES and an RPC denial for
    /// the rest. Default: everybody. It is called in the server's tasks and must return at once.
    #[must_use]
    pub fn allow(mut self, allow: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        self.gate.allow = Arc::new(allow) as Allow;
        self
    }

    /// Sets how many connections may be open.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.gate.limits = limits;
        self
    }

    /// Counts in `metrics`.
    #[must_use]
    pub fn counting(mut self, metrics: NfsMetrics) -> Self {
        self.gate.metrics = metrics;
        self
    }

    /// Who is connected.
    pub fn connected(&self) -> Connected {
        Connected(Arc::clone(&self.gate.open))
    }

    /// The bound address; its port is the one given for port 0.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; then takes no more calls, finishes those under way (2 s at most) and returns.
    /// Clients with hard mounts wait for the next server on this address.
    pub async fn serve(self, shutdown: CancellationToken) {
        let (gate, tasks) = (Arc::new(self.gate), TaskTracker::new());
        tokio::select! {
            () = accept(&self.listener, &gate, &tasks, &shutdown) => {}
            () = keep_running(&self.engine, &gate) => {}
            () = shutdown.cancelled() => {}
        }
        drop(self.listener);
        tasks.close();
        tasks.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    gate: &Arc<Gate>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                admit(stream, peer, gate, tasks, shutdown);
            }
            Err(error) => {
                gate.tell(Event::Faltered {
                    operation: "accept a connection",
                    error,
                });
                sleep(BREATHER).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    gate: &Arc<Gate>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let place = match gate.admit(peer) {
        Ok(place) => place,
        Err(Full { told: true, .. }) => return,
        Err(Full { why, .. }) => return gate.tell(Event::Refused { peer, why }),
    };
    let (gate, shutdown) = (Arc::clone(gate), shutdown.clone());
    tasks.spawn(async move {
        let _place = place;
        // A client that goes away is no news.
        if let Err(error) = connection::serve(stream, peer, &gate, &shutdown).await {
            tracing::debug!(%peer, %error, "NFS connection ended");
        }
    });
}

/// Runs the engine, again whenever its accept loop ends: it does at the first error, and panics where a
/// connection is gone before it is accepted.
async fn keep_running(engine: &Arc<NFSTcpListener<View>>, gate: &Gate) {
    loop {
        let running = Arc::clone(engine);
        let mut task = AbortOnDrop(tokio::spawn(async move { running.handle_forever().await }));
        let error = match (&mut task.0).await {
            Ok(Ok(())) => io::Error::other("it ended"),
            Ok(Err(error)) => error,
            Err(panic) => panic.into(),
        };
        gate.tell(Event::Faltered {
            operation: "run the protocol engine",
            error,
        });
        sleep(BREATHER).await;
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
