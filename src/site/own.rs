//! The addresses that this machine has.

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::Site;
use crate::policy::dhcp::OwnAddresses;

/// Every IPv4 address of this machine and its interface, loopback too.
///
/// # Errors
/// The system does not say.
pub fn of_machine() -> nix::Result<Vec<(String, Ipv4Addr)>> {
    let v4 = |address: SockaddrStorage| Some(address.as_sockaddr_in()?.ip());
    let each = getifaddrs()?.filter_map(|entry| {
        let address = entry.address.and_then(v4)?;
        Some((entry.interface_name, address))
    });
    Ok(each.collect())
}

impl Site {
    /// This machine's addresses, as they were a second ago.
    pub fn own(&self) -> Arc<OwnAddresses> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.clone()
    }

    /// Notes at which addresses boot files are served, once, and at which iPXE's syslog lines are taken.
    pub fn serves_at(&self, served: Vec<Ipv4Addr>, syslog: Vec<Ipv4Addr>) {
        let all = self.own().all.clone();
        self.set_own(OwnAddresses {
            all,
            served,
            syslog,
        });
    }

    /// Looks which addresses the machine has now.
    pub fn look_at_own(&self) {
        // Where the system does not say, what it said last goes on.
        let Ok(there) = of_machine() else { return };
        let all: Vec<_> = there.into_iter().map(|(_, address)| address).collect();
        let before = self.own();
        if before.all != all {
            let before = OwnAddresses::clone(&before);
            self.set_own(OwnAddresses { all, ..before });
        }
    }

    fn set_own(&self, own: OwnAddresses) {
        let mut guard = self.own.write().unwrap_or_else(PoisonError::into_inner);
        *guard = Arc::new(own);
    }
}
