//! Single values: a scalar's text to a typed value, or a [`Bad`] that says what to write.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::faults::Faults;
use super::model::{AddressRange, MacAddr};
use super::suggest::{known, nearest, quote};
use super::tree::{Scalar, Span};

/// Why a value is refused.
#[derive(Debug)]
pub(super) struct Bad {
    code: &'static str,
    message: String,
    help: String,
}

impl Bad {
    pub(super) fn new(
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            help: help.into(),
        }
    }

    /// The same reason about something else.
    pub(super) fn renamed(self, message: String) -> Self {
        Self { message, ..self }
    }

    pub(super) fn report(self, span: Span, what: &str, faults: &mut Faults) {
        faults.error(
            self.code,
            span,
            self.message,
            format!("in {what}"),
            self.help,
        );
    }
}

/// What YAML readers make of a plain scalar that we would take as text, if anything else.
///
/// The rules are those of YAML 1.1 (yaml.org/type) too: editors, linters and scripts that read
/// the same file follow them, and the operator should not have to know who does.
pub(super) fn misread(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    if matches!(
        &*lower,
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false"
    ) {
        return Some("a boolean");
    }
    let digits = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    let all = |set: fn(u8) -> bool| !digits.is_empty() && digits.bytes().all(set);
    if is_sexagesimal(digits) {
        return Some("a number in base 60");
    }
    if ["0x", "0o", "0b"]
        .iter()
        .any(|prefix| digits.starts_with(prefix))
    {
        return Some("a number in another base");
    }
    if digits.len() > 1 && digits.starts_with('0') && all(|b| matches!(b, b'0'..=b'7' | b'_')) {
        return Some("an octal number");
    }
    if digits.starts_with(|c: char| c.is_ascii_digit())
        && all(|b| b.is_ascii_digit() || b == b'_')
        && (digits.contains('_') || (digits.len() > 1 && digits.starts_with('0')))
    {
        return Some("a number with another spelling");
    }
    let float = digits.contains(['.', 'e']) && digits.parse::<f64>().is_ok();
    if float || matches!(digits, ".inf" | ".nan") {
        return Some("a floating-point number");
    }
    is_date(text).then_some("a date")
}

/// `[1-9][0-9_]*(:[0-5]?[0-9])+`, the base 60 integers of YAML 1.1: many a MAC is one.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let place = |part: &str| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
    let mut rest = parts.peekable();
    first.starts_with(|c: char| ('1'..='9').contains(&c))
        && first.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        && rest.peek().is_some()
        && rest.all(place)
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, b)| match at {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        })
}

/// What else a plain scalar is to YAML, in brackets.
fn trap(scalar: &Scalar<'_>) -> String {
    let other = misread(&scalar.text).filter(|_| scalar.plain);
    other
        .map(|other| format!(" (to YAML it is {other})"))
        .unwrap_or_default()
}

/// Refuses a plain scalar that YAML reads as something else.
pub(super) fn unambiguous(scalar: &Scalar<'_>) -> Result<(), Bad> {
    match misread(&scalar.text).filter(|_| scalar.plain) {
        None => Ok(()),
        Some(other) => Err(Bad::new(
            "inventory::needs_quotes",
            format!(
                "{} without quotes is {other} in YAML, not a text",
                quote(&scalar.text)
            ),
            format!("quote it: \"{}\"", quote(&scalar.text).trim_matches('`')),
        )),
    }
}

/// A text for people: not empty, one line, at most 255 bytes.
pub(super) fn text(scalar: &Scalar<'_>) -> Result<String, Bad> {
    unambiguous(scalar)?;
    let text = &*scalar.text;
    if text.trim().is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        let help = "write one line of at most 255 bytes";
        return Err(Bad::new(
            "inventory::bad_text",
            format!("{} is not a name or short text", quote(text)),
            help,
        ));
    }
    Ok(text.to_owned())
}

/// A unicast Ethernet address that is not zero, or what a machine without one is known by.
pub(super) fn mac(scalar: &Scalar<'_>) -> Result<MacAddr, Bad> {
    let shown = quote(&scalar.text);
    let bad = |message: String, help: String| Bad::new("inventory::bad_mac", message, help);
    let Ok(mac) = scalar.text.parse::<MacAddr>() else {
        let message = format!("{shown} is not a MAC address{}", trap(scalar));
        let help = other_mac_form(&scalar.text).map_or_else(
            || {
                String::from(
                    "write six pairs of hexadecimal digits in quotes: \"52:54:00:00:00:01\"",
                )
            },
            |mac| format!("write it as \"{mac}\""),
        );
        return Err(bad(message, help));
    };
    unambiguous(scalar)?;
    let help = || String::from("write the address that the NIC has burnt in");
    match mac.0 {
        _ if mac.is_made() => Ok(mac),
        [0, 0, 0, 0, 0, 0] => Err(bad(format!("{shown} is no NIC's address"), help())),
        // IEEE 802: the lowest bit of the first octet marks a group address.
        [first, ..] if first & 1 == 1 => Err(bad(
            format!("{shown} is a multicast address, which no NIC sends from"),
            help(),
        )),
        _ => Ok(mac),
    }
}

