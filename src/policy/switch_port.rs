//! Where a machine is plugged in, as relays and switches say of its DHCP packets (option 82, RFC 3046).

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::discovered::text;
use crate::inventory::model::MacAddr;
use crate::wire::dhcp::Request;

/// An identifier that is no text is shown in hexadecimal up to here, octets.
const LONGEST_HEX: usize = 16;
/// When a machine that holds its lease asks by another port again after so long, and never by the one before, it was
/// moved, seconds.
const MOVED_AFTER_S: i64 = 600;
/// Two relays, or a relay and the link itself, bring one packet within so long, seconds.
const COPIES_WITHIN_S: i64 = 5;

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
    /// The port by which it got the lease, or to which it was moved since.
    #[serde(flatten)]
    pub at: SwitchPort,
    /// The other port that packets in its name came by since, if none came by the first one again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub elsewhere: Option<Elsewhere>,
    /// The last packet that came by either of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<Asked>,
}

/// Another port than that by which a machine got its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Which.
    pub port: SwitchPort,
    /// When the first packet came by it.
    pub since: Timestamp,
}

/// A packet by which a machine asked, to know its copies by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its transaction.
    pub xid: u32,
    /// When it came.
    pub at: Timestamp,
}

impl PluggedIn {
    /// What is known after a packet of transaction `xid` that came by `heard`, where `known` is of a lease that the
    /// machine holds.
    ///
    /// Anybody can send a packet in another's name; so one by another port changes nothing yet, and no time that
    /// passes after it does: who was moved asks by the new port again.
    pub fn after(
        known: Option<&Self>,
        heard: Option<SwitchPort>,
        xid: u32,
        now: Timestamp,
    ) -> Option<Self> {
        let Some(heard) = heard else {
            return known.cloned();
        };
        let asked = Some(Asked { xid, at: now });
        let is_at = |at, elsewhere| {
            Some(Self {
                at,
                elsewhere,
                asked,
            })
        };
        let Some(known) = known.filter(|known| !known.at.is_same(&heard)) else {
            return is_at(heard, None);
        };
        if known.has_copy(&heard, xid, now) {
            // Of one packet by the link itself and by a relay, the relay's says more.
            return match known.elsewhere.is_none() && known.at.words().is_none() {
                true => is_at(heard, None),
                false => Some(known.clone()),
            };
        }
        let before = known.elsewhere.as_ref();
        let since = before.filter(|before| before.port.is_same(&heard));
        let since = since.map_or(now, |before| before.since);
        if now.as_second() - since.as_second() >= MOVED_AFTER_S {
            return is_at(heard, None);
        }
        is_at(known.at.clone(), Some(Elsewhere { port: heard, since }))
    }

    /// Another port where it may be, or somebody who says so.
    pub fn disputed_by(&self) -> Option<&SwitchPort> {
        self.elsewhere.as_ref().map(|other| &other.port)
    }

