//! Connections: TCP for machines, a Unix socket for the operator's commands.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::Ends;

/// Connections at once; beyond, they wait in the kernel's queue. A rack that boots
/// together opens one or two per host.
const CONNECTIONS: usize = 8192;
/// A client that has not sent its request by then is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A request must be complete, and answered, by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that acknowledges nothing for this long is let go (`TCP_USER_TIMEOUT`), ms.
const STUCK_MS: u32 = 60_000;
/// How long running transfers may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves machines until `shutdown`, then lets transfers finish.
///
/// `malformed` is told of every peer that does not speak HTTP.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    malformed: Malformed,
    shutdown: CancellationToken,
) {
    let mut connections = Connections::new(router, shutdown.clone());
    connections.malformed = malformed;
    loop {
        let permit = connections.permit().await;
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let local = stream.local_addr();
                // Both only make things better; a socket without them still serves.
                let _ = stream.set_nodelay(true);
                let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &STUCK_MS);
                let ends = Ends::Network {
                    peer: v4(Ok(peer)),
                    local: v4(local),
                };
                connections.serve(stream, ends, permit);
            }
            Err(error) => pause_after(&error).await,
        }
    }
    connections.drain().await;
}

/// Serves the operator's commands on the machine itself.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    let connections = Connections::new(router, shutdown.clone());
    loop {
        let permit = connections.permit().await;
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.serve(stream, Ends::Local, permit),
            Err(error) => pause_after(&error).await,
        }
    }
    connections.drain().await;
}

/// Out of file descriptors, most likely: they come back as connections end.
async fn pause_after(error: &io::Error) {
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn v4(address: io::Result<SocketAddr>) -> Ipv4Addr {
    match address.map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => address,
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
        Err(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// Takes the ends of a connection and what was wrong with what came by it.
pub type Malformed = Arc<dyn Fn(Ends, String) + Send + Sync>;

struct Connections {
    router: Router,
    malformed: Malformed,
    permits: Arc<Semaphore>,
    shutdown: CancellationToken,
}

type Permit = Option<tokio::sync::OwnedSemaphorePermit>;

impl Connections {
    fn new(router: Router, shutdown: CancellationToken) -> Self {
        Self {
            router,
            malformed: Arc::new(|_, _| {}),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            shutdown,
        }
    }

    /// `None` only after the semaphore was closed, which it never is.
    async fn permit(&self) -> Permit {
        self.permits.clone().acquire_owned().await.ok()
    }

    fn serve<S>(&self, stream: S, ends: Ends, permit: Permit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, shutdown) = (self.router.clone(), self.shutdown.clone());
        let malformed = self.malformed.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ends);
            let answer = router.clone().call(request.map(Body::new));
            // A body that never comes must not hold its place; files are sent after this.
            async move {
                let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
                answered.unwrap_or_else(|_| Ok(StatusCode::REQUEST_TIMEOUT.into_response()))
            }
        });
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let outcome = tokio::select! {
                outcome = &mut connection => outcome,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            match outcome {
                Err(error) if error.is_parse() => malformed(ends, error.to_string()),
                Err(error) => tracing::debug!("an HTTP connection ended: {error}"),
                Ok(()) => {}
            }
            drop(permit);
        });
    }

    async fn drain(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(DRAIN, self.permits.acquire_many(all)).await;
    }
}
