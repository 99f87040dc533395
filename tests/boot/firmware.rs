//! T1 and T17: each firmware and each loader, from power-on.

use std::path::PathBuf;
use std::time::Duration;

use super::lab::{
    self, Capture, Captured, Firmware, Ganesha, HostView, Moosefs, Result, ServerSpec, Site,
    VirtualServer, bridgehead, cross_read, data_dir, output, require, require_boot_files, until,
};
use super::{
    AGENT, INITRD_STAGES, INVENTORY, JOIN, SWITCH, check_console, said, scenario, site, site_of,
};

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

const UUID: &str = "b8945908-d6a6-41a9-611d-74a6ab80b83d";
/// The same to PXELINUX, which takes the first three fields of option 97 for little-endian.
const UUID_SWAPPED: &str = "085994b8-a6d6-a941-611d-74a6ab80b83d";

#[test]
fn pxelinux_and_grub_reach_the_switch() {
    scenario("loaders", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let capture = Capture::start(&site.lab, &logs, "wire", "udp dst port 69")?;
        let pxelinux = ServerSpec::new("kvm03", "52:54:00:00:00:03", Firmware::Bios);
        let pxelinux = pxelinux.qemu_args(&["-uuid", UUID]);
        let shim = ServerSpec::new("kvm04", "52:54:00:00:00:04", Firmware::UefiX64);
        let mut pxelinux = pxelinux.power_on(&site.lab, &logs)?;
        let mut shim = shim.power_on(&site.lab, &logs)?;
        let pass = |site: &mut Site, server: &mut VirtualServer, loader: &str| -> Result<()> {
            site.wait_stage(server, "switch", SWITCH)?;
            check_console(server);
            let name = server.spec().name();
            let said = said(site, name)?;
            assert!(
                said.contains(loader),
                "{name} went without {loader}:\n{said}"
            );
            assert!(!said.contains("refused"), "{said}");
            Ok(())
        };
        pass(&mut site, &mut pxelinux, "pxelinux.0")?;
        pxelinux.power_off()?;
        // GRUB's image for BIOS takes the place that became free.
        let grub = ServerSpec::new("kvm05", "52:54:00:00:00:05", Firmware::Bios);
        let mut grub = grub.power_on(&site.lab, &logs)?;
        pass(&mut site, &mut shim, "shimx64.efi")?;
        pass(&mut site, &mut grub, "grub-bios.pxe")?;
        check_config_names(&capture.stop()?)
    });
}

/// Each loader got its config by the first name that it asked for: PXELINUX by UUID, our GRUB by MAC (once to see
/// whether it is there), Debian's signed GRUB by the one that it knows.
fn check_config_names(wire: &Captured) -> Result<()> {
    for (client, first) in [
        ("10.77.0.13", &*format!("pxelinux.cfg/{UUID_SWAPPED}")),
        ("10.77.0.14", "/grub/grub.cfg"),
        ("10.77.0.15", "/grub/grub.cfg-01-52-54-00-00-00-05"),
    ] {
        let mut names = wire.tftp_names(client)?;
        names.retain(|name| name.contains(".cfg"));
        names.dedup();
        assert_eq!(names, [first], "{client}");
    }
    Ok(())
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
        // From its second question on iPXE says what it runs on.
        let state = site.lab.dir().join("state").display().to_string();
        let discover = |args: &[&str]| {
            let argv = [&[bridgehead(), "discover"], args, &["--state", &state]].concat();
            let done = output(&argv)?;
            Ok(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
        };
        let probe = || {
            Ok(discover(&["list"])?
                .contains("QEMU Standard PC")
                .then_some(()))
        };
        let seen = || discover(&["list"]).unwrap_or_default();
        until("its maker", Duration::from_secs(120), probe, seen)?;
        let approve =
            "approve 52:54:00:00:00:99 --name stranger --profile base --ip 10.77.0.20 --virtual";
        let approve: Vec<&str> = approve.split(' ').collect();
        let said = discover(&approve)?;
        assert!(said.contains("goes on by itself"), "{said}");
        site.wait_stage(&mut stranger, "kernel", Duration::from_secs(180))
            .map(|_| ())
    });
}

/// From power-on to the root without TFTP: EDK2 takes the loader's URL from option 67 and runs it.
#[test]
fn uefi_http_boot_goes_straight_to_the_loader() {
    scenario("http-boot", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let capture = Capture::start(&site.lab, &logs, "wire", "udp")?;
        let spec = ServerSpec::new("kvm02", "52:54:00:00:00:02", Firmware::UefiX64).http_boot();
        let mut server = spec.power_on(&site.lab, &logs)?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        check_no_trouble(&site, "kvm02")?;
        let said = said(&site, "kvm02")?;
        assert!(said.contains("loaders/snponly.efi by HTTP"), "{said}");
        let wire = capture.stop()?;
        assert_eq!(wire.packets("udp port 69")?, Vec::<String>::new());
        Ok(())
    });
}

