//! `bridgehead why HOST`: last words, likely cause, next thing to try.

use std::fmt::Write;

use clap::Args;

use super::table::table;
use super::{Daemon, Failure, client, print, print_json};
use crate::site::why::Why;
use crate::span::span;

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bridgehead why kvm07")]
pub(super) struct Arguments {
    /// A host, or a `mac-…` of `bridgehead status`
    host: String,
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = client::host_path(&arguments.host, "why")?;
    let why: Why = client::get(&arguments.daemon.state, &path)?;
    if arguments.json {
        print_json(&why)
    } else {
        print(&text(&why))
    }
}

fn text(why: &Why) -> String {
    let mut text = format!("{} is {}", why.host, why.state);
    if let (Some(stage), Some(seconds)) = (&why.stage, why.for_s) {
        let _ = write!(text, " in {stage}, for {}", span(seconds));
    }
    let _ = write!(text, "\n\nLikely cause\n  {}\n", why.cause);
    for hint in &why.hints {
        let _ = write!(
            text,
            "\nIts console says\n  {}\n  which means: {}\n",
            hint.line, hint.means
        );
    }
    if !why.syslog.is_empty() {
        text += "\nWhat came from its address by syslog (unproven)\n";
    }
    for line in &why.syslog {
        let at = line.at.strftime("%H:%M:%S");
        let _ = writeln!(text, "  {at}  {}", line.text);
    }
    if !why.next.is_empty() {
        text += "\nTry next\n";
    }
    for (index, next) in why.next.iter().enumerate() {
        let _ = writeln!(text, "  {}. {next}", index + 1);
    }
    if !why.last.is_empty() {
        text += "\nLast heard of it (UTC)\n";
        let rows = why.last.iter().map(|said| {
            let at = said.at.strftime("%H:%M:%S");
            vec![
                format!("  {at}"),
                said.stage.clone(),
                said.state.clone(),
                said.evidence.clone(),
                said.message.clone(),
            ]
        });
        text += &table(&rows.collect::<Vec<_>>());
    }
    text
}
