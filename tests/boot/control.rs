//! T2, the control experiment: the same kernel, initrd and root, and the bridge built after the root is mounted, with
//! the root's own tool. The root hangs. With the bridge first, by the initrd's tool, it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::image::{append, program};
use super::lab::{Firmware, Result, ServerSpec, Site, VirtualServer, io_error, kernel_dir};
use super::{scenario, site};

const END: Duration = Duration::from_secs(240);

#[test]
fn t02_the_bridge_after_the_root_cuts_it_off() {
    scenario("control", |lab, logs| {
        let site = site(lab, &logs)?;
        let mut first = experiment(&site, "kvm01", "52:54:00:00:00:01", 11, "bridge-first")?;
        let mut after = experiment(&site, "kvm02", "52:54:00:00:00:02", 12, "bridge-after")?;
        for server in [&mut first, &mut after] {
            server.wait_for("control: end", END)?;
        }
        let said = |server: &VirtualServer, words: &str| {
            assert!(
                server.serial().find(words).is_some(),
                "no `{words}`\n{}",
                server.serial().tail(40)
            );
        };
        said(&first, "control: bridge first: the root answers");
        said(&after, "control: before the bridge: the root answers");
        said(&after, "control: eth0 is a port of br0");
        said(
            &after,
            "control: bridge after the root: the root does not answer",
        );
        said(&after, "nfs: server 10.77.0.1 not responding");
        assert!(after.serial().find("the address moved").is_none());
        Ok(())
    });
}

/// A server with the daemon's kernel and initrd, the control's PID 1 laid over it.
fn experiment(site: &Site, name: &str, mac: &str, host: u8, order: &str) -> Result<VirtualServer> {
    let data = &site.data;
    let initrd = with_init(&data.join("initrds/default.img"), site.lab.dir(), name)?;
    let root = fs::canonicalize(data.join("roots/kvm-host")).map_err(io_error("find", data))?;
    let export = root
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let cmdline = format!(
        "console=ttyS0,115200 panic=30 net.ifnames=0 rdinit=/control/init control={order} control.ip=10.77.0.{host}/24 \
         control.nfs=addr=10.77.0.1,port=2049,mountport=2049,mountproto=tcp control.root=10.77.0.1:/roots/{export}"
    );
    ServerSpec::new(name, mac, Firmware::Bios)
        .boots_kernel(&kernel_dir(data)?.join("vmlinuz"), &initrd, &cmdline)
        .power_on(&site.lab, &site.logs)
}

/// The initrd with one more archive after it, which holds control/init.
fn with_init(initrd: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let (tree, image) = (
        dir.join(format!("{name}.tree")),
        dir.join(format!("{name}.img")),
    );
    program(&tree, "control/init", include_str!("control/init"))?;
    append(initrd, &tree, &image)?;
    Ok(image)
}
