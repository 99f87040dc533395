//! `POST /v1/discovered/MAC/approve`: a machine that waits is made a host.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::{App, Ends};
use crate::inventory::model::MacAddr;
use crate::scribe::Kind;
use crate::site::approval::{Approval, By, NotApproved};

pub(super) async fn approve(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(mac): Path<String>,
    approval: Result<Json<Approval>, JsonRejection>,
) -> Response {
    let approval = match approval {
        Ok(Json(approval)) => approval,
        Err(bad) => return (bad.status(), format!("{}\n", bad.body_text())).into_response(),
    };
    let mac: MacAddr = match mac.parse() {
        Ok(mac) => mac,
        Err(bad) => return (StatusCode::BAD_REQUEST, format!("{bad}\n")).into_response(),
    };
    match app.site.approve(mac, &approval, &by(ends)).await {
        Ok(approved) => Json(approved).into_response(),
        Err(why) => {
            let mut answer = (status(&why), format!("{why}\n")).into_response();
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                answer.headers_mut().insert(RETRY_AFTER, 5.into());
            }
            answer
        }
    }
}

/// Who does it, as far as we know.
pub(super) fn by(ends: Ends) -> By {
    let way = |peer, sealed| match sealed {
        true => format!("by HTTPS from {peer}"),
        false => format!("on the server itself ({peer})"),
    };
    match ends {
        Ends::Local => By::Socket,
        Ends::Network { peer, sealed, .. } => By::Network(way(peer, sealed)),
    }
}

pub(super) fn status(why: &NotApproved) -> StatusCode {
    match why {
        NotApproved::Unknown(_) => StatusCode::NOT_FOUND,
        NotApproved::Policy { .. } => StatusCode::FORBIDDEN,
        NotApproved::Virtual { .. } => StatusCode::CONFLICT,
        NotApproved::Refused(refusal) => match refusal.kind {
            Kind::Unfit => StatusCode::CONFLICT,
            Kind::Faulty => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Unwritable => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Busy | Kind::Gone => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}
