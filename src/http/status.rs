//! Where every machine stands, for `bridgehead status` and for anybody with curl.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::watchers::Watchers;
use super::{App, Ends, off_thread};
use crate::policy::event::{AttemptId, MachineId};
use crate::site::NOT_SERVED;
use crate::site::discovery::DiscoveredList;
use crate::site::report::{self, FleetStatus, HostLog, Transfers};
use crate::site::whom::{Whom, nobody};
use crate::site::why::{Why, Words, why};

pub(super) async fn status(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Extension(watchers): Extension<Arc<Watchers>>,
) -> Response {
    match ends {
        // The operator's own commands see what is now.
        Ends::Local => Json(fleet(&app)).into_response(),
        Ends::Network { .. } => {
            let json = watchers.status(Instant::now(), || serde_json::to_vec(&fleet(&app)));
            match json.await {
                Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
                Err(error) => {
                    let text = format!("the status can't be written: {error}\n");
                    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
                }
            }
        }
    }
}

pub(super) fn fleet(app: &App) -> FleetStatus {
    let mut fleet = report::fleet(&app.site, &app.reload, Timestamp::now());
    let (running, waiting) = app.turns.count();
    fleet.transfers = Transfers { running, waiting };
    fleet
}

/// The inventory that is served, for who would edit it: over the daemon's own socket alone, for it
/// is the whole file.
pub(super) async fn inventory(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
) -> Response {
    if ends != Ends::Local {
        let text = "the inventory is shown over the daemon's own socket alone\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let site = app.site.clone();
    let outline = tokio::task::spawn_blocking(move || site.outline(Timestamp::now())).await;
    match outline {
        Ok(outline) => Json(outline).into_response(),
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{panic}\n")).into_response(),
    }
}

/// Machines that boot and are not listed.
pub(super) async fn discovered(State(app): State<App>) -> Json<DiscoveredList> {
    Json(app.site.discovered(Timestamp::now()))
}

pub(super) async fn host_log(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<HostLog>, (StatusCode, String)> {
    let id = meant(&app, &name)?;
    off_thread(move || log_of(&app, &id)).await.map(Json)
}

/// Who goes by this name, or was seen with it.
fn meant(app: &App, name: &str) -> Result<MachineId, (StatusCode, String)> {
    let as_it_is = MachineId(name.to_owned());
    let seen = |id: &MachineId| *id == MachineId::wire() || app.site.timeline.machine(id).is_some();
    let snapshot = app.site.snapshot();
    match Whom::of(&snapshot.inventory, name) {
        // What it did before it was listed is a story of its own.
        _ if seen(&as_it_is) => Ok(as_it_is),
        Some(Whom::Host(host)) => Ok(MachineId(host.name.clone())),
        Some(stranger) if seen(&stranger.id()) => Ok(stranger.id()),
        _ => {
            let text = nobody(&snapshot.inventory, name) + "\n";
            Err((StatusCode::NOT_FOUND, text))
        }
    }
}

/// What is known of a machine, read from the disk; nothing, where it was never seen.
pub(super) fn log_of(app: &App, id: &MachineId) -> HostLog {
    let known = app.site.timeline.machine(id).unwrap_or_default();
    let said = |attempt: &AttemptId| app.consoles.said(id, attempt);
    HostLog::new(id, known, app.consoles.last(id), said)
}

pub(super) async fn host_why(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Why>, (StatusCode, String)> {
    let id = meant(&app, &name)?;
    if id == MachineId::wire() {
        let text =
            "wire is no machine: `bridgehead log wire` shows the packets that belong to nobody\n";
        return Err((StatusCode::NOT_FOUND, text.to_owned()));
    }
    let told = off_thread(move || why_of(&app, &id).ok_or_else(gone)).await?;
    told.map(Json)
}

/// It went between two questions.
fn gone() -> (StatusCode, String) {
    let text = "nothing is known of it any more: ask again\n";
    (StatusCode::NOT_FOUND, text.to_owned())
}

/// Why a machine is where it is, with its last words from the disk.
pub(super) fn why_of(app: &App, id: &MachineId) -> Option<Why> {
    // What an earlier attempt said is no cause of this one's trouble.
    let attempt = app
        .site
        .timeline
        .machine(id)
        .and_then(|machine| Some(machine.attempt()?.id.clone()));
    let words = attempt.map(|attempt| Words {
        console: app.consoles.of(id, &attempt),
        syslog: app.consoles.said(id, &attempt),
    });
    let mut told = why(&app.site, id, &words.unwrap_or_default(), Timestamp::now())?;
    // The mend may stand in that very edit.
    let waits = ["unseen", "refused", "stalled", "failed"].contains(&told.state.as_str());
    if waits && app.reload.refused().is_some() {
        let first = format!("{NOT_SERVED}: `bridgehead check` shows the edit's faults");
        told.next.insert(0, first);
    }
    Some(told)
}

/// Ready to boot machines or not, and each part that is not as it should be.
#[derive(Debug, Serialize)]
struct Readiness {
    schema: u32,
    ready: bool,
    failing: Vec<Failing>,
}

#[derive(Debug, Serialize)]
struct Failing {
    part: &'static str,
    /// Whether machines don't boot for it, or not as they should by the newest inventory.
    stops: bool,
    why: String,
}

impl Readiness {
    fn of(app: &App) -> Self {
        let troubles = app.site.troubles().into_iter().map(|trouble| Failing {
            part: trouble.part.name(),
            stops: trouble.part.stops_boots(),
            why: trouble.message,
        });
        let refused = app.reload.refused().map(|why| Failing {
            part: "inventory",
            stops: true,
            why: format!("{NOT_SERVED}\n{why}"),
        });
        let failing: Vec<_> = troubles.chain(refused).collect();
        Self {
            schema: 1,
            ready: !failing.iter().any(|failing| failing.stops),
            failing,
        }
    }

    fn text(&self) -> String {
        let line = |failing: &Failing| format!("{}: {}\n", failing.part, failing.why);
        let lines = self.failing.iter().map(line);
        let head = self.ready.then(|| "ready\n".to_owned());
        head.into_iter().chain(lines).collect()
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    format: String,
}

/// Ready to boot machines: 200, or 503 with the parts that are not.
pub(super) async fn ready(
    State(app): State<App>,
    Query(Wanted { format }): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    let readiness = Readiness::of(&app);
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let json = accept.is_some_and(|accept| accept.contains("application/json"));
    match json || format == "json" {
        true => (status, Json(readiness)).into_response(),
        false => (status, readiness.text()).into_response(),
    }
}
