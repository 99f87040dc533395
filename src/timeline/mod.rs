//! Boot events on disk and in memory, folded into where every machine stands.

mod clock;
mod consoles;
mod limits;
mod log;
mod machines;
mod tokens;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::metrics::{BootResult, TimelineMetrics};
use crate::policy::client::Asker;
use crate::policy::event::{AttemptId, BootEvent, Evidence, MachineId, Stage, StageState};
use crate::policy::moving::Moving;
use crate::policy::progress::{Attempt, Machine};
use crate::wire::text::clean;

use clock::WallClock;
pub use consoles::{Consoles, SyslogLine};
use limits::Second;
pub use log::{EventLog, Source};
use machines::{Begun, essence, fold};
pub use tokens::{TokenKind, Tokens};

/// A message is cut to this, characters.
const MAX_MESSAGE: usize = 600;
/// Followers may lag this far before they must ask for the whole again.
const FOLLOWERS: usize = 1024;
/// The timeline can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct TimelineError {
    /// What was tried.
    pub operation: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Why a host's report was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing of this host has been seen.
    #[error("no boot attempt of this host is known; power it on anew")]
    NoAttempt,
    /// Neither of the attempt's tokens.
    #[error("the token is not that of the host's newest boot attempt")]
    WrongToken,
    /// The boot token came after the report token was used.
    #[error(
        "the boot token is spent: the host has its configuration and speaks with its report token"
    )]
    BootTokenSpent,
    /// *Joined* can be reported once.
    #[error("this boot attempt has already joined")]
    AlreadyJoined,
}

struct Inner {
    machines: BTreeMap<MachineId, Machine>,
    /// Attempts that ever began.
    begun: Begun,
    log: EventLog,
    second: Second,
    suppressed: u64,
    clock: WallClock,
}

/// The record of what happened, shared by every part of the daemon.
#[derive(Debug)]
pub struct Timeline {
    inner: Mutex<Inner>,
    followers: broadcast::Sender<BootEvent>,
    tokens: Tokens,
    metrics: TimelineMetrics,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("machines", &self.machines.len())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn fold(&mut self, event: BootEvent) {
        let Self {
            machines, begun, ..
        } = self;
        fold(machines, begun, event);
    }
}

impl Timeline {
    /// Opens the log in the state directory and folds what it holds.
    ///
    /// # Errors
    /// [`TimelineError`] if the log or the token key can't be read or written.
    pub fn open(state: &Path) -> Result<Self, TimelineError> {
        let tokens = Tokens::open(state)?;
        let (mut machines, mut begun) = (BTreeMap::new(), Begun::default());
        let log = EventLog::open(state, |source, event| {
            begun.reads(source);
            fold(&mut machines, &mut begun, event);
        })?;
        begun.reads(Source::Newer);
        let inner = Inner {
            machines,
            begun,
            log,
            second: Second::default(),
            suppressed: 0,
            clock: WallClock::start(),
        };
        Ok(Self {
            inner: Mutex::new(inner),
            followers: broadcast::channel(FOLLOWERS).0,
            tokens,
            metrics: TimelineMetrics::default(),
        })
    }

