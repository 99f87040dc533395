//! `bridgehead explain HOST`: what it would be answered, and why.

use std::fmt::Write;
use std::net::Ipv4Addr;

use clap::Args;
use serde::Serialize;

use super::{Daemon, Failure, Files, client, colour, hosts, print, print_json, screen};
use crate::explain::{
    Answer, ConfigStep, DhcpStep, Explanation, OptionLine, Posing, Question, Step, Value, explain,
};
use crate::inventory::model::{Inventory, MacAddr};
use crate::policy::enrol::awaits;
use crate::site::Snapshot;
use crate::site::whom::{Whom, mac_of};
use crate::site::why::Why;
use crate::span::span;

/// Where what follows a label begins, characters.
const LABEL: usize = 14;
/// Where lists of options are broken, characters.
const WIDTH: usize = 80;

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bridgehead explain kvm07\n  bridgehead explain kvm07 --firmware bios\n  bridgehead explain 52:54:00:00:00:08    # a machine that is not listed"
)]
pub(super) struct Arguments {
    /// A host, or the MAC of a machine
    host: String,
    /// What asks: bios, uefi-x64, uefi-arm64, …; with -http for UEFI HTTP boot, with -ipxe for iPXE in ROM; grub or pxelinux for such a loader [default: UEFI that runs its kernel]
    #[arg(long)]
    firmware: Option<Posing>,
    /// Which of its NICs asks [default: its first]
    #[arg(long)]
    mac: Option<MacAddr>,
    /// What it takes of its menu
    #[arg(long)]
    entry: Option<String>,
    /// The daemon's address in its network [default: `server` of the network, else this machine's]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Ipv4Addr>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let snapshot = load(&arguments.files)?;
    let mac = asker(arguments, &snapshot.inventory)?;
    let question = Question {
        snapshot: &snapshot,
        mac,
        posing: arguments.firmware,
        entry: arguments.entry.as_deref(),
        server: arguments.server,
    };
    let explanation = explain(&question).map_err(|error| Failure::of(&error))?;
    let now = now(&arguments.daemon, &explanation.machine);
    if !arguments.json {
        let now = screen::prose(&now_text(&now), screen::width());
        return print(&(fitted(&text(&explanation), screen::width()) + &now));
    }
    let now = now.ok();
    print_json(&Told { explanation, now })
}

/// With what is said in words wrapped to the width. Scripts and the command line are left as they are, to be copied.
fn fitted(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let line = |line: &str| {
        let labels = ["   because", "   options", "   boot file"];
        match labels.iter().any(|label| line.starts_with(label)) {
            true => screen::hanging(line, width, LABEL),
            false if line.starts_with("   ") => format!("{line}\n"),
            false => screen::hanging(line, width, 0),
        }
    };
    text.lines().map(line).collect()
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    explanation: Explanation,
    /// What the daemon says of the machine just now.
    now: Option<Why>,
}

/// What is under way, where a daemon can be asked.
fn now(daemon: &Daemon, machine: &str) -> Result<Why, Failure> {
    client::get(&daemon.state, &client::host_path(machine, "why")?)
}

fn now_text(now: &Result<Why, Failure>) -> String {
    let why = match now {
        Ok(why) => why,
        Err(failure) if failure.is_unreachable() => {
            return "\nWhat is under way is not known here: no daemon could be asked (--state names its directory).\n"
                .to_owned();
        }
        Err(_) => return "\nThe daemon has not heard of it yet.\n".to_owned(),
    };
    let mut text = format!("\nJust now, says the daemon, {} is {}", why.host, why.state);
    if let (Some(stage), Some(seconds)) = (&why.stage, why.for_s) {
        let _ = write!(text, " in {stage}, for {}", span(seconds));
    }
    if let Some(lease) = &why.lease {
        let _ = write!(text, "; {}", lease.words());
    }
    text += ".\n";
    if why.edit_waits {
        text += "hosts.yaml was changed since that boot began, and it goes on with what it began with: what is above is for its next boot.\n";
    }
    text
}

