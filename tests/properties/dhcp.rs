//! DHCP: any datagram is answered or refused with a reason, and what is answered is what a strict client takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::LazyLock;

use bridgehead::inventory::model::{Inventory, MacAddr};
use bridgehead::policy::architecture::Architecture;
use bridgehead::policy::dhcp::{OwnAddresses, Port, Received, World, answer};
use bridgehead::policy::lease::{LeaseChange, LeaseTable};
use bridgehead::policy::{Destination, Transmit, Verdict};
use bridgehead::wire::dhcp::{MessageType, Request};
use dhcproto::{Decodable, Decoder, v4};
use jiff::{SignedDuration, Timestamp};

const INVENTORY: &str = r#"
site: properties
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    dns: [10.77.0.1, 10.77.0.2]
    domain: lab.example.org
    ntp: [10.77.0.1]
    dhcp: server
    pool: 10.77.0.100-10.77.0.199
  beside: {subnet: 10.78.0.0/24, dhcp: proxy}
  "off": {subnet: 10.79.0.0/24, dhcp: off}
  far: {subnet: 10.80.0.0/16, router: 10.80.0.1, server: 10.80.0.9, dhcp: server, pool: 10.80.1.0-10.80.2.255}
  full: {subnet: 10.81.0.0/30, dhcp: server, pool: 10.81.0.2-10.81.0.2}
  listed-only: {subnet: 10.82.0.0/24, dhcp: server}
profiles:
  kvm-host: {kernel: debian, initrd: default, root: {nfs: /roots/kvm-host}}
  grub: {extends: kvm-host, loader: grub}
  pxelinux: {extends: kvm-host, loader: pxelinux}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm-host}
  kvm02: {macs: ["52:54:00:00:00:02", "52:54:00:00:00:12"], ip: 10.77.0.12, profile: grub}
  kvm03: {mac: "52:54:00:00:00:03", ip: 10.80.0.13, profile: pxelinux}
  kvm04: {mac: "52:54:00:00:00:04", ip: 10.82.0.14, profile: kvm-host}
  kvm05: {mac: "52:54:00:00:00:05", ip: 10.78.0.15, profile: kvm-host}
unknown: {policy: hold}
"#;

/// Where a datagram came in: our address there, and who sent it.
const RECEPTIONS: [([u8; 4], [u8; 4], u16); 7] = [
    ([10, 77, 0, 1], [0, 0, 0, 0], 68),
    ([10, 77, 0, 1], [10, 77, 0, 101], 68),
    ([10, 78, 0, 1], [0, 0, 0, 0], 68),
    ([10, 79, 0, 1], [10, 80, 0, 1], 67),
    ([10, 81, 0, 1], [0, 0, 0, 0], 68),
    ([10, 82, 0, 1], [10, 82, 0, 1], 40_000),
    ([192, 0, 2, 1], [0, 0, 0, 0], 68),
];

/// RFC 2131 section 2: what a reply begins with, up to the options.
pub(crate) const FIXED: usize = 240;
/// RFC 1542 section 2.1: relays drop what is shorter.
const SHORTEST: usize = 300;

static WORLD: LazyLock<Inventory> = LazyLock::new(|| {
    let parsed = bridgehead::inventory::parse("hosts.yaml", INVENTORY);
    parsed.expect("a sound inventory").0
});

/// Not every firmware finds its loader.
static LOADERS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let names = ["undionly.kpxe", "snponly.efi", "pxelinux.0", "shimx64.efi"];
    names.map(str::to_owned).into()
});

static KERNELS: LazyLock<BTreeMap<String, Architecture>> =
    LazyLock::new(|| [("debian".to_owned(), Architecture::X86)].into());

/// Of every interface, one in the pool of a network behind relays, one in none.
static OWN: LazyLock<OwnAddresses> = LazyLock::new(|| {
    let served = [[10, 77, 0, 1], [10, 78, 0, 1], [10, 80, 1, 5]].map(Ipv4Addr::from);
    OwnAddresses {
        all: [&served[..], &[Ipv4Addr::new(192, 0, 2, 9)]].concat(),
        syslog: served[1..].to_vec(),
        served: served.to_vec(),
    }
});

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("in range")
}

