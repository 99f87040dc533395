//! Reload: on SIGHUP, and when a file has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::bindings::{self, Bound};
use super::kept::Keeping;
use super::roots::Roots;
use super::state;
use super::{manager, own};
use crate::assets::Fingerprint;
use crate::diagnostic::Diagnostics;
use crate::http::App;
use crate::inventory::model::{Host, Inventory};
use crate::inventory::outline::{Change, Changes, Fate};
use crate::site::{Paths, Snapshot};

/// How often the files are looked at. Asking their state works on every file system and
/// with every editor's way of saving, and costs some twenty `stat` calls.
const LOOK: Duration = Duration::from_secs(1);
/// How soon an edit that was refused is tried again though it has not changed.
const RETRY: Duration = Duration::from_secs(5);

/// Changes that a reload tells one by one.
const TOLD: usize = 20;

/// An edit that was not served.
struct Refused {
    seen: Vec<Option<Fingerprint>>,
    at: Instant,
    /// Whether the files differed from those served; asked by a signal, a reload needs no edit.
    edited: bool,
}

/// Watches the operator's files and serves what they say, or the last good state.
pub(super) struct Reloader {
    paths: Paths,
    state: PathBuf,
    app: App,
    /// Interfaces that the command line names.
    named: Vec<String>,
    bound: Bound,
    /// `None` only while they are read.
    roots: Option<Roots>,
    /// Warnings of the inventory that the log has; each edit has those that nobody minds again.
    warned: Vec<String>,
    keeping: Keeping,
}

impl Reloader {
    pub(super) fn new(
        options: &Options,
        app: App,
        roots: Roots,
        bound: Bound,
        keeping: Keeping,
    ) -> Self {
        Self {
            paths: options.paths.clone(),
            state: options.state.clone(),
            named: options.interfaces.clone(),
            app,
            bound,
            roots: Some(roots),
            warned: Vec::new(),
            keeping,
        }
    }

