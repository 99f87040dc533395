//! `bridgehead log HOST`: the story of its last boots.

use std::collections::HashSet;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::{Daemon, Failure, client, json, print, print_json, print_on, screen};
use crate::policy::event::{Evidence, MachineId, Stage, StageState};
use crate::site::report::{AttemptLog, HostLog, Told};

/// How often `--follow` asks.
const ASK: Duration = Duration::from_millis(500);

/// Arguments of `log`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bridgehead log kvm07\n  bridgehead log kvm07 --follow")]
pub(super) struct Arguments {
    /// A host, the MAC of a machine, or `wire` for packets without a sender
    host: String,
    #[command(flatten)]
    daemon: Daemon,
    /// Every boot that is remembered, not the last alone
    #[arg(long)]
    all: bool,
    /// Go on with what happens from now on, until interrupted
    #[arg(long, conflicts_with = "all")]
    follow: bool,
    /// Print JSON; with --follow a line for each event
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = client::host_path(&arguments.host, "log")?;
    if arguments.follow {
        return follow(arguments, &path);
    }
    let mut log: HostLog = client::get(&arguments.daemon.state, &path)?;
    if !arguments.all {
        log.attempts.drain(..log.attempts.len().saturating_sub(1));
    }
    if arguments.json {
        return print_json(&log);
    }
    if !arguments.all && !log.attempts.is_empty() {
        log.strays.clear();
    }
    print(&text(&log))
}

/// What tells an event from every other: reports that waited for an address change their time afterwards.
type Mark = (Option<(Stage, StageState)>, String, i128);

fn mark(told: &Told<'_>) -> Mark {
    match told {
        Told::Event(event) => {
            let uptime = event.uptime_ms.map(i128::from);
            let time = uptime.unwrap_or_else(|| event.at.as_nanosecond());
            (
                Some((event.stage, event.state)),
                event.message.clone(),
                time,
            )
        }
        Told::Said(line) => (None, line.text.clone(), line.at.as_nanosecond()),
    }
}

fn strays(log: &HostLog) -> Vec<Told<'_>> {
    log.strays.iter().map(Told::Event).collect()
}

/// The newest boot so far, then each event as it comes, and each boot that begins.
fn follow(arguments: &Arguments, path: &str) -> Result<(), Failure> {
    let (mut boot, mut shown) = (None, HashSet::new());
    loop {
        let log: HostLog = match client::get(&arguments.daemon.state, path) {
            // It may be restarted; what it knows is on disk.
            Err(failure) if failure.is_unreachable() && boot.is_some() => {
                std::thread::sleep(ASK);
                continue;
            }
            answer => answer?,
        };
        let newest = log.attempts.last();
        let now = newest
            .map(|attempt| attempt.attempt.clone())
            .unwrap_or_default();
        if boot.as_ref() != Some(&now) {
            shown.clear();
            if let Some(attempt) = newest.filter(|_| !arguments.json) {
                print_on(&heading(attempt))?;
            }
            boot = Some(now);
        }
        let (began, story) = match newest {
            Some(attempt) => (attempt.began, attempt.story()),
            None => (Timestamp::UNIX_EPOCH, strays(&log)),
        };
        for told in story.iter().filter(|told| !shown.contains(&mark(told))) {
            match (arguments.json, told) {
                (true, Told::Event(event)) => print_on(&json(event)?)?,
                (true, Told::Said(line)) => print_on(&json(&line)?)?,
                (false, told) => print_on(&lines(began, std::slice::from_ref(told)))?,
            }
        }
        shown = story.iter().map(mark).collect();
        std::thread::sleep(ASK);
    }
}

fn text(log: &HostLog) -> String {
    let mut text = String::new();
    if log.attempts.is_empty() && log.strays.is_empty() {
        text = match log.host == MachineId::wire().0 {
            true => "every packet so far had a sender that is known\n".to_owned(),
            false => format!("{} has not been seen yet\n", log.host),
        };
    }
    if let Some(first) = log.strays.first() {
        if !log.attempts.is_empty() {
            let began = first.at.strftime("%Y-%m-%d %H:%M:%S UTC");
            text += &format!("Outside any boot, since {began}\n");
        }
        text += &lines(first.at, &strays(log));
    }
    for attempt in &log.attempts {
        text += &story(attempt);
    }
    if !log.console.is_empty() {
        text += &format!(
            "\nLast kernel lines that it sent after a failure:\n{}\n",
            log.console.trim_end()
        );
    }
    text
}

fn story(attempt: &AttemptLog) -> String {
    heading(attempt) + &lines(attempt.began, &attempt.story())
}

fn heading(attempt: &AttemptLog) -> String {
    let began = attempt.began.strftime("%Y-%m-%d %H:%M:%S UTC");
    let heading = format!("Boot {} of {began}\n", attempt.attempt);
    screen::prose(&heading, screen::width())
}

fn lines(began: Timestamp, story: &[Told<'_>]) -> String {
    let row = |told: &Told<'_>| {
        let ms = told.at().as_millisecond() - began.as_millisecond();
        let seconds =
            std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64();
        let (stage, state, evidence, words) = match told {
            Told::Event(event) => (
                event.stage.name(),
                event.state.name(),
                event.evidence,
                &event.message,
            ),
            Told::Said(line) => ("console", "syslog", Evidence::Unproven, &line.text),
        };
        // Columns of fixed width: with --follow each line comes alone.
        vec![
            format!("{seconds:>8.2}"),
            format!("{stage:<11}"),
            format!("{state:<8}"),
            format!("{:<12}", evidence.name()),
            words.clone(),
        ]
    };
    screen::rows(&story.iter().map(row).collect::<Vec<_>>(), screen::width())
}
