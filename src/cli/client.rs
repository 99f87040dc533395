//! Asks the daemon over its control socket.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Failure;
use super::exit::chain;

/// The daemon answers from memory; longer than this it is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// The path of what is asked about a host.
///
/// # Errors
/// Exit code 1 if it can't be a host's name.
pub(super) fn host_path(host: &str, what: &str) -> Result<String, Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.bytes().all(plain) {
        Ok(format!("/v1/hosts/{host}/{what}"))
    } else {
        Err(Failure::said(format!("`{host}` is no host name")))
    }
}

/// `GET path`, as JSON.
///
/// # Errors
/// Exit code 4 if the daemon does not answer; 1 with its words if it refuses.
pub(super) fn get<T: DeserializeOwned>(state: &Path, path: &str) -> Result<T, Failure> {
    let socket = crate::daemon::control_path(state);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::failed("start the runtime", &error))?;
    let answer =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(&socket, path)).await });
    let place = socket.display();
    let (status, body) = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let denied = error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
            if denied {
                return Err(Failure::unreachable(format!(
                    "may not ask the daemon at {place}: its socket is for root and the group of its state directory; use sudo"
                )));
            }
            return Err(Failure::unreachable(format!(
                "no daemon answers at {place}: {}; is `bridgehead serve` running, and with this --state?",
                chain(error.as_ref())
            )));
        }
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            return Err(Failure::unreachable(format!(
                "the daemon at {place} did not answer within {seconds} s"
            )));
        }
    };
    if status != StatusCode::OK {
        return Err(Failure::said(String::from_utf8_lossy(&body).trim_end()));
    }
    serde_json::from_slice(&body).map_err(|error| {
        Failure::failed(
            "read the daemon's answer (is it of another version?)",
            &error,
        )
    })
}

type Answer = Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>>;

async fn ask(socket: &Path, path: &str) -> Answer {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "localhost")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
