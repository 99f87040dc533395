//! How many connections an address has, so that one mad client leaves room for the others.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections that one address may have at once. A booting host needs up to four; behind a router that hides its
/// hosts' addresses (NAT) sixty can still boot together. It takes 32 mad clients to fill
/// [`CONNECTIONS`](super::listen::CONNECTIONS).
pub(super) const PER_ADDRESS: usize = 256;

#[derive(Debug, Default)]
struct Held {
    open: usize,
    refused: usize,
}

/// The connections of each address that has any.
#[derive(Debug)]
pub(super) struct Addresses {
    most: usize,
    held: Mutex<HashMap<Ipv4Addr, Held>>,
}

/// Why a connection is not served.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// The first of this address since it last had few: worth an event.
    First,
    /// Not the first.
    Again,
}

impl Addresses {
    /// Each may have `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            held: Mutex::default(),
        }
    }

    /// Counts one more, if the address may have it.
    pub(super) fn admit(self: &Arc<Self>, peer: Ipv4Addr) -> Result<Seat, TooMany> {
        let mut all = self.lock();
        let held = all.entry(peer).or_default();
        if held.open >= self.most {
            held.refused += 1;
            return Err(if held.refused == 1 {
                TooMany::First
            } else {
                TooMany::Again
            });
        }
        held.open += 1;
        Ok(Seat {
            addresses: self.clone(),
            peer,
        })
    }

    fn leave(&self, peer: Ipv4Addr) {
        let mut all = self.lock();
        let Some(held) = all.get_mut(&peer) else {
            return;
        };
        held.open -= 1;
        // Not at the first one that goes: that would be an event for each that comes again.
        if held.open <= self.most / 2 {
            held.refused = 0;
        }
        if held.open == 0 {
            all.remove(&peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    addresses: Arc<Addresses>,
    peer: Ipv4Addr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.addresses.leave(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_is_told_once() {
        let addresses = Arc::new(Addresses::new(PER_ADDRESS));
        let (mad, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut seats: Vec<Seat> = (0..PER_ADDRESS)
            .map(|_| addresses.admit(mad).unwrap())
            .collect();
        assert_eq!(addresses.admit(mad).unwrap_err(), TooMany::First);
        assert_eq!(addresses.admit(mad).unwrap_err(), TooMany::Again);
        assert!(addresses.admit(other).is_ok());
        seats.pop();
        seats.push(addresses.admit(mad).unwrap());
        assert_eq!(addresses.admit(mad).unwrap_err(), TooMany::Again);
        seats.truncate(PER_ADDRESS / 2);
        seats.extend((0..PER_ADDRESS / 2).map(|_| addresses.admit(mad).unwrap()));
        assert_eq!(addresses.admit(mad).unwrap_err(), TooMany::First);
        drop(seats);
        assert!(addresses.lock().is_empty());
    }
}
