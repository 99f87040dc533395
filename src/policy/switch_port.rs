//! Where a machine is plugged in, as relays and switches say of its DHCP packets (option 82, RFC 3046).

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::discovered::text;
use crate::inventory::model::MacAddr;
use crate::wire::dhcp::Request;

/// An identifier that is no text is shown in hexadecimal up to here, octets.
const LONGEST_HEX: usize = 16;
/// After so long at another port, with nothing from the one before, a machine that holds its lease was moved, seconds.
const MOVED_AFTER_S: i64 = 600;

/// What a relay or switch adds to a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchPort {
    /// The relay that the packet came by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relay: Option<Ipv4Addr>,
    /// The port: option 82's circuit ID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub circuit_id: Option<String>,
    /// Who the relay or switch is: option 82's remote ID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remote_id: Option<String>,
}

impl SwitchPort {
    /// Of a packet. None of one that a machine sent to our address itself: no relay had a part in it (RFC 3046 §2.1),
    /// and what its option 82 says is the sender's own word.
    pub fn heard(request: &Request, is_unicast: bool) -> Option<Self> {
        let relay = (!request.giaddr.is_unspecified()).then_some(request.giaddr);
        if relay.is_none() && is_unicast {
            return None;
        }
        let id = |code| request.relay_info(code).filter(|id| !id.is_empty());
        Some(Self {
            relay,
            circuit_id: id(1).map(identifier),
            remote_id: id(2).map(identifier),
        })
    }

    /// The port, and whose it is; nothing where no option 82 says so.
    pub fn words(&self) -> Option<String> {
        match (&self.circuit_id, &self.remote_id) {
            (Some(circuit), Some(remote)) => Some(format!("{circuit} of {remote}")),
            (Some(one), None) => Some(one.clone()),
            (None, Some(remote)) => Some(format!("a port of {remote}")),
            (None, None) => None,
        }
    }

    /// The same of any.
    pub fn name(&self) -> String {
        let nameless = || "a port that no option 82 names".to_owned();
        self.words().unwrap_or_else(nameless)
    }

    /// Whether both are one port, or none: a packet may come by either of two routers.
    fn is_same(&self, other: &Self) -> bool {
        let named = self.remote_id.is_some() || self.circuit_id.is_none();
        self.circuit_id == other.circuit_id
            && self.remote_id == other.remote_id
            && (named || self.relay == other.relay)
    }
}

/// Where the holder of a lease is plugged in; kept with the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedIn {
    /// The port by which it got the lease.
    #[serde(flatten)]
    pub at: SwitchPort,
    /// The other port that packets in its name came by since, if none came by the first one again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub elsewhere: Option<Elsewhere>,
}

/// Another port than that by which a machine got its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Which.
    pub port: SwitchPort,
    /// When the first packet came by it.
    pub since: Timestamp,
}

impl PluggedIn {
    /// What is known after a packet that came by `heard`, where `known` is of a lease that the machine holds.
    ///
    /// Anybody can send a packet in another's name; so one by another port changes nothing yet.
    pub fn after(known: Option<&Self>, heard: Option<SwitchPort>, now: Timestamp) -> Option<Self> {
        let Some(heard) = heard else {
            return known.cloned();
        };
        let here = known.map(|known| known.now_at(now));
        let at = here.filter(|here| !here.is_same(&heard));
        let at = at.unwrap_or(&heard).clone();
        let before = known.and_then(|known| known.elsewhere.as_ref());
        let since = before.filter(|before| before.port.is_same(&heard));
        let elsewhere = (!at.is_same(&heard)).then(|| Elsewhere {
            port: heard,
            since: since.map_or(now, |before| before.since),
        });
        Some(Self { at, elsewhere })
    }

    /// Where it is by now.
    pub fn now_at(&self, now: Timestamp) -> &SwitchPort {
        match &self.elsewhere {
            Some(other) if other.counts(now) => &other.port,
            _ => &self.at,
        }
    }

    /// Another port where it may be, or somebody who says so.
    pub fn disputed_by(&self, now: Timestamp) -> Option<&SwitchPort> {
        let other = self.elsewhere.as_ref()?;
        (!other.counts(now)).then_some(&other.port)
    }
}

impl Elsewhere {
    fn counts(&self, now: Timestamp) -> bool {
        now.as_second() - self.since.as_second() >= MOVED_AFTER_S
    }
}

