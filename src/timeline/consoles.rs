//! Last words of machines: what a failing initrd sends of its kernel log, and what came by syslog.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::event::{AttemptId, MachineId};

/// Files kept per host, of each kind.
const KEPT: usize = 5;
/// What an initrd sent of its kernel log after a failure.
const LOG: &str = "log";
/// What came from the machine's address by syslog.
const SYSLOG: &str = "syslog";
/// Of more than this in one boot the middle goes, bytes.
const MAX_SYSLOG: usize = 64 << 10;
/// So much stays at each end then, bytes.
const END: usize = 16 << 10;
/// Stands in the middle's place.
const LEFT_OUT: &str = "(lines that came here are left out: there were too many)";

/// One line that came by syslog. Anybody who can forge the machine's address can have sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyslogLine {
    /// When it came.
    pub at: Timestamp,
    /// 0 emergency to 7 debug (RFC 5424 table 2).
    pub severity: u8,
    /// `ipxe: …`: the program and what it said, without control characters.
    pub text: String,
}

impl SyslogLine {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        Some(Self {
            at: words.next()?.parse().ok()?,
            severity: words.next()?.parse().ok()?,
            text: words.next()?.to_owned(),
        })
    }
}

/// `console/HOST/ATTEMPT.log` and `….syslog` in the state directory; names come from the inventory and
/// from ids that the daemon made, never from the wire.
#[derive(Debug, Clone)]
pub struct Consoles {
    directory: PathBuf,
}

impl Consoles {
    /// Below the state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            directory: state.join("console"),
        }
    }

    /// Keeps what a host sent, and the newest few of what it sent before.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn keep(&self, machine: &MachineId, attempt: &AttemptId, text: &[u8]) -> io::Result<()> {
        let directory = self.directory.join(&machine.0);
        fs::create_dir_all(&directory)?;
        replace(&directory.join(format!("{attempt}.{LOG}")), text)?;
        make_room(&directory, LOG)
    }

    /// Adds a line that came by syslog. Of too many in one boot the first and the last stay.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn say(
        &self,
        machine: &MachineId,
        attempt: &AttemptId,
        line: &SyslogLine,
    ) -> io::Result<()> {
        let directory = self.directory.join(&machine.0);
        let path = directory.join(format!("{attempt}.{SYSLOG}"));
        let SyslogLine { at, severity, text } = line;
        let line = format!("{at} {severity} {text}\n");
        let Ok(known) = fs::metadata(&path) else {
            fs::create_dir_all(&directory)?;
            fs::write(&path, line)?;
            return make_room(&directory, SYSLOG);
        };
        if known.len() + line.len() as u64 > MAX_SYSLOG as u64 {
            // A write that the disk took half of may have ended within a character.
            let before = fs::read(&path)?;
            let shorter = shortened(&String::from_utf8_lossy(&before), *at);
            return replace(&path, format!("{shorter}{line}").as_bytes());
        }
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.write_all(line.as_bytes())
    }

    /// What came by syslog in one attempt, oldest first.
    pub fn said(&self, machine: &MachineId, attempt: &AttemptId) -> Vec<SyslogLine> {
        let directory = self.directory.join(&machine.0);
        let text = readable(&directory.join(format!("{attempt}.{SYSLOG}")));
        text.lines().filter_map(SyslogLine::read).collect()
    }

    /// The newest of a host, without control characters; empty if there is none.
    pub fn last(&self, machine: &MachineId) -> String {
        let newest = files(&self.directory.join(&machine.0), LOG).pop();
        newest.map(|file| readable(&file)).unwrap_or_default()
    }

    /// That of one attempt; empty if there is none.
    pub fn of(&self, machine: &MachineId, attempt: &AttemptId) -> String {
        let directory = self.directory.join(&machine.0);
        readable(&directory.join(format!("{attempt}.{LOG}")))
    }
}

/// Writes a file anew. What was in it is lost only where the disk has taken the whole.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)?;
    fs::rename(&beside, file)
}

/// Without control characters; empty if it can't be read.
fn readable(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.chars()
        .filter(|c| matches!(c, '\n' | '\t') || !c.is_control())
        .collect()
}

