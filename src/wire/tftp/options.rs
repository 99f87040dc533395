//! Options of a transfer (RFC 2347, 2348, 2349, 7440).

use super::{put_string, take_string};

/// Smallest block size that may be asked for, bytes (RFC 2348).
pub const MIN_BLOCK_SIZE: u16 = 8;

/// Options asked for (RRQ, WRQ) or granted (OACK). A value outside its RFC's range counts as not asked for,
/// except that too large a block or window size is kept, to be clamped by the one who grants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// `blksize`, bytes, at least 8 (RFC 2348).
    pub block_size: Option<u32>,
    /// `timeout`, seconds, 1 to 255 (RFC 2349).
    pub timeout: Option<u8>,
    /// `tsize`, bytes; 0 in an RRQ asks for the size (RFC 2349).
    pub transfer_size: Option<u64>,
    /// `windowsize`, blocks, at least 1 (RFC 7440).
    pub window_size: Option<u16>,
}

impl Options {
    /// True where no option is set: such a request gets DATA 1 and no OACK (RFC 2347).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads name and value pairs up to the end, an empty name (padding) or a pair that is cut off.
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Some((name, value, rest)) = take_pair(bytes) {
            options.set(name, value);
            bytes = rest;
        }
        options
    }

    /// The first value of an option counts: RFC 2347 forbids a second.
    fn set(&mut self, name: &[u8], value: &[u8]) {
        let Some(number) = decimal(value) else { return };
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("blksize") && number >= u64::from(MIN_BLOCK_SIZE) {
            let size = u32::try_from(number).unwrap_or(u32::MAX);
            self.block_size.get_or_insert(size);
        } else if is("timeout") && (1..=255).contains(&number) {
            self.timeout.get_or_insert(number as u8);
        } else if is("tsize") {
            self.transfer_size.get_or_insert(number);
        } else if is("windowsize") && number >= 1 {
            let size = u16::try_from(number).unwrap_or(u16::MAX);
            self.window_size.get_or_insert(size);
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let pairs = [
            ("blksize", self.block_size.map(u64::from)),
            ("timeout", self.timeout.map(u64::from)),
            ("tsize", self.transfer_size),
            ("windowsize", self.window_size.map(u64::from)),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                put_string(out, name);
                put_string(out, &value.to_string());
            }
        }
    }
}

fn take_pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = take_string(bytes)?;
    if name.is_empty() {
        return None;
    }
    let (value, rest) = take_string(rest)?;
    Some((name, value, rest))
}

/// A decimal number without sign; one that is too large saturates, so that it can be clamped.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(bytes.iter().fold(0_u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}
