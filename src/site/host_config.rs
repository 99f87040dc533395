//! A host's configuration as its initrd fetches it: `key=value` lines, then their hash.

use std::fmt::Write;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::handout::Announced;
use super::{Snapshot, boot, links};
use crate::inventory::model::{Host, ImagePool, NfsVersion, PoolKind, RootSource};

/// The name of the libvirt storage pool on the image pool's mount.
const LIBVIRT_POOL: &str = "images";
/// A root must never give up: `soft` would turn an outage into I/O errors in PID 1.
const ROOT_OPTIONS: &str = "proto=tcp,hard,ro,noatime,timeo=600,retrans=2";

/// The text for one host and one boot attempt. The last line, `sha256=`, covers all
/// before it, so that a cut or altered answer is seen. `files` are those that the attempt may fetch.
pub fn host_config(
    snapshot: &Snapshot,
    host: &Host,
    server: Ipv4Addr,
    report_token: &str,
    files: Option<&Announced>,
) -> String {
    let mut lines = Lines::default();
    let network = &host.home.network;
    lines.put("hostname", &host.name);
    lines.put(
        "machine_id",
        machine_id(&snapshot.inventory.site, &host.name),
    );
    lines.put("report_token", report_token);
    lines.put("nameservers", join(&network.dns));
    lines.put("domain", network.domain.as_deref().unwrap_or(""));
    lines.put("ntp", join(&network.ntp));
    lines.put("on_failure", boot::on_failure(*host.profile.on_failure));
    if let Some(hash) = &host.profile.rescue {
        lines.put("rescue_password", hash.reveal());
    }
    lines.put("overlay_bytes", host.profile.root.overlay);
    put_root(&mut lines, snapshot, host, server);
    put_pool(&mut lines, host.profile.image_pool.as_deref());
    put_interfaces(&mut lines, host);
    if let Some(files) = files {
        lines.put("files_sha256", &files.sha256);
        lines.put("files_bytes", files.bytes);
    }
    lines.finish()
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{key}={value}");
    }

    fn finish(mut self) -> String {
        let hash: String = Sha256::digest(&self.0)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.put("sha256", hash);
        self.0
    }
}

fn join(addresses: &[Ipv4Addr]) -> String {
    let texts: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    texts.join(" ")
}

/// The same for the same name whatever NIC or board is in the machine, so that journald
/// and libvirt know it again; two hosts with one machine-id could not migrate to each other.
fn machine_id(site: &str, host: &str) -> uuid::fmt::Simple {
    let name = format!("bridgehead:{site}:{host}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).simple()
}

fn version(version: NfsVersion) -> &'static str {
    match version {
        NfsVersion::V3 => "3",
        NfsVersion::V4_2 => "4.2",
    }
}

fn put_root(lines: &mut Lines, snapshot: &Snapshot, host: &Host, daemon: Ipv4Addr) {
    lines.put("root_type", "nfs");
    match &host.profile.root.source {
        RootSource::Embedded { name } => {
            let port = snapshot.inventory.server.nfs_port;
            let image = snapshot.roots.get(name);
            let export = image.map_or(name, |image| &image.export);
            lines.put("root_server", daemon);
            lines.put("root_path", format_args!("/roots/{export}"));
            lines.put("root_version", 3);
            lines.put(
                "root_options",
                format_args!(
                    "vers=3,{ROOT_OPTIONS},nolock,rsize=1048576,port={port},mountport={port},mountproto=tcp"
                ),
            );
            lines.put("root_image", image.map_or("", |image| &image.id));
        }
        RootSource::External {
            server,
            path,
            version: number,
        } => {
            lines.put("root_server", server);
            lines.put("root_path", path.display());
            lines.put("root_version", version(*number));
            let locks = if *number == NfsVersion::V3 {
                ",nolock"
            } else {
                ""
            };
            lines.put(
                "root_options",
                format_args!("vers={},{ROOT_OPTIONS}{locks}", version(*number)),
            );
            lines.put("root_image", "");
        }
    }
}

fn put_interfaces(lines: &mut Lines, host: &Host) {
    let profile = &host.profile;
    for (index, interface) in profile.interfaces.iter().enumerate() {
        let text = links::interface(host, interface);
        let key = format!("interface_{}", index + 1);
        lines.put(&key, format_args!("{} {text}", interface.name));
    }
    let network = profile.image_pool.as_ref();
    let network = network.and_then(|pool| pool.network.as_ref());
    let lnet = network.map_or(&profile.bridge.name, |name| &name.value);
    lines.put("lnet_networks", format_args!("tcp({lnet})"));
}

fn put_pool(lines: &mut Lines, pool: Option<&ImagePool>) {
    let Some(pool) = pool else {
        lines.put("pool_type", "none");
        return;
    };
    let (kind, source, number) = match &pool.kind {
        PoolKind::Lustre { source } => ("lustre", source.clone(), ""),
        PoolKind::Moosefs {
            master,
            port,
            subfolder,
        } => ("moosefs", format!("{master}:{port}:{subfolder}"), ""),
        PoolKind::Nfs {
            server,
            path,
            version: number,
        } => ("nfs", format!("{server}:{path}"), version(*number)),
    };
    lines.put("pool_type", kind);
    lines.put("pool_source", source);
    lines.put("pool_version", number);
    lines.put("pool_mount", pool.mount.display());
    lines.put("pool_options", pool.options.as_deref().unwrap_or(""));
    lines.put("pool_name", LIBVIRT_POOL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_covers_every_line_before_it() {
        let mut lines = Lines::default();
        lines.put("a", 1);
        let text = lines.finish();
        let (before, hash) = text.trim_end().rsplit_once("sha256=").unwrap();
        assert_eq!(before, "a=1\n");
        let expected: String = Sha256::digest(before)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hash, expected);
    }

    #[test]
    fn machine_ids_differ_by_host_and_stay() {
        let id = machine_id("lab", "kvm01").to_string();
        assert_eq!(id, machine_id("lab", "kvm01").to_string());
        assert_ne!(id, machine_id("lab", "kvm02").to_string());
        assert_eq!(id.len(), 32);
    }
}
