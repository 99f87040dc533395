//! TFTP packets (RFC 1350, 2347, 2348, 2349, 7440).
//!
//! [`Packet::parse`] takes whatever arrived and never panics; what it can't use is a typed [`Malformed`].
//! [`Packet::encode`] is its inverse: what we encode, we parse to the same value.

mod options;

use std::borrow::Cow;
use std::fmt;

pub use options::{MIN_BLOCK_SIZE, Options};
use thiserror::Error;

use super::text::is_shown;

/// Longest request we read, bytes. RFC 2347 allows 512; PXE ROMs with long paths and vendor options go beyond.
pub const MAX_REQUEST: usize = 1024;

/// Block size where the client asks for none, bytes (RFC 1350 section 2).
pub const DEFAULT_BLOCK_SIZE: u16 = 512;

/// Largest block size, bytes: 65535 less the IP, UDP and TFTP headers without IP options (RFC 2348).
pub const MAX_BLOCK_SIZE: u16 = 65464;

/// Longest text of an ERROR packet that is kept, characters.
const MAX_ERROR_TEXT: usize = 256;

/// One TFTP packet (RFC 1350 section 5, RFC 2347 for OACK).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ: the client wants to read a file.
    Read(Request<'a>),
    /// WRQ: the client wants to write a file.
    Write(Request<'a>),
    /// DATA: one block; `block` wraps from 65535 to 0.
    Data {
        /// Block number, modulo 65536.
        block: u16,
        /// The block; shorter than the block size in the last one.
        payload: &'a [u8],
    },
    /// ACK of every block up to and with `block`.
    Ack {
        /// Block number, modulo 65536; 0 also answers an OACK.
        block: u16,
    },
    /// ERROR: ends the transfer.
    Error {
        /// What went wrong.
        code: ErrorCode,
        /// Words for a human; may be empty. Control characters and bytes that aren't UTF-8 were replaced.
        message: Cow<'a, str>,
    },
    /// OACK: the options that the server grants.
    OptionAck(Options),
}

/// The content of an RRQ or WRQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// File name as sent, never empty.
    pub name: &'a str,
    /// Transfer mode.
    pub mode: Mode,
    /// Options that we know; others are dropped, as RFC 2347 asks.
    pub options: Options,
}

/// Transfer mode (RFC 1350 section 1). The obsolete `mail` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes as they are.
    Octet,
    /// Text with CR LF; we serve it as octet, as boot files are no text to convert.
    NetAscii,
}

/// Error codes (RFC 1350 appendix, RFC 2347 for 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 0: see the message.
    NotDefined,
    /// 1
    FileNotFound,
    /// 2
    AccessViolation,
    /// 3
    DiskFull,
    /// 4
    IllegalOperation,
    /// 5
    UnknownTransferId,
    /// 6
    FileExists,
    /// 7
    NoSuchUser,
    /// 8: options refused; PXE ROMs also end a size probe with it.
    OptionsRefused,
    /// A code that no RFC names.
    Other(u16),
}

/// Why bytes are no TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Fewer bytes than the opcode or the fixed part needs.
    #[error("packet of {length} bytes is too short")]
    TooShort {
        /// Bytes received.
        length: usize,
    },
    /// A request longer than [`MAX_REQUEST`].
    #[error("request is longer than {MAX_REQUEST} bytes")]
    TooLong,
    /// An opcode that no RFC names.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u16),
    /// A request whose file name has no terminating zero.
    #[error("file name is not terminated")]
    NameNotTerminated,
    /// A request with an empty file name.
    #[error("file name is empty")]
    NameEmpty,
    /// A request whose file name is not UTF-8.
    #[error("file name is not UTF-8")]
    NameNotUtf8,
    /// A request without a mode, or with one we don't know (`mail` included).
    #[error("transfer mode is neither octet nor netascii")]
    ModeUnknown,
}

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

impl<'a> Packet<'a> {
    /// Reads one datagram's payload.
    ///
    /// # Errors
    /// [`Malformed`] where the bytes can't be a packet of any kind we could act on.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let too_short = Malformed::TooShort {
            length: bytes.len(),
        };
        let (opcode, rest) = take_u16(bytes).ok_or(too_short)?;
        let numbered = || take_u16(rest).ok_or(too_short);
        match opcode {
            RRQ => Request::parse(rest).map(Self::Read),
            WRQ => Request::parse(rest).map(Self::Write),
            DATA => numbered().map(|(block, payload)| Self::Data { block, payload }),
            ACK => numbered().map(|(block, _)| Self::Ack { block }),
            ERROR => numbered().map(|(code, text)| Self::Error {
                code: ErrorCode::from(code),
                message: printable(take_string(text).map_or(text, |(head, _)| head)),
            }),
            OACK => Ok(Self::OptionAck(Options::parse(rest))),
            other => Err(Malformed::UnknownOpcode(other)),
        }
    }

    /// Appends the packet's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Read(request) => request.encode(RRQ, out),
            Self::Write(request) => request.encode(WRQ, out),
            Self::Data { block, payload } => {
                out.extend(data_header(*block));
                out.extend_from_slice(payload);
            }
            Self::Ack { block } => {
                put_u16(out, ACK);
                put_u16(out, *block);
            }
            Self::Error { code, message } => {
                put_u16(out, ERROR);
                put_u16(out, (*code).into());
                put_string(out, message);
            }
            Self::OptionAck(options) => {
                put_u16(out, OACK);
                options.encode(out);
            }
        }
    }

    /// The packet's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.encode(&mut out);
        out
    }
}

