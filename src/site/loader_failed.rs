//! What stopped a loader, as iPXE tells it by HTTP. Nothing proves it: whoever has the machine's address can say it.

use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::Site;
use super::boot::Denied;
use crate::inventory::model::MacAddr;
use crate::policy::event::{BootEvent, Evidence, MachineId, Stage, StageState};
use crate::policy::hint::ipxe_failure;
use crate::policy::progress::{Attempt, Machine};

/// Of one boot: iPXE tries six times.
const MOST: usize = 12;

impl Site {
    /// Takes in what iPXE asks with: `step=kernel&errno=0x2e008081`.
    ///
    /// # Errors
    /// [`Denied`] where `peer` is not the machine's own address; that is recorded too.
    pub fn loader_failed(&self, mac: MacAddr, peer: Ipv4Addr, query: &str) -> Result<(), Denied> {
        let host = self.snapshot().inventory.by_mac.get(&mac).cloned();
        if !self.is_its_own(host.as_ref(), mac, peer) {
            return self.tell(peer, Err(Denied::NotYours { peer, mac }));
        }
        let id = host.map_or_else(
            || MachineId::unlisted(mac),
            |host| MachineId(host.name.clone()),
        );
        let has_room = |machine: &Machine| machine.attempt().is_some_and(has_room);
        let takes = |known: Option<&Machine>| known.is_some_and(has_room);
        if self.timeline.read(|machines| takes(machines.get(&id))) {
            self.timeline.record(event(id, query).from_mac(mac));
        }
        Ok(())
    }
}

/// Whether the boot is a loader's still, and has not said it too often.
fn has_room(attempt: &Attempt) -> bool {
    let said = |event: &&BootEvent| {
        (event.evidence, event.state) == (Evidence::Unproven, StageState::Retry)
    };
    !attempt.claimed && attempt.events.iter().filter(said).count() < MOST
}

fn event(id: MachineId, query: &str) -> BootEvent {
    let value = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value)
    };
    let (stage, what) = match value("step") {
        Some("kernel") => (Stage::Kernel, "could not load the kernel"),
        Some("initrd") => (Stage::Initrd, "could not load the initrd"),
        Some("boot") => (Stage::Initrd, "could not start the kernel"),
        _ => (Stage::Script, "could not go on"),
    };
    let error = value("errno").and_then(number).map(ipxe_failure);
    let error = error.unwrap_or_else(|| "it does not say why".to_owned());
    let message = format!("iPXE {what}: {error}");
    let now = Timestamp::now();
    let mut event = BootEvent::sent(now, id, stage, StageState::Retry, message);
    event.evidence = Evidence::Unproven;
    event
}

/// iPXE writes `${errno}` as `0x2e008081`.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let number = u32::from_str_radix(digits, radix).ok();
    number.filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ipxe_says_is_said_in_words_with_its_number() {
        let told = |query: &str| {
            let event = event(MachineId("kvm01".into()), query);
            (event.stage, event.message)
        };
        let (stage, message) = told("step=kernel&errno=0x2e008081");
        assert_eq!(stage, Stage::Kernel);
        assert!(
            message
                .starts_with("iPXE could not load the kernel: the file is not for this firmware")
                && message.ends_with("(https://ipxe.org/2e008081)"),
            "{message}"
        );
        let (stage, message) = told("errno=825266179&step=boot");
        assert!(message.contains("ran out of memory"), "{message}");
        assert_eq!(stage, Stage::Initrd);
        for odd in [
            "",
            "step=x",
            "errno=",
            "errno=0x0",
            "errno=0xfffffffff",
            "&&=&errno=\u{1b}[2J",
        ] {
            let (stage, message) = told(odd);
            assert_eq!(stage, Stage::Script, "{odd}");
            assert_eq!(message, "iPXE could not go on: it does not say why");
        }
    }

    #[test]
    fn a_boot_hears_it_so_often_and_not_once_it_speaks_for_itself() {
        let mut machine = Machine::default();
        let id = MachineId("kvm01".into());
        let message = "gave 10.77.0.11".to_owned();
        let mut first = BootEvent::sent(
            Timestamp::UNIX_EPOCH,
            id.clone(),
            Stage::Dhcp,
            StageState::Ok,
            message,
        );
        first.begins = Some(crate::policy::event::AttemptId("a".into()));
        machine.fold(first);
        for _ in 0..MOST {
            assert!(has_room(machine.attempt().unwrap()));
            machine.fold(event(id.clone(), "step=kernel&errno=0x2e008081"));
        }
        assert!(!has_room(machine.attempt().unwrap()));
    }
}
