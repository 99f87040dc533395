//! Which host a machine is by the switch port that it is plugged into.

use super::{Because, Evidence, Found, Plugged};
use crate::inventory::hardware::PlugKey;
use crate::inventory::model::Inventory;
use crate::policy::discovered::Discovered;

pub(super) fn by_port<'a>(
    inventory: &'a Inventory,
    machine: &Discovered,
    believes_lldp: bool,
) -> Result<Found<'a>, Because> {
    if let Some(other) = &machine.elsewhere {
        let at = machine.port.clone().unwrap_or_else(|| "another".into());
        return Err(Because::TwoPorts(at, other.clone()));
    }
    let plugs = plugs(machine, believes_lldp);
    let first = plugs.first().cloned().ok_or(Because::NoPort)?;
    for plug in plugs {
        let key = PlugKey::new(&plug.switch, &plug.port);
        if let Some(host) = inventory.by_plug.get(&key) {
            return Ok((host, Evidence::Port(plug)));
        }
    }
    Err(Because::StrangePort(first))
}

/// Every way to say where a machine is plugged in. What a relay or switch adds to its packets (option 82) goes before
/// what the machine heard by LLDP, which a guest on the wire can forge, and counts only where that is allowed.
pub(super) fn plugs(machine: &Discovered, believes_lldp: bool) -> Vec<Plugged> {
    let heard = machine.neighbour().filter(|_| believes_lldp);
    let (switches, ports) = match (&machine.circuit_id, heard) {
        (Some(circuit), _) => {
            let relay = machine.relay.map(|relay| relay.to_string());
            let switches = machine.remote_id.clone().into_iter().chain(relay);
            let short = module_and_port(circuit);
            (
                switches.collect::<Vec<_>>(),
                vec![Some(circuit.clone()), short],
            )
        }
        (None, Some(heard)) => {
            let ports = vec![Some(heard.port.clone()), heard.port_description.clone()];
            (vec![heard.switch.clone()], ports)
        }
        (None, None) => return Vec::new(),
    };
    let ports: Vec<String> = ports.into_iter().flatten().collect();
    let at = |switch: String| {
        let ports = ports.iter().cloned();
        let plugged = move |port| Plugged {
            switch: switch.clone(),
            port,
        };
        ports.map(plugged).collect::<Vec<_>>()
    };
    switches.into_iter().flat_map(at).collect()
}

/// `1/3` of `VLAN 10 module 1 port 3`: the VLAN may change.
fn module_and_port(circuit: &str) -> Option<String> {
    let rest = circuit.strip_prefix("VLAN ")?;
    let (_, rest) = rest.split_once(" module ")?;
    let (module, port) = rest.split_once(" port ")?;
    Some(format!("{module}/{port}"))
}
