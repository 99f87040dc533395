//! Asks the daemon over its control socket.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Failure;
use super::exit::chain;
use crate::inventory::suggest::quote;

/// The daemon answers from memory; longer than this it is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// An edit waits for another one, and then until it is served.
const EDIT_PATIENCE: Duration = Duration::from_secs(35);

/// The path of what is asked about a host.
///
/// # Errors
/// Exit code 1 if it can't be a host's name.
pub(super) fn host_path(host: &str, what: &str) -> Result<String, Failure> {
    // A MAC has colons.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    let named = host.bytes().any(|b| b.is_ascii_alphanumeric());
    if named && host.bytes().all(plain) {
        Ok(format!("/v1/hosts/{host}/{what}"))
    } else {
        let text = quote(host);
        if host.contains('[') {
            return Err(Failure::said(format!(
                "{text} is a list of hosts, and this is told of one alone: name the one that you mean; `bridgehead status` and `why` take lists"
            )));
        }
        Err(Failure::said(format!(
            "{text} is neither a host's name nor a MAC; `bridgehead status` shows who is there"
        )))
    }
}

/// `GET path`, as JSON.
///
/// # Errors
/// Exit code 4 if the daemon does not answer; 1 with its words if it refuses.
pub(super) fn get<T: DeserializeOwned>(state: &Path, path: &str) -> Result<T, Failure> {
    talk(state, Request::get(path), String::new(), PATIENCE)
}

/// `POST path` with JSON, answered by JSON.
///
/// # Errors
/// The same, and exit code 3 where the inventory has faults, or would have.
pub(super) fn post<T: DeserializeOwned>(
    state: &Path,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let body =
        serde_json::to_string(body).map_err(|error| Failure::failed("write JSON", &error))?;
    let request = Request::post(path).header("content-type", "application/json");
    talk(state, request, body, EDIT_PATIENCE)
}

fn talk<T: DeserializeOwned>(
    state: &Path,
    request: Builder,
    body: String,
    patience: Duration,
) -> Result<T, Failure> {
    let socket = crate::daemon::control_path(state);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::failed("start the runtime", &error))?;
    let asking = ask(&socket, request, body);
    let answer = runtime.block_on(async { tokio::time::timeout(patience, asking).await });
    let place = socket.display();
    let (status, body) = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unreachable(&socket, error.as_ref())),
        Err(_) => {
            let seconds = patience.as_secs();
            return Err(Failure::unreachable(format!(
                "the daemon at {place} did not answer within {seconds} s"
            )));
        }
    };
    let said = || String::from_utf8_lossy(&body).trim_end().to_owned();
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(|error| {
            Failure::failed(
                "read the daemon's answer (is it of another version?)",
                &error,
            )
        }),
        StatusCode::UNPROCESSABLE_ENTITY => {
            Err(Failure::inventory(format!("bridgehead: {}", said())))
        }
        _ => Err(Failure::said(said())),
    }
}

fn unreachable(socket: &Path, error: &(dyn Error + Send + Sync + 'static)) -> Failure {
    let place = socket.display();
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    Failure::unreachable(match kind {
        Some(io::ErrorKind::PermissionDenied) => format!(
            "may not ask the daemon at {place}: its socket is for root and the group of its state directory; use sudo"
        ),
        Some(io::ErrorKind::ConnectionRefused) => format!(
            "no daemon answers at {place}: the one that made this socket was ended by force; start `bridgehead serve` again, its log says more"
        ),
        Some(io::ErrorKind::NotFound) => format!(
            "no daemon answers at {place}: there is no such socket; is `bridgehead serve` running, and with this --state?"
        ),
        _ => format!(
            "no daemon answers at {place}: {}; is `bridgehead serve` running, and with this --state?",
            chain(error)
        ),
    })
}

type Answer = Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>>;

async fn ask(socket: &Path, request: Builder, body: String) -> Answer {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = request.header("host", "localhost").body(body)?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