/// Some that run, some that ran out, one that somebody else holds, one that rests.
fn leases() -> LeaseTable {
    let mut table = LeaseTable::default();
    let bind = |last, address: [u8; 4], seconds| LeaseChange::Bind {
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        address: address.into(),
        expires: now() + SignedDuration::from_secs(seconds),
        port: None,
    };
    table.apply(&bind(1, [10, 77, 0, 101], 600));
    table.apply(&bind(2, [10, 77, 0, 102], -600));
    table.apply(&bind(3, [10, 80, 0, 13], 600));
    table.apply(&bind(4, [10, 81, 0, 2], 600));
    table.apply(&LeaseChange::Decline {
        mac: MacAddr([2, 0, 0, 0, 0, 5]),
        address: [10, 77, 0, 103].into(),
        found: false,
        until: now() + SignedDuration::from_secs(60),
    });
    table
}

/// Holds for every datagram.
pub(crate) fn check(bytes: &[u8]) {
    answers(bytes);
}

/// What it is answered, in each place where it can come in.
pub(crate) fn answers(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    let request = match Request::parse(bytes) {
        Ok(request) => request,
        Err(malformed) => {
            assert!(!malformed.to_string().is_empty());
            return answers;
        }
    };
    assert!(bytes.len() >= FIXED && bytes[0] == 1, "only requests pass");
    // Nobody is a machine with a MAC by anything but `chaddr`, which switches check.
    let shown = request.hardware.address() == request.mac.0;
    assert_ne!(shown, request.mac.is_made(), "{}", request.mac);
    for (local, source, port) in RECEPTIONS {
        let local = Ipv4Addr::from(local);
        let source = SocketAddrV4::new(source.into(), port);
        for (to, port) in [
            (Ipv4Addr::BROADCAST, Port::Dhcp),
            (local, Port::Dhcp),
            (OWN.all[3], Port::Dhcp),
            (local, Port::Pxe),
        ] {
            let received = Received {
                request: &request,
                locals: &[local],
                to,
                source,
                port,
            };
            answers.extend(check_received(bytes, &received));
        }
    }
    answers
}

fn check_received(bytes: &[u8], received: &Received<'_>) -> Vec<Vec<u8>> {
    let (mut table, mut answers) = (leases(), Vec::new());
    // The second time with what the first has changed, as a client that asks again.
    for _ in 0..2 {
        let world = World {
            inventory: &WORLD,
            leases: &table,
            own: &OWN,
            http_port: 80,
            loaders: &LOADERS,
            kernels: &KERNELS,
            leaves_for_disk: false,
        };
        let verdict = answer(&world, received, now());
        answers.extend(check_verdict(bytes, received, &verdict));
        if let Some(change) = verdict.lease_change {
            table.apply(&change);
        }
        if let Some(address) = verdict.offered {
            let until = now() + SignedDuration::from_secs(60);
            table.offer(received.request.mac, address, until);
        }
    }
    answers
}

fn check_verdict(bytes: &[u8], received: &Received<'_>, verdict: &Verdict) -> Option<Vec<u8>> {
    assert!(!verdict.because.to_string().is_empty());
    let Some(transmit) = &verdict.reply else {
        let told = verdict.events.iter().any(|event| !event.message.is_empty());
        assert!(told, "silence without a reason: {:?}", verdict.because);
        return None;
    };
    check_destination(received.request, transmit);
    let reply = transmit.reply.encode(received.request);
    check_fixed(bytes, &reply);
    let options = walk(&reply[FIXED..]).unwrap_or_else(|fault| panic!("{fault}: {reply:02x?}"));
    check_options(received.request, &reply, &options);
    check_address(received, transmit, &options);
    check_relay_information(bytes, &options);
    check_decoder(&reply, transmit);
    Some(reply)
}

