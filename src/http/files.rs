//! `GET /files/…`: kernels, initrds and loaders, with ranges and entity tags (RFC 9110).

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
};
use axum::http::{HeaderMap, Method, Response, StatusCode};

use super::body::{Sent, Served};
use super::conditions::{Wanted, wanted};
use super::leaving::{Leaving, TOLD_EVERY};
use super::outlet::InHand;
use super::turns::{Before, LARGE, Place};
use super::{App, Ends};
use crate::assets::{Asset, stage_of};
use crate::policy::event::StageState;
use crate::site::Site;
use crate::span::transfer;

pub(super) async fn file(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Extension(in_hand): Extension<InHand>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let kept = app.site.files_for(ends.peer(), &path);
    let served = app.site.snapshot();
    let found = kept.assets.get_by_http(&path);
    let Some((path, asset)) = found.or_else(|| served.assets.get_by_http(&path)) else {
        let message = format!("asked for /files/{path}, which is not served");
        if let Ends::Network { peer, .. } = ends {
            let stage = stage_of(&path);
            app.site
                .note(peer, stage, StageState::Ignored, message.clone());
        }
        return empty(StatusCode::NOT_FOUND, Body::from(format!("{message}\n")));
    };
    in_hand.take(asset);
    let asked = Asked {
        leaving: &in_hand.leaving,
        app: &app,
        ends,
        path,
        asset,
        at_once: served.inventory.server.transfers,
    };
    asked.respond(&method, &headers)
}

/// A file that is asked for.
struct Asked<'a> {
    app: &'a App,
    ends: Ends,
    path: &'a str,
    asset: &'a Asset,
    /// Large transfers that run at once.
    at_once: usize,
    leaving: &'a Leaving,
}

impl Asked<'_> {
    fn respond(&self, method: &Method, headers: &HeaderMap) -> Response<Body> {
        let etag = format!("\"{}\"", self.asset.sha256);
        let size = self.asset.bytes.len();
        let (status, range) = match wanted(method, headers, &etag, size) {
            Wanted::Whole => (StatusCode::OK, 0..size),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Wanted::Nothing => {
                let mut response = empty(StatusCode::NOT_MODIFIED, Body::empty());
                put(&mut response, ETAG, etag);
                return response;
            }
            Wanted::Beyond => {
                let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE, Body::empty());
                put(&mut response, CONTENT_RANGE, format!("bytes */{size}"));
                return response;
            }
        };
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            self.body(range.clone())
        };
        let mut response = empty(status, body);
        put(&mut response, CONTENT_LENGTH, range.len().to_string());
        put(&mut response, CONTENT_TYPE, content_type(self.path).into());
        put(&mut response, ACCEPT_RANGES, "bytes".into());
        put(&mut response, ETAG, etag);
        if status == StatusCode::PARTIAL_CONTENT {
            let part = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            put(&mut response, CONTENT_RANGE, part);
        }
        response
    }

    /// The bytes, and an event when they are out or the client has gone.
    fn body(&self, range: Range<usize>) -> Body {
        let bytes = self.asset.bytes.slice(range.clone());
        let Ends::Network { peer, .. } = self.ends else {
            return Body::from(bytes);
        };
        let place = (range.len() > LARGE).then(|| self.queue(peer, range.len()));
        let transfer = Transfer {
            site: self.app.site.clone(),
            peer,
            path: self.path.to_owned(),
            total: range.len(),
            whole: self.asset.bytes.len(),
            last: range.end == self.asset.bytes.len(),
            began: Instant::now(),
        };
        let leaving = self.leaving.clone();
        leaving.tell_moves(transfer.moves(leaving.taken()));
        let end = leaving.clone();
        let served = Served::new(bytes, place, leaving, move |sent| {
            end.tell_no_moves();
            transfer.tell(&sent);
        });
        Body::new(served)
    }

    fn queue(&self, peer: Ipv4Addr, length: usize) -> Place {
        let place = self.app.turns.queue(peer, length, self.at_once);
        if let Some(Before {
            waiting,
            of_address,
        }) = place.before()
        {
            let why = of_address.map_or_else(String::new, |places| {
                format!(", of them {places} of its own address: the rest is for others")
            });
            let message = format!(
                "{} by HTTP waits for its turn, {waiting} before it; {} large transfers run at once{why}",
                self.path, self.at_once
            );
            let stage = stage_of(self.path);
            self.app.site.note(peer, stage, StageState::Info, message);
        }
        place
    }
}

/// UEFI HTTP boot asks by HEAD what a file is: the type counts, and the name only where there is none
/// (EDK2 `HttpBootCheckImageType`; UEFI 2.10 §24.7 has the type).
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "efi")) => "application/efi",
        _ => "application/octet-stream",
    }
}

fn put(response: &mut Response<Body>, name: HeaderName, value: String) {
    // Digits, hexadecimal and fixed words: always a valid header value.
    if let Ok(value) = value.try_into() {
        response.headers_mut().insert(name, value);
    }
}

fn empty(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// One transfer, for the event at its end.
struct Transfer {
    site: Arc<Site>,
    peer: Ipv4Addr,
    path: String,
    /// Bytes that were asked for, and that the file has.
    total: usize,
    whole: usize,
    /// It ends where the file ends: the client has all of it then.
    last: bool,
    began: Instant,
}

impl Transfer {
    /// Takes what the connection has sent, which had sent `before` when this began.
    fn moves(&self, before: u64) -> impl Fn(u64) + Send + Sync + use<> {
        let (site, peer, path) = (self.site.clone(), self.peer, self.path.clone());
        let (began, total) = (self.began, self.total as u64);
        move |taken| {
            let taken = taken.saturating_sub(before).min(total);
            site.fetches(peer, &path, began.elapsed(), (taken, total));
        }
    }

    fn tell(&self, sent: &Sent) {
        let metrics = &self.site.metrics.http;
        metrics.sent_bytes.inc_by(sent.bytes as u64);
        let Self { path, total, .. } = self;
        let took = self.began.elapsed().as_secs_f64();
        let waited = sent.waited.as_secs_f64();
        let waited = match waited {
            0.0 => String::new(),
            seconds => format!(", of them {seconds:.1} s in the queue"),
        };
        let (state, message) = if !sent.whole {
            metrics.cut_off.inc();
            let bytes = sent.bytes;
            let message = format!(
                "{path} by HTTP was cut off after {bytes} of {total} bytes, {took:.1} s{waited}"
            );
            (StageState::Retry, message)
        } else if self.last {
            let took = self.began.elapsed().saturating_sub(sent.waited);
            let whole = transfer(self.whole as u64, took);
            let waited = match sent.waited.is_zero() {
                true => String::new(),
                false => format!(", after {:.1} s in the queue", sent.waited.as_secs_f64()),
            };
            let message = format!("{path} by HTTP, {whole}{waited}");
            (StageState::Ok, message)
        } else {
            // A part of it, and whole.
            let total = self.total as u64;
            if self.began.elapsed() >= TOLD_EVERY {
                let elapsed = self.began.elapsed();
                self.site.fetches(self.peer, path, elapsed, (total, total));
            }
            return;
        };
        self.site.note(self.peer, stage_of(path), state, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_learns_what_a_loader_is() {
        assert_eq!(content_type("loaders/snponly.efi"), "application/efi");
        for other in ["loaders/undionly.kpxe", "kernels/debian/vmlinuz", "efi"] {
            assert_eq!(content_type(other), "application/octet-stream");
        }
    }
}
