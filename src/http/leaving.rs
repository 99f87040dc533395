//! What was handed to a connection, and whether it left: hyper takes up to a chunk of a body before any of it is
//! with the kernel, which is the whole of most files.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Takes whether all that was handed over has left.
type Told = Box<dyn FnOnce(bool) + Send>;
/// Takes how many bytes of the connection the kernel has taken.
type Moves = Arc<dyn Fn(u64) + Send + Sync>;

/// Whoever wants to know how far a body is.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(5);

/// What leaves by one connection. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Leaving(Arc<Inner>);

#[derive(Default)]
struct Inner {
    taken: AtomicU64,
    queue: Mutex<Queue>,
    moving: Mutex<Option<Moving>>,
}

/// Who is told how far a body is.
struct Moving {
    told: Instant,
    moves: Moves,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Told>,
    ended: bool,
}

impl std::fmt::Debug for Leaving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leaving({} bytes)", self.taken())
    }
}

impl Leaving {
    /// The kernel took so many bytes more.
    pub(super) fn add(&self, bytes: usize) {
        self.0.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        // Called without the lock, too.
        if let Some(moves) = self.moves_now() {
            moves(self.taken());
        }
    }

    /// Who is to be told now.
    fn moves_now(&self) -> Option<Moves> {
        let mut moving = self.moving();
        let moving = moving.as_mut()?;
        if moving.told.elapsed() < TOLD_EVERY {
            return None;
        }
        moving.told = Instant::now();
        Some(moving.moves.clone())
    }

    /// From now on `moves` is told now and then, while something leaves, how many bytes the kernel has taken since the
    /// connection began.
    pub(super) fn tell_moves(&self, moves: impl Fn(u64) + Send + Sync + 'static) {
        *self.moving() = Some(Moving {
            told: Instant::now(),
            moves: Arc::new(moves),
        });
    }

    /// Whoever was told of moves is not any more.
    pub(super) fn tell_no_moves(&self) {
        *self.moving() = None;
    }

    fn moving(&self) -> MutexGuard<'_, Option<Moving>> {
        self.0.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the kernel took since the connection began, heads of answers and TLS included.
    pub(super) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// How much of a body of `handed` bytes the kernel took, about, where it had taken `before` when it began.
    pub(super) fn of(&self, handed: usize, before: u64) -> usize {
        let taken = self.taken().saturating_sub(before);
        usize::try_from(taken).map_or(handed, |taken| taken.min(handed))
    }

    /// Calls `told` with `true` when all that was handed to the connection until now is with the kernel, or with `false`
    /// when the connection ends before.
    pub(super) fn when_left(&self, told: impl FnOnce(bool) + Send + 'static) {
        let mut queue = self.lock();
        if !queue.ended {
            return queue.waiting.push(Box::new(told));
        }
        drop(queue);
        told(false);
    }

    /// All that was handed over is with the kernel.
    pub(super) fn flushed(&self) {
        self.tell(true);
    }

    /// Nothing leaves any more.
    pub(super) fn ended(&self) {
        self.lock().ended = true;
        self.tell(false);
    }

    fn tell(&self, left: bool) {
        // Called without the lock: who is told writes to the event log.
        let waiting = std::mem::take(&mut self.lock().waiting);
        for told in waiting {
            told(left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::super::body::{Sent, Served};
    use super::super::outlet::tests::narrow;
    use super::super::outlet::{InHand, Outlet};

    const FILE: usize = 1 << 20;

    /// A client that has asked for a file of 1 MiB over a connection whose buffers hold much less, and what is told of it.
    async fn asked() -> (TcpStream, UnboundedReceiver<Sent>) {
        let (stream, mut client) = narrow().await;
        let (tell, told) = unbounded_channel();
        let in_hand = InHand::default();
        let leaving = in_hand.leaving.clone();
        let service = service_fn(move |_: Request<hyper::body::Incoming>| {
            let tell = tell.clone();
            let done = move |sent| tell.send(sent).unwrap();
            let body = Served::new(vec![7; FILE].into(), None, leaving.clone(), done);
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let outlet = TokioIo::new(Outlet::new(stream, in_hand));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(outlet, service));
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        // The answer has begun, and with it the body is in hyper's hands.
        client.read_exact(&mut [0; 4096]).await.unwrap();
        (client, told)
    }

    async fn next(told: &mut UnboundedReceiver<Sent>) -> Sent {
        let next = tokio::time::timeout(Duration::from_secs(20), told.recv());
        next.await.expect("it is told").unwrap()
    }

    #[tokio::test]
    async fn a_file_is_told_of_when_all_of_it_has_left() {
        let (mut client, mut told) = asked().await;
        assert!(told.try_recv().is_err(), "most of it is here");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() > FILE - 4096);
        let sent = next(&mut told).await;
        assert!(sent.whole && sent.bytes == FILE, "{sent:?}");
    }

    #[tokio::test]
    async fn a_file_whose_client_goes_was_cut_off_where_the_kernel_took_no_more() {
        let (client, mut told) = asked().await;
        drop(client);
        let sent = next(&mut told).await;
        assert!(!sent.whole && sent.bytes < FILE / 2, "{sent:?}");
        assert!(sent.bytes > 3000, "{sent:?}");
    }
}
