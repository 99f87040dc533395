//! The initrd builder against the system's own tools: cpio, BusyBox, and a real kernel's modules.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use bridgehead::initrd::{BuildSpec, Built, build, list};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

/// A relocatable x86-64 ELF with `.modinfo` and `.shstrtab`.
fn module(entries: &[&str]) -> Vec<u8> {
    let modinfo: Vec<u8> = entries
        .iter()
        .flat_map(|entry| format!("{entry}\0").into_bytes())
        .collect();
    let names = b"\0.modinfo\0.shstrtab\0";
    let names_at = 64 + modinfo.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0".to_vec();
    for number in [0, 0, names_at + names.len() as u64] {
        elf.extend(u64::to_le_bytes(number));
    }
    elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    elf.extend(&modinfo);
    elf.extend(names);
    elf.extend([0; 64]);
    let sections = [
        (1u32, 64, modinfo.len() as u64),
        (10, names_at, names.len() as u64),
    ];
    for (name, offset, size) in sections {
        elf.extend(name.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        for number in [0, 0, offset, size, 0, 1, 0] {
            elf.extend(u64::to_le_bytes(number));
        }
    }
    elf
}

fn write(dir: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A made-up kernel for the release of the machine that runs the test, so that BusyBox's
/// modprobe, which asks uname, finds its indexes.
fn lay_out(dir: &Path) {
    let uname = Command::new("uname").arg("-r").output().unwrap();
    let release = String::from_utf8(uname.stdout).unwrap();
    write(dir, "kernel/release", &release);
    write(
        dir,
        "kernel/modules/modules.builtin",
        "kernel/net/packet/af_packet.ko\n",
    );
    write(
        dir,
        "kernel/modules/modules.dep",
        "kernel/net/phy/bh-phy.ko:\nkernel/net/bh-nic.ko: kernel/net/phy/bh-phy.ko\nkernel/net/bh-realtek.ko:\n",
    );
    write(
        dir,
        "kernel/modules/modules.softdep",
        "softdep bh_nic pre: bh_realtek\n",
    );
    write(
        dir,
        "kernel/modules/kernel/net/phy/bh-phy.ko",
        module(&["license=GPL"]),
    );
    write(
        dir,
        "kernel/modules/kernel/net/bh-realtek.ko",
        module(&["license=GPL"]),
    );
    let nic = module(&[
        "license=GPL",
        "firmware=bh/nic.fw",
        "alias=pci:v0000BEEFd*sv*sd*bc*sc*i*",
    ]);
    write(dir, "kernel/modules/kernel/net/bh-nic.ko", nic);
    write(dir, "kernel/firmware/bh/nic.fw", "firmware");
    write(dir, "initrd/modules.list", "bh_nic\naf_packet\n");
    write(dir, "initrd/tree/init", "#!/bin/sh\n");
    write(dir, "initrd/tree/stages/net.sh", "true\n");
    fs::set_permissions(
        dir.join("initrd/tree/init"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
}

fn spec(dir: &Path) -> BuildSpec {
    let mut spec = BuildSpec::new(
        &dir.join("kernel"),
        &dir.join("initrd"),
        &dir.join("default.img"),
    );
    spec.busybox = BUSYBOX.into();
    spec.level = 3;
    spec
}

fn built() -> (TempDir, Built) {
    let dir = TempDir::new().unwrap();
    lay_out(dir.path());
    let built = build(&spec(dir.path())).unwrap();
    (dir, built)
}

/// The archives of an image, unpacked.
fn archives(image: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(image).unwrap();
    let members = list(image).unwrap().members;
    let parts = members.iter().map(|part| {
        let start = part.offset as usize;
        &bytes[start..start + part.size as usize]
    });
    parts.map(|part| zstd::decode_all(part).unwrap()).collect()
}

/// Feeds `archive` to the system's cpio.
fn cpio(args: &[&str], dir: &Path, archive: &[u8]) -> String {
    let mut child = Command::new("cpio")
        .args(args)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run cpio (Debian: package cpio)");
    let mut stdin = child.stdin.take().unwrap();
    let archive = archive.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&archive));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cpio {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn unpack(image: &Path, into: &Path) {
    for archive in archives(image) {
        cpio(
            &["-idmu", "--quiet", "--no-absolute-filenames"],
            into,
            &archive,
        );
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn the_systems_cpio_lists_what_we_list() {
    let (dir, _) = built();
    let image = dir.path().join("default.img");
    let listing = list(&image).unwrap();
    for (member, archive) in archives(&image).iter().enumerate() {
        assert_eq!(archive.len() % 512, 0);
        let theirs = cpio(&["-t", "--quiet"], dir.path(), archive);
        let theirs: Vec<&str> = theirs.lines().collect();
        let ours: Vec<&str> = listing
            .files
            .iter()
            .filter(|file| file.member == member)
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(theirs, ours);
        let long = cpio(
            &["-tv", "--quiet", "--numeric-uid-gid"],
            dir.path(),
            archive,
        );
        assert!(
            long.lines().all(|line| line.contains(" 0        0 ")),
            "{long}"
        );
    }
}

#[test]
fn the_systems_cpio_unpacks_it_and_busybox_finds_its_way() {
    if !is_root() {
        eprintln!("SKIPPED: device nodes and chroot need root");
        return;
    }
    let (dir, built) = built();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    unpack(&dir.path().join("default.img"), &root);
    for file in &built.manifest.files {
        let metadata = fs::symlink_metadata(root.join(&file.path)).unwrap();
        assert_eq!(
            format!("{:o}", metadata.permissions().mode()),
            file.mode,
            "{}",
            file.path
        );
    }
    assert_eq!(
        fs::read(root.join("lib/firmware/bh/nic.fw")).unwrap(),
        b"firmware"
    );
    let chroot = |args: &[&str]| {
        let output = Command::new("chroot")
            .arg(&root)
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The order that it would load in: the soft dependency and the hard one, then the driver.
    let order = chroot(&[
        "/sbin/modprobe",
        "-D",
        "pci:v0000BEEFd00000001sv0sd0bc02sc00i00",
    ]);
    let order: Vec<&str> = order
        .lines()
        .filter_map(|line| line.trim().rsplit('/').next())
        .collect();
    assert_eq!(order, ["bh-phy.ko", "bh-realtek.ko", "bh-nic.ko"]);
    chroot(&[
        "/bin/sh",
        "-c",
        "test -c /dev/console && test -c /dev/null && ls / >/dev/null",
    ]);
    // What the kernel has built in is no error.
    chroot(&["/sbin/modprobe", "af_packet"]);
}

#[test]
fn busyboxs_own_applet_list_is_used() {
    let (_dir, built) = built();
    assert_eq!(built.warnings, []);
    let output = Command::new(BUSYBOX).arg("--list-full").output().unwrap();
    let applets = String::from_utf8(output.stdout).unwrap();
    for applet in applets.lines() {
        let known = built.manifest.files.iter().any(|file| file.path == applet);
        assert!(known, "{applet}");
    }
}

#[test]
fn another_directory_umask_and_mtime_give_the_same_image() {
    let (_one, first) = built();
    let dir = TempDir::new().unwrap();
    let deep = dir.path().join("some/where/else");
    fs::create_dir_all(&deep).unwrap();
    lay_out(&deep);
    for (path, mode) in [
        ("initrd/tree/init", 0o775),
        ("initrd/tree/stages/net.sh", 0o660),
    ] {
        fs::set_permissions(deep.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    if is_root() {
        nix::unistd::chown(
            &deep.join("initrd/tree/stages/net.sh"),
            Some(4711.into()),
            Some(4711.into()),
        )
        .unwrap();
    }
    let second = build(&spec(&deep)).unwrap();
    assert_eq!(first.sha256, second.sha256);
    assert_eq!(first.manifest, second.manifest);
}

/// `BRIDGEHEAD_TEST_KERNEL`, else the demo's own kernel.
fn real_kernel() -> Option<PathBuf> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/kernels/debian");
    let named = std::env::var_os("BRIDGEHEAD_TEST_KERNEL").map(PathBuf::from);
    named
        .or(Some(demo))
        .filter(|dir| dir.join("release").is_file())
}

#[test]
fn the_default_list_fits_the_budget_with_a_real_kernel() {
    let Some(kernel) = real_kernel() else {
        eprintln!(
            "SKIPPED: no build/kernels/debian; `make kernel` makes it, BRIDGEHEAD_TEST_KERNEL names another"
        );
        return;
    };
    let dir = TempDir::new().unwrap();
    lay_out(dir.path());
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("initrd/modules.list");
    fs::copy(list, dir.path().join("initrd/modules.list")).unwrap();
    let mut spec = spec(dir.path());
    spec.kernel_dir = kernel;
    spec.level = 19;
    let start = Instant::now();
    let built = build(&spec).unwrap();
    let (fresh, again) = (start.elapsed(), Instant::now());
    assert!(build(&spec).unwrap().up_to_date);
    let unchanged = again.elapsed();
    let again = Instant::now();
    write(dir.path(), "initrd/tree/stages/net.sh", "false\n");
    assert!(!build(&spec).unwrap().up_to_date);
    eprintln!(
        "{} modules, {} firmware files, {} bytes unpacked, {} bytes; built in {fresh:?}, unchanged {unchanged:?}, one script edited {:?}",
        built.manifest.modules.len(),
        built.manifest.firmware.len(),
        built.manifest.unpacked_size,
        built.bytes,
        again.elapsed()
    );
    for warning in &built.warnings {
        eprintln!("warning: {warning}");
    }
    assert!(built.bytes <= 8 << 20, "{} bytes", built.bytes);
    let has = |name: &str| {
        built
            .manifest
            .modules
            .iter()
            .any(|module| module.name == name)
    };
    // What only softdep and the list's rules know of.
    assert!(has("realtek") || built.manifest.builtin.iter().any(|name| name == "r8169"));
    assert!(
        has("virtio_pci")
            || built
                .manifest
                .builtin
                .iter()
                .any(|name| name == "virtio_net")
    );
}

/// Runs the command line; its output and what it said.
fn bridgehead(dir: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bridgehead"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

const BUILD: [&str; 8] = [
    "initrd",
    "build",
    "--kernel",
    "kernel",
    "--out",
    "default.img",
    "--level",
    "3",
];

const INVENTORY: &str = r#"
networks: {boot: {subnet: 10.77.0.0/24}}
profiles:
  base: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}, pci: ["beef:0001"]}
  other: {extends: base, initrd: other, pci: ["8086:1572"]}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: base, pci: ["8086:1572"]}
  kvm02: {mac: "52:54:00:00:00:02", ip: 10.77.0.12, profile: base}
  kvm03: {mac: "52:54:00:00:00:03", ip: 10.77.0.13, profile: other}
"#;

#[test]
fn the_inventorys_nics_are_held_against_the_image() {
    let dir = TempDir::new().unwrap();
    lay_out(dir.path());
    let aliases = "alias pci:v0000BEEFd*sv*sd*bc*sc*i* bh_nic\nalias pci:v00008086d00001572sv*sd*bc*sc*i* bh_phy\n";
    write(dir.path(), "kernel/modules/modules.alias", aliases);
    write(dir.path(), "hosts.yaml", INVENTORY);
    let args = [BUILD.as_slice(), &["--inventory", "hosts.yaml"]].concat();
    // bh_phy came along as a dependency: all is driven.
    let (ok, _, said) = bridgehead(dir.path(), &args);
    assert_eq!((ok, said.as_str()), (true, ""));
    let aliases = aliases.replace("bh_phy", "bh_other");
    write(dir.path(), "kernel/modules/modules.alias", aliases);
    let dep = fs::read_to_string(dir.path().join("kernel/modules/modules.dep")).unwrap();
    let dep = dep + "kernel/net/bh-other.ko:\n";
    write(dir.path(), "kernel/modules/modules.dep", dep);
    let (ok, _, said) = bridgehead(dir.path(), &args);
    assert!(ok, "{said}");
    let expected = "the NIC 8086:1572 of kvm01; the kernel's `bh_other` would";
    assert!(said.contains(expected), "{said}");
    assert_eq!(said.matches("warning").count(), 1, "{said}");
    write(
        dir.path(),
        "hosts.yaml",
        INVENTORY.replace("beef:0001", "beef"),
    );
    let (ok, _, said) = bridgehead(dir.path(), &args);
    assert!(!ok && said.contains("is not a PCI id"), "{said}");
}

#[test]
fn list_shows_modules_reasons_sizes_and_totals() {
    let dir = TempDir::new().unwrap();
    lay_out(dir.path());
    assert!(bridgehead(dir.path(), &BUILD).0);
    let (ok, text, _) = bridgehead(dir.path(), &["initrd", "list", "default.img"]);
    assert!(ok);
    let row = |first: &str| {
        let found = text
            .lines()
            .find(|line| line.split(' ').next() == Some(first));
        found.unwrap_or_else(|| panic!("no line of {first}: {text}"))
    };
    assert!(row("bh_nic").ends_with("listed in modules.list:1"));
    assert!(row("bh_phy").ends_with("bh_nic needs it"));
    assert!(row("bh/nic.fw").ends_with("8  firmware of bh_nic"));
    assert!(row("modules").contains("3 files"));
    let (_, json, _) = bridgehead(dir.path(), &["initrd", "list", "default.img", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["totals"][0]["kind"], "module");
    let (_, files, _) = bridgehead(dir.path(), &["initrd", "list", "--files", "default.img"]);
    assert!(files.contains("bin/sh -> busybox"), "{files}");
}

/// `bridgehead initrd build` by nobody, with another umask, in a directory of its own.
fn build_as_nobody(dir: &Path) -> String {
    // Copied by another process: while this one has a program open for writing, what another
    // test forks holds it too, and nobody can run it (ETXTBSY).
    let copied = Command::new("cp")
        .args([env!("CARGO_BIN_EXE_bridgehead"), "bridgehead"])
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(copied.success());
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    for path in [dir.to_owned(), dir.join("initrd")] {
        nix::unistd::chown(&path, Some(nobody.uid), Some(nobody.gid)).unwrap();
    }
    let output = Command::new("setpriv")
        .args(["--reuid=nobody", "--clear-groups"])
        .arg(format!("--regid={}", nobody.gid))
        .args(["sh", "-c", "umask 077; exec ./bridgehead \"$@\"", "sh"])
        .args(BUILD)
        .current_dir(dir)
        .env("HOME", "/nonexistent")
        .output()
        .expect("run setpriv (Debian: package util-linux)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn another_user_in_another_directory_gets_the_same_image() {
    if !is_root() {
        eprintln!("SKIPPED: to become nobody needs root");
        return;
    }
    let lay_out_all = |dir: &Path| {
        lay_out(dir);
        write(dir, "initrd/files.list", "/bin/ls /opt/ls\n");
    };
    let (mine, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    lay_out_all(mine.path());
    let (ok, said, error) = bridgehead(mine.path(), &BUILD);
    assert!(ok, "{error}");
    lay_out_all(theirs.path());
    assert_eq!(build_as_nobody(theirs.path()), said);
    for file in ["default.img", "default.manifest"] {
        let bytes = |dir: &TempDir| fs::read(dir.path().join(file)).unwrap();
        assert!(bytes(&mine) == bytes(&theirs), "{file} differs");
    }
    let owner = std::os::unix::fs::MetadataExt::uid;
    let image = fs::metadata(theirs.path().join("default.img")).unwrap();
    assert_ne!(owner(&image), 0);
}

#[test]
fn a_program_of_this_machine_runs_with_its_libraries() {
    if !is_root() {
        eprintln!("SKIPPED: device nodes and chroot need root");
        return;
    }
    let dir = TempDir::new().unwrap();
    lay_out(dir.path());
    // Where no busybox applet stands.
    write(dir.path(), "initrd/files.list", "/bin/ls /opt/bin/list\n");
    build(&spec(dir.path())).unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    unpack(&dir.path().join("default.img"), &root);
    let output = Command::new("chroot")
        .arg(&root)
        .args(["/opt/bin/list", "--version"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("coreutils"),
        "{output:?}"
    );
}

#[test]
fn what_operators_add_is_listed_with_its_reason() {
    let dir = TempDir::new().unwrap();
    lay_out(dir.path());
    write(
        dir.path(),
        "own/bh-nic.ko",
        module(&["license=GPL", "depends=bh-new"]),
    );
    write(dir.path(), "own/bh-new.ko", module(&["license=GPL"]));
    write(dir.path(), "ucode/amd-ucode/microcode_amd.bin", b"DMA\0");
    write(dir.path(), "initrd/firmware/bh/more.fw", "firmware");
    write(dir.path(), "initrd/firmware.list", "bh/more.fw\n");
    write(dir.path(), "initrd/site.conf", "x");
    write(
        dir.path(),
        "initrd/files.list",
        "site.conf /etc/site.conf 0600\n",
    );
    let site = bridgehead(dir.path(), &BUILD);
    assert!(site.0, "{}", site.2);
    fs::copy(dir.path().join("default.img"), dir.path().join("site.cpio")).unwrap();
    let more = [
        "--modules",
        "own",
        "--microcode=ucode",
        "--append",
        "site.cpio",
    ];
    let (ok, _, said) = bridgehead(dir.path(), &[BUILD.as_slice(), &more].concat());
    assert_eq!((ok, said.as_str()), (true, ""));
    let (_, text, _) = bridgehead(dir.path(), &["initrd", "list", "default.img"]);
    let line = |words: &[&str]| {
        let mut lines = text.lines();
        let found = lines.any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{words:?}: {text}");
    };
    line(&[
        "bh_nic",
        "listed in modules.list:1, out of tree, in place of the kernel's",
    ]);
    line(&["bh_new", "bh_nic needs it, out of tree"]);
    line(&["AuthenticAMD.bin", "1 file of amd-ucode"]);
    line(&["bh/more.fw", "listed in firmware.list:1"]);
    line(&["etc/site.conf", "listed in files.list:1"]);
    line(&["archive 1", "microcode", "none"]);
    line(&["archive 3", "files", "zstd"]);
    line(&["archive 5", "site.cpio", "zstd"]);
    let small = [BUILD.as_slice(), &["--max-size", "100K"]].concat();
    let (ok, _, said) = bridgehead(dir.path(), &small);
    assert!(
        !ok && said.contains("may have 102400; the largest files: busybox ("),
        "{said}"
    );
}
