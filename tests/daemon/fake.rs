//! A data directory of small artificial files: complete for `check`, of no use to a real machine.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::lab::{Result, io_error};

pub(crate) const INVENTORY: &str = r#"
site: test
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    dns: [10.77.0.1]
    dhcp: server
    pool: 10.77.0.100-10.77.0.199
profiles:
  kvm-host:
    kernel: debian
    initrd: default
    bridge: {name: br0, mtu: 1500}
    root: {nfs: "/roots/kvm-host", overlay: 512M}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm-host}
  kvm02: {mac: "52:54:00:00:00:02", ip: 10.77.0.12, profile: kvm-host}
  kvm03: {mac: "52:54:00:00:00:03", ip: 10.77.0.13, profile: kvm-host}
unknown: {policy: hold}
"#;

/// The same with all that a network can be told of, and leases of the shortest kind.
pub(crate) fn telling() -> String {
    let pool = "    pool: 10.77.0.100-10.77.0.199\n";
    let told = "    lease_time: 10s
    ntp: [10.77.0.3, 10.77.0.4]
    domain: lab.example.org
    search: [lab.example.org, example.org]
    mtu: 1400
    routes: {10.88.0.0/16: 10.77.0.254, 192.0.2.7/32: 10.77.0.253}
";
    INVENTORY.replace(pool, &format!("{pool}{told}"))
}

/// A loader that TFTP clients fetch: more blocks than a 16-bit counter would show, were it larger;
/// not a multiple of any block size.
pub(crate) const LOADER: &str = "snponly.efi";

const LOADERS: [&str; 8] = [
    "undionly.kpxe",
    "ipxe.efi",
    "snponly.efi",
    "pxelinux.0",
    "ldlinux.c32",
    "shimx64.efi",
    "grubx64.efi",
    "grub-bios.pxe",
];

/// How large the files are, bytes.
pub(crate) struct Sizes {
    pub(crate) kernel: usize,
    pub(crate) initrd: usize,
    pub(crate) loader: fn(&str) -> usize,
}

/// Makes `DIR/data`.
pub(crate) fn data_dir(dir: &Path) -> Result<PathBuf> {
    let small = Sizes {
        kernel: 3_000_007,
        initrd: 900_001,
        loader: |_| 300_003,
    };
    sized_data_dir(dir, &small)
}

/// Makes `DIR/data` with files of certain sizes.
pub(crate) fn sized_data_dir(dir: &Path, sizes: &Sizes) -> Result<PathBuf> {
    let data = dir.join("data");
    let initrd = pattern(sizes.initrd, 3);
    let manifest = format!(
        "{{\"schema\":1,\"kernel_release\":\"6.1.0-test\",\"sha256\":\"{}\",\"modules\":[],\"files\":[]}}\n",
        hex(&Sha256::digest(&initrd))
    );
    put(
        &data.join("kernels/debian/vmlinuz"),
        &pattern(sizes.kernel, 2),
    )?;
    put(&data.join("kernels/debian/release"), b"6.1.0-test\n")?;
    put(&data.join("kernels/debian/modules/modules.dep"), b"")?;
    put(&data.join("kernels/debian/modules/modules.builtin"), b"")?;
    put(&data.join("initrds/default.img"), &initrd)?;
    put(&data.join("initrds/default.manifest"), manifest.as_bytes())?;
    for name in LOADERS {
        put(
            &data.join("loaders").join(name),
            &pattern((sizes.loader)(name), name.len()),
        )?;
    }
    put(&data.join("roots/kvm-host/sbin/init"), b"#!/bin/sh\n")?;
    put(&data.join("roots/kvm-host/etc/os-release"), b"ID=test\n")?;
    put(
        &data.join("roots/kvm-host/etc/bridgehead-image"),
        b"test-image\n",
    )?;
    Ok(data)
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    }
    fs::write(path, bytes).map_err(io_error("write", path))
}

/// Bytes that differ from block to block.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at.wrapping_mul(31) ^ (at >> 9) ^ seed).to_le_bytes()[0])
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
