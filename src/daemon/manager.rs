//! What a service manager is told (sd_notify(3)): that everything is bound, that the files are read anew, that it ends,
//! that it lives, and in a line how the hosts stand. Where none asks (`NOTIFY_SOCKET`), nothing is said.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sd_notify::{NotifyState, watchdog_enabled};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::notify::Notifier;
use crate::http::App;
use crate::policy::progress::Standing;
use crate::site::report::MachineStatus;
use crate::site::{NOT_SERVED, ReloadState, Site, Tally};

/// How often it is looked whether the line has changed, and what the manager has not taken is tried again.
const LOOK: Duration = Duration::from_secs(2);
/// How long the end waits for a manager that does not read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The manager takes 4096 bytes in all (systemd, `NOTIFY_BUFFER_MAX`), and a terminal less; characters.
const MAX_TROUBLE: usize = 200;
/// For so long a time of day says when something was.
const DAY: SignedDuration = SignedDuration::from_hours(20);

/// The process has one manager or none.
static MANAGER: LazyLock<Option<Mutex<Notifier>>> =
    LazyLock::new(|| Notifier::of_environment().map(Mutex::new));

fn with_manager(speak: impl FnOnce(&mut Notifier)) {
    if let Some(manager) = &*MANAGER {
        speak(&mut manager.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Tells it, if there is one, and never waits: what it does not take now is tried again by [`run`].
fn tell(states: &[NotifyState<'_>]) {
    with_manager(|manager| {
        manager.put(states);
        manager.send(None);
    });
}

/// What the start is at, which may take a while.
pub(super) fn starting(at: &str) {
    tell(&[NotifyState::Status(at)]);
}

/// Every socket is bound, or the files have been read again.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The files are read again, because somebody asked for it; [`ready`] must follow whatever comes of it.
pub(super) fn reloading() {
    // From systemd 253 on a manager waits for ever for a reload that does not say when it began.
    let now = NotifyState::monotonic_usec_now().ok();
    let states: Vec<_> = [NotifyState::Reloading].into_iter().chain(now).collect();
    tell(&states);
}

/// What is under way is finished.
pub(super) fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing what is under way"),
    ]);
}

/// It could not start, or had to end.
pub(super) fn failed(why: &str) {
    tell(&[NotifyState::Status(&first_line(why))]);
}

/// What it has not been told yet, before the process ends.
pub(super) fn last_words() {
    with_manager(|manager| manager.send(Some(Instant::now() + LAST_WORDS)));
}

/// Keeps the line true until `shutdown`, and proves that the daemon lives: by the runtime that serves, and the locks that
/// every answer takes.
pub(super) async fn run(app: App, shutdown: CancellationToken) {
    if MANAGER.is_none() {
        return shutdown.cancelled().await;
    }
    let mut look = every(LOOK);
    let limit = watchdog_enabled().filter(|limit| !limit.is_zero());
    let mut ping = limit.map(|limit| every(limit / 2));
    let mut told = String::new();
    loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => false,
            () = tick(ping.as_mut()) => true,
        };
        let line = status(&app.site, &app.reload, Timestamp::now());
        with_manager(|manager| {
            if line != told {
                manager.put(&[NotifyState::Status(&line)]);
            }
            if asked {
                manager.put(&[NotifyState::Watchdog]);
            }
            manager.send(None);
        });
        told = line;
    }
}

fn every(period: Duration) -> Interval {
    let mut every = tokio::time::interval(period);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}

