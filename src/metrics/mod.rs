//! What the daemon counts, for `GET /metrics` (OpenMetrics 1.0 text).
//!
//! Every room has a plain struct of counters here, in a file of its own, and holds a clone of it: counting is one
//! atomic addition, and no room needs to know HTTP or the registry for it. To add a metric:
//!
//! 1. a field in the room's struct: [`Counter`], [`Gauge`], [`Histogram`], or [`Each`] for one with a label ([`EachPair`] with two);
//! 2. a line in its `register`, which gives the name without `bridgehead_` and `_total`, and the help;
//! 3. the name in the table of docs/operations.md (`tests/metrics.rs` holds the two against each other).
//!
//! A new room: its struct, a field of [`Metrics`] and a line in [`Metrics::new`]. Label values are enums ([`Label`]) and
//! there from the start, at zero: no host, MAC, address or file name is ever one, or whoever is on the wire could
//! fill the memory of the daemon and of whoever reads this.

mod dhcp;
mod enrol;
mod fleet;
mod http;
mod label;
mod leases;
mod nfs;
mod process;
mod sent;
mod syslog;
mod tftp;
mod timeline;
mod udp;

pub use dhcp::{
    DhcpMessage, DhcpMetrics, Direction, OtherServer, ProbeResult, RequestResult, Silence,
};
pub use enrol::{EnrolMetrics, EnrolResult};
pub use fleet::FleetMetrics;
pub use http::{HttpMetrics, HttpRoute, StatusClass};
pub use label::{Each, EachPair, Label};
pub use leases::{LeaseMetrics, LeaseState};
pub use nfs::{NfsMetrics, NfsRefusal};
pub use syslog::{SyslogFate, SyslogMetrics};
pub use tftp::{TftpAnswer, TftpMetrics, TftpResult};
pub use timeline::{BootResult, TimelineMetrics};
pub use udp::{UdpService, WatchedSockets};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
pub use prometheus_client::registry::Registry;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// Where hosts stand; set when somebody asks.
    pub fleet: FleetMetrics,
    /// HTTP.
    pub http: HttpMetrics,
    /// DHCP.
    pub dhcp: DhcpMetrics,
    /// Machines that become hosts by themselves.
    pub enrol: EnrolMetrics,
    /// Leases; set when somebody asks.
    pub leases: LeaseMetrics,
    /// NFS.
    pub nfs: NfsMetrics,
    /// Syslog lines.
    pub syslog: SyslogMetrics,
    /// TFTP.
    pub tftp: TftpMetrics,
    /// Boot events.
    pub timeline: TimelineMetrics,
    /// Sockets whose losses are shown.
    pub sockets: WatchedSockets,
    registry: Registry,
}

impl Metrics {
    /// All of it, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        let own = registry.sub_registry_with_prefix("bridgehead");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "The version that runs", version);
        let (fleet, leases) = (FleetMetrics::default(), LeaseMetrics::default());
        let (timeline, sockets) = (TimelineMetrics::default(), WatchedSockets::default());
        let (http, tftp) = (HttpMetrics::default(), TftpMetrics::default());
        let syslog = SyslogMetrics::default();
        let enrol = EnrolMetrics::default();
        let (dhcp, nfs) = (DhcpMetrics::default(), NfsMetrics::default());
        dhcp.register(own);
        enrol.register(own);
        fleet.register(own);
        http.register(own);
        tftp.register(own);
        syslog.register(own);
        leases.register(own);
        nfs.register(own);
        sent::register(own, &http, &nfs, &tftp);
        timeline.register(own);
        own.register_collector(Box::new(sockets.clone()));
        Self {
            dhcp,
            enrol,
            fleet,
            http,
            leases,
            nfs,
            syslog,
            tftp,
            timeline,
            sockets,
            registry,
        }
    }

    /// The text of a scrape, [`CONTENT_TYPE`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A String takes everything that is written to it.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