/// Signed by keys that the firmware knows: shim, by shim GRUB, by GRUB Debian's kernel; iPXE is not.
#[test]
#[ignore = "make test-boot"]
fn secure_boot_takes_what_is_signed_and_refuses_ipxe() {
    scenario("secure-boot", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let signed = ServerSpec::new("kvm04", "52:54:00:00:00:04", Firmware::SecureX64);
        let unsigned = ServerSpec::new("kvm02", "52:54:00:00:00:02", Firmware::SecureX64);
        let mut signed = signed.power_on(&site.lab, &logs)?;
        let mut unsigned = unsigned.power_on(&site.lab, &logs)?;
        site.wait_stage(&mut signed, "switch", SWITCH)?;
        check_console(&signed);
        check_locked_down(&signed)?;
        check_no_trouble(&site, "kvm04")?;
        unsigned.wait_for("Access Denied", SWITCH)?;
        check_refused(&site, "kvm02")
    });
}

/// By HTTP shim comes, is let run and loads GRUB; Debian's signed GRUB can fetch nothing so, and stops at its prompt. So a
/// host is not sent it, unless its operator says that theirs can.
#[test]
#[ignore = "make test-boot"]
fn secure_http_boot_ends_at_grubs_prompt_and_is_not_begun() {
    scenario("secure-http", |lab, logs| {
        let own = "profile: by-grub, loaders: {uefi-x64: shimx64.efi}}";
        let inventory = INVENTORY.replace(
            "ip: 10.77.0.14, profile: by-grub}",
            &format!("ip: 10.77.0.14, {own}"),
        );
        let site = site_of(lab, &logs, &inventory)?;
        let _wire = Capture::start(&site.lab, &logs, "wire", "tcp port 80 or udp")?;
        let named = ServerSpec::new("kvm04", "52:54:00:00:00:04", Firmware::SecureX64);
        let mut named = named.http_boot().power_on(&site.lab, &logs)?;
        let refused = ServerSpec::new("kvm05", "52:54:00:00:00:05", Firmware::SecureX64);
        let mut refused = refused.http_boot().power_on(&site.lab, &logs)?;
        named.wait_for("grub>", SWITCH)?;
        let told = said(&site, "kvm04")?;
        assert!(told.contains("loaders/grubx64.efi by HTTP"), "{told}");
        check_not_begun(&site, &mut refused)
    });
}

fn check_not_begun(site: &Site, server: &mut VirtualServer) -> Result<()> {
    let why = "the GRUB behind shimx64.efi has no module for that";
    let told = || said(site, "kvm05").unwrap_or_default();
    lab::until(
        "kvm05 to be refused",
        SWITCH,
        || {
            server.check_alive()?;
            Ok(told().contains(why).then_some(()))
        },
        told,
    )?;
    assert!(!told().contains("offered"), "{}", told());
    Ok(())
}

/// The kernel saw Secure Boot on, and so does whoever looks from inside.
fn check_locked_down(server: &VirtualServer) -> Result<()> {
    let text = server.serial().text();
    for line in [
        "secureboot: Secure boot enabled",
        "Kernel is locked down from EFI Secure Boot",
    ] {
        assert!(
            text.contains(line),
            "no `{line}`\n{}",
            server.serial().tail(60)
        );
    }
    let mut agent = server.agent(AGENT)?;
    let variable = agent.ask("od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-*")?;
    assert_eq!(variable.trim(), "1");
    let lockdown = agent.ask("cat /sys/kernel/security/lockdown")?;
    assert!(lockdown.contains("[integrity]"), "{lockdown}");
    Ok(())
}

/// Nothing in the host's log that would send its operator looking.
fn check_no_trouble(site: &Site, name: &str) -> Result<()> {
    let said = said(site, name)?;
    for word in ["retry", "fail", "ignored"] {
        let line = said.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "{said}");
    }
    Ok(())
}

/// The loader was delivered, never ran, and the daemon names what it may be.
fn check_refused(site: &Site, name: &str) -> Result<()> {
    let what = format!("{name} to be stalled");
    lab::until(
        &what,
        SWITCH,
        || {
            let status = site.daemon.status()?;
            let host = status.host(name).expect("the host is listed");
            assert!(host.stage("script").is_none(), "{:?}", host.stages);
            let stalled = host.state.as_deref() == Some("stalled");
            let note = host.note.as_deref().unwrap_or_default();
            Ok((stalled && note.contains("Secure Boot")).then_some(()))
        },
        || said(site, name).unwrap_or_default(),
    )
}

