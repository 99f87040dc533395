//! What a decision is told as.

use super::Question;
use crate::policy::boot_target::is_grub;
use crate::policy::event::{BootEvent, Evidence, MachineId, Stage, StageState};
use crate::policy::lease::LeaseChange;
use crate::policy::verdict::{Because, Transmit, Verdict};
use crate::wire::dhcp::{MessageType, Reply};

impl Question<'_> {
    fn machine(&self) -> MachineId {
        self.host.map_or_else(
            || MachineId::unlisted(self.client.mac),
            |host| MachineId(host.name.clone()),
        )
    }

    /// One event per packet, in plain words; [`Because`] says why.
    pub(super) fn events(&self, verdict: &Verdict) -> Vec<BootEvent> {
        let (state, message) = match &verdict.reply {
            Some(transmit) => {
                let (state, message) = self.answered(transmit, &verdict.because);
                (
                    state,
                    message + &self.left_out(transmit) + &self.elsewhere(verdict),
                )
            }
            None => self.unanswered(verdict),
        };
        let mut event = BootEvent::sent(self.now, self.machine(), Stage::Dhcp, state, message);
        // Its REQUEST proves that the offer was heard.
        let reply = verdict.reply.as_ref().map(|transmit| &transmit.reply);
        if reply.is_some_and(|reply| reply.message_type == MessageType::Ack) {
            event.evidence = Evidence::Acknowledged;
        }
        vec![event.from_mac(self.client.mac)]
    }

    /// Why the boot file is not what the profile says.
    fn in_place_of(&self) -> String {
        let network = self.network();
        let why = network
            .ok()
            .and_then(|at| self.choice(at).in_place_of(&self.client));
        why.map_or_else(String::new, |why| format!(" ({why})"))
    }

    /// GRUB reads its server off the ACK that gave the address, whoever told the firmware what to boot (2.06, `efinet.c` and
    /// i386-pc `pxe.c`).
    fn at_next_server(&self, reply: &Reply) -> String {
        match is_grub(&reply.boot_file) {
            true => format!(
                ". GRUB looks for its config where the DHCP server's answer says: have that name {} as next server",
                reply.next_server
            ),
            false => String::new(),
        }
    }

    /// The operator may wonder where an option of his is.
    fn left_out(&self, transmit: &Transmit) -> String {
        let codes = transmit.reply.left_out(self.request());
        let codes: Vec<_> = codes.iter().map(u8::to_string).collect();
        match codes.is_empty() {
            true => String::new(),
            false => format!(" (left out for want of room: {})", codes.join(", ")),
        }
    }

    /// A machine that holds its lease, or somebody in its name, asks by another port.
    fn elsewhere(&self, verdict: &Verdict) -> String {
        let Some(LeaseChange::Bind {
            port: Some(port), ..
        }) = &verdict.lease_change
        else {
            return String::new();
        };
        port.disputed_by().map_or_else(String::new, |other| {
            format!(
                ". It asks by {}, and got its lease by {}: it was moved, or two machines have its MAC",
                other.name(),
                port.at.name()
            )
        })
    }

    fn answered(&self, transmit: &Transmit, because: &Because) -> (StageState, String) {
        let reply = &transmit.reply;
        let boot = match reply.boot_file.as_str() {
            "" if self.world.leaves_for_disk => {
                format!(", and nothing to boot ({})", Because::LeavesForDisk)
            }
            "" => String::new(),
            file => format!(", boot file {file}{}", self.in_place_of()),
        };
        // An operating system that renews is no step of a boot, nor is firmware on its way to the disk.
        let state = if self.client.boots() && !self.world.leaves_for_disk {
            StageState::Ok
        } else {
            StageState::Info
        };
        match reply.message_type {
            _ if matches!(because, Because::Beside { .. }) => (
                state,
                format!(
                    "told {} what to boot, and gave no address{boot}: {because}{}",
                    self.client,
                    self.at_next_server(reply)
                ),
            ),
            MessageType::Offer => (
                state,
                format!(
                    "offered {} to {}{boot}: {because}",
                    reply.yiaddr, self.client
                ),
            ),
            MessageType::Nak => (StageState::Info, format!("NAK: {because}")),
            _ if reply.yiaddr.is_unspecified() => {
                (StageState::Info, format!("INFORM answered: {because}"))
            }
            _ => (
                state,
                format!("gave {} to {}{boot}: {because}", reply.yiaddr, self.client),
            ),
        }
    }

    fn unanswered(&self, verdict: &Verdict) -> (StageState, String) {
        let (request, because) = (self.request(), &verdict.because);
        // To another server, or where we give no addresses: not our business.
        let noted = (*because == Because::Noted).then_some(request.message_type);
        match (noted, request.requested_address()) {
            (Some(MessageType::Decline), Some(address)) if !self.holds(address) => (
                StageState::Ignored,
                format!("declines {address}, which it does not have"),
            ),
            (Some(MessageType::Decline), Some(address)) => (
                StageState::Degraded,
                format!(
                    "says that {address} is in use by another machine: find that one (arping {address})"
                ),
            ),
            (Some(MessageType::Release), _) if verdict.lease_change.is_some() => {
                (StageState::Info, "gave its address back".into())
            }
            (Some(MessageType::Release), _) => (
                StageState::Ignored,
                format!("releases {}, which it does not have", request.ciaddr),
            ),
            _ => (
                StageState::Ignored,
                format!(
                    "no answer to {:?} ({}): {because}",
                    request.message_type, self.client
                ),
            ),
        }
    }
}
