//! Packet captures (pcap, pcapng): the IPv4 UDP datagrams in them, and who says by ARP which address is its own.
//!
//! Captures come from anywhere. A block may have at most [`BUFFER`] bytes, and what can't be read ends the reading
//! with a word, never with a panic.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use jiff::Timestamp;
use pcap_parser::{
    Block, InterfaceDescriptionBlock, Linktype, PcapBlockOwned, PcapError, create_reader,
};

use crate::inventory::model::MacAddr;

/// The longest block that is read, bytes.
const BUFFER: usize = 1 << 20;
/// Interfaces of one section; a real one has a handful.
const MAX_INTERFACES: usize = 1024;

/// A capture that can't be read at all.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file.
    #[error("cannot open the capture {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not a capture.
    #[error("{} is no packet capture (pcap or pcapng): capture with `tcpdump -i IF -s 0 -w FILE udp`", .0.display())]
    NotOne(PathBuf),
}

/// A datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram<'a> {
    /// Which packet of the capture, from 1.
    pub number: u64,
    /// When it was captured.
    pub at: Timestamp,
    /// Who sent it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// What is in it; only the beginning where `is_cut`.
    pub payload: &'a [u8],
    /// The capture kept less of it than there was.
    pub is_cut: bool,
    /// The MAC that it came from, where the capture has it.
    pub sender: Option<MacAddr>,
}

/// A packet that tells something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    /// A datagram.
    Datagram(Datagram<'a>),
    /// By ARP, who has an address.
    Neighbour(Ipv4Addr, MacAddr),
}

/// How the reading ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Packets read.
    pub packets: u64,
    /// What was wrong behind them; `None`: the capture was read to its end.
    pub trouble: Option<String>,
}

/// A packet as it was captured.
struct Frame<'a> {
    at: Timestamp,
    link: Linktype,
    bytes: &'a [u8],
    is_cut: bool,
}

/// Hands every IPv4 UDP datagram and what ARP says to `each`, in the capture's order. Fragments are left out: neither DHCP nor a TFTP
/// request comes in several.
///
/// # Errors
/// [`CaptureError`] where nothing can be read.
pub(super) fn read(path: &Path, mut each: impl FnMut(Seen<'_>)) -> Result<End, CaptureError> {
    let file = File::open(path).map_err(|source| CaptureError::Open {
        path: path.to_owned(),
        source,
    })?;
    let none = |_| CaptureError::NotOne(path.to_owned());
    let mut reader = create_reader(BUFFER, file).map_err(none)?;
    let (mut links, mut end) = (Links::default(), End::default());
    loop {
        match reader.next() {
            Ok((length, block)) => {
                if let Some(frame) = links.frame(&block) {
                    end.packets += 1;
                    if let Some(seen) = seen(end.packets, &frame) {
                        each(seen);
                    }
                }
                reader.consume(length);
            }
            Err(PcapError::Eof) => return Ok(end),
            Err(error) => {
                let (said, incomplete) =
                    (trouble(&error), matches!(error, PcapError::Incomplete(_)));
                if !incomplete || reader.reader_exhausted() || reader.refill().is_err() {
                    end.trouble = Some(said);
                    return Ok(end);
                }
            }
        }
    }
}

fn trouble(error: &PcapError<&[u8]>) -> String {
    match error {
        PcapError::Incomplete(_) | PcapError::UnexpectedEof => "it is cut off there".to_owned(),
        PcapError::BufferTooSmall => format!("a block of more than {BUFFER} bytes"),
        _ => "it is damaged there".to_owned(),
    }
}

/// How the packets are framed.
#[derive(Default)]
struct Links {
    legacy: Option<(Linktype, bool)>,
    interfaces: Vec<(Linktype, u64, i64)>,
}

impl Links {
    /// The packet in a block, if it holds one.
    fn frame<'a>(&mut self, block: &'a PcapBlockOwned<'_>) -> Option<Frame<'a>> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.legacy = Some((header.network, header.is_nanosecond_precision()));
                None
            }
            PcapBlockOwned::Legacy(packet) => {
                let (link, nanoseconds) = self.legacy?;
                let fraction = packet
                    .ts_usec
                    .saturating_mul(if nanoseconds { 1 } else { 1000 });
                Some(Frame {
                    at: time(packet.ts_sec.into(), fraction),
                    link,
                    bytes: packet.data,
                    is_cut: packet.caplen < packet.origlen,
                })
            }
            PcapBlockOwned::NG(block) => self.ng_frame(block),
        }
    }

    fn ng_frame<'a>(&mut self, block: &'a Block<'_>) -> Option<Frame<'a>> {
        match block {
            Block::SectionHeader(_) => self.interfaces.clear(),
            Block::InterfaceDescription(interface) if self.interfaces.len() < MAX_INTERFACES => {
                self.interfaces.push(interface_of(interface));
            }
            Block::EnhancedPacket(packet) => {
                let index = usize::try_from(packet.if_id).ok()?;
                let (link, resolution, offset) = *self.interfaces.get(index)?;
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                return Some(Frame {
                    at: ticked(ticks, resolution, offset),
                    link,
                    bytes: kept(packet.data, packet.caplen),
                    is_cut: packet.caplen < packet.origlen,
                });
            }
            Block::SimplePacket(packet) => {
                let (link, ..) = *self.interfaces.first()?;
                return Some(Frame {
                    at: Timestamp::UNIX_EPOCH,
                    link,
                    bytes: packet.data,
                    is_cut: packet.data.len() < usize::try_from(packet.origlen).unwrap_or(0),
                });
            }
            _ => {}
        }
        None
    }
}

