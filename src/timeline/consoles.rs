//! Last words of machines: what a failing initrd sends of its kernel log, and what came by syslog.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::event::{AttemptId, MachineId};
use crate::wire::text::one_line;

/// Of all hosts together, bytes.
const MOST: u64 = 256 << 20;
/// The part of that by which it may be more, until somebody looks.
const STEP: u64 = 16;
/// Last words of a host that is not listed any more stay for so long: the edit may have been a mistake.
const GRACE: Duration = Duration::from_secs(24 * 3600);
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
#[derive(Debug)]
pub struct Consoles {
    directory: PathBuf,
    /// Of all hosts together, bytes.
    most: u64,
    /// Since somebody looked how much it is, bytes.
    written: AtomicU64,
}

impl Consoles {
    /// Below the state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            directory: state.join("console"),
            most: MOST,
            written: AtomicU64::new(0),
        }
    }

    /// Removes what is of hosts that are not listed, and the oldest of the others where that is too much.
    pub fn tidy(&self, is_listed: impl Fn(&str) -> bool) {
        for directory in entries(&self.directory) {
            let name = directory.file_name().and_then(|name| name.to_str());
            if name.is_some_and(&is_listed) {
                continue;
            }
            let young = |file: &PathBuf| {
                let age = fs::metadata(file).and_then(|found| found.modified());
                age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < GRACE))
            };
            if !entries(&directory).any(|file| young(&file))
                && let Err(error) = fs::remove_dir_all(&directory)
            {
                tracing::debug!("cannot remove {}: {error}", directory.display());
            }
        }
        self.bound();
    }

    /// Counts what was written, and looks now and then how much there is.
    fn count(&self, bytes: usize) {
        let written = self.written.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if written >= self.most / STEP {
            self.bound();
        }
    }

    /// Removes the oldest, where all together are too many.
    fn bound(&self) {
        self.written.store(0, Ordering::Relaxed);
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries(&self.directory)
            .flat_map(|directory| entries(&directory))
            .filter_map(|file| {
                let found = fs::metadata(&file).ok()?;
                Some((found.modified().ok()?, found.len(), file))
            })
            .collect();
        files.sort_unstable();
        let mut all: u64 = files.iter().map(|(_, length, _)| length).sum();
        let most = self.most - self.most / STEP;
        for (_, length, file) in files {
            if all <= most {
                break;
            }
            match fs::remove_file(&file) {
                Ok(()) => all -= length,
                Err(error) => tracing::debug!("cannot remove {}: {error}", file.display()),
            }
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
        self.count(text.len());
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
            fs::write(&path, &line)?;
            self.count(line.len());
            return make_room(&directory, SYSLOG);
        };
        if known.len() + line.len() as u64 > MAX_SYSLOG as u64 {
            // A write that the disk took half of may have ended within a character.
            let before = fs::read(&path)?;
            let shorter = shortened(&String::from_utf8_lossy(&before), *at);
            return replace(&path, format!("{shorter}{line}").as_bytes());
        }
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.write_all(line.as_bytes())?;
        self.count(line.len());
        Ok(())
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

/// Without what a terminal would take for commands; empty if it can't be read.
fn readable(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text
        .split('\n')
        .map(|line| one_line(line).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
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
    let fits = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let mut files: Vec<_> = entries(directory).filter(fits).collect();
    files.sort();
    files
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
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
        assert_eq!(consoles.last(&host), "said  this\n");
        for extension in [LOG, SYSLOG] {
            let kept = files(&dir.path().join("console/kvm01"), extension);
            assert_eq!(kept.len(), KEPT);
        }
        assert_eq!(consoles.last(&MachineId("none".into())), "");
        assert_eq!(consoles.of(&host, &AttemptId("8".into())), "said  this\n");
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

    #[test]
    fn all_together_are_bounded_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let most = 1 << 20;
        let consoles = Consoles {
            most,
            ..Consoles::new(dir.path())
        };
        let attempt = AttemptId("a".into());
        let long_ago = SystemTime::now() - Duration::from_secs(100_000);
        for index in 0..100 {
            let host = MachineId(format!("kvm{index}"));
            consoles.keep(&host, &attempt, &[b'x'; 40_000]).unwrap();
            let file = dir.path().join(format!("console/{host}/a.log"));
            let at = long_ago + Duration::from_secs(index);
            let file = OpenOptions::new().append(true).open(file).unwrap();
            file.set_modified(at).unwrap();
        }
        consoles.tidy(|_| true);
        let kept = |index: u64| !consoles.last(&MachineId(format!("kvm{index}"))).is_empty();
        let all: Vec<u64> = (0..100).filter(|index| kept(*index)).collect();
        assert_eq!(
            all,
            (100 - most / 16 * 15 / 40_000..100).collect::<Vec<_>>()
        );
        // Lines count too, without anybody's call.
        for index in 0..most / STEP / 1000 * 3 {
            let host = MachineId("talks".into());
            let attempt = AttemptId((index / 20).to_string());
            consoles
                .say(&host, &attempt, &line(&"x".repeat(1000)))
                .unwrap();
        }
        assert!(!kept(76) && kept(99));
    }

    #[test]
    fn what_is_of_nobody_goes_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let consoles = Consoles::new(dir.path());
        let attempt = AttemptId("a".into());
        for (name, hours) in [("listed", 48), ("mistake", 1), ("removed", 25)] {
            let host = MachineId(name.into());
            consoles.keep(&host, &attempt, b"said").unwrap();
            let file = dir.path().join(format!("console/{name}/a.log"));
            let at = SystemTime::now() - Duration::from_secs(hours * 3600);
            let file = OpenOptions::new().append(true).open(file).unwrap();
            file.set_modified(at).unwrap();
        }
        consoles.tidy(|host| host == "listed");
        let mut left: Vec<_> = entries(&dir.path().join("console")).collect();
        left.sort();
        let names: Vec<_> = left.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["listed", "mistake"]);
    }
}
