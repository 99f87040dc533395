//! A response body that knows how far it got, and waits for its turn.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::leaving::Leaving;
use super::turns::Place;

/// Handed to the kernel at once, bytes; a slice of the file, never a copy.
const CHUNK: usize = 1 << 20;
/// Who waits gets this much now and then, bytes: a body that says nothing at all is given up.
const SIGN_OF_LIFE: usize = 1 << 10;
/// EDK2 waits 5 s for a piece of the body (`PcdHttpIoTimeout`), GRUB half a minute, iPXE for ever.
const BEAT: Duration = Duration::from_secs(2);

/// What became of a body.
#[derive(Debug)]
pub(super) struct Sent {
    /// That the kernel took. Of what was cut off about: the answer's head is counted among them.
    pub(super) bytes: usize,
    /// It is all of the body.
    pub(super) whole: bool,
    /// In the queue.
    pub(super) waited: Duration,
}

/// Bytes of a file, and what to do when they have left or the client has gone.
pub(super) struct Served<F: FnOnce(Sent) + Send + 'static> {
    rest: Bytes,
    handed: usize,
    leaving: Leaving,
    /// Bytes that had left before.
    before: u64,
    place: Option<Place>,
    wait: Option<Wait>,
    waited: Duration,
    done: Option<F>,
}

/// Waiting for its turn.
struct Wait {
    since: Instant,
    beat: Pin<Box<Sleep>>,
}

impl<F: FnOnce(Sent) + Send + 'static> Served<F> {
    /// The body begins when it is the turn of `place`. `done` is called once, when the body has left by the connection
    /// or never will.
    pub(super) fn new(bytes: Bytes, place: Option<Place>, leaving: Leaving, done: F) -> Self {
        let waits = place.as_ref().is_some_and(|place| place.before().is_some());
        let wait = || Wait {
            since: Instant::now(),
            beat: Box::pin(sleep(BEAT)),
        };
        Self {
            rest: bytes,
            handed: 0,
            before: leaving.taken(),
            leaving,
            wait: waits.then(wait),
            waited: Duration::ZERO,
            place,
            done: Some(done),
        }
    }

    /// How much may be sent now.
    fn allowance(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        let (Some(place), Some(wait)) = (&mut self.place, &mut self.wait) else {
            return Poll::Ready(CHUNK);
        };
        self.waited = wait.since.elapsed();
        if place.poll(context).is_ready() {
            self.wait = None;
            return Poll::Ready(CHUNK);
        }
        std::task::ready!(wait.beat.as_mut().poll(context));
        wait.beat.as_mut().reset(Instant::now() + BEAT);
        place.look();
        Poll::Ready(SIGN_OF_LIFE)
    }
}

impl<F: FnOnce(Sent) + Send + Unpin + 'static> Body for Served<F> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let allowed = std::task::ready!(self.allowance(context));
        let length = self.rest.len().min(allowed);
        let chunk = self.rest.split_to(length);
        self.handed += length;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl<F: FnOnce(Sent) + Send + 'static> Drop for Served<F> {
    fn drop(&mut self) {
        let Some(done) = self.done.take() else {
            return;
        };
        let (handed, before, waited) = (self.handed, self.before, self.waited);
        let leaving = self.leaving.clone();
        let all = self.rest.is_empty();
        let tell = move |left: bool| {
            let whole = all && left;
            let bytes = if whole {
                handed
            } else {
                leaving.of(handed, before)
            };
            done(Sent {
                bytes,
                whole,
                waited,
            });
        };
        if all {
            self.leaving.when_left(tell);
        } else {
            tell(false);
        }
    }
}
