//! `GET /v1/boot/NAME/files`: a host's own files, until it says that it has them.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::boot_api::{Asker, Reply, listed, network};
use super::leaving::Leaving;
use super::outlet::InHand;
use super::{App, Ends};
use crate::inventory::model::Host;
use crate::policy::event::{AttemptId, Stage, StageState};
use crate::site::handout::{Announced, Delivery};
use crate::site::{Site, Snapshot};
use crate::timeline::TokenKind;

/// Handed to the kernel at once, bytes.
const CHUNK: usize = 64 << 10;

/// Renders a host's files for the configuration that announces them.
pub(super) fn announce(
    app: &App,
    snapshot: &Snapshot,
    host: &Host,
    attempt: &AttemptId,
    peer: Ipv4Addr,
) -> Result<Option<Announced>, (StatusCode, String)> {
    let name = &host.name;
    match snapshot.files.bundle(&snapshot.inventory, host) {
        Ok(bundle) => Ok(app.site.handout.announce(name, attempt, bundle)),
        Err(error) => {
            let why = format!("the files of {name} could not be rendered: {error}");
            app.site
                .note(peer, Stage::Config, StageState::Ignored, why.clone());
            Err((StatusCode::INTERNAL_SERVER_ERROR, why + "\n"))
        }
    }
}

/// A host's files, for the bearer of its attempt's report token at its own address.
pub(super) async fn files(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Extension(in_hand): Extension<InHand>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Reply {
    let (peer, _) = network(ends)?;
    let host = listed(&app, &name)?;
    let asker = Asker {
        app: &app,
        host: &host,
        peer,
        stage: Stage::Overlay,
    };
    let (attempt, kind) = asker.authorize(&headers)?;
    if kind != TokenKind::Report {
        return Err(asker.deny("it takes the report token of the configuration".into()));
    }
    let (snapshot, host) = asker.booted(&attempt)?;
    let again = || snapshot.files.bundle(&snapshot.inventory, &host).ok()?;
    let delivery = app.site.handout.begin(&name, &attempt, again);
    let delivery = delivery.map_err(|why| asker.deny(why.to_string()))?;
    let leaving = in_hand.leaving;
    let handing = Handing {
        delivery,
        site: app.site.clone(),
        peer,
        before: leaving.taken(),
        leaving,
    };
    Ok(respond(handing))
}

fn respond(handing: Handing) -> Response {
    let body = Once {
        rest: handing.delivery.bytes.clone(),
        handing: Some(handing),
    };
    (
        [
            (header::CONTENT_TYPE, "application/x-tar"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        axum::body::Body::new(body),
    )
        .into_response()
}

/// Files on their way to their host.
struct Handing {
    delivery: Delivery,
    site: Arc<Site>,
    peer: Ipv4Addr,
    leaving: Leaving,
    /// Bytes that had left by the connection before.
    before: u64,
}

/// A body that knows whether it left whole.
struct Once {
    rest: Bytes,
    /// Until it is dropped.
    handing: Option<Handing>,
}

impl Body for Once {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let current = |handing: &Handing| handing.site.handout.is_current(&handing.delivery);
        if !self.handing.as_ref().is_some_and(current) {
            let why = "the same attempt asked again on another connection";
            return Poll::Ready(Some(Err(io::Error::other(why))));
        }
        let length = self.rest.len().min(CHUNK);
        let chunk = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for Once {
    /// What hyper has of it may still not leave, and is no reason to refuse it to the host when it asks again.
    fn drop(&mut self) {
        let Some(handing) = self.handing.take() else {
            return;
        };
        if self.rest.is_empty() {
            let leaving = handing.leaving.clone();
            leaving.when_left(move |whole| handing.end(whole));
        } else {
            handing.end(false);
        }
    }
}

impl Handing {
    fn end(&self, whole: bool) {
        let (peer, total) = (self.peer, self.delivery.bytes.len());
        self.site.handout.end(&self.delivery);
        let (state, message) = if whole {
            let message = format!("this host's files sent to {peer}, {total} bytes");
            (StageState::Info, message)
        } else {
            let sent = self.leaving.of(total, self.before);
            let message = format!("this host's files were cut off after {sent} of {total} bytes");
            (StageState::Retry, message)
        };
        self.site.note(peer, Stage::Overlay, state, message);
    }
}
