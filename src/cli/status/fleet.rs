//! The fleet on one screen: what needs a look before what is well, and the sum at the end.

use super::super::screen::{self, Row};
use crate::policy::progress::Standing;
use crate::site::NOT_SERVED;
use crate::site::report::{FleetStatus, MachineStatus, Transfers};
use crate::span::span;

/// All of it, for a terminal of so many columns; `nobody`: what is said in the place of no hosts.
pub(super) fn text(fleet: &FleetStatus, nobody: &str, width: Option<usize>) -> String {
    let mut text = String::new();
    for trouble in &fleet.troubles {
        text += &format!("{}\n", trouble.message);
    }
    if !fleet.troubles.is_empty() {
        text.push('\n');
    }
    text += &match fleet.hosts.is_empty() {
        true => nobody.to_owned(),
        false => listed(fleet, width),
    };
    if !fleet.unknown.is_empty() {
        text += match text.ends_with("\n\n") || text.is_empty() {
            true => "Not listed in the inventory:\n",
            false => "\nNot listed in the inventory:\n",
        };
        let rows = sorted(&fleet.unknown).map(row);
        text += &screen::table(&rows.collect::<Vec<_>>(), width);
    }
    text + &beside(fleet) + &end(fleet)
}

fn listed(fleet: &FleetStatus, width: Option<usize>) -> String {
    let heading = Row {
        cells: ["HOST", "STAGE", "STATE", "FOR", "NOTE"]
            .map(String::from)
            .to_vec(),
        whole: false,
    };
    let rows = std::iter::once(heading).chain(sorted(&fleet.hosts).map(row));
    screen::table(&rows.collect::<Vec<_>>(), width)
}

/// Who needs a look first, else as they came.
fn sorted(machines: &[MachineStatus]) -> impl Iterator<Item = &MachineStatus> {
    let look = machines.iter().filter(|machine| machine.needs_a_look());
    look.chain(machines.iter().filter(|machine| !machine.needs_a_look()))
}

fn row(machine: &MachineStatus) -> Row {
    Row {
        cells: vec![
            machine.host.clone(),
            machine.stage.clone().unwrap_or_else(|| "-".into()),
            machine.state.clone(),
            machine.for_s.map_or_else(|| "-".into(), span),
            machine.note.clone(),
        ],
        // A host that never came has a note only if somebody may be it.
        whole: machine.needs_a_look() || machine.state == Standing::Unseen.name(),
    }
}

/// What is no host's.
fn beside(fleet: &FleetStatus) -> String {
    let mut text = String::new();
    if let Some(why) = &fleet.refused_edit {
        text += &format!("\n{NOT_SERVED}:\n{why}\n");
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

/// The sum, and where to go on: of a long list the end is what is on the screen.
fn end(fleet: &FleetStatus) -> String {
    let count = |standing: Standing| {
        let name = standing.name();
        let number = fleet.hosts.iter().filter(|host| host.state == name).count();
        (number > 0).then(|| format!("{number} {name}"))
    };
    let mut text = match fleet.hosts.len() {
        0 => String::new(),
        hosts => format!("\n{}\n", Standing::sum(hosts, count)),
    };
    let all = || sorted(&fleet.hosts).chain(sorted(&fleet.unknown));
    let mut look = all().filter(|machine| machine.needs_a_look());
    let Some(first) = look.next() else {
        return text;
    };
    text += &match look.count() {
        0 => format!("`bridgehead why {}` says what to try\n", first.host),
        more => format!(
            "{} need a look (`--trouble` shows them alone); `bridgehead why {}` says what to try\n",
            more + 1,
            first.host
        ),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::trouble::{Part, Trouble};

    fn machine(host: &str, state: &str, note: &str) -> MachineStatus {
        let stage = (state != "unseen").then(|| "dhcp".to_owned());
        MachineStatus {
            host: host.into(),
            stage,
            state: state.into(),
            for_s: Some(92),
            note: note.into(),
            ..MachineStatus::default()
        }
    }

    #[test]
    fn what_needs_a_look_stands_first_and_is_counted_at_the_end() {
        let hosts = vec![
            machine(
                "kvm01",
                "done",
                "br0 over eth0, 10.77.0.11/24; overlay over nfs 10.77.0.1:/roots/kvm",
            ),
            machine(
                "kvm02",
                "stalled",
                "address offered, and the client did not take it: it did not hear the offer",
            ),
            machine("kvm03", "unseen", ""),
            machine("kvm04", "failed", "no answer -> reboot"),
        ];
        let message = "interface eno2 is down, and nobody is served on it: `ip link set eno2 up`";
        let fleet = FleetStatus {
            hosts,
            unknown: vec![machine("mac-525400000009", "running", "gave 10.77.0.163")],
            troubles: vec![Trouble::of(Part::Interface, message.into())],
            ..FleetStatus::default()
        };
        insta::assert_snapshot!(text(&fleet, "", Some(72)));
        let lines = |width| text(&fleet, "", width).lines().count();
        assert!(lines(None) < lines(Some(72)));
    }

    #[test]
    fn a_list_of_nobody_says_why_it_is_one() {
        let mut fleet = FleetStatus::default();
        assert_eq!(text(&fleet, "nobody\n", None), "nobody\n");
        fleet.unknown = vec![machine("mac-525400000009", "stalled", "no script")];
        let told = text(&fleet, "", None);
        assert!(told.starts_with("Not listed in the inventory:\n"), "{told}");
        fleet.troubles = vec![Trouble::of(Part::Port, "port 67 is taken".into())];
        let told = text(&fleet, "", None);
        assert!(told.starts_with("port 67 is taken\n\nNot listed"), "{told}");
        let told = text(&fleet, "nobody\n", None);
        assert!(told.contains("taken\n\nnobody\n\nNot listed"), "{told}");
    }
}
