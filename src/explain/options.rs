//! DHCP options in words.

use std::net::Ipv4Addr;

use serde::Serialize;

/// An option of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionLine {
    /// Its number.
    pub code: u8,
    /// What it is called; empty where it is the operator's own.
    pub name: &'static str,
    /// What is in it.
    pub value: String,
}

enum Form {
    Addresses,
    Text,
    Number,
    Seconds,
    Bytes,
}

/// Names of RFC 2132 and those after it, as far as we send them ourselves.
fn known(code: u8) -> (&'static str, Form) {
    match code {
        1 => ("netmask", Form::Addresses),
        3 => ("router", Form::Addresses),
        6 => ("dns", Form::Addresses),
        7 => ("log server", Form::Addresses),
        12 => ("hostname", Form::Text),
        15 => ("domain", Form::Text),
        26 => ("mtu", Form::Number),
        28 => ("broadcast", Form::Addresses),
        42 => ("ntp", Form::Addresses),
        43 => ("vendor options", Form::Bytes),
        51 => ("lease time", Form::Seconds),
        54 => ("server", Form::Addresses),
        56 => ("message", Form::Text),
        58 => ("renew after", Form::Seconds),
        59 => ("rebind after", Form::Seconds),
        60 => ("vendor class", Form::Text),
        61 => ("client identifier", Form::Bytes),
        66 => ("TFTP server", Form::Text),
        67 => ("boot file", Form::Text),
        97 => ("machine id", Form::Bytes),
        119 => ("search", Form::Bytes),
        121 => ("routes", Form::Bytes),
        175 => ("iPXE", Form::Bytes),
        _ => ("", Form::Bytes),
    }
}

pub(super) fn line(code: u8, bytes: &[u8]) -> OptionLine {
    let (name, form) = known(code);
    let value = match form {
        Form::Addresses => addresses(bytes),
        Form::Text => text(bytes),
        Form::Number => number(bytes).map(|number| number.to_string()),
        Form::Seconds => number(bytes).map(|number| format!("{number} s")),
        Form::Bytes => None,
    };
    let value = value.unwrap_or_else(|| hex(bytes));
    OptionLine { code, name, value }
}

fn addresses(bytes: &[u8]) -> Option<String> {
    let (quads, []) = bytes.as_chunks::<4>() else {
        return None;
    };
    let all: Vec<_> = quads
        .iter()
        .map(|quad| Ipv4Addr::from(*quad).to_string())
        .collect();
    Some(all.join(", "))
}

/// Without the NUL that some firmware wants at the end.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    let plain = !text.chars().any(char::is_control);
    plain.then(|| text.to_owned())
}

fn number(bytes: &[u8]) -> Option<u32> {
    (1..=4).contains(&bytes.len()).then(|| {
        let fold = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        bytes.iter().fold(0, fold)
    })
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_words_where_they_can_be() {
        let value = |code, bytes: &[u8]| line(code, bytes).value;
        assert_eq!(value(3, &[10, 77, 0, 1]), "10.77.0.1");
        assert_eq!(value(3, &[10, 77, 0]), "0a 4d 00");
        assert_eq!(value(67, b"snponly.efi\0"), "snponly.efi");
        assert_eq!(value(12, b"a\x1b[2J"), "61 1b 5b 32 4a");
        assert_eq!(value(51, &[0, 0, 2, 88]), "600 s");
        assert_eq!(value(252, &[1]), "01");
    }
}
