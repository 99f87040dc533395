//! `GET /metrics`: what the daemon counts, for Prometheus and for anybody with curl.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use jiff::Timestamp;

use super::App;
use super::watchers::Watchers;
use crate::metrics::CONTENT_TYPE;

pub(super) async fn metrics(
    State(app): State<App>,
    Extension(watchers): Extension<Arc<Watchers>>,
) -> impl IntoResponse {
    watchers.measure(Instant::now(), || {
        app.site.measure(&app.reload, Timestamp::now());
    });
    (
        [
            (header::CONTENT_TYPE, CONTENT_TYPE),
            (header::CACHE_CONTROL, "no-store"),
        ],
        app.site.metrics.text(),
    )
}
