//! Conversations, datagram by datagram.

use bridgehead::tftp::{Ended, Ignored, Outcome, Server, What};
use bridgehead::wire::tftp::{ErrorCode, Malformed, Mode, Options, Packet, Request};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::support::{Client, Served, asking, calm, image, serve, serve_calmly, start};

const ABORT: &str = "User aborted the transfer";

#[track_caller]
fn ignored(served: &mut Served) -> Ignored {
    served.event(|event| match event.what {
        What::Ignored { because } => Some(because),
        _ => None,
    })
}

/// EDK2 and PXE ROMs ask for the size, refuse with ERROR 8, and ask again. This one has a single port.
#[test]
fn size_probe_then_fetch_from_the_same_port() {
    let mut served = serve_calmly();
    let client = Client::new();
    let probe = Options {
        transfer_size: Some(0),
        block_size: Some(1468),
        ..Options::default()
    };
    client.read(served.address, "boot/image", probe);
    let (from, granted) = client.receive_option_ack();
    assert_eq!(granted.transfer_size, Some(image().len() as u64));
    client.error(from, ErrorCode::OptionsRefused, ABORT);
    client.read(served.address, "boot/image", asking(1432, 4));
    let (second, granted) = client.receive_option_ack();
    assert_ne!(from, second);
    assert_eq!(granted.block_size, Some(1432));
    assert!(client.take_file(second, 1432, 4) == image());
    let outcomes = served.outcomes(2);
    assert!(outcomes.iter().any(|o| o.is_size_probe()), "{outcomes:?}");
    assert!(
        outcomes.iter().any(|o| o.ended == Ended::Done),
        "{outcomes:?}"
    );
}

/// The same, with a request that is the same to the byte: it must not pass for a retransmission.
#[test]
fn size_probe_then_the_very_same_request() {
    let mut served = serve_calmly();
    for _ in 0..50 {
        let client = Client::new();
        client.read(served.address, "boot/image", asking(1468, 4));
        let (from, _) = client.receive_option_ack();
        client.error(from, ErrorCode::OptionsRefused, ABORT);
        client.read(served.address, "boot/image", asking(1468, 4));
        let (second, _) = client.receive_option_ack();
        assert_ne!(from, second);
        client.ack(second, 0);
        assert_eq!(client.receive_data().1, 1);
        client.error(second, ErrorCode::NotDefined, "enough");
        let outcomes = served.outcomes(2);
        let by_client = |o: &Outcome| matches!(o.ended, Ended::ClientError { .. });
        assert!(outcomes.iter().all(by_client), "{outcomes:?}");
    }
}

#[test]
fn repeated_request_is_answered_by_the_same_transfer() {
    let mut served = serve_calmly();
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 1));
    let (from, granted) = client.receive_option_ack();
    client.read(served.address, "boot/image", asking(1468, 1));
    assert_eq!(client.receive_option_ack(), (from, granted));
    assert_eq!(ignored(&mut served), Ignored::RepeatedRequest);
    assert!(client.take_file(from, 1468, 1) == image());
    assert_eq!(served.outcome().ended, Ended::Done);
}

#[test]
fn late_copy_of_a_request_leaves_the_transfer_alone() {
    let mut served = serve_calmly();
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 1));
    let (from, _) = client.receive_option_ack();
    client.ack(from, 0);
    let (_, block, _) = client.receive_data();
    assert_eq!(block, 1);
    client.ack(from, 1);
    assert_eq!(client.receive_data().1, 2);
    client.read(served.address, "boot/image", asking(1468, 1));
    client.read(served.address, "boot/image", asking(1468, 1));
    assert_eq!(ignored(&mut served), Ignored::StaleRequest);
    assert_eq!(ignored(&mut served), Ignored::StaleRequest);
    client.ack(from, 2);
    let (still, block, _) = client.receive_data();
    assert_eq!((still, block), (from, 3));
}

