//! What is served, in outline, with the boots that are under way.

use jiff::Timestamp;

use super::Site;
use crate::inventory::outline::Outline;

impl Site {
    /// The inventory that is served, and who is booting: to each an edit applies at its next boot.
    pub fn outline(&self, now: Timestamp) -> Outline {
        let snapshot = self.snapshot();
        Outline {
            under_way: self.under_way(now),
            ..snapshot.inventory.outline()
        }
    }
}
