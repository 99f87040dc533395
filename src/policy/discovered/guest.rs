//! Virtual machines, as guests on the bridges of hosts are.

use super::Discovered;
use crate::inventory::model::MacAddr;

/// How hypervisors call themselves in SMBIOS, as maker and product of their machines: by word of the kernel's "DMI:"
/// line, and of what systemd-detect-virt looks for.
const PLATFORMS: [&str; 15] = [
    "QEMU",
    "KVM",
    "VMware",
    "VirtualBox",
    "Virtual Machine",
    "Xen",
    "Bochs",
    "OpenStack",
    "Nutanix AHV",
    "oVirt",
    "RHEV Hypervisor",
    "BHYVE",
    "Parallels",
    "Google Compute Engine",
    "Apple Virtualization",
];

/// Who numbers virtual NICs from this block. What is not registered has the bit of a locally administered MAC.
fn numbered_by(mac: MacAddr) -> Option<&'static str> {
    let [a, b, c, ..] = mac.0;
    match [a, b, c] {
        [0x52, 0x54, 0x00] => Some("QEMU/KVM"),
        [0x00, 0x16, 0x3e] => Some("Xen"),
        [0x00, 0x05, 0x69] | [0x00, 0x0c, 0x29] | [0x00, 0x1c, 0x14] | [0x00, 0x50, 0x56] => {
            Some("VMware")
        }
        [0x08, 0x00, 0x27] => Some("VirtualBox"),
        [0x00, 0x15, 0x5d] => Some("Hyper-V"),
        [0xbc, 0x24, 0x11] => Some("Proxmox"),
        [0x50, 0x6b, 0x8d] => Some("Nutanix AHV"),
        // Qumranet's, who made KVM.
        [0x00, 0x1a, 0x4a] => Some("oVirt/RHV"),
        // The FreeBSD Foundation's.
        [0x58, 0x9c, 0xfc] => Some("bhyve"),
        [0x00, 0x1c, 0x42] => Some("Parallels"),
        _ => None,
    }
}

impl Discovered {
    /// Why it is taken for a virtual machine, if it is. Its serial number may be anything.
    pub fn virtual_because(&self) -> Option<String> {
        let kind = self.identity.kind();
        let platform = PLATFORMS.iter().find(|name| kind.contains(**name));
        let local = self.mac.0[0] & 2 != 0;
        match (numbered_by(self.mac), platform) {
            (Some(maker), _) => Some(format!("{maker} gives its virtual machines such MACs")),
            (None, Some(_)) => Some(format!("it calls itself {kind}")),
            // IEEE 802-2014 §8.4: the second bit of the first octet.
            (None, None) if local => {
                Some("its MAC is locally administered: no maker of NICs gave it".into())
            }
            (None, None) => None,
        }
    }
}
