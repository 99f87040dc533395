//! `kvm[01-16]`: one entry for hosts whose names, addresses and units count up together.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::each;
use super::faults::Faults;
use super::model::MacAddr;
use super::names;
use super::nics::Named;
use super::spread::{Ports, RACKS, SWITCHES, Spread};
use super::suggest::quote;
use super::tree::{At, Entry, Scalar, Span};
use super::written::WrittenHost;

/// Hosts in one range. A /16 full of them would be a slip.
const MAX_RANGE: u32 = 4096;

/// A host's name, or the names of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    One(String),
    Range(Counted),
    /// The name is refused, and that is reported.
    Refused,
}

/// Names that differ by a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    prefix: String,
    suffix: String,
    first: u32,
    pub(super) count: u32,
    /// Digits, with leading zeros; 0 for as many as the number has.
    width: usize,
}

/// What one host of an entry takes for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seed {
    pub(super) name: String,
    pub(super) macs: Vec<At<MacAddr>>,
    pub(super) serial: Option<At<String>>,
    pub(super) plug: Option<(At<String>, At<String>)>,
    pub(super) ip: Option<At<Ipv4Addr>>,
    pub(super) nics: Named<MacAddr>,
    pub(super) addresses: Named<Ipv4Net>,
    pub(super) rack: Option<String>,
    pub(super) unit: Option<At<u16>>,
}

/// Reads a key of `hosts:`.
pub(super) fn pattern(entry: &Entry<'_>, faults: &mut Faults) -> Pattern {
    let text = &*entry.key.text;
    let read = match text.contains(['[', ']']) {
        true => {
            parse_range(text).ok_or_else(|| format!("{} is not a range of host names", quote(text)))
        }
        false => match names::host_name(&entry.key) {
            Ok(name) => return Pattern::One(name),
            Err(bad) => {
                bad.report(entry.key_span, "hosts", faults);
                return Pattern::Refused;
            }
        },
    };
    read.unwrap_or_else(|message| {
        let help = format!(
            "write first and last number in brackets: kvm[01-16]; at most {MAX_RANGE} hosts"
        );
        faults.error(
            "inventory::bad_host_range",
            entry.key_span,
            message,
            "",
            help,
        );
        Pattern::Refused
    })
}

fn parse_range(text: &str) -> Option<Pattern> {
    let names = Counted::parse(text)?;
    // The names differ in digits only, and the last is the longest.
    let legal = is_host_name(&names.name(0)) && is_host_name(&names.name(names.count - 1));
    legal.then_some(Pattern::Range(names))
}

fn is_host_name(text: &str) -> bool {
    let text = text.into();
    names::host_name(&Scalar { text, plain: false }).is_ok()
}

impl Counted {
    /// Reads `PREFIX[FIRST-LAST]SUFFIX`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once('[')?;
        let (range, suffix) = rest.split_once(']')?;
        let (first_digits, last_digits) = range.split_once('-')?;
        let number = |digits: &str| {
            let legal =
                (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            legal.then(|| digits.parse::<u32>().ok()).flatten()
        };
        let (first, last) = (number(first_digits)?, number(last_digits)?);
        let count = last.checked_sub(first)?.checked_add(1)?;
        let padded = first_digits.starts_with('0') && first_digits.len() > 1;
        let legal = count <= MAX_RANGE
            && !suffix.contains(['[', ']'])
            && (!padded || first_digits.len() == last_digits.len());
        legal.then(|| Self {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            first,
            count,
            width: if padded { first_digits.len() } else { 0 },
        })
    }

    pub(super) fn name(&self, index: u32) -> String {
        let Self { prefix, suffix, .. } = self;
        let (number, width) = (self.first + index, self.width);
        format!("{prefix}{number:0width$}{suffix}")
    }

