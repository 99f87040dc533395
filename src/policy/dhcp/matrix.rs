//! Who gets an answer of which network, from where and to where: every row of RFC 2131 §4.1,
//! relays, several networks on a link, and a server beside another.

mod another;
mod beside;
mod packet;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use jiff::Timestamp;

use super::{OwnAddresses, Port, Received, World, answer};
use crate::inventory::model::{Inventory, MacAddr};
use crate::policy::architecture::Architecture;
use crate::policy::lease::{LeaseChange, LeaseTable};
use crate::policy::verdict::{Because, Destination, Transmit, Verdict};
use crate::wire::dhcp::{Hardware, MessageType as Kind, Request};

use packet::{Packet, ip, leased, mac, packet, unicast};

const INVENTORY: &str = "
networks:
  boot: {subnet: 10.77.0.0/24, pool: 10.77.0.100-10.77.0.199, reply_delay: {bios: 500ms}}
  far: {subnet: 10.88.0.0/24, pool: 10.88.0.100-10.88.0.199}
  farther: {subnet: 10.89.0.0/24, pool: 10.89.0.100-10.89.0.199}
  second: {subnet: 10.99.0.0/24}
  beside: {subnet: 10.66.0.0/24, dhcp: proxy}
  shared: {subnet: 10.55.0.0/24, pool: 10.55.0.100-10.55.0.199, authoritative: false}
  quiet: {subnet: 10.44.0.0/24, dhcp: \"off\"}
profiles:
  kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}
