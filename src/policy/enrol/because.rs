//! Why a machine does not become a host by itself.

use jiff::Timestamp;

use super::{Evidence, Plugged, Sign};
use crate::inventory::model::{Host, MacAddr, UnknownPolicy};

/// Why a machine waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// It asked for an address, and not for what its loader should do.
    NotHeld,
    /// It is a host's, by `nics`.
    Nic {
        /// The host.
        host: String,
        /// Which of its NICs.
        nic: String,
        /// The MAC.
        mac: MacAddr,
        /// The one that the host has as its `mac`, if it has one alone.
        boots: Option<MacAddr>,
    },
    /// It asks where no network is.
    NoNetwork,
    /// The policy of its network lists none by itself.
    ByHand(String, UnknownPolicy),
    /// Its inventory boot has not told yet what it is.
    NoReport,
    /// It looks like a virtual machine.
    Virtual(String),
    /// Its MAC is a slip away from that of a host that was never heard of.
    Near(String),
    /// No host of its network waits for any machine.
    NoFreeHost(String),
    /// It has not said its serial number.
    NoSerial,
    /// It says a serial number that many have.
    JunkSerial(String),
    /// No host has its serial number.
    StrangeSerial(String),
    /// Nobody says where it is plugged in.
    NoPort,
    /// No host is plugged in there.
    StrangePort(Plugged),
    /// It got its lease by the first port, and packets in its name came by the other since.
    TwoPorts(String, String),
    /// The host is of another network.
    Elsewhere {
        /// The host.
        host: String,
        /// Its network.
        network: String,
        /// What makes the machine that host.
        evidence: Evidence,
    },
    /// Which of the host's MACs would go?
    SeveralMacs(String, Evidence),
    /// Another machine becomes that host just now.
    Taken(String),
    /// Nobody could be asked whether the host's machine lives.
    Unasked(String),
    /// The host's machine has joined, and it can't be asked whether it lives.
    Unproven {
        /// The host.
        host: String,
        /// The machine that would be it.
        mac: MacAddr,
        /// What that says.
        evidence: Evidence,
    },
    /// The host's machine is alive.
    Alive {
        /// The host.
        host: String,
        /// Whether the host has a MAC.
        listed: bool,
        /// How that is known.
        sign: Sign,
        /// What the other machine says.
        evidence: Evidence,
        /// When that was decided.
        now: Timestamp,
    },
}

impl Because {
    /// Whether the operator should look: a machine says that it is a host that is alive, or two have one MAC.
    pub fn is_suspicious(&self) -> bool {
        matches!(
            self,
            Self::Alive { .. } | Self::Unproven { .. } | Self::TwoPorts(..)
        )
    }

    /// The host that a machine says it is, while another machine is that host, as far as anybody knows.
    pub fn disputed(&self) -> Option<&str> {
        let (Self::Alive { host, evidence, .. } | Self::Unproven { host, evidence, .. }) = self
        else {
            return None;
        };
        (*evidence != Evidence::NextFree).then_some(host)
    }

    pub(super) fn of_nic(host: &Host, nic: &str, mac: MacAddr) -> Self {
        let boots = match host.macs.as_slice() {
            [one] => Some(**one),
            _ => None,
        };
        Self::Nic {
            host: host.name.clone(),
            nic: nic.to_owned(),
            mac,
            boots,
        }
    }

    /// The host that the machine is, or would be: it is not listed as one more.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Nic { host, .. }
            | Self::Alive { host, .. }
            | Self::Unproven { host, .. }
            | Self::Elsewhere { host, .. }
            | Self::SeveralMacs(host, _)
            | Self::Taken(host)
            | Self::Unasked(host) => Some(host),
            _ => None,
        }
    }
}
