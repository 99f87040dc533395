//! `bridgehead initrd build` and `list`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::table::table;
use super::{Failure, print, print_json};
use crate::initrd::{self, BuildSpec};

/// What to do with an initrd.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Pack the initrd's tree, modules and firmware into one image
    Build(Build),
    /// Show what is in an image, why each module is there, and sizes
    List(List),
}

/// Arguments of `initrd build`.
#[derive(Debug, Args)]
pub(super) struct Build {
    /// A kernel of the data directory: kernels/NAME
    #[arg(long, value_name = "DIR")]
    kernel: PathBuf,
    /// The image to write; its manifest goes beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The initrd's source: modules.list and tree/
    #[arg(long, value_name = "DIR", default_value = "initrd")]
    source: PathBuf,
    /// A further list of modules; may be given several times
    #[arg(long, value_name = "FILE")]
    modules: Vec<PathBuf>,
    /// A directory of out-of-tree modules; may be given several times
    #[arg(long, value_name = "DIR")]
    extra_modules: Vec<PathBuf>,
    /// A further tree, laid over tree/; may be given several times
    #[arg(long, value_name = "DIR")]
    tree: Vec<PathBuf>,
    /// A static BusyBox
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// zstd level, 1 to 22
    #[arg(long, value_name = "N", default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
}

/// Arguments of `initrd list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// The image
    file: PathBuf,
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
    spec.extra_lists.clone_from(&arguments.modules);
    spec.extra_modules.clone_from(&arguments.extra_modules);
    spec.extra_trees.clone_from(&arguments.tree);
    spec.busybox.clone_from(&arguments.busybox);
    spec.level = arguments.level;
    spec.mtime = source_date_epoch()?;
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
    let listing = initrd::list(&arguments.file).map_err(|error| Failure::of(&error))?;
    if arguments.json {
        return print_json(&listing);
    }
    let row = |file: &initrd::Listed| {
        let target = file
            .target
            .as_ref()
            .map(|target| format!(" -> {target}"))
            .unwrap_or_default();
        vec![
            format!("{:06o}", file.mode),
            format!("{:>9}", file.size),
            format!("{}{target}", file.path),
            file.reason.clone().unwrap_or_default(),
        ]
    };
    let mut text = table(&listing.files.iter().map(row).collect::<Vec<_>>());
    if let Some(why) = &listing.no_manifest {
        text += &format!("No reasons are shown: {why}\n");
    }
    text += &format!(
        "{} entries, {:.2} MB, sha256 {}\n",
        listing.files.len(),
        megabytes(listing.bytes),
        listing.sha256
    );
    print(&text)
}
