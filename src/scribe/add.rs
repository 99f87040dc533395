//! A machine that becomes a host: what the inventory's file is to say of it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::inventory::edit::{Assignment, EditError};
use crate::inventory::model::{Host, Inventory, MacAddr};

/// A host to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewHost {
    /// Its name.
    pub name: String,
    /// The MAC that it boots from.
    pub mac: MacAddr,
    /// What it boots.
    pub profile: String,
    /// Its address; none: the next free one of `network`, outside the pool.
    pub ip: Option<Ipv4Addr>,
    /// Its rack.
    pub rack: Option<String>,
    /// Its unit in the rack.
    pub unit: Option<u16>,
    /// The network that it asks on.
    pub network: Option<String>,
    /// Addresses that somebody has of whom the inventory does not know: the daemon's own.
    pub taken: Vec<Ipv4Addr>,
}

impl NewHost {
    /// What the file is to say, and where the address is from, if it was not told. Chosen under the writer's lock: of
    /// two that are added at once, the second sees the first's address.
    pub(super) fn values(
        &self,
        inventory: &Inventory,
    ) -> Result<(Vec<Assignment>, Option<String>), EditError> {
        refuse_listed(inventory, self.mac)?;
        let (ip, words) = match self.ip {
            Some(ip) => (ip, None),
            None => {
                let (ip, words) = self.next_free(inventory).map_err(EditError::Unfit)?;
                (ip, Some(words))
            }
        };
        let rack = self.rack.iter().map(|rack| format!("rack={rack}"));
        let unit = self.unit.iter().map(|unit| format!("unit={unit}"));
        let fixed = [
            format!("mac={}", self.mac),
            format!("ip={ip}"),
            format!("profile={}", self.profile),
        ];
        let values = fixed.into_iter().chain(rack).chain(unit);
        let values = values.map(|text| assignment(&text));
        Ok((values.collect::<Result<_, _>>()?, words))
    }

    fn next_free(&self, inventory: &Inventory) -> Result<(Ipv4Addr, String), String> {
        let name = self.network.as_deref();
        let network = name.and_then(|name| inventory.networks.get(name));
        let network =
            network.ok_or("it asks on no network of the inventory; give it an address (`ip`)")?;
        let ip = inventory.next_free(network, &self.taken);
        let (name, subnet) = (&network.name, network.subnet);
        let ip = ip.ok_or_else(|| {
            format!("network {name} ({subnet}) has no free address outside its pool; make the pool smaller, or give it an address (`ip`)")
        })?;
        let pool = match network.pool {
            Some(pool) => format!(", outside its pool {}-{}", pool.first, pool.last),
            None => String::new(),
        };
        Ok((
            ip,
            format!("{ip} is the next free address of network {name}{pool}"),
        ))
    }
}

/// One MAC is one host's.
pub(super) fn refuse_listed(inventory: &Inventory, mac: MacAddr) -> Result<(), EditError> {
    let place = |host: &Host| format!("{}:{}", host.origin.file, host.origin.line);
    let words = match (inventory.by_mac.get(&mac), inventory.nic(mac)) {
        (Some(host), _) => format!("{mac} is {} already ({})", host.name, place(host)),
        (None, Some((host, nic))) => format!(
            "{mac} is the NIC {nic} of {} already ({}): if that host boots from it, make it its `mac`",
            host.name,
            place(host)
        ),
        (None, None) => return Ok(()),
    };
    Err(EditError::Unfit(words))
}

pub(super) fn assignment(text: &str) -> Result<Assignment, EditError> {
    let parsed = text.parse::<Assignment>();
    parsed.map_err(|bad| EditError::Unfit(bad.to_string()))
}