    /// The same, counting in `metrics`.
    #[must_use]
    pub fn counting(self, metrics: TimelineMetrics) -> Self {
        Self { metrics, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while folding leaves whole events behind, so the state can go on.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = inner.clock.look() {
            let event = clock::event(set, Timestamp::now());
            tracing::warn!("{}", event.message);
            self.keep(&mut inner, &event);
            inner.fold(event.clone());
            // Nobody may be following.
            let _ = self.followers.send(event);
        }
        inner
    }

    /// Takes an event in: memory, disk, followers.
    pub fn record(&self, mut event: BootEvent) {
        // File names and reports come from the wire, and end on terminals.
        event.message = clean(&event.message, MAX_MESSAGE);
        let mut inner = self.lock();
        if event.is_cheap() && !inner.has_room(&event.machine) && !inner.admit_ignored(event.at) {
            self.metrics.suppressed.inc();
            return;
        }
        self.metrics.events.of(event.state).inc();
        self.count_end(&inner, &event);
        if inner.is_written(&event) {
            self.write(&mut inner, &event);
        } else {
            self.metrics.suppressed.inc();
        }
        inner.fold(event.clone());
        // Nobody may be following.
        let _ = self.followers.send(event);
    }

    /// Takes in how far a file is that a machine fetches, which is kept in memory alone.
    pub fn fetches(&self, machine: &MachineId, moving: Moving) {
        if let Some(machine) = self.lock().machines.get_mut(machine) {
            machine.fetches(moving);
        }
    }

    /// The machine has shown the token of this boot: a newer one in its name was never real, after a restart neither.
    pub fn proves(&self, machine: &MachineId, attempt: &AttemptId, now: Timestamp) {
        let newer = |known: &Machine| known.is_disproved_by(attempt);
        let disproves = self.lock().machines.get(machine).is_some_and(newer);
        if disproves {
            let (stage, state) = (Stage::Inventory, StageState::Info);
            let message = "it waits on: a DISCOVER in its name was not its own".to_owned();
            let mut event = BootEvent::sent(now, machine.clone(), stage, state, message);
            event.attempt = Some(attempt.clone());
            event.evidence = Evidence::Reported;
            self.record(event);
        }
    }

    /// Disk, and the daemon's own log.
    fn write(&self, inner: &mut Inner, event: &BootEvent) {
        if event.state == StageState::Ignored {
            tracing::debug!(machine = %event.machine, "{}", event.message);
        } else {
            tracing::info!(machine = %event.machine, stage = %event.stage, state = event.state.name(), "{}", event.message);
        }
        self.keep(inner, event);
    }

    fn keep(&self, inner: &mut Inner, event: &BootEvent) {
        let Inner { machines, log, .. } = inner;
        if !log.append(event, || essence(machines)) {
            self.metrics.unwritten.inc();
        }
    }

    /// Counts the boot if the event is its end; a boot joins once and fails once, and may do both: a host that
    /// failed tries on.
    fn count_end(&self, inner: &Inner, event: &BootEvent) {
        let machine = inner.machines.get(&event.machine);
        let attempt = machine.and_then(|machine| match &event.attempt {
            Some(reported) => machine.believable().find(|known| known.id == *reported),
            None => machine.attempt(),
        });
        match (event.stage, event.state) {
            (Stage::Joined, StageState::Ok) => {
                if let Some(attempt) = attempt.filter(|attempt| attempt.joined.is_none()) {
                    let took = event.at.duration_since(attempt.began).as_secs_f64();
                    self.metrics.boots.of(BootResult::Joined).inc();
                    self.metrics.boot_duration.observe(took.max(0.0));
                    for (stage, took) in attempt.stages_took(event) {
                        let seconds = self.metrics.stage_duration.of(stage);
                        seconds.observe(took.as_secs_f64());
                    }
                }
            }
            // Outside any boot nothing fails to boot.
            (_, StageState::Fail) if attempt.is_some_and(|attempt| !attempt.failed) => {
                self.metrics.boots.of(BootResult::Failed).inc();
            }
            _ => {}
        }
    }

    /// Takes a DISCOVER's event in, which begins a boot attempt where the machine was just
    /// switched on.
    pub fn record_asking(&self, mut event: BootEvent, asker: Asker) {
        let begins = {
            let inner = self.lock();
            let machine = inner.machines.get(&event.machine);
            machine.map_or(asker != Asker::Other, |m| m.begins_attempt(asker, event.at))
        };
        if begins {
            event.begun_by = Some(asker);
            event.begins = Some(new_attempt(event.at));
        }
        self.record(event);
    }

    /// The newest attempt of a machine, begun now if there is none: the daemon's state
    /// may have been lost while the machine was booting.
    pub fn attempt(&self, machine: &MachineId, now: Timestamp) -> AttemptId {
        self.attempt_where(machine, now, |_| true)
    }

    /// The same for a loader's question on a network where nobody sees DISCOVERs (`dhcp: off`): it is the first that
    /// is heard of a boot.
    pub fn attempt_unseen(&self, machine: &MachineId, now: Timestamp) -> AttemptId {
        self.attempt_where(machine, now, |known| !known.is_over(now))
    }

    /// The attempt in which a machine goes on from `former`, one of `of` that nobody had listed: the newest, if it is
    /// no older than that (whatever the clock says), else one that begins now. None where that attempt's token is spent: the host has come up
    /// since, and whoever shows the former one's has read it there.
    pub fn attempt_following(
        &self,
        machine: &MachineId,
        (of, former): (&MachineId, &AttemptId),
        now: Timestamp,
    ) -> Option<AttemptId> {
        let inner = self.lock();
        let mut formers = inner.machines.get(of)?.attempts.iter();
        let since = formers.find(|known| known.id == *former)?.order;
        let newest = inner.machines.get(machine).and_then(Machine::attempt);
        let follows = newest.filter(|newest| newest.order > since);
        if follows.is_some_and(|newest| newest.claimed) {
            return None;
        }
        let goes_on = follows.is_some();
        drop(inner);
        Some(self.attempt_where(machine, now, |_| goes_on))
    }

    fn attempt_where(
        &self,
        machine: &MachineId,
        now: Timestamp,
        goes_on: impl FnOnce(&Machine) -> bool,
    ) -> AttemptId {
        let known = {
            let inner = self.lock();
            let known = inner.machines.get(machine).filter(|known| goes_on(known));
            known
                .and_then(Machine::attempt)
                .map(|attempt| attempt.id.clone())
        };
        known.unwrap_or_else(|| {
            let id = new_attempt(now);
            let message = "seen for the first time in this boot".to_owned();
            let mut event =
                BootEvent::sent(now, machine.clone(), Stage::Dhcp, StageState::Info, message);
            event.begins = Some(id.clone());
            self.record(event);
            id
        })
    }

    /// The boot token of an attempt, for its kernel command line.
    pub fn boot_token(&self, attempt: &AttemptId) -> String {
        self.tokens.token(TokenKind::Boot, attempt)
    }

    /// The report token of an attempt, for its configuration.
    pub fn report_token(&self, attempt: &AttemptId) -> String {
        self.tokens.token(TokenKind::Report, attempt)
    }

    /// Whether the token lets its bearer speak for the machine's newest attempt.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn authorize(
        &self,
        machine: &MachineId,
        token: &str,
    ) -> Result<(AttemptId, TokenKind), Refusal> {
        let inner = self.lock();
        let machine = inner.machines.get(machine).ok_or(Refusal::NoAttempt)?;
        machine.attempt().ok_or(Refusal::NoAttempt)?;
        let mut known = machine
            .believable()
            .filter_map(|attempt| Some((attempt, self.tokens.kind(token, &attempt.id)?)));
        match known.next() {
            Some((attempt, TokenKind::Boot)) if attempt.claimed => Err(Refusal::BootTokenSpent),
            Some((attempt, kind)) => Ok((attempt.id.clone(), kind)),
            None => Err(Refusal::WrongToken),
        }
    }