/// A machine that was reset in the middle of a transfer, and whose ROM has a fixed port.
#[test]
fn same_request_over_a_dead_transfer_begins_anew() {
    let mut served = serve_calmly();
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 1));
    let (from, _) = client.receive_option_ack();
    client.ack(from, 0);
    // Asks, and asks again as ROMs do, until a new transfer answers.
    client
        .0
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut buffer = [0; 2000];
    let begun = std::time::Instant::now();
    loop {
        client.read(served.address, "boot/image", asking(1468, 1));
        let answer = client.0.recv_from(&mut buffer);
        if answer.is_ok_and(|(_, by)| by != from) {
            break;
        }
        assert!(begun.elapsed() < crate::support::PATIENCE);
    }
    assert_eq!(served.outcome().ended, Ended::Replaced);
}

#[test]
fn other_request_from_the_same_port_replaces_the_transfer() {
    let mut served = serve_calmly();
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 4));
    let (from, _) = client.receive_option_ack();
    client.ack(from, 0);
    for _ in 0..4 {
        client.receive_data();
    }
    client.read(served.address, "small", asking(512, 1));
    let (second, _) = client.receive_option_ack();
    assert_eq!(client.take_file(second, 512, 1), b"hello\r\nworld\n");
    let outcomes = served.outcomes(2);
    for ended in [Ended::Replaced, Ended::Done] {
        assert!(outcomes.iter().any(|o| o.ended == ended), "{outcomes:?}");
    }
}

#[test]
fn too_large_a_block_is_clamped() {
    let mut served = serve_calmly();
    let client = Client::new();
    client.read(served.address, "boot/image", asking(65468, 999));
    let (from, granted) = client.receive_option_ack();
    assert_eq!(granted.block_size, Some(65464));
    assert_eq!(granted.window_size, Some(16));
    client.error(from, ErrorCode::NotDefined, "enough");
    served.outcome();
}

#[test]
fn unknown_options_alone_get_data_at_once() {
    let mut served = serve_calmly();
    let client = Client::new();
    let request = b"\0\x01small\0octet\0multicast\0\0rollover\x000\0blksize\x003\0";
    client.0.send_to(request, served.address).unwrap();
    let (from, block, payload) = client.receive_data();
    assert_eq!((block, payload.as_slice()), (1, &b"hello\r\nworld\n"[..]));
    client.ack(from, 1);
    assert_eq!(served.outcome().ended, Ended::Done);
}

#[test]
fn netascii_is_served_as_octet() {
    let served = serve_calmly();
    let client = Client::new();
    let request = Request {
        name: "lines",
        mode: Mode::NetAscii,
        options: Options::default(),
    };
    client.send(served.address, &Packet::Read(request));
    let (from, _, payload) = client.receive_data();
    assert_eq!(payload, b"one\ntwo\r\nthree\rfour\0five");
    client.ack(from, 1);
}

#[test]
fn answer_comes_from_the_address_that_was_asked() {
    let any = (Ipv4Addr::UNSPECIFIED, 0).into();
    let mut served = start(
        Server::bind(any).unwrap().with_limits(calm()),
        Duration::ZERO,
    );
    for last in [1, 2, 77] {
        let asked = IpAddr::from([127, 0, 0, last]);
        let server = (asked, served.address.port()).into();
        let client = Client::new();
        client.read(server, "small", asking(512, 1));
        let (from, _) = client.receive_option_ack();
        assert_eq!(from.ip(), asked);
        client.error(from, ErrorCode::NotDefined, "enough");
        let local = served.event(|event| match event.what {
            What::Finished { .. } => event.local,
            _ => None,
        });
        assert_eq!(local, asked);
        client.read(server, "absent", Options::default());
        assert_eq!(client.receive_error().0.ip(), asked);
    }
}

