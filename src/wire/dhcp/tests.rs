//! What is read, and what is answered.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::request::MAGIC;
use super::*;
use crate::wire::pxe::ClientArch;

/// A DISCOVER as OVMF sends it, with the options given.
pub(crate) fn discover(options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; FIXED];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
    bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    bytes[236..].copy_from_slice(&MAGIC);
    bytes.extend_from_slice(&[53, 1, 1]);
    bytes.extend_from_slice(options);
    bytes.push(255);
    bytes
}

#[test]
fn reads_what_pxe_needs() {
    let request = Request::parse(&discover(&[
        93, 2, 0, 7, 57, 2, 5, 192, 77, 4, b'i', b'P', b'X', b'E',
    ]))
    .unwrap();
    assert_eq!(request.client_archs(), [ClientArch::UEFI_X64]);
    assert_eq!(request.max_reply(), 1472 - 28);
    assert_eq!(request.user_class(), b"iPXE");
    assert_eq!(request.mac.to_string(), "52:54:00:00:00:01");
}

#[test]
fn a_bad_option_does_not_lose_those_behind_it() {
    let request =
        Request::parse(&discover(&[12, 2, 0xff, 0xfe, 93, 3, 0, 7, 9, 97, 1, 0])).unwrap();
    assert_eq!(request.client_archs(), [ClientArch::UEFI_X64]);
    assert_eq!(request.guid(), None);
}

/// Found by a property test: an ACK to a group, an OFFER to a relay that is everybody.
#[test]
fn addresses_that_no_answer_may_go_to_are_refused() {
    for (field, at) in [("ciaddr", 12), ("giaddr", 24)] {
        for address in [[224, 0, 0, 1], [255; 4], [127, 0, 0, 1]] {
            let mut bytes = discover(&[]);
            bytes[at..at + 4].copy_from_slice(&address);
            let address = Ipv4Addr::from(address);
            let expected = Malformed::BadAddress { field, address };
            assert_eq!(Request::parse(&bytes), Err(expected));
        }
    }
}

#[test]
fn long_hardware_addresses_are_refused_before_dhcproto_slices_them() {
    for hlen in [17, 255] {
        let mut bytes = discover(&[]);
        bytes[2] = hlen;
        assert_eq!(Request::parse(&bytes), Err(Malformed::LongAddress(hlen)));
    }
}

/// InfiniBand as its RFC 4390 §2.1 has it, and as iPXE has it (its port's GUID).
#[test]
fn what_has_no_mac_is_answered_with_what_it_has() {
    for (htype, address) in [(32, &[][..]), (32, &[0, 2, 0xc9, 3, 0, 1, 2, 3]), (0, &[])] {
        let mut bytes = discover(&[61, 3, 255, 1, 2]);
        (bytes[1], bytes[2]) = (htype, u8::try_from(address.len()).unwrap());
        bytes[28..44].fill(0);
        bytes[28..28 + address.len()].copy_from_slice(address);
        let request = Request::parse(&bytes).unwrap();
        let reply = offer().encode(&request);
        assert_eq!(reply[1..3], bytes[1..3]);
        assert_eq!(reply[28..44], bytes[28..44]);
        let mut relayed = request.clone();
        relayed.giaddr = Ipv4Addr::new(10, 77, 0, 254);
        assert_eq!(offer().encode(&relayed)[10], 0x80, "the relay broadcasts");
        bytes[243..248].fill(0);
        let nobody = Request::parse(&bytes);
        assert_eq!(nobody.is_err(), address.is_empty(), "{nobody:?}");
    }
}

