//! What TFTP and NFS tell, turned into boot events; and what TFTP may send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::config_names::{Config, Whose, is_optional};
use crate::assets::stage_of;
use crate::http::{Ends, Trouble};
use crate::metrics::{TftpAnswer, TftpResult};
use crate::nfs;
use crate::policy::event::{BootEvent, Evidence, MachineId, Stage, StageState};
use crate::policy::progress::Machine;
use crate::policy::stall::ASKED_SIZE;
use crate::site::Site;
use crate::site::boot::Denied;
use crate::span::transfer;
use crate::tftp::{Ended, Observer, Outcome, Refusal, Request, Source, TransferEvent, What};
use crate::wire::tftp::ErrorCode;

pub(super) fn v4(address: SocketAddr) -> Ipv4Addr {
    match address.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

/// Mounts and refusals, filed under the machine that has the address.
pub(super) fn nfs_observer(site: &Arc<Site>) -> nfs::Observer {
    let site = site.clone();
    Arc::new(move |event| match event {
        nfs::Event::Mounted { peer, export } => {
            site.note(
                v4(peer),
                Stage::Root,
                StageState::Info,
                format!("mounted /roots/{export}"),
            );
        }
        nfs::Event::Unmounted { .. } => {}
        nfs::Event::Refused { peer, why } => {
            site.note(
                v4(peer),
                Stage::Root,
                StageState::Ignored,
                format!("NFS refused {peer}: {why}"),
            );
        }
        nfs::Event::Changed { export, path } => {
            tracing::warn!(
                "root {export}: {path} is not the file that was indexed; its clients get ESTALE. Build images beside the old one, and `kill -HUP` the daemon"
            );
        }
        nfs::Event::ReadFailed {
            export,
            path,
            error,
        } => {
            tracing::error!("root {export}: cannot read {path}: {error}");
        }
        nfs::Event::Faltered { operation, error } => {
            tracing::error!("NFS could not {operation} for a moment: {error}");
        }
    })
}

/// Peers that do not speak HTTP, or too much of it.
pub(super) fn http_observer(site: &Arc<Site>) -> Trouble {
    let site = site.clone();
    Arc::new(move |ends, why| {
        if let Ends::Network { peer, .. } = ends {
            site.note(peer, Stage::Script, StageState::Ignored, why);
        }
    })
}

/// What TFTP clients may read: boot files, and the configs that are rendered for them.
#[derive(Debug)]
pub(crate) struct Desk {
    site: Arc<Site>,
}

impl Desk {
    pub(crate) fn new(site: &Arc<Site>) -> Arc<Self> {
        Arc::new(Self { site: site.clone() })
    }

    fn config(&self, wanted: Config, peer: Ipv4Addr, local: Ipv4Addr) -> Result<Bytes, Refusal> {
        let Config { kind, of, entry } = wanted;
        let mac = match of {
            Whose::Mac(mac) => Some(mac),
            Whose::Address(address) if address != peer => return Err(Refusal::not_found()),
            // Of several NICs we may not know which one it is: the next name says it.
            Whose::Uuid | Whose::Address(_) => {
                Some(self.site.boot_mac(peer).ok_or_else(Refusal::not_found)?)
            }
            Whose::Asker => None,
        };
        let rendered = match mac {
            Some(mac) => self.site.config_for_mac(kind, mac, entry, peer, local),
            None => self.site.config_for_peer(kind, entry, peer, local),
        };
        let config = rendered.map_err(|denied| refusal(&denied))?;
        self.site.config_sent(kind, peer, &config, " by TFTP");
        Ok(config.text.into())
    }
}

/// Whether a loader that is refused this file goes on as if nothing were.
fn is_sought_in_passing(name: &str) -> bool {
    let config = Config::named(name);
    is_optional(name) || config.is_some_and(|config| config.of.is_first_try())
}

fn refusal(denied: &Denied) -> Refusal {
    match denied {
        Denied::NoEntry { .. } => Refusal::new(ErrorCode::FileNotFound, "not in this menu"),
        _ => Refusal::new(ErrorCode::AccessViolation, "not for this address"),
    }
}

impl Source for Desk {
    fn open(&self, request: &Request) -> Result<Bytes, Refusal> {
        let local = v4(SocketAddr::new(request.local, 0));
        if let Some(config) = Config::named(&request.name) {
            return self.config(config, v4(request.peer), local);
        }
        let kept = self.site.files_for(v4(request.peer), &request.name);
        let served = self.site.snapshot();
        let kept = kept.assets.get_by_tftp(&request.name);
        let found = kept.or_else(|| served.assets.get_by_tftp(&request.name));
        if found.is_none() && &*request.name == "autoexec.ipxe" {
            return Ok(self.site.autoexec(local).into());
        }
        found
            .map(|(_, asset)| asset.bytes.clone())
            .ok_or_else(Refusal::not_found)
    }
}

impl Observer for Desk {
    fn observe(&self, event: TransferEvent) {
        self.count(&event.what);
        if let (Some(peer), What::Moving { name, reached }) = (event.peer, &event.what) {
            let bytes = (reached.bytes_acked, reached.size);
            return self.site.fetches(v4(peer), name, reached.elapsed, bytes);
        }
        let Some(peer) = event.peer else {
            tracing::error!("TFTP: {}", event.what);
            return;
        };
        let (name, state) = match &event.what {
            What::Finished { name, .. } if Config::named(name).is_some() => {
                tracing::debug!("TFTP to {peer}: {}", event.what);
                return;
            }
            What::Finished { name, outcome } if outcome.is_size_probe() => {
                tracing::debug!("TFTP to {peer}: {}", event.what);
                return self.note_probe(v4(peer), name, outcome.size);
            }
            What::Finished { name, outcome } => (name.clone(), ended(outcome)),
            What::Refused { name, .. } if is_sought_in_passing(name) => {
                tracing::debug!("TFTP to {peer}: {}", event.what);
                return;
            }
            What::Refused { name, .. } => (name.clone(), StageState::Info),
            What::Malformed { .. } => ("".into(), StageState::Ignored),
            What::Started { .. }
            | What::Moving { .. }
            | What::Ignored { .. }
            | What::Trouble { .. } => {
                tracing::debug!("TFTP to {peer}: {}", event.what);
                return;
            }
        };
        let is_config = Config::named(&name).is_some() || name.starts_with("pxelinux.cfg/");
        let stage = if is_config {
            Stage::Script
        } else {
            stage_of(&name)
        };
        self.note_transfer(v4(peer), stage, state, &event.what);
    }
}

impl Desk {
    fn count(&self, what: &What) {
        let counted = &self.site.metrics.tftp;
        let answer = match what {
            What::Started { .. } => {
                counted.running.inc();
                TftpAnswer::Served
            }
            What::Finished { outcome, .. } => {
                counted.running.dec();
                counted.finished.of(result(outcome)).inc();
                counted.bytes.inc_by(outcome.bytes_acked);
                counted.retransmissions.inc_by(outcome.retransmissions);
                return;
            }
            What::Refused { .. } => TftpAnswer::Refused,
            What::Malformed { .. } => TftpAnswer::Malformed,
            What::Ignored { .. } => TftpAnswer::Ignored,
            What::Moving { .. } | What::Trouble { .. } => return,
        };
        counted.requests.of(answer).inc();
    }

    /// A ROM asks for the size ahead of each file, and some let that be all: once in a boot for each file, as nothing that
    /// moves the boot on.
    fn note_probe(&self, peer: Ipv4Addr, name: &str, size: u64) {
        let found = self.site.machine_at(peer);
        let machine = found.map_or_else(MachineId::wire, |found| found.id);
        let words = format!("{ASKED_SIZE} {name} is ({size} bytes), and did not fetch it then");
        let told = self.site.timeline.read(|machines| {
            let attempt = machines.get(&machine).and_then(Machine::attempt);
            attempt.is_none_or(|attempt| attempt.events.iter().any(|known| known.message == words))
        });
        if !told {
            let (now, state) = (Timestamp::now(), StageState::Info);
            let mut event = BootEvent::sent(now, machine, stage_of(name), state, words);
            // It refused what was answered, and so had it.
            event.evidence = Evidence::Acknowledged;
            self.site.timeline.record(event);
        }
    }

    fn note_transfer(&self, peer: Ipv4Addr, stage: Stage, state: StageState, what: &What) {
        let now = Timestamp::now();
        let machine = self
            .site
            .machine_at(peer)
            .map_or_else(MachineId::wire, |found| found.id);
        let mut event = BootEvent::sent(now, machine, stage, state, told(what));
        // Every block, or those before it broke off.
        if matches!(what, What::Finished { outcome, .. } if outcome.bytes_acked > 0)
            || state == StageState::Ok
        {
            event.evidence = Evidence::Acknowledged;
        }
        self.site.timeline.record(event);
    }
}

/// In words, for the machine's story.
fn told(what: &What) -> String {
    let What::Finished { name, outcome } = what else {
        return format!("TFTP: {what}");
    };
    let again = match outcome.retransmissions {
        0 => String::new(),
        blocks => format!(", {blocks} blocks sent again"),
    };
    let (taken, size) = (outcome.bytes_acked, outcome.size);
    match &outcome.ended {
        Ended::Done => {
            let whole = transfer(size, outcome.elapsed);
            format!("{name} by TFTP, {whole}{again}")
        }
        ended => {
            let took = outcome.elapsed.as_secs_f64();
            format!(
                "{name} by TFTP: {ended}; {taken} of {size} bytes acknowledged in {took:.1} s{again}"
            )
        }
    }
}

fn result(outcome: &Outcome) -> TftpResult {
    match &outcome.ended {
        Ended::Done | Ended::LastAckMissing => TftpResult::Done,
        _ if outcome.is_size_probe() => TftpResult::SizeProbe,
        Ended::ClientError { .. } => TftpResult::ClientError,
        Ended::GaveUp | Ended::Overdue => TftpResult::GaveUp,
        Ended::Unreachable => TftpResult::Unreachable,
        Ended::Replaced => TftpResult::Replaced,
        Ended::Shutdown => TftpResult::Shutdown,
        Ended::Socket(_) => TftpResult::Socket,
    }
}

fn ended(outcome: &Outcome) -> StageState {
    if matches!(outcome.ended, Ended::Done | Ended::LastAckMissing) {
        StageState::Ok
    } else {
        StageState::Retry
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::explain::testing;
    use crate::policy::client::Asker;

    #[test]
    fn a_file_that_was_asked_for_and_not_fetched_is_told_once_in_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let site = Arc::new(testing::site(dir.path()));
        let desk = Desk::new(&site);
        let probe = |ended: Ended, bytes_acked| {
            let outcome = Outcome {
                ended,
                size: 7,
                bytes_acked,
                elapsed: Duration::from_millis(3),
                retransmissions: 0,
                strays: 0,
                asked_size: true,
            };
            let name = "snponly.efi".into();
            desk.observe(TransferEvent {
                peer: Some("10.77.0.11:2070".parse().unwrap()),
                local: None,
                what: What::Finished { name, outcome },
            });
        };
        let id = MachineId("kvm01".into());
        let told = || -> Vec<_> {
            let attempt = site
                .timeline
                .machine(&id)
                .and_then(|known| known.attempt().cloned());
            let events = attempt.into_iter().flat_map(|attempt| attempt.events);
            events
                .map(|event| (event.state.name(), event.message))
                .collect()
        };
        let first = |at| {
            let words = "offered".to_owned();
            let offer = BootEvent::sent(at, id.clone(), Stage::Dhcp, StageState::Ok, words);
            site.timeline.record_asking(offer, Asker::PxeRom);
        };
        // Outside a boot it tells nothing.
        probe(Ended::Unreachable, 0);
        assert!(site.timeline.machine(&id).is_none());
        first(Timestamp::now());
        probe(Ended::Unreachable, 0);
        let refused = Ended::ClientError {
            code: ErrorCode::OptionsRefused,
            message: String::new(),
        };
        probe(refused, 0);
        let words = "asked how large snponly.efi is (7 bytes), and did not fetch it then";
        assert_eq!(told()[1..], [("info", words.to_owned())]);
        probe(Ended::Done, 7);
        assert_eq!(told().len(), 3, "{:?}", told());
        assert_eq!(told()[2].0, "ok");
    }
}
