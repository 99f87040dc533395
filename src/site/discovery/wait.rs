//! How a machine stands that was told to wait.

use jiff::{SignedDuration, Timestamp};

use crate::policy::discovered::Discovered;
use crate::policy::event::Stage;
use crate::policy::progress::Standing;
use crate::site::report::MachineStatus;
use crate::span::span;

/// A machine that was told to wait so recently is waiting still, seconds: GRUB's restarts the machine each minute,
/// and a server's firmware takes some.
const WAITS_S: i64 = 300;

/// Whether a machine that was told so then waits still.
pub(super) fn waits(held: Timestamp, now: Timestamp) -> bool {
    now.as_second() - held.as_second() < WAITS_S
}

/// How a machine stands that was told to wait: it asks again now and then, and until it is late with that nothing is
/// wrong. `status` and `why` tell the same of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::site) struct Wait {
    at_loader: bool,
    held: Timestamp,
    /// How long it has been silent, seconds, where that is too long.
    silent_s: Option<i64>,
}

impl Wait {
    /// Of a machine whose newest boot is in this stage: one that was switched on anew came less far.
    pub(super) fn of(found: &Discovered, stage: Option<&str>, now: Timestamp) -> Option<Self> {
        let at_loader = stage == Some(Stage::Script.name());
        let told = found.hardware.is_some() || at_loader;
        let held = found.held.filter(|_| told)?;
        let silent_s = now.as_second() - held.as_second();
        Some(Self {
            at_loader,
            held,
            silent_s: (!waits(held, now)).then_some(silent_s),
        })
    }

    /// Whether it has not asked for longer than one that waits.
    pub(in crate::site) fn is_silent(&self) -> bool {
        self.silent_s.is_some()
    }

    /// In words, after its name.
    pub(in crate::site) fn words(&self) -> String {
        let place = match self.at_loader {
            true => "at its loader",
            false => "in its inventory boot",
        };
        match self.silent_s.map(span) {
            Some(span) => format!(
                "waited {place} and has not asked for {span}: is it switched off, or its link down?"
            ),
            None => format!("waits {place} until it is listed"),
        }
    }

    /// What a machine's boot says of the stage that it stopped at is no news of one that waits there.
    pub(super) fn tell(&self, machine: &mut MachineStatus) {
        if self.is_silent() {
            machine.note = self.words();
        } else if self.at_loader {
            machine.state = Standing::Running.name().to_owned();
            machine.note = self.words();
            let late = SignedDuration::from_secs(WAITS_S);
            machine.deadline = self.held.checked_add(late).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn who_was_told_to_wait_is_silent_when_it_is_late_and_not_stuck_at_its_script() {
        let seen: Discovered = serde_json::from_value(serde_json::json!({
            "mac": "3c:ec:ef:00:00:07", "network": "boot", "architecture": "", "uuid": null, "serial": null,
            "manufacturer": null, "product": null, "relay": null, "port": null, "first_seen": at(0), "last_seen": at(0),
            "discovers": 1, "held": at(0),
        }))
        .unwrap();
        let told = |seen: &Discovered, stage: &str, now| {
            let mut machine = MachineStatus {
                stage: Some(stage.to_owned()),
                state: "stalled".to_owned(),
                note: "of the stage".to_owned(),
                ..MachineStatus::default()
            };
            if let Some(wait) = Wait::of(seen, Some(stage), at(now)) {
                wait.tell(&mut machine);
            }
            (machine.state, machine.note)
        };
        let (state, note) = told(&seen, "script", 299);
        assert_eq!(state, "running");
        assert_eq!(note, "waits at its loader until it is listed");
        let (state, note) = told(&seen, "script", 300);
        assert_eq!(state, "stalled");
        assert!(note.starts_with("waited at its loader and has not asked for 5m00s"));
        // It was switched on anew since, and came less far.
        assert_eq!(told(&seen, "dhcp", 299).1, "of the stage");
        assert_eq!(told(&seen, "dhcp", 999).1, "of the stage");
        let never = Discovered { held: None, ..seen };
        assert_eq!(told(&never, "script", 999).1, "of the stage");
    }
}
