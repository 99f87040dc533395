//! What a booting machine asks for and reports.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::outlet::InHand;
use super::{App, Ends, files, host_files, off_thread};
use crate::inventory::model::{Host, MacAddr};
use crate::policy::discovered::Identity;
use crate::policy::event::{AttemptId, BootEvent, MachineId, Stage, StageState};
use crate::policy::hint::hints;
use crate::render::ConfigKind;
use crate::site::Snapshot;
use crate::site::boot::Denied;
use crate::site::{host_config, posts};
use crate::timeline::{Refusal, TokenKind};

/// The header that carries a boot or report token.
const TOKEN: &str = "x-bridgehead-token";
/// More in one post than a boot produces is a mistake, bytes.
const MAX_EVENTS: usize = 16 << 10;

pub(super) type Reply = Result<Response, (StatusCode, String)>;

fn text(body: String) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        body,
    )
        .into_response()
}

pub(super) async fn ipxe_script(
    state: State<App>,
    ends: Extension<Ends>,
    mac: Path<String>,
    RawQuery(query): RawQuery,
) -> Reply {
    let reply = loader_config(&state, *ends, ConfigKind::Ipxe, &mac, None)?;
    // Whoever has its script has the machine's own address.
    if let (Ok(mac), Some(query)) = (mac.parse(), query) {
        state.site.discovery.told(mac, Identity::of_query(&query));
        // Its first question says nothing of who it is: it might be a guest. It asks again with it.
        state.site.enrolment.consider(mac);
    }
    Ok(reply)
}

/// iPXE says what stopped it.
pub(super) async fn ipxe_failed(
    state: State<App>,
    ends: Extension<Ends>,
    Path(mac): Path<String>,
    RawQuery(query): RawQuery,
) -> Reply {
    let (peer, _) = network(*ends)?;
    let mac: MacAddr = mac
        .parse()
        .map_err(|bad| (StatusCode::BAD_REQUEST, format!("{bad}\n")))?;
    let said = query.unwrap_or_default();
    let noted = state.site.loader_failed(mac, peer, &said);
    noted.map_err(|denied| (status_of(&denied), format!("{denied}\n")))?;
    Ok(text("noted\n".to_owned()))
}

/// What an entry of the machine's menu boots: that it asks is how we know what was chosen.
pub(super) async fn ipxe_entry(
    state: State<App>,
    ends: Extension<Ends>,
    Path((mac, entry)): Path<(String, String)>,
) -> Reply {
    loader_config(&state, *ends, ConfigKind::Ipxe, &mac, Some(&entry))
}

/// The site's own `loaders/autoexec.ipxe`, or ours.
pub(super) async fn autoexec(
    state: State<App>,
    ends: Extension<Ends>,
    in_hand: Extension<InHand>,
    method: Method,
    headers: HeaderMap,
) -> Reply {
    const OWN: &str = "loaders/autoexec.ipxe";
    if state.site.snapshot().assets.get(OWN).is_some() {
        let path = Path(OWN.to_owned());
        return Ok(files::file(state, ends, in_hand, path, method, headers)
            .await
            .into_response());
    }
    let (_, local) = network(*ends)?;
    Ok(text(state.site.autoexec(local)))
}

pub(super) async fn grub_config(
    state: State<App>,
    ends: Extension<Ends>,
    mac: Path<String>,
) -> Reply {
    loader_config(&state, *ends, ConfigKind::Grub, &mac, None)
}

fn loader_config(app: &App, ends: Ends, kind: ConfigKind, mac: &str, entry: Option<&str>) -> Reply {
    let (peer, local) = network(ends)?;
    let mac: MacAddr = mac
        .parse()
        .map_err(|bad| (StatusCode::BAD_REQUEST, format!("{bad}\n")))?;
    let config = app
        .site
        .config_for_mac(kind, mac, entry, peer, local)
        .map_err(|denied| (status_of(&denied), format!("{denied}\n")))?;
    app.site.config_sent(kind, peer, &config, "");
    Ok(text(config.text))
}

