//! Who may read how machines stand, and who may change what is served.
//!
//! Reading is open to everybody who can reach it, or with `server: {read: token}` to who shows a token. Changing needs
//! the daemon's own socket, or with `server: {write: token}` another token, which is a secret: guests are bridged to the
//! network that hosts boot from, so it is taken by HTTPS or on the machine itself alone. What hosts fetch and report is
//! not of these routes: it has tokens of its own.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{App, Ends};
use crate::inventory::model::{Reading, Writing};

/// A browser asks its user; any name goes with it (RFC 7617).
const READER: HeaderValue = HeaderValue::from_static("Basic realm=\"bridgehead\"");
const WRITER: HeaderValue = HeaderValue::from_static("Basic realm=\"bridgehead operator\"");
/// Where a browser says that its request is from (W3C Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Wrong tokens are told of so often.
const TOLD: Duration = Duration::from_secs(60);

/// The secrets that let somebody read or write.
pub struct Tokens {
    read: String,
    write: String,
    wrong: Mutex<Wrong>,
}

/// Tokens that were wrong since somebody was told.
#[derive(Default)]
struct Wrong {
    told: Option<Instant>,
    since: u64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(secret)")
    }
}

impl Tokens {
    /// Of texts without spaces.
    pub fn new(read: &str, write: &str) -> Self {
        Self {
            read: read.to_owned(),
            write: write.to_owned(),
            wrong: Mutex::default(),
        }
    }

    /// How many were wrong, now and then.
    fn tell_of_wrong(&self, now: Instant) -> Option<u64> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.since += 1;
        let rests = wrong
            .told
            .is_some_and(|told| now.saturating_duration_since(told) < TOLD);
        if rests {
            return None;
        }
        wrong.told = Some(now);
        Some(std::mem::take(&mut wrong.since))
    }
}

/// What is shown as Bearer (RFC 6750) or as the password of Basic.
fn shown(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(given.trim().into());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(given.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// By their digests: how long it takes tells nothing of where they differ.
fn is(token: &str, given: &[u8]) -> bool {
    Sha256::digest(given) == Sha256::digest(token.as_bytes())
}

/// Whether nobody else can have heard what came by these ends: TLS, or from this machine to itself (a tunnel of ssh
/// ends here).
fn is_private(ends: Ends) -> bool {
    match ends {
        Ends::Local => true,
        Ends::Network {
            peer,
            local,
            sealed,
        } => sealed || peer.is_loopback() || peer == local,
    }
}

fn writing(app: &App) -> Writing {
    app.site.snapshot().inventory.server.write
}

/// Lets through who may read. Who may write may read, too.
pub(super) async fn may_read(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let open = app.site.snapshot().inventory.server.read == Reading::Open;
    if open || ends == Ends::Local {
        return next.run(request).await;
    }
    let given = shown(request.headers());
    let writer = |given: &[u8]| {
        is(&app.tokens.write, given) && writing(&app) == Writing::Token && is_private(ends)
    };
    match given {
        Some(given) if is(&app.tokens.read, &given) || writer(&given) => next.run(request).await,
        given => {
            note_wrong(&app, ends.peer(), given.as_deref());
            let words = "this needs the token of the server's state directory (read.token), as Bearer or as a password\n";
            challenge(READER, words)
        }
    }
}

/// Lets through who may write.
pub(super) async fn may_write(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    match refused(&app, ends, request.method(), request.headers()) {
        None => next.run(request).await,
        Some(refusal) => refusal,
    }
}

fn refused(app: &App, ends: Ends, method: &Method, headers: &HeaderMap) -> Option<Response> {
    if ends == Ends::Local {
        return None;
    }
    let given = shown(headers);
    let right = given
        .as_deref()
        .is_some_and(|given| is(&app.tokens.write, given));
    let denied = |words: &'static str| Some((StatusCode::FORBIDDEN, words).into_response());
    if !is_private(ends) {
        if right {
            let peer = ends.peer();
            tracing::warn!(
                "the write token came in the clear from {peer}, and whoever listened has it: remove write.token from the state directory and restart the daemon, which makes another"
            );
        }
        return denied(
            "nothing is changed in the clear, for guests share this network: come by HTTPS (`server: {tls: ...}` in hosts.yaml), or from the server itself: ssh -L 8080:SERVER:80 SERVER\n",
        );
    }
    if writing(app) == Writing::Off {
        return denied(
            "nothing is changed over the network here: `server: {write: token}` in hosts.yaml allows it; `bridgehead discover approve` on the server always works\n",
        );
    }
    if !right {
        note_wrong(app, ends.peer(), given.as_deref());
        let words = "this needs the write token of the server's state directory (write.token), as Bearer or as a password\n";
        return Some(challenge(WRITER, words));
    }
    // A browser shows what it has by itself, whoever's page asks.
    if !method.is_safe() && !is_own(headers) {
        return denied("this request is from another site's page, or a proxy changes its Host\n");
    }
    None
}

/// Whether a request is from a page of ours, or from no page.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let ours = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| {
            text(&HOST).is_some_and(|host| host.eq_ignore_ascii_case(authority))
        })
    };
    text(&FETCH_SITE).is_none_or(|site| site == "same-origin") && text(&ORIGIN).is_none_or(ours)
}

