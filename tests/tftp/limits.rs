//! Bounds, storms, the MTU, and the server's end.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bridgehead::metrics::{UdpService, WatchedSockets};
use bridgehead::tftp::{BindError, Ended, Ignored, Limits, Server, What};
use bridgehead::wire::tftp::{ErrorCode, Options};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{
    Client, PATIENCE, Served, asking, calm, image, serve_calmly, serve_with, start,
};

#[test]
fn more_than_the_limit_is_told_to_come_again() {
    let limits = Limits {
        transfers: 2,
        ..calm()
    };
    let mut served = serve_with(limits, Duration::ZERO);
    let clients: Vec<_> = (0..2).map(|_| Client::new()).collect();
    let mut transfers = Vec::new();
    for client in &clients {
        transfers.push(under_way(client, served.address));
    }
    let third = Client::new();
    third.read(served.address, "small", asking(512, 1));
    let (_, code, message) = third.receive_error();
    assert_eq!(code, ErrorCode::NotDefined);
    assert_eq!(message, "server busy, try again");
    // A place that was given back can be had.
    clients[0].error(transfers[0], ErrorCode::NotDefined, "enough");
    served.outcome();
    // The outcome is told a moment before the place is free: "come again" may be said once more.
    const ERROR: &[u8] = &[0, 5];
    let answered = (0..1000).any(|_| {
        third.read(served.address, "small", asking(512, 1));
        !third.receive().1.starts_with(ERROR)
    });
    assert!(answered, "the place was never given back");
}

#[test]
fn one_client_cannot_take_every_place() {
    let limits = Limits {
        transfers_per_client: 1,
        ..calm()
    };
    let served = serve_with(limits, Duration::ZERO);
    let first = Client::new();
    under_way(&first, served.address);
    let second = Client::new();
    second.read(served.address, "small", asking(512, 1));
    assert_eq!(second.receive_error().2, "server busy, try again");
    let other = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    let other = Client(other);
    other.read(served.address, "small", asking(512, 1));
    other.receive_option_ack();
}

/// Begins a transfer, up to its first block, and keeps it so.
fn under_way(client: &Client, server: SocketAddr) -> SocketAddr {
    client.read(server, "small", asking(512, 1));
    let (from, _) = client.receive_option_ack();
    client.ack(from, 0);
    client.receive_data();
    from
}

#[test]
fn who_never_answered_makes_room() {
    let limits = Limits {
        transfers: 2,
        ..calm()
    };
    let mut served = serve_with(limits, Duration::ZERO);
    let answering = Client::new();
    let from = under_way(&answering, served.address);
    for _ in 0..5 {
        let silent = Client::new();
        silent.read(served.address, "small", asking(512, 1));
        silent.receive_option_ack();
        // Open to the end, so that no closed port ends its transfer.
        std::mem::forget(silent);
    }
    for _ in 0..4 {
        assert_eq!(served.outcome().ended, Ended::GaveUp);
    }
    answering.ack(from, 1);
    assert_eq!(served.outcome().ended, Ended::Done);
}

/// A hall that powers on: probes from every machine, then the loader. Without room for large buffers (no root) the
/// kernel's default may not do.
#[test]
fn five_hundred_clients_at_once() {
    raise_open_files();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets = WatchedSockets::default();
    sockets.watch(UdpService::Tftp, &socket);
    let server = Server::from_sockets(vec![socket]).unwrap();
    let mut served = start(server.with_limits(calm()), Duration::ZERO);
    let clients: Vec<_> = (0..500).map(|_| Client::new()).collect();
    let probe = Options {
        transfer_size: Some(0),
        ..Options::default()
    };
    for client in &clients {
        client.read(served.address, "kilobyte", probe);
    }
    for client in &clients {
        let (from, granted) = client.receive_option_ack();
        assert_eq!(granted.transfer_size, Some(1024));
        client.error(from, ErrorCode::OptionsRefused, "probe");
        client.read(served.address, "kilobyte", asking(512, 4));
    }
    for client in &clients {
        let (from, _) = client.receive_option_ack();
        assert!(client.take_file(from, 512, 4) == image()[..1024]);
    }
    let outcomes = served.outcomes(1000);
    let done = outcomes.iter().filter(|o| o.ended == Ended::Done).count();
    let probes = outcomes.iter().filter(|o| o.is_size_probe()).count();
    assert_eq!((done, probes), (500, 500));
    assert_eq!(sockets.drops(UdpService::Tftp), 0);
}

/// Two descriptors for each of 500 clients are more than a process may have by default.
fn raise_open_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// One client asks without end, from many ports and for another file each time; fifty others want one each.
#[test]
fn flood_of_one_client_leaves_the_others_served() {
    let limits = Limits {
        requests_per_client: 50,
        ..calm()
    };
    let mut served = serve_with(limits, Duration::ZERO);
    let address = served.address;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ports: Vec<_> = (0..100).map(|_| client_at([127, 0, 0, 66])).collect();
            let names = (0_u32..).map(|n| format!("no-{n}"));
            for (name, client) in names.zip(ports.iter().cycle()) {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                client.read(address, "boot/image", asking(1468, 4));
                client.read(address, &name, asking(512, 1));
            }
        });
        for last in 100..150 {
            let client = client_at([127, 0, 0, last]);
            // As every ROM does: asks again where nothing comes.
            let retry = Duration::from_secs(1);
            client.0.set_read_timeout(Some(retry)).unwrap();
            let mut first = [0; 1];
            let heard = (0..20).any(|_| {
                client.read(address, "kilobyte", asking(512, 4));
                client.0.peek_from(&mut first).is_ok()
            });
            assert!(heard, "127.0.0.{last} is not served");
            client.0.set_read_timeout(Some(PATIENCE)).unwrap();
            let (from, _) = client.receive_option_ack();
            assert!(client.take_file(from, 512, 4) == image()[..1024]);
        }
        over.store(true, Ordering::Relaxed);
    });
    served.event(|event| match event.what {
        What::Ignored { because } => (because == Ignored::TooMany).then_some(()),
        _ => None,
    });
}

