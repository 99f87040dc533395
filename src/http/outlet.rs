//! A TCP connection that has the kernel send large files by itself (sendfile(2)), and lets go of who takes nothing.
//!
//! hyper speaks HTTP and hands slices of files to be written. Where a slice lies tells whether it is a part of
//! the file that the connection sends; then the kernel is told so, and nothing is copied.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::libc;
use nix::sys::sendfile::sendfile64;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::leaving::Leaving;
use crate::assets::Asset;

/// A client that is sent something must take [`PROGRESS`] bytes in this time.
const WATCH: Duration = Duration::from_secs(60);
/// 2 KiB/s: ten times slower than the slowest boot ROM that still boots.
const PROGRESS: usize = 128 << 10;

/// The file that a connection sends at present, if any; its handler says.
#[derive(Debug, Clone, Default)]
pub(super) struct InHand {
    asset: Arc<Mutex<Option<Arc<Asset>>>>,
    /// Whether what was handed over has left.
    pub(super) leaving: Leaving,
}

impl InHand {
    /// From now on the connection sends this file.
    pub(super) fn take(&self, asset: &Arc<Asset>) {
        *self.lock() = Some(asset.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Asset>>> {
        self.asset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where in the file's memory a slice lies, if it does and the file has a memory file.
fn offset_in(asset: &Asset, slice: &[u8]) -> Option<i64> {
    asset.memory()?;
    // The asset is alive, so nothing else can lie at these addresses.
    let file = asset.bytes.as_ptr_range();
    let part = slice.as_ptr_range();
    if part.start < file.start || part.end > file.end {
        return None;
    }
    i64::try_from(part.start.addr() - file.start.addr()).ok()
}

/// A connection to a client.
#[derive(Debug)]
pub(super) struct Outlet {
    stream: TcpStream,
    in_hand: InHand,
    /// Runs while the client takes less than it is offered.
    watch: Option<Pin<Box<Sleep>>>,
    /// What it took since the watch began, bytes.
    taken: usize,
    /// The kernel keeps back what fills no packet (tcp(7), TCP_CORK).
    corked: bool,
}

impl Outlet {
    pub(super) fn new(stream: TcpStream, in_hand: InHand) -> Self {
        Self {
            stream,
            in_hand,
            watch: None,
            taken: 0,
            corked: false,
        }
    }

    /// Writes once the socket can take something, or fails when it has not for too long.
    fn write_when_ready(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(context)? {
                Poll::Ready(()) => {}
                Poll::Pending => return self.watch(context),
            }
            match self
                .stream
                .try_io(Interest::WRITABLE, || write(&self.stream))
            {
                Ok(length) => {
                    self.taken += length;
                    self.in_hand.leaving.add(length);
                    return Poll::Ready(Ok(length));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The client is slower than we: that is normal, within limits.
    fn watch(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let taken = &mut self.taken;
        let watch = self.watch.get_or_insert_with(|| {
            *taken = 0;
            Box::pin(sleep(WATCH))
        });
        while watch.as_mut().poll(context).is_ready() {
            if *taken < PROGRESS {
                let why = format!("the client took {taken} bytes in {WATCH:?}");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            *taken = 0;
            watch.as_mut().reset(Instant::now() + WATCH);
        }
        Poll::Pending
    }

    /// While the kernel sends a file, every packet is to be full: without, each of its steps ends with a short one, and
    /// one client is served at two thirds of the speed. A socket that can't has full packets seldom, no more.
    fn cork(&mut self, corked: bool) {
        if self.corked != corked {
            self.corked = SockRef::from(&self.stream).set_tcp_cork(corked).is_ok() && corked;
        }
    }

    fn send_file(
        &mut self,
        context: &mut Context<'_>,
        asset: &Asset,
        offset: i64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        self.cork(true);
        self.write_when_ready(context, |stream| {
            let memory = asset.memory().ok_or(io::ErrorKind::InvalidInput)?;
            let mut offset = offset;
            Ok(sendfile64(stream, memory, Some(&mut offset), length)?)
        })
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let asset = this.in_hand.lock().clone();
        let offset = |slice: &[u8]| offset_in(asset.as_deref()?, slice);
        if let (Some(asset), [first, ..]) = (&asset, slices)
            && let Some(at) = offset_in(asset, first)
        {
            return this.send_file(context, asset, at, first.len());
        }
        let file = slices.iter().position(|slice| offset(slice).is_some());
        let plain = &slices[..file.unwrap_or(slices.len())];
        // The head leaves with the file's first bytes, in one packet (tcp(7), MSG_MORE).
        let flags = file.map_or(0, |_| libc::MSG_MORE) | libc::MSG_NOSIGNAL;
        this.write_when_ready(context, |stream| {
            SockRef::from(stream).send_vectored_with_flags(plain, flags)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Everything that was to be sent is with the kernel.
    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cork(false);
        self.watch = None;
        self.in_hand.leaving.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Poll::Ready(ready!(Pin::new(&mut this.stream).poll_shutdown(context)))
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.in_hand.leaving.ended();
    }
}

impl AsyncRead for Outlet {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::poll_fn;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    static CHUNK: [u8; 64 << 10] = [7; 64 << 10];

    /// A connection whose buffers hold some ten KiB: the server's end and the client's.
    pub(in super::super) async fn narrow() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let connecting = socket.connect(listener.local_addr().unwrap());
        let (accepted, client) = tokio::join!(listener.accept(), connecting);
        let stream = accepted.unwrap().0;
        SockRef::from(&stream)
            .set_send_buffer_size(16 << 10)
            .unwrap();
        (stream, client.unwrap())
    }

    /// An outlet whose client has taken nothing until the connection was full.
    async fn full() -> (Outlet, TcpStream) {
        let (stream, client) = narrow().await;
        let mut outlet = Outlet::new(stream, InHand::default());
        while push(&mut outlet).await.is_ready() || outlet.in_hand.leaving.taken() == 0 {
            tokio::task::yield_now().await;
        }
        (outlet, client)
    }

    /// Tries to write once.
    async fn push(outlet: &mut Outlet) -> Poll<()> {
        let once = |context: &mut Context<'_>| {
            let pushed = Pin::new(&mut *outlet).poll_write(context, &CHUNK);
            Poll::Ready(pushed.map(|pushed| assert!(pushed.unwrap() > 0)))
        };
        poll_fn(once).await
    }

    /// As if the time that the client has were over.
    fn end_watch(outlet: &mut Outlet) {
        let watch = outlet.watch.as_mut().expect("it is watched");
        watch.as_mut().reset(Instant::now());
    }

    /// Writes until the client is let go.
    async fn let_go(outlet: &mut Outlet) -> io::Error {
        loop {
            let written = poll_fn(|context| Pin::new(&mut *outlet).poll_write(context, &CHUNK));
            if let Err(error) = written.await {
                return error;
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_let_go() {
        let (mut outlet, _client) = full().await;
        end_watch(&mut outlet);
        let error = let_go(&mut outlet).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains(" bytes in 60s"), "{error}");
    }

    #[tokio::test]
    async fn a_slow_client_is_not() {
        let (mut outlet, client) = full().await;
        let before = outlet.in_hand.leaving.taken();
        let mut buffer = [0; 4096];
        while outlet.in_hand.leaving.taken() - before < PROGRESS as u64 + 1 {
            // Nothing there yet is no matter.
            let _ = client.try_read(&mut buffer);
            let _ = push(&mut outlet).await;
            tokio::task::yield_now().await;
        }
        end_watch(&mut outlet);
        // Another begins.
        while outlet.taken > 0 {
            let _ = push(&mut outlet).await;
            tokio::task::yield_now().await;
        }
        // It takes no more from here on: it is let go at the end of the second time.
        end_watch(&mut outlet);
        let error = let_go(&mut outlet).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
