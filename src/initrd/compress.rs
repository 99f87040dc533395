//! The compressions that a module, a firmware file or an initrd member may come in.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz file format.
    Xz,
    /// RFC 8878.
    Zstd,
}

/// Nothing unpacked may grow beyond this: a damaged or hostile file must not eat the machine.
pub(crate) const UNPACKED_LIMIT: u64 = 1 << 30;

impl Compression {
    /// Told by the first bytes.
    pub fn detect(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Unpacks a file of any kind; what isn't compressed comes back as it is.
pub(crate) fn unpack(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if Compression::detect(&bytes) == Compression::None {
        return Ok(bytes);
    }
    let (mut unpacked, mut rest) = (Vec::new(), bytes.as_slice());
    while !rest.is_empty() {
        let (part, used) = unpack_one(rest, UNPACKED_LIMIT - unpacked.len() as u64)?;
        unpacked.extend(part);
        rest = &rest[used..];
    }
    Ok(unpacked)
}

/// Unpacks the first stream or frame; also says how many bytes it took.
pub(crate) fn unpack_one(bytes: &[u8], limit: u64) -> io::Result<(Vec<u8>, usize)> {
    let (unpacked, rest) = match Compression::detect(bytes) {
        Compression::Gzip => {
            let mut reader = flate2::bufread::GzDecoder::new(bytes);
            (read_limited(&mut reader, limit)?, reader.into_inner())
        }
        Compression::Xz => {
            let mut reader = liblzma::bufread::XzDecoder::new(bytes);
            (read_limited(&mut reader, limit)?, reader.into_inner())
        }
        Compression::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
            (read_limited(&mut reader, limit)?, reader.finish())
        }
        Compression::None => {
            let message = "unknown compression (known: gzip, xz, zstd)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    };
    Ok((unpacked, bytes.len() - rest.len()))
}

fn read_limited(reader: &mut impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > limit {
        let message = format!("unpacks to more than {UNPACKED_LIMIT} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(unpacked)
}

/// One zstd frame: single-threaded, with size and checksum, the same bytes each time.
pub(crate) fn pack_zstd(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_kind_comes_back() {
        let text = b"the quick brown fox".repeat(50);
        for packed in [
            text.clone(),
            gzip(&text),
            xz(&text),
            pack_zstd(&text, 3).unwrap(),
        ] {
            assert_eq!(unpack(packed).unwrap(), text);
        }
    }

    #[test]
    fn one_stream_says_what_it_took() {
        let text = b"member".repeat(9);
        for packed in [gzip(&text), xz(&text), pack_zstd(&text, 3).unwrap()] {
            let mut followed = packed.clone();
            followed.extend(b"\0\0\0\0rest");
            let (unpacked, used) = unpack_one(&followed, 1000).unwrap();
            assert_eq!((unpacked, used), (text.clone(), packed.len()));
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        for packed in [
            gzip(&[0; 9000]),
            xz(&[0; 9000]),
            pack_zstd(&[0; 9000], 3).unwrap(),
        ] {
            assert!(unpack_one(&packed, 1000).is_err());
        }
    }

    #[test]
    fn truncated_input_is_an_error() {
        for packed in [
            gzip(&[7; 900]),
            xz(&[7; 900]),
            pack_zstd(&[7; 900], 3).unwrap(),
        ] {
            assert!(unpack(packed[..packed.len() - 2].to_vec()).is_err());
        }
    }
}
