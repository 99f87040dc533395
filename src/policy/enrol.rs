//! Machines that become hosts by themselves: which host, and why not.

use crate::inventory::model::{Host, UnknownPolicy};

/// What a host waits for that has no MAC.
pub fn awaits(host: &Host) -> String {
    let network = &host.network;
    let policy = network.unknown.policy;
    let what = match (policy, &host.serial, &host.plug) {
        (UnknownPolicy::BySerial, Some(serial), _) => {
            format!("the machine with the serial number {}", **serial)
        }
        (UnknownPolicy::ByPort, _, Some(plug)) => {
            format!("the machine at port {} of {}", *plug.port, *plug.switch)
        }
        (UnknownPolicy::NextFree, None, None) => {
            format!(
                "the next machine that is not listed, in network {}",
                network.name
            )
        }
        _ => format!(
            "add its `mac`; with the policy `{policy}` of network {} no machine becomes it by itself",
            network.name
        ),
    };
    format!("waits for its hardware: {what}")
}
