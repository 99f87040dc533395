//! Replies: what is in them, and where they go (RFC 2131 §4.1).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use super::{Assignment, Question};
use crate::inventory::model::{Loader, Network};
use crate::policy::boot_target::{self, BootFile, Choice, Endpoint};
use crate::policy::client::Asker;
use crate::policy::options;
use crate::policy::verdict::{Because, Destination, Transmit};
use crate::wire::dhcp::{MessageType, Reply};

/// The client's port; relays and servers have 67.
const CLIENT: u16 = 68;
const RELAY: u16 = 67;

impl<'a> Question<'a> {
    fn endpoint(&self, network: &Network) -> Endpoint {
        Endpoint {
            address: self.server(network),
            http_port: self.world.http_port,
        }
    }

    /// A reply of nothing but option 54, and where they came 118 (RFC 3011 §4) and 61 (RFC 6842
    /// §3; a client that shares its MAC with another tells by it whose the reply is).
    pub(super) fn reply(&self, message_type: MessageType, network: &Network) -> Reply {
        let server = self.server_id(network);
        let mut options: options::Options = [(54, server.octets().to_vec())].into();
        let request = self.request();
        if request.subnet_selection().is_some() {
            options.insert(118, request.bytes(118).to_vec());
        }
        let identifier = request.bytes(61);
        if !identifier.is_empty() {
            options.insert(61, identifier.to_vec());
        }
        Reply {
            message_type,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            next_server: Ipv4Addr::UNSPECIFIED,
            server_name: String::new(),
            boot_file: String::new(),
            options,
        }
    }

    pub(super) fn transmit(
        &self,
        network: &Network,
        reply: Reply,
        destination: Destination,
    ) -> Transmit {
        Transmit {
            ends_ipv6_wait: self.ends_ipv6_wait(network, reply.message_type),
            reply,
            destination,
            from: self.source(network),
            delay: self.delay(network),
        }
    }

    /// iPXE waits for DHCP and for an IPv6 router, each at every boot. Beyond a relay we can't reach it.
    fn ends_ipv6_wait(&self, network: &Network, kind: MessageType) -> bool {
        let request = self.request();
        let on_link = request.giaddr.is_unspecified() && request.hardware.is_ethernet();
        let is_ipxe = self.client.asker == Asker::Ipxe;
        kind == MessageType::Ack && is_ipxe && on_link && !network.ipxe_ipv6
    }

    /// Some firmware misses a reply that comes at once (dnsmasq `--dhcp-reply-delay`).
    fn delay(&self, network: &Network) -> Duration {
        let firmware = self.client.firmware.filter(|_| self.client.boots());
        let delay = firmware.and_then(|firmware| network.reply_delay.get(&firmware));
        delay.copied().unwrap_or_default()
    }

    pub(super) fn lease_reply(
        &self,
        kind: MessageType,
        network: &Network,
        assignment: &Assignment,
    ) -> Transmit {
        let mut reply = self.reply(kind, network);
        reply.yiaddr = assignment.address;
        self.add_options(&mut reply, network);
        options::put_lease_times(&mut reply.options, assignment.lease_s);
        self.add_boot_file(&mut reply, network);
        let destination = self.destination(assignment.address);
        self.transmit(network, reply, destination)
    }

    pub(super) fn add_options(&self, reply: &mut Reply, network: &Network) {
        let host = self.reservation(network).map(Arc::as_ref);
        let own = std::mem::take(&mut reply.options);
        reply.options = options::network_options(network, host);
        reply.options.extend(own);
    }

    pub(super) fn add_boot_file(&self, reply: &mut Reply, network: &Network) {
        let Ok(Some(file)) = self.boot_file(network) else {
            return;
        };
        let server = self.server(network);
        reply.next_server = server;
        reply.boot_file = file.as_str().to_owned();
        options::put_boot_file(&mut reply.options, &self.client, &file, server);
        if self.world.own.syslog.contains(&server) {
            options::put_log_server(&mut reply.options, server);
        }
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
    pub(super) fn boot_file<'n>(
        &self,
        network: &'n Network,
    ) -> Result<Option<BootFile<'n>>, Because>
    where
        'a: 'n,
    {
        if self.world.leaves_for_disk {
            return Ok(None);
        }
        self.check_kernel(network)?;
        boot_target::boot_file(&self.client, &self.choice(network), self.endpoint(network))
            .map_err(Because::NoLoader)
    }

    pub(super) fn choice<'n>(&self, network: &'n Network) -> Choice<'n>
    where
        'a: 'n,
    {
        let host = self.reservation(network);
        Choice {
            loader: host.map_or_else(
                || self.strangers_loader(network),
                |host| *host.profile.loader,
            ),
            host: host.map(|host| &host.loaders),
            network: &network.loaders,
            there: self.world.loaders,
        }
    }

    /// That of the inventory boot, if strangers have one here.
    fn strangers_loader(&self, network: &Network) -> Loader {
        let name = network.unknown.inventory.as_ref();
        let name = name.filter(|_| self.host.is_none());
        let profile = name.and_then(|name| self.world.inventory.profiles.get(&name.value));
        profile.map_or(Loader::Ipxe, |profile| *profile.loader)
    }

    /// An OFFER or ACK with an address: by the relay, to the client's own address, to everybody
    /// where it asks for that or has no MAC, else by a frame, since it can't answer ARP yet.
    pub(super) fn destination(&self, yiaddr: Ipv4Addr) -> Destination {
        let request = self.request();
        if let Some(relay) = self.by_relay() {
            relay
        } else if let Some(client) = self.to_client() {
            client
        } else if request.broadcast || !request.hardware.is_ethernet() {
            Destination::Broadcast
        } else {
            Destination::Frame {
                mac: request.mac,
                address: yiaddr,
            }
        }
    }

    /// A reply without an address to a client that may have none: a NAK, a proxy's OFFER. What
    /// goes by a relay has the broadcast flag set (`Reply::encode`).
    pub(super) fn to_everybody(&self) -> Destination {
        self.by_relay().unwrap_or(Destination::Broadcast)
    }

    /// A reply to INFORM, or to port 4011: to the address that the client has.
    pub(super) fn to_who_asked(&self) -> Destination {
        let source = self.received.source;
        let back = || match self.containing(*source.ip()) {
            None => Destination::Broadcast,
            Some(_) => Destination::Unicast(source),
        };
        self.to_client()
            .or_else(|| self.by_relay())
            .unwrap_or_else(back)
    }

    /// Port 67 of the relay, or the port that it sent from if it says so (RFC 8357).
    fn by_relay(&self) -> Option<Destination> {
        let request = self.request();
        let port = match request.has_relay_port() {
            true => self.received.source.port(),
            false => RELAY,
        };
        let giaddr = (!request.giaddr.is_unspecified()).then_some(request.giaddr)?;
        Some(Destination::Unicast(SocketAddrV4::new(giaddr, port)))
    }

    /// The address that the client has, and the port that it used with it. One outside our
    /// networks is no client's of ours, and somebody's who asked for nothing: forged, it would
    /// have us send there.
    fn to_client(&self) -> Option<Destination> {
        let ciaddr = self.request().ciaddr;
        self.containing(ciaddr)?;
        let source = self.received.source;
        let port = match *source.ip() == ciaddr {
            true => source.port(),
            false => CLIENT,
        };
        let known = (!ciaddr.is_unspecified()).then_some(ciaddr)?;
        Some(Destination::Unicast(SocketAddrV4::new(known, port)))
    }
}
