//! Decisions on single packets.

mod returned;

use std::sync::LazyLock;

use super::*;
use crate::inventory::model::MacAddr;
use crate::policy::event::StageState;
use crate::policy::verdict::Destination;
use crate::wire::dhcp::MessageType as Kind;
use crate::wire::dhcp::{Hardware, Reply};

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

const INVENTORY: &str = "
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    dns: [10.77.0.1]
    pool: 10.77.0.100-10.77.0.101
    lease_time: 8m
profiles:
  kvm-host: {kernel: debian, initrd: default, root: {nfs: /roots/kvm-host}}
hosts:
  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm-host}
";

fn inventory() -> Inventory {
    let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY).unwrap();
    inventory
}

fn request(kind: Kind, who: u8, options: &[(u8, &[u8])]) -> Request {
    Request {
        message_type: kind,
        xid: 7,
        secs: 0,
        broadcast: false,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        hardware: Hardware::ethernet(mac(who)),
        mac: mac(who),
        options: options
            .iter()
            .map(|(code, data)| (*code, data.to_vec()))
            .collect(),
    }
}

fn ask_at(leases: &LeaseTable, request: &Request, second: i64) -> Verdict {
    ask_of(&inventory(), leases, request, second, false)
}

/// Firmware on its way to the local disk.
fn ask_leaving(inventory: &Inventory, request: &Request) -> Verdict {
    ask_of(inventory, &LeaseTable::default(), request, 0, true)
}

fn ask_of(
    inventory: &Inventory,
    leases: &LeaseTable,
    request: &Request,
    second: i64,
    leaves_for_disk: bool,
) -> Verdict {
    let own = OwnAddresses::default();
    let world = World {
        leaves_for_disk,
        ..world(inventory, leases, &own)
    };
    ask_in(&world, request, second)
}

fn ask_in(world: &World<'_>, request: &Request, second: i64) -> Verdict {
    let now = Timestamp::from_second(second).unwrap();
    answer(world, &received(request), now)
}

fn received(request: &Request) -> Received<'_> {
    static LOCALS: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 77, 0, 1)];
    Received {
        request,
        locals: &LOCALS,
        to: Ipv4Addr::BROADCAST,
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        port: Port::Dhcp,
    }
}

static LOADERS: LazyLock<BTreeSet<String>> =
    LazyLock::new(|| ["undionly.kpxe", "snponly.efi"].map(str::to_owned).into());
static KERNELS: LazyLock<BTreeMap<String, Architecture>> =
    LazyLock::new(|| [("debian".to_owned(), Architecture::X86)].into());

fn world<'a>(inventory: &'a Inventory, leases: &'a LeaseTable, own: &'a OwnAddresses) -> World<'a> {
    World {
        inventory,
        leases,
        own,
        http_port: 80,
        loaders: &LOADERS,
        kernels: &KERNELS,
        leaves_for_disk: false,
    }
}

fn ask(request: &Request) -> Verdict {
    ask_at(&LeaseTable::default(), request, 0)
}

fn reply(verdict: &Verdict) -> &Reply {
    &verdict.reply.as_ref().expect("an answer").reply
}

#[test]
fn a_listed_host_is_offered_its_address_and_loader() {
    let verdict = ask(&request(
        Kind::Discover,
        1,
        &[
            (60, b"PXEClient:Arch:00007:UNDI:003000"),
            (93, &[0, 7]),
            (61, b"\0whatever"),
        ],
    ));
    let offer = reply(&verdict);
    assert_eq!(offer.yiaddr, ip(11));
    assert_eq!(offer.next_server, ip(1));
    assert_eq!(offer.boot_file, "snponly.efi");
    assert_eq!(offer.options[&51], 480_u32.to_be_bytes(), "not longer");
    assert_eq!(offer.options[&67], b"snponly.efi\0");
    assert!(
        !offer.options.contains_key(&60),
        "EDK2 would look for port 4011"
    );
    assert!(verdict.lease_change.is_none(), "an OFFER touches no disk");
    let to = verdict.reply.as_ref().unwrap().destination;
    assert_eq!(
        to,
        Destination::Frame {
            mac: mac(1),
            address: ip(11)
        }
    );
}

