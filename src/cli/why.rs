//! `bridgehead why HOST`: last words, likely cause, next thing to try.

use std::fmt::Write;

use clap::Args;

use super::{Daemon, Failure, client, hosts_named, print, print_json, screen};
use crate::site::why::Why;
use crate::span::span;

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bridgehead why kvm07\n  bridgehead why kvm[01-16]\n  bridgehead why 3c:ec:ef:00:00:07    # a machine that is not listed"
)]
pub(super) struct Arguments {
    /// A host, or the MAC of a machine; of several, or a list as kvm[01-16], one after another
    #[arg(required = true)]
    host: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let ask = |host: &String| -> Result<Why, Failure> {
        let path = client::host_path(host, "why")?;
        client::get(&arguments.daemon.state, &path)
    };
    let names = hosts_named(&arguments.host)?;
    // All of them, before the first is told.
    let told = names.iter().map(ask).collect::<Result<Vec<_>, _>>()?;
    if arguments.json {
        return told.iter().try_for_each(print_json);
    }
    let texts = told.iter().map(|why| text(why, screen::width()));
    print(&texts.collect::<Vec<_>>().join("\n\n"))
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