fn client_at(address: [u8; 4]) -> Client {
    let socket = UdpSocket::bind(SocketAddr::from((address, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Client(socket)
}

#[test]
fn shutdown_lets_transfers_finish() {
    let mut served = serve_with(calm(), PATIENCE);
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 4));
    let (from, _) = client.receive_option_ack();
    served.shutdown.cancel();
    assert!(client.take_file(from, 1468, 4) == image());
    assert_eq!(served.outcome().ended, Ended::Done);
    served.wait();
}

#[test]
fn shutdown_ends_what_does_not_finish() {
    let mut served = serve_with(calm(), Duration::from_millis(50));
    let client = Client::new();
    client.read(served.address, "boot/image", asking(1468, 4));
    client.receive_option_ack();
    served.shutdown.cancel();
    let (_, code, message) = client.receive_error();
    assert_eq!(code, ErrorCode::NotDefined);
    assert_eq!(message, "server is shutting down");
    assert_eq!(served.outcome().ended, Ended::Shutdown);
    served.wait();
}

#[test]
fn taken_address_is_named() {
    let served = serve_calmly();
    let error = Server::bind(served.address).unwrap_err();
    assert!(matches!(error, BindError::Bind { address, .. } if address == served.address));
    assert_eq!(
        error.to_string(),
        format!("failed to listen for TFTP on {}", served.address)
    );
}

#[allow(clippy::print_stderr, reason = "a test that is skipped must say so")]
/// Runs `test` in a network namespace of its own, that ends with its thread. Loopback has the MTU of an Ethernet.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let inside = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: needs root for a network namespace ({error})");
            return;
        }
        set_loopback("up mtu 1500");
        test();
    });
    inside.join().unwrap();
}

fn set_loopback(state: &str) {
    ip(&format!("link set lo {state}"));
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).status();
    let done = done.expect("ip is missing: install the package iproute2");
    assert!(done.success());
}

/// Serves in this thread's namespace: the server's socket is made here, but those of its transfers on the runtime's
/// threads, which must be of this namespace too; a thread inherits it from the one that starts it.
fn serve_here(limits: Limits) -> Served {
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let server = Server::bind(loopback).unwrap().with_limits(limits);
    start(server, Duration::ZERO)
}

#[test]
fn route_that_fails_for_a_while_is_survived() {
    in_namespace(|| {
        // The rule that comes first of all is not to be: below, one goes before it.
        ip("rule add pref 10 lookup local");
        ip("rule del pref 0");
        let mut served = serve_here(Limits::default());
        let client = Client::new();
        client.read(served.address, "boot/image", asking(1468, 16));
        let (from, _) = client.receive_option_ack();
        client.ack(from, 0);
        for block in 1..=16 {
            assert_eq!(client.receive_data().1, block);
        }
        ip("rule add pref 5 ipproto udp unreachable");
        // Neither can send. The server tries again after 100 ms, and goes on for half a minute.
        let ack = client.0.send_to(&[0, 4, 0, 16], from);
        assert_eq!(ack.unwrap_err().kind(), ErrorKind::NetworkUnreachable);
        std::thread::sleep(Duration::from_millis(300));
        ip("rule del pref 5");
        assert!(client.take_file(from, 1468, 16) == image());
        let outcome = served.outcome();
        assert_eq!(outcome.ended, Ended::Done);
        assert!(outcome.retransmissions >= 16, "{outcome:?}");
    });
}

/// The kernel refuses to cut a window into datagrams that no longer fit in one packet: they go one by one, in
/// fragments.
#[test]
fn path_that_gets_narrower_is_survived() {
    in_namespace(|| {
        let mut served = serve_here(Limits::default());
        let client = Client::new();
        client.read(served.address, "boot/image", asking(1468, 4));
        let (from, granted) = client.receive_option_ack();
        assert_eq!(granted.block_size, Some(1468));
        client.ack(from, 0);
        for block in 1..=4 {
            assert_eq!(client.receive_data().1, block);
        }
        set_loopback("mtu 1200");
        client.ack(from, 4);
        for block in 5..=8 {
            assert_eq!(client.receive_data().1, block);
        }
        client.error(from, ErrorCode::NotDefined, "enough");
        served.outcome();
    });
}

#[test]
fn blocks_fit_the_interface() {
    in_namespace(|| {
        let served = serve_here(calm());
        let client = Client::new();
        client.read(served.address, "boot/image", asking(9000, 4));
        let (from, granted) = client.receive_option_ack();
        assert_eq!(granted.block_size, Some(1468));
        assert!(client.take_file(from, 1468, 4) == image());
        set_loopback("mtu 576");
        client.read(served.address, "boot/image", asking(1468, 4));
        assert_eq!(client.receive_option_ack().1.block_size, Some(544));
    });
}
