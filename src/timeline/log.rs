//! The event log on disk: JSON lines, two files of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::TimelineError;
use crate::policy::event::BootEvent;

/// When the newer file has grown to this, it becomes the older one, bytes.
const ROTATE_AT: u64 = 16 << 20;

/// Where an event was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Among what was kept when the older file became that: by then all was known that stands there.
    Kept,
    /// In the older file.
    Old,
    /// In the newer one.
    Newer,
}

/// `events.jsonl`, before it `events.old.jsonl`, and before that `events.kept.jsonl`: what must not be forgotten of
/// hosts whose events are in neither, written anew each time the newer file becomes the older one.
///
/// Events are not synced one by one: a power cut may cost the last ones, which the
/// hosts' next events make good. What must never be lost is in the lease journal.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    path: PathBuf,
    old: PathBuf,
    kept: PathBuf,
    length: u64,
    pub(super) rotate_at: u64,
    broken: bool,
}

impl EventLog {
    /// Opens the log and hands every event in it to `each`, oldest first. Lines that can't
    /// be read (a cut, another version's) are counted and left out.
    ///
    /// # Errors
    /// [`TimelineError`] if the files can't be read or written.
    pub fn open(
        state: &Path,
        mut each: impl FnMut(Source, BootEvent),
    ) -> Result<Self, TimelineError> {
        let (path, old) = (state.join("events.jsonl"), state.join("events.old.jsonl"));
        let kept = state.join("events.kept.jsonl");
        let files = [
            (&kept, Source::Kept),
            (&old, Source::Old),
            (&path, Source::Newer),
        ];
        for (file, source) in files {
            let mut each = |event| each(source, event);
            let unreadable = replay(file, &mut each).map_err(|source| TimelineError {
                operation: "read the event log",
                path: file.clone(),
                source,
            })?;
            unreadable.warn(file);
        }
        let open = || {
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(&path)?;
            mend_end(&mut file)?;
            let length = file.metadata()?.len();
            io::Result::Ok((file, length))
        };
        let (file, length) = open().map_err(|source| TimelineError {
            operation: "open the event log",
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            file,
            path,
            old,
            kept,
            length,
            rotate_at: ROTATE_AT,
            broken: false,
        })
    }

