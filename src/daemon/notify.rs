//! The datagrams of sd_notify(3), sent without waiting: a manager that does not read just now must hold up nothing here,
//! and hears the newest of each kind when it does.

use std::env;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sd_notify::NotifyState;

/// The manager's socket, and what it has not taken yet.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: PathBuf,
    /// In order, and one of each kind at most.
    pending: Vec<String>,
}

impl Notifier {
    /// Of the environment (`NOTIFY_SOCKET`), if a manager asks.
    pub(super) fn of_environment() -> Option<Self> {
        env::var_os("NOTIFY_SOCKET").map(|socket| Self::at(socket.into()))
    }

    fn at(socket: PathBuf) -> Self {
        Self {
            socket,
            pending: Vec::new(),
        }
    }

    /// Puts these at the end, as one datagram in the place of an older one of its kind; [`Self::send`] sends it.
    pub(super) fn put(&mut self, states: &[NotifyState<'_>]) {
        let lines = states.iter().map(|state| format!("{state}\n"));
        let datagram = lines.collect::<String>();
        self.pending.retain(|old| kind(old) != kind(&datagram));
        self.pending.push(datagram);
    }

    /// Sends what is pending, as far as the manager takes it now, or until then.
    pub(super) fn send(&mut self, until: Option<Instant>) {
        while let Some(datagram) = self.pending.first() {
            if let Err(error) = send(&self.socket, datagram, until) {
                // A manager that does not listen is no reason to serve nobody.
                tracing::debug!("the service manager could not be told: {error}");
                return;
            }
            self.pending.remove(0);
        }
    }
}

/// `READY`, `STATUS`, …: what its first line sets.
fn kind(datagram: &str) -> Option<&str> {
    datagram.split('=').next()
}

/// The crate's own `notify` waits for as long as the manager's queue is full (unix(7)).
fn send(to: &Path, datagram: &str, until: Option<Instant>) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(to)?;
    match until {
        None => socket.set_nonblocking(true)?,
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            socket.set_write_timeout(Some(left))?;
        }
    }
    socket.send(datagram.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// All that lies in the manager's queue.
    fn heard(manager: &UnixDatagram) -> Vec<String> {
        let mut datagram = [0; 100];
        let next = || {
            let length = manager.recv(&mut datagram).ok()?;
            Some(String::from_utf8_lossy(&datagram[..length]).into_owned())
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_manager_that_reads_again_hears_the_newest_of_each_kind_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"full", &path).is_ok() {}

        let mut notifier = Notifier::at(path);
        let reload = [NotifyState::Reloading, NotifyState::MonotonicUsec(2)];
        for states in [
            &[NotifyState::Status("starts")][..],
            &[NotifyState::Ready],
            &[NotifyState::Status("2 hosts: 2 done")],
            &[NotifyState::Reloading, NotifyState::MonotonicUsec(1)],
            &[NotifyState::Ready],
            &reload,
            &[NotifyState::Watchdog],
            &[NotifyState::Ready],
            &[NotifyState::Watchdog],
        ] {
            notifier.put(states);
            notifier.send(None);
        }
        notifier.send(Some(Instant::now() + Duration::from_millis(20)));
        assert!(heard(&manager).iter().all(|datagram| datagram == "full"));
        notifier.send(None);
        let told = heard(&manager);
        assert_eq!(
            told,
            [
                "STATUS=2 hosts: 2 done\n",
                "RELOADING=1\nMONOTONIC_USEC=2\n",
                "READY=1\n",
                "WATCHDOG=1\n"
            ]
        );
        assert!(notifier.pending.is_empty());
    }
}
