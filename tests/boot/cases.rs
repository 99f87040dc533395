//! The cases of initrd/test/network on the kernel of the hosts, which has bonds and VLANs: T8, and what the other rows
//! have too many variants of for a boot each (802.3ad with the kernel's own bond for a partner, bridges beside the
//! bridge).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::image::{build, program};
use super::lab::{Firmware, Result, ServerSpec, io_error, kernel_dir, repository};
use super::{data_dir, scenario};

/// Three dozen cases, two of which wait 50 s for a spanning tree.
const END: Duration = Duration::from_secs(900);
const FILES: [&str; 4] = ["network", "network-cases", "network-init", "network-stages"];

#[test]
#[ignore = "make test-boot"]
fn t08_every_network_case_passes_on_the_kernel_of_the_hosts() {
    scenario("cases", |lab, logs| {
        let kernel = kernel_dir(&data_dir())?;
        let image = image(lab.dir())?;
        let mut server = ServerSpec::new("cases", "52:54:00:00:00:77", Firmware::Bios)
            .memory_mib(512)
            .qemu_args(&["-smp", "2"])
            .boots_kernel(
                &kernel.join("vmlinuz"),
                &image,
                // A kernel that has bonds built in makes one that nobody asked for, as the module does.
                "console=ttyS0,115200 quiet panic=1 bonding.max_bonds=0 rdinit=/test/network-init",
            )
            .power_on(&lab, &logs)?;
        let end = server.wait_for("network: the end:", END)?;
        let said = server.serial().text();
        assert!(end.contains("all passed"), "{said}");
        let cases = include_str!("../../initrd/test/network-cases");
        let names = cases.lines().filter_map(|line| line.strip_suffix("() {"));
        for name in names.filter(|name| name.starts_with("case_")) {
            assert!(
                said.contains(&format!("ok      {name}\n")),
                "{name}: {said}"
            );
        }
        Ok(())
    });
}

/// The initrd with the cases in /test, and veth for the cables.
fn image(dir: &Path) -> Result<PathBuf> {
    let (tree, list, image) = (
        dir.join("tree"),
        dir.join("veth.list"),
        dir.join("cases.img"),
    );
    for name in FILES {
        let source = repository().join("initrd/test").join(name);
        let text = std::fs::read_to_string(&source).map_err(io_error("read", &source))?;
        program(&tree, &format!("test/{name}"), &text)?;
    }
    std::fs::write(&list, "veth\n").map_err(io_error("write", &list))?;
    let show = |path: &Path| path.display().to_string();
    build(
        &repository().join("initrd"),
        &image,
        &["--tree", &show(&tree), "--list", &show(&list)],
    )?;
    Ok(image)
}