    /// How a range of some of them is written: `kvm[04-09]`, or the name of a single one.
    pub(super) fn part(&self, index: u32, count: u32) -> String {
        if count == 1 {
            return self.name(index);
        }
        let Self { prefix, suffix, .. } = self;
        let (first, width) = (self.first + index, self.width);
        let last = first + count - 1;
        format!("{prefix}[{first:0width$}-{last:0width$}]{suffix}")
    }
}

/// What an entry spreads its hosts over.
#[derive(Default)]
struct Spreads {
    racks: Spread,
    switches: Spread,
    ports: Ports,
}

impl Spreads {
    /// `None`: they don't fit the hosts, and that is reported.
    fn read(written: &WrittenHost, hosts: u32, faults: &mut Faults) -> Option<Self> {
        let place = (hosts, written.span);
        let (rack, switch) = (written.rack.as_ref(), written.switch.as_ref());
        let racks = Spread::read(RACKS, rack, place, faults);
        let switches = Spread::read(SWITCHES, switch, place, faults)?;
        let each = switches.each(hosts);
        let ports = Ports::read(written.port.as_ref(), each, written.span, faults);
        Some(Self {
            racks: racks?,
            switches,
            ports: ports?,
        })
    }

    fn plug(&self, written: &WrittenHost, index: u32) -> Option<(At<String>, At<String>)> {
        let (switch, below) = self.switches.of(index);
        let at_written = |at: &Option<At<String>>, value| Some(self::at(at.as_ref()?.span, value?));
        let switch = at_written(&written.switch, switch)?;
        let port = at_written(&written.port, self.ports.of(below))?;
        Some((switch, port))
    }
}

/// The hosts that an entry stands for, with what counts up counted up.
pub(super) fn expand(written: &WrittenHost, faults: &mut Faults) -> Vec<Seed> {
    let (macs, serials) = (&written.macs, &written.serials);
    if !(macs.fits(each::MAC, written, faults) & serials.fits(each::SERIAL, written, faults)) {
        return Vec::new();
    }
    match &written.pattern {
        Pattern::Refused => Vec::new(),
        Pattern::One(name) => {
            let spreads = Spreads::read(written, 1, faults).unwrap_or_default();
            vec![Seed {
                name: name.clone(),
                macs: written.macs.list.clone(),
                serial: written.serials.list.first().cloned(),
                plug: spreads.plug(written, 0),
                ip: written.ip,
                nics: written.nics.clone(),
                addresses: written.addresses.clone(),
                rack: spreads.racks.of(0).0,
                unit: written.unit,
            }]
        }
        Pattern::Range(names) => expand_range(written, names, faults),
    }
}

fn expand_range(written: &WrittenHost, names: &Counted, faults: &mut Faults) -> Vec<Seed> {
    let count = names.count;
    let Some(spreads) = Spreads::read(written, count, faults) else {
        return Vec::new();
    };
    let seeds: Vec<_> = (0..count)
        .map_while(|index| seed(written, names.name(index), &spreads, index))
        .collect();
    if seeds.len() < count as usize {
        overflow(written, faults);
    }
    seeds
}

fn overflow(written: &WrittenHost, faults: &mut Faults) {
    let message = "the range counts its addresses or units beyond the last one";
    let help = "begin lower, or make the range shorter";
    faults.error("inventory::bad_host_range", written.span, message, "", help);
}

fn seed(written: &WrittenHost, name: String, spreads: &Spreads, index: u32) -> Option<Seed> {
    let (rack, below) = spreads.racks.of(index);
    let mac = match (written.macs.named(&name), written.macs.list.as_slice()) {
        (Some(named), _) => Some(named),
        (None, []) => None,
        (None, [base]) => Some(at(base.span, mac_plus(base.value, index)?)),
        (None, several) => Some(*several.get(index as usize)?),
    };
    let serials = &written.serials;
    let serial = serials.named(&name);
    let ip = match written.ip {
        Some(base) => {
            let address = u32::from(base.value).checked_add(index)?;
            Some(at(base.span, Ipv4Addr::from(address)))
        }
        None => None,
    };
    let unit = match written.unit {
        Some(base) => {
            let unit = base.value.checked_add(u16::try_from(below).ok()?)?;
            Some(at(base.span, Some(unit).filter(|unit| *unit <= 100)?))
        }
        None => None,
    };
    Some(Seed {
        name,
        macs: mac.into_iter().collect(),
        serial: serial.or_else(|| serials.list.get(index as usize).cloned()),
        plug: spreads.plug(written, index),
        ip,
        nics: plus(&written.nics, index, mac_plus)?,
        addresses: plus(&written.addresses, index, address_plus)?,
        rack,
        unit,
    })
}

