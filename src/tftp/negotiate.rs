//! What a client asks for, cut to what we allow.

use std::time::Duration;

use crate::wire::tftp::{DEFAULT_BLOCK_SIZE, MAX_BLOCK_SIZE, Options};

/// IPv4, UDP and TFTP headers in front of a block, bytes.
const HEADERS: u32 = 20 + 8 + 4;

/// Upper bounds for one transfer's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// Largest block, bytes.
    pub block_size: u16,
    /// Largest window, blocks.
    pub window_size: u16,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self {
            block_size: MAX_BLOCK_SIZE,
            window_size: 16,
        }
    }
}

impl Ceiling {
    /// Cuts blocks to what passes an interface of `mtu` bytes in one piece: option ROMs don't reassemble IP fragments.
    /// Never below 512 bytes, which every client may expect (RFC 1350).
    #[must_use]
    pub fn for_mtu(self, mtu: u32) -> Self {
        let fits = u16::try_from(mtu.saturating_sub(HEADERS)).unwrap_or(u16::MAX);
        let block_size = self.block_size.min(fits).max(DEFAULT_BLOCK_SIZE);
        Self { block_size, ..self }
    }
}

/// What holds for one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes in each block but the last.
    pub block_size: u16,
    /// Blocks that may be on their way without an ACK; at least 1.
    pub window_size: u16,
    /// The client's `timeout`: no retransmission waits longer.
    pub timeout: Option<Duration>,
    /// Options for the OACK; empty means that there is none.
    pub granted: Options,
}

impl Terms {
    /// Grants what `asked` asks for up to `ceiling`, for a file of `size` bytes.
    #[must_use]
    pub fn agree(asked: &Options, ceiling: Ceiling, size: u64) -> Self {
        let ceiling_size = ceiling.block_size.clamp(8, MAX_BLOCK_SIZE);
        let block_size = asked.block_size.map(|asked| {
            u16::try_from(asked).map_or(ceiling_size, |asked| asked.min(ceiling_size))
        });
        let window_size = asked
            .window_size
            .map(|asked| asked.clamp(1, ceiling.window_size.max(1)));
        let granted = Options {
            block_size: block_size.map(u32::from),
            timeout: asked.timeout,
            transfer_size: asked.transfer_size.map(|_| size),
            window_size,
        };
        Self {
            block_size: block_size.unwrap_or(DEFAULT_BLOCK_SIZE).max(8),
            window_size: window_size.unwrap_or(1),
            timeout: asked.timeout.map(|s| Duration::from_secs(s.into())),
            granted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(asked: Options, mtu: u32) -> Terms {
        Terms::agree(&asked, Ceiling::default().for_mtu(mtu), 1000)
    }

    #[test]
    fn nothing_asked_nothing_granted() {
        let terms = agree(Options::default(), 1500);
        assert_eq!((terms.block_size, terms.window_size), (512, 1));
        assert!(terms.granted.is_empty());
    }

    #[test]
    fn block_size_is_clamped_to_the_mtu() {
        for (asked, mtu, granted) in [
            (65468, 65536, 65464),
            (u32::MAX, 65536, 65464),
            (65464, 1500, 1468),
            (1468, 1500, 1468),
            (1432, 1500, 1432),
            (8192, 9000, 8192),
            (9000, 9000, 8968),
            (8, 1500, 8),
            (1468, 100, 512),
        ] {
            let options = Options {
                block_size: Some(asked),
                ..Options::default()
            };
            let terms = agree(options, mtu);
            assert_eq!(terms.block_size, granted, "asked {asked} at MTU {mtu}");
            assert_eq!(terms.granted.block_size, Some(granted.into()));
        }
    }

    #[test]
    fn window_is_capped_and_size_told() {
        let options = Options {
            transfer_size: Some(0),
            window_size: Some(65535),
            timeout: Some(7),
            ..Options::default()
        };
        let terms = agree(options, 1500);
        assert_eq!(terms.window_size, 16);
        assert_eq!(terms.granted.window_size, Some(16));
        assert_eq!(terms.granted.transfer_size, Some(1000));
        assert_eq!(terms.granted.timeout, Some(7));
        assert_eq!(terms.timeout, Some(Duration::from_secs(7)));
        assert_eq!(terms.granted.block_size, None);
    }
}