/// The four bytes before a DATA packet's payload: lets a sender gather header and file without a copy.
#[must_use]
pub fn data_header(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, DATA as u8, high, low]
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() + 2 > MAX_REQUEST {
            return Err(Malformed::TooLong);
        }
        let (name, rest) = take_string(bytes).ok_or(Malformed::NameNotTerminated)?;
        if name.is_empty() {
            return Err(Malformed::NameEmpty);
        }
        let name = std::str::from_utf8(name).map_err(|_| Malformed::NameNotUtf8)?;
        // Some ROMs leave out the very last zero; the mode is clear without it.
        let (mode, rest) = take_string(rest).unwrap_or((rest, &[]));
        let mode = Mode::parse(mode).ok_or(Malformed::ModeUnknown)?;
        let options = Options::parse(rest);
        Ok(Self {
            name,
            mode,
            options,
        })
    }

    fn encode(&self, opcode: u16, out: &mut Vec<u8>) {
        put_u16(out, opcode);
        put_string(out, self.name);
        put_string(out, self.mode.as_str());
        self.options.encode(out);
    }
}

impl Mode {
    fn parse(bytes: &[u8]) -> Option<Self> {
        [Self::Octet, Self::NetAscii]
            .into_iter()
            .find(|mode| bytes.eq_ignore_ascii_case(mode.as_str().as_bytes()))
    }

    /// The mode's word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Octet => "octet",
            Self::NetAscii => "netascii",
        }
    }
}

impl ErrorCode {
    /// Those with a name, each at its number.
    const KNOWN: [Self; 9] = [
        Self::NotDefined,
        Self::FileNotFound,
        Self::AccessViolation,
        Self::DiskFull,
        Self::IllegalOperation,
        Self::UnknownTransferId,
        Self::FileExists,
        Self::NoSuchUser,
        Self::OptionsRefused,
    ];
}

impl From<u16> for ErrorCode {
    fn from(code: u16) -> Self {
        let known = Self::KNOWN.get(usize::from(code));
        known.copied().unwrap_or(Self::Other(code))
    }
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> Self {
        if let ErrorCode::Other(other) = code {
            return other;
        }
        let number = ErrorCode::KNOWN.iter().position(|known| *known == code);
        number.unwrap_or(0) as Self
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u16::from(*self))
    }
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}

/// Splits at the first zero byte, which belongs to neither part.
fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// A peer's words, fit for a log: bounded, UTF-8, without control characters.
fn printable(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = &bytes[..bytes.len().min(4 * MAX_ERROR_TEXT)];
    let text = String::from_utf8_lossy(bytes);
    let short = text.chars().count() <= MAX_ERROR_TEXT;
    if short && text.chars().all(is_shown) {
        return text;
    }
    let visible = |c: char| if is_shown(c) { c } else { '\u{fffd}' };
    Cow::Owned(text.chars().take(MAX_ERROR_TEXT).map(visible).collect())
}

fn put_u16(out: &mut Vec<u8>, number: u16) {
    out.extend(number.to_be_bytes());
}