/// Twelve digits with other or no separators: switches print `5254.0000.0001`, labels `525400000001`.
pub(super) fn other_mac_form(text: &str) -> Option<MacAddr> {
    let separators = |c: &char| matches!(c, '.' | ':' | '-' | ' ');
    let digits: String = text.chars().filter(|c| !separators(c)).collect();
    if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut octets = [0; 6];
    for (octet, at) in octets.iter_mut().zip((0..12).step_by(2)) {
        *octet = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(MacAddr(octets))
}

/// A unicast IPv4 address.
pub(super) fn ipv4(scalar: &Scalar<'_>) -> Result<Ipv4Addr, Bad> {
    let bad = |why: &str, help: &str| {
        let message = format!("{} is not {why}", quote(&scalar.text));
        Bad::new("inventory::bad_ip", message, help)
    };
    let address: Ipv4Addr = scalar.text.parse().map_err(|_| {
        let help = "write four numbers from 0 to 255, without leading zeros: 10.77.0.11";
        bad("an IPv4 address", help)
    })?;
    let reserved = address.is_loopback() || address.octets()[0] == 0 || address.octets()[0] >= 240;
    if reserved || address.is_multicast() {
        let help = "write the address that the machine has on its network";
        return Err(bad("an address that other machines can reach", help));
    }
    Ok(address)
}

/// A subnet with room for hosts, named by its network address.
pub(super) fn subnet(scalar: &Scalar<'_>) -> Result<Ipv4Net, Bad> {
    let shown = quote(&scalar.text);
    let bad = |message: String, help: String| Bad::new("inventory::bad_subnet", message, help);
    let net: Ipv4Net = scalar.text.parse().map_err(|_| {
        bad(
            format!("{shown} is not a subnet"),
            String::from("write network address and prefix length: 10.77.0.0/24"),
        )
    })?;
    if !(8..=30).contains(&net.prefix_len()) {
        let help = String::from("take a prefix length from 8 to 30");
        return Err(bad(
            format!("{shown} leaves no sensible room for hosts"),
            help,
        ));
    }
    if net.trunc() != net {
        let help = format!("did you mean `{}`?", net.trunc());
        return Err(bad(format!("{shown} is an address in a subnet"), help));
    }
    Ok(net)
}

/// `FIRST-LAST`, both included.
pub(super) fn address_range(scalar: &Scalar<'_>) -> Result<AddressRange, Bad> {
    let bad = |message: &str, help: String| {
        let message = format!("{} {message}", quote(&scalar.text));
        Bad::new("inventory::bad_range", message, help)
    };
    let parsed = scalar.text.split_once('-').and_then(|(first, last)| {
        let first = first.trim().parse().ok()?;
        let last = last.trim().parse().ok()?;
        Some(AddressRange { first, last })
    });
    let range = parsed.ok_or_else(|| {
        let help = "write first and last address with a `-` between: 10.77.0.100-10.77.0.199";
        bad("is not a range of addresses", help.to_owned())
    })?;
    if range.last < range.first {
        let help = format!("write {}-{}", range.last, range.first);
        return Err(bad("ends before it begins", help));
    }
    Ok(range)
}

/// A decimal number within bounds.
pub(super) fn number(
    what: &'static str,
    bounds: RangeInclusive<u16>,
) -> impl Fn(&Scalar<'_>) -> Result<u16, Bad> {
    move |scalar| {
        let digits = scalar.text.bytes().all(|b| b.is_ascii_digit());
        let canonical = digits && (scalar.text == "0" || !scalar.text.starts_with('0'));
        let number = scalar.text.parse().ok().filter(|_| canonical);
        number.filter(|n| bounds.contains(n)).ok_or_else(|| {
            Bad::new(
                "inventory::bad_number",
                format!("{} is not {what}{}", quote(&scalar.text), trap(scalar)),
                format!(
                    "write a decimal number from {} to {}",
                    bounds.start(),
                    bounds.end()
                ),
            )
        })
    }
}

/// Splits `12h` into 12 and `h`.
fn quantity(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim()))
}

/// Bytes: `512M`, `1G`; units are powers of 1024.
pub(super) fn size(scalar: &Scalar<'_>) -> Result<u64, Bad> {
    let parsed = quantity(&scalar.text).and_then(|(count, unit)| {
        let shift = match unit {
            "K" | "KiB" => 10,
            "M" | "MiB" => 20,
            "G" | "GiB" => 30,
            "T" | "TiB" => 40,
            _ => return None,
        };
        count.checked_mul(1 << shift)
    });
    parsed.ok_or_else(|| {
        Bad::new(
            "inventory::bad_size",
            format!("{} is not a size", quote(&scalar.text)),
            "write a whole number and a unit of K, M, G or T (powers of 1024): 512M, 1G",
        )
    })
}

