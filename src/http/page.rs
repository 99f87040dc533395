//! The page at `/`, for people.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;

use super::{App, approve, live, off_thread, status};
use crate::page;
use crate::policy::event::MachineId;

/// Every answer of the page has these, whatever it is.
const GUARDS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, page::POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // With `no-referrer` a browser does not say that a form is from here (Fetch, "append a request `Origin` header").
    (REFERRER_POLICY, "same-origin"),
    // Also for the style and the script: a page must not be shown with those of the version before.
    (CACHE_CONTROL, "no-cache"),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(fleet))
        .route("/hosts/{host}", get(host))
        .route("/v1/live", get(live::live))
        .route(
            "/page/style.css",
            get(|| part("text/css; charset=utf-8", page::STYLE)),
        )
        .route(
            "/page/script.js",
            get(|| part("text/javascript; charset=utf-8", page::SCRIPT)),
        )
        .route("/page/icon.svg", get(|| part("image/svg+xml", page::ICON)))
        .layer(map_response(guard))
}

/// Pages for who may write.
pub(super) fn operators_routes() -> Router<App> {
    Router::new()
        .route("/approve/{mac}", get(approve::form).post(approve::submit))
        .layer(map_response(guard))
}

async fn part(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind)], text)
}

async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn fleet(State(app): State<App>) -> Response {
    answer(app.live.page(&app).await)
}

async fn host(State(app): State<App>, Path(name): Path<String>) -> Response {
    let (fleet, version) = app.live.fleet(&app).await;
    let mut machines = fleet.hosts.iter().chain(&fleet.unknown);
    let Some(machine) = machines.find(|machine| machine.host == name) else {
        let words =
            "no machine of this name is listed or was ever seen; see / for those that are\n";
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    let told = off_thread(move || {
        let id = MachineId(name);
        (status::log_of(&app, &id), status::why_of(&app, &id))
    });
    let (log, why) = match told.await {
        Ok(told) => told,
        Err(fault) => return fault.into_response(),
    };
    let why = why.as_ref();
    let page = page::host(&fleet.site, machine, &log, why, &version, Timestamp::now());
    answer(page.map_err(|error| error.to_string()))
}

pub(super) fn answer<B: Into<Body>>(page: Result<B, String>) -> Response {
    match page {
        Ok(html) => Html(html.into()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error + "\n").into_response(),
    }
}
