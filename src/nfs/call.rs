//! Calls of ONC RPC (RFC 5531), read with nothing believed: the engine sees only what was checked here.

/// Largest READ, and largest listing, in bytes.
pub(super) const MAX_DATA: u32 = 1 << 20;

/// Largest call that is read. The longest that a reader of files can send is a LOOKUP of a name of 255 bytes;
/// FSINFO asks writers for 4 KiB at most.
pub(super) const MAX_CALL: usize = 64 << 10;

/// Longest `nfs_fh3` (RFC 1813 section 2.4).
const MAX_HANDLE: usize = 64;

/// Longest credential or verifier (RFC 5531 section 8.2).
const MAX_AUTH: usize = 400;

const CALL: u32 = 0;
const RPC_VERSION: u32 = 2;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;

/// Who `AUTH_NONE` is: `nobody` on Linux.
const NOBODY: u32 = 65534;

/// A call, whole and of known shape down to its arguments.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) xid: u32,
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    pub(super) caller: Caller,
    pub(super) arguments: &'a [u8],
}

/// Who the client says is calling (`authsys_parms`, RFC 5531 appendix A).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    /// The primary group first.
    pub(super) gids: Vec<u32>,
}

/// What is wrong with a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadCall {
    /// Not a call at all: nothing can be answered.
    Malformed(&'static str),
    /// Another version of RPC.
    RpcVersion { xid: u32 },
    /// A credential that is not understood.
    Credential { xid: u32 },
}

/// Reads a record without its mark.
pub(super) fn parse(record: &[u8]) -> Result<Call<'_>, BadCall> {
    let mut rest = Reader(record);
    let mut header =
        || -> Option<(u32, u32, u32)> { Some((rest.u32()?, rest.u32()?, rest.u32()?)) };
    let (xid, kind, version) = header().ok_or(BadCall::Malformed("shorter than a header"))?;
    if kind != CALL {
        return Err(BadCall::Malformed("a reply"));
    }
    if version != RPC_VERSION {
        return Err(BadCall::RpcVersion { xid });
    }
    let mut target =
        || -> Option<(u32, u32, u32)> { Some((rest.u32()?, rest.u32()?, rest.u32()?)) };
    let (program, version, procedure) = target().ok_or(BadCall::Malformed("no procedure"))?;
    let caller = credential(&mut rest).ok_or(BadCall::Credential { xid })?;
    Ok(Call {
        xid,
        program,
        version,
        procedure,
        caller,
        arguments: rest.0,
    })
}

/// Credential and verifier.
fn credential(rest: &mut Reader<'_>) -> Option<Caller> {
    let flavor = rest.u32()?;
    let body = rest.opaque(MAX_AUTH)?;
    let _verifier_flavor = rest.u32()?;
    let _verifier = rest.opaque(MAX_AUTH)?;
    match flavor {
        AUTH_NONE => Some(Caller {
            uid: NOBODY,
            gids: vec![NOBODY],
        }),
        AUTH_SYS => auth_sys(Reader(body)),
        _ => None,
    }
}

fn auth_sys(mut body: Reader<'_>) -> Option<Caller> {
    let _stamp = body.u32()?;
    let _machine = body.opaque(255)?;
    let uid = body.u32()?;
    let mut gids = vec![body.u32()?];
    let more = body.u32()?;
    if more > 16 {
        return None;
    }
    for _ in 0..more {
        gids.push(body.u32()?);
    }
    Some(Caller { uid, gids })
}

/// What follows the handle in a procedure's arguments.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// This many bytes.
    Fixed(usize),
    /// A file name.
    Name,
}

/// Whether the arguments are a file handle and what the shape says, and nothing else.
pub(super) fn has_shape(arguments: &[u8], shape: Shape) -> bool {
    let mut rest = Reader(arguments);
    let whole = rest.handle().is_some()
        && match shape {
            Shape::Fixed(count) => rest.take(count).is_some(),
            Shape::Name => rest.opaque(MAX_CALL).is_some(),
        };
    whole && rest.0.is_empty()
}

