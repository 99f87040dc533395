//! `bridgehead status`.

use std::time::{Duration, Instant};

use clap::Args;

use super::table::{span, table};
use super::{Daemon, Failure, client, print, print_json};
use crate::policy::event::Stage;
use crate::site::report::{FleetStatus, MachineStatus, Transfers};

/// How often `--wait` and `--watch` ask.
const ASK: Duration = Duration::from_millis(500);

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show these alone
    host: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it anew as it changes, until interrupted
    #[arg(long, conflicts_with_all = ["json", "wait"])]
    watch: bool,
    /// Return when every host shown has come to this stage
    #[arg(long, value_name = "STAGE", value_parser = parse_stage)]
    wait: Option<Stage>,
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

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.watch {
        return watch(arguments);
    }
    let fleet = match arguments.wait {
        None => ask(arguments)?,
        Some(stage) => wait(arguments, stage)?,
    };
    if arguments.json {
        print_json(&fleet)
    } else {
        print(&text(&fleet))
    }
}

fn ask(arguments: &Arguments) -> Result<FleetStatus, Failure> {
    let mut fleet: FleetStatus = client::get(&arguments.daemon.state, "/v1/status")?;
    let wanted = |machine: &MachineStatus| {
        arguments.host.is_empty() || arguments.host.contains(&machine.host)
    };
    for name in &arguments.host {
        if !fleet
            .hosts
            .iter()
            .chain(&fleet.unknown)
            .any(|machine| machine.host == *name)
        {
            return Err(Failure::said(format!(
                "{name} is neither listed nor was it ever seen; `bridgehead status` shows who is"
            )));
        }
    }
    fleet.hosts.retain(wanted);
    fleet.unknown.retain(wanted);
    Ok(fleet)
}

fn wait(arguments: &Arguments, stage: Stage) -> Result<FleetStatus, Failure> {
    // More than a year is for ever.
    let deadline = Instant::now() + arguments.timeout.min(Duration::from_secs(366 * 86_400));
    loop {
        let fleet = ask(arguments)?;
        let named = !arguments.host.is_empty();
        let unlisted = fleet.unknown.iter().filter(|_| named);
        let late: Vec<&MachineStatus> = fleet
            .hosts
            .iter()
            .chain(unlisted)
            .filter(|machine| !reached(machine, stage))
            .collect();
        if late.is_empty() {
            return Ok(fleet);
        }
        if Instant::now() >= deadline {
            let names: Vec<String> = late
                .iter()
                .map(|m| {
                    format!(
                        "{} is {} in {}",
                        m.host,
                        m.state,
                        m.stage.as_deref().unwrap_or("no stage")
                    )
                })
                .collect();
            return Err(Failure::timed_out(format!(
                "not {stage} within {} s: {}; `bridgehead log HOST` tells more",
                arguments.timeout.as_secs(),
                names.join(", ")
            )));
        }
        std::thread::sleep(ASK);
    }
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

/// Redraws in place: one page, cleared line by line so that nothing flickers.
fn watch(arguments: &Arguments) -> Result<(), Failure> {
    loop {
        let page = text(&ask(arguments)?).replace('\n', "\x1b[K\n");
        print(&format!("\x1b[H{page}\x1b[J"))?;
        std::thread::sleep(ASK);
    }
}

fn text(fleet: &FleetStatus) -> String {
    let mut rows = vec![
        ["HOST", "STAGE", "STATE", "FOR", "NOTE"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(fleet.hosts.iter().map(row));
    let mut text = table(&rows);
    if !fleet.unknown.is_empty() {
        text += "\nNot listed in the inventory:\n";
        text += &table(&fleet.unknown.iter().map(row).collect::<Vec<_>>());
    }
    if let Some(why) = &fleet.refused_edit {
        text += &format!(
            "\nThe last edit of the inventory is NOT served; the one before it is:\n{why}\n"
        );
    }
    if fleet.transfers.waiting > 0 {
        let Transfers { running, waiting } = fleet.transfers;
        text += &format!(
            "\n{running} large transfers by HTTP are running, {waiting} wait for their turn\n"
        );
    }
    for other in fleet.dhcp_servers.iter().filter(|other| !other.expected) {
        text += &format!(
            "\nAnother DHCP server is on {} (network {}): {}\n",
            other.interface, other.network, other.note
        );
    }
    if fleet.suppressed > 0 {
        text += &format!(
            "\n{} packets got no answer beyond those in `bridgehead log wire`\n",
            fleet.suppressed
        );
    }
    text
}

fn row(machine: &MachineStatus) -> Vec<String> {
    vec![
        machine.host.clone(),
        machine.stage.clone().unwrap_or_else(|| "-".into()),
        machine.state.clone(),
        machine.for_s.map_or_else(|| "-".into(), span),
        machine.note.clone(),
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
}