    /// Takes a host's own event in; *joined* is accepted once and with the report token alone.
    ///
    /// # Errors
    /// [`Refusal`] says why it was not taken.
    pub fn report(&self, mut event: BootEvent, token: &str) -> Result<(), Refusal> {
        let (attempt, kind) = self.authorize(&event.machine, token)?;
        if event.stage == Stage::Joined && event.state == StageState::Ok {
            if kind != TokenKind::Report {
                return Err(Refusal::WrongToken);
            }
            let joined = |m: &Machine| {
                m.believable()
                    .any(|a| a.id == attempt && a.joined.is_some())
            };
            if self.lock().machines.get(&event.machine).is_some_and(joined) {
                return Err(Refusal::AlreadyJoined);
            }
        }
        event.evidence = Evidence::Reported;
        event.attempt = Some(attempt);
        self.record(event);
        Ok(())
    }

    /// The entry of its menu that a machine took in this attempt.
    pub fn entry(&self, machine: &MachineId, attempt: &AttemptId) -> Option<String> {
        let inner = self.lock();
        let attempts = &inner.machines.get(machine)?.attempts;
        let attempt = attempts.iter().find(|known| known.id == *attempt)?;
        attempt.choice.as_ref().map(|choice| choice.entry.clone())
    }

    /// Whether the last that moved a machine on was this very event.
    pub fn is_at(&self, machine: &MachineId, stage: Stage, message: &str) -> bool {
        let inner = self.lock();
        let attempt = inner.machines.get(machine).and_then(Machine::attempt);
        let current = attempt.and_then(Attempt::current);
        current.is_some_and(|event| event.stage == stage && event.message == message)
    }

