//! Whether the kernel's table of neighbours (ARP) has room for every host.

use std::fs;

use crate::inventory::model::Inventory;

/// The most entries that the kernel keeps, all interfaces together (arp(7)). Debian has 1,024.
const LIMIT: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

/// Says so if a storm of all hosts would fill the table: the kernel then drops packets to those that are not in it, and
/// nothing but its own log tells. The setting is the machine's, so it is the operator's to change.
pub(super) fn warn_if_few(inventory: &Inventory) {
    let limit = fs::read_to_string(LIMIT).ok();
    let limit = limit.and_then(|text| text.trim().parse().ok());
    if let Some(advice) = limit.and_then(|limit| advice(inventory.hosts.len(), limit)) {
        tracing::warn!("{advice}");
    }
}

/// Other neighbours are there, too: half of the table is for them.
fn advice(hosts: usize, limit: usize) -> Option<String> {
    let wanted = hosts.saturating_mul(2).next_power_of_two();
    (wanted > limit).then(|| {
        format!(
            "{hosts} hosts are listed and the kernel keeps {limit} neighbours (ARP) at most: when all boot together it \
             drops packets to some; set net.ipv4.neigh.default.gc_thresh3 to {wanted} by sysctl (gc_thresh2 to half of it)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_advice_only_where_hosts_are_many() {
        assert_eq!(advice(512, 1024), None);
        assert!(advice(513, 1024).unwrap().contains("gc_thresh3 to 2048"));
        assert_eq!(advice(1000, 2048), None);
        assert_eq!(advice(0, 1024), None);
    }
}
