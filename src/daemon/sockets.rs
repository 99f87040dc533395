//! Every socket, bound while there are privileges.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use super::interfaces::{self, Askers};
use super::{Options, ServeError, bindings, links, port_holder, state};
use crate::dhcp::{Bound, Interface};
use crate::inventory::model::{Inventory, Server};
use crate::metrics::{Metrics, UdpService};
use crate::tftp;

/// Connections that the kernel keeps until they are taken; it takes `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;

/// Interfaces that DHCP could not be had on, and why.
type Refused = Vec<(String, String)>;

/// What is served by.
pub(super) struct Sockets {
    pub(super) dhcp: Vec<Bound>,
    pub(super) refused: Refused,
    pub(super) served: Arc<[links::Served]>,
    pub(super) bound: bindings::Bound,
    pub(super) tftp: tftp::Server,
    pub(super) http: Vec<TcpListener>,
    /// Empty where the API shares the port of the boot files.
    pub(super) api: Vec<TcpListener>,
    pub(super) https: Vec<TcpListener>,
    pub(super) nfs: Vec<TcpListener>,
    /// Those that could be had: nobody's boot hangs on them.
    pub(super) syslog: Vec<std::net::UdpSocket>,
    /// Where iPXE is to send its lines.
    pub(super) hear_ipxe: Vec<Ipv4Addr>,
    pub(super) control: std::os::unix::net::UnixListener,
}

impl Sockets {
    pub(super) fn bind(
        interfaces: &[Interface],
        inventory: &Inventory,
        options: &Options,
    ) -> Result<Self, ServeError> {
        let server = &inventory.server;
        let mut tftp = Vec::new();
        let (dhcp, refused) = bind_all_dhcp(interfaces, inventory)?;
        let (mut http, mut nfs) = (Vec::new(), Vec::new());
        let (mut api, mut https) = (Vec::new(), Vec::new());
        for interface in interfaces {
            for address in &interface.addresses {
                let at = |port| SocketAddr::new(IpAddr::V4(*address), port);
                tftp.push(bind_udp(at(server.tftp_port), "TFTP")?);
                http.push(bind_tcp(at(server.http_port), "HTTP")?);
                nfs.push(bind_tcp(at(server.nfs_port), "NFS")?);
                if let Some(port) = server.api_port {
                    api.push(bind_tcp(at(port), "API")?);
                }
                if let Some(tls) = &server.tls {
                    https.push(bind_tcp(at(tls.port), "HTTPS")?);
                }
            }
        }
        // Large receive buffers need CAP_NET_ADMIN, which goes after this.
        let tftp = tftp::Server::from_sockets(tftp).map_err(ServeError::Tftp)?;
        let control = state::control_socket(&options.state)?;
        let syslog = bind_syslog(interfaces, server.syslog_port);
        let with_dhcp = dhcp.iter().map(|one| one.interface().name.clone());
        let bound = bindings::Bound::new(interfaces, with_dhcp);
        Ok(Self {
            dhcp,
            refused,
            served: links::served(interfaces),
            bound,
            tftp,
            http,
            api,
            https,
            nfs,
            hear_ipxe: hear_ipxe(server, &syslog),
            syslog,
            control,
        })
    }

    /// Shows what the kernel drops before we see it.
    pub(super) fn watch(&self, metrics: &Metrics) {
        for socket in self.dhcp.iter().flat_map(Bound::receivers) {
            metrics.sockets.watch(UdpService::Dhcp, &socket);
        }
        for socket in self.tftp.sockets() {
            metrics.sockets.watch(UdpService::Tftp, socket);
        }
        for socket in &self.syslog {
            metrics.sockets.watch(UdpService::Syslog, socket);
        }
    }
}

/// DHCP wherever it is wanted. Where relays alone would ask, a port that another process has costs
/// that interface alone, as long as relays can ask by another one: a container's or libvirt's
/// DHCP server on a bridge of its own is no reason to serve nobody.
fn bind_all_dhcp(
    all: &[Interface],
    inventory: &Inventory,
) -> Result<(Vec<Bound>, Refused), ServeError> {
    let (mut bound, mut refused) = (Vec::new(), Vec::new());
    for interface in all {
        let Some(askers) = interfaces::askers(interface, all, inventory) else {
            continue;
        };
        match bind_dhcp(interface) {
            Ok(socket) => bound.push(socket),
            Err(error) if askers == Askers::Relays && is_taken(&error) => {
                refused.push((interface.name.clone(), error));
            }
            Err(error) => return Err(error),
        }
    }
    if bound.is_empty()
        && let Some((_, error)) = refused.pop()
    {
        return Err(error);
    }
    let told = |(name, error): (String, ServeError)| {
        let message = format!(
            "DHCP is not served on {name}, where no client of ours is and relays alone would ask; they can by the other interfaces: {error}"
        );
        tracing::warn!("{message}");
        (name, message)
    };
    Ok((bound, refused.into_iter().map(told).collect()))
}

/// Syslog, where it is asked for and can be had: nobody's boot hangs on it.
fn bind_syslog(interfaces: &[Interface], port: Option<u16>) -> Vec<std::net::UdpSocket> {
    let Some(port) = port else {
        return Vec::new();
    };
    let mut bound = Vec::new();
    for address in interfaces.iter().flat_map(|one| &one.addresses) {
        match bind_udp(SocketAddr::new(IpAddr::V4(*address), port), "syslog") {
            Ok(socket) => bound.push(socket),
            Err(error) => {
                tracing::warn!(
                    "what loaders and hosts say by syslog is not taken at {address}, and all else is served: {error}; or take `syslog` out of `server:`"
                );
            }
        }
    }
    bound
}

/// Addresses whose port could be had, if it is the one that iPXE sends to.
fn hear_ipxe(server: &Server, bound: &[std::net::UdpSocket]) -> Vec<Ipv4Addr> {
    let bound = bound.iter().filter(|_| server.hears_ipxe());
    let at = bound.filter_map(|socket| socket.local_addr().ok());
    at.filter_map(|at| match at {
        SocketAddr::V4(at) => Some(*at.ip()),
        SocketAddr::V6(_) => None,
    })
    .collect()
}

fn is_taken(error: &ServeError) -> bool {
    matches!(error, ServeError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

fn bind_dhcp(interface: &Interface) -> Result<Bound, ServeError> {
    Bound::bind(interface.clone()).map_err(|error| match error.source.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => ServeError::Bind {
            operation: format!("{} on {}", error.operation, error.interface),
            port: port_holder::Port::Udp(if error.operation.contains("4011") {
                4011
            } else {
                67
            }),
            source: error.source,
        },
        _ => error.into(),
    })
}

fn bind_udp(address: SocketAddr, what: &str) -> Result<std::net::UdpSocket, ServeError> {
    let bound = std::net::UdpSocket::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    bound.map_err(|source| ServeError::Bind {
        operation: format!("bind UDP {address} ({what})"),
        port: port_holder::Port::Udp(address.port()),
        source,
    })
}

fn bind_tcp(address: SocketAddr, what: &str) -> Result<TcpListener, ServeError> {
    // std sets SO_REUSEADDR for listeners: a restart need not wait for TIME_WAIT.
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        // std's queue is of 128: of a row of racks that power on together most would come again a second later.
        socket2::SockRef::from(&listener).listen(BACKLOG)?;
        Ok(listener)
    });
    bound.map_err(|source| ServeError::Bind {
        operation: format!("bind TCP {address} ({what})"),
        port: port_holder::Port::Tcp(address.port()),
        source,
    })
}
