//! Wiring: bind everything, drop privileges, serve, reload, drain.

mod begin;
mod bindings;
mod config_names;
mod enrolment;
mod interfaces;
mod kept;
mod links;
mod log;
mod manager;
mod neighbours;
mod notify;
pub(crate) mod observe;
mod own;
mod port_holder;
mod privileges;
mod reload;
mod reminder;
mod roots;
mod scribe;
mod services;
mod sockets;
mod start;
mod state;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::dhcp;
use crate::diagnostic::Diagnostics;
use crate::http::{self, App};
use crate::leases::{Journal, JournalError};
use crate::metrics::Metrics;
use crate::nfs;
use crate::site::trouble::Part;
use crate::site::{Paths, Site, Snapshot};
use crate::tftp;
use crate::timeline::{Consoles, Timeline, TimelineError};
use begin::Beginning;
use kept::Keeping;
use roots::Roots;
use services::Services;
use sockets::Sockets;
use start::Starting;

pub use interfaces::{InterfaceError, choose as choose_interfaces, strangers};
pub use log::{error_prefix, start as start_log};
pub use own::faults as address_faults;
pub use scribe::run as run_scribe;
pub use state::{StateError, control_path};

/// How long everything together may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(15);

/// How long TFTP transfers may take to finish at shutdown.
const TRANSFER_DRAIN: Duration = Duration::from_secs(10);

/// What `serve` was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The operator's files.
    pub paths: Paths,
    /// Where leases, events and keys are kept.
    pub state: PathBuf,
    /// Interfaces to serve; empty: every one with an address in a network of the inventory.
    pub interfaces: Vec<String>,
}

