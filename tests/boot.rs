//! Boots of virtual bare servers with real firmware, from power-on to where each must come.
//!
//! At most two servers run at once: two cores emulate them. `make test` runs this; it needs root
//! (network namespaces, tap devices) and what `make kernel initrd root loaders` build.
#![allow(missing_docs)]

mod lab;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lab::{
    Firmware, Ganesha, HostView, Lab, Moosefs, Result, ServerSpec, Site, VirtualServer, cross_read,
    data_dir, hand_over, repository, require,
};

/// From power-on to *joined*; a boot takes some two minutes where two share two slow cores.
const JOIN: Duration = Duration::from_secs(480);
/// From power-on to the end of the initrd.
const SWITCH: Duration = Duration::from_secs(300);
const AGENT: Duration = Duration::from_secs(60);

const INITRD_STAGES: [&str; 13] = [
    "early",
    "drivers",
    "nic",
    "link",
    "bridge",
    "address",
    "config",
    "identity",
    "storage-net",
    "root",
    "overlay",
    "verify",
    "switch",
];

const INVENTORY: &str = r#"
site: lab
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    dns: [10.77.0.1]
    dhcp: server
    pool: 10.77.0.100-10.77.0.199
profiles:
  base:
    kernel: debian
    initrd: default
    cmdline: [console=tty0, "console=ttyS0,115200"]
    bridge: {name: br0, mtu: 1500}
    root: {nfs: "/roots/kvm-host", overlay: 512M}
  kvm-host:
    extends: base
    image_pool: {moosefs: "10.77.0.5", mount: /var/lib/libvirt/images}
  by-pxelinux: {extends: base, loader: pxelinux}
  by-grub: {extends: base, loader: grub}
  from-nfs-server:
    extends: base
    root: {nfs: "10.77.0.5:/srv/roots/kvm-host", version: 4.2}
    image_pool: {nfs: "10.77.0.5:/srv/images", mount: /var/lib/libvirt/images}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm-host}
  kvm02: {mac: "52:54:00:00:00:02", ip: 10.77.0.12, profile: kvm-host}
  kvm03: {mac: "52:54:00:00:00:03", ip: 10.77.0.13, profile: by-pxelinux}
  kvm04: {mac: "52:54:00:00:00:04", ip: 10.77.0.14, profile: by-grub}
  kvm05: {mac: "52:54:00:00:00:05", ip: 10.77.0.15, profile: by-grub}
  kvm06: {mac: "52:54:00:00:00:06", ip: 10.77.0.16, profile: from-nfs-server}
unknown: {policy: hold}
"#;

/// One scenario at a time, whatever `--test-threads` says.
static MACHINE: Mutex<()> = Mutex::new(());

/// Runs a scenario in a lab of its own; says so and passes where there is no root.
fn scenario(name: &str, story: impl FnOnce(Lab, PathBuf) -> Result<()>) {
    let _turn = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = Lab::for_test(name) else {
        return;
    };
    let logs = repository().join("build/test").join(name);
    let end = story(lab, logs.clone());
    if let Err(error) = end.and(hand_over(&logs)) {
        panic!("{error}");
    }
}

fn site(lab: Lab, logs: &std::path::Path) -> Result<Site> {
    let data = data_dir();
    let artefacts = [
        ("kernels/debian/vmlinuz", "kernel"),
        ("initrds/default.img", "initrd"),
        ("roots/kvm-host", "root"),
        ("loaders/snponly.efi", "loaders"),
    ];
    require(&data, &artefacts)?;
    Site::start(lab, INVENTORY, &data, logs)
}

#[test]
fn bios_and_uefi_go_by_ipxe_to_joined() {
    scenario("joined", |lab, logs| {
        let _pool = Moosefs::start(&lab, &logs.join("moosefs"), &logs)?;
        let mut site = site(lab, &logs)?;
        let bios = ServerSpec::new("kvm01", "52:54:00:00:00:01", Firmware::Bios);
        let uefi = ServerSpec::new("kvm02", "52:54:00:00:00:02", Firmware::UefiX64);
        let mut bios = bios.power_on(&site.lab, &logs)?;
        let mut uefi = uefi.power_on(&site.lab, &logs)?;
        for server in [&mut bios, &mut uefi] {
            site.wait_stage(server, "joined", JOIN)?;
            check_console(server);
            check_ladder(&site, server.spec().name())?;
        }
        check_from_inside(&bios, &uefi)
    });
}

