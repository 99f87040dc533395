//! What to answer to a DHCP packet.

mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::inventory::model::{DhcpMode, Host, Inventory, Loader, Network, UnknownPolicy};
use crate::policy::architecture::Architecture;
use crate::policy::boot_target::{self, BootFile, Choice, Endpoint};
use crate::policy::client::Client;
use crate::policy::lease::{DECLINE_REST, LeaseChange, LeaseTable};
use crate::policy::options;
use crate::policy::verdict::{Because, Destination, Transmit, Verdict};
use crate::wire::dhcp::{MessageType, Reply, Request};

/// Longest lease of listed hosts, seconds. Their address is theirs anyway, and the initrd keeps
/// it without a lease; this is how long a replaced board keeps its successor waiting.
const RESERVED_LEASE_S: u32 = 600;

/// A packet, and where it came in.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The packet.
    pub request: &'a Request,
    /// The daemon's address on the interface it came in by.
    pub local: Ipv4Addr,
    /// Who sent it: 0.0.0.0, a relay or a client with an address.
    pub source: SocketAddrV4,
}

/// All that an answer depends on.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Networks, hosts, profiles.
    pub inventory: &'a Inventory,
    /// Who holds which address.
    pub leases: &'a LeaseTable,
    /// Port of the boot files.
    pub http_port: u16,
    /// The names in `loaders/`.
    pub loaders: &'a BTreeSet<String>,
    /// What each kernel runs on, where its image says so.
    pub kernels: &'a BTreeMap<String, Architecture>,
}

/// Decides how to answer one DHCP packet. No I/O, no clock, no randomness.
pub fn answer(world: &World<'_>, received: &Received<'_>, now: Timestamp) -> Verdict {
    let client = Client::of(received.request);
    let question = Question {
        world,
        received,
        now,
        host: world.inventory.by_mac.get(&client.mac),
        client,
    };
    let mut verdict = match question.network() {
        Ok(network) => question.answer_on(network),
        Err(because) => Verdict::silence(because),
    };
    verdict.events = question.events(&verdict);
    verdict
}

struct Question<'a> {
    world: &'a World<'a>,
    received: &'a Received<'a>,
    now: Timestamp,
    host: Option<&'a Arc<Host>>,
    client: Client,
}

/// Which address is right for the client, and why.
struct Assignment {
    address: Ipv4Addr,
    lease_s: u32,
    because: Because,
}

