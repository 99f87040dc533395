//! What keeps the daemon itself from serving as it should, as it is now: whoever looks at hosts that do not come must
//! see it first.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Site;

/// Which part of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// An interface that is served.
    Interface,
    /// The journal of leases: what is not on disk is not given.
    Leases,
    /// The log of boot events.
    Events,
    /// An interface that DHCP could not be had on.
    Port,
    /// The process that edits the inventory's file.
    Scribe,
}

impl Part {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::Interface,
        Self::Leases,
        Self::Events,
        Self::Port,
        Self::Scribe,
    ];

    /// The word in `/readyz` and the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Leases => "leases",
            Self::Events => "events",
            Self::Port => "port",
            Self::Scribe => "scribe",
        }
    }

    /// Whether machines don't boot for it.
    pub const fn stops_boots(self) -> bool {
        matches!(self, Self::Interface | Self::Leases)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Where.
    pub part: Part,
    /// What it is, what comes of it, and what to do.
    pub message: String,
}

/// All that is wrong now.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<(Part, String), String>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Part, String), String>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is wrong with `what` (an interface's name) of the part, or nothing is. Whether that is new.
    pub fn set(&self, part: Part, what: &str, message: Option<String>) -> bool {
        let key = (part, what.to_owned());
        let mut all = self.lock();
        match message {
            Some(message) => all.insert(key, message.clone()) != Some(message),
            None => all.remove(&key).is_some(),
        }
    }
}

impl Site {
    /// What is wrong with the daemon itself, the worst first.
    pub fn troubles(&self) -> Vec<Trouble> {
        let known = self.troubles.lock();
        let mut all: Vec<_> = known
            .iter()
            .map(|((part, _), message)| Trouble {
                part: *part,
                message: message.clone(),
            })
            .collect();
        drop(known);
        all.extend(self.timeline.unwritten().map(|message| Trouble {
            part: Part::Events,
            message,
        }));
        all.extend(self.scribe.gone().map(|why| Trouble {
            part: Part::Scribe,
            message: why.to_owned(),
        }));
        all.sort_by_key(|trouble| trouble.part);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;

    #[test]
    fn what_is_wrong_is_listed_until_it_is_mended_and_new_but_once() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        assert!(site.troubles().is_empty());
        let down = || Some("eth0 is down".to_owned());
        let full = Some("the disk is full".to_owned());
        assert!(site.troubles.set(Part::Leases, "eth0", full));
        assert!(site.troubles.set(Part::Interface, "eth0", down()));
        assert!(!site.troubles.set(Part::Interface, "eth0", down()));
        let parts: Vec<_> = site.troubles().iter().map(|one| one.part).collect();
        assert_eq!(parts, [Part::Interface, Part::Leases]);
        assert!(site.troubles.set(Part::Interface, "eth0", None));
        assert!(!site.troubles.set(Part::Interface, "eth0", None));
        assert_eq!(site.troubles().len(), 1);
    }
}
