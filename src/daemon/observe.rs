//! What TFTP and NFS tell, turned into boot events; and what TFTP may send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::assets::stage_of;
use crate::http::{Ends, Trouble};
use crate::inventory::model::MacAddr;
use crate::metrics::{NfsRefusal, TftpAnswer, TftpResult};
use crate::nfs;
use crate::policy::event::{BootEvent, Evidence, MachineId, Stage, StageState};
use crate::render::ConfigKind;
use crate::site::Site;
use crate::site::boot::Denied;
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
            site.metrics.nfs.mounts.inc();
            site.note(
                v4(peer),
                Stage::Root,
                StageState::Info,
                format!("mounted /roots/{export}"),
            );
        }
        nfs::Event::Unmounted { .. } => {}
        nfs::Event::Refused { peer, why } => {
            site.metrics.nfs.refused.of(refused(&why)).inc();
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

fn refused(why: &nfs::Refusal) -> NfsRefusal {
    match why {
        nfs::Refusal::TooManyConnections { scope, .. } => match scope {
            nfs::Scope::All => NfsRefusal::Connections,
            nfs::Scope::Address => NfsRefusal::AddressConnections,
        },
        nfs::Refusal::UnknownExport { .. } => NfsRefusal::Export,
        nfs::Refusal::NotAllowed { .. } => NfsRefusal::Client,
        nfs::Refusal::Malformed(_) => NfsRefusal::Malformed,
    }
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
        let (kind, rendered) = match wanted {
            Config::Pxelinux(mac, entry) => {
                let kind = ConfigKind::Pxelinux;
                let config = self.site.config_for_mac(kind, mac, entry, peer, local);
                (kind, config)
            }
            Config::Grub(entry) => {
                let kind = ConfigKind::Grub;
                (kind, self.site.config_for_peer(kind, entry, peer, local))
            }
        };
        let config = rendered.map_err(|denied| refusal(&denied))?;
        self.site.config_sent(kind, peer, &config, " by TFTP");
        Ok(config.text.into())
    }
}

fn refusal(denied: &Denied) -> Refusal {
    match denied {
        Denied::NoEntry { .. } => Refusal::new(ErrorCode::FileNotFound, "not in this menu"),
        _ => Refusal::new(ErrorCode::AccessViolation, "not for this address"),
    }
}

/// A config that a loader looks for by a fixed name.
#[derive(Debug, PartialEq, Eq)]
enum Config<'n> {
    /// `pxelinux.cfg/01-52-54-…`: hardware type and MAC (PXELINUX looks for it after the UUID);
    /// `pxelinux.cfg/01-52-54-…/ENTRY` for an entry of the menu.
    Pxelinux(MacAddr, Option<&'n str>),
    /// `grub/grub.cfg`, below the prefix that the distribution's netboot GRUB has built in;
    /// `grub/menu/ENTRY.cfg`.
    Grub(Option<&'n str>),
}

impl<'n> Config<'n> {
    fn named(name: &'n str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("pxelinux.cfg/01-") {
            let (mac, entry) = match rest.split_once('/') {
                Some((mac, entry)) => (mac, Some(entry)),
                None => (rest, None),
            };
            return mac.parse().ok().map(|mac| Self::Pxelinux(mac, entry));
        }
        if matches!(name, "grub/grub.cfg" | "grub.cfg") {
            return Some(Self::Grub(None));
        }
        let entry = name.strip_prefix("grub/menu/")?.strip_suffix(".cfg")?;
        Some(Self::Grub(Some(entry)))
    }
}

impl Source for Desk {
    fn open(&self, request: &Request) -> Result<Bytes, Refusal> {
        let local = v4(SocketAddr::new(request.local, 0));
        if let Some(config) = Config::named(&request.name) {
            return self.config(config, v4(request.peer), local);
        }
        let snapshot = self.site.snapshot();
        let found = snapshot.assets.get_by_tftp(&request.name);
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
        let Some(peer) = event.peer else {
            tracing::error!("TFTP: {}", event.what);
            return;
        };
        let (name, state) = match &event.what {
            What::Finished { name, outcome }
                if Config::named(name).is_some() || outcome.is_size_probe() =>
            {
                tracing::debug!("TFTP to {peer}: {}", event.what);
                return;
            }
            What::Finished { name, outcome } => (name.clone(), ended(outcome)),
            // Loaders look for files that need not be there: GRUB for its modules and its
            // fonts, PXELINUX for configs by UUID and by address.
            What::Refused { name, .. } => (name.clone(), StageState::Info),
            What::Malformed { .. } => ("".into(), StageState::Ignored),
            What::Started { .. } | What::Ignored { .. } | What::Trouble { .. } => {
                tracing::debug!("TFTP to {peer}: {}", event.what);
                return;
            }
        };
        let stage = if name.starts_with("pxelinux.cfg/") {
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
            What::Trouble { .. } => return,
        };
        counted.requests.of(answer).inc();
    }

    fn note_transfer(&self, peer: Ipv4Addr, stage: Stage, state: StageState, what: &What) {
        let now = Timestamp::now();
        let machine = self
            .site
            .machine_at(peer)
            .map_or_else(MachineId::wire, |found| found.id);
        let mut event = BootEvent::sent(now, machine, stage, state, format!("TFTP: {what}"));
        // Every block, or those before it broke off.
        if matches!(what, What::Finished { outcome, .. } if outcome.bytes_acked > 0)
            || state == StageState::Ok
        {
            event.evidence = Evidence::Acknowledged;
        }
        self.site.timeline.record(event);
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
    use super::*;

    #[test]
    fn configs_are_known_by_their_names() {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
        assert_eq!(
            Config::named("pxelinux.cfg/01-52-54-00-00-00-01"),
            Some(Config::Pxelinux(mac, None))
        );
        assert_eq!(
            Config::named("pxelinux.cfg/01-52-54-00-00-00-01/rescue"),
            Some(Config::Pxelinux(mac, Some("rescue")))
        );
        assert_eq!(Config::named("grub/grub.cfg"), Some(Config::Grub(None)));
        assert_eq!(
            Config::named("grub/menu/rescue.cfg"),
            Some(Config::Grub(Some("rescue")))
        );
        for other in [
            "pxelinux.cfg/default",
            "pxelinux.cfg/01-52",
            "grub/x86_64-efi/fs.lst",
            "../grub/grub.cfg",
        ] {
            assert_eq!(Config::named(other), None, "{other}");
        }
    }
}
