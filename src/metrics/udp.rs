//! Packets that the kernel threw away because a receive buffer of ours was full.
//!
//! Servers that fall over in a boot storm fall over here, and nothing tells: the client's packet has arrived and the
//! server never saw it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::stat::fstat;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::Label;

/// What a UDP socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpService {
    /// DHCP requests.
    Dhcp,
    /// TFTP requests.
    Tftp,
    /// Syslog lines.
    Syslog,
}

impl Label for UdpService {
    const NAME: &'static str = "protocol";
    const ALL: &'static [Self] = &[Self::Dhcp, Self::Tftp, Self::Syslog];

    fn value(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Tftp => "tftp",
            Self::Syslog => "syslog",
        }
    }
}

/// Sockets that live as long as the daemon. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct WatchedSockets {
    sockets: Arc<Mutex<Vec<(UdpService, u64)>>>,
}

impl WatchedSockets {
    /// Shows what the kernel drops for want of room in `socket`.
    pub fn watch(&self, service: UdpService, socket: &impl AsFd) {
        // The inode is how /proc/net/udp names a socket.
        if let Ok(stat) = fstat(socket.as_fd()) {
            let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            sockets.push((service, stat.st_ino));
        }
    }

    /// What was dropped for one service since its sockets were bound.
    pub fn drops(&self, service: UdpService) -> u64 {
        self.sum(service, &drops_by_inode(&net_udp()))
    }

    fn sum(&self, service: UdpService, drops: &HashMap<u64, u64>) -> u64 {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let own = sockets.iter().filter(|(of, _)| *of == service);
        own.filter_map(|(_, inode)| drops.get(inode)).sum()
    }
}

impl Collector for WatchedSockets {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "Packets that the kernel dropped because our receive buffer was full";
        let name = "udp_receive_drops";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let drops = drops_by_inode(&net_udp());
        for service in UdpService::ALL {
            let labels = [(UdpService::NAME, service.value())];
            let dropped = ConstCounter::new(self.sum(*service, &drops));
            dropped.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn net_udp() -> String {
    fs::read_to_string("/proc/self/net/udp").unwrap_or_default()
}

/// Lines of proc_net_udp: `sl local rem st queues timer retransmits uid timeout inode ref pointer drops`.
fn drops_by_inode(table: &str) -> HashMap<u64, u64> {
    let row = |line: &str| {
        let mut columns = line.split_whitespace().skip(9);
        let inode = columns.next()?.parse().ok()?;
        Some((inode, columns.nth(2)?.parse().ok()?))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_overflows_a_watched_socket_is_counted() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::RcvBuf, &4096).unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let watched = WatchedSockets::default();
        watched.watch(UdpService::Dhcp, &server);
        watched.watch(UdpService::Tftp, &other);
        for _ in 0..100 {
            let to = server.local_addr().unwrap();
            other.send_to(&[0; 1000], to).unwrap();
        }
        let mut received = 0;
        server.set_nonblocking(true).unwrap();
        while server.recv(&mut [0; 1000]).is_ok() {
            received += 1;
        }
        assert!(received < 100);
        assert_eq!(watched.drops(UdpService::Dhcp), 100 - received);
        assert_eq!(watched.drops(UdpService::Tftp), 0);
    }

    #[test]
    fn the_kernels_table_is_read_by_column() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1024: 0100000A:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31416 2 0000000000000000 130\n";
        assert_eq!(drops_by_inode(table), HashMap::from([(31416, 130)]));
    }
}
