//! `bridgehead why HOST`: last words, likely cause, next thing to try.

use std::fmt::Write;

use clap::Args;

use super::{Daemon, Failure, client, print, print_json, screen};
use crate::site::why::Why;
use crate::span::span;

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bridgehead why kvm07\n  bridgehead why 3c:ec:ef:00:00:07    # a machine that is not listed"
)]
pub(super) struct Arguments {
    /// A host, or the MAC of a machine
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
        print(&text(&why, screen::width()))
    }
}

fn text(why: &Why, width: Option<usize>) -> String {
    let mut text = format!("{} is {}", why.host, why.state);
    if let (Some(stage), Some(seconds)) = (&why.stage, why.for_s) {
        let _ = write!(text, " in {stage}, for {}", span(seconds));
    }
    if let Some(lease) = &why.lease {
        let _ = write!(text, "; {}", lease.words());
    }
    if why.edit_waits {
        text += "\nhosts.yaml was changed since this boot began: that applies at its next boot";
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
    let mut text = screen::prose(&text, width);
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
        text += &screen::rows(&rows.collect::<Vec<_>>(), width);
    }
    text
}