/// Nothing is sent where nobody can have asked from, or where all hear it by accident.
fn check_destination(request: &Request, transmit: &Transmit) {
    match transmit.destination {
        Destination::Broadcast => {}
        Destination::Frame { mac, address } => {
            assert_eq!(mac, request.mac);
            assert!(request.hardware.is_ethernet(), "a frame to no MAC");
            assert_eq!(address, transmit.reply.yiaddr);
        }
        Destination::Unicast(to) => {
            let ip = to.ip();
            assert!(!ip.is_unspecified() && !ip.is_multicast(), "to {to}");
            assert!(!ip.is_broadcast() && !ip.is_loopback(), "to {to}");
            assert_ne!(to.port(), 0, "to {to}");
            // A relay, or an address that can be a client's of ours.
            let mut networks = WORLD.networks.values();
            let ours = networks.any(|network| network.subnet.contains(ip));
            assert!(ours || *ip == request.giaddr, "to {to}");
        }
    }
}

fn check_fixed(request: &[u8], reply: &[u8]) {
    assert!(reply.len() >= SHORTEST, "{} bytes", reply.len());
    assert_eq!(
        (reply[0], &reply[1..3]),
        (2, &request[1..3]),
        "op, htype, hlen"
    );
    assert_eq!(reply[4..8], request[4..8], "xid");
    assert_eq!(reply[24..28], request[24..28], "giaddr");
    assert_eq!(reply[28..44], request_chaddr(request), "chaddr");
    assert_eq!(reply[236..FIXED], [99, 130, 83, 99], "magic");
    // RFC 2132 section 9.3: what is not overloaded are strings.
    for field in [&reply[44..108], &reply[108..236]] {
        let end = field.iter().position(|byte| *byte == 0);
        let end = end.expect("a string ends within its field");
        assert!(field[end..].iter().all(|byte| *byte == 0));
    }
}

/// `hlen` bytes of an address, then zeros whatever the client has there.
fn request_chaddr(request: &[u8]) -> [u8; 16] {
    let (mut chaddr, length) = ([0; 16], usize::from(request[2]));
    chaddr[..length].copy_from_slice(&request[28..28 + length]);
    chaddr
}

pub(crate) type Options = Vec<(u8, Vec<u8>)>;

/// Reads options as strictly as RFC 2132 and RFC 3396 let one be; pieces that follow one another are one.
pub(crate) fn walk(mut bytes: &[u8]) -> Result<Options, &'static str> {
    let mut options = Options::new();
    loop {
        match *bytes {
            [] => return Err("no End"),
            [255, ref rest @ ..] => {
                let clean = rest.iter().all(|byte| *byte == 0);
                return clean.then_some(options).ok_or("something behind End");
            }
            [0, ..] => return Err("padding between options"),
            [code, length, ref rest @ ..] => {
                let (data, rest) = rest
                    .split_at_checked(length.into())
                    .ok_or("an option that is cut")?;
                match options.last_mut().filter(|(last, _)| *last == code) {
                    Some((_, whole)) => whole.extend(data),
                    None => options.push((code, data.to_vec())),
                }
                bytes = rest;
            }
            [_] => return Err("a code without length"),
        }
    }
}

