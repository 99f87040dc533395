//! Who may read how machines stand, and who may change what is served.
//!
//! Reading is open to everybody who can reach it, or with `server: {read: token}` to who shows a token. Changing needs
//! the daemon's own socket, or with `server: {write: token}` another token, which is a secret: guests are bridged to the
//! network that hosts boot from, so it is taken by HTTPS or on the machine itself alone. What hosts fetch and report is
//! not of these routes: it has tokens of its own.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{App, Ends};
use crate::inventory::model::{Reading, Server, Writing};

/// A browser asks its user; any name goes with it (RFC 7617).
const READER: HeaderValue = HeaderValue::from_static("Basic realm=\"bridgehead\"");
const WRITER: HeaderValue = HeaderValue::from_static("Basic realm=\"bridgehead operator\"");
/// Where a browser says that its request is from (W3C Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Wrong tokens are told of so often.
const TOLD: Duration = Duration::from_secs(60);

/// The secrets that let somebody read or write.
#[derive(Default)]
pub struct Tokens {
    known: RwLock<Known>,
    wrong: Mutex<Wrong>,
    /// When it was last told that the write token came in the clear.
    leaked: Mutex<Option<Instant>>,
}

/// None of a kind: nobody may by that way.
#[derive(Default)]
struct Known {
    read: Option<String>,
    write: Option<String>,
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
    /// From now on these, texts without spaces. `None`: nobody may read, or write, by a token.
    pub fn set(&self, read: Option<String>, write: Option<String>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { read, write };
    }