/// Never, where nobody asks.
async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// Takes the locks of the leases and the timeline on its way.
fn status(site: &Arc<Site>, reload: &ReloadState, now: Timestamp) -> String {
    drop(site.leases());
    let mut wrong: Vec<_> = site
        .troubles()
        .iter()
        .map(|trouble| first_line(&trouble.message))
        .collect();
    if reload.refused().is_some() {
        wrong.push(format!("{NOT_SERVED}: bridgehead status"));
    }
    words(&wrong, &site.tally(now), now)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MAX_TROUBLE) {
        None => line.to_owned(),
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// What is wrong with the daemon itself, and then how the hosts stand.
fn words(wrong: &[String], tally: &Tally, now: Timestamp) -> String {
    let hosts = hosts(tally, now);
    match wrong {
        [] => hosts,
        [one] => format!("{one} | {hosts}"),
        [first, more @ ..] => format!(
            "{first} (and {} more: bridgehead status) | {hosts}",
            more.len()
        ),
    }
}

/// `212 hosts: 1 stalled (r1n07 at loader since 14:02 UTC), 211 done: bridgehead why r1n07`
fn hosts(tally: &Tally, now: Timestamp) -> String {
    let all: usize = tally.standings.values().sum();
    let first = tally.first.as_ref();
    if all == 0 {
        return "no host is listed yet: bridgehead discover list".to_owned();
    }
    let part = |standing: Standing| {
        let hosts = tally.standings.get(&standing)?;
        let named = first.filter(|first| first.state == standing.name());
        let named = named.map(|first| format!(" ({})", place(first, now)));
        Some(format!(
            "{hosts} {}{}",
            standing.name(),
            named.unwrap_or_default()
        ))
    };
    let sum = Standing::sum(all, part);
    let look = tally.standings.iter();
    let look = look.filter(|(standing, _)| standing.needs_a_look());
    match (first, look.map(|(_, hosts)| hosts).sum::<usize>()) {
        (Some(first), ..=1) => format!("{sum}: bridgehead why {}", first.host),
        (Some(first), _) => format!(
            "{sum}: bridgehead why {}, bridgehead status --trouble",
            first.host
        ),
        (None, _) => sum,
    }
}

/// Which machine, where, and since when: a time stays true, and an age would have to be told anew each second.
fn place(machine: &MachineStatus, now: Timestamp) -> String {
    let mut words = machine.host.clone();
    if let Some(stage) = &machine.stage {
        words += &format!(" at {stage}");
    }
    if let Some(since) = machine.since {
        let format = match now.duration_since(since) < DAY {
            true => " since %H:%M UTC",
            false => " since %Y-%m-%d",
        };
        words += &since.strftime(format).to_string();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_269_733;

    fn machine(host: &str, state: Standing, ago: i64) -> MachineStatus {
        MachineStatus {
            host: host.into(),
            stage: Some("loader".into()),
            state: state.name().into(),
            since: Timestamp::from_second(NOW - ago).ok(),
            ..MachineStatus::default()
        }
    }

    fn line<const N: usize>(
        wrong: &[&str],
        standings: [(Standing, usize); N],
        first: Option<MachineStatus>,
    ) -> String {
        let standings = standings.into();
        let wrong: Vec<_> = wrong.iter().map(|one| first_line(one)).collect();
        let now = Timestamp::from_second(NOW).unwrap();
        words(&wrong, &Tally { standings, first }, now)
    }

    #[test]
    fn a_line_says_how_the_hosts_stand_and_what_to_ask_next() {
        use Standing::{Done, Failed, Running, Stalled};
        let lines = [
            line(&[], [], None),
            line(&[], [(Done, 1)], None),
            line(&[], [(Running, 21), (Done, 289)], None),
            line(
                &[],
                [(Running, 3), (Done, 208), (Stalled, 1)],
                Some(machine("r1n07", Stalled, 92)),
            ),
            line(
                &[],
                [(Failed, 1), (Done, 208), (Stalled, 2)],
                Some(machine("r1n03", Failed, 200_000)),
            ),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        no host is listed yet: bridgehead discover list
        1 host: 1 done
        310 hosts: 289 done, 21 running
        212 hosts: 1 stalled (r1n07 at loader since 14:00 UTC), 208 done, 3 running: bridgehead why r1n07
        211 hosts: 2 stalled, 1 failed (r1n03 at loader since 2026-11-19), 208 done: bridgehead why r1n03, bridgehead status --trouble
        ");
    }

    #[test]
    fn what_is_wrong_with_the_daemon_itself_comes_first_and_stays_a_line() {
        let down = "eno2 is down, and nobody is served on it: `ip link set eno2 up`\nmore";
        let one = line(&[down], [(Standing::Done, 2)], None);
        assert_eq!(
            one,
            "eno2 is down, and nobody is served on it: `ip link set eno2 up` | 2 hosts: 2 done"
        );
        let two = line(&[down, NOT_SERVED], [], None);
        assert!(
            two.contains("up` (and 1 more: bridgehead status) | no host"),
            "{two}"
        );
        let long = line(&[&"ä".repeat(5000)], [], None);
        assert!(long.chars().count() < 300, "{long}");
    }
}
