//! Bounds, storms, the MTU, and the server's end.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bridgehead::tftp::{BindError, Ended, Limits, Server};
use bridgehead::wire::tftp::{ErrorCode, Options};
use nix::sched::{CloneFlags, unshare};

use crate::support::{Client, PATIENCE, asking, calm, image, serve_calmly, serve_with, start};

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
        client.read(served.address, "small", asking(512, 1));
        transfers.push(client.receive_option_ack().0);
    }
    let third = Client::new();
    third.read(served.address, "small", asking(512, 1));
    let (_, code, message) = third.receive_error();
    assert_eq!(code, ErrorCode::NotDefined);
    assert_eq!(message, "server busy, try again");
    // A place that was given back can be had.
    clients[0].error(transfers[0], ErrorCode::NotDefined, "enough");
    served.outcome();
    third.read(served.address, "small", asking(512, 1));
    third.receive_option_ack();
}

#[test]
fn one_client_cannot_take_every_place() {
    let limits = Limits {
        transfers_per_client: 1,
        ..calm()
    };
    let served = serve_with(limits, Duration::ZERO);
    let first = Client::new();
    first.read(served.address, "small", asking(512, 1));
    first.receive_option_ack();
    let second = Client::new();
    second.read(served.address, "small", asking(512, 1));
    assert_eq!(second.receive_error().2, "server busy, try again");
    let other = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    let other = Client(other);
    other.read(served.address, "small", asking(512, 1));
    other.receive_option_ack();
}

/// A hall that powers on: probes from every machine, then the loader.
#[test]
fn three_hundred_clients_at_once() {
    let mut served = serve_calmly();
    let clients: Vec<_> = (0..300).map(|_| Client::new()).collect();
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
    let outcomes = served.outcomes(600);
    let done = outcomes.iter().filter(|o| o.ended == Ended::Done).count();
    let probes = outcomes.iter().filter(|o| o.is_size_probe()).count();
    assert_eq!((done, probes), (300, 300));
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

/// In a network namespace of its own, that ends with its thread, loopback gets the MTU of an Ethernet.
#[test]
fn blocks_fit_the_interface() {
    let inside = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!(
                "SKIPPED blocks_fit_the_interface: needs root for a network namespace ({error})"
            );
            return;
        }
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up", "mtu", "1500"])
            .status();
        let up = up.expect("ip is missing: install the package iproute2");
        assert!(up.success());
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        // The server's socket is made here, but those of its transfers on the runtime's threads: those must be
        // of this namespace too, which a thread inherits from the one that starts it.
        let served = start(
            Server::bind(loopback).unwrap().with_limits(calm()),
            Duration::ZERO,
        );
        let client = Client::new();
        client.read(served.address, "boot/image", asking(9000, 4));
        let (from, granted) = client.receive_option_ack();
        assert_eq!(granted.block_size, Some(1468));
        assert!(client.take_file(from, 1468, 4) == image());
    });
    inside.join().unwrap();
}
