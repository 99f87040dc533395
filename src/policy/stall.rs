//! Why a machine fell silent, most likely, and what to try next.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::policy::client::Asker;
use crate::policy::event::{BootEvent, Evidence, Stage, StageState};
use crate::policy::hint::after_ipxe_failure;
use crate::policy::moving::Moving;
use crate::policy::progress::{Attempt, Machine};
use crate::policy::standing::is_silent;
use crate::policy::verdict::TOOK_ANOTHER;

/// What is told of a client that asked for a file's size by TFTP and let that be all.
pub const ASKED_SIZE: &str = "asked how large";

/// The most likely reason of a silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Likely {
    /// What happened, as far as silence tells.
    pub cause: Cow<'static, str>,
    /// The next thing to try.
    pub next: &'static str,
}

const fn likely(cause: &'static str, next: &'static str) -> Likely {
    Likely {
        cause: Cow::Borrowed(cause),
        next,
    }
}

/// What the machine asked by DHCP since `event`, and was not answered: no silence, and it says why by itself.
pub fn refused<'a>(attempt: &'a Attempt, event: &BootEvent) -> Option<&'a BootEvent> {
    let asks = event.stage == Stage::Dhcp && !attempt.claimed;
    let mut newest = attempt.events.iter().rev().filter(|_| asks);
    let newest = newest.find(|known| known.stage == Stage::Dhcp && known.state != StageState::Info);
    newest.filter(|known| known.state == StageState::Ignored)
}

/// What comes of a refusal.
fn after_refusal(refused: &BootEvent) -> Likely {
    let took_another = refused.message.contains(TOOK_ANOTHER);
    Likely {
        cause: Cow::Owned(refused.message.clone()),
        next: match took_another {
            true => {
                "stop that DHCP server, or set `dhcp: proxy` where it is to give the addresses (`bridgehead check --live` shows who answers)"
            }
            false => {
                "`bridgehead explain HOST` shows what it is answered, and which line of hosts.yaml says so"
            }
        },
    }
}

/// Why a machine is stuck: by its newest boot, or by where those before it ended that ended alike.
pub fn stuck(machine: &Machine, now: Timestamp) -> Option<Likely> {
    let attempt = machine.attempt()?;
    let event = attempt.current()?;
    let fruitless = machine.fruitless();
    let before = machine.attempts.iter().rev().nth(1);
    let before = before.filter(|_| fruitless > 0);
    let Some((before, end)) = before.and_then(|before| Some((before, before.current()?))) else {
        return Some(stall(attempt, event));
    };
    let boots = match fruitless {
        1 => "the boot before ended there, too".to_owned(),
        more => format!("the {more} boots before ended there, too"),
    };
    let with_boots = |likely: Likely| Likely {
        cause: Cow::Owned(format!("{} ({boots})", likely.cause)),
        ..likely
    };
    match (event.stage == end.stage, is_silent(event, now)) {
        (true, _) => Some(with_boots(stall(attempt, event))),
        // This time it did not even come so far.
        (false, true) => Some(stall(attempt, event)),
        (false, false) => Some(with_boots(stall(before, end))),
    }
}

