//! What is served, in outline, with the boots that are under way.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Site;
use crate::inventory::outline::Outline;
use crate::policy::event::MachineId;
use crate::policy::progress::Machine;

impl Site {
    /// The inventory that is served, and who is booting: to each an edit applies at its next boot.
    pub fn outline(&self, now: Timestamp) -> Outline {
        let snapshot = self.snapshot();
        Outline {
            under_way: self.under_way(now),
            ..snapshot.inventory.outline()
        }
    }

    fn under_way(&self, now: Timestamp) -> BTreeMap<String, String> {
        self.timeline.read(|machines| {
            let attempt = |(id, machine): (&MachineId, &Machine)| {
                let attempt = machine.under_way(now).next()?;
                Some((id.0.clone(), attempt.id.0.clone()))
            };
            machines.iter().filter_map(attempt).collect()
        })
    }
}
