//! A site of small artificial files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::leases::Journal;
use crate::site::{Paths, Site, Snapshot};
use crate::timeline::Timeline;

const INVENTORY: &str = r#"
site: test
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    pool: 10.77.0.100-10.77.0.199
profiles:
  base: {cmdline: [console=ttyS0]}
  kvm: {extends: base, kernel: debian, initrd: default, root: {nfs: "/roots/kvm"}}
  signed: {extends: kvm, loader: grub, root: {nfs: "10.77.0.5:/srv/kvm"}, cmdline: [quiet]}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm}
  kvm02: {mac: "52:54:00:00:00:02", ip: 10.77.0.12, profile: signed}
"#;

/// A whole site on it, with its state below `dir`.
pub(crate) fn site(dir: &Path) -> Site {
    let state = dir.join("state");
    fs::create_dir_all(&state).unwrap();
    let (journal, timeline) = (
        Journal::open(&state).unwrap(),
        Timeline::open(&state).unwrap(),
    );
    Site::new(snapshot(dir), journal, timeline, Arc::default())
}

/// Everything that `serve` would read.
pub(crate) fn snapshot(dir: &Path) -> Snapshot {
    let data = dir.join("data");
    let hash: String = Sha256::digest(b"initrd")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let manifest = format!(
        r#"{{"schema":1,"kernel_release":"6.1.0-test","sha256":"{hash}","modules":[],"files":[]}}"#
    );
    for (path, bytes) in [
        ("kernels/debian/vmlinuz", "kernel"),
        ("kernels/debian/release", "6.1.0-test\n"),
        ("kernels/debian/modules/modules.dep", ""),
        ("kernels/debian/modules/modules.builtin", ""),
        ("initrds/default.img", "initrd"),
        ("initrds/default.manifest", &manifest),
        ("loaders/undionly.kpxe", "undionly"),
        ("loaders/snponly.efi", "snponly"),
        ("loaders/shimx64.efi", "shim"),
        ("loaders/grubx64.efi", "grub"),
        ("loaders/grub-bios.pxe", "grub"),
        ("roots/kvm/sbin/init", "#!/bin/sh\n"),
        ("roots/kvm/etc/os-release", "ID=test\n"),
        ("roots/kvm/etc/bridgehead-image", "test-image\n"),
    ] {
        let path = data.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    fs::write(dir.join("hosts.yaml"), INVENTORY).unwrap();
    load(dir, None)
}

/// The same after `old` became `new` in its inventory.
pub(crate) fn edited(dir: &Path, served: &Snapshot, old: &str, new: &str) -> Snapshot {
    let inventory = dir.join("hosts.yaml");
    let text = fs::read_to_string(&inventory).unwrap();
    assert!(text.contains(old), "{old} is not in:\n{text}");
    fs::write(&inventory, text.replace(old, new)).unwrap();
    load(dir, Some(served))
}

fn load(dir: &Path, served: Option<&Snapshot>) -> Snapshot {
    let paths = Paths {
        inventory: dir.join("hosts.yaml"),
        data: dir.join("data"),
        templates: None,
    };
    let loaded = Snapshot::load(&paths, served).map_err(|found| found.to_string());
    loaded.unwrap().0
}