    /// A copy of what is known of a machine.
    pub fn machine(&self, id: &MachineId) -> Option<Machine> {
        self.lock().machines.get(id).cloned()
    }

    /// Reads all that is known, without a copy. Whoever records waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&BTreeMap<MachineId, Machine>) -> T) -> T {
        look(&self.lock().machines)
    }

    /// Why events are not on disk, if they are not.
    pub fn unwritten(&self) -> Option<String> {
        self.lock().log.fault()
    }

    /// Seconds a machine should hold before it reboots.
    pub fn hold_s(&self, machine: &MachineId) -> u32 {
        self.lock()
            .machines
            .get(machine)
            .map_or(60, |known| known.hold_s(machine))
    }

    /// Packets without an answer that were counted and not kept.
    pub fn suppressed(&self) -> u64 {
        self.lock().suppressed
    }

    /// Every event from now on.
    pub fn follow(&self) -> broadcast::Receiver<BootEvent> {
        self.followers.subscribe()
    }
}

fn new_attempt(at: Timestamp) -> AttemptId {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    let nanos = u32::try_from(at.subsec_nanosecond()).unwrap_or(0);
    let stamp = uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos);
    AttemptId(Uuid::new_v7(stamp).simple().to_string())
}

#[cfg(test)]
mod tests {
    use super::limits::{IGNORED_PER_BOOT, IGNORED_PER_SECOND, UNLISTED_PER_SECOND};
    use super::*;
    use crate::policy::event::ClockSet;
    use crate::policy::progress::Standing;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn host() -> MachineId {
        MachineId("kvm01".into())
    }

    fn event(second: i64, stage: Stage) -> BootEvent {
        BootEvent::sent(at(second), host(), stage, StageState::Ok, String::new())
    }