/// The path of a MOUNT call.
pub(super) fn mount_path(arguments: &[u8]) -> Option<String> {
    /// MNTPATHLEN, RFC 1813 section 5.1.4.
    const MAX_PATH: usize = 1024;
    let mut rest = Reader(arguments);
    let path = rest.opaque(MAX_PATH)?;
    rest.0
        .is_empty()
        .then(|| String::from_utf8_lossy(path).into_owned())
}

/// XDR (RFC 4506) over borrowed bytes; `None` past the end.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }

    pub(super) fn handle(&mut self) -> Option<&'a [u8]> {
        self.opaque(MAX_HANDLE)
    }

    fn opaque(&mut self, max: usize) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        if length > max {
            return None;
        }
        let bytes = self.take(length)?;
        self.take(length.wrapping_neg() % 4)?;
        Some(bytes)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_call_is_read_to_its_arguments() {
        let record = words(&[
            5, 0, 2, 100_003, 3, 1, 1, 28, 9, 0, 10, 20, 2, 30, 40, 0, 0, 77,
        ]);
        let call = parse(&record).unwrap();
        assert_eq!(
            (call.xid, call.program, call.version, call.procedure),
            (5, 100_003, 3, 1)
        );
        assert_eq!(
            call.caller,
            Caller {
                uid: 10,
                gids: vec![20, 30, 40]
            }
        );
        assert_eq!(call.arguments, words(&[77]));
    }

    #[test]
    fn what_is_no_call_is_told_apart() {
        assert!(matches!(parse(&[0; 11]), Err(BadCall::Malformed(_))));
        assert!(matches!(
            parse(&words(&[5, 1, 2])),
            Err(BadCall::Malformed("a reply"))
        ));
        assert_eq!(
            parse(&words(&[5, 0, 3])).unwrap_err(),
            BadCall::RpcVersion { xid: 5 }
        );
        let gss = words(&[5, 0, 2, 100_003, 3, 1, 6, 0, 0, 0]);
        assert_eq!(parse(&gss).unwrap_err(), BadCall::Credential { xid: 5 });
        let long = words(&[5, 0, 2, 100_003, 3, 1, 0, 404]);
        assert_eq!(parse(&long).unwrap_err(), BadCall::Credential { xid: 5 });
        let seventeen_gids = [
            &[5, 0, 2, 100_003, 3, 1, 1, 88, 0, 0, 0, 0, 17][..],
            &[0; 19],
        ]
        .concat();
        assert_eq!(
            parse(&words(&seventeen_gids)).unwrap_err(),
            BadCall::Credential { xid: 5 }
        );
    }

    #[test]
    fn shapes_leave_no_byte_over() {
        let handle = words(&[4, 7]);
        assert!(has_shape(&handle, Shape::Fixed(0)));
        assert!(!has_shape(&handle, Shape::Fixed(4)));
        assert!(!has_shape(
            &[&handle[..], &[0; 4]].concat(),
            Shape::Fixed(0)
        ));
        assert!(has_shape(
            &[&handle[..], b"\0\0\0\x03abc\0"].concat(),
            Shape::Name
        ));
        assert!(!has_shape(
            &[&handle[..], b"\0\0\0\x03abc"].concat(),
            Shape::Name
        ));
        assert!(!has_shape(
            &[&handle[..], b"\xff\xff\xff\xff"].concat(),
            Shape::Name
        ));
        assert!(!has_shape(&words(&[68]), Shape::Name));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, header in 0..3_u32) {
            let record = [words(&[1, 0, 2, 100_003, 3, 1, header]), bytes].concat();
            if let Ok(call) = parse(&record) {
                has_shape(call.arguments, Shape::Name);
                has_shape(call.arguments, Shape::Fixed(24));
                mount_path(call.arguments);
            }
        }
    }
}
