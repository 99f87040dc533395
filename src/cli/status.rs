//! `bridgehead status`.

mod fleet;
mod wait;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::{Daemon, Failure, client, hosts_named, print, print_json, print_on, screen};
use crate::inventory::suggest::did_you_mean;
use crate::policy::event::Stage;
use crate::site::report::{FleetStatus, MachineStatus, StageStatus};
use crate::site::why::Why;
use crate::span::span;

/// How often `--wait` and `--watch` ask.
const ASK: Duration = Duration::from_millis(500);

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bridgehead status --watch\n  bridgehead status kvm07\n  bridgehead status kvm[01-16]\n  bridgehead status kvm[01-16] --wait joined --new --timeout 10m"
)]
pub(super) struct Arguments {
    /// Show these alone, by name, MAC or a list as kvm[01-16]; of a single one its stages too
    host: Vec<String>,
    /// Show the hosts of this rack alone; may be given several times
    #[arg(long)]
    rack: Vec<String>,
    /// Show those that need a look alone: failed, stalled, refused, joined with a fault; exit code 0 also where there is none
    #[arg(long, conflicts_with = "wait")]
    trouble: bool,
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it anew as it changes, until interrupted
    #[arg(long, conflicts_with_all = ["json", "wait"])]
    watch: bool,
    /// Return when every host shown has come to this stage; exit code 1 where those that have not failed, and stay as they are
    #[arg(long, value_name = "STAGE", value_parser = parse_stage)]
    wait: Option<Stage>,
    /// Wait for boots that begin from now on: the one that a host has behind it does not count
    #[arg(long, requires = "wait")]
    new: bool,
    /// Give up waiting after this (exit code 5): 90s, 10m, 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    timeout: Duration,
}

