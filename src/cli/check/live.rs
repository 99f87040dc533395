//! `bridgehead check --live`: what is on the networks.

use std::fmt::Write;
use std::io;

use tokio::runtime::Runtime;

use crate::cli::Failure;
use crate::daemon;
use crate::dhcp::{self, Interface, Looked};
use crate::inventory::model::{DhcpMode, Inventory, Network};

/// What was seen, and whether all that should be could be.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) text: String,
    pub(super) failure: Option<Failure>,
}

/// Looks for other DHCP servers on every interface that `serve` would serve, and says what was not
/// asked, and why.
pub(super) fn look(inventory: &Inventory, named: &[String]) -> Result<Live, Failure> {
    let mut live = Live::default();
    for fault in daemon::address_faults(inventory) {
        let _ = writeln!(live.text, "{fault}");
    }
    let interfaces = daemon::choose_interfaces(named, inventory).unwrap_or_else(|error| {
        live.failure = Some(Failure::of(&error));
        Vec::new()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("start the runtime", &error))?;
    for interface in &interfaces {
        live.ask(&runtime, inventory, interface);
    }
    if named.is_empty() {
        live.text += &not_here(inventory, &interfaces)?;
    }
    Ok(live)
}

impl Live {
    fn ask(&mut self, runtime: &Runtime, inventory: &Inventory, interface: &Interface) {
        let here = dhcp::served(inventory, interface);
        let on = &interface.name;
        if here.is_empty() {
            let _ = writeln!(self.text, "{on}: not asked: `dhcp: off` for its networks");
            return;
        }
        match runtime.block_on(dhcp::look(interface)) {
            Ok(looked) => self.text += &told(on, &here, &looked),
            Err(error) => {
                let advice = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        " (it takes root, or the capability CAP_NET_RAW: run it with sudo)"
                    }
                    _ => "",
                };
                let _ = writeln!(self.text, "{on}: not asked: {error}{advice}");
                let operation = "look for other DHCP servers on every interface";
                self.failure = Some(Failure::failed(operation, &error));
            }
        }
    }
}

fn told(on: &str, here: &[&Network], looked: &Looked) -> String {
    let mut text = String::new();
    for one in &looked.heard {
        let what = one.describe();
        let advice = one.counts_to(here).map(|network| one.advice(network));
        let advice = advice.unwrap_or_default();
        let _ = writeln!(text, "{on}: another DHCP server: {what}; {advice}");
    }
    let nobody = looked.nobody_gives(on, here);
    if looked.heard.is_empty() && nobody.is_none() {
        let _ = writeln!(text, "{on}: no other DHCP server answers");
    }
    for more in [looked.and_more(on), nobody].into_iter().flatten() {
        let _ = writeln!(text, "{more}");
    }
    text
}

/// Networks that lie on none of the interfaces, and interfaces that lie in none of the networks.
fn not_here(inventory: &Inventory, interfaces: &[Interface]) -> Result<String, Failure> {
    let mut text = String::new();
    let is_here = |network: &Network| {
        let mut all = interfaces.iter().flat_map(|one| &one.addresses);
        all.any(|address| network.subnet.contains(address))
    };
    let networks = inventory.networks.values();
    for network in networks.filter(|network| network.dhcp != DhcpMode::Off && !is_here(network)) {
        let (name, subnet) = (&network.name, network.subnet);
        let _ = writeln!(
            text,
            "network {name}: not asked: no interface has an address in {subnet}; its machines come by relays"
        );
    }
    let strangers = daemon::strangers(interfaces).map_err(|error| Failure::of(&error))?;
    if !strangers.is_empty() {
        let names: Vec<_> = strangers.into_iter().collect();
        let _ = writeln!(
            text,
            "not asked, without an address in a network of the inventory: {}",
            names.join(", ")
        );
    }
    Ok(text)
}