fn challenge(realm: HeaderValue, words: &'static str) -> Response {
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, realm)], words).into_response()
}

/// How often an address may try is bounded with all else that it may ask.
fn note_wrong(app: &App, peer: Ipv4Addr, given: Option<&[u8]>) {
    if given.is_none() {
        return;
    }
    app.site.metrics.http.wrong_tokens.inc();
    if let Some(times) = app.tokens.tell_of_wrong(Instant::now()) {
        tracing::warn!("{peer} showed a wrong token ({times} since this was last told)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn the_token_is_taken_as_bearer_and_as_a_password() {
        let shows = |value: &str| {
            let given = shown(&headers(&[(AUTHORIZATION, value)]));
            given.is_some_and(|given| is("f00d", &given))
        };
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(shows("Bearer f00d") && shows("bearer  f00d"));
        assert!(shows(&basic("anybody:f00d")) && shows(&basic(":f00d")));
        for wrong in [
            "",
            "f00d",
            "Bearer",
            "Bearer f00",
            "Bearer f00d0",
            "Basic f00d",
            "Digest f00d",
        ] {
            assert!(!shows(wrong), "{wrong}");
        }
        for pair in ["f00d", "f00d:", "a:f00d:", "a:", ""] {
            assert!(!shows(&basic(pair)), "{pair}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_told_by_what_its_browser_says() {
        let host = (HOST, "boot.example.org:8443");
        let from = |more: &[(HeaderName, &str)]| {
            is_own(&headers(&[std::slice::from_ref(&host), more].concat()))
        };
        let origin = |origin| (ORIGIN, origin);
        let site = |site| (FETCH_SITE, site);
        assert!(from(&[]), "no browser");
        assert!(from(&[
            origin("https://Boot.example.org:8443"),
            site("same-origin")
        ]));
        for other in [
            "https://boot.example.org",
            "https://evil.example.org",
            "https://boot.example.org:8443.evil.example.org",
            "null",
            "",
        ] {
            assert!(!from(&[origin(other)]), "{other}");
        }
        for other in ["same-site", "cross-site", "none", ""] {
            assert!(!from(&[site(other)]), "{other}");
        }
        assert!(!is_own(&headers(&[origin("https://boot.example.org")])));
    }

    #[test]
    fn what_others_can_read_on_the_way_is_not_private() {
        let between = |peer: [u8; 4], sealed| {
            is_private(Ends::Network {
                peer: peer.into(),
                local: [10, 77, 0, 1].into(),
                sealed,
            })
        };
        assert!(!between([10, 77, 0, 9], false));
        assert!(between([10, 77, 0, 9], true));
        assert!(between([127, 0, 0, 1], false) && between([10, 77, 0, 1], false));
        assert!(is_private(Ends::Local));
    }

    #[test]
    fn wrong_tokens_are_told_of_now_and_then_with_their_number() {
        let (tokens, now) = (Tokens::new("f00d", "cafe"), Instant::now());
        assert_eq!(tokens.tell_of_wrong(now), Some(1));
        for _ in 0..1000 {
            assert_eq!(tokens.tell_of_wrong(now + TOLD / 2), None);
        }
        assert_eq!(tokens.tell_of_wrong(now + TOLD), Some(1001));
        assert!(!format!("{tokens:?}").contains("f00d"));
    }
}
