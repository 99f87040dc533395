//! What a machine says of itself.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::policy::client::Asker;
use crate::wire::dhcp::Request;
use crate::wire::text::is_shown;

/// Longest text that a machine says of itself, characters.
pub(super) const LONGEST: usize = 64;

/// What a machine says of itself. Whoever can boot can say anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SMBIOS system UUID, as `dmidecode` shows it.
    pub uuid: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// What it is.
    pub product: Option<String>,
}

impl Identity {
    /// Of the query that our hold script for iPXE asks with.
    pub fn of_query(query: &str) -> Self {
        let value = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(found, _)| *found == key)?;
            text(&percent_decode_str(value).decode_utf8_lossy())
        };
        Self {
            uuid: value("uuid").and_then(|text| Some(Uuid::try_parse(&text).ok()?.to_string())),
            serial: value("serial"),
            manufacturer: value("manufacturer"),
            product: value("product"),
        }
    }

    /// Of what an inventory boot posts.
    pub fn of_report(report: &str) -> Self {
        let uuid = reported(report, "uuid");
        Self {
            uuid: uuid.and_then(|text| Some(Uuid::try_parse(&text).ok()?.to_string())),
            serial: reported(report, "serial"),
            manufacturer: reported(report, "manufacturer"),
            product: reported(report, "product"),
        }
    }

    /// Takes over what is said.
    pub(super) fn learn(&mut self, said: Self) {
        self.uuid = said.uuid.or(self.uuid.take());
        self.serial = said.serial.or(self.serial.take());
        self.manufacturer = said.manufacturer.or(self.manufacturer.take());
        self.product = said.product.or(self.product.take());
    }

    /// Maker and product.
    pub(super) fn kind(&self) -> String {
        let kind = [&self.manufacturer, &self.product];
        let kind: Vec<_> = kind.into_iter().flatten().map(String::as_str).collect();
        kind.join(" ")
    }

    /// Maker, product and serial number.
    pub fn words(&self) -> String {
        let serial = self.serial.iter().map(|serial| format!("serial {serial}"));
        let parts: Vec<_> = Some(self.kind()).into_iter().chain(serial).collect();
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(", ")
    }
}

/// The value of a `KEY=VALUE` line before the NICs.
pub(super) fn reported(report: &str, key: &str) -> Option<String> {
    let pairs = report.lines().filter_map(|line| line.split_once('='));
    let mut pairs = pairs.take_while(|(found, _)| *found != "nic");
    let (_, value) = pairs.find(|(found, _)| *found == key)?;
    text(value)
}

/// One line of printable characters, or nothing.
pub(crate) fn text(said: &str) -> Option<String> {
    let printable: String = said.chars().filter(|c| is_shown(*c)).collect();
    let short: String = printable.trim().chars().take(LONGEST).collect();
    (!short.is_empty()).then_some(short)
}

/// Option 97. iPXE has the octets in the order of the text (RFC 9562); firmware sends the SMBIOS table's, where the
/// first three fields have their low octet first (SMBIOS 3.7 §7.2.1).
pub(super) fn uuid(request: &Request, asker: Asker) -> Option<String> {
    let octets = request.guid().filter(|octets| *octets != [0; 16])?;
    let uuid = match asker {
        Asker::Ipxe => Uuid::from_bytes(octets),
        _ => Uuid::from_bytes_le(octets),
    };
    Some(uuid.to_string())
}
