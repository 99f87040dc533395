//! `bridgehead status --wait STAGE`, for scripts.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::{ASK, Arguments, ask};
use crate::cli::Failure;
use crate::policy::event::Stage;
use crate::site::report::{FleetStatus, MachineStatus};

/// Of those who are late when the waiting ends, so many are named.
const TOLD: usize = 8;

/// The boot that each machine had behind it, or was in, as the waiting began.
#[derive(Debug, Default)]
struct Before(HashMap<String, Option<String>>);

impl Before {
    fn of(fleet: &FleetStatus) -> Self {
        let machines = fleet.hosts.iter().chain(&fleet.unknown);
        let boot = |machine: &MachineStatus| (machine.host.clone(), machine.attempt.clone());
        Self(machines.map(boot).collect())
    }

    /// Whether the boot that it is in is one of those. By its id: clocks are set back.
    fn had(&self, machine: &MachineStatus) -> bool {
        let boot = self.0.get(&machine.host);
        boot.is_some_and(|boot| *boot == machine.attempt)
    }
}

pub(super) fn wait(arguments: &Arguments, stage: Stage) -> Result<FleetStatus, Failure> {
    // More than a year is for ever.
    let deadline = Instant::now() + arguments.timeout.min(Duration::from_secs(366 * 86_400));
    let mut before = None;
    loop {
        let fleet = match ask(arguments) {
            // It is restarted, maybe; what it knows is on disk.
            Err(failure)
                if failure.is_unreachable() && before.is_some() && Instant::now() < deadline =>
            {
                std::thread::sleep(ASK);
                continue;
            }
            answer => answer?,
        };
        let before = before.get_or_insert_with(|| begin(arguments, &fleet));
        let late = late(&fleet, arguments, stage, before);
        if late.is_empty() {
            return Ok(fleet);
        }
        if late
            .iter()
            .all(|machine| machine.stays && !before.had(machine))
        {
            return Err(Failure::said(given_up(&late, stage)));
        }
        if Instant::now() >= deadline {
            let waited = arguments.timeout;
            return Err(Failure::timed_out(too_late(&late, stage, waited, before)));
        }
        std::thread::sleep(ASK);
    }
}

/// What does not count. That it is known is said: whoever resets the host from then on is not too early.
fn begin(arguments: &Arguments, fleet: &FleetStatus) -> Before {
    if !arguments.new {
        return Before::default();
    }
    // If stderr is gone, the exit code still says how it ends.
    let _ = writeln!(io::stderr(), "waiting for boots that begin from now on");
    Before::of(fleet)
}

/// Who is still waited for.
fn late<'f>(
    fleet: &'f FleetStatus,
    arguments: &Arguments,
    stage: Stage,
    before: &Before,
) -> Vec<&'f MachineStatus> {
    let named = !arguments.host.is_empty();
    let unlisted = fleet.unknown.iter().filter(|_| named);
    let awaited = fleet.hosts.iter().chain(unlisted);
    awaited
        .filter(|machine| before.had(machine) || !reached(machine, stage))
        .collect()
}

/// Who did not come in time, as many as one reads.
fn too_late(late: &[&MachineStatus], stage: Stage, waited: Duration, before: &Before) -> String {
    let seconds = waited.as_secs();
    format!("not {stage} within {seconds} s: {}", told(late, before))
}

/// Nobody who is waited for will come by himself any more.
fn given_up(late: &[&MachineStatus], stage: Stage) -> String {
    let told = told(late, &Before::default());
    format!("not {stage}, and by itself nothing goes on (`on_failure: hold`): {told}")
}

fn told(late: &[&MachineStatus], before: &Before) -> String {
    let one = |machine: &&MachineStatus| {
        let at = machine.stage.iter().map(|stage| format!(" in {stage}"));
        let at: String = at.collect();
        let (host, state) = (&machine.host, &machine.state);
        match before.had(machine) && machine.attempt.is_some() {
            true => format!("{host} has begun no new boot and is {state}{at}"),
            false => format!("{host} is {state}{at}"),
        }
    };
    let told: Vec<_> = late.iter().take(TOLD).map(one).collect();
    let more = late.len().saturating_sub(TOLD);
    let more = (more > 0).then(|| format!(" and {more} more"));
    format!(
        "{}{}; `bridgehead why HOST` tells more",
        told.join(", "),
        more.unwrap_or_default()
    )
}

/// In `stage` or beyond, and not failed there.
fn reached(machine: &MachineStatus, stage: Stage) -> bool {
    let at = machine
        .stage
        .as_deref()
        .and_then(|name| name.parse::<Stage>().ok());
    let sound = matches!(machine.state.as_str(), "running" | "done" | "degraded");
    if stage == Stage::Joined {
        machine.state == "done"
    } else {
        sound && at >= Some(stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_is_named_as_far_as_one_reads() {
        let machine = |number| MachineStatus {
            host: format!("kvm{number:02}"),
            state: "unseen".into(),
            ..MachineStatus::default()
        };
        let machines: Vec<_> = (1..=9).map(machine).collect();
        let late: Vec<_> = machines.iter().collect();
        let second = Duration::from_secs(1);
        let told = |late| too_late(late, Stage::Joined, second, &Before::default());
        assert_eq!(
            told(&late[..2]),
            "not joined within 1 s: kvm01 is unseen, kvm02 is unseen; `bridgehead why HOST` tells more"
        );
        assert!(told(&late).contains("kvm08 is unseen and 1 more;"));
    }

    #[test]
    fn the_boot_that_it_had_does_not_count() {
        let boot = |host: &str, attempt: Option<&str>| MachineStatus {
            host: host.into(),
            state: "done".into(),
            stage: Some("joined".into()),
            attempt: attempt.map(String::from),
            ..MachineStatus::default()
        };
        let fleet = FleetStatus {
            hosts: vec![boot("kvm01", Some("a")), boot("kvm02", None)],
            ..FleetStatus::default()
        };
        let before = Before::of(&fleet);
        let had = |host, attempt| before.had(&boot(host, attempt));
        assert!(had("kvm01", Some("a")) && had("kvm02", None));
        assert!(!had("kvm01", Some("b")) && !had("kvm02", Some("c")) && !had("kvm03", None));
        let late: Vec<_> = fleet.hosts.iter().take(1).collect();
        let told = too_late(&late, Stage::Joined, Duration::from_secs(9), &before);
        assert!(
            told.starts_with(
                "not joined within 9 s: kvm01 has begun no new boot and is done in joined;"
            ),
            "{told}"
        );
    }
}
