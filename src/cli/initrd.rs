//! `bridgehead initrd build` and `list`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::exit::chain;
use super::table::table;
use super::{Failure, colour, print, print_json};
use crate::initrd::{
    self, BuildError, BuildSpec, Kind, ListError, Listed, ListedMember, Listing, Microcode,
};
use crate::inventory;

/// What to do with an initrd.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Pack the initrd's tree, modules and firmware into one image
    Build(Box<Build>),
    /// Show what is in an image, why each module is there, and sizes
    List(List),
}

/// Arguments of `initrd build`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bridgehead initrd build --kernel build/kernels/debian --out build/initrds/default.img\n  bridgehead initrd build --kernel build/kernels/debian --out nic.img --inventory hosts.yaml --modules /srv/modules"
)]
pub(super) struct Build {
    /// A kernel of the data directory: kernels/NAME
    #[arg(long, value_name = "DIR")]
    kernel: PathBuf,
    /// The image to write; its manifest goes beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The initrd's source: its lists, hooks and tree
    #[arg(long, value_name = "DIR", default_value = "initrd")]
    source: PathBuf,
    /// A further list of modules; may be given several times
    #[arg(long, value_name = "FILE")]
    list: Vec<PathBuf>,
    /// A directory of out-of-tree modules, for the lists to choose from; may be given several times
    #[arg(long, value_name = "DIR")]
    modules: Vec<PathBuf>,
    /// Microcode of all processors, as an archive before all others: of DIR/intel-ucode and DIR/amd-ucode [DIR: microcode/ of the data directory]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    microcode: Option<Option<PathBuf>>,
    /// Of one kind of processor alone: intel, amd, 06-8f-08 (family, model, stepping), fam19h; may be given several times
    #[arg(long, value_name = "NAME", requires = "microcode")]
    processor: Vec<String>,
    /// An archive to put behind all others as it is; may be given several times
    #[arg(long, value_name = "FILE.cpio")]
    append: Vec<PathBuf>,
    /// A further tree, laid over tree/; may be given several times
    #[arg(long, value_name = "DIR")]
    tree: Vec<PathBuf>,
    /// Warn of NICs (`pci:`) that this inventory's hosts of this initrd have and nothing in it drives
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// The largest image to write, bytes or with K or M (KiB, MiB) [default: 12M and what microcode takes; above 8M there is a warning]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// A static BusyBox
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// A static bridgehead-ear, which hears LLDP for inventory boots [default: they tell nothing of LLDP]
    #[arg(long, value_name = "FILE")]
    ear: Option<PathBuf>,
    /// zstd level, 1 to 22
    #[arg(long, value_name = "N", default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
}

/// Arguments of `initrd list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bridgehead initrd list build/initrds/default.img")]
pub(super) struct List {
    /// The image, of this or any other builder
    file: PathBuf,
    /// Show every path, not modules, firmware and hooks alone
    #[arg(long, conflicts_with = "json")]
    files: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Build(arguments) => build(arguments),
        Verb::List(arguments) => list(arguments),
    }
}

fn build(arguments: &Build) -> Result<(), Failure> {
    let mut spec = BuildSpec::new(&arguments.kernel, &arguments.source, &arguments.out);
    spec.extra_lists.clone_from(&arguments.list);
    spec.extra_modules.clone_from(&arguments.modules);
    spec.extra_trees.clone_from(&arguments.tree);
    spec.busybox.clone_from(&arguments.busybox);
    spec.ear.clone_from(&arguments.ear);
    spec.level = arguments.level;
    spec.max_size = arguments.max_size;
    spec.microcode = match &arguments.microcode {
        None => Microcode::Off,
        Some(None) => Microcode::Data,
        Some(Some(directory)) => Microcode::Directory(directory.clone()),
    };
    spec.processors.clone_from(&arguments.processor);
    spec.appended.clone_from(&arguments.append);
    spec.mtime = source_date_epoch()?;
    if let Some(inventory) = &arguments.inventory {
        spec.nics = nics(inventory, &arguments.out)?;
    }
    let built = initrd::build(&spec).map_err(|error| Failure::of(&error))?;
    for warning in &built.warnings {
        Failure::said(format!("warning: {warning}")).report();
    }
    let state = if built.up_to_date {
        "is up to date"
    } else {
        "built"
    };
    print(&format!(
        "{} {state}: {:.2} MB, {} modules of {}, sha256 {}\n",
        arguments.out.display(),
        megabytes(built.bytes),
        built.manifest.modules.len(),
        built.manifest.kernel_release,
        built.sha256
    ))
}

/// `12M`, `900K`, `4194304`.
fn size(text: &str) -> Result<u64, String> {
    let units = [('K', 1 << 10), ('M', 1 << 20)];
    let with_unit = units
        .iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(*unit)?, *bytes)));
    let (digits, unit) = with_unit.unwrap_or((text, 1));
    let bytes = digits.parse::<u64>().ok();
    bytes
        .and_then(|bytes| bytes.checked_mul(unit))
        .ok_or_else(|| "a number of bytes, or one with K or M, such as 12M".to_owned())
}