#[test]
fn broken_requests_are_answered_and_reported() {
    let mut served = serve_calmly();
    let client = Client::new();
    let long = [b"\0\x01".as_slice(), &[b'n'; 1500], b"\0octet\0"].concat();
    let cases: [(&[u8], Malformed); 8] = [
        (b"", Malformed::TooShort { length: 0 }),
        (b"\0", Malformed::TooShort { length: 1 }),
        (b"\0\x01\xc3\x28\0octet\0", Malformed::NameNotUtf8),
        (b"\0\x01\0octet\0", Malformed::NameEmpty),
        (b"\0\x01name", Malformed::NameNotTerminated),
        (b"\0\x02name\0mail\0", Malformed::ModeUnknown),
        (b"\xff\xffname\0octet\0", Malformed::UnknownOpcode(0xffff)),
        (&long, Malformed::TooLong),
    ];
    for (bytes, expected) in cases {
        client.0.send_to(bytes, served.address).unwrap();
        let (_, code, message) = client.receive_error();
        assert_eq!(code, ErrorCode::IllegalOperation);
        assert_eq!(message, expected.to_string());
        let (because, peer) = served.event(|event| match event.what {
            What::Malformed { because } => Some((because, event.peer)),
            _ => None,
        });
        assert_eq!(because, expected);
        assert_eq!(peer, client.0.local_addr().ok());
    }
    client.read(served.address, "small", Options::default());
    assert_eq!(client.receive_data().1, 1);
}

#[test]
fn errors_are_never_answered() {
    let mut served = serve_calmly();
    let client = Client::new();
    client.error(served.address, ErrorCode::NotDefined, "loop?");
    assert_eq!(ignored(&mut served), Ignored::NoSuchTransfer);
    client.0.send_to(b"\0\x05\0", served.address).unwrap();
    // The next that arrives is the answer to this, and nothing before it.
    client.ack(served.address, 7);
    assert_eq!(client.receive_error().1, ErrorCode::UnknownTransferId);
}

#[test]
fn writing_is_refused() {
    let mut served = serve_calmly();
    let client = Client::new();
    let request = Request {
        name: "boot/image",
        mode: Mode::Octet,
        options: Options::default(),
    };
    client.send(served.address, &Packet::Write(request));
    let (_, code, _) = client.receive_error();
    assert_eq!(code, ErrorCode::AccessViolation);
    let name = served.event(|event| match event.what {
        What::Refused { name, .. } => Some(name),
        _ => None,
    });
    assert_eq!(&*name, "boot/image");
}

#[test]
fn client_that_closes_its_port_ends_the_transfer() {
    let mut served = serve();
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 4));
    let (from, _) = client.receive_option_ack();
    client.ack(from, 0);
    drop(client);
    // At the latest the first repetition meets the closed port; the thirty seconds of patience aren't needed.
    assert_eq!(served.outcome().ended, Ended::Unreachable);
}

/// A ROM that runs the loader as soon as it has the last block.
#[test]
fn client_that_closes_its_port_over_its_last_ack_has_the_file() {
    let mut served = serve();
    let client = Client::new();
    client.read(served.address, "kilobyte", asking(512, 1));
    let (from, _) = client.receive_option_ack();
    for block in 0..3 {
        client.ack(from, block);
        client.receive_data();
    }
    drop(client);
    assert_eq!(served.outcome().ended, Ended::LastAckMissing);
}

/// A ROM that wanted the size, and whose ERROR was lost or never sent.
#[test]
fn client_that_closes_its_port_on_the_first_answer_asked_for_the_size() {
    let mut served = serve();
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 4));
    client.receive_option_ack();
    drop(client);
    let outcome = served.outcome();
    assert_eq!(outcome.ended, Ended::Unreachable);
    assert!(outcome.is_size_probe(), "{outcome:?}");
}

#[test]
fn strangers_cannot_disturb_a_transfer() {
    let mut served = serve_calmly();
    let client = Client::new();
    client.read(served.address, "kilobyte", asking(512, 1));
    let (from, _) = client.receive_option_ack();
    let stranger = Client::new();
    stranger.error(from, ErrorCode::NotDefined, "stop it");
    stranger.ack(from, 0);
    assert!(client.take_file(from, 512, 1) == image()[..1024]);
    let outcome = served.outcome();
    assert_eq!((outcome.ended, outcome.strays), (Ended::Done, 0));
}