/// The daemon can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The operator's files have faults.
    #[error("{0}")]
    Inventory(Box<Diagnostics>),
    /// What hosts boot from is not in the data directory. It may be mounted late, so that another start may do.
    #[error("{0}")]
    Data(Box<Diagnostics>),
    /// No interface to serve.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The state directory can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The lease journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The event log can't be used.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    /// A port can't be had.
    #[error("cannot {operation}{}", port_holder::advice(source, *port))]
    Bind {
        /// What was tried.
        operation: String,
        /// Which port.
        port: port_holder::Port,
        /// The cause.
        source: io::Error,
    },
    /// A socket can't be had.
    #[error(transparent)]
    Socket(#[from] dhcp::SocketError),
    /// TFTP can't start.
    #[error("cannot start TFTP")]
    Tftp(#[source] tftp::BindError),
    /// NFS can't start.
    #[error("cannot start NFS")]
    Nfs(#[source] nfs::BindError),
    /// A root can't be exported.
    #[error("cannot export the roots")]
    Roots(#[source] nfs::ScanErrors),
    /// A service ended that should go on.
    #[error("{service} ended by a fault of ours: {why}; the daemon ends so that it is restarted")]
    Ended {
        /// Which one.
        service: &'static str,
        /// The panic's or the error's words.
        why: String,
    },
    /// Something of the system failed.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
}

fn system(operation: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::System { operation, source }
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`] if it can't start, or a service of it ends.
pub fn run(options: &Options) -> Result<(), ServeError> {
    let ended = start_and_serve(options);
    if let Err(fault) = &ended {
        manager::failed(&fault.to_string());
    }
    manager::last_words();
    ended
}

fn start_and_serve(options: &Options) -> Result<(), ServeError> {
    manager::starting("reading the inventory and its boot files");
    let Beginning {
        snapshot,
        interfaces,
        reload,
        keeper,
        lock,
    } = begin::begin(options)?;
    privileges::raise_open_files();
    neighbours::warn_if_few(&snapshot.inventory);
    own::warn(&snapshot.inventory);
    let sockets = Sockets::bind(&interfaces, &snapshot.inventory, options)?;
    let metrics = Arc::new(Metrics::new());
    sockets.watch(&metrics);
    let (scribe, process) = scribe::start(&options.paths.inventory);
    privileges::keep_only_needed().map_err(system("drop privileges"))?;
    manager::starting("indexing the roots");
    let roots = Roots::open(&snapshot, &options.state).map_err(ServeError::Roots)?;
    let journal = Journal::open(&options.state)?;
    let timeline = Timeline::open(&options.state)?.counting(metrics.timeline.clone());
    let turns = Arc::new(http::Turns::new(metrics.http.clone()));
    let site = Site::new(snapshot, journal, timeline, metrics).written_by(scribe);
    let site = Arc::new(site);
    site.look_at_own();
    site.remember_strangers();
    let served = interfaces.iter();
    let served = served.map(|at| (at.name.clone(), at.addresses.clone()));
    site.troubles.serves(served.collect());
    site.serves_at(
        interfaces.into_iter().flat_map(|at| at.addresses).collect(),
        sockets.hear_ipxe.clone(),
    );
    for (interface, why) in &sockets.refused {
        site.troubles.set(Part::Port, interface, Some(why.clone()));
    }
    let app = App {
        site,
        consoles: Arc::new(Consoles::new(&options.state)),
        reload: Arc::new(reload),
        turns,
        live: Arc::default(),
        tokens: Arc::default(),
    };
    state::read_tokens(&options.state, &app.tokens);
    let runtime = Runtime::new().map_err(system("start the runtime"))?;
    let keeping = Keeping::new(keeper);
    let result = runtime.block_on(serve(options, sockets, app, roots, process, keeping));
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(lock);
    result
}

async fn serve(
    options: &Options,
    sockets: Sockets,
    app: App,
    roots: Roots,
    scribe: Option<scribe::Process>,
    keeping: Keeping,
) -> Result<(), ServeError> {
    let shutdown = CancellationToken::new();
    let mut services = Services::default();
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for SIGINT"))?;
    let hangup = signal(SignalKind::hangup()).map_err(system("listen for SIGHUP"))?;
    let (bound, served) = (sockets.bound.clone(), sockets.served.clone());
    let mut starting = Starting {
        app: &app,
        services: &mut services,
        shutdown: &shutdown,
    };
    starting.all(sockets, &roots.exports()).await?;
    if let Some(scribe) = scribe {
        services.spawn_fallible("the scribe", scribe.serve(shutdown.clone()));
    }
    let reloader = reload::Reloader::new(options, app.clone(), roots, bound, keeping);
    services.spawn("reload", reloader.run(hangup, shutdown.clone()));
    let enrolment = enrolment::run(app.site.clone(), shutdown.clone());
    services.spawn("the enrolment of new machines", enrolment);
    let addresses = own::follow(app.site.clone(), served, shutdown.clone());
    services.spawn("the look at our own addresses", addresses);
    remind_of_certificate(&app, &mut services, &shutdown);
    watch_journal(&app, &mut services, &shutdown);
    let manager = manager::run(app.clone(), shutdown.clone());
    services.spawn("the line for the service manager", manager);
    announce(&app.site.snapshot());
    manager::ready();
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: finishing what is under way"),
            _ = interrupt.recv() => tracing::info!("SIGINT: finishing what is under way"),
        }
    };
    let outcome = services.run(stop).await;
    if let Err(fault) = &outcome {
        tracing::error!("{fault}");
    }
    manager::stopping();
    shutdown.cancel();
    if !services.drain(DRAIN).await {
        tracing::warn!(
            "some transfers did not finish within {} s and are cut off",
            DRAIN.as_secs()
        );
    }
    outcome
}

/// The certificate was told of when it was loaded, and that may be a year ago.
fn remind_of_certificate(app: &App, services: &mut Services, shutdown: &CancellationToken) {
    let site = app.site.clone();
    let warning = move || site.snapshot().tls.as_ref()?.warning(Timestamp::now());
    let say = |warning: &str| tracing::warn!("{warning}");
    let reminding = reminder::remind(reminder::DAILY, warning, say, shutdown.clone());
    services.spawn("the certificate's reminder", reminding);
}

/// Without its writer no lease is given: that is no daemon that goes on serving.
fn watch_journal(app: &App, services: &mut Services, shutdown: &CancellationToken) {
    let (site, shutdown) = (app.site.clone(), shutdown.clone());
    let watching = async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = site.journal.ended() => {}
        }
    };
    services.spawn("the writer of the lease journal", watching);
}

/// The line that scripts wait for.
fn announce(snapshot: &Snapshot) {
    let (files, bytes) = snapshot.assets.size();
    let hosts = snapshot.inventory.hosts.len();
    tracing::info!(
        "{hosts} hosts listed; {files} boot files, {} MiB, in memory",
        bytes >> 20
    );
    tracing::info!("bridgehead: ready");
}