fn parse_stage(text: &str) -> Result<Stage, String> {
    let names = || {
        Stage::ALL
            .iter()
            .map(|stage| stage.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    text.parse()
        .map_err(|()| format!("no such stage; there are {}", names()))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("a number with s, m or h, such as 10m".into()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a number with s, m or h, such as 10m".to_owned())?;
    Ok(Duration::from_secs(number.saturating_mul(factor)))
}

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    arguments.host = hosts_named(&arguments.host)?;
    let arguments = &arguments;
    if arguments.watch {
        return watch(arguments);
    }
    let fleet = match arguments.wait {
        None => ask(arguments)?,
        Some(stage) => wait::wait(arguments, stage)?,
    };
    if arguments.json {
        print_json(&fleet)
    } else {
        print(&page(arguments, &fleet))
    }
}

fn page(arguments: &Arguments, fleet: &FleetStatus) -> String {
    match (
        arguments.host.as_slice(),
        &fleet.hosts[..],
        &fleet.unknown[..],
    ) {
        ([_], [machine], []) | ([_], [], [machine]) => {
            story(machine, Timestamp::now(), screen::width())
        }
        _ => fleet::text(fleet, nobody(arguments, fleet), screen::width()),
    }
}

/// What is said where no host is shown.
fn nobody(arguments: &Arguments, fleet: &FleetStatus) -> &'static str {
    let all = arguments.host.is_empty() && arguments.rack.is_empty();
    match arguments.trouble {
        true if fleet.unknown.is_empty() => {
            "no machine needs a look: none failed, stalled, was refused or joined with a fault\n"
        }
        false if all => {
            "no host is listed yet: `bridgehead hosts add` writes one, and `bridgehead discover list` shows machines that wait\n"
        }
        _ => "",
    }
}

fn ask(arguments: &Arguments) -> Result<FleetStatus, Failure> {
    let mut fleet: FleetStatus = client::get(&arguments.daemon.state, "/v1/status")?;
    let in_rack = |machine: &MachineStatus| {
        let rack = machine.rack.as_ref();
        arguments.rack.is_empty() || rack.is_some_and(|rack| arguments.rack.contains(rack))
    };
    let named = arguments
        .host
        .iter()
        .map(|name| meant(arguments, &fleet, name));
    let named = named.collect::<Result<HashSet<_>, _>>()?;
    let wanted = |machine: &MachineStatus| {
        let named = named.is_empty() || named.contains(&machine.host);
        named && in_rack(machine) && (!arguments.trouble || machine.needs_a_look())
    };
    check_racks(arguments, &fleet)?;
    fleet.hosts.retain(wanted);
    fleet.unknown.retain(wanted);
    Ok(fleet)
}

/// Who is meant by a name. One that nobody is shown by as it is written may be a MAC: the daemon knows whose, or says
/// that nobody is meant, and who may be.
fn meant(arguments: &Arguments, fleet: &FleetStatus, name: &str) -> Result<String, Failure> {
    let shown = || fleet.hosts.iter().chain(&fleet.unknown);
    let is_shown = |name: &str| shown().any(|machine| machine.host == name);
    if is_shown(name) {
        return Ok(name.to_owned());
    }
    if let Some(alike) = shown().find(|machine| machine.host.eq_ignore_ascii_case(name)) {
        return Ok(alike.host.clone());
    }
    let why: Why = client::get(&arguments.daemon.state, &client::host_path(name, "why")?)?;
    match is_shown(&why.host) {
        true => Ok(why.host),
        // It was seen before it was listed.
        false => Err(Failure::said(why.cause)),
    }
}

fn check_racks(arguments: &Arguments, fleet: &FleetStatus) -> Result<(), Failure> {
    let racks = fleet
        .hosts
        .iter()
        .filter_map(|machine| machine.rack.as_deref());
    let racks: BTreeSet<&str> = racks.collect();
    let unknown = arguments
        .rack
        .iter()
        .find(|rack| !racks.contains(rack.as_str()));
    unknown.map_or(Ok(()), |rack| {
        let help = did_you_mean(rack, racks.iter().copied());
        Err(Failure::said(format!(
            "no host of the inventory is in rack `{rack}`; {help}"
        )))
    })
}

/// Redraws in place: one page, cleared line by line so that nothing flickers. Where the cursor can't be moved each page
/// that differs comes below the one before. A daemon that is restarted meanwhile is waited for.
fn watch(arguments: &Arguments) -> Result<(), Failure> {
    let mut shown = String::new();
    loop {
        let page = match ask(arguments) {
            Ok(fleet) => page(arguments, &fleet),
            Err(failure) if failure.is_unreachable() => format!("{}\n", failure.text()),
            Err(failure) => return Err(failure),
        };
        match screen::redrawn() {
            Some(size) => {
                let page = screen::page(&page, size).replace('\n', "\x1b[K\n");
                print_on(&format!("\x1b[H{page}\x1b[J"))?;
            }
            None if page != shown => {
                let between = if shown.is_empty() { "" } else { "\n" };
                print_on(&format!("{between}{page}"))?;
                shown = page;
            }
            None => {}
        }
        std::thread::sleep(ASK);
    }
}

/// One machine: where it is, and how it came there.
fn story(machine: &MachineStatus, now: Timestamp, width: Option<usize>) -> String {
    let mut text = format!("{} is {}", machine.host, machine.state);
    if let Some(stage) = &machine.stage {
        text += &format!(" in {stage}");
    }
    text += &machine
        .for_s
        .map_or_else(String::new, |seconds| format!(", for {}", span(seconds)));
    if let (Some(deadline), "running") = (machine.deadline, machine.state.as_str()) {
        text += &format!(
            "; stalled if silent until {} UTC",
            deadline.strftime("%H:%M:%S")
        );
    }
    if let Some(rack) = &machine.rack {
        let unit = machine.unit.map(|unit| format!(", unit {unit}"));
        text += &format!("; rack {rack}{}", unit.unwrap_or_default());
    }
    text.push('\n');
    if !machine.note.is_empty() {
        text += &format!("  {}\n", machine.note);
    }
    text += &sign(machine, now);
    if machine.edit_waits {
        text += "  hosts.yaml was changed since this boot began: that applies at its next boot\n";
    }
    if let Some(attempt) = &machine.attempt {
        let entry = machine
            .entry
            .as_ref()
            .map(|entry| format!(", menu entry {entry}"));
        text += &format!("\nBoot {attempt}{}\n", entry.unwrap_or_default());
        let header = ["AT", "TOOK", "STAGE", "STATE", "KNOWN BY", "WHAT"]
            .map(String::from)
            .to_vec();
        let stages = machine.stages.iter().map(stage_row);
        let rows = std::iter::once(header).chain(stages);
        text = screen::prose(&text, width) + &screen::rows(&rows.collect::<Vec<_>>(), width);
    } else {
        text = screen::prose(&text, width);
    }
    if matches!(
        machine.state.as_str(),
        "failed" | "stalled" | "degraded" | "refused" | "unseen"
    ) {
        text += &format!("\n`bridgehead why {}` says what to try.\n", machine.host);
    }
    text
}

/// Its last sign of life, as far as the daemon knows: a host that runs may be silent for weeks.
fn sign(machine: &MachineStatus, now: Timestamp) -> String {
    let heard = machine.heard.map(|heard| {
        let silent = now.as_second() - heard.as_second();
        format!("last heard {} ago", span(silent.max(0)))
    });
    let root = machine.connected.then(|| "has its root open".to_owned());
    let signs: Vec<_> = heard.into_iter().chain(root).collect();
    match signs.is_empty() {
        true => String::new(),
        false => format!("  {}\n", signs.join("; ")),
    }
}

fn stage_row(stage: &StageStatus) -> Vec<String> {
    let seconds = |ms: i64| format!("{}.{}s", ms / 1000, ms / 100 % 10);
    vec![
        seconds(stage.ms),
        seconds(stage.took_ms),
        stage.stage.clone(),
        stage.state.clone(),
        stage.evidence.clone(),
        stage.message.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_time("90"), Ok(Duration::from_secs(90)));
        for bad in ["", "m", "10 m", "10d", "-5s", "99999999999999999999s"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_host_is_told_by_its_stages() {
        let stage = |stage: &str, ms, took_ms, evidence: &str, message: &str| StageStatus {
            stage: stage.into(),
            state: "ok".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            ms,
            took_ms,
            uptime_ms: None,
            evidence: evidence.into(),
            message: message.into(),
        };
        let machine = MachineStatus {
            host: "kvm07".into(),
            stage: Some("loader".into()),
            state: "stalled".into(),
            since: None,
            for_s: Some(92),
            attempt: Some("0192".into()),
            entry: None,
            deadline: None,
            heard: Some(jiff::Timestamp::UNIX_EPOCH),
            connected: true,
            edit_waits: false,
            stays: false,
            note: "loader delivered, no script asked for".into(),
            rack: Some("r1".into()),
            unit: Some(4),
            stages: vec![
                stage("dhcp", 12, 12, "acknowledged", "gave 10.77.0.17 to PXE"),
                stage("loader", 2_345, 2_333, "acknowledged", "TFTP: snponly.efi"),
            ],
        };
        let now = jiff::Timestamp::from_second(94).unwrap();
        insta::assert_snapshot!(story(&machine, now, None), @r"
        kvm07 is stalled in loader, for 1m32s; rack r1, unit 4
          loader delivered, no script asked for
          last heard 1m34s ago; has its root open

        Boot 0192
        AT    TOOK  STAGE   STATE  KNOWN BY      WHAT
        0.0s  0.0s  dhcp    ok     acknowledged  gave 10.77.0.17 to PXE
        2.3s  2.3s  loader  ok     acknowledged  TFTP: snponly.efi

        `bridgehead why kvm07` says what to try.
        ");
    }
}
