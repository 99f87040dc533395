//! Who was announced which files, and who has them: for one boot attempt, and until the host says that it has them.
//!
//! What left whole may never have arrived: a host that saw its connection break asks again, and gets the same. What
//! was announced is what is delivered, also where a reload comes between; so it is kept from the announcement until
//! the host has it, within bounds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::host_files::Bundle;
use crate::policy::event::AttemptId;

/// Archives kept together, at most, bytes. A rack of 40 has some 40 KiB each.
const MAX_KEPT: usize = 256 << 20;
/// Hosts remembered at most.
const MAX_HOSTS: usize = 16 << 10;

/// What the configuration says of a host's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// SHA-256 of the archive, hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: usize,
}

/// Why files are not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotGiven {
    /// No configuration of this attempt named files, or the daemon was restarted since.
    #[error("no files were announced to this boot attempt")]
    NothingAnnounced,
    /// The host has said that it has them.
    #[error("the host has said that it has the files of this boot attempt")]
    Taken,
    /// They are kept no more, and would be others now.
    #[error("the files that were announced are kept no more, and have changed since")]
    Changed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Sending(u64),
    Taken,
}

struct Pin {
    attempt: AttemptId,
    announced: Announced,
    /// `None`: taken, or dropped for want of room.
    bytes: Option<Bytes>,
    state: State,
    number: u64,
}

#[derive(Default)]
struct Inner {
    hosts: BTreeMap<String, Pin>,
    counter: u64,
}

/// The record of it, by host; in memory alone.
#[derive(Default)]
pub struct Handout {
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Handout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handout({} hosts)", self.lock().hosts.len())
    }
}

/// A delivery that has begun.
#[derive(Clone)]
pub struct Delivery {
    /// The archive.
    pub bytes: Bytes,
    host: String,
    number: u64,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivery({} bytes to {})", self.bytes.len(), self.host)
    }
}

impl Handout {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before the lock goes.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to announce to an attempt: what it was told before, else `bundle`. What earlier
    /// attempts of the host were told is dropped.
    pub fn announce(
        &self,
        host: &str,
        attempt: &AttemptId,
        bundle: Option<Bundle>,
    ) -> Option<Announced> {
        let mut inner = self.lock();
        if let Some(pin) = inner.hosts.get(host).filter(|pin| pin.attempt == *attempt) {
            return Some(pin.announced.clone());
        }
        inner.hosts.remove(host);
        let bundle = bundle?;
        inner.make_room(bundle.bytes.len());
        inner.counter += 1;
        let announced = Announced {
            sha256: bundle.sha256,
            bytes: bundle.bytes.len(),
        };
        let pin = Pin {
            attempt: attempt.clone(),
            announced: announced.clone(),
            bytes: Some(bundle.bytes),
            state: State::Waiting,
            number: inner.counter,
        };
        inner.hosts.insert(host.to_owned(), pin);
        Some(announced)
    }

    /// Begins a delivery; one that was under way for the same attempt is cut off, for its
    /// client has given up on it. `again` renders anew what was dropped for want of room.
    ///
    /// # Errors
    /// [`NotGiven`].
    pub fn begin(
        &self,
        host: &str,
        attempt: &AttemptId,
        again: impl FnOnce() -> Option<Bundle>,
    ) -> Result<Delivery, NotGiven> {
        let mut inner = self.lock();
        inner.counter += 1;
        let number = inner.counter;
        let pin = inner.hosts.get_mut(host);
        let pin = pin.filter(|pin| pin.attempt == *attempt);
        let pin = pin.ok_or(NotGiven::NothingAnnounced)?;
        if pin.state == State::Taken {
            return Err(NotGiven::Taken);
        }
        let kept = pin.bytes.clone();
        let same = |bundle: &Bundle| bundle.sha256 == pin.announced.sha256;
        let bytes = kept.or_else(|| again().filter(same).map(|bundle| bundle.bytes));
        let bytes = bytes.ok_or(NotGiven::Changed)?;
        pin.state = State::Sending(number);
        let host = host.to_owned();
        Ok(Delivery {
            bytes,
            host,
            number,
        })
    }

    /// Whether a delivery is still the newest of its attempt.
    pub fn is_current(&self, delivery: &Delivery) -> bool {
        let inner = self.lock();
        let pin = inner.hosts.get(&delivery.host);
        pin.is_some_and(|pin| pin.state == State::Sending(delivery.number))
    }

    /// Ends a delivery; the host may ask for it again.
    pub fn end(&self, delivery: &Delivery) {
        let mut inner = self.lock();
        let pin = inner.hosts.get_mut(&delivery.host);
        let Some(pin) = pin.filter(|pin| pin.state == State::Sending(delivery.number)) else {
            return;
        };
        pin.state = State::Waiting;
    }

