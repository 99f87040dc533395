//! The images, each built from nothing and timed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use walkdir::WalkDir;

use super::Bench;
use super::lab::{Result, bridgehead, io_error, repository, run};

/// What makes an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Builder {
    /// `bridgehead initrd build`.
    Bridgehead,
    /// dracut, its modules limited to what a network boot needs, its NIC drivers to those that ours has.
    DracutNarrow,
    /// dracut with its defaults.
    DracutGeneric,
}

/// An image of one round.
#[derive(Debug, Clone)]
pub(super) struct Built {
    pub(super) file: PathBuf,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// The command, as an operator would type it.
    pub(super) command: String,
}

/// All images of one round.
pub(super) type Images = BTreeMap<Builder, Built>;

/// Builds every wanted image once. The first round's reading of the kernel's modules warms the page cache for nobody:
/// bridgehead is the first. It is built in any case, for dracut-narrow is to have the drivers that it has.
pub(super) fn build_all(bench: &Bench, round: usize) -> Result<Images> {
    let dir = bench.out.join("images");
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(io_error("remove", &dir))?;
    }
    fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
    let bridgehead = ours(bench, &dir.join("bridgehead.img"))?;
    let builders: BTreeSet<Builder> = bench
        .contenders
        .iter()
        .map(|contender| contender.builder())
        .collect();
    let mut images = Images::new();
    for builder in builders {
        let built = match builder {
            Builder::Bridgehead => bridgehead.clone(),
            Builder::DracutNarrow => narrow(bench, &dir, &bridgehead.file)?,
            // Without a word dracut takes systemd-networkd for the network, which does not mount its NFS root.
            Builder::DracutGeneric => dracut(
                bench,
                &dir.join("dracut-generic.img"),
                &["--add", "network network-legacy nfs"],
            )?,
        };
        let name = built.file.file_stem().unwrap_or_default().to_string_lossy();
        eprintln!(
            "round {round}: {name:<16} {} bytes in {:.1} s",
            built.bytes, built.seconds
        );
        images.insert(builder, built);
    }
    Ok(images)
}

fn narrow(bench: &Bench, dir: &Path, ours: &Path) -> Result<Built> {
    let omit = other_nic_drivers(bench, ours)?;
    let arguments = [
        "--modules",
        "bash base bench network network-legacy nfs",
        "--omit-drivers",
        &omit,
        // A virtio NIC's bus, which no module refers to by symbol.
        "--add-drivers",
        "virtio_pci",
    ];
    dracut(bench, &dir.join("dracut-narrow.img"), &arguments)
}

fn ours(bench: &Bench, out: &Path) -> Result<Built> {
    let kernel = bench.kernel.display().to_string();
    let source = repository().join("initrd").display().to_string();
    let file = out.display().to_string();
    let command = [
        "initrd", "build", "--kernel", &kernel, "--source", &source, "--out", &file,
    ];
    timed(
        &[&[bridgehead()], &command[..]].concat(),
        out,
        "bridgehead initrd build".to_owned(),
    )
}

fn dracut(bench: &Bench, out: &Path, arguments: &[&str]) -> Result<Built> {
    let script = repository()
        .join("benches/initrd/dracut")
        .display()
        .to_string();
    let tree = bench.data.join("roots/lab-dracut");
    let tree = tree.canonicalize().map_err(io_error("follow", &tree))?;
    let (tree, file) = (tree.display().to_string(), out.display().to_string());
    let command = shown(arguments);
    timed(
        &[&[script.as_str(), &tree, &file], arguments].concat(),
        out,
        command,
    )
}

fn timed(argv: &[&str], out: &Path, command: String) -> Result<Built> {
    let start = Instant::now();
    run(argv)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = fs::metadata(out).map_err(io_error("look at", out))?.len();
    Ok(Built {
        file: out.to_owned(),
        bytes,
        seconds,
        command,
    })
}

/// dracut's arguments, with long lists cut short.
fn shown(arguments: &[&str]) -> String {
    let mut text = "dracut --no-hostonly".to_owned();
    for argument in arguments {
        match (argument.starts_with("--"), argument.split(' ').count()) {
            (true, _) => text.push_str(&format!(" {argument}")),
            (false, 1..=9) => text.push_str(&format!(" \"{argument}\"")),
            (false, words) => text.push_str(&format!(" \"… {words} others\"")),
        }
    }
    text
}

/// The kernel's network drivers that our image does not have: dracut's `network` takes every NIC's.
fn other_nic_drivers(bench: &Bench, ours: &Path) -> Result<String> {
    let list = run(&[
        bridgehead(),
        "initrd",
        "list",
        "--json",
        &ours.display().to_string(),
    ])?;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap_or_default();
    let files = list["files"].as_array().into_iter().flatten();
    let paths = files.filter_map(|file| file["path"].as_str());
    let has: BTreeSet<String> = paths.filter_map(|path| module(Path::new(path))).collect();
    let drivers = bench.kernel.join("modules/kernel/drivers/net");
    let files = WalkDir::new(&drivers)
        .into_iter()
        .filter_map(|entry| entry.ok());
    let all: BTreeSet<String> = files.filter_map(|entry| module(entry.path())).collect();
    Ok(all.difference(&has).cloned().collect::<Vec<_>>().join(" "))
}

/// `virtio_net` of `…/virtio-net.ko.xz`.
fn module(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.split_once(".ko")?.0;
    Some(name.replace('-', "_"))
}