fn plus<T: Copy>(
    named: &Named<T>,
    index: u32,
    plus: impl Fn(T, u32) -> Option<T>,
) -> Option<Named<T>> {
    let next = |(name, base): &(At<String>, At<T>)| {
        Some((name.clone(), at(base.span, plus(base.value, index)?)))
    };
    named.iter().map(next).collect()
}

/// Counts up within the subnet: beyond it, or as its broadcast, it is no neighbour any more.
fn address_plus(net: Ipv4Net, index: u32) -> Option<Ipv4Net> {
    let address = Ipv4Addr::from(u32::from(net.addr()).checked_add(index)?);
    let is_host = net.prefix_len() > 30 || address != net.broadcast();
    let inside = net.contains(&address) && is_host;
    inside
        .then(|| Ipv4Net::new(address, net.prefix_len()).ok())
        .flatten()
}

fn at<T>(span: Span, value: T) -> At<T> {
    At { value, span }
}

/// Counts up within the manufacturer's half: a carry into it is no neighbour any more.
pub(super) fn mac_plus(mac: MacAddr, index: u32) -> Option<MacAddr> {
    let [a, b, c, d, e, f] = mac.0;
    let low = u32::from_be_bytes([0, d, e, f]).checked_add(index)?;
    let [carry, d, e, f] = low.to_be_bytes();
    (carry == 0).then_some(MacAddr([a, b, c, d, e, f]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        let Pattern::Range(names) = parse_range(text)? else {
            return None;
        };
        Some((0..names.count).map(|index| names.name(index)).collect())
    }

    #[test]
    fn zeros_in_front_are_kept() {
        assert_eq!(names("kvm[09-11]").unwrap(), ["kvm09", "kvm10", "kvm11"]);
        assert_eq!(names("r1n[9-10]-a").unwrap(), ["r1n9-a", "r1n10-a"]);
        assert_eq!(names("n[0-1]").unwrap(), ["n0", "n1"]);
    }

    #[test]
    fn odd_ranges_are_refused() {
        for text in [
            "kvm[16-01]",
            "kvm[1-]",
            "kvm[-1]",
            "kvm[01-100]",
            "kvm[1-2",
            "kvm1-2]",
            "kvm[a-b]",
            "kvm[0-4096]",
            "[1-2]-",
            "-[1-2]",
            "kvm[1-2][1-2]",
            "kvm[1-99999999999]",
            "k_[1-2]",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_count_within_their_subnet() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        assert_eq!(
            address_plus(net("10.0.0.253/24"), 1),
            Some(net("10.0.0.254/24"))
        );
        assert_eq!(address_plus(net("10.0.0.253/24"), 2), None);
        assert_eq!(address_plus(net("10.0.0.253/24"), 3), None);
        assert_eq!(
            address_plus(net("10.0.0.255/16"), 1),
            Some(net("10.0.1.0/16"))
        );
    }

    #[test]
    fn macs_count_within_the_lower_half() {
        let mac = |text: &str| text.parse::<MacAddr>().unwrap();
        assert_eq!(
            mac_plus(mac("52:54:00:00:00:ff"), 1),
            Some(mac("52:54:00:00:01:00"))
        );
        assert_eq!(mac_plus(mac("52:54:00:ff:ff:ff"), 1), None);
    }
}