fn status_of(denied: &Denied) -> StatusCode {
    match denied {
        Denied::NoEntry { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::FORBIDDEN,
    }
}

pub(super) fn network(ends: Ends) -> Result<(Ipv4Addr, Ipv4Addr), (StatusCode, String)> {
    match ends {
        Ends::Network { peer, local, .. } => Ok((peer, local)),
        Ends::Local => Err((
            StatusCode::BAD_REQUEST,
            "machines ask for this over the network\n".into(),
        )),
    }
}

pub(super) fn token(headers: &HeaderMap) -> &str {
    headers
        .get(TOKEN)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

pub(super) fn listed(app: &App, name: &str) -> Result<Arc<Host>, (StatusCode, String)> {
    let host = app.site.snapshot().inventory.hosts.get(name).cloned();
    host.ok_or_else(|| {
        (
            StatusCode::NOT_FOUND,
            format!("no host {name} in hosts.yaml\n"),
        )
    })
}

/// Somebody who asks for what is one host's alone.
pub(super) struct Asker<'a> {
    pub app: &'a App,
    pub host: &'a Arc<Host>,
    pub peer: Ipv4Addr,
    /// What was asked for belongs to this stage.
    pub stage: Stage,
}

impl Asker<'_> {
    /// The attempt that the token is of, if it comes from the host's own address.
    pub(super) fn authorize(
        &self,
        headers: &HeaderMap,
    ) -> Result<(AttemptId, TokenKind), (StatusCode, String)> {
        let address = self.host.home.address.addr();
        if address != self.peer {
            return Err(self.deny(format!("its address is {address}, not {}", self.peer)));
        }
        let id = MachineId(self.host.name.clone());
        let authorized = self.app.site.timeline.authorize(&id, token(headers));
        authorized.map_err(|refusal| self.deny(refusal.to_string()))
    }

    /// What this attempt boots by, and the host there as the entry makes it that it took from its menu.
    pub(super) fn booted(
        &self,
        attempt: &AttemptId,
    ) -> Result<(Arc<Snapshot>, Arc<Host>), (StatusCode, String)> {
        let id = MachineId(self.host.name.clone());
        let entry = self.app.site.timeline.entry(&id, attempt);
        let (snapshot, host) = self.app.site.boots_by(self.host, attempt);
        let booted = host.booted(entry.as_deref());
        let booted = booted.map_err(|gone| self.deny(gone.to_string()))?;
        Ok((snapshot, booted))
    }

    /// Gives nothing, and leaves an event that says why.
    pub(super) fn deny(&self, why: String) -> (StatusCode, String) {
        let (peer, name) = (self.peer, &self.host.name);
        let what = match self.stage {
            Stage::Overlay => "files",
            _ => "configuration",
        };
        let message = format!("{peer} asked for the {what} of {name} and got nothing: {why}");
        self.app
            .site
            .note(peer, self.stage, StageState::Ignored, message);
        (StatusCode::FORBIDDEN, why + "\n")
    }
}

fn refused(refusal: Refusal) -> (StatusCode, String) {
    let status = match refusal {
        Refusal::AlreadyJoined => StatusCode::CONFLICT,
        _ => StatusCode::FORBIDDEN,
    };
    (status, format!("{refusal}\n"))
}