/// Every stage of the initrd said `ok` (or had nothing to do), the bridge before the address
/// before the root: the order is the point.
fn check_console(server: &VirtualServer) {
    let text = server.serial().text();
    let mut last = 0;
    for stage in INITRD_STAGES {
        let line = text.lines().position(|line| is_passed(line, stage));
        let line = line.unwrap_or_else(|| panic!("no `{stage} ok`\n{}", server.serial().tail(60)));
        assert!(
            line >= last,
            "{stage} came too early\n{}",
            server.serial().tail(60)
        );
        last = line;
    }
}

/// `bridgehead: [    4.31] address     ok    …`
fn is_passed(line: &str, stage: &str) -> bool {
    let words = line
        .split_once("bridgehead: [")
        .and_then(|(_, rest)| rest.split_once(']'));
    let mut words = words.map_or("", |(_, words)| words).split_whitespace();
    words.next() == Some(stage) && matches!(words.next(), Some("ok" | "info"))
}

/// The daemon saw the whole ladder, from the firmware's DHCP to the host's own report.
fn check_ladder(site: &Site, name: &str) -> Result<()> {
    let status = site.daemon.status()?;
    let host = status.host(name).expect("the host is listed");
    let by_us = ["dhcp", "script", "kernel", "initrd"];
    // Where there is no storage network the stage has nothing to do, and is not in the ladder.
    let by_host = INITRD_STAGES
        .iter()
        .filter(|stage| **stage != "storage-net");
    for stage in by_us
        .iter()
        .chain(by_host)
        .chain(&["online", "pool", "joined"])
    {
        assert!(
            host.stage(stage).is_some(),
            "{name} has no {stage}: {:?}",
            host.stages
        );
    }
    Ok(())
}

fn check_from_inside(bios: &VirtualServer, uefi: &VirtualServer) -> Result<()> {
    let (mut one, mut two) = (bios.agent(AGENT)?, uefi.agent(AGENT)?);
    for (agent, name, address) in [
        (&mut one, "kvm01", "10.77.0.11/24"),
        (&mut two, "kvm02", "10.77.0.12/24"),
    ] {
        let view = HostView::of(agent)?;
        assert_eq!(view.hostname, name);
        assert!(view.bridge.contains(address), "{}", view.bridge);
        assert_eq!(
            view.bridge.matches("10.77.0.").count(),
            1,
            "{}",
            view.bridge
        );
        assert!(view.root.contains("overlay"), "{}", view.root);
        assert!(view.pool.contains("mfs#10.77.0.5"), "{}", view.pool);
        assert!(view.pool.contains("active"), "{}", view.pool);
        // `-cpu max` emulates SVM: kvm_amd must have found it.
        assert!(view.kvm.contains("/dev/kvm"), "{}", view.kvm);
    }
    let machine_id = "cat /etc/machine-id";
    assert_ne!(one.ask(machine_id)?, two.ask(machine_id)?);
    cross_read(&mut one, &mut two)?;
    cross_read(&mut two, &mut one)?;
    Ok(())
}

/// Production: the daemon boots the host, and another server has its root and its images.
#[test]
fn root_and_pool_of_another_nfs_server() {
    scenario("nfs", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let root = site.data.join("roots/kvm-host");
        let nfs = Ganesha::start(&site.lab, &root, &logs.join("ganesha"), &logs)?;
        let server = ServerSpec::new("kvm06", "52:54:00:00:00:06", Firmware::Bios);
        let mut server = server.power_on(&site.lab, &logs)?;
        site.wait_stage(&mut server, "joined", JOIN)?;
        check_console(&server);
        check_ladder(&site, "kvm06")?;
        check_said(&site, "root", "10.77.0.5:/srv/roots/kvm-host, NFS 4.2,")?;
        check_said(&site, "pool", "nfs 10.77.0.5:/srv/images on ")?;
        check_said(&site, "joined", "overlay over nfs 10.77.0.5:")?;
        check_nfs_from_inside(&server, &nfs)
    });
}