    /// Appends an event; `keep` gives what must not be forgotten, should the older file go. A disk that is full must
    /// not stop boots: the failure is said once, and memory goes on. False: it is not on disk.
    pub fn append(&mut self, event: &BootEvent, keep: impl FnOnce() -> Vec<BootEvent>) -> bool {
        match self.try_append(event, keep) {
            Ok(()) => self.broken = false,
            Err(error) if !self.broken => {
                self.broken = true;
                tracing::error!(
                    "cannot write the event log {}: {error}; events are kept in memory alone until it works again",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
        !self.broken
    }

    /// What is wrong with it now: what comes is kept in memory alone.
    pub fn fault(&self) -> Option<String> {
        self.broken.then(|| {
            format!(
                "boot events are kept in memory alone, {} can't be written: make room on the disk, or look at it",
                self.path.display()
            )
        })
    }

    fn try_append(
        &mut self,
        event: &BootEvent,
        keep: impl FnOnce() -> Vec<BootEvent>,
    ) -> io::Result<()> {
        let line = line(event)?;
        if self.length + line.len() as u64 > self.rotate_at {
            self.keep(&keep())?;
            match fs::rename(&self.path, &self.old) {
                // It was, and then there was no opening the next one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            self.file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&self.path)?;
            self.length = 0;
        }
        if self.broken {
            // A full disk takes half a line, and the next one would be glued to it.
            self.file.set_len(self.length)?;
        }
        self.file.write_all(&line)?;
        self.length += line.len() as u64;
        Ok(())
    }

    fn keep(&self, events: &[BootEvent]) -> io::Result<()> {
        let lines: io::Result<Vec<_>> = events.iter().map(line).collect();
        let beside = self.kept.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&lines?.concat())?;
        // A power cut must not leave the name on an empty file.
        file.sync_all()?;
        fs::rename(&beside, &self.kept)?;
        let directory = self.kept.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

fn line(event: &BootEvent) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

/// A line that was cut off gets its newline, so that the next event stands on its own.
fn mend_end(file: &mut File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last == [b'\n'] {
        Ok(())
    } else {
        file.write_all(b"\n")
    }
}

/// Lines of a file that are left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unreadable {
    /// No JSON.
    cut: usize,
    /// JSON, and no event that is known here.
    foreign: usize,
}

impl Unreadable {
    fn warn(&self, file: &Path) {
        let file = file.display();
        let Self { cut, foreign } = self;
        if *cut > 0 {
            tracing::warn!(
                "{cut} lines of {file} were cut off, by a crash or a full disk, and are left out"
            );
        }
        if *foreign > 0 {
            tracing::warn!(
                "{foreign} lines of {file} were written by another version of bridgehead and are left out: hosts may stand where they stood before; what they report from now on is known"
            );
        }
    }
}

fn replay(path: &Path, each: &mut impl FnMut(BootEvent)) -> io::Result<Unreadable> {
    let mut unreadable = Unreadable::default();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(unreadable),
        other => other?,
    };
    for line in BufReader::new(file).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(event) => each(event),
            Err(error) if error.is_data() => unreadable.foreign += 1,
            Err(_) => unreadable.cut += 1,
        }
    }
    Ok(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::event::{MachineId, Stage, StageState};
    use jiff::Timestamp;

    fn event(second: i64) -> BootEvent {
        let at = Timestamp::from_second(second).unwrap();
        BootEvent::sent(
            at,
            MachineId("a".into()),
            Stage::Dhcp,
            StageState::Ok,
            "said".into(),
        )
    }

    fn read(state: &Path) -> Vec<i64> {
        let mut seconds = Vec::new();
        EventLog::open(state, |_, event| seconds.push(event.at.as_second())).unwrap();
        seconds
    }

    #[test]
    fn a_cut_line_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        EventLog::open(dir.path(), |_, _| {})
            .unwrap()
            .append(&event(1), Vec::new);
        let path = dir.path().join("events.jsonl");
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"at\":");
        fs::write(&path, bytes).unwrap();
        EventLog::open(dir.path(), |_, _| {})
            .unwrap()
            .append(&event(2), Vec::new);
        assert_eq!(read(dir.path()), [1, 2]);
    }

    #[test]
    fn lines_of_another_version_are_told_from_those_that_were_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let known = String::from_utf8(line(&event(1)).unwrap()).unwrap();
        let other = known.replace("\"dhcp\"", "\"teleported\"");
        assert_ne!(known, other);
        fs::write(&path, format!("{known}{other}[]\n{{\"at\":\n{known}")).unwrap();
        let mut read = 0;
        let unreadable = replay(&path, &mut |_| read += 1).unwrap();
        let (cut, foreign) = (1, 2);
        assert_eq!((read, unreadable), (2, Unreadable { cut, foreign }));
    }

    #[test]
    fn what_a_full_disk_left_of_a_line_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(dir.path(), |_, _| {}).unwrap();
        log.append(&event(1), Vec::new);
        log.file.write_all(b"{\"at\":").unwrap();
        log.broken = true;
        assert!(log.append(&event(2), Vec::new));
        assert_eq!(read(dir.path()), [1, 2]);
    }

    #[test]
    fn a_log_that_was_renamed_and_not_opened_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(dir.path(), |_, _| {}).unwrap();
        log.append(&event(1), Vec::new);
        fs::rename(&log.path, &log.old).unwrap();
        log.rotate_at = log.length;
        assert!(log.append(&event(2), Vec::new));
        assert_eq!(read(dir.path()), [1, 2]);
    }

    #[test]
    fn two_files_and_what_is_kept_bound_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(dir.path(), |_, _| {}).unwrap();
        log.rotate_at = 1000;
        for second in 0..100 {
            log.append(&event(second), || vec![event(-1)]);
        }
        let sizes: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        let kept = line(&event(-1)).unwrap().len() as u64;
        assert!(sizes <= 2000 + kept, "{sizes}");
        let seconds = read(dir.path());
        assert_eq!((seconds.first(), seconds.last()), (Some(&-1), Some(&99)));
    }
}