fn check_options(request: &Request, reply: &[u8], options: &Options) {
    let by_code: BTreeMap<u8, &Vec<u8>> =
        options.iter().map(|(code, data)| (*code, data)).collect();
    assert_eq!(by_code.len(), options.len(), "an option twice: {options:?}");
    let kind = by_code.get(&53).expect("a message type");
    assert!(matches!(kind[..], [2 | 5 | 6]), "message type {kind:?}");
    assert!(
        by_code.get(&54).is_some_and(|id| id.len() == 4),
        "server id"
    );
    assert!(!by_code.contains_key(&52), "no overload");
    for (code, length) in [(1, 4), (28, 4), (51, 4), (58, 4), (59, 4), (26, 2)] {
        let sound = by_code.get(&code).is_none_or(|data| data.len() == length);
        assert!(sound, "option {code}: {:?}", by_code[&code]);
    }
    for code in [3, 6, 42] {
        let sound = |data: &&Vec<u8>| !data.is_empty() && data.len().is_multiple_of(4);
        assert!(by_code.get(&code).is_none_or(sound), "option {code}");
    }
    // What is never left out takes less than the room that every client has.
    let relayed = by_code
        .get(&82)
        .map_or(0, |data| data.len() + 2 * (data.len() / 255 + 1));
    let room = request.max_reply().max(SHORTEST);
    assert!(
        reply.len() <= room + relayed,
        "{} bytes of {room}",
        reply.len()
    );
}

fn check_address(received: &Received<'_>, transmit: &Transmit, options: &Options) {
    let yiaddr = transmit.reply.yiaddr;
    let has = |code| options.iter().any(|(found, _)| *found == code);
    if yiaddr.is_unspecified() {
        // NAK, INFORM, proxy: no address, and so no time that it is for.
        return assert!(!has(51), "a lease of nothing");
    }
    assert_ne!(transmit.reply.message_type, MessageType::Nak);
    assert!(has(51) && has(1), "an address without lease time or mask");
    let network = WORLD
        .networks
        .values()
        .find(|network| network.subnet.contains(&yiaddr));
    let subnet = network.expect("an address of a network").subnet;
    let server: [Ipv4Addr; 2] = [received.locals[0], Ipv4Addr::new(10, 80, 0, 9)];
    let ends = [subnet.network(), subnet.broadcast()];
    for taken in ends.iter().chain(&server).chain(&OWN.all) {
        assert_ne!(yiaddr, *taken, "not a client's");
    }
    assert!(
        server[..1]
            .iter()
            .chain(&OWN.all)
            .any(|own| *own == transmit.from)
    );
    let mask = options
        .iter()
        .find(|(code, _)| *code == 1)
        .map(|(_, mask)| &mask[..]);
    assert_eq!(mask, Some(&subnet.netmask().octets()[..]));
}

/// RFC 3046 section 2.2: as it came, and behind all others.
fn check_relay_information(request: &[u8], reply: &Options) {
    // Of a request that is broken further on, it is enough that nothing panics.
    let Ok(sent) = walk(&request[FIXED..]) else {
        return;
    };
    let overloaded = sent.iter().any(|(code, _)| *code == 52);
    let parts: Vec<u8> = sent
        .iter()
        .filter(|(code, _)| *code == 82)
        .flat_map(|(_, data)| data.clone())
        .collect();
    if overloaded || parts.is_empty() {
        return;
    }
    assert_eq!(
        reply.last(),
        Some(&(82, parts)),
        "option 82 verbatim and last"
    );
}

/// Up to option 82, which is the last one.
fn without_relay_information(reply: &[u8]) -> Vec<u8> {
    let mut end = FIXED;
    while !matches!(reply[end], 82 | 255) {
        end += 2 + usize::from(reply[end + 1]);
    }
    [&reply[..end], &[255]].concat()
}

/// Another parser reads what we meant.
fn check_decoder(reply: &[u8], transmit: &Transmit) {
    // It reads option 82 with assertions on lengths that only relays are answerable for: left out here.
    let reply = without_relay_information(reply);
    let message = v4::Message::decode(&mut Decoder::new(&reply)).expect("dhcproto reads it");
    assert_eq!(message.opcode(), v4::Opcode::BootReply);
    assert_eq!(message.yiaddr(), transmit.reply.yiaddr);
    assert_eq!(message.opts().msg_type(), Some(transmit.reply.message_type));
    let strict = walk(&reply[FIXED..]).map_or(0, |options| options.len());
    assert_eq!(
        message.opts().iter().count(),
        strict,
        "dhcproto lost an option"
    );
}