/// A host's configuration, for the bearer of its attempt's boot token at its own address.
pub(super) async fn config(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Reply {
    let (peer, local) = network(ends)?;
    let host = listed(&app, &name)?;
    let asker = Asker {
        app: &app,
        host: &host,
        peer,
        stage: Stage::Config,
    };
    let (attempt, _) = asker.authorize(&headers)?;
    let (snapshot, host) = asker.booted(&attempt)?;
    let server = host.home.network.server.unwrap_or(local);
    let report_token = app.site.timeline.report_token(&attempt);
    let files = host_files::announce(&app, &snapshot, &host, &attempt, peer)?;
    let config = host_config::host_config(&snapshot, &host, server, &report_token, files.as_ref());
    app.site.note(
        peer,
        Stage::Config,
        StageState::Info,
        format!("configuration sent to {peer}"),
    );
    Ok(text(config))
}

/// What a machine that waits in its initrd is to do next.
pub(super) async fn next(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(mac): Path<String>,
    headers: HeaderMap,
) -> Reply {
    let (peer, local) = network(ends)?;
    let mac: MacAddr = mac
        .parse()
        .map_err(|bad| (StatusCode::BAD_REQUEST, format!("{bad}\n")))?;
    let next = app.site.next(mac, peer, local, token(&headers));
    let next = next.map_err(|denied| (status_of(&denied), format!("{denied}\n")))?;
    Ok(text(next.to_text()))
}

/// What an inventory boot found.
pub(super) async fn hardware(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let (peer, _) = network(ends)?;
    let mac = MachineId(name.clone()).unlisted_mac();
    let mac = mac.ok_or_else(|| {
        let message = format!("{name} is no machine that nobody listed: mac-525400000001\n");
        (StatusCode::NOT_FOUND, message)
    })?;
    let report = String::from_utf8_lossy(&body);
    let learned = app.site.learn_hardware(mac, peer, token(&headers), &report);
    learned.map_err(|denied| (status_of(&denied), format!("{denied}\n")))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Who may report by this name: a listed host, or a machine that nobody listed, in its inventory boot.
fn reporter(app: &App, name: &str) -> Result<MachineId, (StatusCode, String)> {
    let id = MachineId(name.to_owned());
    match id.unlisted_mac() {
        Some(_) => Ok(id),
        None => listed(app, name).map(|_| id),
    }
}

/// What a host says of itself.
pub(super) async fn events(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let (peer, _) = network(ends)?;
    let id = reporter(&app, &name)?;
    if body.len() > MAX_EVENTS {
        return Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{} bytes of events, at most {MAX_EVENTS}\n", body.len()),
        ));
    }
    let now = Timestamp::now();
    let events = posts::parse(&body, &id, now)
        .map_err(|bad| (StatusCode::BAD_REQUEST, format!("{bad}\n")))?;
    let failed = events.iter().any(|event| event.state == StageState::Fail);
    let count = events.len();
    for event in events {
        let (stage, state) = (event.stage, event.state.name());
        let has_files = stage >= Stage::Overlay && event.state == StageState::Ok;
        if let Err(refusal) = app.site.timeline.report(event, token(&headers)) {
            let message = format!(
                "{peer} reported {stage} {state} for {name} and was not believed: {refusal}"
            );
            app.site.note(peer, stage, StageState::Ignored, message);
            return Err(refused(refusal));
        }
        if let Ok((attempt, TokenKind::Report)) = app.site.timeline.authorize(&id, token(&headers))
            && has_files
        {
            app.site.handout.received(&name, &attempt);
        }
    }
    let mut answer = format!("accepted={count}\n");
    if failed {
        answer += &format!("hold_s={}\n", app.site.timeline.hold_s(&id));
    }
    Ok(text(answer))
}

/// A host's last words: the end of its kernel log after a failure.
pub(super) async fn log(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let host = listed(&app, &name)?;
    let id = MachineId(host.name.clone());
    let (attempt, _) = app
        .site
        .timeline
        .authorize(&id, token(&headers))
        .map_err(refused)?;
    let (consoles, of, said) = (app.consoles.clone(), id.clone(), body.clone());
    let kept = off_thread(move || consoles.keep(&of, &attempt, &said)).await?;
    kept.map_err(|error| {
        tracing::warn!(host = name, "cannot keep the console of {name}: {error}");
        (
            StatusCode::INSUFFICIENT_STORAGE,
            "the daemon cannot keep it\n".to_owned(),
        )
    })?;
    tell_hints(&app, &id, &body, token(&headers));
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Known failures in a host's last words, for `status` and `log`.
fn tell_hints(app: &App, id: &MachineId, said: &[u8], token: &str) {
    let timeline = &app.site.timeline;
    let machine = timeline.machine(id).unwrap_or_default();
    let stage = machine
        .attempt()
        .and_then(|attempt| Some(attempt.current()?.stage));
    for hint in hints(&String::from_utf8_lossy(said)) {
        let now = Timestamp::now();
        let message = format!("its console says: {}", hint.line);
        let stage = stage.unwrap_or(Stage::Early);
        let mut event = BootEvent::sent(now, id.clone(), stage, StageState::Info, message);
        event.hint = Some(hint.means);
        // It was believed a moment ago; if it no longer is, a new boot began.
        let _ = timeline.report(event, token);
    }
}
