//! Reload: on SIGHUP, and when a file has changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::assets::Fingerprint;
use crate::http::App;
use crate::inventory::model::{Inventory, RootSource};
use crate::nfs;
use crate::site::{Paths, Snapshot};

/// How often the files are looked at. Asking their state works on every file system and
/// with every editor's way of saving, and costs some twenty `stat` calls.
const LOOK: Duration = Duration::from_secs(1);
/// How soon an edit that was refused is tried again though it has not changed.
const RETRY: Duration = Duration::from_secs(5);

/// The roots that profiles name and this daemon exports, with their directories.
pub(super) fn embedded_roots(inventory: &Inventory, data: &Path) -> Vec<(String, PathBuf)> {
    let profiles = inventory
        .profiles
        .values()
        .chain(inventory.hosts.values().map(|host| &host.profile));
    let names: BTreeSet<&String> = profiles
        .filter_map(|profile| match &profile.root.source {
            RootSource::Embedded { name } => Some(name),
            RootSource::External { .. } => None,
        })
        .collect();
    names
        .into_iter()
        .map(|name| (name.clone(), data.join("roots").join(name)))
        .collect()
}

/// An edit that was not served.
struct Refused {
    seen: Vec<Option<Fingerprint>>,
    at: Instant,
}

/// Watches the operator's files and serves what they say, or the last good state.
pub(super) struct Reloader {
    paths: Paths,
    app: App,
    exports: nfs::Exports,
    roots: Vec<(String, PathBuf, Option<PathBuf>)>,
}

impl Reloader {
    pub(super) fn new(paths: Paths, app: App, exports: nfs::Exports) -> Self {
        let roots = targets(&app.site.snapshot().inventory, &paths.data);
        Self {
            paths,
            app,
            exports,
            roots,
        }
    }

    pub(super) async fn run(mut self, mut hangup: Signal, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused: Option<Refused> = None;
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = hangup.recv() => true,
                _ = look.tick() => false,
            };
            let seen = self.fingerprint();
            // The same edit is tried again now and then: a file that it names may be there by now.
            let wait = refused
                .as_ref()
                .is_some_and(|r| r.seen == seen && r.at.elapsed() < RETRY);
            if asked || (!wait && self.app.site.snapshot().stale(&self.paths)) {
                let served = self.reload(asked).await;
                refused = (!served).then(|| Refused {
                    seen,
                    at: Instant::now(),
                });
            }
        }
    }

    fn fingerprint(&self) -> Vec<Option<Fingerprint>> {
        Snapshot::watched_files(&self.paths)
            .iter()
            .map(|path| Fingerprint::of(path))
            .collect()
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
                if !warnings.is_empty() {
                    tracing::warn!("\n{}", warnings.to_text(false));
                }
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
        let summary = summary(&self.app.site.snapshot().inventory, &snapshot.inventory);
        self.rescan_roots(&snapshot.inventory, asked).await;
        self.app.site.replace(snapshot);
        self.app.reload.accept();
        tracing::info!("reloaded: {summary}");
        true
    }

    /// Indexes the roots anew where the list changed, a link points elsewhere, or the
    /// operator asked.
    async fn rescan_roots(&mut self, inventory: &Inventory, asked: bool) {
        let now = targets(inventory, &self.paths.data);
        if now == self.roots && !asked {
            return;
        }
        let roots = embedded_roots(inventory, &self.paths.data);
        let exports = self.exports.clone();
        let scanned = tokio::task::spawn_blocking(move || exports.replace(&roots)).await;
        match scanned {
            Ok(Ok(())) => self.roots = now,
            Ok(Err(faults)) => {
                tracing::error!("the last good index of these roots goes on serving: {faults}")
            }
            Err(panic) => tracing::error!("cannot index the roots anew: {panic}"),
        }
    }
}

/// The roots and what their links point to.
fn targets(inventory: &Inventory, data: &Path) -> Vec<(String, PathBuf, Option<PathBuf>)> {
    let roots = embedded_roots(inventory, data).into_iter();
    roots
        .map(|(name, path)| (name, path.clone(), path.canonicalize().ok()))
        .collect()
}

fn summary(old: &Inventory, new: &Inventory) -> String {
    let added = new
        .hosts
        .keys()
        .filter(|name| !old.hosts.contains_key(*name))
        .count();
    let removed = old
        .hosts
        .keys()
        .filter(|name| !new.hosts.contains_key(*name))
        .count();
    let same = |name: &String| old.hosts.get(name) == new.hosts.get(name);
    let changed = new
        .hosts
        .keys()
        .filter(|name| old.hosts.contains_key(*name) && !same(name))
        .count();
    format!(
        "{} hosts; {added} added, {removed} removed, {changed} changed; changes apply at the next boot",
        new.hosts.len()
    )
}
