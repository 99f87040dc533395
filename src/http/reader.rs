//! Who may read how machines stand: everybody who can reach it, or with `server: {read: token}` who shows the token.
//!
//! What hosts fetch and report is not of these routes: it has tokens of its own.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{App, Ends};
use crate::inventory::model::Reading;

/// A browser asks its user; any name goes with it (RFC 7617).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"bridgehead\"");

/// The secret that lets somebody read.
#[derive(Clone)]
pub struct ReadToken(Arc<str>);

impl std::fmt::Debug for ReadToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadToken(secret)")
    }
}

impl ReadToken {
    /// Of a text without spaces.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether it is shown, as Bearer (RFC 6750) or as the password of Basic.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let Some((scheme, given)) = shown.and_then(|shown| shown.split_once(' ')) else {
            return false;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(given.trim().as_bytes());
        }
        let pair = scheme
            .eq_ignore_ascii_case("basic")
            .then(|| STANDARD.decode(given.trim()).ok());
        let Some(pair) = pair.flatten() else {
            return false;
        };
        let colon = pair.iter().position(|byte| *byte == b':');
        colon.is_some_and(|colon| self.is(&pair[colon + 1..]))
    }

    /// By their digests: how long it takes tells nothing of where they differ.
    fn is(&self, given: &[u8]) -> bool {
        Sha256::digest(given) == Sha256::digest(self.0.as_bytes())
    }
}

/// Lets through who may read.
pub(super) async fn gate(State(app): State<App>, request: Request, next: Next) -> Response {
    let open = app.site.snapshot().inventory.server.read == Reading::Open;
    let local = request.extensions().get() == Some(&Ends::Local);
    if open || local || app.read_token.is_in(request.headers()) {
        return next.run(request).await;
    }
    let words = "this needs the token of the server's state directory (read.token), as Bearer or as a password\n";
    (
        StatusCode::UNAUTHORIZED,
        [(WWW_AUTHENTICATE, CHALLENGE)],
        words,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        ReadToken::new("f00d").is_in(&headers)
    }

    #[test]
    fn the_token_is_taken_as_bearer_and_as_a_password() {
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
}