/// What `serve` would serve; its faults as `check` shows them.
pub(super) fn load(files: &Files) -> Result<Snapshot, Failure> {
    let loaded = Snapshot::load(&files.paths(), None);
    loaded.map(|(snapshot, _)| snapshot).map_err(|found| {
        let text = found.to_text(colour(&std::io::stderr()));
        Failure::inventory(format!("{text}\n\n{}", found.summary()))
    })
}

/// The MAC that asks.
fn asker(arguments: &Arguments, inventory: &Inventory) -> Result<MacAddr, Failure> {
    let name = &arguments.host;
    let host = match Whom::of(inventory, name) {
        Some(Whom::Host(host)) => host,
        Some(Whom::Stranger(mac)) => return Ok(mac),
        None => return Err(hosts::unknown(inventory, name)),
    };
    let Some(mac) = arguments.mac.or_else(|| mac_of(name)) else {
        return host.first_mac().ok_or_else(|| {
            Failure::said(format!(
                "{name} {}; `bridgehead discover list` shows the machines that wait, and `bridgehead explain MAC` \
                 explains one",
                awaits(&host)
            ))
        });
    };
    let own: Vec<_> = host.macs.iter().map(|mac| mac.to_string()).collect();
    if host.macs.iter().any(|listed| **listed == mac) {
        Ok(mac)
    } else {
        let own = own.join(", ");
        Err(Failure::said(format!(
            "{mac} is not among the MACs of {name}: {own}"
        )))
    }
}

fn text(told: &Explanation) -> String {
    let mut text = heading(told);
    for (index, step) in told.steps.iter().enumerate() {
        let number = index + 1;
        text += &match step {
            Step::Dhcp(step) => dhcp(number, step),
            Step::Config(step) => config(number, step),
        };
    }
    if let Some(line) = &told.cmdline {
        let _ = write!(text, "\nThe kernel's command line:\n   {line}\n");
    }
    if !told.values.is_empty() {
        text += "\nWhere it is written:\n";
        let rows: Vec<_> = told.values.iter().flat_map(written).collect();
        text += &screen::rows(&rows, screen::width());
    }
    if told.cmdline.is_some() {
        text += "\nATTEMPT and TOKEN are made anew for each boot. No packet was sent.\n";
    } else if !told.listed {
        text += "\nNo packet was sent. The address is the one that it would get if nobody had a lease.\n";
    }
    text
}

/// A value a line, and below it what it superseded, as `hosts show` has it.
fn written(value: &Value) -> Vec<Vec<String>> {
    let place = value.place.clone().unwrap_or_else(|| "-".to_owned());
    let layer = value.layer.clone();
    let key = format!("   {}", value.key);
    let mut rows = vec![vec![key, value.value.clone(), place, layer]];
    rows.extend(value.superseded.iter().map(|old| {
        let text = match old.key == value.key {
            true => format!("  not {}", old.value),
            false => format!("  not {}: {}", old.key, old.value),
        };
        let text = crate::wire::text::clean(&text, 200);
        vec![String::new(), text, old.place.clone(), old.layer.clone()]
    }));
    rows
}

fn heading(told: &Explanation) -> String {
    let Explanation { machine, mac, .. } = told;
    let mut text = match told.listed {
        true => format!("{machine}, {mac}"),
        false => format!("{mac} is not in the inventory"),
    };
    if !told.near.is_empty() {
        let near: Vec<_> = told.near.iter().map(ToString::to_string).collect();
        let _ = write!(text, ": a slip of the hand? It is {}", near.join(", "));
    }
    if let Some(policy) = &told.policy {
        let _ = write!(text, "\nIf it boots, {policy}");
    }
    let server = &told.server;
    let (address, network, why) = (server.address, &server.network, server.why);
    let place = server.relay.map_or("in".to_owned(), |relay| {
        format!("behind the relay {relay} of")
    });
    let _ = writeln!(
        text,
        "\nThe daemon is {address} {place} network {network} ({why})"
    );
    text
}