/// Why nothing came after this event of the attempt.
pub fn stall(attempt: &Attempt, event: &BootEvent) -> Likely {
    if let Some(refused) = refused(attempt, event) {
        return after_refusal(refused);
    }
    // What a loader itself says of its failure.
    if (event.evidence, event.state) == (Evidence::Unproven, StageState::Retry) {
        let next = after_ipxe_failure(&event.message);
        return Likely {
            cause: Cow::Owned(event.message.clone()),
            next: next.unwrap_or("look at the machine's screen"),
        };
    }
    let halfway_there = |moving: &&Moving| moving.taken < moving.total;
    if let Some(moving) = attempt.moving.as_ref().filter(halfway_there) {
        return halfway(moving);
    }
    // What the initrd says of itself, by its stages; the daemon may have noted something for one of them, too.
    if event.stage >= Stage::Early && event.evidence == Evidence::Reported {
        return inside(event);
    }
    match event.stage {
        Stage::Dhcp => dhcp(attempt, event),
        Stage::Loader => loader(event),
        Stage::Menu | Stage::LocalDisk | Stage::Inventory | Stage::Rescue | Stage::Joined => {
            likely("it may stay there for ever", "look at the machine's screen")
        }
        Stage::Script => likely(
            "script sent, no kernel asked for: the loader stopped at it",
            "look at the machine's screen; iPXE shows an error with a number there",
        ),
        Stage::Kernel if event.state != StageState::Ok => likely(
            "the kernel did not go through whole",
            "look at the cable and the switch port for errors, and whether the machine was reset",
        ),
        Stage::Kernel => likely(
            "kernel fetched, no initrd asked for: the loader ran out of memory or stopped",
            "look at the machine's screen",
        ),
        Stage::Initrd if event.state != StageState::Ok => likely(
            "the initrd did not go through whole",
            "look at the cable and the switch port for errors, and whether the machine was reset",
        ),
        _ => likely(
            "kernel and initrd fetched, no word from the initrd: kernel panic, no driver for the NIC, or no way back to the daemon by HTTP",
            "look at the console, and for a firewall that drops HTTP if they came by TFTP; add the NIC's driver to initrd/modules.list (`pci:` in the profile makes `make initrd` check it)",
        ),
    }
}

/// A file that came to a stop.
fn halfway(moving: &Moving) -> Likely {
    Likely {
        cause: Cow::Owned(format!(
            "the machine took no more of a file: {}",
            moving.words()
        )),
        next: "look at the machine's screen, whether it was reset, and at the cable and the switch port for errors",
    }
}

/// An offer that was heard, one that was not, and the loader's own DHCP.
fn dhcp(attempt: &Attempt, event: &BootEvent) -> Likely {
    let loaded = attempt.events.iter().any(|known| {
        known.stage == Stage::Loader && known.state == StageState::Ok && known.at <= event.at
    });
    let heard = event.evidence == Evidence::Acknowledged;
    let first = attempt.events.iter().find_map(|known| known.begun_by);
    if first == Some(Asker::HttpBoot) && heard && !loaded {
        return likely(
            "address given, and the loader's URL is not fetched: its firmware goes on to another entry of its boot order, or can't reach the daemon by HTTP",
            "look for a firewall that drops HTTP (TCP 80, or `server: {http: …}`); put network boot first in the firmware's boot order",
        );
    }
    let asked = attempt.events.iter().rev();
    let mut asked = asked.filter(|known| known.stage == Stage::Loader);
    if let Some(asked) = asked
        .next()
        .filter(|known| heard && known.state == StageState::Info)
    {
        return unfetched(asked);
    }
    match (loaded, heard) {
        (false, false) => likely(
            "address offered, and the client did not take it: it did not hear the offer, or took another server's",
            "look for another DHCP server (`bridgehead check --live`), and at the switch port: one that forwards late loses the answer",
        ),
        (false, true) => likely(
            "address given, no loader asked for: its firmware goes on to its disk, or can't reach the TFTP server",
            "put network boot first in the firmware's boot order; look for a firewall that drops UDP 69",
        ),
        (true, false) => likely(
            "the loader runs and asks for an address, and does not take the offer",
            "look at the switch port: the link goes down when the loader takes over, and one that forwards late (spanning tree) loses the answer",
        ),
        (true, true) => likely(
            "the loader has its address and asks for no script",
            "look for a firewall that drops HTTP (iPXE: TCP 80, or `server: {http: …}`) or UDP 69 (GRUB, PXELINUX), and at the machine's screen",
        ),
    }
}

/// A loader that was asked for, and did not go out: the way to the daemon is open.
fn unfetched(asked: &BootEvent) -> Likely {
    if asked.message.contains(ASKED_SIZE) {
        return likely(
            "address given, and the firmware asked how large the loader is, and did not fetch it: it has no room for one so large, or what it sent then was lost",
            "look for a firewall that drops UDP between high ports; try a smaller loader (`loaders: {uefi-x64: ipxe.efi}` of the host)",
        );
    }
    Likely {
        cause: Cow::Owned(format!(
            "address given, and the loader that it asked for was refused ({})",
            asked.message
        )),
        next: "`bridgehead explain HOST` shows the name that it was told; another DHCP server may have named this one (`bridgehead check --live`)",
    }
}

