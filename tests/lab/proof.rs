//! The proof of the join: the hosts looked at from the inside, and a file that crosses the pool.

use super::error::{LabError, Result};
use super::qga::GuestAgent;

/// A host as it sees itself: each field the output of an ordinary command on it.
#[derive(Debug, Clone)]
pub struct HostView {
    /// `hostname`.
    pub hostname: String,
    /// The bridge with its address, its ports, and the ports' own addresses (none).
    pub bridge: String,
    /// `/`, and the NFS mount below the overlay.
    pub root: String,
    /// The mounted pool and libvirt's view of it.
    pub pool: String,
    /// `/dev/kvm` and what stands behind it.
    pub kvm: String,
}

/// Where the pool is mounted on the hosts.
const POOL_MOUNT: &str = "/var/lib/libvirt/images";

impl HostView {
    /// Asks the host.
    pub fn of(agent: &mut GuestAgent) -> Result<Self> {
        let pool = format!(
            "findmnt -n -o SOURCE,FSTYPE,SIZE,TARGET {POOL_MOUNT} && virsh -q pool-list --all"
        );
        Ok(Self {
            hostname: agent.ask("hostname")?,
            bridge: agent.ask(
                "ip -br -4 addr show br0 && ip -br link show master br0 && \
                 for p in $(ls /sys/class/net/br0/brif); do ip -br -4 addr show \"$p\"; done",
            )?,
            root: agent.ask(
                // The NFS mount lies below the overlay, out of sight of mount tables.
                "findmnt -n -o SOURCE,FSTYPE,TARGET,OPTIONS / && cat /proc/fs/nfsfs/volumes",
            )?,
            pool: agent.ask(&pool)?,
            kvm: agent.ask(
                "if [ -c /dev/kvm ]; then ls -l /dev/kvm; grep -o '^kvm_[a-z]*' /proc/modules; \
                 else echo 'no /dev/kvm'; fi",
            )?,
        })
    }

    /// Label and text of each part.
    pub fn parts(&self) -> [(&'static str, &str); 4] {
        [
            ("bridge", &self.bridge),
            ("root", &self.root),
            ("pool", &self.pool),
            ("kvm", &self.kvm),
        ]
    }
}

/// Lets `writer` put a file into the pool and `reader` read it; gives the line that crossed.
pub fn cross_read(writer: &mut GuestAgent, reader: &mut GuestAgent) -> Result<String> {
    let file = format!("{POOL_MOUNT}/proof-of-$(hostname)");
    // The kernel's random UUID: nothing that the reader could have known before.
    let write = format!(
        "echo \"written by $(hostname), $(cat /proc/sys/kernel/random/uuid)\" > {file} && sync && \
         echo {file} && cat {file}"
    );
    let said = writer.ask(&write)?;
    let (path, written) = said.split_once('\n').unwrap_or((&said, ""));
    let read = reader.ask(&format!("cat {path}"))?;
    if read == written && !written.is_empty() {
        return Ok(read);
    }
    Err(LabError::Answer {
        peer: format!("the reader of {path}"),
        answer: format!("`{read}` where `{written}` was written"),
    })
}
