//! What a network's DHCP says beside addresses: search domains, routes, options by number, delays.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::faults::Faults;
use super::fields::Fields;
use super::firmware::Firmware;
use super::scalars::{self, Bad};
use super::suggest::quote;
use super::tree::{At, Entry, Kind, Node, Scalar};
use super::{names, nics};

/// Options that have a key of their own.
const KEYS: [(u8, &str); 9] = [
    (1, "subnet"),
    (3, "router"),
    (6, "dns"),
    (15, "domain"),
    (26, "mtu"),
    (42, "ntp"),
    (51, "lease_time"),
    (119, "search"),
    (121, "routes"),
];
/// Options that are the daemon's or the protocol's.
const OURS: [u8; 14] = [0, 12, 28, 50, 52, 53, 54, 55, 56, 57, 58, 59, 61, 82];
/// Firmware gives up long before.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// As written, each value with its place where others are held against it.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) search: Vec<String>,
    pub(super) routes: Vec<(Ipv4Net, At<Ipv4Addr>)>,
    pub(super) options: BTreeMap<u8, Vec<u8>>,
    pub(super) authoritative: bool,
    pub(super) reply_delay: BTreeMap<Firmware, Duration>,
    pub(super) ipxe_ipv6: bool,
}

/// Takes them out of a network's map.
pub(super) fn read(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Written {
    let yes_or_no = || scalars::one_of("true or false", "inventory::bad_value", scalars::BOOLEANS);
    let search = fields.list("search", faults, names::domain).into_iter();
    Written {
        search: search.map(|at| at.value).collect(),
        routes: read_routes(fields, faults),
        options: read_options(fields, faults),
        authoritative: fields
            .get("authoritative", faults, yes_or_no())
            .is_none_or(|at| at.value),
        reply_delay: read_delays(fields, faults),
        ipxe_ipv6: fields
            .get("ipxe_ipv6", faults, yes_or_no())
            .is_some_and(|at| at.value),
    }
}

/// `routes: {10.88.0.0/16: 10.77.0.254}`.
fn read_routes(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Vec<(Ipv4Net, At<Ipv4Addr>)> {
    let Some(map) = fields.map("routes", faults) else {
        return Vec::new();
    };
    let named: nics::Named<Ipv4Addr> = map.values(faults, destination, scalars::ipv4);
    let routes = named.into_iter();
    routes
        .filter_map(|(to, by)| Some((to.value.parse().ok()?, by)))
        .collect()
}

fn destination(scalar: &Scalar<'_>) -> Result<String, Bad> {
    let shown = quote(&scalar.text);
    let bad = |message: String, help: String| Err(Bad::new("inventory::bad_route", message, help));
    match scalar.text.parse::<Ipv4Net>() {
        Ok(net) if net.prefix_len() == 0 => bad(
            format!("{shown} is the default route"),
            "write it as `router`".into(),
        ),
        Ok(net) if net.trunc() != net => bad(
            format!("{shown} is an address in a subnet"),
            format!("did you mean `{}`?", net.trunc()),
        ),
        Ok(net) => Ok(net.to_string()),
        Err(_) => bad(
            format!("{shown} is not where a route leads"),
            "write network address and prefix length: 10.88.0.0/16".into(),
        ),
    }
}

/// `options: {150: [10.77.0.5, 10.77.0.6], 252: "http://…", 43: hex:0104, 23: u8:64}`.
fn read_options(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> BTreeMap<u8, Vec<u8>> {
    let Some(map) = fields.map("options", faults) else {
        return BTreeMap::new();
    };
    let entries = map.entries().iter().filter(|entry| !entry.duplicate);
    entries
        .filter_map(|entry| read_option(entry, map.what(), faults))
        .collect()
}

fn read_option(entry: &Entry<'_>, what: &str, faults: &mut Faults) -> Option<(u8, Vec<u8>)> {
    let code = option_code(&entry.key)
        .map_err(|bad| bad.report(entry.key_span, what, faults))
        .ok()?;
    let bytes = option_bytes(&entry.node)
        .map_err(|bad| bad.report(entry.node.span, what, faults))
        .ok()?;
    Some((code, bytes))
}

fn option_code(scalar: &Scalar<'_>) -> Result<u8, Bad> {
    let bad = |message: String, help: String| Bad::new("inventory::bad_option", message, help);
    let number = scalars::number("the number of a DHCP option", 1..=254)(scalar)?;
    let code = u8::try_from(number).unwrap_or(0);
    if let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == code) {
        let message = format!("option {code} has a key of its own");
        return Err(bad(message, format!("write it as `{key}`")));
    }
    if OURS.contains(&code) {
        let message = format!("option {code} is written by the daemon itself");
        return Err(bad(message, "remove it".into()));
    }
    Ok(code)
}

fn option_bytes(node: &Node<'_>) -> Result<Vec<u8>, Bad> {
    let bytes = match &node.kind {
        Kind::Scalar(scalar) => number_bytes(scalar)?.unwrap_or_else(|| text_bytes(scalar)),
        Kind::Sequence(items) => {
            let items = items.iter().map(|item| match &item.kind {
                Kind::Scalar(scalar) => number_bytes(scalar)?.ok_or_else(|| bad_item(&scalar.text)),
                _ => Err(bad_item("a list or map in a list")),
            });
            items.collect::<Result<Vec<_>, Bad>>()?.concat()
        }
        Kind::Mapping(_) | Kind::Refused => return Err(bad_item("a map")),
    };
    match bytes.len() {
        1..=255 => Ok(bytes),
        length => Err(Bad::new(
            "inventory::bad_option",
            format!("an option of {length} bytes"),
            "write 1 to 255 bytes",
        )),
    }
}

fn bad_item(what: &str) -> Bad {
    Bad::new(
        "inventory::bad_option",
        format!("{} is no part of an option", quote(what)),
        FORMS,
    )
}

const FORMS: &str = "write addresses (10.77.0.5), hex:01ff, u8:64, u16:1500 or u32:86400, one or a list; or one text in quotes";

fn text_bytes(scalar: &Scalar<'_>) -> Vec<u8> {
    scalar.text.as_bytes().to_vec()
}

/// All that is not text; a number must say how wide it is. What is in quotes is text.
fn number_bytes(scalar: &Scalar<'_>) -> Result<Option<Vec<u8>>, Bad> {
    let text = &*scalar.text;
    if !scalar.plain {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Some(address.octets().to_vec()));
    }
    let bytes = match text.split_once(':') {
        Some(("hex", digits)) => hex(digits),
        Some(("u8", number)) => number.parse().ok().map(|n: u8| vec![n]),
        Some(("u16", number)) => number.parse().ok().map(|n: u16| n.to_be_bytes().to_vec()),
        Some(("u32", number)) => number.parse().ok().map(|n: u32| n.to_be_bytes().to_vec()),
        // A bare number may be meant to have one byte, two, four, or to be digits.
        _ if text.bytes().all(|b| b.is_ascii_digit()) => None,
        _ => return scalars::unambiguous(scalar).map(|()| None),
    };
    bytes.map(Some).ok_or_else(|| bad_item(text))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.replace([':', ' '], "");
    let pair = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

/// `reply_delay: {bios: 500ms}`.
fn read_delays(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> BTreeMap<Firmware, Duration> {
    let Some(mut map) = fields.map("reply_delay", faults) else {
        return BTreeMap::new();
    };
    let mut delays = BTreeMap::new();
    for firmware in Firmware::ALL {
        let found = map.get(firmware.word(), faults, delay);
        delays.extend(found.map(|at| (firmware, at.value)));
    }
    map.finish(faults);
    delays
}

fn delay(scalar: &Scalar<'_>) -> Result<Duration, Bad> {
    let millis = scalar.text.strip_suffix("ms");
    let millis = millis.and_then(|digits| digits.parse().ok().map(Duration::from_millis));
    let found = millis.map_or_else(|| scalars::duration(scalar), Ok)?;
    if found <= MAX_DELAY {
        return Ok(found);
    }
    Err(Bad::new(
        "inventory::bad_duration",
        format!("firmware does not wait {} for a reply", scalar.text),
        "write at most 5s: 500ms, 1s",
    ))
}
