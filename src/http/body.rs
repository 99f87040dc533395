//! A response body that knows how far it got.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Handed to the kernel at once, bytes; a slice of the file, never a copy.
const CHUNK: usize = 512 << 10;

/// Bytes of a file, and what to do when they are sent or the client has gone.
pub(super) struct Served<F: FnOnce(usize)> {
    rest: Bytes,
    sent: usize,
    done: Option<F>,
}

impl<F: FnOnce(usize)> Served<F> {
    /// `done` is called once, with the bytes that were handed to the connection.
    pub(super) fn new(bytes: Bytes, done: F) -> Self {
        Self {
            rest: bytes,
            sent: 0,
            done: Some(done),
        }
    }
}

impl<F: FnOnce(usize) + Unpin> Body for Served<F> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(CHUNK);
        let chunk = self.rest.split_to(length);
        self.sent += length;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl<F: FnOnce(usize)> Drop for Served<F> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(self.sent);
        }
    }
}
