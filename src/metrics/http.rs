//! HTTP.

use axum::http::StatusCode;

use super::{Counter, EachPair, Gauge, Label, Registry};

/// The first digit of a response's status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// 1xx, 2xx.
    Success,
    /// 3xx: mostly 304.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
}

impl StatusClass {
    /// Of this status.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            0..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

impl Label for StatusClass {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &[
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// What is asked for by HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpRoute {
    /// Kernels, initrds, loaders.
    Files,
    /// Loaders' scripts and configs.
    Scripts,
    /// What a host in its initrd or root asks for and reports.
    Hosts,
    /// Status, logs, metrics, health.
    Api,
    /// The page for people.
    Page,
    /// Nothing that is served.
    Other,
}

impl HttpRoute {
    /// Of this path.
    pub fn of(path: &str) -> Self {
        let within = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        if within(&["/files/"]) {
            Self::Files
        } else if within(&["/boot/", "/autoexec.ipxe"]) {
            Self::Scripts
        } else if within(&["/v1/boot/"]) {
            Self::Hosts
        } else if within(&["/v1/", "/metrics", "/healthz", "/readyz"]) {
            Self::Api
        } else if path == "/" || within(&["/hosts/", "/page/", "/approve/"]) {
            Self::Page
        } else {
            Self::Other
        }
    }
}

impl Label for HttpRoute {
    const NAME: &'static str = "route";
    const ALL: &'static [Self] = &[
        Self::Files,
        Self::Scripts,
        Self::Hosts,
        Self::Api,
        Self::Page,
        Self::Other,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Scripts => "scripts",
            Self::Hosts => "hosts",
            Self::Api => "api",
            Self::Page => "page",
            Self::Other => "other",
        }
    }
}

/// Connections, answers, transfers.
#[derive(Debug, Clone, Default)]
pub struct HttpMetrics {
    /// Requests that were answered, by what they are for and by status.
    pub requests: EachPair<HttpRoute, StatusClass, Counter>,
    /// Bytes of boot files that were handed to connections.
    pub sent_bytes: Counter,
    /// Boot files that clients did not take whole.
    pub cut_off: Counter,
    /// Open connections.
    pub connections: Gauge,
    /// Connections that were refused, because their address had too many.
    pub refused: Counter,
    /// Tokens that were shown and are not the daemon's.
    pub wrong_tokens: Counter,
    /// Large transfers that keep others waiting.
    pub transfers_running: Gauge,
    /// Large transfers that wait for their turn.
    pub transfers_waiting: Gauge,
}

impl HttpMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let requests =
            "Requests by HTTP that were answered, by what they are for and the class of the status";
        registry.register("http_requests", requests, self.requests.clone());
        let cut_off = "Boot files by HTTP that clients did not take whole";
        registry.register("http_cut_off", cut_off, self.cut_off.clone());
        let connections = "Open HTTP connections";
        registry.register("http_connections", connections, self.connections.clone());
        let refused = "HTTP connections refused, because their address had too many";
        registry.register("http_refused_connections", refused, self.refused.clone());
        let wrong = "Wrong tokens shown by HTTP";
        registry.register("http_wrong_tokens", wrong, self.wrong_tokens.clone());
        let running = "Large transfers by HTTP that have their turn";
        registry.register(
            "http_transfers_running",
            running,
            self.transfers_running.clone(),
        );
        let waiting = "Large transfers by HTTP that wait for their turn";
        registry.register(
            "http_transfers_waiting",
            waiting,
            self.transfers_waiting.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_of_one_route() {
        for (path, route) in [
            ("/files/kernels/debian/vmlinuz", HttpRoute::Files),
            ("/boot/52:54:00:00:00:01/script.ipxe", HttpRoute::Scripts),
            ("/autoexec.ipxe", HttpRoute::Scripts),
            ("/v1/boot/kvm01/events", HttpRoute::Hosts),
            ("/v1/status", HttpRoute::Api),
            ("/metrics", HttpRoute::Api),
            ("/", HttpRoute::Page),
            ("/hosts/kvm01", HttpRoute::Page),
            ("/approve/52:54:00:00:00:09", HttpRoute::Page),
            ("/favicon.ico", HttpRoute::Other),
            ("", HttpRoute::Other),
        ] {
            assert_eq!(HttpRoute::of(path), route, "{path}");
        }
    }
}
