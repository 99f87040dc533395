//! A listed host that waits for its hardware, and a machine that somebody says it is.

use std::sync::Arc;

use super::ports::{by_port, plugs};
use super::{by_serial, free_host};
use crate::inventory::hardware::{PlugKey, serial_key};
use crate::inventory::model::{Host, Inventory};
use crate::policy::discovered::Discovered;

/// The host that a machine most likely is to be: by its serial number, its port (LLDP counts, as
/// somebody decides), or as the next of its network.
pub fn expected<'a>(inventory: &'a Inventory, machine: &Discovered) -> Option<&'a Arc<Host>> {
    let named = by_serial(inventory, machine).or_else(|_| by_port(inventory, machine, true));
    let named = named.ok().map(|(host, _)| host);
    let network = machine.network.as_deref()?;
    let host = named.or_else(|| free_host(inventory, network))?;
    let fits = host.waits_for_hardware() && mismatch(host, machine).is_none();
    fits.then_some(host)
}

/// What the inventory says of a host and is not so of a machine, as far as that is known.
pub fn mismatch(host: &Host, machine: &Discovered) -> Option<String> {
    network(host, machine)
        .or_else(|| serial(host, machine))
        .or_else(|| port(host, machine))
}

fn network(host: &Host, machine: &Discovered) -> Option<String> {
    let (own, asks) = (&host.network.name, machine.network.as_ref()?);
    (own != asks).then(|| format!("it is in network {own}, and the machine asks on {asks}"))
}

fn serial(host: &Host, machine: &Discovered) -> Option<String> {
    let (own, said) = (host.serial.as_ref()?, machine.identity.serial.as_ref()?);
    let same = serial_key(own) == serial_key(said);
    (!same).then(|| {
        format!(
            "its serial number is {}, and the machine says {said}",
            **own
        )
    })
}

fn port(host: &Host, machine: &Discovered) -> Option<String> {
    let (own, known) = (host.plug.as_ref()?, plugs(machine, true));
    let first = known.first()?;
    let key = |plug: &super::Plugged| PlugKey::new(&plug.switch, &plug.port);
    let same = known.iter().any(|plug| key(plug) == own.key);
    (!same).then(|| {
        format!(
            "it is at port {} of {}, and the machine at {} of {}",
            *own.port, *own.switch, first.port, first.switch
        )
    })
}
