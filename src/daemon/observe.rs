//! What TFTP and NFS tell, turned into boot events; and what TFTP may send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::nfs;
use crate::policy::event::{Stage, StageState};
use crate::site::Site;

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
