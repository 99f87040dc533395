//! Bounds on what those who watch cost: anybody may ask how the site is, and to look at all machines holds the lock
//! that every event of a boot needs.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::Ends;
use crate::floodgate::Floodgate;

/// Requests that one address may make of the API in a second; four times as many at once.
const PER_SECOND: u32 = 10;
/// What was found is told for so long before anybody looks again.
const FRESH: Duration = Duration::from_secs(1);

/// What was last told, and who asks how often.
pub(super) struct Watchers {
    gate: Mutex<Floodgate>,
    /// Held while the status is made: who asks meanwhile waits for that one.
    status: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
    measured: Mutex<Option<Instant>>,
}

impl Default for Watchers {
    fn default() -> Self {
        Self {
            gate: Mutex::new(Floodgate::new(PER_SECOND)),
            status: tokio::sync::Mutex::default(),
            measured: Mutex::default(),
        }
    }
}

impl Watchers {
    fn may_ask(&self, peer: Ipv4Addr, now: Instant) -> bool {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.pass(peer, now)
    }

    /// The status as JSON; `make` is called where the last is old.
    pub(super) async fn status<E>(
        &self,
        now: Instant,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Bytes, E> {
        let mut last = self.status.lock().await;
        if let Some((_, json)) = last.as_ref().filter(|(at, _)| is_fresh(*at, now)) {
            return Ok(json.clone());
        }
        let json = Bytes::from(make()?);
        *last = Some((now, json.clone()));
        Ok(json)
    }

    /// Calls `measure` where that was not done just now.
    pub(super) fn measure(&self, now: Instant, measure: impl FnOnce()) {
        let mut last = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| !is_fresh(at, now)) {
            measure();
            *last = Some(now);
        }
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < FRESH
}

/// Cuts who asks too often over the network. What hosts ask for and report is not of these routes.
pub(super) async fn limit(
    State(watchers): State<Arc<Watchers>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(Ends::Network { peer, .. }) = request.extensions().get()
        && !watchers.may_ask(*peer, Instant::now())
    {
        let words = format!("your address asks more than {PER_SECOND} times a second\n");
        return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")], words).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn the_fleet_is_looked_at_once_a_second_however_many_ask() {
        let (watchers, mut now, made) = (Watchers::default(), Instant::now(), Cell::new(0));
        let make = || {
            made.set(made.get() + 1);
            Ok::<_, ()>(made.get().to_string().into_bytes())
        };
        for second in 1..=3 {
            for _ in 0..100 {
                let json = watchers.status(now, make).await.unwrap();
                assert_eq!(json, second.to_string());
            }
            now += FRESH;
        }
        let measured = Cell::new(0);
        for _ in 0..100 {
            watchers.measure(now, || measured.set(measured.get() + 1));
        }
        watchers.measure(now + FRESH, || measured.set(measured.get() + 1));
        assert_eq!(measured.get(), 2);
    }
}
