//! Child processes that never outlive the lab, and the logs they write.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::error::{LabError, Result, io_error};
use super::wait;

/// How long a child may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A text file that something is still writing.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// The log at `path`; it need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that was written so far, without terminal control sequences.
    pub fn text(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        strip_controls(&String::from_utf8_lossy(&bytes))
    }

    /// The last `lines` lines, each indented, for an error message.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let last = &all[all.len().saturating_sub(lines)..];
        let mut tail = format!("last lines of {}:\n", self.path.display());
        for line in last {
            tail.push_str(&format!("  | {line}\n"));
        }
        tail
    }

    /// Waits until some line contains `pattern`; gives that line.
    pub fn wait_for(&self, pattern: &str, timeout: Duration) -> Result<String> {
        let probe = || Ok(self.find(pattern));
        wait::until(&format!("`{pattern}`"), timeout, probe, || self.tail(30))
    }

    /// The first line that contains `pattern`.
    pub fn find(&self, pattern: &str) -> Option<String> {
        let text = self.text();
        let line = text.lines().find(|line| line.contains(pattern));
        line.map(str::to_owned)
    }
}

/// Drops ANSI escape sequences and control characters: firmware writes plenty of both.
fn strip_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                // ECMA-48: a control sequence ends with a byte from 0x40 to 0x7e.
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
}

impl Process {
    /// Starts `argv` in a network namespace, its output in `log`.
    ///
    /// It stands in a process group of its own, so that ^C reaches the lab alone, and dies with the
    /// thread that started it, even if that is killed (`PR_SET_PDEATHSIG`).
    pub fn spawn(name: &str, namespace: &str, argv: &[&str], log: &Path) -> Result<Self> {
        let out = File::create(log).map_err(io_error("create", log))?;
        let err = out.try_clone().map_err(io_error("open again", log))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", namespace]);
        command.args(argv).process_group(0);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().map_err(|error| LabError::Command {
            command: argv.join(" "),
            outcome: error.to_string(),
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: Log::new(log),
        })
    }

    /// Its process id (`setpriv` and `ip netns exec` become the program itself).
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What it wrote.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Fails with the log's tail if it ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(LabError::Command {
                command: format!("wait for {}", self.name),
                outcome: error.to_string(),
            }),
        }
    }

    /// Waits for a line of its output, or fails at once if it ends before it says so.
    pub fn wait_for(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        let log = self.log.clone();
        let what = format!("`{pattern}` from {}", self.name);
        let probe = || match log.find(pattern) {
            Some(line) => Ok(Some(line)),
            None => self.check_alive().map(|()| None),
        };
        wait::until(&what, timeout, probe, || log.tail(30))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).map_err(|errno| LabError::Command {
            command: format!("kill -{signal} {} ({})", self.pid(), self.name),
            outcome: errno.to_string(),
        })
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let log = self.log.clone();
        let what = format!("the end of {}", self.name);
        let probe = || Ok(self.child.try_wait().ok().flatten());
        wait::until(&what, timeout, probe, || log.tail(30))
    }

    fn ended(&self, status: ExitStatus) -> LabError {
        LabError::Ended {
            name: self.name.clone(),
            status: describe(status),
            context: self.log.tail(30),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // No `wait::until` here: cleaning up must work after an interrupt, too.
        let _ = killpg(self.pid(), Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// `exit 3` or `SIGKILL`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(number)) => {
            Signal::try_from(number).map_or_else(|_| status.to_string(), |s| s.to_string())
        }
        (None, None) => status.to_string(),
    }
}

/// Runs a short command to its end.
pub fn output(argv: &[&str]) -> Result<Output> {
    wait::check_interrupt()?;
    let command = argv.join(" ");
    let [program, args @ ..] = argv else {
        let outcome = "nothing to run".to_owned();
        return Err(LabError::Command { command, outcome });
    };
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    output.map_err(|error| LabError::Command {
        command,
        outcome: error.to_string(),
    })
}

/// Runs a short command that must succeed; gives its standard output.
pub fn run(argv: &[&str]) -> Result<String> {
    let done = output(argv)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(LabError::Command {
        command: argv.join(" "),
        outcome: format!("{}: {}", describe(done.status), said.trim()),
    })
}