/// A host of another architecture than the appliance.
pub(super) const ARM64: &str = r#"
site: lab
networks:
  boot: {subnet: 10.77.0.0/24, router: 10.77.0.1, dhcp: server, pool: 10.77.0.100-10.77.0.199}
profiles:
  arm:
    kernel: debian-arm64
    initrd: arm64
    loader: grub
    cmdline: ["console=ttyAMA0,115200"]
    bridge: {name: br0, mtu: 1500}
    root: {nfs: "/roots/kvm-host", overlay: 512M}
hosts:
  arm01: {mac: "52:54:00:00:00:21", ip: 10.77.0.21, profile: arm}
"#;

/// Where kernel and initrd for it are.
pub(super) fn arm64_data() -> Result<PathBuf> {
    let data = data_dir();
    require_boot_files(&data)?;
    let initrd = "packages-arm64 kernel initrd KERNEL=debian-arm64 INITRD=arm64";
    require(
        &data,
        &[
            ("kernels/debian-arm64", initrd),
            ("initrds/arm64.img", initrd),
        ],
    )?;
    Ok(data)
}

/// Up to where the root's programs would have to run: the only root here is of x86.
#[test]
#[ignore = "make test-boot"]
fn an_arm64_server_builds_its_bridge_and_mounts_its_root() {
    scenario("arm64", |lab, logs| {
        let data = arm64_data()?;
        let mut site = Site::start(lab, ARM64, &data, &logs)?;
        let capture = Capture::start(&site.lab, &logs, "wire", "udp")?;
        let spec = ServerSpec::new("arm01", "52:54:00:00:00:21", Firmware::UefiArm64);
        let mut server = spec.power_on(&site.lab, &logs)?;
        for stage in ["bridge", "root", "verify"] {
            site.wait_stage(&mut server, stage, SWITCH)?;
        }
        let said = said(&site, "arm01")?;
        for loader in ["shimaa64.efi by TFTP, ", "grubaa64.efi by TFTP, "] {
            assert!(said.contains(loader), "no {loader}:\n{said}");
        }
        capture.stop().map(|_| ())
    });
}

/// What boots through the driver of another ROM (UNDI), and what brings drivers of its own.
#[test]
#[ignore = "make test-boot"]
fn undionly_and_ipxe_efi_take_over_from_the_rom() {
    scenario("ipxe", |lab, logs| {
        let own = "profile: kvm-host, loaders: {uefi-x64: ipxe.efi}}";
        let inventory = INVENTORY.replace(
            "ip: 10.77.0.12, profile: kvm-host}",
            &format!("ip: 10.77.0.12, {own}"),
        );
        let mut site = site_of(lab, &logs, &inventory)?;
        let capture = Capture::start(&site.lab, &logs, "wire", "udp or icmp6")?;
        let undi = ServerSpec::new("kvm01", "52:54:00:00:00:01", Firmware::Bios);
        let own = ServerSpec::new("kvm02", "52:54:00:00:00:02", Firmware::UefiX64);
        let mut undi = undi.power_on(&site.lab, &logs)?;
        chain_undionly(&mut undi)?;
        let mut own = own.power_on(&site.lab, &logs)?;
        for (server, loader) in [(&mut undi, "undionly.kpxe"), (&mut own, "ipxe.efi")] {
            // Its first word comes by the network: kernel and initrd were whole.
            site.wait_stage(server, "bridge", SWITCH)?;
            let said = said(&site, server.spec().name())?;
            assert!(said.contains(&format!("{loader} by TFTP, ")), "{said}");
        }
        let wire = capture.stop()?;
        wire.check_ipxe_asks_once(3)?;
        for iface in ["fe80::5054:ff:fe00:1", "fe80::5054:ff:fe00:2"] {
            let told = format!("icmp6[0] = 134 and src fe80::5efe:a4d:1 and dst {iface}");
            assert!(
                !wire.packets(&told)?.is_empty(),
                "{iface} was left waiting for a router"
            );
        }
        Ok(())
    });
}

/// QEMU's ROM is an iPXE, which is never sent another: by hand it chains one, as any PXE ROM would by itself.
fn chain_undionly(server: &mut VirtualServer) -> Result<()> {
    server.wait_for("Press Ctrl-B for the iPXE command line", SWITCH)?;
    server.type_slowly("\u{2}")?;
    server.wait_for("iPXE>", SWITCH)?;
    server.type_slowly("dhcp")?;
    server.wait_for("... ok", SWITCH)?;
    server.type_slowly("chain tftp://10.77.0.1/undionly.kpxe")
}