/// Writes `text` and its terminating zero; a zero inside would end it early, so such are left out.
fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Request<'_> {
        match Packet::parse(bytes) {
            Ok(Packet::Read(request)) => request,
            other => panic!("no read request: {other:?}"),
        }
    }

    #[test]
    fn request_as_ipxe_sends_it() {
        let bytes = b"\0\x01ipxe.efi\0octet\0blksize\x001432\0tsize\x000\0";
        let request = read(bytes);
        assert_eq!(request.name, "ipxe.efi");
        assert_eq!(request.mode, Mode::Octet);
        assert_eq!(request.options.block_size, Some(1432));
        assert_eq!(request.options.transfer_size, Some(0));
        assert_eq!(request.options.window_size, None);
    }

    #[test]
    fn option_names_and_modes_ignore_case() {
        let request = read(b"\0\x01f\0NetASCII\0BLKSIZE\x001024\0WindowSize\x004\0TimeOut\x003\0");
        assert_eq!(request.mode, Mode::NetAscii);
        assert_eq!(request.options.block_size, Some(1024));
        assert_eq!(request.options.window_size, Some(4));
        assert_eq!(request.options.timeout, Some(3));
    }

    #[test]
    fn too_large_sizes_are_kept_for_clamping() {
        let request =
            read(b"\0\x01f\0octet\0blksize\x0099999999999999999999999\0windowsize\x0070000\0");
        assert_eq!(request.options.block_size, Some(u32::MAX));
        assert_eq!(request.options.window_size, Some(u16::MAX));
    }

    #[test]
    fn useless_values_count_as_not_asked() {
        for pair in [
            "blksize\x007",
            "blksize\0-1",
            "blksize\0",
            "timeout\x000",
            "timeout\x00256",
            "windowsize\x000",
            "tsize\0x",
            "multicast\0",
            "rollover\x000",
        ] {
            let bytes = format!("\0\x01f\0octet\0{pair}\0");
            assert!(read(bytes.as_bytes()).options.is_empty(), "{pair:?}");
        }
    }

    #[test]
    fn first_of_two_values_counts() {
        let request = read(b"\0\x01f\0octet\0blksize\x001024\0blksize\x002048\0");
        assert_eq!(request.options.block_size, Some(1024));
    }

    #[test]
    fn padding_and_cut_options_are_tolerated() {
        assert!(read(b"\0\x01f\0octet\0\0\0\0\0").options.is_empty());
        assert!(read(b"\0\x01f\0octet\0blksize").options.is_empty());
        assert!(read(b"\0\x01f\0octet\0blksize\x001024").options.is_empty());
        assert_eq!(read(b"\0\x01f\0octet").mode, Mode::Octet);
    }

    #[test]
    fn malformed_requests_say_why() {
        let long = [b"\0\x01".as_slice(), &[b'a'; MAX_REQUEST]].concat();
        let cases: [(&[u8], Malformed); 9] = [
            (b"", Malformed::TooShort { length: 0 }),
            (b"\0", Malformed::TooShort { length: 1 }),
            (b"\0\x04\0", Malformed::TooShort { length: 3 }),
            (b"\0\x07abc", Malformed::UnknownOpcode(7)),
            (b"\0\x01name", Malformed::NameNotTerminated),
            (b"\0\x01\0octet\0", Malformed::NameEmpty),
            (b"\0\x01\xff\xfe\0octet\0", Malformed::NameNotUtf8),
            (b"\0\x01f\0mail\0", Malformed::ModeUnknown),
            (&long, Malformed::TooLong),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Packet::parse(bytes), Err(expected));
        }
    }

    #[test]
    fn error_text_is_made_printable() {
        let packet = Packet::parse(b"\0\x05\0\x08User \x1b[31m\xff").unwrap();
        let Packet::Error { code, message } = packet else {
            panic!("no error packet")
        };
        assert_eq!(code, ErrorCode::OptionsRefused);
        assert_eq!(message, "User \u{fffd}[31m\u{fffd}");
    }

    #[test]
    fn error_text_is_bounded() {
        let mut bytes = b"\0\x05\0\0".to_vec();
        bytes.extend([b'x'; 4096]);
        let Ok(Packet::Error { message, .. }) = Packet::parse(&bytes) else {
            panic!("no error packet")
        };
        assert_eq!(message.len(), MAX_ERROR_TEXT);
    }

    fn options() -> impl Strategy<Value = Options> {
        (
            proptest::option::of(8_u32..),
            proptest::option::of(1_u8..),
            proptest::option::of(any::<u64>()),
            proptest::option::of(1_u16..),
        )
            .prop_map(
                |(block_size, timeout, transfer_size, window_size)| Options {
                    block_size,
                    timeout,
                    transfer_size,
                    window_size,
                },
            )
    }

    fn survives(packet: &Packet<'_>) -> Result<(), TestCaseError> {
        let bytes = packet.to_bytes();
        let again = Packet::parse(&bytes);
        prop_assert_eq!(again.as_ref(), Ok(packet));
        Ok(())
    }

    /// What an ERROR may say: other characters are replaced when it is read.
    fn shown_text() -> impl Strategy<Value = String> {
        let shown = any::<char>().prop_filter("a character that is shown", |c| is_shown(*c));
        proptest::collection::vec(shown, 0..=60).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn any_request_like_bytes_parse_or_are_refused(
            opcode in 0_u8..8,
            body in "([a-zA-Z0-9/.\\\\]{0,9}\0|octet\0|blksize\0|windowsize\0|[0-9]{0,25}\0|\\PC){0,40}",
        ) {
            let bytes = [&[0, opcode], body.as_bytes()].concat();
            if let Ok(packet) = Packet::parse(&bytes) {
                survives(&packet)?;
            }
        }

        #[test]
        fn requests_survive_the_wire(name in "[^\0]{1,60}", netascii: bool, options in options()) {
            let mode = if netascii { Mode::NetAscii } else { Mode::Octet };
            let request = Request { name: &name, mode, options };
            survives(&Packet::Read(request.clone()))?;
            survives(&Packet::Write(request))?;
            survives(&Packet::OptionAck(options))?;
        }

        #[test]
        fn blocks_and_errors_survive_the_wire(
            number: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..600),
            message in shown_text(),
        ) {
            for packet in [
                Packet::Data { block: number, payload: &payload },
                Packet::Ack { block: number },
                Packet::Error { code: number.into(), message: message.into() },
            ] {
                survives(&packet)?;
            }
        }
    }
}
