//! A Lustre server as a virtual machine, made of an installed tree of Lustre (`LUSTRE_TREE`).
//!
//! It keeps its file system in memory (`osd-wbcfs`), so it needs no disk and no formatting. Its
//! tools come from the root image that `make root LUSTRE_TREE=DIR` made, with the libraries that
//! they were linked with; its initrd is packed by our own builder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bridgehead::initrd::{BuildSpec, build};

use super::error::{LabError, Result, io_error};
use super::firmware::Firmware;
use super::process::run;
use super::server::{ServerSpec, VirtualServer};
use super::{Lab, POOL, repository};

/// The file system's name; hosts mount `10.77.0.5@tcp:/images`.
const NAME: &str = "images";
/// What the mount helper loads for this kind of target, somewhere below `usr/lib/`.
const PLUGIN: &str = "mount_osd_wbcfs.so";
/// The dynamic loader, asked itself: `ldd` is a script that a small root may lack.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const TOOLS: [&str; 3] = ["mount.lustre", "mount.lustre_tgt", "lctl"];

/// A Lustre server under power: MGS, MDT and two OSTs.
#[derive(Debug)]
pub struct Lustre {
    server: VirtualServer,
}

impl Lustre {
    /// Packs the server's initrd, powers it on and waits until the file system is complete.
    pub fn start(lab: &Lab, tree: &Path, data: &Path, logs: &Path) -> Result<Self> {
        let kernel = super::kernel_dir(data)?;
        let initrd = logs.join("lustre-initrd.img");
        fs::create_dir_all(logs).map_err(io_error("create", logs))?;
        pack(lab, tree, data, &kernel, &initrd)?;
        let cmdline = format!("console=ttyS0,115200 lustre.address={POOL}/24 lustre.name={NAME}");
        let spec = ServerSpec::new("lustre", "52:54:00:77:00:05", Firmware::Bios)
            .memory_mib(3072)
            .boots_kernel(&kernel.join("vmlinuz"), &initrd, &cmdline);
        let mut server = spec.power_on(lab, logs)?;
        let said = server.wait_for("lab lustre: ", Duration::from_secs(300))?;
        if said.contains("ready") {
            return Ok(Self { server });
        }
        Err(LabError::Answer {
            peer: "the Lustre server".to_owned(),
            answer: format!("{said}\n{}", server.serial().tail(40)),
        })
    }

    /// The device string for `image_pool: {lustre: …}`.
    pub fn source() -> String {
        format!("{POOL}@tcp:/{NAME}")
    }
}

fn pack(lab: &Lab, tree: &Path, data: &Path, kernel: &Path, out: &Path) -> Result<()> {
    let staged = lab.dir().join("lustre");
    stage(&data.join("roots/kvm-host"), &staged)?;
    let mut spec = BuildSpec::new(kernel, &repository().join("tests/lab/lustre"), out);
    spec.extra_trees.push(staged);
    spec.extra_modules.push(modules(tree, kernel)?);
    // It is read once, on this machine: quick to pack beats small.
    spec.level = 3;
    spec.budget = u64::MAX;
    spec.max_size = Some(u64::MAX);
    build(&spec).map(|_| ()).map_err(|error| LabError::Command {
        command: format!("pack {}", out.display()),
        outcome: chain(&error),
    })
}

/// Lustre's modules for the kernel that we boot.
fn modules(tree: &Path, kernel: &Path) -> Result<PathBuf> {
    let release = kernel.join("release");
    let text = fs::read_to_string(&release).map_err(io_error("read", &release))?;
    let places = ["lib/modules", "usr/lib/modules"].map(|dir| tree.join(dir).join(text.trim()));
    let found = places.into_iter().find(|dir| dir.is_dir());
    found.ok_or_else(|| LabError::Missing {
        what: format!("{}/lib/modules/{}", tree.display(), text.trim()),
        help: "LUSTRE_TREE must hold Lustre installed for the demo's kernel".to_owned(),
    })
}

/// Copies the tools and all that they link against out of the root image.
fn stage(root: &Path, staged: &Path) -> Result<()> {
    let mut wanted: Vec<String> = TOOLS
        .iter()
        .map(|tool| format!("/usr/sbin/{tool}"))
        .collect();
    let plugin = run(&["find", "-L", &show(&root.join("usr/lib")), "-name", PLUGIN])?;
    let plugin = plugin
        .lines()
        .next()
        .and_then(|path| Path::new(path).strip_prefix(root).ok());
    wanted.extend(plugin.map(|path| format!("/{}", path.display())));
    if wanted.len() == TOOLS.len() || !root.join("usr/sbin/mount.lustre").exists() {
        return Err(LabError::Missing {
            what: format!("Lustre in {}", root.display()),
            help: "run `make root` with the same LUSTRE_TREE".to_owned(),
        });
    }
    let (root_text, mut linked) = (show(root), BTreeSet::from([LOADER.to_owned()]));
    for path in &wanted {
        let listing = run(&["chroot", &root_text, LOADER, "--list", path])?;
        linked.extend(libraries(&listing));
    }
    for path in wanted.iter().chain(&linked) {
        let relative = path.trim_start_matches('/');
        let (from, to) = (root.join(relative), staged.join(relative));
        let parent = to.parent().unwrap_or(staged);
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        fs::copy(&from, &to).map_err(io_error("copy", &from))?;
    }
    Ok(())
}

/// The paths in what the dynamic loader lists: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-… (0x…)`.
fn libraries(ldd: &str) -> BTreeSet<String> {
    ldd.lines()
        .filter(|line| line.ends_with(')'))
        .filter_map(|line| line.split_whitespace().rev().nth(1))
        .filter(|path| path.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