/// kvm06 reported `stage` as `ok`, with these words.
fn check_said(site: &Site, stage: &str, words: &str) -> Result<()> {
    let status = site.daemon.status()?;
    let said = status.host("kvm06").and_then(|host| host.stage(stage));
    let said = said.unwrap_or_else(|| panic!("kvm06 has no {stage}"));
    assert_eq!(said.state.as_deref(), Some("ok"), "{said:?}");
    let message = said.message.as_deref().unwrap_or_default();
    assert!(message.contains(words), "no `{words}` in {said:?}");
    Ok(())
}

/// Both mounts are the other server's, and what root writes there is root's.
fn check_nfs_from_inside(server: &VirtualServer, nfs: &Ganesha) -> Result<()> {
    let mut agent = server.agent(AGENT)?;
    let view = HostView::of(&mut agent)?;
    // 10.77.0.5 as /proc/fs/nfsfs/volumes writes it.
    assert!(view.root.contains("v4 0a4d0005"), "{}", view.root);
    assert!(!view.root.contains("0a4d0001"), "{}", view.root);
    assert!(view.pool.contains("nfs4"), "{}", view.pool);
    assert!(view.pool.contains("active"), "{}", view.pool);
    let image = "/var/lib/libvirt/images/image";
    let owner = agent.ask(&format!(
        "echo of kvm06 > {image} && sync && stat -c %u:%g {image}"
    ))?;
    assert_eq!(owner, "0:0");
    let stored = std::fs::read_to_string(nfs.pool().join("image"));
    assert_eq!(stored.ok().as_deref(), Some("of kvm06\n"));
    Ok(())
}

#[test]
fn pxelinux_and_grub_reach_the_switch() {
    scenario("loaders", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let pxelinux = ServerSpec::new("kvm03", "52:54:00:00:00:03", Firmware::Bios);
        let shim = ServerSpec::new("kvm04", "52:54:00:00:00:04", Firmware::UefiX64);
        let mut pxelinux = pxelinux.power_on(&site.lab, &logs)?;
        let mut shim = shim.power_on(&site.lab, &logs)?;
        let pass = |site: &mut Site, server: &mut VirtualServer, loader: &str| -> Result<()> {
            site.wait_stage(server, "switch", SWITCH)?;
            check_console(server);
            let name = server.spec().name();
            let said = site.daemon.verb("log", &[name])?.stdout;
            let said = String::from_utf8_lossy(&said);
            assert!(
                said.contains(loader),
                "{name} went without {loader}:\n{said}"
            );
            Ok(())
        };
        pass(&mut site, &mut pxelinux, "pxelinux.0")?;
        pxelinux.power_off()?;
        // GRUB's image for BIOS takes the place that became free.
        let grub = ServerSpec::new("kvm05", "52:54:00:00:00:05", Firmware::Bios);
        let mut grub = grub.power_on(&site.lab, &logs)?;
        pass(&mut site, &mut shim, "shimx64.efi")?;
        pass(&mut site, &mut grub, "grub-bios.pxe")
    });
}

#[test]
fn a_machine_that_is_not_listed_is_held_and_goes_on_once_it_is() {
    scenario("unknown", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let mac = "52:54:00:00:00:99";
        let stranger = ServerSpec::new("stranger", mac, Firmware::Bios);
        let mut stranger = stranger.power_on(&site.lab, &logs)?;
        stranger.wait_for("this machine is not listed", Duration::from_secs(120))?;
        let status = site.daemon.status()?;
        let shown = status
            .unknown
            .iter()
            .any(|machine| machine.to_string().contains(mac));
        assert!(shown, "{mac} is not shown: {:?}", status.unknown);
        let listed =
            format!("hosts:\n  stranger: {{mac: \"{mac}\", ip: 10.77.0.20, profile: base}}\n");
        site.edit(&INVENTORY.replace("hosts:\n", &listed))?;
        site.wait_stage(&mut stranger, "kernel", Duration::from_secs(180))
            .map(|_| ())
    });
}
