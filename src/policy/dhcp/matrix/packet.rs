//! A packet as the rows change it, and what it is asked of.

use super::*;

/// A packet, with what the tables change.
#[derive(Clone)]
pub(super) struct Packet {
    pub(super) request: Request,
    pub(super) locals: Vec<Ipv4Addr>,
    pub(super) own: OwnAddresses,
    pub(super) to: Ipv4Addr,
    pub(super) source: SocketAddrV4,
    pub(super) port: Port,
}

pub(super) fn packet(kind: Kind, who: u8) -> Packet {
    Packet {
        request: Request {
            message_type: kind,
            xid: 7,
            secs: 0,
            broadcast: false,
            ciaddr: ANY,
            giaddr: ANY,
            hardware: Hardware::ethernet(mac(who)),
            mac: mac(who),
            options: [].into(),
        },
        locals: vec![US, US_TOO],
        own: OwnAddresses {
            all: vec![US, US_TOO, ELSEWHERE, MANAGEMENT],
            syslog: vec![US],
            served: vec![US, US_TOO, ELSEWHERE],
        },
        to: ALL,
        source: SocketAddrV4::new(ANY, 68),
        port: Port::Dhcp,
    }
}

impl Packet {
    pub(super) fn option(mut self, code: u8, data: &[u8]) -> Self {
        self.request.options.insert(code, data.to_vec());
        self
    }

    /// From a link that has no MACs (RFC 4390: IP over InfiniBand).
    pub(super) fn without_mac(mut self) -> Self {
        self.request.hardware = Hardware::read(32, 0, &[0; 16]).unwrap();
        self
    }

    pub(super) fn broadcast(mut self) -> Self {
        self.request.broadcast = true;
        self
    }

    /// From a client that has an address, to one of ours or to all.
    pub(super) fn from(mut self, client: Ipv4Addr, port: u16, to: Ipv4Addr) -> Self {
        self.request.ciaddr = client;
        self.source = SocketAddrV4::new(client, port);
        self.to = to;
        self
    }

    pub(super) fn relayed(mut self, relay: Ipv4Addr) -> Self {
        self.request.giaddr = relay;
        self.source = SocketAddrV4::new(relay, 67);
        self.to = US;
        self
    }

    pub(super) fn at(mut self, local: Ipv4Addr) -> Self {
        self.locals = vec![local];
        self
    }

    pub(super) fn wants(self, address: Ipv4Addr) -> Self {
        self.option(50, &address.octets())
    }

    pub(super) fn firmware(self, arch: u8) -> Self {
        self.option(60, b"PXEClient:Arch").option(93, &[0, arch])
    }

    pub(super) fn ask(&self) -> Verdict {
        self.ask_with(&LeaseTable::default())
    }

    pub(super) fn ask_with(&self, leases: &LeaseTable) -> Verdict {
        let inventory = inventory();
        let loaders: BTreeSet<String> = ["undionly.kpxe", "snponly.efi"].map(str::to_owned).into();
        let world = World {
            inventory: &inventory,
            leases,
            own: &self.own,
            http_port: 80,
            loaders: &loaders,
            kernels: &[("debian".to_owned(), Architecture::X86)].into(),
            leaves_for_disk: false,
        };
        let received = Received {
            request: &self.request,
            locals: &self.locals,
            to: self.to,
            source: self.source,
            port: self.port,
        };
        answer(&world, &received, Timestamp::from_second(50).unwrap())
    }

    pub(super) fn sent(&self) -> Transmit {
        let verdict = self.ask();
        let because = verdict.because.to_string();
        verdict
            .reply
            .unwrap_or_else(|| panic!("no answer: {because}"))
    }
}

pub(super) fn inventory() -> Inventory {
    let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY)
        .unwrap_or_else(|faults| panic!("{faults}"));
    inventory
}

pub(super) fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

pub(super) fn ip(net: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, net, 0, last)
}

pub(super) fn unicast(address: Ipv4Addr, port: u16) -> Destination {
    Destination::Unicast(SocketAddrV4::new(address, port))
}

pub(super) fn leased(who: u8, address: Ipv4Addr) -> LeaseTable {
    let mut leases = LeaseTable::default();
    leases.apply(&LeaseChange::Bind {
        mac: mac(who),
        address,
        expires: Timestamp::from_second(100).unwrap(),
        port: None,
    });
    leases
}