impl<'a> Question<'a> {
    fn request(&self) -> &'a Request {
        self.received.request
    }

    /// The relay's network, else that of the interface (RFC 2131 §4.3.1).
    fn network(&self) -> Result<&'a Arc<Network>, Because> {
        let giaddr = self.request().giaddr;
        let place = if giaddr.is_unspecified() {
            self.received.local
        } else {
            giaddr
        };
        let network = self
            .world
            .inventory
            .networks
            .values()
            .find(|network| network.subnet.contains(&place))
            .ok_or(Because::NoNetwork(place))?;
        match network.dhcp {
            DhcpMode::Server => Ok(network),
            DhcpMode::Proxy | DhcpMode::Off => Err(Because::DhcpOff(network.name.clone())),
        }
    }

    fn answer_on(&self, network: &Network) -> Verdict {
        let boot_file = self.boot_file(network);
        match self.request().message_type {
            MessageType::Discover | MessageType::Request | MessageType::Inform
                if let Err(because) = boot_file =>
            {
                Verdict::silence(because)
            }
            MessageType::Discover => self.discover(network),
            MessageType::Request => self.request_address(network),
            MessageType::Inform => self.inform(network),
            MessageType::Release => self.release(network),
            MessageType::Decline => self.decline(network),
            other => Verdict::silence(Because::NotForServers(other)),
        }
    }

    /// The host, where its reservation lies in this network.
    fn reservation(&self, network: &Network) -> Option<&'a Arc<Host>> {
        self.host.filter(|host| host.network.name == network.name)
    }

    fn assign(&self, network: &Network) -> Result<Assignment, Because> {
        let lease_s = u32::try_from(network.lease_time.as_secs()).unwrap_or(u32::MAX);
        if let Some(host) = self.reservation(network) {
            let address = *host.ip;
            return match self.world.leases.holder(address, self.now) {
                Some(holder) if !host.macs.iter().any(|mac| **mac == holder) => {
                    let until = self.world.leases.of(holder).map(|lease| lease.expires);
                    Err(Because::ReservedInUse {
                        address,
                        holder,
                        until: until.unwrap_or(self.now),
                    })
                }
                _ => Ok(Assignment {
                    address,
                    lease_s: RESERVED_LEASE_S.min(lease_s),
                    because: Because::Reserved {
                        host: host.name.clone(),
                    },
                }),
            };
        }
        if self.world.inventory.unknown == UnknownPolicy::Ignore {
            return Err(Because::UnknownIgnored);
        }
        let pool = network
            .pool
            .ok_or_else(|| Because::NoPool(network.name.clone()))?;
        let address = self.world.leases.choose(pool, self.client.mac, self.now);
        Ok(Assignment {
            address: address.ok_or_else(|| Because::PoolFull(network.name.clone()))?,
            lease_s,
            because: Because::Pool,
        })
    }

    fn discover(&self, network: &Network) -> Verdict {
        match self.assign(network) {
            Err(because) => Verdict::silence(because),
            Ok(assignment) => Verdict {
                reply: Some(self.lease_reply(MessageType::Offer, network, &assignment)),
                lease_change: None,
                offered: Some(assignment.address),
                events: Vec::new(),
                because: assignment.because,
            },
        }
    }

    /// REQUEST in its four states (RFC 2131 §4.3.2): after an OFFER it names a server,
    /// at reboot it wants an old address, while renewing it has one.
    fn request_address(&self, network: &Network) -> Verdict {
        let request = self.request();
        if let Some(server) = request
            .server_id()
            .filter(|server| *server != self.server(network))
        {
            return Verdict::silence(Because::OtherServer(server));
        }
        let wanted = request
            .requested_address()
            .or_else(|| (!request.ciaddr.is_unspecified()).then_some(request.ciaddr));
        let Some(wanted) = wanted else {
            return Verdict::silence(Because::NoAddressWanted);
        };
        match self.assign(network) {
            Ok(mut assignment) => {
                self.prefer(network, wanted, &mut assignment);
                if assignment.address == wanted {
                    self.ack(network, &assignment)
                } else {
                    self.nak(network, wanted, assignment.address)
                }
            }
            // The machine is not ours to serve; another server's client may be renewing.
            Err(because @ (Because::UnknownIgnored | Because::NoPool(_))) => {
                Verdict::silence(because)
            }
            Err(because) => self.nak_because(network, because),
        }
    }

    /// A machine that asks for an address of the pool that is free may have it, though
    /// the table would have chosen another: it may be all that it remembers after our
    /// table was lost.
    fn prefer(&self, network: &Network, wanted: Ipv4Addr, assignment: &mut Assignment) {
        let free = network.pool.is_some_and(|pool| pool.contains(wanted))
            && self
                .world
                .leases
                .available(wanted, self.client.mac, self.now);
        if assignment.because == Because::Pool && free {
            assignment.address = wanted;
        }
    }

    fn ack(&self, network: &Network, assignment: &Assignment) -> Verdict {
        let lease = Duration::from_secs(u64::from(assignment.lease_s));
        Verdict {
            reply: Some(self.lease_reply(MessageType::Ack, network, assignment)),
            lease_change: Some(LeaseChange::Bind {
                mac: self.client.mac,
                address: assignment.address,
                expires: self.now.saturating_add(lease).unwrap_or(Timestamp::MAX),
            }),
            offered: None,
            events: Vec::new(),
            because: assignment.because.clone(),
        }
    }

    fn nak(&self, network: &Network, wanted: Ipv4Addr, right: Ipv4Addr) -> Verdict {
        self.nak_because(network, Because::WrongAddress { wanted, right })
    }

    fn nak_because(&self, network: &Network, because: Because) -> Verdict {
        let mut reply = self.reply(MessageType::Nak, network);
        // RFC 2132 §9.9: the words that may help whoever reads the client's log.
        reply.options.insert(56, because.to_string().into_bytes());
        let giaddr = self.request().giaddr;
        let destination = if giaddr.is_unspecified() {
            Destination::Broadcast
        } else {
            Destination::Unicast(SocketAddrV4::new(giaddr, 67))
        };
        Verdict {
            reply: Some(Transmit { reply, destination }),
            ..Verdict::silence(because)
        }
    }

    /// INFORM: options alone, no address and no lease time (RFC 2131 §4.3.5).
    fn inform(&self, network: &Network) -> Verdict {
        let host = self.reservation(network);
        let mut reply = self.reply(MessageType::Ack, network);
        reply
            .options
            .extend(options::network_options(network, host.map(Arc::as_ref)));
        self.add_boot_file(&mut reply, network);
        let (ciaddr, source) = (self.request().ciaddr, self.received.source);
        let destination = if !ciaddr.is_unspecified() {
            Destination::Unicast(SocketAddrV4::new(ciaddr, 68))
        } else if source.ip().is_unspecified() {
            // It says that it has an address, and not which.
            Destination::Broadcast
        } else {
            Destination::Unicast(source)
        };
        Verdict {
            reply: Some(Transmit { reply, destination }),
            ..Verdict::silence(Because::Informed)
        }
    }

    /// Whether the client holds this address now, by a lease of ours.
    fn holds(&self, address: Ipv4Addr) -> bool {
        self.world.leases.holder(address, self.now) == Some(self.client.mac)
    }

    fn to_another_server(&self, network: &Network) -> Option<Ipv4Addr> {
        let named = self.request().server_id();
        named.filter(|server| *server != self.server(network))
    }

    /// Believed of the address that the sender has, and of no other.
    fn release(&self, network: &Network) -> Verdict {
        if let Some(server) = self.to_another_server(network) {
            return Verdict::silence(Because::OtherServer(server));
        }
        let held = self.holds(self.request().ciaddr);
        Verdict {
            lease_change: held.then_some(LeaseChange::Release {
                mac: self.client.mac,
                at: self.now,
            }),
            ..Verdict::silence(Because::Noted)
        }
    }

    /// The address rests, if it is one that the sender was just given: else one guest could
    /// empty the pool. A reserved one is told to the operator and stays the host's.
    fn decline(&self, network: &Network) -> Verdict {
        if let Some(server) = self.to_another_server(network) {
            return Verdict::silence(Because::OtherServer(server));
        }
        let declined = self.request().requested_address();
        let believed = declined.filter(|address| self.holds(*address));
        let reserved = self.host.is_some_and(|host| Some(*host.ip) == declined);
        Verdict {
            lease_change: believed
                .filter(|_| !reserved)
                .map(|address| LeaseChange::Decline {
                    mac: self.client.mac,
                    address,
                    until: self
                        .now
                        .saturating_add(DECLINE_REST)
                        .unwrap_or(Timestamp::MAX),
                }),
            ..Verdict::silence(Because::Noted)
        }
    }

    /// The address that this client can reach the daemon by (option 54).
    fn server(&self, network: &Network) -> Ipv4Addr {
        network.server.unwrap_or(self.received.local)
    }

    fn endpoint(&self, network: &Network) -> Endpoint {
        Endpoint {
            address: self.server(network),
            http_port: self.world.http_port,
        }
    }

    fn reply(&self, message_type: MessageType, network: &Network) -> Reply {
        let server = self.server(network);
        Reply {
            message_type,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            next_server: Ipv4Addr::UNSPECIFIED,
            server_name: String::new(),
            boot_file: String::new(),
            options: [(54, server.octets().to_vec())].into(),
        }
    }

    fn lease_reply(
        &self,
        kind: MessageType,
        network: &Network,
        assignment: &Assignment,
    ) -> Transmit {
        let host = self.reservation(network);
        let mut reply = self.reply(kind, network);
        reply.yiaddr = assignment.address;
        reply
            .options
            .extend(options::network_options(network, host.map(Arc::as_ref)));
        options::put_lease_times(&mut reply.options, assignment.lease_s);
        self.add_boot_file(&mut reply, network);
        Transmit {
            reply,
            destination: self.destination(assignment.address),
        }
    }

    fn add_boot_file(&self, reply: &mut Reply, network: &Network) {
        let Ok(Some(file)) = self.boot_file(network) else {
            return;
        };
        let server = self.server(network);
        reply.next_server = server;
        reply.boot_file = file.as_str().to_owned();
        options::put_boot_file(&mut reply.options, &self.client, &file, server);
    }

    /// A kernel of another architecture would be loaded and then fail without a word.
    fn check_kernel(&self, network: &Network) -> Result<(), Because> {
        let (Some(host), Some(firmware)) = (self.reservation(network), self.client.firmware) else {
            return Ok(());
        };
        let kernel = &*host.profile.kernel;
        match self.world.kernels.get(kernel) {
            Some(of) if self.client.boots() && !of.runs_on(firmware) => {
                Err(Because::OtherArchitecture {
                    host: host.name.clone(),
                    kernel: kernel.clone(),
                    of: *of,
                    firmware,
                })
            }
            _ => Ok(()),
        }
    }

    /// What it boots here; an error where nothing in `loaders/`, or not its kernel, runs on it.
    fn boot_file<'n>(&self, network: &'n Network) -> Result<Option<BootFile<'n>>, Because>
    where
        'a: 'n,
    {
        self.check_kernel(network)?;
        boot_target::boot_file(&self.client, &self.choice(network), self.endpoint(network))
            .map_err(Because::NoLoader)
    }

    fn choice<'n>(&self, network: &'n Network) -> Choice<'n>
    where
        'a: 'n,
    {
        let host = self.reservation(network);
        Choice {
            loader: host.map_or(Loader::Ipxe, |host| *host.profile.loader),
            host: host.map(|host| &host.loaders),
            network: &network.loaders,
            there: self.world.loaders,
        }
    }

    /// RFC 2131 §4.1: relay, client's own address, broadcast where it asks for that,
    /// else a frame to its MAC, since it can't answer ARP yet.
    fn destination(&self, yiaddr: Ipv4Addr) -> Destination {
        let request = self.request();
        if !request.giaddr.is_unspecified() {
            Destination::Unicast(SocketAddrV4::new(request.giaddr, 67))
        } else if !request.ciaddr.is_unspecified() {
            Destination::Unicast(SocketAddrV4::new(request.ciaddr, 68))
        } else if request.broadcast {
            Destination::Broadcast
        } else {
            Destination::Frame {
                mac: request.chaddr,
                address: yiaddr,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::model::MacAddr;
    use crate::policy::event::StageState;
    use crate::wire::dhcp::MessageType as Kind;

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
            chaddr: mac(who),
            options: options
                .iter()
                .map(|(code, data)| (*code, data.to_vec()))
                .collect(),
        }
    }

    fn ask_at(leases: &LeaseTable, request: &Request, second: i64) -> Verdict {
        let inventory = inventory();
        let world = World {
            inventory: &inventory,
            leases,
            http_port: 80,
            loaders: &["undionly.kpxe", "snponly.efi"].map(str::to_owned).into(),
            kernels: &[("debian".to_owned(), Architecture::X86)].into(),
        };
        let received = Received {
            request,
            local: ip(1),
            source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        };
        answer(&world, &received, Timestamp::from_second(second).unwrap())
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

    #[test]
    fn a_reserved_address_that_somebody_still_holds_is_not_given_twice() {
        let mut leases = LeaseTable::default();
        leases.apply(&LeaseChange::Bind {
            mac: mac(20),
            address: ip(11),
            expires: Timestamp::from_second(100).unwrap(),
        });
        let discover = request(Kind::Discover, 1, &[]);
        assert_eq!(
            ask_at(&leases, &discover, 50).because,
            Because::ReservedInUse {
                address: ip(11),
                holder: mac(20),
                until: Timestamp::from_second(100).unwrap(),
            }
        );
        assert!(ask_at(&leases, &discover, 101).reply.is_some());
    }

    #[test]
    fn release_and_decline_are_believed_of_the_senders_own_address_alone() {
        let mut leases = LeaseTable::default();
        leases.apply(&LeaseChange::Bind {
            mac: mac(9),
            address: ip(100),
            expires: Timestamp::from_second(100).unwrap(),
        });
        let foreign = request(Kind::Decline, 8, &[(50, &[10, 77, 0, 100])]);
        assert!(ask_at(&leases, &foreign, 1).lease_change.is_none());
        let own = request(Kind::Decline, 9, &[(50, &[10, 77, 0, 100])]);
        assert!(ask_at(&leases, &own, 1).lease_change.is_some());
        let mut release = request(Kind::Release, 8, &[]);
        release.ciaddr = ip(100);
        assert!(ask_at(&leases, &release, 1).lease_change.is_none());
        release.chaddr = mac(9);
        assert!(ask_at(&leases, &release, 1).lease_change.is_some());
    }

    /// Found by a property test: an answer to 0.0.0.0.
    #[test]
    fn inform_without_any_address_is_answered_to_everybody() {
        let verdict = ask(&request(Kind::Inform, 1, &[]));
        let to = verdict.reply.expect("an answer").destination;
        assert_eq!(to, Destination::Broadcast);
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
}