hosts:
  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm}
  kvm02: {mac: \"52:54:00:00:00:02\", ip: 10.99.0.12, profile: kvm}
  kvm03: {mac: \"52:54:00:00:00:03\", ip: 10.88.0.13, profile: kvm}
  kvm04: {mac: \"52:54:00:00:00:04\", ip: 10.66.0.14, profile: kvm}
";

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const US_TOO: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
/// Ours on another interface, in the pool of the network behind the relay.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 180);
/// Ours too, where nothing is served.
const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 254);

/// What each packet is for, the packet, and where its answer goes.
type Row = (&'static str, Packet, Destination);

#[track_caller]
fn go_to(rows: impl IntoIterator<Item = Row>) {
    for (row, packet, to) in rows {
        assert_eq!(packet.sent().destination, to, "{row}");
    }
}

fn discover() -> Packet {
    packet(Kind::Discover, 1)
}

fn request() -> Packet {
    packet(Kind::Request, 1)
}

fn inform() -> Packet {
    packet(Kind::Inform, 1)
}

/// The reservation of the one who asks in the rows.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const NEAR_RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
const ALL_CLIENTS: Destination = Destination::Broadcast;

#[test]
fn clients_without_an_address_hear_by_their_mac_or_with_all_others() {
    let frame = Destination::Frame {
        mac: mac(1),
        address: OWN,
    };
    go_to([
        ("no address", discover(), frame),
        ("broadcast flag", discover().broadcast(), ALL_CLIENTS),
        ("no MAC", discover().without_mac(), ALL_CLIENTS),
        (
            "selecting",
            request().wants(OWN).option(54, &US.octets()),
            frame,
        ),
        (
            "selecting without a MAC",
            request().wants(OWN).without_mac(),
            ALL_CLIENTS,
        ),
        ("init-reboot", request().wants(OWN), frame),
    ]);
}

#[test]
fn clients_with_an_address_hear_there() {
    go_to([
        ("renewing", request().from(OWN, 68, US), unicast(OWN, 68)),
        (
            "renewing, another port",
            request().from(OWN, 1068, US),
            unicast(OWN, 1068),
        ),
        (
            "renewing without a MAC",
            request().from(OWN, 68, US).without_mac(),
            unicast(OWN, 68),
        ),
        ("rebinding", request().from(OWN, 68, ALL), unicast(OWN, 68)),
    ]);
}

#[test]
fn what_came_by_a_relay_goes_back_by_it() {
    let relay = unicast(NEAR_RELAY, 67);
    let relayed = |packet: Packet| packet.relayed(NEAR_RELAY);
    go_to([
        ("relay", relayed(discover()), relay),
        ("broadcast flag", relayed(discover().broadcast()), relay),
        ("no MAC", relayed(discover().without_mac()), relay),
        ("rebinding", relayed(request().from(OWN, 68, ALL)), relay),
        ("NAK", relayed(request().wants(ip(77, 99))), relay),
        ("INFORM without ciaddr", relayed(inform()), relay),
        (
            "INFORM",
            relayed(inform().from(OWN, 68, ALL)),
            unicast(OWN, 68),
        ),
    ]);
}

#[test]
fn a_nak_is_heard_by_whoever_it_is_for() {
    let renewing = request().from(ip(77, 99), 68, US);
    go_to([
        ("NAK", request().wants(ip(77, 99)), ALL_CLIENTS),
        ("NAK while renewing", renewing, ALL_CLIENTS),
    ]);
}

#[test]
fn an_inform_is_answered_where_its_client_is() {
    let mut informs = inform();
    informs.source = SocketAddrV4::new(OWN, 40_000);
    go_to([
        ("ciaddr", inform().from(OWN, 68, ALL), unicast(OWN, 68)),
        ("source", informs, unicast(OWN, 40_000)),
        ("no address", inform(), ALL_CLIENTS),
    ]);
}

#[test]
fn what_a_relay_must_broadcast_says_so() {
    let flags = |packet: &Packet| {
        let bytes = packet.sent().reply.encode(&packet.request);
        u16::from_be_bytes([bytes[10], bytes[11]])
    };
    let nak = packet(Kind::Request, 1)
        .wants(ip(77, 99))
        .relayed(ip(77, 254));
    assert_eq!(flags(&nak), 0x8000);
    assert_eq!(flags(&packet(Kind::Inform, 1).relayed(ip(77, 254))), 0x8000);
    let relayed = packet(Kind::Discover, 1).relayed(ip(77, 254));
    assert_eq!(flags(&relayed), 0);
    assert_eq!(flags(&relayed.without_mac()), 0x8000);
}

#[test]
fn a_relays_port_is_the_one_it_sends_from_if_it_says_so() {
    let mut relayed = packet(Kind::Discover, 9).relayed(RELAY);
    relayed.source.set_port(40_067);
    assert_eq!(relayed.sent().destination, unicast(RELAY, 67));
    let relayed = relayed.option(82, &[1, 2, 3, 4, 19, 0]);
    assert_eq!(relayed.sent().destination, unicast(RELAY, 40_067));
}

/// Which network, by the address that is given.
#[test]
fn the_network_is_that_of_the_link_the_relay_or_the_lease() {
    let link = [5, 4, 10, 89, 0, 1];
    for (row, packet, given) in [
        ("the link", packet(Kind::Discover, 9), ip(77, 0)),
        (
            "giaddr",
            packet(Kind::Discover, 9).relayed(RELAY),
            ip(88, 0),
        ),
        (
            "link selection before giaddr",
            packet(Kind::Discover, 9).relayed(RELAY).option(82, &link),
            ip(89, 0),
        ),
        (
            "link selection without a relay is nobody's",
            packet(Kind::Discover, 9).option(82, &link),
            ip(77, 0),
        ),
        (
            "subnet selection",
            packet(Kind::Discover, 9).option(118, &[10, 88, 0, 0]),
            ip(88, 0),
        ),
        (
            "link before subnet selection",
            packet(Kind::Discover, 9)
                .relayed(RELAY)
                .option(82, &link)
                .option(118, &[10, 77, 0, 0]),
            ip(89, 0),
        ),
        (
            "a host of the link's second network",
            packet(Kind::Discover, 2),
            ip(99, 0),
        ),
        ("a host elsewhere", packet(Kind::Discover, 3), ip(77, 0)),
        (
            "a client in a network behind a relay that renews",
            packet(Kind::Request, 3).from(ip(88, 13), 68, US),
            ip(88, 0),
        ),
    ] {
        let octets = packet.sent().reply.yiaddr.octets();
        assert_eq!(&octets[..3], &given.octets()[..3], "{row}");
    }
}

#[test]
fn subnet_selection_is_echoed() {
    let sent = packet(Kind::Discover, 9)
        .option(118, &[10, 88, 0, 0])
        .sent();
    assert_eq!(sent.reply.options[&118], [10, 88, 0, 0]);
}

#[test]
fn a_client_that_moved_and_asks_everybody_is_told_no() {
    // Its lease is of the network behind the relay; now it is on our link.
    let leases = leased(9, ip(88, 120));
    let moved = packet(Kind::Request, 9).from(ip(88, 120), 68, ALL);
    let nak = moved.ask_with(&leases).reply.unwrap();
    assert_eq!(nak.reply.message_type, Kind::Nak);
    // By unicast it could be where its lease says.
    let renews = packet(Kind::Request, 9).from(ip(88, 120), 68, US);
    let ack = renews.ask_with(&leases).reply.unwrap();
    assert_eq!(
        (ack.reply.message_type, ack.reply.yiaddr),
        (Kind::Ack, ip(88, 120))
    );
}

#[test]
fn answers_come_from_the_address_that_was_asked_or_the_clients_own_network() {
    for (row, packet, from) in [
        ("first network", packet(Kind::Discover, 1), US),
        ("second network", packet(Kind::Discover, 2), US_TOO),
        ("relay", packet(Kind::Discover, 9).relayed(RELAY), US),
        (
            "renewing",
            packet(Kind::Request, 1).from(ip(77, 11), 68, US_TOO),
            US_TOO,
        ),
    ] {
        let sent = packet.sent();
        assert_eq!(sent.from, from, "{row}");
        assert_eq!(sent.reply.options[&54], from.octets(), "{row}");
    }
}

/// A router or a route of ours may lead in by another interface than that of the address.
#[test]
fn a_renewal_for_another_interfaces_address_is_answered_from_there() {
    let renews = packet(Kind::Request, 3).from(ip(88, 13), 68, ELSEWHERE);
    let sent = renews.firmware(0).sent();
    assert_eq!(sent.reply.message_type, Kind::Ack);
    assert_eq!(sent.from, ELSEWHERE);
    assert_eq!(sent.reply.options[&54], ELSEWHERE.octets());
    assert_eq!(sent.reply.next_server, ELSEWHERE);
    let releases = packet(Kind::Release, 3)
        .from(ip(88, 13), 68, ELSEWHERE)
        .option(54, &ELSEWHERE.octets());
    let released = releases.ask_with(&leased(3, ip(88, 13)));
    assert!(released.lease_change.is_some(), "{:?}", released.because);
}

#[test]
fn an_address_where_nothing_is_served_names_one_where_it_is() {
    let mut relayed = packet(Kind::Discover, 9).relayed(RELAY).firmware(0);
    relayed.to = MANAGEMENT;
    let sent = relayed.sent();
    assert_eq!(sent.from, MANAGEMENT, "firewalls let that through");
    assert_eq!(sent.reply.options[&54], US.octets());
    assert_eq!(sent.reply.next_server, US);
}

/// Two interfaces on one link: each hears the REQUEST, and one is meant.
#[test]
fn who_chose_another_interface_is_not_told_no_by_this_one() {
    let chose = packet(Kind::Request, 9)
        .option(54, &ELSEWHERE.octets())
        .wants(ip(88, 120));
    assert_eq!(chose.ask().because, Because::OtherServer(ELSEWHERE));
}

#[test]
fn a_relay_can_put_itself_between() {
    let info = [11, 4, 10, 88, 0, 254];
    let relayed = packet(Kind::Discover, 9).relayed(RELAY).option(82, &info);
    let sent = relayed.sent();
    assert_eq!(sent.reply.options[&54], RELAY.octets());
    assert_eq!(sent.from, US);
    // The REQUEST names the relay then, and means us.
    let request = packet(Kind::Request, 9)
        .relayed(RELAY)
        .option(82, &info)
        .option(54, &RELAY.octets())
        .wants(ip(88, 150));
    assert_eq!(request.sent().reply.message_type, Kind::Ack);
    let plain = packet(Kind::Request, 9)
        .option(54, &RELAY.octets())
        .wants(ip(77, 150));
    assert_eq!(plain.ask().because, Because::OtherServer(RELAY));
}

/// A relay sends everything to one of our addresses, so that `to` says nothing.
#[test]
fn a_renewal_by_another_interface_is_no_broadcast() {
    // To our address on the link of `shared`, but it came in by that of `boot`.
    let renews = |to| packet(Kind::Request, 9).from(ip(55, 120), 68, to).at(US);
    let ack = renews(ip(55, 1)).sent().reply;
    assert_eq!((ack.message_type, ack.yiaddr), (Kind::Ack, ip(55, 120)));
    for all in [ALL, ip(77, 255), ANY] {
        let nak = renews(all).sent().reply;
        assert_eq!(nak.message_type, Kind::Nak, "to {all}");
    }
}

#[test]
fn our_own_addresses_are_given_to_nobody() {
    let own = ip(77, 150);
    for who in 9..=u8::MAX {
        let offer = packet(Kind::Discover, who).at(own).sent();
        assert_ne!(offer.reply.yiaddr, own);
    }
    let wants = packet(Kind::Request, 9).at(own).wants(own);
    assert_eq!(wants.sent().reply.message_type, Kind::Nak);
    for who in 9..=u8::MAX {
        let offer = packet(Kind::Discover, who).relayed(RELAY).sent();
        assert_ne!(offer.reply.yiaddr, ELSEWHERE, "another interface's");
    }
    let wants = packet(Kind::Request, 9).relayed(RELAY).wants(ELSEWHERE);
    assert_eq!(wants.sent().reply.message_type, Kind::Nak);
    let host = packet(Kind::Discover, 1).at(ip(77, 11)).ask();
    assert_eq!(host.because, Because::OwnAddress(ip(77, 11)));
    assert!(host.because.to_string().contains("another `ip`"));
}

#[test]
fn off_is_silent() {
    let asks = packet(Kind::Discover, 9).firmware(7).at(ip(44, 1));
    assert_eq!(asks.ask().because, Because::DhcpOff("quiet".into()));
}

#[test]
fn firmware_that_misses_quick_replies_gets_them_later() {
    let delay = |packet: Packet| packet.sent().delay.as_millis();
    assert_eq!(delay(packet(Kind::Discover, 1).firmware(0)), 500);
    assert_eq!(delay(packet(Kind::Discover, 1).firmware(7)), 0);
    assert_eq!(delay(packet(Kind::Discover, 1)), 0);
}
