//! Boot events on disk and in memory, folded into where every machine stands.

mod attempts;
mod clock;
mod consoles;
mod limits;
mod log;
mod machines;
mod tokens;
mod told;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::metrics::{BootResult, TimelineMetrics};
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
pub use told::{FIELDS, TARGET};

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

    /// The machine's newest attempt.
    fn newest(&self, machine: &MachineId) -> Option<AttemptId> {
        let attempt = self.machines.get(machine).and_then(Machine::attempt);
        attempt.map(|attempt| attempt.id.clone())
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
        let lock = || self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = lock();
        let Some(set) = inner.clock.look() else {
            return inner;
        };
        let event = clock::event(set, Timestamp::now());
        self.keep(&mut inner, &event);
        inner.fold(event.clone());
        // Nobody may be following.
        let _ = self.followers.send(event.clone());
        drop(inner);
        tracing::warn!("{}", event.message);
        lock()
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
        let written = inner.is_written(&event);
        let newest = inner.newest(&event.machine);
        if written {
            self.keep(&mut inner, &event);
        } else {
            self.metrics.suppressed.inc();
        }
        inner.fold(event.clone());
        // Nobody may be following.
        let _ = self.followers.send(event.clone());
        // Whoever keeps the log may not read just now; nobody else waits for that.
        drop(inner);
        if written {
            told::log(&event, newest.as_ref());
        }
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

#[cfg(test)]
mod tests;
