//! Boot files, loader scripts and the daemon's API over HTTP/1.1.

mod addresses;
mod approve;
mod body;
mod boot_api;
mod conditions;
mod files;
mod host_files;
mod leaving;
mod listen;
mod live;
mod metrics;
mod outlet;
mod page;
mod rights;
mod status;
mod turns;
mod watchers;

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};

use crate::site::Site;

pub use listen::{Keys, Trouble, serve_tcp, serve_unix};
pub use live::Live;
pub use rights::Tokens;
pub use turns::Turns;
use watchers::Watchers;

/// The ends of the connection that a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Over the network.
    Network {
        /// The client's address.
        peer: Ipv4Addr,
        /// The daemon's address that it connected to.
        local: Ipv4Addr,
        /// Whether nobody on the way can read it (TLS).
        sealed: bool,
    },
    /// Over the daemon's own socket: whoever may open that file.
    Local,
}

impl Ends {
    /// Whose address it is; unspecified for the daemon's own socket.
    pub(crate) fn peer(self) -> Ipv4Addr {
        match self {
            Self::Network { peer, .. } => peer,
            Self::Local => Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// What handlers share.
#[derive(Debug, Clone)]
pub struct App {
    /// The site.
    pub site: Arc<Site>,
    /// Where hosts' last words are kept.
    pub consoles: Arc<crate::timeline::Consoles>,
    /// Why the last edit is not served, if it is not.
    pub reload: Arc<crate::site::ReloadState>,
    /// Whose turn it is to transfer something large.
    pub turns: Arc<Turns>,
    /// What the page shows, and who watches it.
    pub live: Arc<Live>,
    /// What lets somebody read or write.
    pub tokens: Arc<Tokens>,
}

/// Does what may have to wait for a disk where neither DHCP nor anybody else waits with it.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, (StatusCode, String)> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| {
        let text = format!("our own fault: {panic}\n");
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

/// Every route.
pub fn router(app: App) -> Router {
    finish(boot_routes().merge(api_routes(&app)), app)
}

/// What machines ask for, where the API has a port of its own.
pub fn boot_router(app: App) -> Router {
    finish(boot_routes(), app)
}

/// What operators and their programs ask for, where it has a port of its own.
pub fn api_router(app: App) -> Router {
    finish(api_routes(&app), app)
}

fn boot_routes() -> Router<App> {
    Router::new()
        .route("/files/{*path}", get(files::file))
        .route("/files/loaders/autoexec.ipxe", get(boot_api::autoexec))
        .route("/autoexec.ipxe", get(boot_api::autoexec))
        .route("/boot/{mac}/script.ipxe", get(boot_api::ipxe_script))
        .route(
            "/boot/{mac}/menu/{entry}/script.ipxe",
            get(boot_api::ipxe_entry),
        )
        .route("/boot/{mac}/failed", get(boot_api::ipxe_failed))
        .route("/boot/{mac}/grub.cfg", get(boot_api::grub_config))
        .route("/v1/boot/{host}/config", get(boot_api::config))
        .route("/v1/boot/{host}/files", get(host_files::files))
        .route("/boot/{mac}/next", get(boot_api::next))
        .route("/v1/boot/{host}/events", post(boot_api::events))
        .route("/v1/boot/{host}/inventory", hardware_route())
        .route("/v1/boot/{host}/log", post(boot_api::log))
}

/// With room for what the switches at each of many NICs say.
fn hardware_route() -> MethodRouter<App> {
    post(boot_api::hardware).layer(DefaultBodyLimit::max(128 << 10))
}

fn api_routes(app: &App) -> Router<App> {
    let watchers = Arc::new(Watchers::default());
    let write = Router::new()
        .route("/v1/discovered/{mac}/approve", post(approve::approve))
        .merge(page::operators_routes())
        .route_layer(from_fn_with_state(app.clone(), rights::may_write));
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/discovered", get(status::discovered))
        .route("/v1/inventory", get(status::inventory))
        .route("/v1/hosts/{host}/log", get(status::host_log))
        .route("/v1/hosts/{host}/why", get(status::host_why))
        .route("/metrics", get(metrics::metrics))
        .merge(page::routes())
        .route_layer(from_fn_with_state(app.clone(), rights::may_read))
        .merge(write)
        .route_layer(Extension(watchers.clone()))
        .route_layer(from_fn_with_state(watchers, watchers::limit))
}

/// Whoever watches a port asks it how it is.
fn finish(routes: Router<App>, app: App) -> Router {
    routes
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .layer(DefaultBodyLimit::max(64 << 10))
        .with_state(app)
}