    /// Whether the packet came already, by another relay or none: both of a pair of routers relay what a machine asks.
    /// What came by the same relay from another port is none: who hears a question on the wire can send its `xid`.
    fn has_copy(&self, heard: &SwitchPort, xid: u32, now: Timestamp) -> bool {
        let last = self.disputed_by().unwrap_or(&self.at);
        let is_recent = |asked: Asked| {
            let age_s = now.as_second() - asked.at.as_second();
            asked.xid == xid && (0..=COPIES_WITHIN_S).contains(&age_s)
        };
        last.relay != heard.relay && self.asked.is_some_and(is_recent)
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

    /// What is known after packets by these ports, each at its second and a transaction of its own; none: one that
    /// says nothing.
    fn known(packets: &[(i64, Option<&SwitchPort>)]) -> Option<PluggedIn> {
        let mut xid = 0;
        packets.iter().fold(None, |known, (second, heard)| {
            xid += 1;
            PluggedIn::after(known.as_ref(), heard.cloned(), xid, at(*second))
        })
    }

    /// At which port it is, and which disputes that.
    fn stands(known: Option<PluggedIn>) -> (SwitchPort, Option<SwitchPort>) {
        let known = known.unwrap();
        (known.at.clone(), known.disputed_by().cloned())
    }

    #[test]
    fn a_renewal_that_no_relay_saw_leaves_what_a_relay_said() {
        let one = port(254, "Gi1/0/1", "sw-r1");
        assert_eq!(known(&[(0, None)]), None);
        let renewed = known(&[(0, Some(&one)), (60, None), (9999, None)]);
        assert_eq!(stands(renewed), (one, None));
    }

    #[test]
    fn another_port_counts_when_it_asks_again_after_ten_minutes_and_the_first_was_silent() {
        let (one, two) = (port(254, "Gi1/0/1", "sw-r1"), port(254, "Gi1/0/2", "sw-r1"));
        let asks = |packets: &[(i64, &SwitchPort)]| {
            let packets: Vec<_> = packets
                .iter()
                .map(|(at, port)| (*at, Some(*port)))
                .collect();
            stands(known(&packets))
        };
        let disputed = (one.clone(), Some(two.clone()));
        assert_eq!(asks(&[(0, &one), (100, &two)]), disputed);
        // The time runs from its first packet.
        assert_eq!(
            asks(&[(0, &one), (100, &two), (600, &two), (699, &two)]),
            disputed
        );
        let moved = (two.clone(), None);
        assert_eq!(
            asks(&[(0, &one), (100, &two), (600, &two), (700, &two)]),
            moved
        );
        // The first one speaks up; the other begins anew.
        let both = [
            (0, &one),
            (100, &two),
            (600, &one),
            (650, &two),
            (1249, &two),
        ];
        assert_eq!(asks(&both[..3]), (one.clone(), None));
        assert_eq!(asks(&both), disputed);
    }

    #[test]
    fn one_packet_in_a_machines_name_moves_it_never_however_long_it_is_silent() {
        let (one, two) = (port(254, "Gi1/0/1", "sw-r1"), port(254, "Gi1/0/2", "sw-r1"));
        // It renews meanwhile, past the relay.
        let forged = [
            (0, Some(&one)),
            (100, Some(&two)),
            (700, None),
            (9999, None),
        ];
        assert_eq!(stands(known(&forged)), (one.clone(), Some(two.clone())));
        let mut asked = forged.to_vec();
        asked.push((10_000, Some(&one)));
        assert_eq!(stands(known(&asked)), (one.clone(), None));
        asked.push((10_001, Some(&two)));
        assert_eq!(stands(known(&asked)), (one, Some(two)));
    }

    #[test]
    fn a_copy_by_another_relay_disputes_nothing() {
        let (a, b) = (port(253, "Vl10", "rt-a"), port(254, "Vl10", "rt-b"));
        let (link, guest) = (SwitchPort::default(), port(253, "Gi7", "sw"));
        let after = |packets: &[(i64, u32, &SwitchPort)]| {
            let known = packets
                .iter()
                .fold(None, |known: Option<PluggedIn>, (second, xid, by)| {
                    PluggedIn::after(known.as_ref(), Some((*by).clone()), *xid, at(*second))
                });
            stands(known)
        };
        assert_eq!(after(&[(0, 7, &a), (5, 7, &b)]), (a.clone(), None));
        // Of one that came directly too, the relay's names the port, whichever came first.
        assert_eq!(after(&[(0, 7, &link), (0, 7, &a)]), (a.clone(), None));
        assert_eq!(after(&[(0, 7, &a), (0, 7, &link)]), (a.clone(), None));
        // Another question, the same too late, and another port of the same relay.
        let by_b = (a.clone(), Some(b.clone()));
        assert_eq!(after(&[(0, 7, &a), (0, 8, &b)]), by_b);
        assert_eq!(after(&[(0, 7, &a), (6, 7, &b)]), by_b);
        let disputed = (a.clone(), Some(guest.clone()));
        assert_eq!(after(&[(0, 7, &a), (0, 7, &guest)]), disputed);
        // Copies by the new place change nothing of since when it was heard there; one by the first ends the dispute.
        let moved = [(0, 7, &a), (9, 8, &guest), (9, 8, &b), (609, 9, &guest)];
        assert_eq!(after(&moved[..3]), disputed);
        assert_eq!(after(&moved), (guest.clone(), None));
        assert_eq!(after(&[(0, 7, &a), (9, 8, &b), (9, 8, &a)]), (a, None));
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