#[test]
fn a_log_server_is_told_of_only_where_its_port_is_ours() {
    let (inventory, leases) = (inventory(), LeaseTable::default());
    let firmware = request(Kind::Discover, 1, &[(60, b"PXEClient"), (93, &[0, 7])]);
    for (bound, told) in [(vec![ip(1)], Some(ip(1))), (vec![ip(2)], None)] {
        let own = OwnAddresses {
            syslog: bound,
            ..OwnAddresses::default()
        };
        let verdict = ask_in(&world(&inventory, &leases, &own), &firmware, 0);
        let option = reply(&verdict).options.get(&7).cloned();
        assert_eq!(option, told.map(|at| at.octets().to_vec()));
    }
}

#[test]
fn only_an_ipxe_with_its_lease_is_told_that_no_ipv6_router_comes() {
    let (wanted, server) = (ip(11).octets(), ip(1).octets());
    let asks = |kind, options: &[(u8, &[u8])]| {
        let all = [options, &[(50, &wanted[..]), (54, &server[..])]].concat();
        let sent = ask(&request(kind, 1, &all)).reply.expect("an answer");
        sent.ends_ipv6_wait
    };
    assert!(asks(Kind::Request, &[(77, b"iPXE"), (93, &[0, 0])]));
    assert!(!asks(Kind::Discover, &[(77, b"iPXE"), (93, &[0, 0])]));
    assert!(!asks(Kind::Request, &[(60, b"PXEClient"), (93, &[0, 7])]));
    assert!(!asks(Kind::Request, &[]));
}

#[test]
fn ipxe_is_told_its_script_and_not_to_wait_for_proxies() {
    let verdict = ask(&request(Kind::Discover, 1, &[(77, b"iPXE"), (93, &[0, 0])]));
    let offer = reply(&verdict);
    assert!(offer.boot_file.ends_with("/script.ipxe"));
    assert_eq!(offer.options[&175], [176, 1, 1]);
}

#[test]
fn http_boot_clients_get_their_class_echoed() {
    let verdict = ask(&request(
        Kind::Discover,
        1,
        &[(60, b"HTTPClient:Arch:00016"), (93, &[0, 16])],
    ));
    assert_eq!(reply(&verdict).options[&60], b"HTTPClient");
    assert!(reply(&verdict).boot_file.starts_with("http://10.77.0.1/"));
}

#[test]
fn an_unlisted_machine_gets_a_pool_address_that_is_durable_first() {
    let verdict = ask(&request(Kind::Request, 9, &[(50, &[10, 77, 0, 100])]));
    assert_eq!(reply(&verdict).message_type, Kind::Ack);
    assert!(matches!(
        verdict.lease_change,
        Some(LeaseChange::Bind { .. })
    ));
    assert_eq!(verdict.events[0].machine.0, "mac-525400000009");
}

/// The port of a machine that is not listed, after its REQUEST.
fn port_after(leases: &mut LeaseTable, request: &Request, to: Ipv4Addr, second: i64) -> Verdict {
    let (inventory, own) = (inventory(), OwnAddresses::default());
    let world = world(&inventory, leases, &own);
    let received = Received {
        to,
        ..received(request)
    };
    let verdict = answer(&world, &received, Timestamp::from_second(second).unwrap());
    leases.apply(verdict.lease_change.as_ref().expect("an address"));
    verdict
}

