//! `bridgehead man`: manual pages from the definitions that `--help` comes from.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Exit, Failure, command, print};

/// Arguments that name files of the operator's or the daemon's.
const FILES: [&str; 4] = ["inventory", "data", "templates", "state"];

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bridgehead man /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// The directory to write to; it is made where it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    write(directory).map_err(|error| {
        let what = format!("write manual pages to {}", directory.display());
        Failure::failed(&what, &error)
    })?;
    print(&format!("{}: a page for each verb\n", directory.display()))
}

/// Writes a page for each verb into a directory, which is made where it is not there.
///
/// # Errors
/// The file system's.
pub fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut all = command().disable_help_subcommand(true);
    all.build();
    pages(&all, None, directory)
}

fn pages(verb: &Command, above: Option<&Command>, directory: &Path) -> io::Result<()> {
    let verbs = || verb.get_subcommands().filter(|verb| !verb.is_hide_set());
    for below in verbs() {
        pages(below, Some(verb), directory)?;
    }
    let man = Man::new(verb.clone()).source(concat!("bridgehead ", env!("CARGO_PKG_VERSION")));
    let mut page = BufWriter::new(File::create(directory.join(man.get_filename()))?);
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if verb.get_arguments().any(|one| !one.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if verbs().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    examples(verb, &mut roff);
    exit_status(&mut roff);
    files(verb, &mut roff);
    see_also(verb, above, &mut roff);
    roff.to_writer(&mut page)?;
    page.flush()
}

/// Those of `--help`.
fn examples(verb: &Command, roff: &mut Roff) {
    let help = verb.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let (_, examples) = help.split_once(":\n").unwrap_or_default();
    // What follows is a section of its own.
    let examples = examples.split("\n\n").next().unwrap_or_default();
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in examples.lines() {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for exit in Exit::ALL {
        item(&(*exit as u8).to_string(), exit.words(), roff);
    }
}

/// Files that its arguments name, where they are if nothing is said.
fn files(verb: &Command, roff: &mut Roff) {
    let known = |one: &&Arg| FILES.contains(&one.get_id().as_str()) && !one.is_hide_set();
    let named: Vec<_> = verb.get_arguments().filter(known).collect();
    if named.is_empty() {
        return;
    }
    roff.control("SH", ["FILES"]);
    for one in named {
        let default = one.get_default_values().first();
        let default = default.map(|path| path.to_string_lossy().into_owned());
        let path = default.unwrap_or_else(|| format!("{}/", one.get_id()));
        let help = one.get_help().map(ToString::to_string).unwrap_or_default();
        item(&path, &format!("{help} (--{})", one.get_id()), roff);
    }
}

/// The verb that it is one of, and that one's others.
fn see_also(verb: &Command, above: Option<&Command>, roff: &mut Roff) {
    let Some(above) = above else {
        return;
    };
    let page = |verb: &Command| {
        let name = verb.get_display_name().unwrap_or_else(|| verb.get_name());
        format!("{name}(1)")
    };
    let other = |one: &&Command| !one.is_hide_set() && one.get_name() != verb.get_name();
    let others = above.get_subcommands().filter(other);
    let all: Vec<_> = std::iter::once(page(above))
        .chain(others.map(page))
        .collect();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(all.join(", "))]);
}

fn item(what: &str, means: &str, roff: &mut Roff) {
    roff.control("TP", []);
    roff.text([bold(what)]);
    roff.text([roman(means)]);
}
