//! `bridgehead discover list`.

use clap::Args;
use jiff::Timestamp;

use super::super::{Daemon, Failure, client, print, print_json, screen};
use crate::site::discovery::{DiscoveredList, DiscoveredStatus};
use crate::span::span;

/// Arguments of `discover list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let list: DiscoveredList = client::get(&arguments.daemon.state, super::PATH)?;
    if arguments.json {
        return print_json(&list);
    }
    print(&text(&list, Timestamp::now(), screen::width()))
}

fn text(list: &DiscoveredList, now: Timestamp, width: Option<usize>) -> String {
    if list.machines.is_empty() {
        return "no machine that is not listed is known; one that boots from the network is shown here once it asks for an address\n".into();
    }
    let heading = [
        "MAC",
        "STANDS",
        "FIRST",
        "LAST",
        "ASKED",
        "NETWORK",
        "WHAT IT IS",
    ];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for machine in &list.machines {
        rows.push(row(machine, now));
        let below = more(machine).into_iter();
        rows.extend(below.map(|line| [vec![String::new(); 6], vec![line]].concat()));
    }
    let hint = "`bridgehead discover approve MAC --name NAME --profile PROFILE` lists one.\n";
    screen::rows(&rows, width) + "\n" + &screen::prose(hint, width)
}

fn row(machine: &DiscoveredStatus, now: Timestamp) -> Vec<String> {
    let seen = &machine.seen;
    let ago = |at: Timestamp| format!("{} ago", span((now.as_second() - at.as_second()).max(0)));
    let who = Some(seen.identity.words()).filter(|words| !words.is_empty());
    vec![
        seen.mac.to_string(),
        if machine.waiting { "waits" } else { "asked" }.into(),
        ago(seen.first_seen),
        ago(seen.last_seen),
        format!("{}x", seen.discovers),
        seen.network.clone().unwrap_or_else(|| "-".into()),
        who.into_iter()
            .chain([seen.architecture.clone()])
            .filter(|words| !words.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
    ]
}

/// What is known beside, a line each.
fn more(machine: &DiscoveredStatus) -> Vec<String> {
    [machine.facts(), machine.warnings()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::discovered::{Discovered, Hardware, Identity, Neighbour};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_machine_is_told_of_in_words() {
        let mut hardware = Hardware::of_report(
            "cpus=64\nmemory_kib=263842816\nnic=eth0\nmac=3c:ec:ef:00:00:07\ndriver=ixgbe\nspeed=10000\nlink=1\n",
        );
        hardware.nics[0].neighbour = Some(Neighbour {
            switch: "sw-r1".into(),
            port: "Gi1/0/3".into(),
            port_description: Some("rack 1".into()),
        });
        let seen = Discovered {
            mac: "3c:ec:ef:00:00:07".parse().unwrap(),
            network: Some("boot".into()),
            architecture: "x64 UEFI".into(),
            identity: Identity {
                uuid: Some("00112233-4455-6677-8899-aabbccddeeff".into()),
                serial: Some("JAB12".into()),
                manufacturer: Some("Dell Inc.".into()),
                product: Some("PowerEdge R650".into()),
            },
            relay: Some([10, 88, 0, 254].into()),
            port: Some("Gi1/0/3 of sw-r1".into()),
            circuit_id: Some("Gi1/0/3".into()),
            remote_id: Some("sw-r1".into()),
            elsewhere: None,
            first_seen: at(0),
            last_seen: at(92),
            discovers: 7,
            held: Some(at(92)),
            hardware: Some(hardware),
            said: None,
            restored: false,
            firmware: None,
            begun: None,
        };
        let bare = Discovered {
            mac: "52:54:00:00:00:09".parse().unwrap(),
            network: None,
            identity: Identity::default(),
            relay: None,
            port: None,
            hardware: None,
            ..seen.clone()
        };
        let status = |seen: Discovered, waiting, near: &[&str]| DiscoveredStatus {
            nic_of: None,
            waiting,
            r#virtual: seen.virtual_because(),
            policy: if waiting { "next-free" } else { "hold" }.into(),
            verdict: "waits: no free host in network boot".into(),
            near: near.iter().map(|&near| near.into()).collect(),
            seen,
        };
        let near = ["one digit off kvm01's 52:54:00:00:00:01"];
        let list = DiscoveredList {
            schema: 1,
            machines: vec![status(seen, true, &[]), status(bare, false, &near)],
            own: Vec::new(),
        };
        insta::assert_snapshot!(text(&list, at(100), None));
    }
}