fn interface_of(interface: &InterfaceDescriptionBlock<'_>) -> (Linktype, u64, i64) {
    let resolution = interface.ts_resolution().filter(|parts| *parts > 0);
    (
        interface.linktype,
        resolution.unwrap_or(1_000_000),
        interface.ts_offset(),
    )
}

/// Without the padding of pcapng's blocks.
fn kept(data: &[u8], length: u32) -> &[u8] {
    let length = usize::try_from(length).unwrap_or(data.len());
    data.get(..length).unwrap_or(data)
}

/// Time as pcapng has it: ticks, how many of them are a second, and an offset in seconds.
fn ticked(ticks: u64, resolution: u64, offset: i64) -> Timestamp {
    let seconds = i64::try_from(ticks / resolution).unwrap_or(i64::MAX);
    let fraction = u128::from(ticks % resolution) * 1_000_000_000 / u128::from(resolution);
    let nanoseconds = u32::try_from(fraction).unwrap_or(0);
    time(seconds.saturating_add(offset), nanoseconds)
}

fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
    let nanoseconds = i32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0);
    Timestamp::new(seconds, nanoseconds).unwrap_or_default()
}

fn seen<'a>(number: u64, frame: &Frame<'a>) -> Option<Seen<'a>> {
    let packet = sliced(frame)?;
    let ip = match packet.net? {
        LaxNetSlice::Ipv4(ip) => ip,
        LaxNetSlice::Arp(arp) => return neighbour(arp.slice()),
        LaxNetSlice::Ipv6(_) => return None,
    };
    let Some(TransportSlice::Udp(udp)) = packet.transport else {
        return None;
    };
    let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
    let sender = match frame.link {
        Linktype::ETHERNET => frame.bytes.get(6..12).and_then(mac),
        _ => None,
    };
    Some(Seen::Datagram(Datagram {
        number,
        at: frame.at,
        from: SocketAddrV4::new(from, udp.source_port()),
        to: SocketAddrV4::new(to, udp.destination_port()),
        payload: udp.payload(),
        is_cut: frame.is_cut,
        sender,
    }))
}

/// The sender of an ARP packet of IPv4 over Ethernet (RFC 826); a probe (RFC 5227) has no address yet.
fn neighbour<'a>(arp: &[u8]) -> Option<Seen<'a>> {
    let of_ethernet = arp.get(..6)? == [0, 1, 8, 0, 6, 4];
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(arp.get(14..18)?).ok()?);
    let mac = mac(arp.get(8..14)?)?;
    (of_ethernet && !address.is_unspecified()).then_some(Seen::Neighbour(address, mac))
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr)
}

/// Ethernet, Linux' cooked captures (`tcpdump -i any`), and packets without a link header.
fn sliced<'a>(frame: &Frame<'a>) -> Option<LaxSlicedPacket<'a>> {
    let cooked = |kind_at: usize, header: usize| {
        let kind = frame.bytes.get(kind_at..kind_at + 2)?;
        let kind = EtherType(u16::from_be_bytes([kind[0], kind[1]]));
        Some(LaxSlicedPacket::from_ether_type(
            kind,
            frame.bytes.get(header..)?,
        ))
    };
    match frame.link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(frame.bytes).ok(),
        Linktype::LINUX_SLL => cooked(14, 16),
        Linktype(276) => cooked(0, 20),
        Linktype::RAW | Linktype::IPV4 => LaxSlicedPacket::from_ip(frame.bytes).ok(),
        _ => None,
    }
}