/// One that went whole by HTTP is only "sent", but TCP itself takes the way back.
fn loader(event: &BootEvent) -> Likely {
    match (event.state, event.evidence) {
        (StageState::Ok, _) => likely(
            "loader delivered, no script asked for: the firmware refused to run it (Secure Boot?) or the loader has no driver for the NIC",
            "with Secure Boot on, say `loader: grub` in the profile; else try another loader (`loaders: {uefi-x64: ipxe.efi}` of the host)",
        ),
        (_, Evidence::Sent) => likely(
            "loader sent but not acknowledged: the way back from the client is broken (router, firewall, or a reply that leaves by another NIC)",
            "look at `router` of the network, at firewalls for UDP from high ports, and at the daemon's routes",
        ),
        _ => likely(
            "the loader broke off on its way: packets are lost, or the machine was reset",
            "look at the cable and the switch port for errors; start the machine again",
        ),
    }
}

/// Between two reports of the initrd or the root.
fn inside(event: &BootEvent) -> Likely {
    const CONSOLE: &str = "look at the machine's console: every stage says there what it does";
    match event.stage {
        Stage::Early | Stage::Drivers => likely(
            "the initrd fell silent while it looked for drivers",
            "look at the console for a driver that hangs; add what is missing to initrd/modules.list",
        ),
        Stage::Nic | Stage::Link => likely(
            "the initrd fell silent at its NIC: no driver, no carrier, or another NIC than it booted from",
            "look at cable and switch port, and at the machine's console",
        ),
        Stage::Bridge | Stage::Address => likely(
            "the initrd fell silent after it had built its bridge: the switch port is blocked, or the VLAN is another",
            "look at the switch port: VLAN, spanning tree, port security that allows one MAC alone",
        ),
        Stage::Config | Stage::Identity => {
            likely("the initrd has its configuration and fell silent", CONSOLE)
        }
        Stage::StorageNet | Stage::Root => likely(
            "the root's server is silent, or was left half-way",
            "look whether the NFS server of `root` runs and is reached from the host's bridge",
        ),
        Stage::Overlay | Stage::Verify => likely(
            "the initrd fell silent while it laid the overlay with this host's own files over the root: too little memory, or its root's server went away",
            "look at the console; lower `overlay` of its profile, and look whether the root's server answers",
        ),
        Stage::Switch => likely(
            "the root was switched to and its systemd has not reported",
            "look at the host's console: a unit may hang",
        ),
        Stage::Online => likely(
            "the root is up, and its pool is not yet mounted",
            "look whether the servers of `image_pool` run and are reached",
        ),
        Stage::Pool => likely(
            "the pool is not mounted: are its servers up?",
            "look whether the servers of `image_pool` run; `journalctl -u 'bridgehead*'` on the host says more",
        ),
        _ => likely("the initrd fell silent", CONSOLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::event::{AttemptId, MachineId};

    fn event(second: i64, stage: Stage, state: StageState, evidence: Evidence) -> BootEvent {
        let at = Timestamp::from_second(second).unwrap();
        let machine = MachineId("kvm01".into());
        let mut event = BootEvent::sent(at, machine, stage, state, String::new());
        event.evidence = evidence;
        event
    }

    /// The cause after the last of these events.
    fn cause(events: &[(Stage, StageState, Evidence)]) -> String {
        let mut machine = Machine::default();
        for (second, (stage, state, evidence)) in (0..).zip(events) {
            let mut event = event(second, *stage, *state, *evidence);
            event.begins = (second == 0).then(|| AttemptId("a".into()));
            machine.fold(event);
        }
        let attempt = machine.attempt().unwrap();
        stall(attempt, attempt.current().unwrap())
            .cause
            .into_owned()
    }

    #[test]
    fn what_was_refused_since_is_no_silence() {
        let mut machine = Machine::default();
        let mut offer = event(0, Stage::Dhcp, StageState::Ok, Evidence::Sent);
        offer.begins = Some(AttemptId("a".into()));
        machine.fold(offer);
        let mut took = event(1, Stage::Dhcp, StageState::Ignored, Evidence::Sent);
        took.message = format!("no answer to Request: {TOOK_ANOTHER} 10.77.0.9");
        machine.fold(took);
        let likely = |machine: &Machine| {
            let attempt = machine.attempt().unwrap();
            stall(attempt, attempt.current().unwrap())
        };
        assert!(
            likely(&machine)
                .cause
                .ends_with("another DHCP server, 10.77.0.9")
        );
        assert!(likely(&machine).next.contains("stop that DHCP server"));
        // It came to us in the end.
        machine.fold(event(
            2,
            Stage::Dhcp,
            StageState::Ok,
            Evidence::Acknowledged,
        ));
        assert!(likely(&machine).cause.contains("no loader asked for"));
        machine.fold(event(3, Stage::Dhcp, StageState::Ignored, Evidence::Sent));
        assert!(likely(&machine).next.contains("explain HOST"));
    }

    #[test]
    fn a_loader_that_was_asked_for_and_not_fetched_was_asked_for() {
        let mut machine = Machine::default();
        let mut offer = event(0, Stage::Dhcp, StageState::Ok, Evidence::Sent);
        offer.begins = Some(AttemptId("a".into()));
        machine.fold(offer);
        let told = |machine: &Machine| stuck(machine, Timestamp::from_second(90).unwrap()).unwrap();
        let given = event(1, Stage::Dhcp, StageState::Ok, Evidence::Acknowledged);
        machine.fold(given);
        assert!(told(&machine).cause.contains("no loader asked for"));
        let mut asked = event(2, Stage::Loader, StageState::Info, Evidence::Acknowledged);
        asked.message = format!("{ASKED_SIZE} snponly.efi is");
        machine.fold(asked.clone());
        let likely = told(&machine);
        assert!(
            likely.cause.contains("did not fetch it"),
            "{}",
            likely.cause
        );
        assert!(!likely.next.contains("UDP 69"), "{}", likely.next);
        // It is no stage of its own, and nothing to wait for.
        let current = machine.attempt().and_then(Attempt::current).unwrap();
        assert_eq!(current.stage, Stage::Dhcp);
        asked.message = "TFTP: refused pxelinux.0: file not found".into();
        machine.fold(asked);
        let cause = told(&machine).cause;
        assert!(
            cause.contains("was refused (TFTP: refused pxelinux.0"),
            "{cause}"
        );
        machine.fold(event(
            4,
            Stage::Loader,
            StageState::Ok,
            Evidence::Acknowledged,
        ));
        assert!(told(&machine).cause.contains("no script asked for"));
    }

    #[test]
    fn firmware_that_boots_by_http_is_not_told_of_tftp() {
        let mut machine = Machine::default();
        let mut offer = event(0, Stage::Dhcp, StageState::Ok, Evidence::Sent);
        offer.begins = Some(AttemptId("a".into()));
        offer.begun_by = Some(Asker::HttpBoot);
        machine.fold(offer);
        machine.fold(event(
            1,
            Stage::Dhcp,
            StageState::Ok,
            Evidence::Acknowledged,
        ));
        let likely = stuck(&machine, Timestamp::from_second(90).unwrap()).unwrap();
        assert!(
            likely.cause.contains("can't reach the daemon by HTTP"),
            "{}",
            likely.cause
        );
        assert!(likely.next.contains("TCP 80"), "{}", likely.next);
    }

    #[test]
    fn where_boots_end_alike_the_cause_is_that_of_their_end() {
        let mut machine = Machine::default();
        let boot = |machine: &mut Machine, second, stages: &[Stage]| {
            let mut first = event(second, Stage::Dhcp, StageState::Ok, Evidence::Sent);
            first.begins = Some(AttemptId(second.to_string()));
            machine.fold(first);
            for (after, stage) in (1..).zip(stages) {
                machine.fold(event(
                    second + after,
                    *stage,
                    StageState::Ok,
                    Evidence::Sent,
                ));
            }
        };
        let whole = [Stage::Script, Stage::Kernel, Stage::Initrd];
        boot(&mut machine, 0, &whole);
        boot(&mut machine, 150, &whole);
        boot(&mut machine, 300, &[]);
        let cause = |machine: &Machine, second| {
            let now = Timestamp::from_second(second).unwrap();
            stuck(machine, now).unwrap().cause.into_owned()
        };
        let told = cause(&machine, 301);
        assert!(
            told.contains("no word from the initrd") && told.contains("the 2 boots before"),
            "{told}"
        );
        // It is silent at an earlier stage now.
        assert!(cause(&machine, 400).contains("did not take it"));
        boot(&mut machine, 450, &whole);
        assert!(cause(&machine, 700).contains("no word from the initrd"));
    }

    /// A stage that may be silent for so long only has words of its own for it.
    #[test]
    fn no_stage_with_a_deadline_is_left_without_words() {
        for stage in Stage::ALL.iter().filter(|stage| stage.patience_s() > 0) {
            let evidence = match *stage >= Stage::Early {
                true => Evidence::Reported,
                false => Evidence::Sent,
            };
            let cause = cause(&[(*stage, StageState::Ok, evidence)]);
            assert_ne!(cause, "the initrd fell silent", "{stage}");
        }
    }

    #[test]
    fn each_silence_has_its_likely_cause() {
        use Evidence::{Acknowledged as Acked, Reported, Sent};
        use Stage::{
            Address, Bridge, Config, Dhcp, Drivers, Early, Identity, Initrd, Kernel, Link, Loader,
            Nic, Online, Overlay, Pool, Root, Script, StorageNet, Switch, Verify,
        };
        use StageState::{Ok, Retry};
        let offer = (Dhcp, Ok, Sent);
        let given = (Dhcp, Ok, Acked);
        let loaded = (Loader, Ok, Acked);
        for (events, words) in [
            (&[offer][..], "did not take it"),
            (&[offer, given], "no loader asked for"),
            (&[offer, given, (Loader, Retry, Sent)], "the way back"),
            (&[offer, given, (Loader, Retry, Acked)], "broke off"),
            (&[offer, given, loaded], "no script asked for"),
            (&[offer, given, (Loader, Ok, Sent)], "Secure Boot"),
            (&[offer, given, loaded, offer], "does not take the offer"),
            (&[offer, given, loaded, offer, given], "asks for no script"),
            (&[offer, (Script, Ok, Sent)], "no kernel asked for"),
            (&[offer, (Kernel, Ok, Sent)], "no initrd asked for"),
            (&[offer, (Initrd, Ok, Sent)], "no word from the initrd"),
            (&[offer, (Initrd, Retry, Sent)], "did not go through whole"),
            (&[offer, (Kernel, Retry, Sent)], "kernel did not go through"),
            // OACK sent and no ACK: the transfer is given up with nothing of it acknowledged.
            (&[offer, given, (Initrd, Retry, Sent)], "initrd did not go"),
            (&[offer, (Early, Ok, Reported)], "looked for drivers"),
            (&[offer, (Drivers, Ok, Reported)], "looked for drivers"),
            (&[offer, (Nic, Ok, Reported)], "at its NIC"),
            (&[offer, (Link, Ok, Reported)], "at its NIC"),
            (&[offer, (Bridge, Ok, Reported)], "switch port"),
            (&[offer, (Address, Ok, Reported)], "switch port"),
            (&[offer, (Config, Ok, Reported)], "has its configuration"),
            (&[offer, (Identity, Ok, Reported)], "has its configuration"),
            (&[offer, (StorageNet, Ok, Reported)], "root's server"),
            (&[offer, (Overlay, Ok, Reported)], "laid the overlay"),
            (&[offer, (Verify, Ok, Reported)], "laid the overlay"),
            (&[offer, (Switch, Ok, Reported)], "its systemd has not"),
            (&[offer, (Online, Ok, Reported)], "pool is not yet mounted"),
            (&[offer, (Root, Ok, Reported)], "root's server"),
            (&[offer, (Pool, Retry, Reported)], "pool is not mounted"),
        ] {
            let cause = cause(events);
            assert!(cause.contains(words), "{events:?}: {cause}");
        }
    }
}