    pub(super) async fn run(mut self, mut hangup: Signal, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused: Option<Refused> = None;
        self.tidy();
        self.keeping.keep(&self.app.site).await;
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = hangup.recv() => true,
                _ = look.tick() => false,
                () = self.app.site.enrolment.written.notified() => false,
            };
            self.app.site.unpin();
            if self.keeping.is_due() {
                self.keeping.keep(&self.app.site).await;
            }
            let seen = self.fingerprint();
            // The same edit is tried again now and then: a file that it names may be there by now.
            let wait = refused
                .as_ref()
                .is_some_and(|r| r.seen == seen && r.at.elapsed() < RETRY);
            let edited = (asked || !wait) && self.app.site.snapshot().stale(&self.paths);
            if asked || edited {
                state::read_tokens(&self.state, &self.app.tokens);
                if asked {
                    manager::reloading();
                }
                let served = self.reload(asked).await;
                if asked {
                    manager::ready();
                }
                refused = (!served).then(|| Refused {
                    seen,
                    at: Instant::now(),
                    edited,
                });
                if served {
                    self.keeping.keep(&self.app.site).await;
                }
            } else if !wait && refused.take_if(|refused| refused.edited).is_some() {
                tracing::info!("the refused edit was undone: what is served is what the files say");
                self.app.reload.undone();
            }
        }
    }

    fn fingerprint(&self) -> Vec<Option<Fingerprint>> {
        self.app.site.snapshot().fingerprints_now(&self.paths)
    }

    fn warn_of_new(&mut self, warnings: &Diagnostics) {
        let messages: Vec<_> = warnings.iter().map(|one| one.message.clone()).collect();
        if messages
            .iter()
            .any(|message| !self.warned.contains(message))
        {
            warn(warnings);
        }
        self.warned = messages;
    }

    fn refuse(&self, why: String) {
        if self.app.reload.refused().as_ref() != Some(&why) {
            tracing::error!("reload refused, the last good inventory goes on serving:\n{why}");
        }
        self.app.reload.refuse(why);
    }

    async fn reload(&mut self, asked: bool) -> bool {
        let (paths, site) = (self.paths.clone(), self.app.site.clone());
        // Reads and hashes files: not on the runtime's own threads.
        let loaded =
            tokio::task::spawn_blocking(move || Snapshot::load(&paths, Some(&site.snapshot())))
                .await;
        let snapshot = match loaded {
            Ok(Ok((snapshot, warnings))) => {
                self.warn_of_new(&warnings);
                snapshot
            }
            Ok(Err(found)) => {
                self.refuse(found.to_string());
                return false;
            }
            Err(panic) => {
                self.refuse(format!("our own fault: {panic}"));
                return false;
            }
        };
        let moved = moved_ports(&self.app.site.snapshot().inventory, &snapshot.inventory);
        if let Some(why) = moved.or_else(|| self.unbound(&snapshot.inventory)) {
            self.refuse(why);
            return false;
        }
        let snapshot = Arc::new(snapshot);
        if let Err(why) = self.follow_roots(snapshot.clone(), asked).await {
            self.refuse(why);
            return false;
        }
        own::warn(&snapshot.inventory);
        if let Some(lost) = lost_macs(&self.app.site.snapshot().inventory, &snapshot.inventory) {
            tracing::warn!("{lost}");
        }
        let changes = self.changes(snapshot.clone()).await;
        self.app.site.replace(snapshot, &changes);
        self.app.reload.accept();
        tracing::info!("{}", told("reloaded", &changes));
        self.tidy();
        true
    }

    /// Removes what hosts said that are no more. Nothing waits for it.
    fn tidy(&self) {
        let (site, consoles) = (self.app.site.clone(), self.app.consoles.clone());
        tokio::task::spawn_blocking(move || {
            let snapshot = site.snapshot();
            consoles.tidy(|host| snapshot.inventory.hosts.contains_key(host));
        });
    }

    /// What differs from what is served; texts of 10,000 hosts are not for the runtime's threads.
    async fn changes(&self, snapshot: Arc<Snapshot>) -> Changes {
        let site = self.app.site.clone();
        let compare = move || {
            let served = site.outline(Timestamp::now());
            served.changes(&snapshot.inventory.outline())
        };
        let compared = tokio::task::spawn_blocking(compare).await;
        compared.unwrap_or_default()
    }

    /// Why the sockets that the start bound don't do for an inventory.
    fn unbound(&self, new: &Inventory) -> Option<String> {
        let now = |inventory: &Inventory| bindings::needs(&self.named, inventory);
        // Where the machine lost its addresses, the edit is not to blame.
        let before = now(&self.app.site.snapshot().inventory).ok()?;
        match now(new) {
            Ok(after) => self.bound.lacks(&before, &after),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Exports the new inventory's roots as well, before hosts are told to mount them.
    async fn follow_roots(&mut self, snapshot: Arc<Snapshot>, asked: bool) -> Result<(), String> {
        let Some(mut roots) = self.roots.take() else {
            return Err("our own fault: the roots were lost in an earlier reload".into());
        };
        let followed = tokio::task::spawn_blocking(move || {
            let outcome = roots.follow(&snapshot, asked);
            (roots, outcome)
        });
        let (roots, outcome) = followed.await.map_err(|panic| panic.to_string())?;
        self.roots = Some(roots);
        outcome.map_err(|why| format!("a root can't be exported: {why}"))
    }
}

/// The inventory is served all the same.
pub(super) fn warn(warnings: &Diagnostics) {
    let (summary, text) = (warnings.summary(), warnings.to_text(false));
    tracing::warn!("the inventory is served, with {summary}:\n{text}");
}

/// The hosts named of those that lost something.
const MOST_NAMED: usize = 10;

/// In words, which hosts had a MAC and have none: enrolment wrote it, maybe, and the file came from elsewhere since.
fn lost_macs(old: &Inventory, new: &Inventory) -> Option<String> {
    let lost = |host: &&Arc<Host>| {
        let before = old.hosts.get(&host.name);
        host.macs.is_empty() && before.is_some_and(|before| !before.macs.is_empty())
    };
    let mut names: Vec<_> = new
        .hosts
        .values()
        .filter(lost)
        .map(|host| &host.name)
        .collect();
    names.sort();
    let words = |name: &&String| {
        let mac = old.hosts.get(*name)?.first_mac()?;
        Some(format!("{name} ({mac})"))
    };
    let told: Vec<_> = names.into_iter().filter_map(|name| words(&name)).collect();
    (!told.is_empty()).then(|| {
        format!(
            "{} lost its `mac` by this edit, and waits for hardware now: another machine may become it once it is silent. Did the file come from a copy that lacks what was written here since? Write it back, `bridgehead hosts set NAME mac=…`",
            some(&told)
        )
    })
}

/// Sockets stay where they are until a restart, and hosts have their root by them.
fn moved_ports(old: &Inventory, new: &Inventory) -> Option<String> {
    let ports = |inventory: &Inventory| {
        let server = &inventory.server;
        let tls = server.tls.as_ref().map(|tls| tls.port);
        (
            server.http_port,
            server.nfs_port,
            server.tftp_port,
            server.syslog_port,
            server.api_port,
            tls,
        )
    };
    (ports(old) != ports(new)).then(|| {
        "the ports under `server:` changed: restart the daemon, a reload can't move it".to_owned()
    })
}

/// What changed. A file that is saved as it was, or a boot file, is told too: it is served.
fn told(what: &str, changes: &Changes) -> String {
    let lines = changes.lines(TOLD);
    let lines = lines.trim_end();
    let summary = changes.summary();
    match lines.is_empty() {
        true => format!("{what}: {summary} in the inventory"),
        false => format!("{what}: {summary}\n{lines}"),
    }
}

/// What changed while no daemon ran; where hosts went, what was served before stays in the file `old`.
pub(super) fn tell_of_start(changes: &Changes, old: &Path) {
    let told = told("edited since it was served last", changes);
    let gone = |change: &&Change| change.kind == "host" && change.fate == Fate::Removed;
    let gone = changes.changes.iter().filter(gone);
    let gone: Vec<_> = gone.map(|change| change.name.clone()).collect();
    match gone.is_empty() {
        true => tracing::info!("{told}"),
        false => tracing::warn!(
            "{told}\nno hosts any more: {}. Was the file cut short? What was served before is kept in {}",
            some(&gone),
            old.display()
        ),
    }
}

/// The first of these, and how many more there are.
fn some(names: &[String]) -> String {
    let told: Vec<_> = names.iter().take(MOST_NAMED).map(String::as_str).collect();
    match names.len().saturating_sub(MOST_NAMED) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}
