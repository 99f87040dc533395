//! `image_pool: {...}` of a profile or host.

use std::path::PathBuf;

use super::faults::Faults;
use super::fields::Fields;
use super::model::{Bridge, ImagePool, Interface, NfsVersion, PoolKind, Sourced};
use super::suggest::did_you_mean;
use super::tree::{At, Kind};
use super::{names, storage};
use crate::diagnostic::Diagnostic;

const DEFAULT_POOL_MOUNT: &str = "/var/lib/libvirt/images";

/// Reads the pool; `Some(None)`: the layer says `none`.
pub(super) fn read(
    fields: &mut Fields<'_, '_>,
    faults: &mut Faults,
) -> Option<Sourced<Option<ImagePool>>> {
    let layer = fields.layer().clone();
    let node = fields.node("image_pool")?;
    if matches!(&node.kind, Kind::Scalar(word) if word.text == "none") {
        let none = At {
            value: None,
            span: node.span,
        };
        return Some(faults.sourced(none, &layer));
    }
    let mut pool = fields.map("image_pool", faults)?;
    let kind = read_pool_kind(&mut pool, faults);
    let mount = pool.get("mount", faults, storage::mount_point);
    let options = pool.get("options", faults, storage::mount_options);
    let network = pool.get("network", faults, names::interface);
    refuse_network(&pool, network.as_ref(), faults);
    pool.finish(faults);
    let kind = kind?;
    let value = Some(ImagePool {
        kind: kind.value,
        mount: mount.map_or_else(|| PathBuf::from(DEFAULT_POOL_MOUNT), |at| at.value),
        network: network.map(|at| faults.sourced(at, &layer)),
        options: options.map(|at| at.value),
    });
    let span = kind.span;
    Some(faults.sourced(At { value, span }, &layer))
}

/// Exactly one of `lustre`, `moosefs` and `nfs`.
fn read_pool_kind(pool: &mut Fields<'_, '_>, faults: &mut Faults) -> Option<At<PoolKind>> {
    let lustre = pool.get("lustre", faults, storage::lustre);
    let moosefs = pool.get("moosefs", faults, storage::moosefs);
    let nfs = pool.get("nfs", faults, storage::pool_nfs);
    let version = pool.get("version", faults, storage::nfs_version);
    let kinds: Vec<_> = ["lustre", "moosefs", "nfs"]
        .into_iter()
        .filter_map(|kind| pool.key_span(kind))
        .collect();
    if let Some(span) = pool.key_span("version").filter(|_| !pool.has("nfs")) {
        let help = "remove `version`: it belongs to `nfs`";
        let message = "only an NFS pool has a `version`";
        faults.error("inventory::bad_version", span, message, "", help);
    }
    if let [_, second, ..] = kinds.as_slice() {
        let message = format!("{} names two file systems", pool.what());
        let help = "keep one of `lustre`, `moosefs` and `nfs`";
        faults.error("inventory::several_pools", *second, message, "", help);
        return None;
    }
    if kinds.is_empty() {
        let message = format!("{} names no file system", pool.what());
        let help = "add one of `lustre`, `moosefs` and `nfs`, or write `image_pool: none`";
        faults.error("inventory::missing_key", pool.place(), message, "", help);
    }
    let nfs = nfs.map(|at| At {
        span: at.span,
        value: PoolKind::Nfs {
            server: at.value.0,
            path: at.value.1,
            version: version.map_or(NfsVersion::V4_2, |at| at.value),
        },
    });
    lustre.or(moosefs).or(nfs)
}

/// Only LNet is told which interface to use; the others go where routes lead.
fn refuse_network(pool: &Fields<'_, '_>, network: Option<&At<String>>, faults: &mut Faults) {
    if let Some(at) = network.filter(|_| !pool.has("lustre")) {
        let message = "only a Lustre pool has a `network`";
        let help = "remove `network`: other pools are reached as routes and addresses say";
        faults.error("inventory::unknown_interface", at.span, message, "", help);
    }
}

/// LNet's interface must be one that there is.
pub(super) fn check_network(
    pool: &ImagePool,
    bridge: &Bridge,
    interfaces: &[Interface],
    faults: &mut Faults,
) {
    let Some(network) = &pool.network else { return };
    let names = std::iter::once(&bridge.name).chain(interfaces.iter().map(|at| &at.name));
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.contains(&network.value.as_str()) {
        return;
    }
    let message = format!(
        "the pool's network `{}` is no interface of the profile",
        network.value
    );
    let mut fault = Diagnostic::error("inventory::unknown_interface", message)
        .with_help(did_you_mean(&network.value, names));
    fault
        .labels
        .extend(faults.span_of(network).map(|span| faults.primary(span, "")));
    faults.once(fault);
}
