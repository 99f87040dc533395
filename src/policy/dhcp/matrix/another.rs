//! Where another server may be (`authoritative: false`): what we don't know may be its.

use super::*;

#[test]
fn where_another_server_may_be_what_is_not_known_gets_no_answer() {
    let us = ip(55, 1);
    let wants = || packet(Kind::Request, 9).at(us).wants(ip(55, 120));
    assert_eq!(wants().ask().because, Because::NotKnown(ip(55, 120)));
    let rebinds = packet(Kind::Request, 9).at(us).from(ip(55, 120), 68, ALL);
    assert_eq!(rebinds.ask().because, Because::NotKnown(ip(55, 120)));
    let ack = wants().ask_with(&leased(9, ip(55, 120))).reply.unwrap();
    assert_eq!(ack.reply.message_type, Kind::Ack);
    let nak = wants().ask_with(&leased(9, ip(55, 130))).reply;
    // The address is free and in the pool, so it may have it.
    assert_eq!(nak.unwrap().reply.message_type, Kind::Ack);
    let elsewhere = packet(Kind::Request, 9).at(us).wants(ip(44, 120));
    let nak = elsewhere.ask_with(&leased(9, ip(55, 130))).reply.unwrap();
    assert_eq!(nak.reply.message_type, Kind::Nak);
    // It renews with us alone: the lease was ours.
    let renews = packet(Kind::Request, 9).at(us).from(ip(55, 120), 68, us);
    assert_eq!(renews.sent().reply.message_type, Kind::Ack);
    // Where no other server is, an unknown client with a free address may have it.
    assert_eq!(
        packet(Kind::Request, 9)
            .wants(ip(77, 120))
            .sent()
            .reply
            .yiaddr,
        ip(77, 120)
    );
}

#[test]
fn behind_a_relay_too_another_servers_clients_are_left_alone() {
    let relay = ip(55, 254);
    let init = |wanted| {
        let asks = packet(Kind::Request, 9).wants(wanted).relayed(relay);
        asks.at(ip(55, 1))
    };
    for wanted in [ip(55, 20), ip(44, 120)] {
        assert_eq!(init(wanted).ask().because, Because::NotKnown(wanted));
    }
    let rebinds = packet(Kind::Request, 9).from(ip(55, 20), 68, ALL);
    let rebinds = rebinds.relayed(relay).at(ip(55, 1));
    assert_eq!(rebinds.ask().because, Because::NotKnown(ip(55, 20)));
    let nak = init(ip(55, 20)).ask_with(&leased(9, ip(55, 130))).reply;
    assert_eq!(nak.unwrap().reply.message_type, Kind::Nak);
}

#[test]
fn a_lease_that_ran_out_makes_nobody_known_but_by_its_address() {
    let mut leases = LeaseTable::default();
    leases.apply(&LeaseChange::Bind {
        mac: mac(9),
        address: ip(55, 130),
        expires: Timestamp::from_second(40).unwrap(),
        port: None,
    });
    let wants = |wanted| packet(Kind::Request, 9).at(ip(55, 1)).wants(wanted);
    let other = wants(ip(55, 20)).ask_with(&leases);
    assert_eq!(other.because, Because::NotKnown(ip(55, 20)));
    let own = wants(ip(55, 130)).ask_with(&leases).reply.unwrap();
    assert_eq!(own.reply.message_type, Kind::Ack);
}

#[test]
fn what_is_missing_in_loaders_is_not_told_of_another_servers_clients() {
    let asks = packet(Kind::Request, 9).firmware(27).wants(ip(77, 120));
    assert!(matches!(asks.ask().because, Because::NoLoader(_)));
    let other = ip(77, 99);
    let chose = asks.option(54, &other.octets());
    assert_eq!(chose.ask().because, Because::OtherServer(other));
}