#[test]
fn where_a_stranger_is_plugged_in_is_kept_with_its_lease() {
    let mut leases = LeaseTable::default();
    let wants = (50, &[10, 77, 0, 100][..]);
    let (one, two) = (b"\x01\x03Gi1\x02\x02sw", b"\x01\x03Gi2\x02\x02sw");
    let asks = |info: &[u8]| request(Kind::Request, 9, &[wants, (82, info)]);
    let at = |leases: &LeaseTable, second| {
        let now = Timestamp::from_second(second).unwrap();
        let known = leases.plugged_in(mac(9), now).expect("a port");
        (known.at.name(), known.disputed_by().is_some())
    };
    let said = |verdict: &Verdict| verdict.events[0].message.clone();
    // Neither loader nor firmware: any client's REQUEST tells.
    port_after(&mut leases, &asks(one), Ipv4Addr::BROADCAST, 0);
    assert_eq!(at(&leases, 1), ("Gi1 of sw".into(), false));
    // A renewal goes by no relay: what it says itself is nothing.
    for info in [&b""[..], two] {
        let renews = Request {
            ciaddr: ip(100),
            ..request(Kind::Request, 9, &[(82, info)])
        };
        port_after(&mut leases, &renews, ip(1), 200);
        assert_eq!(at(&leases, 200), ("Gi1 of sw".into(), false));
    }
    let verdict = port_after(&mut leases, &asks(two), Ipv4Addr::BROADCAST, 300);
    assert_eq!(at(&leases, 300), ("Gi1 of sw".into(), true));
    let words = "It asks by Gi2 of sw, and got its lease by Gi1 of sw: it was moved, or two";
    assert!(said(&verdict).contains(words), "{}", said(&verdict));
    let verdict = port_after(&mut leases, &asks(one), Ipv4Addr::BROADCAST, 310);
    assert_eq!(at(&leases, 310), ("Gi1 of sw".into(), false));
    assert!(!said(&verdict).contains("Gi2"), "{}", said(&verdict));
    // When its lease has run out it is where it asks.
    port_after(&mut leases, &asks(two), Ipv4Addr::BROADCAST, 2000);
    assert_eq!(at(&leases, 2000), ("Gi2 of sw".into(), false));
    // Of a listed host it is not kept.
    let listed = request(Kind::Request, 1, &[(50, &[10, 77, 0, 11]), (82, &one[..])]);
    port_after(&mut leases, &listed, Ipv4Addr::BROADCAST, 0);
    assert_eq!(leases.last_plugged_in(mac(1)), None);
}

#[test]
fn what_was_sent_to_us_alone_is_told_from_what_was_sent_to_everybody() {
    let (inventory, request) = (inventory(), request(Kind::Request, 9, &[]));
    let own = OwnAddresses {
        all: vec![Ipv4Addr::new(192, 0, 2, 1)],
        ..OwnAddresses::default()
    };
    let is_unicast = |to, port| {
        let received = Received {
            to,
            port,
            ..received(&request)
        };
        received.is_unicast(&inventory, &own)
    };
    for to in [Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED, ip(255)] {
        assert!(!is_unicast(to, Port::Dhcp), "{to}");
    }
    for to in [ip(1), Ipv4Addr::new(192, 0, 2, 1)] {
        assert!(is_unicast(to, Port::Dhcp), "{to}");
    }
    // Nobody relays what goes to port 4011.
    assert!(is_unicast(Ipv4Addr::BROADCAST, Port::Pxe));
}

#[test]
fn a_machine_that_was_listed_since_is_moved_from_the_pool() {
    let verdict = ask(&request(Kind::Request, 1, &[(50, &[10, 77, 0, 100])]));
    let nak = reply(&verdict);
    assert_eq!(nak.message_type, Kind::Nak);
    assert_eq!(
        verdict.because,
        Because::WrongAddress {
            wanted: ip(100),
            right: ip(11)
        }
    );
    assert_eq!(
        verdict.reply.as_ref().unwrap().destination,
        Destination::Broadcast
    );
}

#[test]
fn an_address_in_use_is_naked_and_a_full_pool_is_said() {
    let mut leases = LeaseTable::default();
    for (who, last) in [(20, 100), (21, 101)] {
        leases.apply(&LeaseChange::Bind {
            mac: mac(who),
            address: ip(last),
            expires: Timestamp::from_second(100).unwrap(),
            port: None,
        });
    }
    let wants = request(Kind::Request, 9, &[(50, &[10, 77, 0, 100])]);
    assert_eq!(reply(&ask_at(&leases, &wants, 50)).message_type, Kind::Nak);
    let verdict = ask_at(&leases, &request(Kind::Discover, 9, &[]), 50);
    assert!(verdict.reply.is_none());
    assert_eq!(verdict.because, Because::PoolFull("boot".into()));
    assert_eq!(verdict.events[0].state, StageState::Ignored);
}

