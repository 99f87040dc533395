//! Connections: TCP for machines, a Unix socket for the operator's commands.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::Ends;
use super::addresses::{Addresses, PER_ADDRESS, Seat, TooMany};
use super::live::Closing;
use super::outlet::{InHand, Outlet};
use crate::metrics::{Gauge, HttpMetrics, HttpRoute, StatusClass};

/// Connections at once; beyond, they wait in the kernel's queue. A rack that boots
/// together opens one or two per host.
pub(super) const CONNECTIONS: usize = 8192;
/// A client that has not sent its request by then is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that has not finished its TLS handshake by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request must be complete, and answered, by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that acknowledges nothing for this long is let go (`TCP_USER_TIMEOUT`), ms.
const STUCK_MS: u32 = 60_000;
/// How long running transfers may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// Refusals that are said in words at once; further ones are a closed connection.
const REFUSALS: usize = 64;
/// How long a refusal may take to be sent.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes the ends of a connection and why what came by it, or the connection itself, is not served.
pub type Trouble = Arc<dyn Fn(Ends, String) + Send + Sync>;

/// What the next connection is encrypted with: it may change with a reload. `None`: nothing, it is closed.
pub type Keys = Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>;

/// Serves machines until `shutdown`, then lets transfers finish; by HTTPS if there are `keys`.
///
/// `trouble` is told of peers that do not speak HTTP, or that take more connections than is fair.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    keys: Option<Keys>,
    metrics: HttpMetrics,
    trouble: Trouble,
    shutdown: CancellationToken,
) {
    let mut server = Server::new(router, metrics, trouble, shutdown.clone());
    server.keys = keys;
    let addresses = Arc::new(Addresses::new(PER_ADDRESS));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    loop {
        let (permit, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = server.next(listener.accept()) => next,
        };
        let (stream, ends) = match accepted {
            Ok((stream, peer)) => {
                let (peer, local) = (v4(Ok(peer)), v4(stream.local_addr()));
                let sealed = server.keys.is_some();
                let ends = Ends::Network {
                    peer,
                    local,
                    sealed,
                };
                (stream, ends)
            }
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        match addresses.admit(ends.peer()) {
            Ok(seat) => server.accept(stream, ends, Held::new(&server.metrics, permit, Some(seat))),
            Err(why) => server.refuse(stream, ends, &why, refusals.clone()),
        }
    }
    server.drain().await;
}

/// Serves the operator's commands on the machine itself.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
) {
    let server = Server::new(router, metrics, Arc::new(|_, _| {}), shutdown);
    server.take_commands(listener).await;
    server.drain().await;
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

/// What a connection holds while it lasts.
struct Held {
    open: Gauge,
    _permit: Option<OwnedSemaphorePermit>,
    _seat: Option<Seat>,
}

impl Held {
    fn new(
        metrics: &HttpMetrics,
        permit: Option<OwnedSemaphorePermit>,
        seat: Option<Seat>,
    ) -> Self {
        let open = metrics.connections.clone();
        open.inc();
        Self {
            open,
            _permit: permit,
            _seat: seat,
        }
    }

    async fn during(self, work: impl Future<Output = ()>) {
        work.await;
        drop(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// What all connections of a socket share.
#[derive(Clone)]
struct Server {
    router: Router,
    metrics: HttpMetrics,
    trouble: Trouble,
    keys: Option<Keys>,
    permits: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Server {
    fn new(
        router: Router,
        metrics: HttpMetrics,
        trouble: Trouble,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            router,
            metrics,
            trouble,
            keys: None,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            shutdown,
        }
    }

    /// The next connection, once there is room for it; the permit is `None` only after the semaphore was closed,
    /// which it never is.
    async fn next<T>(&self, accept: impl Future<Output = T>) -> (Option<OwnedSemaphorePermit>, T) {
        let permit = self.permits.clone().acquire_owned().await.ok();
        (permit, accept.await)
    }

    async fn take_commands(&self, listener: UnixListener) {
        loop {
            let (permit, accepted) = tokio::select! {
                () = self.shutdown.cancelled() => break,
                next = self.next(listener.accept()) => next,
            };
            match accepted {
                Ok((stream, _)) => {
                    let held = Held::new(&self.metrics, permit, None);
                    let talk = self.clone().talk(stream, InHand::default(), Ends::Local);
                    tokio::spawn(held.during(talk));
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    fn accept(&self, stream: TcpStream, ends: Ends, held: Held) {
        // Both only make things better; a socket without them still serves.
        let _ = stream.set_nodelay(true);
        let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &STUCK_MS);
        let in_hand = InHand::default();
        let outlet = Outlet::new(stream, in_hand.clone());
        let server = self.clone();
        match &self.keys {
            None => tokio::spawn(held.during(server.talk(outlet, in_hand, ends))),
            Some(keys) => {
                let keys = keys();
                tokio::spawn(held.during(server.encrypt(keys, outlet, in_hand, ends)))
            }
        };
    }

    /// The same inside TLS.
    async fn encrypt(
        self,
        keys: Option<Arc<ServerConfig>>,
        outlet: Outlet,
        in_hand: InHand,
        ends: Ends,
    ) {
        let Some(keys) = keys else { return };
        let accepted = TlsAcceptor::from(keys).accept(outlet);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accepted) => accepted,
            // Nothing is under way that the end should wait for.
            () = self.shutdown.cancelled() => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.talk(stream, in_hand, ends).await,
            Ok(Err(error)) => {
                let peer = ends.peer();
                (self.trouble)(ends, format!("no HTTPS with {peer}: {error}"));
            }
            Err(_) => tracing::debug!("{} did not finish its TLS handshake", ends.peer()),
        }
    }

    /// Says no, once in words to the operator, and to the client as often as there is room for.
    fn refuse(&self, stream: TcpStream, ends: Ends, why: &TooMany, refusals: Arc<Semaphore>) {
        self.metrics.refused.inc();
        if *why == TooMany::First {
            let peer = ends.peer();
            let message = format!(
                "{peer} has {PER_ADDRESS} HTTP connections, as many as one address may: further ones are refused"
            );
            (self.trouble)(ends, message);
        }
        // Words outside TLS would be no words to a client that speaks it.
        if self.keys.is_none()
            && let Ok(room) = refusals.try_acquire_owned()
        {
            tokio::spawn(async move {
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, say_no(stream)).await;
                drop(room);
            });
        }
    }

    /// Answers requests until the client is done.
    async fn talk<S>(self, stream: S, in_hand: InHand, ends: Ends)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, metrics) = (self.router, self.metrics);
        let closing = Closing(self.shutdown.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let route = HttpRoute::of(request.uri().path());
            request.extensions_mut().insert(ends);
            request.extensions_mut().insert(in_hand.clone());
            request.extensions_mut().insert(closing.clone());
            let answer = router.clone().call(request.map(Body::new));
            let metrics = metrics.clone();
            async move {
                let answer = answer_in_time(answer).await?;
                let class = StatusClass::of(answer.status());
                metrics.requests.of(route, class).inc();
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = &mut connection => outcome,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        match outcome {
            Err(error) if error.is_parse() => {
                let peer = ends.peer();
                let message = format!("no answer to what {peer} sent by HTTP: {error}");
                (self.trouble)(ends, message);
            }
            Err(error) => tracing::debug!("an HTTP connection ended: {error}"),
            Ok(()) => {}
        }
    }

    async fn drain(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(DRAIN, self.permits.acquire_many(all)).await;
    }
}

/// A body that never comes must not hold its place; files are sent after this.
async fn answer_in_time<E>(
    answer: impl Future<Output = Result<Response, E>>,
) -> Result<Response, E> {
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    answered.unwrap_or_else(|_| {
        let words = "the request was not complete in time\n";
        Ok((StatusCode::REQUEST_TIMEOUT, words).into_response())
    })
}

/// iPXE comes again by itself after `Retry-After`.
async fn say_no(mut stream: TcpStream) -> io::Result<()> {
    let words = format!("your address has {PER_ADDRESS} connections to this server already\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{words}",
        words.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // A socket that is closed with something unread resets the connection, and the answer may be lost.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        Arc::new(move || Some(config.clone()))
    }

    #[tokio::test]
    async fn a_client_that_never_begins_its_handshake_keeps_no_server_from_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (shutdown, metrics) = (CancellationToken::new(), HttpMetrics::default());
        let serving = tokio::spawn(serve_tcp(
            listener,
            Router::new(),
            Some(keys()),
            metrics.clone(),
            Arc::new(|_, _| {}),
            shutdown.clone(),
        ));
        let _silent = TcpStream::connect(at).await.unwrap();
        while metrics.connections.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shutdown.cancel();
        let ended = tokio::time::timeout(HANDSHAKE_TIMEOUT / 2, serving).await;
        assert!(ended.is_ok(), "it waits for the handshake");
    }

    #[tokio::test]
    async fn a_server_with_all_its_places_taken_ends_when_it_is_told_to() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("control")).unwrap();
        let shutdown = CancellationToken::new();
        let trouble: Trouble = Arc::new(|_, _| {});
        let metrics = HttpMetrics::default();
        let server = Server::new(Router::new(), metrics, trouble, shutdown.clone());
        let all = u32::try_from(CONNECTIONS).unwrap();
        let held = server.permits.acquire_many(all).await.unwrap();
        let serving = server.take_commands(listener);
        shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), serving).await;
        assert!(ended.is_ok(), "it waits for a place");
        drop(held);
    }
}