/// `45s`, `30m`, `12h`, `1d`.
pub(super) fn duration(scalar: &Scalar<'_>) -> Result<Duration, Bad> {
    let parsed = quantity(&scalar.text).and_then(|(count, unit)| {
        let seconds = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        count.checked_mul(seconds).map(Duration::from_secs)
    });
    parsed.ok_or_else(|| {
        Bad::new(
            "inventory::bad_duration",
            format!("{} is not a duration", quote(&scalar.text)),
            "write a whole number and a unit of s, m, h or d: 30m, 12h",
        )
    })
}

/// For [`one_of`].
pub(super) const BOOLEANS: &[(&str, bool)] = &[("true", true), ("false", false)];

/// One of a few words.
pub(super) fn one_of<T: Copy>(
    what: &'static str,
    code: &'static str,
    words: &'static [(&'static str, T)],
) -> impl Fn(&Scalar<'_>) -> Result<T, Bad> {
    move |scalar| {
        let found = words.iter().find(|(word, _)| *word == scalar.text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names = words.iter().map(|(word, _)| *word);
            let near = nearest(&scalar.text, names.clone())
                .map(|near| format!("did you mean `{near}`? "))
                .unwrap_or_default();
            let message = format!("{} is not {what}", quote(&scalar.text));
            Bad::new(code, message, format!("{near}{}", known(names)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn plain(text: &str) -> Scalar<'_> {
        let text = Cow::Borrowed(text);
        Scalar { text, plain: true }
    }

    #[test]
    fn what_yaml_misreads() {
        for text in [
            "no",
            "On",
            "YES",
            "y",
            "true",
            "0123",
            "089",
            "0x1f",
            "0b1",
            "0o17",
            "1_000",
            "1e10",
            "-1.5",
            "6.10",
            ".inf",
            "-.inf",
            "+.inf",
            ".nan",
            "52e400",
            "10:20",
            "+1:30:00",
            "52:54:00:00:00:01",
            "2024-01-01",
        ] {
            assert!(misread(text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_text_to_everyone() {
        for text in [
            "kvm01",
            "r1",
            "12",
            "0",
            "nope",
            "6.1.0-40-amd64",
            "10.77.0.11",
            "1e",
            "e10",
            "inf",
            "00:11:22:33:44:55",
            "52:54:00:aa:00:01",
            "52:54:60:00:00:01",
            "10.0.0.9:/srv",
            ":",
            "",
            "1:",
            "nan",
            "infinity",
            "2024-1-1",
            "-",
            "_",
            "é",
        ] {
            assert_eq!(misread(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_durations_need_a_unit() {
        assert_eq!(size(&plain("512M")).unwrap(), 512 << 20);
        assert_eq!(size(&plain("1 GiB")).unwrap(), 1 << 30);
        assert_eq!(duration(&plain("12h")).unwrap().as_secs(), 43_200);
        for text in [
            "",
            "G",
            "1",
            "1.5G",
            "-1G",
            "1g",
            "99999999999999999999G",
            "18446744073709551615T",
        ] {
            assert!(size(&plain(text)).is_err(), "{text}");
        }
        for text in ["", "h", "12", "1h30m", "12 hours", "18446744073709551615d"] {
            assert!(duration(&plain(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal_and_in_bounds() {
        let port = number("a port", 1..=65535);
        assert_eq!(port(&plain("80")).unwrap(), 80);
        for text in [
            "", "0", "65536", "-1", "+1", "080", "8_0", "0x50", "80.0", "1e2", " 80",
        ] {
            assert!(port(&plain(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn subnets_are_network_addresses_with_room() {
        assert!(subnet(&plain("10.0.0.0/8")).is_ok());
        for text in [
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/31",
            "10.0.0.0/7",
            "10.0.0.0/33",
            "::/64",
        ] {
            assert!(subnet(&plain(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mac_is_a_nics_or_made_by_us() {
        for text in ["52:54:00:aa:00:01", "a7:11:22:33:44:55"] {
            assert!(mac(&plain(text)).is_ok(), "{text}");
        }
        for text in [
            "00:00:00:00:00:00",
            "a3:11:22:33:44:55",
            "af:11:22:33:44:55",
        ] {
            assert!(mac(&plain(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn macs_in_other_spellings_are_recognised() {
        let expected = "52:54:00:00:00:01".parse().ok();
        for text in ["5254.0000.0001", "525400000001", "52 54 00 00 00 01"] {
            assert_eq!(other_mac_form(text), expected, "{text}");
        }
        assert_eq!(other_mac_form("52:54:00:00:00"), None);
        assert_eq!(other_mac_form("52:54:00:00:00:0é"), None);
    }
}
