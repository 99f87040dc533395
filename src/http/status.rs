//! Where every machine stands, for `bridgehead status` and for anybody with curl.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::App;
use crate::policy::event::MachineId;
use crate::site::report::{self, FleetStatus, HostLog, Transfers};

pub(super) async fn status(State(app): State<App>) -> Json<FleetStatus> {
    let mut fleet = report::fleet(&app.site, &app.reload, Timestamp::now());
    let (running, waiting) = app.turns.count();
    fleet.transfers = Transfers { running, waiting };
    Json(fleet)
}

pub(super) async fn host_log(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<HostLog>, (StatusCode, String)> {
    let id = MachineId(name);
    let known = app.site.timeline.machine(&id);
    let listed = app.site.snapshot().inventory.hosts.contains_key(&id.0);
    if known.is_none() && !listed {
        return Err((
            StatusCode::NOT_FOUND,
            format!("{id} is neither listed nor was it ever seen\n"),
        ));
    }
    let console = app.consoles.last(&id);
    Ok(Json(HostLog::new(&id, known.unwrap_or_default(), console)))
}

/// Ready to boot machines: 200, or 503 with the part that is not.
pub(super) async fn ready(State(app): State<App>) -> Response {
    match app.reload.refused() {
        None => "ready\n".into_response(),
        Some(why) => {
            let text = format!("inventory: the last edit is not served\n{why}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}
