//! Machines that wait because they say that they are a host which another machine is.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Enrolment, lock};
use crate::inventory::model::MacAddr;
use crate::policy::event::MachineId;
use crate::site::Site;

impl Enrolment {
    /// They, by that host's name.
    fn disputes(&self) -> BTreeMap<String, Vec<MacAddr>> {
        let memory = lock(&self.memory);
        let mut disputes: BTreeMap<String, Vec<MacAddr>> = BTreeMap::new();
        for (mac, (_, said)) in &memory.said.of {
            if let Some(host) = &said.disputes {
                disputes.entry(host.clone()).or_default().push(*mac);
            }
        }
        disputes
    }
}

impl Site {
    /// Hosts that another machine says it is, which waits just now: in words, by the host's name.
    pub(in crate::site) fn disputed(&self, now: Timestamp) -> BTreeMap<String, String> {
        let mut disputes = self.enrolment.disputes();
        if disputes.is_empty() {
            return BTreeMap::new();
        }
        let waiting = self.discovery.waiting(now);
        disputes.values_mut().for_each(|macs| {
            macs.retain(|mac| waiting.contains(&MachineId::unlisted(*mac).0));
            macs.sort_unstable();
        });
        disputes.retain(|_, macs| !macs.is_empty());
        let words = |(host, macs): (String, Vec<MacAddr>)| {
            let first = macs[0];
            let more = match macs.len() - 1 {
                0 => String::new(),
                more => format!(" (as do {more} more)"),
            };
            let words = format!(
                "{first} says that it is this host{more}, and is held: `bridgehead why {first}`"
            );
            (host, words)
        };
        disputes.into_iter().map(words).collect()
    }
}
