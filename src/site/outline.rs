//! What is served, in outline, with the boots that are under way.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Site;
use crate::inventory::outline::Outline;
use crate::policy::progress::Standing;

impl Site {
    /// The inventory that is served, and who is booting by it: each keeps what it has fetched, and gets the rest
    /// of whatever is served by then.
    pub fn outline(&self, now: Timestamp) -> Outline {
        let snapshot = self.snapshot();
        Outline {
            under_way: self.under_way(now),
            ..snapshot.inventory.outline()
        }
    }

    fn under_way(&self, now: Timestamp) -> BTreeMap<String, String> {
        self.timeline.read(|machines| {
            let booting = machines.iter().filter(|(_, machine)| {
                matches!(machine.standing(now), Standing::Running | Standing::Stalled)
            });
            let attempt = |(id, machine): (&_, &crate::policy::progress::Machine)| {
                let id: &crate::policy::event::MachineId = id;
                Some((id.0.clone(), machine.attempt()?.id.0.clone()))
            };
            booting.filter_map(attempt).collect()
        })
    }
}