/// What `pci:` says of the hosts whose profile names this initrd.
fn nics(path: &Path, image: &Path) -> Result<initrd::Nics, Failure> {
    let loaded = inventory::load(path).map_err(|found| {
        let text = found.to_text(colour(&std::io::stderr()));
        Failure::inventory(format!("{text}\n\n{}", found.summary()))
    })?;
    let stem = image.file_stem().unwrap_or_default().to_string_lossy();
    let mut nics = initrd::Nics::new();
    let hosts = loaded.inventory.hosts.values();
    let hosts = hosts.filter(|host| {
        let mut variants = host.variants();
        variants.any(|variant| *variant.profile.initrd.value == *stem)
    });
    for host in hosts {
        for id in &host.profile.pci {
            let owners = nics.entry(id.value).or_default();
            if owners.last() != Some(&host.name) {
                owners.push(host.name.clone());
            }
        }
    }
    Ok(nics)
}

/// Sizes of images fit a f64 exactly.
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The time that every file in the image gets (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn source_date_epoch() -> Result<u32, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(0),
        Ok(text) => text.parse().map_err(|_| {
            Failure::said(format!(
                "SOURCE_DATE_EPOCH is `{text}`, not a number of seconds"
            ))
        }),
    }
}

fn list(arguments: &List) -> Result<(), Failure> {
    let listing = initrd::list(&arguments.file).map_err(|error| unread(&error))?;
    if arguments.json {
        return print_json(&listing);
    }
    let mut text = match arguments.files {
        true => table(&listing.files.iter().map(path_row).collect::<Vec<_>>()),
        false => by_kind(&listing),
    };
    text += &summary(&listing);
    print(&text)
}

/// What can't be listed, and of a file that is not there what makes one.
fn unread(error: &ListError) -> Failure {
    let missing = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
    match error {
        ListError::Read(BuildError::Io { source, .. }) if missing(source) => Failure::said(
            format!("{}; `bridgehead initrd build` makes one", chain(error)),
        ),
        _ => Failure::of(error),
    }
}

/// Mode, bytes, path and reason.
fn path_row(file: &Listed) -> Vec<String> {
    let target = file.target.as_ref();
    let target = target.map(|target| format!(" -> {target}"));
    vec![
        format!("{:06o}", file.mode),
        format!("{:>9}", file.size),
        format!("{}{}", file.path, target.unwrap_or_default()),
        file.reason.clone().unwrap_or_default(),
    ]
}

/// A table each of what has a reason: microcode, modules, firmware, hooks, and of the rest what
/// `files.list` brought.
fn by_kind(listing: &Listing) -> String {
    const KINDS: [Kind; 4] = [Kind::Microcode, Kind::Module, Kind::Firmware, Kind::Hook];
    let mut text = String::new();
    for kind in KINDS.into_iter().chain([Kind::Program, Kind::Other]) {
        let listed = |file: &&Listed| {
            let ours = !listing.members[file.member].appended;
            KINDS.contains(&kind) || (file.reason.is_some() && ours)
        };
        let files = listing.files.iter().filter(|file| file.kind == Some(kind));
        let files = files.filter(listed);
        let mut rows: Vec<Vec<String>> = files.map(kind_row).collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort();
        let title = [
            kind.name().to_uppercase(),
            format!("{:>9}", "BYTES"),
            "WHY".into(),
        ];
        rows.insert(0, title.to_vec());
        text += &format!("{}\n", table(&rows));
    }
    text
}

/// A module's name, of other files the end of the path, which tells them apart.
fn kind_row(file: &Listed) -> Vec<String> {
    let tail = [
        "lib/firmware/",
        "lib/bridgehead/hooks/",
        "kernel/x86/microcode/",
    ];
    let tail = tail
        .iter()
        .find_map(|above| Some(file.path.split_once(above)?.1.to_owned()));
    vec![
        file.module().or(tail).unwrap_or_else(|| file.path.clone()),
        format!("{:>9}", file.size),
        file.reason.clone().unwrap_or_default(),
    ]
}

/// `archive 2  drivers  zstd  at 512  310 entries  6.20 MB  unpacked 19.80 MB`.
fn member_row(listing: &Listing, index: usize, part: &ListedMember) -> Vec<String> {
    let entries = listing.files.iter().filter(|file| file.member == index);
    vec![
        format!("archive {}", index + 1),
        part.name.clone().unwrap_or_default(),
        format!("{:?}", part.compression).to_lowercase(),
        format!("at {}", part.offset),
        format!("{} entries", entries.count()),
        format!("{:.2} MB", megabytes(part.size)),
        format!("unpacked {:.2} MB", megabytes(part.unpacked_size)),
    ]
}

fn summary(listing: &Listing) -> String {
    let mut text = String::new();
    if let Some(why) = &listing.no_manifest {
        text += &format!("Reasons are those of the image's modules.dep: {why}\n");
    }
    let totals = listing.totals.iter();
    let rows = totals.map(|total| {
        vec![
            total.kind.name().to_owned(),
            format!("{:>5} files", total.files),
            format!("{:>9} bytes", total.bytes),
        ]
    });
    text += &table(&rows.collect::<Vec<_>>());
    let members = listing.members.iter().enumerate();
    let rows = members.map(|(index, part)| member_row(listing, index, part));
    text += &table(&rows.collect::<Vec<_>>());
    text + &format!(
        "{} entries, {:.2} MB, sha256 {}\n",
        listing.files.len(),
        megabytes(listing.bytes),
        listing.sha256
    )
}
