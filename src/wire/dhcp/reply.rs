//! What we answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{
    self, DhcpOption, Encodable, Encoder, Flags, HType, Opcode, OptionCode, UnknownOption,
};

use super::{FIXED, MIN_REPLY, MessageType, Request};

/// A reply before it is bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// OFFER, ACK or NAK.
    pub message_type: MessageType,
    /// The client's address-to-be; zero in a NAK, to INFORM, and in proxy answers.
    pub yiaddr: Ipv4Addr,
    /// Next server (`siaddr`): where the boot file lies.
    pub next_server: Ipv4Addr,
    /// `sname`, for ROMs that look there.
    pub server_name: String,
    /// `file`: boot file name or URL; what does not fit goes into option 67 alone.
    pub boot_file: String,
    /// Options but 53 and 82, by code.
    pub options: BTreeMap<u8, Vec<u8>>,
}

/// Options that a client can do without, the least needed first: words, NTP, domain, broadcast,
/// hostname, MTU, the lease's timers, routes, DNS, what `siaddr` and iPXE's patience make good, and
/// the client identifier's echo, which can be as long as the client likes.
/// Options that are neither here nor in [`KEPT`] are the operator's, and go before these.
pub const DISPENSABLE: [u8; 14] = [56, 42, 119, 15, 28, 12, 26, 59, 58, 121, 6, 66, 175, 61];
/// What a lease or a boot needs.
const KEPT: [u8; 9] = [1, 3, 43, 51, 54, 60, 67, 97, 118];

/// `file` without its final NUL.
const MAX_FILE: usize = 127;

impl Reply {
    /// The bytes that answer `request`: same xid, flags, giaddr and chaddr, option 82
    /// as it came and last (RFC 3046 §2.2), padded to 300 bytes.
    ///
    /// Where it would be more than the client takes, options go in the order of
    /// [`DISPENSABLE`]; what a lease or a boot needs is never left out.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        self.fit(request).0
    }

    /// The options that [`encode`](Self::encode) leaves out for want of room.
    pub fn left_out(&self, request: &Request) -> Vec<u8> {
        let room = |data: &Vec<u8>| data.len() + 2 * (data.len() / 255 + 1);
        let size: usize = self.options.values().map(room).sum();
        // Most replies fit, and need not be encoded to see it: 53 and End come on top.
        match FIXED + size + 4 <= request.room() {
            true => Vec::new(),
            false => self.fit(request).1,
        }
    }

    /// The bytes, and what was left out.
    fn fit(&self, request: &Request) -> (Vec<u8>, Vec<u8>) {
        let budget = request.room();
        let mut left_out = Vec::new();
        let mut options = self.options.clone();
        let extra = |code: &u8| !KEPT.contains(code) && !DISPENSABLE.contains(code);
        let extra = self.options.keys().rev().copied().filter(extra);
        let mut dispensable = extra.chain(DISPENSABLE);
        loop {
            let mut bytes = self.encode_with(request, &options);
            let next = dispensable.next().filter(|_| bytes.len() > budget);
            let Some(code) = next else {
                finish(&mut bytes, request.bytes(82));
                return (bytes, left_out);
            };
            if options.remove(&code).is_some() {
                left_out.push(code);
            }
        }
    }

    fn encode_with(&self, request: &Request, options: &BTreeMap<u8, Vec<u8>>) -> Vec<u8> {
        // A relay must broadcast what names no address to send it to: a NAK (RFC 2131 §4.3.2), a
        // proxy's OFFER, an ACK to an INFORM without `ciaddr`.
        // So must it what is for a client that no frame can be addressed to.
        let by_relay = !request.giaddr.is_unspecified()
            && (self.yiaddr.is_unspecified() || !request.hardware.is_ethernet());
        let flags = if request.broadcast || by_relay {
            Flags::default().set_broadcast()
        } else {
            Flags::default()
        };
        let mut message = v4::Message::new_with_id(
            request.xid,
            request.ciaddr_for(self.message_type),
            self.yiaddr,
            self.next_server,
            request.giaddr,
            request.hardware.address(),
        );
        message.set_htype(HType::from(request.hardware.htype()));
        message.set_opcode(Opcode::BootReply).set_flags(flags);
        if !self.server_name.is_empty() && self.server_name.len() < 64 {
            message.set_sname_str(&self.server_name);
        }
        if !self.boot_file.is_empty() && self.boot_file.len() <= MAX_FILE {
            message.set_fname_str(&self.boot_file);
        }
        let opts = message.opts_mut();
        opts.insert(DhcpOption::MessageType(self.message_type));
        for (&code, data) in options {
            opts.insert(DhcpOption::Unknown(UnknownOption::new(
                OptionCode::from(code),
                data.clone(),
            )));
        }
        let mut bytes = Vec::with_capacity(576);
        // Encoding writes into a Vec and has no other way to fail.
        if message.encode(&mut Encoder::new(&mut bytes)).is_err() {
            bytes.truncate(FIXED);
        }
        bytes
    }
}

impl Request {
    /// What a reply may take beside option 82.
    fn room(&self) -> usize {
        let relay_info = self.bytes(82).len() + 3;
        self.max_reply().saturating_sub(relay_info).max(MIN_REPLY)
    }

    /// `ciaddr` is echoed in ACKs only (RFC 2131 table 3).
    fn ciaddr_for(&self, reply: MessageType) -> Ipv4Addr {
        if reply == MessageType::Ack {
            self.ciaddr
        } else {
            Ipv4Addr::UNSPECIFIED
        }
    }
}

/// Puts option 82 behind all others, then End and padding.
fn finish(bytes: &mut Vec<u8>, relay_info: &[u8]) {
    if bytes.last() == Some(&255) {
        bytes.pop();
    }
    for part in relay_info.chunks(255) {
        bytes.push(82);
        bytes.push(u8::try_from(part.len()).unwrap_or(255));
        bytes.extend_from_slice(part);
    }
    bytes.push(255);
    if bytes.len() < MIN_REPLY {
        bytes.resize(MIN_REPLY, 0);
    }
}
