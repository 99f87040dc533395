//! What was last noted of machines, within bounds.

use std::collections::HashMap;

use crate::inventory::model::MacAddr;

/// Machines that are remembered at most; as many wait as are known.
pub(super) const MOST: usize = 4096;

/// What is remembered of machines; beyond [`MOST`], what was noted longest ago goes.
#[derive(Debug)]
pub(super) struct Recent<T> {
    pub(super) of: HashMap<MacAddr, (u64, T)>,
    noted: u64,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        let of = HashMap::new();
        Self { of, noted: 0 }
    }
}

impl<T> Recent<T> {
    pub(super) fn note(&mut self, mac: MacAddr, what: T) -> Option<T> {
        if self.of.len() >= MOST && !self.of.contains_key(&mac) {
            let oldest = self.of.iter().min_by_key(|(_, (noted, _))| *noted);
            if let Some(oldest) = oldest.map(|(mac, _)| *mac) {
                self.of.remove(&oldest);
            }
        }
        self.noted += 1;
        let before = self.of.insert(mac, (self.noted, what));
        before.map(|(_, what)| what)
    }

    pub(super) fn get(&self, mac: MacAddr) -> Option<&T> {
        self.of.get(&mac).map(|(_, what)| what)
    }
}
