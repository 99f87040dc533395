//! `bridgehead check --live`: what is on the networks.

use std::fmt::Write;

use crate::cli::Failure;
use crate::daemon;
use crate::dhcp;
use crate::inventory::model::{DhcpMode, Inventory};

/// Looks for other DHCP servers on every interface that `serve` would serve.
pub(super) fn look(inventory: &Inventory, interfaces: &[String]) -> Result<String, Failure> {
    let interfaces =
        daemon::choose_interfaces(interfaces, inventory).map_err(|error| Failure::of(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("start the runtime", &error))?;
    let mut text = String::new();
    for interface in &interfaces {
        let Some(network) = dhcp::served(inventory, interface) else {
            continue;
        };
        let operation = format!("look for other DHCP servers on {}", interface.name);
        let looked = runtime
            .block_on(dhcp::look(interface))
            .map_err(|error| Failure::failed(&operation, &error))?;
        let (on, name) = (&interface.name, &network.name);
        let heard = &looked.heard;
        for one in heard {
            let (what, advice) = (one.describe(), one.advice(network));
            let _ = writeln!(text, "{on}: another DHCP server: {what}; {advice}");
        }
        if let Some(more) = looked.and_more(on) {
            let _ = writeln!(text, "{more}");
        }
        let gives = heard.iter().any(|one| !one.address.is_unspecified());
        if network.dhcp == DhcpMode::Proxy && !gives {
            let _ = writeln!(
                text,
                "{on}: no DHCP server gives addresses, and network {name} is `dhcp: proxy`: start that server, or set `dhcp: server`"
            );
        } else if heard.is_empty() {
            let _ = writeln!(text, "{on}: no other DHCP server answers");
        }
    }
    Ok(text)
}
