//! Where the client is: the network that it gets an address of, and our address there.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{OwnAddresses, Port, Question, Received, World};
use crate::inventory::model::{DhcpMode, Inventory, Network};
use crate::policy::verdict::Because;

impl Received<'_> {
    /// Whether this was sent to one of our addresses, and not to everybody. The address may be
    /// another interface's: a router chooses the way of a client that renews.
    pub fn is_unicast(&self, inventory: &Inventory, own: &OwnAddresses) -> bool {
        let to = self.to;
        let mut networks = inventory.networks.values();
        let mut to_all = || {
            to.is_broadcast()
                || to.is_unspecified()
                || networks.any(|network| network.subnet.broadcast() == to)
        };
        let is_ours = self.locals.contains(&to) || own.all.contains(&to);
        self.port == Port::Pxe || is_ours || !to_all()
    }
}

impl<'a> Question<'a> {
    /// The network that the client is to be served in (RFC 2131 §4.3.1, RFC 3527, RFC 3011).
    pub(super) fn network(&self) -> Result<&'a Arc<Network>, Because> {
        let network = match self.named_place() {
            Some(place) => self.containing(place).ok_or(Because::NoNetwork(place))?,
            None => self
                .on_link()
                .ok_or_else(|| Because::NoNetwork(self.received.locals[0]))?,
        };
        match network.dhcp {
            DhcpMode::Off => Err(Because::DhcpOff(network.name.clone())),
            DhcpMode::Server | DhcpMode::Proxy => Ok(network),
        }
    }

    /// The network that an address lies in.
    pub(super) fn containing(&self, address: Ipv4Addr) -> Option<&'a Arc<Network>> {
        let mut networks = self.world.inventory.networks.values();
        networks.find(|network| network.subnet.contains(&address))
    }

    /// An address of the client's network, where the packet names one: link selection (82.5)
    /// before subnet selection (118) before `giaddr`. A client that has an address and sends to
    /// ours need not be on our link, and no relay is between: `ciaddr` is trusted (RFC 2131
    /// §4.3.2, RENEWING).
    fn named_place(&self) -> Option<Ipv4Addr> {
        let request = self.received.request;
        let relay = (!request.giaddr.is_unspecified()).then_some(request.giaddr);
        let link = relay.and(request.link_selection());
        let renews = self.is_unicast() && !request.ciaddr.is_unspecified();
        let ciaddr = renews
            .then_some(request.ciaddr)
            .filter(|address| self.containing(*address).is_some());
        link.or(request.subnet_selection()).or(relay).or(ciaddr)
    }

    /// The network on the link that the packet came in by. Of several, that of the host's
    /// reservation, then that of its lease, then that of the address it asks for, then one with
    /// a pool.
    fn on_link(&self) -> Option<&'a Arc<Network>> {
        let mut here: Vec<&'a Arc<Network>> = Vec::new();
        for local in self.received.locals {
            let network = self.containing(*local);
            here.extend(network.filter(|found| !here.iter().any(|known| known.name == found.name)));
        }
        if here.len() > 1 {
            let fit = self.best_of(&here);
            return fit.or_else(|| here.first().copied());
        }
        here.pop()
    }

    fn best_of(&self, here: &[&'a Arc<Network>]) -> Option<&'a Arc<Network>> {
        let served = || here.iter().filter(|network| network.dhcp != DhcpMode::Off);
        let holding = |address: Ipv4Addr| served().find(move |net| net.subnet.contains(&address));
        let reserved = self.host.and_then(|host| holding(*host.ip));
        let lease = || self.world.leases.of(self.client.mac);
        let wanted = || self.wanted().and_then(holding);
        reserved
            .or_else(|| lease().and_then(|lease| holding(lease.address)))
            .or_else(wanted)
            .or_else(|| served().find(|network| network.pool.is_some()))
            .or_else(|| served().next())
            .copied()
    }

    /// Whether this was sent to one of our addresses, and not to everybody.
    pub(super) fn is_unicast(&self) -> bool {
        let World { inventory, own, .. } = self.world;
        self.received.is_unicast(inventory, own)
    }

    /// The address of ours that answers come from: the one that was asked, on whatever interface
    /// it is, else the one in the client's network.
    pub(super) fn source(&self, network: &Network) -> Ipv4Addr {
        let asked = self.received.to;
        match self.is_ours(asked) {
            true => asked,
            false => self.preferred(network),
        }
    }

    /// Where the client finds its boot files, and whom it asks again: the address that it asked
    /// (a relay may be told of one where nothing else is served), else the one in its network.
    pub(super) fn server(&self, network: &Network) -> Ipv4Addr {
        let (locals, asked) = (self.received.locals, self.received.to);
        let served = locals.contains(&asked) || self.world.own.served.contains(&asked);
        network.server.unwrap_or_else(|| match served {
            true => asked,
            false => self.preferred(network),
        })
    }

    /// Of the addresses of the interface, that which the network names, or has.
    fn preferred(&self, network: &Network) -> Ipv4Addr {
        let locals = self.received.locals;
        let mut inside = locals.iter().filter(|own| network.subnet.contains(*own));
        let named = network.server.filter(|server| locals.contains(server));
        named
            .or_else(|| inside.next().copied())
            .unwrap_or(locals[0])
    }

    /// Option 54: a relay may want all that the client sends to go by itself (RFC 5107).
    pub(super) fn server_id(&self, network: &Network) -> Ipv4Addr {
        let request = self.received.request;
        let relayed = !request.giaddr.is_unspecified();
        let other = request.server_override().filter(|_| relayed);
        other.unwrap_or_else(|| self.server(network))
    }

    /// The server that the client chose, if it is not this one.
    pub(super) fn other_server(&self, network: &Network) -> Option<Ipv4Addr> {
        let named = self.received.request.server_id()?;
        // To everybody, another interface's address is another's to answer for: that interface
        // may be on this very link, and heard it too.
        let asked = named == self.received.to && self.is_ours(named);
        let ours = asked
            || named == self.server_id(network)
            || named == self.server(network)
            || self.received.locals.contains(&named);
        (!ours).then_some(named)
    }
}