    /// The host has its files, and says so with its token: nobody gets them any more in this attempt.
    pub fn received(&self, host: &str, attempt: &AttemptId) {
        let mut inner = self.lock();
        let pin = inner.hosts.get_mut(host);
        if let Some(pin) = pin.filter(|pin| pin.attempt == *attempt) {
            pin.bytes = None;
            pin.state = State::Taken;
        }
    }
}

impl Inner {
    /// Drops the archives that wait longest; they are rendered anew if asked for.
    fn make_room(&mut self, wanted: usize) {
        if self.hosts.len() >= MAX_HOSTS
            && let Some(oldest) = self.oldest(|_| true)
        {
            self.hosts.remove(&oldest);
        }
        let size = |pin: &Pin| pin.bytes.as_ref().map_or(0, Bytes::len);
        while self.hosts.values().map(size).sum::<usize>() + wanted > MAX_KEPT {
            let Some(oldest) = self.oldest(|pin| pin.bytes.is_some()) else {
                return;
            };
            if let Some(pin) = self.hosts.get_mut(&oldest) {
                pin.bytes = None;
            }
        }
    }

    fn oldest(&self, among: impl Fn(&Pin) -> bool) -> Option<String> {
        let pins = self.hosts.iter().filter(|(_, pin)| among(pin));
        pins.min_by_key(|(_, pin)| pin.number)
            .map(|(host, _)| host.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(text: &'static str) -> Bundle {
        Bundle {
            bytes: Bytes::from_static(text.as_bytes()),
            sha256: text.to_uppercase(),
        }
    }

    fn attempt(name: &str) -> AttemptId {
        AttemptId(name.into())
    }

    fn nothing() -> Option<Bundle> {
        None
    }

    #[test]
    fn what_was_announced_is_given_until_it_is_received_whatever_is_rendered_later() {
        let handout = Handout::default();
        let (a, b) = (attempt("a"), attempt("b"));
        let first = handout.announce("kvm01", &a, Some(bundle("one"))).unwrap();
        // A reload comes between; the configuration is asked for again.
        assert_eq!(
            handout.announce("kvm01", &a, Some(bundle("two"))),
            Some(first)
        );
        let cut = handout.begin("kvm01", &a, nothing).unwrap();
        handout.end(&cut);
        let whole = handout.begin("kvm01", &a, nothing).unwrap();
        assert_eq!(&whole.bytes[..], b"one");
        handout.end(&whole);
        let lost = handout.begin("kvm01", &a, nothing).unwrap();
        assert_eq!(&lost.bytes[..], b"one", "sent is not received");
        handout.end(&lost);
        handout.received("kvm01", &b);
        assert!(handout.begin("kvm01", &a, nothing).is_ok());
        handout.received("kvm01", &a);
        assert_eq!(
            handout.begin("kvm01", &a, nothing).err(),
            Some(NotGiven::Taken)
        );
        assert_eq!(
            handout.begin("kvm01", &b, nothing).err(),
            Some(NotGiven::NothingAnnounced)
        );
        assert_eq!(
            handout.begin("kvm02", &a, nothing).err(),
            Some(NotGiven::NothingAnnounced)
        );
        handout.announce("kvm01", &b, Some(bundle("two")));
        assert_eq!(
            handout.begin("kvm01", &a, nothing).err(),
            Some(NotGiven::NothingAnnounced)
        );
    }

    #[test]
    fn of_two_deliveries_at_once_the_newer_counts() {
        let handout = Handout::default();
        let a = attempt("a");
        handout.announce("kvm01", &a, Some(bundle("one")));
        let stuck = handout.begin("kvm01", &a, nothing).unwrap();
        let newer = handout.begin("kvm01", &a, nothing).unwrap();
        assert!(!handout.is_current(&stuck) && handout.is_current(&newer));
        handout.end(&stuck);
        assert!(handout.is_current(&newer));
    }

    #[test]
    fn what_is_kept_is_bounded_and_rendered_anew_only_if_it_is_the_same() {
        let handout = Handout::default();
        let large = |fill: u8| Bundle {
            bytes: vec![fill; MAX_KEPT / 2 + 1].into(),
            sha256: fill.to_string(),
        };
        handout.announce("kvm01", &attempt("a"), Some(large(1)));
        handout.announce("kvm02", &attempt("b"), Some(large(2)));
        let lost = |bundle| handout.begin("kvm01", &attempt("a"), || bundle).err();
        assert_eq!(lost(Some(large(3))), Some(NotGiven::Changed));
        assert_eq!(lost(Some(large(1))), None);
        assert!(handout.begin("kvm02", &attempt("b"), nothing).is_ok());
    }
}