    #[test]
    fn joined_needs_the_report_token_once() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        assert_eq!(
            timeline.report(event(0, Stage::Joined), "x"),
            Err(Refusal::NoAttempt)
        );
        timeline.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
        let attempt = timeline.attempt(&host(), at(2));
        let (boot, report) = (
            timeline.boot_token(&attempt),
            timeline.report_token(&attempt),
        );
        assert_eq!(
            timeline.report(event(3, Stage::Joined), &boot),
            Err(Refusal::WrongToken)
        );
        assert_eq!(timeline.report(event(4, Stage::Bridge), &boot), Ok(()));
        assert_eq!(timeline.report(event(5, Stage::Identity), &report), Ok(()));
        assert_eq!(
            timeline.report(event(6, Stage::Root), &boot),
            Err(Refusal::BootTokenSpent)
        );
        assert_eq!(timeline.report(event(7, Stage::Joined), &report), Ok(()));
        assert_eq!(
            timeline.report(event(8, Stage::Joined), &report),
            Err(Refusal::AlreadyJoined)
        );
    }

    /// A machine that waited, and the attempt in which it goes on as `host`.
    fn waited(timeline: &Timeline, second: i64) -> (MachineId, AttemptId) {
        let id = MachineId("mac-3cecef000007".into());
        let mut asks = event(second, Stage::Dhcp);
        asks.machine = id.clone();
        timeline.record_asking(asks, Asker::PxeRom);
        let attempt = timeline.attempt(&id, at(second));
        (id, attempt)
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_spent_token_of_a_machine_that_waited_good_again() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        let (id, former) = waited(&timeline, 10_000);
        let goes_on = |timeline: &Timeline, second| {
            timeline.attempt_following(&host(), (&id, &former), at(second))
        };
        let attempt = goes_on(&timeline, 4000).unwrap();
        assert_eq!(
            goes_on(&timeline, 3000),
            Some(attempt.clone()),
            "it was lost"
        );
        let token = timeline.report_token(&attempt);
        timeline.report(event(3001, Stage::Root), &token).unwrap();
        for second in [0, 3002, 20_000] {
            assert_eq!(goes_on(&timeline, second), None);
        }
        drop(timeline);
        let timeline = Timeline::open(dir.path()).unwrap();
        assert_eq!(goes_on(&timeline, 3003), None, "after a restart");
        // The log goes round several times.
        let token = timeline.report_token(&former);
        let mut waits = event(3004, Stage::Inventory);
        waits.machine = id.clone();
        timeline.report(waits, &token).unwrap();
        timeline.lock().log.rotate_at = 20_000;
        let mut other = event(3005, Stage::Root);
        other.machine = MachineId("kvm02".into());
        (0..1000).for_each(|_| timeline.record(other.clone()));
        drop(timeline);
        let kept = std::fs::read_to_string(dir.path().join("events.old.jsonl")).unwrap();
        assert!(!kept.contains("kvm01"), "the log went round");
        let timeline = Timeline::open(dir.path()).unwrap();
        assert_eq!(goes_on(&timeline, 3006), None, "the log went round");
        assert_eq!(timeline.machine(&host()).unwrap().attempts.len(), 1);
    }

    #[test]
    fn a_host_that_joined_before_the_clock_was_set_back_holds_up_no_successor() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        timeline.record_asking(event(10_000, Stage::Dhcp), Asker::PxeRom);
        let old = timeline.attempt(&host(), at(10_000));
        let token = timeline.report_token(&old);
        timeline.report(event(10_001, Stage::Root), &token).unwrap();
        let (id, former) = waited(&timeline, 500);
        let next = timeline.attempt_following(&host(), (&id, &former), at(501));
        assert!(next.is_some_and(|next| next != old));
    }

    #[test]
    fn a_clock_that_was_set_makes_no_boot_late_and_keeps_their_order_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        timeline.record(event(900, Stage::Dhcp));
        timeline.record_asking(event(5_000, Stage::Dhcp), Asker::PxeRom);
        timeline.record(event(5_030, Stage::Loader));
        let set = ClockSet {
            since: at(4_000),
            until: at(5_040),
            ms: -3_600_000,
        };
        timeline.record(clock::event(set, at(1_440)));
        timeline.record(event(1_445, Stage::Script));
        let check = |timeline: &Timeline| {
            let machine = timeline.machine(&host()).unwrap();
            let attempt = machine.attempt().unwrap();
            let told: Vec<_> = attempt.events.iter().map(|e| e.at.as_second()).collect();
            assert_eq!(
                (told, attempt.began),
                (vec![1_400, 1_430, 1_445], at(1_400))
            );
            // What an earlier run told, by a clock of its own.
            assert_eq!(machine.strays[0].at, at(900));
            assert_eq!(machine.standing(at(1_500)), Standing::Running);
            assert_eq!(machine.standing(at(1_506)), Standing::Stalled);
        };
        check(&timeline);
        drop(timeline);
        check(&Timeline::open(dir.path()).unwrap());
    }

    #[test]
    fn a_step_of_the_clock_counts_once_though_the_log_goes_round() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        timeline.record_asking(event(5_000, Stage::Dhcp), Asker::PxeRom);
        timeline.record(event(5_030, Stage::Loader));
        let mut other = event(5_035, Stage::Root);
        other.machine = MachineId("kvm02".into());
        let goes_round = |at: i64| {
            let mut inner = timeline.lock();
            let full = inner.log.rotate_at;
            inner.log.rotate_at = 0;
            drop(inner);
            let mut other = other.clone();
            other.at = Timestamp::from_second(at).unwrap();
            timeline.record(other);
            timeline.lock().log.rotate_at = full;
        };
        goes_round(5_036);
        // Further back than where it is told from, so that a second time would move it again.
        let set = ClockSet {
            since: at(1_000),
            until: at(5_040),
            ms: -600_000,
        };
        timeline.record(clock::event(set, at(4_440)));
        let began = |timeline: &Timeline| {
            let machine = timeline.machine(&host()).unwrap();
            machine.attempt().unwrap().began
        };
        assert_eq!(began(&timeline), at(4_400));
        goes_round(4_441);
        assert_eq!(began(&timeline), at(4_400));
        drop(timeline);
        assert_eq!(began(&Timeline::open(dir.path()).unwrap()), at(4_400));
    }

    #[test]
    fn a_boot_fails_once_however_often_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        let boots = |result| timeline.metrics.boots.of(result).get();
        for attempt in 0..2 {
            let began = attempt * 1000;
            timeline.record_asking(event(began, Stage::Dhcp), Asker::PxeRom);
            let token = timeline.report_token(&timeline.attempt(&host(), at(began)));
            for stage in [Stage::Root, Stage::Rescue, Stage::Root] {
                let mut failed = event(began + 5, stage);
                failed.state = StageState::Fail;
                timeline.report(failed, &token).unwrap();
            }
        }
        assert_eq!(boots(BootResult::Failed), 2);
        assert_eq!(boots(BootResult::Joined), 0);
    }

    #[test]
    fn an_old_attempts_token_is_worth_nothing_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        timeline.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
        let old = timeline.report_token(&timeline.attempt(&host(), at(1)));
        timeline.record(event(2, Stage::Loader));
        timeline.record_asking(event(1000, Stage::Dhcp), Asker::PxeRom);
        let new = timeline.report_token(&timeline.attempt(&host(), at(1000)));
        // Until the new one is heard of, its DISCOVER may have been forged.
        assert!(timeline.authorize(&host(), &old).is_ok());
        timeline.report(event(1001, Stage::Identity), &new).unwrap();
        assert_eq!(timeline.authorize(&host(), &old), Err(Refusal::WrongToken));
    }

    #[test]
    fn a_flood_is_cut_and_the_boots_of_listed_hosts_keep_their_stories() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        let hosts = 0..100;
        let info = |machine: MachineId| {
            let (at, said) = (at(1), "said".to_owned());
            timeline.record(BootEvent::sent(
                at,
                machine,
                Stage::Config,
                StageState::Info,
                said,
            ));
        };
        for host in hosts.clone() {
            let mut began = event(1, Stage::Dhcp);
            began.machine = MachineId(format!("kvm{host}"));
            timeline.record_asking(began, Asker::PxeRom);
            (0..5).for_each(|_| info(MachineId(format!("kvm{host}"))));
        }
        assert_eq!(timeline.suppressed(), 0);
        let events = |name: &str| {
            let machine = timeline.machine(&MachineId(name.into())).unwrap();
            machine.attempt().unwrap().events.len()
        };
        assert!(
            hosts
                .into_iter()
                .all(|host| events(&format!("kvm{host}")) == 6)
        );
        // Who asks without an end is cut, whoever it says it is.
        (0..1000).for_each(|_| info(MachineId("kvm7".into())));
        (0..1000).for_each(|_| info(MachineId("mac-525400000009".into())));
        let kept = IGNORED_PER_BOOT - 5 + IGNORED_PER_SECOND as usize;
        assert_eq!(timeline.suppressed(), 2000 - kept as u64);
        assert_eq!(events("kvm7"), 6 + kept);
    }

    #[test]
    fn everything_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Timeline::open(dir.path()).unwrap();
        first.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
        let attempt = first.attempt(&host(), at(1));
        let token = first.report_token(&attempt);
        first.report(event(2, Stage::Identity), &token).unwrap();
        drop(first);
        let second = Timeline::open(dir.path()).unwrap();
        assert_eq!(second.attempt(&host(), at(3)), attempt);
        assert!(second.report(event(4, Stage::Joined), &token).is_ok());
    }

    /// The log goes round several times while a host that joined long ago says nothing.
    #[test]
    fn a_host_that_joined_long_ago_is_known_after_the_log_went_round_and_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Timeline::open(dir.path()).unwrap();
        first.lock().log.rotate_at = 20_000;
        first.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
        let attempt = first.attempt(&host(), at(1));
        let token = first.report_token(&attempt);
        for (second, stage) in [(2, Stage::Identity), (3, Stage::Root), (4, Stage::Joined)] {
            first.report(event(second, stage), &token).unwrap();
        }
        let mut failing = event(5, Stage::Dhcp);
        failing.machine = MachineId("kvm02".into());
        first.record_asking(failing.clone(), Asker::PxeRom);
        for second in 6..1000 {
            failing.at = at(second);
            failing.stage = Stage::Root;
            failing.state = StageState::Fail;
            first.record(failing.clone());
        }
        let failures = |timeline: &Timeline| timeline.machine(&failing.machine).unwrap().failures;
        let before = failures(&first);
        drop(first);
        let text = std::fs::read_to_string(dir.path().join("events.old.jsonl")).unwrap();
        assert!(!text.contains("kvm01"), "the log went round");
        let second = Timeline::open(dir.path()).unwrap();
        let machine = second.machine(&host()).unwrap();
        assert_eq!(machine.attempt().unwrap().id, attempt);
        assert_eq!(machine.attempt().unwrap().joined, Some(at(4)));
        assert_eq!(
            machine.standing(at(100_000)),
            crate::policy::progress::Standing::Done
        );
        // Its token is worth what it was: it has joined, and can say that it is no longer well.
        let again = second.report(event(1001, Stage::Joined), &token);
        assert_eq!(again, Err(Refusal::AlreadyJoined));
        let mut worse = event(1002, Stage::Pool);
        worse.state = StageState::Degraded;
        assert_eq!(second.report(worse, &token), Ok(()));
        // One attempt each, and no failure that never was.
        assert_eq!(second.machine(&host()).unwrap().attempts.len(), 1);
        assert_eq!(second.machine(&failing.machine).unwrap().attempts.len(), 1);
        assert!(failures(&second) <= before);
    }

    #[test]
    fn where_nobody_sees_the_firmware_each_boot_is_an_attempt_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        let first = timeline.attempt_unseen(&host(), at(1));
        // GRUB asks for its script again and again.
        assert_eq!(timeline.attempt_unseen(&host(), at(2)), first);
        let token = timeline.report_token(&first);
        timeline.report(event(3, Stage::Identity), &token).unwrap();
        timeline.report(event(9, Stage::Joined), &token).unwrap();
        let second = timeline.attempt_unseen(&host(), at(1000));
        assert_ne!(second, first);
        let token = timeline.report_token(&second);
        timeline
            .report(event(1009, Stage::Identity), &token)
            .unwrap();
        assert_eq!(timeline.report(event(1010, Stage::Joined), &token), Ok(()));
        assert_eq!(timeline.machine(&host()).unwrap().attempts.len(), 2);
    }

    #[test]
    fn invented_machines_do_not_push_hosts_out_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(dir.path()).unwrap();
        for index in 0..1000_u32 {
            let [_, a, b, c] = index.to_be_bytes();
            let mac = crate::inventory::model::MacAddr([2, 0, 0, a, b, c]);
            let mut invented = event(7, Stage::Dhcp);
            invented.machine = MachineId::unlisted(mac);
            timeline.record(invented);
        }
        timeline.record(event(7, Stage::Dhcp));
        let log = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
        assert_eq!(log.lines().count(), UNLISTED_PER_SECOND as usize + 1);
        assert_eq!(timeline.read(BTreeMap::len), 1001);
    }
}
