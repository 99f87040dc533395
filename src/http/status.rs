//! Where every machine stands, for `bridgehead status` and for anybody with curl.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::Timestamp;

use super::watchers::Watchers;
use super::{App, Ends};
use crate::policy::event::{AttemptId, MachineId};
use crate::site::discovery::DiscoveredList;
use crate::site::report::{self, FleetStatus, HostLog, Transfers};
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
    let id = MachineId(name);
    let listed = app.site.snapshot().inventory.hosts.contains_key(&id.0);
    let known = listed || id == MachineId::wire();
    if !known && app.site.timeline.machine(&id).is_none() {
        return Err(nobody(&id));
    }
    Ok(Json(log_of(&app, &id)))
}

/// What is known of a machine; nothing, where it was never seen.
pub(super) fn log_of(app: &App, id: &MachineId) -> HostLog {
    let known = app.site.timeline.machine(id).unwrap_or_default();
    let said = |attempt: &AttemptId| app.consoles.said(id, attempt);
    HostLog::new(id, known, app.consoles.last(id), said)
}

fn nobody(id: &MachineId) -> (StatusCode, String) {
    let text =
        format!("{id} is neither listed nor was it ever seen; `bridgehead status` shows who is\n");
    (StatusCode::NOT_FOUND, text)
}

pub(super) async fn host_why(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Why>, (StatusCode, String)> {
    let id = MachineId(name);
    // What an earlier attempt said is no cause of this one's trouble.
    let attempt = app
        .site
        .timeline
        .machine(&id)
        .and_then(|machine| Some(machine.attempt()?.id.clone()));
    let words = attempt.map(|attempt| Words {
        console: app.consoles.of(&id, &attempt),
        syslog: app.consoles.said(&id, &attempt),
    });
    let told = why(&app.site, &id, &words.unwrap_or_default(), Timestamp::now());
    told.map(Json).ok_or_else(|| nobody(&id))
}

/// Ready to boot machines: 200, or 503 with each part that is not.
pub(super) async fn ready(State(app): State<App>) -> Response {
    let troubles = app.site.troubles().into_iter();
    let stopped = troubles.filter(|trouble| trouble.part.stops_boots());
    let told = stopped.map(|trouble| format!("{}: {}\n", trouble.part.name(), trouble.message));
    let refused = app.reload.refused();
    let refused = refused.map(|why| format!("inventory: the last edit is not served\n{why}\n"));
    let text: String = told.chain(refused).collect();
    if text.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
