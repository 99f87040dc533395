//! What keeps the daemon itself from serving as it should, as it is now: whoever looks at hosts that do not come must
//! see it first.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::Site;
use crate::inventory::model::Network;

/// Which part of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// An interface that is served.
    Interface,
    /// An interface that is to be served and had no carrier since the start, beside one that is served.
    Spare,
    /// The journal of leases: what is not on disk is not given.
    Leases,
    /// The log of boot events.
    Events,
    /// An interface that DHCP could not be had on.
    Port,
    /// The process that edits the inventory's file.
    Scribe,
    /// What is kept of the inventory for a restart.
    Kept,
}

impl Part {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::Interface,
        Self::Spare,
        Self::Leases,
        Self::Events,
        Self::Port,
        Self::Scribe,
        Self::Kept,
    ];

    /// The word in `/readyz` and the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Spare => "spare",
            Self::Leases => "leases",
            Self::Events => "events",
            Self::Port => "port",
            Self::Scribe => "scribe",
            Self::Kept => "kept",
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
    /// The interface's own addresses at the start, of trouble with one: it concerns the hosts of their networks.
    #[serde(skip)]
    places: Vec<Ipv4Addr>,
}

impl Trouble {
    /// Of a part that is for all hosts alike.
    pub(crate) fn of(part: Part, message: String) -> Self {
        let places = Vec::new();
        Self {
            part,
            message,
            places,
        }
    }
}

/// All that is wrong now.
#[derive(Debug, Default)]
pub struct Troubles {
    now: Mutex<BTreeMap<(Part, String), Trouble>>,
    /// The own addresses of the interfaces that are served.
    served: OnceLock<BTreeMap<String, Vec<Ipv4Addr>>>,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Part, String), Trouble>> {
        // Every change is one call.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is wrong with `what` (an interface's name) of the part, or nothing is. Whether that is new.
    pub fn set(&self, part: Part, what: &str, message: Option<String>) -> bool {
        let key = (part, what.to_owned());
        let mut all = self.lock();
        let Some(message) = message else {
            return all.remove(&key).is_some();
        };
        let places = self.served().get(what).cloned().unwrap_or_default();
        let trouble = Trouble {
            places,
            ..Trouble::of(part, message)
        };
        all.insert(key, trouble.clone()) != Some(trouble)
    }

    /// Which interfaces the start serves, by name with their own addresses.
    pub fn serves(&self, interfaces: BTreeMap<String, Vec<Ipv4Addr>>) {
        // There is one start.
        let _ = self.served.set(interfaces);
    }

    fn served(&self) -> &BTreeMap<String, Vec<Ipv4Addr>> {
        static NONE: BTreeMap<String, Vec<Ipv4Addr>> = BTreeMap::new();
        self.served.get().unwrap_or(&NONE)
    }
}

impl Site {
    /// What is wrong with the daemon itself, the worst first.
    pub fn troubles(&self) -> Vec<Trouble> {
        let mut all: Vec<_> = self.troubles.lock().values().cloned().collect();
        let leases = self.journal.unwritten();
        all.extend(leases.map(|message| Trouble::of(Part::Leases, message)));
        let events = self.timeline.unwritten();
        all.extend(events.map(|message| Trouble::of(Part::Events, message)));
        let scribe = self.scribe.gone();
        all.extend(scribe.map(|why| Trouble::of(Part::Scribe, why.to_owned())));
        all.sort_by_key(|trouble| trouble.part);
        all
    }

    /// What of it keeps a host of this network from booting, or any host where that is not known. Who comes by a relay
    /// may come by any interface.
    pub(super) fn troubles_on(&self, network: Option<&Network>) -> Vec<Trouble> {
        let here = |address: &Ipv4Addr| network.is_some_and(|on| on.subnet.contains(address));
        let served = self.troubles.served();
        let direct = served.values().flatten().any(here);
        let concerns = |trouble: &Trouble| match trouble.part {
            Part::Interface if direct => trouble.places.iter().any(here),
            Part::Spare => trouble.places.iter().any(here),
            part => part.stops_boots(),
        };
        self.troubles().into_iter().filter(concerns).collect()
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
        let taken = Some("port 67 is taken".to_owned());
        assert!(site.troubles.set(Part::Port, "eth0", taken));
        assert!(site.troubles.set(Part::Interface, "eth0", down()));
        assert!(!site.troubles.set(Part::Interface, "eth0", down()));
        let parts: Vec<_> = site.troubles().iter().map(|one| one.part).collect();
        assert_eq!(parts, [Part::Interface, Part::Port]);
        assert!(site.troubles.set(Part::Interface, "eth0", None));
        assert!(!site.troubles.set(Part::Interface, "eth0", None));
        assert_eq!(site.troubles().len(), 1);
    }

    #[test]
    fn an_interface_concerns_the_hosts_of_its_networks_and_those_behind_relays() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let at = |address: &str| vec![address.parse().unwrap()];
        let served = [("eth0", at("10.77.0.1")), ("eth1", at("10.66.0.1"))];
        let served = served.map(|(name, at)| (name.to_owned(), at));
        site.troubles.serves(served.into());
        for (part, name) in [(Part::Interface, "eth0"), (Part::Spare, "eth1")] {
            site.troubles.set(part, name, Some(name.to_owned()));
        }
        let text = "networks: {near: {subnet: 10.77.0.0/24}, other: {subnet: 10.66.0.0/24}, far: {subnet: 10.55.0.0/24}}";
        let (inventory, _) = crate::inventory::parse("hosts.yaml", text).unwrap();
        let told = |network: &str| -> Vec<_> {
            let network = inventory.networks.get(network).map(AsRef::as_ref);
            let told = site.troubles_on(network).into_iter();
            told.map(|trouble| trouble.message).collect()
        };
        assert_eq!(told("near"), ["eth0"]);
        assert_eq!(told("other"), ["eth1"]);
        assert_eq!(told("far"), ["eth0"]);
        assert_eq!(told("unknown"), ["eth0"]);
    }
}