/// RFC 3046 leaves the form to the maker. Cisco's binary one (type, length, value), which others have taken over,
/// and texts are told in words.
fn identifier(id: &[u8]) -> String {
    match id {
        [0, 4, high, low, module, port] => {
            let vlan = u16::from_be_bytes([*high, *low]);
            format!("VLAN {vlan} module {module} port {port}")
        }
        [0, 6, a, b, c, d, e, f] => MacAddr([*a, *b, *c, *d, *e, *f]).to_string(),
        [1, length, text @ ..] if usize::from(*length) == text.len() => plain(text),
        _ => plain(id),
    }
}

fn plain(id: &[u8]) -> String {
    let printable = id.iter().all(|octet| matches!(octet, b' '..=b'~'));
    let said = text(&String::from_utf8_lossy(id)).filter(|_| printable);
    said.unwrap_or_else(|| {
        let octets = id.iter().take(LONGEST_HEX);
        let hex: Vec<_> = octets.map(|octet| format!("{octet:02x}")).collect();
        let more = if id.len() > LONGEST_HEX { "…" } else { "" };
        hex.join(":") + more
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn port(relay: u8, circuit: &str, remote: &str) -> SwitchPort {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        SwitchPort {
            relay: (relay > 0).then(|| Ipv4Addr::new(10, 88, 0, relay)),
            circuit_id: some(circuit),
            remote_id: some(remote),
        }
    }

    /// What is known after packets by these ports, each at its second; none: one that says nothing.
    fn known(packets: &[(i64, Option<SwitchPort>)]) -> Option<PluggedIn> {
        packets.iter().fold(None, |known, (second, heard)| {
            PluggedIn::after(known.as_ref(), heard.clone(), at(*second))
        })
    }

    #[test]
    fn a_renewal_that_no_relay_saw_leaves_what_a_relay_said() {
        let one = port(254, "Gi1/0/1", "sw-r1");
        assert_eq!(known(&[(0, None)]), None);
        let renewed = known(&[(0, Some(one.clone())), (60, None), (120, None)]).unwrap();
        assert_eq!(renewed.now_at(at(9999)), &one);
        assert_eq!(renewed.elsewhere, None);
    }

    #[test]
    fn another_port_counts_when_it_alone_was_heard_for_ten_minutes() {
        let (one, two) = (port(254, "Gi1/0/1", "sw-r1"), port(254, "Gi1/0/2", "sw-r1"));
        let moved = known(&[(0, Some(one.clone())), (100, Some(two.clone()))]).unwrap();
        for second in [100, 699] {
            assert_eq!(moved.now_at(at(second)), &one);
            assert_eq!(moved.disputed_by(at(second)), Some(&two));
        }
        assert_eq!(moved.now_at(at(700)), &two);
        assert_eq!(moved.disputed_by(at(700)), None);
        // It asks on from there, and the time runs from the first.
        let asks = [(0, &one), (100, &two), (600, &two)].map(|(at, port)| (at, Some(port.clone())));
        assert_eq!(known(&asks).unwrap().now_at(at(700)), &two);
        let asks = [(0, &one), (100, &two), (700, &two)].map(|(at, port)| (at, Some(port.clone())));
        let settled = known(&asks).unwrap();
        assert_eq!((settled.at, settled.elsewhere), (two.clone(), None));
        // The first one speaks up; the other begins anew.
        let asks = [(0, &one), (100, &two), (600, &one), (650, &two)];
        let both = known(&asks.map(|(at, port)| (at, Some(port.clone())))).unwrap();
        assert_eq!(both.now_at(at(1249)), &one);
        assert_eq!(both.now_at(at(1250)), &two);
        // And back, after it was moved.
        let back = PluggedIn::after(Some(&both), Some(one.clone()), at(1300)).unwrap();
        assert_eq!(back.now_at(at(1899)), &two);
        assert_eq!(back.now_at(at(1900)), &one);
    }

    #[test]
    fn a_packet_by_either_of_two_routers_is_of_one_port() {
        let same = |a: &SwitchPort, b: &SwitchPort| a.is_same(b) && b.is_same(a);
        assert!(same(&port(253, "1/3", "sw"), &port(254, "1/3", "sw")));
        assert!(same(&port(253, "", ""), &port(0, "", "")));
        // The relay is what tells the switch.
        assert!(!same(&port(253, "1/3", ""), &port(254, "1/3", "")));
        assert!(!same(&port(253, "1/3", "sw"), &port(253, "1/4", "sw")));
        assert!(!same(&port(253, "1/3", "sw"), &port(253, "1/3", "sx")));
        assert!(!same(&port(253, "", ""), &port(253, "1/3", "")));
    }
}
