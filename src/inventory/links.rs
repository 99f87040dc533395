//! Network interfaces of a host beside and below its boot bridge, checked and in build order.

use std::fmt;

/// The role of the NICs that firmware boots from.
pub const BOOT_ROLE: &str = "boot";

/// The bridge that the initrd builds before it mounts the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Interface name, at most 15 bytes (`IFNAMSIZ`).
    pub name: String,
    /// MTU of bridge and port, 1280 to 9216.
    pub mtu: u16,
    /// The VLAN of NIC or bond that it stands on, 1 to 4094; `None`: untagged.
    pub vlan: Option<u16>,
    /// The bond that it stands on; `None`: the NIC that the firmware booted from.
    pub bond: Option<Bond>,
}

/// A bond (Linux `bonding`) of NICs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// Interface name.
    pub name: String,
    /// The roles of its NICs, `boot` or keys of the host's `nics`; never empty.
    pub ports: Vec<String>,
    /// How the ports share the work.
    pub mode: BondMode,
    /// How often the links are looked at, milliseconds.
    pub miimon: u16,
    /// `slow` or `fast`: how often LACP asks its partner (802.3ad).
    pub lacp_rate: Option<&'static str>,
    /// What is hashed to choose a port (`xmit_hash_policy`).
    pub hash: Option<&'static str>,
    /// The role of the port that is preferred.
    pub primary: Option<String>,
}

/// The kernel's bonding modes (Documentation/networking/bonding.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondMode {
    /// One port at a time; needs nothing of the switch.
    ActiveBackup,
    /// LACP (IEEE 802.1AX, once 802.3ad).
    Lacp,
    /// Frame by frame over all ports.
    BalanceRr,
    /// By hash over all ports; a static trunk on the switch.
    BalanceXor,
    /// Every frame on every port.
    Broadcast,
    /// By load when sending.
    BalanceTlb,
    /// By load, also when receiving, by answering ARP with other MACs.
    BalanceAlb,
}

impl BondMode {
    /// The word that sysfs takes (`bonding/mode`).
    pub fn name(self) -> &'static str {
        match self {
            Self::ActiveBackup => "active-backup",
            Self::Lacp => "802.3ad",
            Self::BalanceRr => "balance-rr",
            Self::BalanceXor => "balance-xor",
            Self::Broadcast => "broadcast",
            Self::BalanceTlb => "balance-tlb",
            Self::BalanceAlb => "balance-alb",
        }
    }

    /// Whether the mode rewrites the MACs of frames, which guests behind a bridge don't bear.
    pub fn rewrites_macs(self) -> bool {
        matches!(self, Self::BalanceTlb | Self::BalanceAlb)
    }

    /// Whether the mode has one port that it prefers.
    pub fn has_primary(self) -> bool {
        matches!(
            self,
            Self::ActiveBackup | Self::BalanceTlb | Self::BalanceAlb
        )
    }

    /// Whether the mode chooses ports by a hash.
    pub fn hashes(self) -> bool {
        matches!(self, Self::Lacp | Self::BalanceXor | Self::BalanceTlb)
    }
}

impl fmt::Display for BondMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An interface that the initrd builds beside the boot bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, at most 15 bytes (`IFNAMSIZ`).
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// MTU, 1280 to 9216; not above that of what it stands on.
    pub mtu: u16,
    /// Whether a boot without it has failed.
    pub required: bool,
}

/// What an interface is, and what it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A NIC that takes the interface's name.
    Nic {
        /// Its role, a key of the host's `nics`.
        role: String,
    },
    /// A VLAN (IEEE 802.1Q) of another interface.
    Vlan {
        /// The interface that it stands on.
        on: String,
        /// VLAN id, 1 to 4094.
        id: u16,
    },
    /// A bridge.
    Bridge {
        /// The interfaces that are its ports; never empty.
        ports: Vec<String>,
    },
    /// A bond of NICs.
    Bond(Bond),
}

impl InterfaceKind {
    /// The names of the interfaces that must stand before this one.
    pub fn below(&self) -> &[String] {
        match self {
            Self::Vlan { on, .. } => std::slice::from_ref(on),
            Self::Bridge { ports } => ports,
            Self::Nic { .. } | Self::Bond(_) => &[],
        }
    }

    /// The roles of the NICs that it takes for itself.
    pub fn roles(&self) -> &[String] {
        match self {
            Self::Nic { role } => std::slice::from_ref(role),
            Self::Bond(bond) => &bond.ports,
            Self::Vlan { .. } | Self::Bridge { .. } => &[],
        }
    }
}