#[test]
fn another_servers_client_is_left_alone() {
    let verdict = ask(&request(
        Kind::Request,
        1,
        &[(54, &[10, 77, 0, 99]), (50, &[10, 77, 0, 11])],
    ));
    assert!(verdict.reply.is_none());
    assert_eq!(verdict.because, Because::OtherServer(ip(99)));
}

#[test]
fn relays_get_the_answer_and_unknown_networks_none() {
    let mut relayed = request(Kind::Discover, 9, &[]);
    relayed.giaddr = ip(254);
    let to = ask(&relayed).reply.unwrap().destination;
    assert_eq!(to, Destination::Unicast(SocketAddrV4::new(ip(254), 67)));
    relayed.giaddr = Ipv4Addr::new(10, 99, 0, 1);
    assert!(matches!(ask(&relayed).because, Because::NoNetwork(_)));
}

/// Found by a property test: an answer to whatever address the packet names.
#[test]
fn an_address_outside_our_networks_is_never_sent_to() {
    for kind in [Kind::Discover, Kind::Request, Kind::Inform] {
        let mut forged = request(kind, 1, &[(50, &[10, 77, 0, 11])]);
        forged.ciaddr = Ipv4Addr::new(192, 0, 2, 1);
        let to = ask(&forged).reply.expect("an answer").destination;
        assert!(!matches!(to, Destination::Unicast(_)), "{kind:?}: {to:?}");
    }
}

#[test]
fn the_client_identifier_is_echoed_and_what_has_no_room_is_told() {
    for (kind, wanted) in [
        (Kind::Discover, 11),
        (Kind::Request, 11),
        (Kind::Request, 12),
    ] {
        let wanted = ip(wanted).octets();
        let verdict = ask(&request(kind, 1, &[(50, &wanted), (61, &[1, 2, 3])]));
        assert_eq!(reply(&verdict).options[&61], [1, 2, 3]);
        assert!(!verdict.events[0].message.contains("left out"));
    }
    let long = ask(&request(Kind::Discover, 1, &[(61, &[9; 255])]));
    let said = &long.events[0].message;
    assert!(
        said.ends_with("(left out for want of room: 28, 12)"),
        "{said}"
    );
}

#[test]
fn inform_gets_options_and_no_address() {
    let mut inform = request(Kind::Inform, 1, &[]);
    inform.ciaddr = ip(11);
    let verdict = ask(&inform);
    let ack = reply(&verdict);
    assert_eq!(ack.yiaddr, Ipv4Addr::UNSPECIFIED);
    assert!(!ack.options.contains_key(&51));
    assert!(verdict.lease_change.is_none());
}

#[test]
fn firmware_on_its_way_to_the_local_disk_is_given_nothing_to_boot() {
    let http = request(Kind::Discover, 1, &[(60, b"HTTPClient"), (93, &[0, 16])]);
    let offer = ask_leaving(&inventory(), &http);
    let reply = &offer.reply.as_ref().unwrap().reply;
    assert_eq!((reply.yiaddr, reply.boot_file.as_str()), (ip(11), ""));
    assert_eq!(reply.next_server, Ipv4Addr::UNSPECIFIED);
    // With class HTTPClient EDK2 would look for a URL.
    assert!(!reply.options.contains_key(&60) && !reply.options.contains_key(&67));
    let event = &offer.events[0];
    assert_eq!(event.state, StageState::Info);
    assert!(
        event
            .message
            .contains("nothing to boot (it was just sent to its local disk"),
        "{}",
        event.message
    );
    assert!(!ask(&http).reply.unwrap().reply.boot_file.is_empty());
}