/// Whole lines of the beginning and the end, and a word about those between.
fn shortened(text: &str, now: Timestamp) -> String {
    let (mut head, mut tail) = (0, text.len());
    for (at, _) in text.match_indices('\n') {
        if at < END {
            head = at + 1;
        } else if text.len() - at - 1 <= END {
            tail = at + 1;
            break;
        }
    }
    // It may be there from the last time.
    let head = text[..head].split_inclusive('\n');
    let head: String = head
        .filter(|line| !line.trim_end().ends_with(LEFT_OUT))
        .collect();
    format!("{head}{now} 5 {LEFT_OUT}\n{}", &text[tail..])
}

/// Removes the oldest, where there are too many.
fn make_room(directory: &Path, extension: &str) -> io::Result<()> {
    let mut files = files(directory, extension);
    while files.len() > KEPT {
        fs::remove_file(files.remove(0))?;
    }
    Ok(())
}

/// Attempt ids sort by time.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let fits = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(fits).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_shown_without_escapes() {
        let dir = tempfile::tempdir().unwrap();
        let consoles = Consoles::new(dir.path());
        let host = MachineId("kvm01".into());
        for index in 0..9 {
            let attempt = AttemptId(index.to_string());
            consoles
                .keep(&host, &attempt, b"said \x1b[2J this\n")
                .unwrap();
            consoles.say(&host, &attempt, &line("ipxe: x")).unwrap();
        }
        assert_eq!(consoles.last(&host), "said [2J this\n");
        for extension in [LOG, SYSLOG] {
            let kept = files(&dir.path().join("console/kvm01"), extension);
            assert_eq!(kept.len(), KEPT);
        }
        assert_eq!(consoles.last(&MachineId("none".into())), "");
        assert_eq!(
            consoles.of(&host, &AttemptId("8".into())),
            "said [2J this\n"
        );
        assert_eq!(consoles.of(&host, &AttemptId("new".into())), "");
        assert!(consoles.said(&host, &AttemptId("new".into())).is_empty());
    }

    fn line(text: &str) -> SyslogLine {
        SyslogLine {
            at: "2026-11-22T02:00:00.5Z".parse().unwrap(),
            severity: 6,
            text: text.to_owned(),
        }
    }

    #[test]
    fn of_a_chatterbox_the_first_and_the_last_words_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let consoles = Consoles::new(dir.path());
        let (host, attempt) = (MachineId("kvm01".into()), AttemptId("a".into()));
        let words = |index: usize| format!("ipxe: line {index} {}", "é".repeat(200));
        for index in 0..2000 {
            consoles.say(&host, &attempt, &line(&words(index))).unwrap();
        }
        let file = dir.path().join("console/kvm01/a.syslog");
        assert!(fs::metadata(file).unwrap().len() <= MAX_SYSLOG as u64);
        let said = consoles.said(&host, &attempt);
        assert_eq!(said.first(), Some(&line(&words(0))));
        assert_eq!(said.last(), Some(&line(&words(1999))));
        let left_out = |line: &&SyslogLine| line.text.starts_with("(lines");
        assert_eq!(said.iter().filter(left_out).count(), 1);
        assert!(
            said.iter()
                .filter(|l| !left_out(l))
                .all(|l| l.text.ends_with('é'))
        );
    }

    #[test]
    fn what_the_disk_took_half_of_does_not_make_a_file_grow() {
        let dir = tempfile::tempdir().unwrap();
        let consoles = Consoles::new(dir.path());
        let (host, attempt) = (MachineId("kvm01".into()), AttemptId("a".into()));
        consoles.say(&host, &attempt, &line("first")).unwrap();
        let path = dir.path().join("console/kvm01/a.syslog");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\xc3").unwrap();
        for index in 0..2000 {
            let words = format!("{index} {}", "x".repeat(200));
            consoles.say(&host, &attempt, &line(&words)).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= MAX_SYSLOG as u64);
        }
        let said = consoles.said(&host, &attempt);
        assert_eq!(said.first(), Some(&line("first")));
        assert!(
            said.last()
                .is_some_and(|last| last.text.starts_with("1999 "))
        );
    }
}