    fn is_read(&self, given: &[u8]) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.read.as_ref().is_some_and(|token| is(token, given))
    }

    fn is_write(&self, given: &[u8]) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.write.as_ref().is_some_and(|token| is(token, given))
    }

    /// Whether the write token, given by these ends, was heard by others, and nobody was told so lately.
    fn tells_of_leak(&self, given: &[u8], ends: Ends, now: Instant) -> bool {
        if is_private(ends) || !self.is_write(given) {
            return false;
        }
        let mut told = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = told.is_some_and(|told| now.saturating_duration_since(told) < TOLD);
        if !rests {
            *told = Some(now);
        }
        !rests
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
    if ends == Ends::Local {
        return next.run(request).await;
    }
    let given = shown(request.headers());
    warn_of_leak(&app, ends, given.as_deref());
    if !names_us(ends, request.headers()) {
        let words = "on the server itself, and through a tunnel to it, ask for localhost, an address or the server's own name\n";
        return (StatusCode::MISDIRECTED_REQUEST, words).into_response();
    }
    if open {
        return next.run(request).await;
    }
    let writer = |given: &[u8]| {
        app.tokens.is_write(given) && writing(&app) == Writing::Token && is_private(ends)
    };
    match given {
        Some(given) if app.tokens.is_read(&given) || writer(&given) => next.run(request).await,
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
        .is_some_and(|given| app.tokens.is_write(given));
    let denied = |words: &str| Some((StatusCode::FORBIDDEN, words.to_owned()).into_response());
    warn_of_leak(app, ends, given.as_deref());
    if !is_private(ends) {
        return denied(&in_the_clear(&app.site.snapshot().inventory.server, ends));
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

/// What to do instead. These ends lead to where the API is without TLS.
fn in_the_clear(server: &Server, ends: Ends) -> String {
    let port = server.api_port.unwrap_or(server.http_port);
    let own = match ends {
        Ends::Network { local, .. } => local,
        Ends::Local => Ipv4Addr::LOCALHOST,
    };
    format!(
        "nothing is changed in the clear, for guests share this network: come by HTTPS (`server: {{tls: ...}}` in hosts.yaml), or from the server itself: ssh -L 8080:{own}:{port} {own}\n"
    )
}

fn warn_of_leak(app: &App, ends: Ends, given: Option<&[u8]>) {
    if given.is_some_and(|given| app.tokens.tells_of_leak(given, ends, Instant::now())) {
        let peer = ends.peer();
        tracing::warn!(
            "the write token came in the clear from {peer}, and whoever listened has it: remove write.token from the state directory and send the daemon SIGHUP, which makes another"
        );
    }
}

/// Whether a request on the server itself is for the server. A browser asks there for another site's page, too, once
/// that site's name leads there (DNS rebinding), and no firewall is in between.
fn names_us(ends: Ends, headers: &HeaderMap) -> bool {
    let Ends::Network {
        peer,
        local,
        sealed,
    } = ends
    else {
        return true;
    };
    if sealed || !(peer.is_loopback() || peer == local) {
        return true;
    }
    // No browser leaves it out.
    let Some(host) = headers.get(HOST) else {
        return true;
    };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let own = nix::unistd::gethostname().unwrap_or_default();
    is_ours(name, &own.to_string_lossy())
}

/// `own` is the server's name, with or without its domain.
fn is_ours(name: &str, own: &str) -> bool {
    let label = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    let literal = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    let same = match (name.contains('.'), own.contains('.')) {
        (true, true) => name.eq_ignore_ascii_case(own),
        // A site that rebinds can have a host of any name, so its domain counts.
        (true, false) => false,
        (false, _) => label(name) == label(own),
    };
    literal || same || name.eq_ignore_ascii_case("localhost")
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
        let (tokens, now) = (Tokens::default(), Instant::now());
        tokens.set(Some("f00d".into()), Some("cafe".into()));
        assert_eq!(tokens.tell_of_wrong(now), Some(1));
        for _ in 0..1000 {
            assert_eq!(tokens.tell_of_wrong(now + TOLD / 2), None);
        }
        assert_eq!(tokens.tell_of_wrong(now + TOLD), Some(1001));
        assert!(!format!("{tokens:?}").contains("f00d"));
    }

    fn ends(peer: [u8; 4], sealed: bool) -> Ends {
        Ends::Network {
            peer: peer.into(),
            local: [10, 77, 0, 1].into(),
            sealed,
        }
    }

    #[test]
    fn a_write_token_that_others_heard_is_told_of_now_and_then() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        tokens.set(Some("f00d".into()), Some("cafe".into()));
        let far = ends([10, 77, 0, 9], false);
        for (given, ends) in [
            ("f00d", far),
            ("cafe", ends([10, 77, 0, 9], true)),
            ("cafe", ends([10, 77, 0, 1], false)),
            ("cafe", Ends::Local),
        ] {
            assert!(
                !tokens.tells_of_leak(given.as_bytes(), ends, now),
                "{given}"
            );
        }
        assert!(tokens.tells_of_leak(b"cafe", far, now));
        assert!(!tokens.tells_of_leak(b"cafe", far, now + TOLD / 2));
        assert!(tokens.tells_of_leak(b"cafe", far, now + TOLD));
        tokens.set(None, None);
        assert!(!tokens.is_write(b"cafe") && !tokens.is_read(b"f00d") && !tokens.is_write(b""));
    }

    #[test]
    fn the_way_around_leads_where_the_api_is() {
        let way = |server: &Server| in_the_clear(server, ends([10, 77, 0, 9], false));
        let mut server = Server::default();
        assert!(way(&server).ends_with("ssh -L 8080:10.77.0.1:80 10.77.0.1\n"));
        server.http_port = 8000;
        assert!(way(&server).contains(":8000 "));
        server.api_port = Some(8081);
        assert!(way(&server).contains(":8081 "));
    }

    #[test]
    fn a_name_of_another_site_that_leads_here_is_not_ours() {
        let own = "boot";
        for name in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "10.77.0.1",
            "[::1]",
            "boot",
        ] {
            assert!(is_ours(name, own), "{name}");
        }
        for name in [
            "evil.example.org",
            "boot.evil.example.org",
            "",
            "localhost.evil.example.org",
        ] {
            assert!(!is_ours(name, own), "{name}");
        }
        assert!(is_ours("Boot.example.org", "boot.example.org"));
        assert!(is_ours("boot", "boot.example.org"));
        let asks = |ends, host| names_us(ends, &headers(&[(HOST, host)]));
        let evil = "evil.example.org:8080";
        let tunnel = ends([10, 77, 0, 1], false);
        assert!(!asks(tunnel, evil) && asks(tunnel, "localhost:8080"));
        assert!(asks(ends([10, 77, 0, 9], false), evil), "by any name");
        assert!(
            asks(ends([10, 77, 0, 1], true), evil),
            "its certificate tells"
        );
        assert!(names_us(tunnel, &HeaderMap::new()) && asks(Ends::Local, evil));
    }
}
