//! DHCP as firmware and iPXE speak it: their captured packets with another machine's identity in them.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder};
use tokio::time::timeout_at;

use super::air::Air;
use super::weather::Weather;

/// A captured client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    discover: &'static str,
    request: &'static str,
    /// Options that this client does not have and the captured one has.
    without: &'static [u8],
    /// Seconds to wait for an answer, try by try.
    ladder: &'static [u64],
}

/// OVMF: asks for broadcast replies. EDK2 PxeBcDhcp4.c, `mPxeDhcpTimeout`.
pub(super) const EDK2: Client = Client {
    discover: include_str!("../../golden/uefi-edk2-discover.hex"),
    request: include_str!("../../golden/uefi-edk2-request.hex"),
    without: &[],
    ladder: &[4, 8, 16, 32],
};
/// The ROM of a BIOS machine: what iPXE sends in QEMU, without iPXE's user class and features.
pub(super) const BIOS_ROM: Client = Client {
    discover: include_str!("../../golden/bios-ipxe-rom-discover.hex"),
    request: include_str!("../../golden/bios-ipxe-rom-request.hex"),
    without: &[77, 175],
    // PXE 2.1 specification, section 2.2.2.
    ladder: &[4, 8, 16, 32],
};
/// iPXE over UEFI. iPXE src/include/ipxe/dhcp.h: 1 s doubling up to 10 s.
pub(super) const UEFI_IPXE: Client = Client {
    discover: include_str!("../../golden/uefi-ipxe-discover.hex"),
    request: include_str!("../../golden/uefi-ipxe-request.hex"),
    without: &[],
    ladder: IPXE_LADDER,
};
/// iPXE on BIOS.
pub(super) const BIOS_IPXE: Client = Client {
    discover: include_str!("../../golden/bios-ipxe-rom-discover.hex"),
    request: include_str!("../../golden/bios-ipxe-rom-request.hex"),
    without: &[],
    ladder: IPXE_LADDER,
};
const IPXE_LADDER: &[u64] = &[1, 2, 4, 8, 10, 10, 10];

/// What a client was given.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) boot_file: String,
}

/// One machine on the wire.
pub(super) struct Asking<'a> {
    pub(super) number: u16,
    pub(super) air: &'a Air,
    pub(super) weather: &'a mut Weather,
    /// Packets that were sent again.
    pub(super) retries: u64,
}

impl Asking<'_> {
    /// DISCOVER, OFFER, REQUEST, ACK.
    pub(super) async fn lease(&mut self, client: Client) -> Result<Lease, String> {
        let xid = self.weather.number();
        let discover = self.message(client.discover, client, xid, &[]);
        let offer = self
            .exchange(&discover, client, xid, MessageType::Offer)
            .await?;
        let server = offer.opts().get(OptionCode::ServerIdentifier);
        let Some(DhcpOption::ServerIdentifier(server)) = server else {
            return Err("an OFFER without server identifier".into());
        };
        let chosen = [(50, offer.yiaddr()), (54, *server)];
        let request = self.message(client.request, client, xid, &chosen);
        let ack = self
            .exchange(&request, client, xid, MessageType::Ack)
            .await?;
        if ack.yiaddr() != offer.yiaddr() {
            return Err(format!(
                "offered {} and gave {}",
                offer.yiaddr(),
                ack.yiaddr()
            ));
        }
        Ok(Lease {
            address: ack.yiaddr(),
            boot_file: boot_file(&ack),
        })
    }

    async fn exchange(
        &mut self,
        message: &[u8],
        client: Client,
        xid: u32,
        wanted: MessageType,
    ) -> Result<Message, String> {
        for (tries, seconds) in client.ladder.iter().enumerate() {
            self.retries += u64::from(tries > 0);
            self.weather.travel().await;
            if !self.weather.loses() {
                let sent = self.air.broadcast(super::mac(self.number), message).await;
                sent.map_err(|error| format!("cannot send: {error}"))?;
            }
            let until = Instant::now() + Duration::from_secs(*seconds);
            if let Some(reply) = self.answer(xid, wanted, until).await? {
                return Ok(reply);
            }
        }
        let seconds: u64 = client.ladder.iter().sum();
        Err(format!("no {wanted:?} in {seconds} s"))
    }

    async fn answer(
        &mut self,
        xid: u32,
        wanted: MessageType,
        until: Instant,
    ) -> Result<Option<Message>, String> {
        while let Ok(Some(bytes)) = timeout_at(until.into(), self.air.receive(self.number)).await {
            if self.weather.loses() {
                continue;
            }
            let read = Message::decode(&mut Decoder::new(&bytes));
            let reply = read.map_err(|error| format!("a reply that does not decode: {error}"))?;
            match reply.opts().msg_type() {
                _ if reply.xid() != xid => {}
                Some(MessageType::Nak) => return Err("NAK".into()),
                // The answer to a DISCOVER that was repeated comes late.
                Some(kind) if kind == wanted => return Ok(Some(reply)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The captured packet as this machine's.
    fn message(&self, captured: &str, client: Client, xid: u32, set: &[(u8, Ipv4Addr)]) -> Vec<u8> {
        let mut bytes = unhex(captured);
        let options = bytes.split_off(240);
        let mac = super::mac(self.number);
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        bytes[28..34].copy_from_slice(&mac);
        for (code, value) in options_of(&options) {
            if client.without.contains(&code) {
                continue;
            }
            let mut value = value.to_vec();
            if let Some((_, address)) = set.iter().find(|(of, _)| *of == code) {
                value = address.octets().to_vec();
            }
            match (code, value.len()) {
                // Client identifier: hardware type and MAC.
                (61, 7) => value[1..].copy_from_slice(&mac),
                // UUID: a type byte before it.
                (97, 17) => value[11..].copy_from_slice(&mac),
                _ => {}
            }
            bytes.extend_from_slice(&[code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
            bytes.extend_from_slice(&value);
        }
        bytes.push(255);
        bytes
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] * 16 + pair[1])
        .collect()
}

/// Codes and values up to the end.
fn options_of(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut options = Vec::new();
    while let [code, length, rest @ ..] = bytes
        && *code != 255
    {
        let (value, rest) = rest.split_at(usize::from(*length));
        options.push((*code, value));
        bytes = rest;
    }
    options
}

/// Option 67, or the `file` field.
fn boot_file(reply: &Message) -> String {
    let bytes = match reply.opts().get(OptionCode::BootfileName) {
        Some(DhcpOption::BootfileName(name)) => name.clone(),
        _ => reply.fname().unwrap_or_default().to_vec(),
    };
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
