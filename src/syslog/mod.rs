//! What loaders and hosts say by syslog (RFC 5426), kept with the boot that is under way at their address.
//!
//! Nothing proves who sent a datagram. So it moves no boot on: it is shown as what it is, and known failures in it are
//! hints for a person.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::floodgate::Floodgate;
use crate::metrics::SyslogFate;
use crate::policy::event::{AttemptId, BootEvent, Evidence, MachineId, Stage, StageState};
use crate::policy::hint::hints;
use crate::policy::progress::Machine;
use crate::site::Site;
use crate::timeline::{Consoles, SyslogLine};
use crate::wire::syslog::Message;

/// The end of a longer datagram is cut off, bytes; RFC 5424 §6.1 wants 2048 to be taken.
const MAX_DATAGRAM: usize = 2048;
/// Datagrams that go to the disk together.
const BATCH: usize = 64;
/// Lines of one address in a second; iPXE says some forty in a boot.
const LINES_PER_SECOND: u32 = 50;
/// Hints of one boot: what anybody can forge must not push out what happened.
const MAX_HINTS: usize = 6;
/// After the socket failed.
const REST: Duration = Duration::from_millis(100);

/// Where lines go.
#[derive(Debug)]
pub struct Desk {
    site: Arc<Site>,
    consoles: Arc<Consoles>,
    gate: Mutex<Floodgate>,
}

/// A boot that is under way.
struct Boot {
    machine: MachineId,
    attempt: AttemptId,
    stage: Stage,
    /// The host speaks for itself: what anybody can forge is no hint any more.
    claimed: bool,
    /// What known failures that came by syslog mean.
    told: Vec<String>,
}

/// Takes lines in until told to end.
pub async fn serve(socket: UdpSocket, desk: Arc<Desk>, shutdown: CancellationToken) {
    loop {
        let received = tokio::select! {
            () = shutdown.cancelled() => return,
            received = receive(&socket) => received,
        };
        if received.is_empty() {
            tokio::time::sleep(REST).await;
            continue;
        }
        let desk = desk.clone();
        // The disk may make whoever writes wait.
        let taken = tokio::task::spawn_blocking(move || {
            for (peer, bytes) in received {
                desk.take(peer, &bytes);
            }
        });
        if let Err(panic) = taken.await {
            tracing::error!("our own fault, in a syslog line: {panic}");
        }
    }
}

/// What has come, at least one datagram; none where the socket failed.
async fn receive(socket: &UdpSocket) -> Vec<(Ipv4Addr, Vec<u8>)> {
    let mut buffer = [0; MAX_DATAGRAM];
    let mut received = Vec::new();
    let mut next = socket.recv_from(&mut buffer).await;
    while let Ok((length, SocketAddr::V4(peer))) = next {
        received.push((*peer.ip(), buffer[..length].to_vec()));
        if received.len() == BATCH {
            break;
        }
        next = socket.try_recv_from(&mut buffer);
    }
    received
}

impl Desk {
    /// For the machines of `site`; lines are kept in `consoles`.
    pub fn new(site: Arc<Site>, consoles: Arc<Consoles>) -> Arc<Self> {
        Arc::new(Self {
            site,
            consoles,
            gate: Mutex::new(Floodgate::new(LINES_PER_SECOND)),
        })
    }

    /// Takes one datagram in.
    pub fn take(&self, peer: Ipv4Addr, datagram: &[u8]) -> SyslogFate {
        let fate = self.file(peer, datagram);
        self.site.metrics.syslog.messages.of(fate).inc();
        fate
    }

    fn file(&self, peer: Ipv4Addr, datagram: &[u8]) -> SyslogFate {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = gate.pass(peer, Instant::now());
        drop(gate);
        if !passes {
            return SyslogFate::Limited;
        }
        let Some(message) = Message::parse(datagram) else {
            return SyslogFate::Empty;
        };
        let Some(found) = self.site.machine_at(peer) else {
            return SyslogFate::Unknown;
        };
        if let Some(mac) = found.id.unlisted_mac() {
            return match self.site.discovery.heard(mac, message.to_string()) {
                true => SyslogFate::Kept,
                false => SyslogFate::NoBoot,
            };
        }
        let Some(boot) = self.boot_of(found.id) else {
            return SyslogFate::NoBoot;
        };
        let line = SyslogLine {
            at: Timestamp::now(),
            severity: message.severity,
            text: message.to_string(),
        };
        self.tell_hints(&boot, &line);
        match self.consoles.say(&boot.machine, &boot.attempt, &line) {
            Ok(()) => SyslogFate::Kept,
            Err(error) => {
                tracing::debug!("cannot keep a syslog line of {}: {error}", boot.machine);
                SyslogFate::Unwritten
            }
        }
    }

    /// The boot of a listed host that has not come to its end.
    fn boot_of(&self, machine: MachineId) -> Option<Boot> {
        self.site.timeline.read(|machines| {
            let attempt = machines.get(&machine).and_then(Machine::attempt)?;
            if attempt.joined.is_some() {
                return None;
            }
            let unproven = |event: &&BootEvent| event.evidence == Evidence::Unproven;
            let unproven = attempt.events.iter().filter(unproven);
            Some(Boot {
                told: unproven.filter_map(|event| event.hint.clone()).collect(),
                claimed: attempt.claimed,
                attempt: attempt.id.clone(),
                stage: attempt.current().map_or(Stage::Dhcp, |event| event.stage),
                machine,
            })
        })
    }

    /// Known failures in it; each is told once in a boot.
    fn tell_hints(&self, boot: &Boot, line: &SyslogLine) {
        if boot.claimed {
            return;
        }
        let room = MAX_HINTS.saturating_sub(boot.told.len());
        let new = hints(&line.text).into_iter().filter_map(|hint| {
            let means = format!("{} (by syslog)", hint.means);
            (!boot.told.contains(&means)).then_some((hint.line, means))
        });
        for (said, means) in new.take(room) {
            let message = format!("its console says: {said}");
            let machine = boot.machine.clone();
            let mut event =
                BootEvent::sent(line.at, machine, boot.stage, StageState::Info, message);
            event.evidence = Evidence::Unproven;
            event.hint = Some(means);
            self.site.timeline.record(event);
        }
    }
}