fn dhcp(number: usize, step: &DhcpStep) -> String {
    let mut text = format!("\n{number}. {}\n", step.asks);
    match &step.answer {
        None => text += "   no answer\n",
        Some(answer) => text += &answered(answer),
    }
    let _ = writeln!(text, "   because    {}", step.because);
    if let Some(answer) = &step.answer {
        let option =
            |option: &OptionLine| format!("{} {} {}", option.code, option.name, option.value);
        let options: Vec<_> = answer.options.iter().map(option).collect();
        let _ = writeln!(text, "   options    {}", filled(&options));
    }
    text
}

/// Parts with commas between, in lines below each other.
fn filled(parts: &[String]) -> String {
    let mut lines = vec![String::new()];
    for part in parts {
        let full = lines
            .last()
            .is_none_or(|line| line.len() + part.len() > WIDTH);
        if full && !lines[0].is_empty() {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(part);
            line.push_str(", ");
        }
    }
    let lines = lines.iter().map(|line| line.trim_end());
    let text = lines.collect::<Vec<_>>().join("\n              ");
    text.trim_end_matches(',').to_owned()
}

fn answered(answer: &Answer) -> String {
    let address = answer.address.map(|address| format!(" {address}"));
    let address = address.unwrap_or_else(|| ", no address".to_owned());
    let mut text = format!("   {}{address}, {}", answer.message, answer.way);
    if answer.delay_ms > 0 {
        let _ = write!(text, ", after {} ms", answer.delay_ms);
    }
    let (file, bytes) = (&answer.boot_file, answer.boot_file_bytes);
    text += &match (file.as_str(), bytes) {
        ("", _) => "\n   nothing to boot\n".to_owned(),
        (url, None) if url.ends_with(".ipxe") => format!("\n   boot file  {url}\n"),
        (file, Some(bytes)) => {
            let by = format!("{} KiB, from {}", bytes.div_ceil(1024), answer.next_server);
            format!("\n   boot file  {file} ({by})\n")
        }
        (file, None) => format!(
            "\n   boot file  {file}, which loaders/ does not have: the client will get \"file not found\"\n"
        ),
    };
    text
}

fn config(number: usize, step: &ConfigStep) -> String {
    let mut text = format!("\n{number}. {}, asked for as {}\n", step.what, step.asked);
    if step.text.is_none() {
        text += "   refused\n";
    }
    let _ = writeln!(text, "   because    {}", step.because);
    for line in step.text.as_deref().unwrap_or_default().lines() {
        let _ = writeln!(text, "   | {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;

    fn said(mac: &str, firmware: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = testing::snapshot(dir.path());
        let question = Question {
            snapshot: &snapshot,
            mac: mac.parse().unwrap(),
            posing: firmware.map(|word| word.parse().unwrap()),
            entry: None,
            server: Some(Ipv4Addr::new(10, 77, 0, 1)),
        };
        let mut told = explain(&question).unwrap();
        let places = told
            .values
            .iter_mut()
            .filter_map(|value| value.place.as_mut());
        let dir = format!("{}/", dir.path().display());
        places.for_each(|place| *place = place.replace(&dir, ""));
        let superseded = told
            .values
            .iter_mut()
            .flat_map(|value| &mut value.superseded);
        superseded.for_each(|old| old.place = old.place.replace(&dir, ""));
        text(&told)
    }

    #[test]
    fn words_are_wrapped_and_what_is_copied_is_not() {
        let text = "2. DISCOVER by iPXE\n   because    its MAC is listed as kvm01\n   | kernel http://10.77.0.1/files/kernels/debian\n";
        insta::assert_snapshot!(fitted(text, Some(30)), @r"
        2. DISCOVER by iPXE
           because    its MAC is
                      listed as kvm01
           | kernel http://10.77.0.1/files/kernels/debian
        ");
        assert_eq!(fitted(text, None), text);
    }

    #[test]
    fn the_words_are_golden() {
        insta::assert_snapshot!("uefi", said("52:54:00:00:00:01", None));
        insta::assert_snapshot!("grub", said("52:54:00:00:00:02", Some("bios")));
        insta::assert_snapshot!("unlisted", said("52:54:00:00:00:03", Some("ipxe")));
        insta::assert_snapshot!("no-loader", said("52:54:00:00:00:01", Some("uefi-riscv64")));
    }
}