/// RFC 3396: both ways.
#[test]
fn an_identifier_in_two_pieces_is_one_and_goes_back_in_two() {
    let long: Vec<u8> = (0..=255).chain(0..44).collect();
    let pieces = [&[61, 255][..], &long[..255], &[61, 45], &long[255..]].concat();
    let room = [&[57, 2, 5, 192][..], &pieces].concat();
    let request = Request::parse(&discover(&room)).unwrap();
    assert_eq!(request.bytes(61), long);
    let mut reply = offer();
    reply.options.insert(61, long);
    let bytes = reply.encode(&request);
    let found = bytes.windows(pieces.len()).any(|window| window == pieces);
    assert!(found, "{bytes:?}");
}

#[test]
fn overload_brings_the_options_in_file_and_sname() {
    let mut bytes = discover(&[52, 1, 3]);
    bytes[108..113].copy_from_slice(&[93, 2, 0, 0, 255]);
    bytes[44..49].copy_from_slice(&[60, 2, b'P', b'X', 255]);
    let request = Request::parse(&bytes).unwrap();
    assert_eq!(request.client_archs(), [ClientArch::BIOS]);
    assert_eq!(request.vendor_class(), b"PX");
}

#[test]
fn each_fault_has_its_name() {
    assert_eq!(Request::parse(&[0; 239]), Err(Malformed::Short(239)));
    let broken = |at: usize, value: u8| {
        let mut bytes = discover(&[]);
        bytes[at] = value;
        Request::parse(&bytes)
    };
    assert_eq!(broken(0, 2), Err(Malformed::NotRequest(2)));
    assert_eq!(broken(3, 17), Err(Malformed::Hops(17)));
    assert_eq!(broken(236, 0), Err(Malformed::Magic));
    assert_eq!(broken(240, 0), Err(Malformed::NoMessageType));
    assert!(matches!(
        broken(28, 1),
        Err(Malformed::BadHardwareAddress(_))
    ));
}

fn offer() -> Reply {
    Reply {
        message_type: MessageType::Offer,
        yiaddr: Ipv4Addr::new(10, 77, 0, 11),
        next_server: Ipv4Addr::new(10, 77, 0, 1),
        server_name: String::new(),
        boot_file: "snponly.efi".into(),
        options: BTreeMap::from([(1, vec![255, 255, 255, 0]), (54, vec![10, 77, 0, 1])]),
    }
}

#[test]
fn replies_are_padded_and_echo_option_82_last() {
    let request = Request::parse(&discover(&[82, 6, 1, 4, 9, 9, 9, 9])).unwrap();
    let bytes = offer().encode(&request);
    assert_eq!(bytes.len(), 300);
    let end = bytes.iter().rposition(|&b| b == 255).unwrap();
    assert_eq!(bytes[end - 8..end], [82, 6, 1, 4, 9, 9, 9, 9]);
    assert_eq!(&bytes[108..119], b"snponly.efi");
    assert_eq!(bytes[4..8], [1, 2, 3, 4]);
}

#[test]
fn replies_keep_within_what_the_client_takes() {
    let request = Request::parse(&discover(&[])).unwrap();
    let mut reply = offer();
    reply.options.insert(42, vec![7; 200]);
    reply.options.insert(15, vec![b'd'; 200]);
    reply.options.insert(67, b"snponly.efi".to_vec());
    reply.options.insert(150, vec![b'x'; 100]);
    let bytes = reply.encode(&request);
    assert!(bytes.len() <= 548);
    for kept in [[54, 4], [67, 11], [15, 200]] {
        assert!(bytes.windows(2).any(|w| w == kept), "{kept:?}");
    }
    assert!(!bytes.windows(2).any(|w| w == [150, 100]), "the operator's");
    assert_eq!(reply.left_out(&request), [150, 42]);
    assert!(offer().left_out(&request).is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = Request::parse(&bytes);
    }

    #[test]
    fn no_options_make_it_panic(options in proptest::collection::vec(any::<u8>(), 0..500)) {
        if let Ok(request) = Request::parse(&discover(&options)) {
            let bytes = offer().encode(&request);
            prop_assert!(bytes.len() >= MIN_REPLY);
            request.client_archs();
            request.guid();
        }
    }
}
