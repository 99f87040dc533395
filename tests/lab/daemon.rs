//! The daemon under test, run as its operator runs it, and its status as its operator reads it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::error::{LabError, Result, io_error};
use super::process::{Log, Process, describe, output};
use super::{BOOT_INTERFACE, Lab, wait};

/// The line that says every socket is bound.
const READY: &str = "bridgehead: ready";

/// To read and hash boot files and to index roots, unoptimized: a second, and more than 30 where many share two cores. A
/// daemon that ends is seen at once.
const START: Duration = Duration::from_secs(120);

/// The program under test.
pub fn bridgehead() -> &'static str {
    env!("CARGO_BIN_EXE_bridgehead")
}

/// `bridgehead serve` in the appliance's namespace. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    state: PathBuf,
}

impl Daemon {
    /// Starts it and waits until all its sockets are bound.
    pub fn start(lab: &Lab, inventory: &Path, data: &Path, log: &Path) -> Result<Self> {
        let mut daemon = Self::spawn(lab, inventory, data, log)?;
        daemon.process.wait_for(READY, START)?;
        Ok(daemon)
    }

    /// Starts it without waiting. Its state is kept in the lab, so that a second start finds it.
    pub fn spawn(lab: &Lab, inventory: &Path, data: &Path, log: &Path) -> Result<Self> {
        let interface = ["--interface", BOOT_INTERFACE];
        Self::spawn_with(lab, inventory, data, log, &[], &interface)
    }

    /// The same on every interface that has an address in a network.
    pub fn start_everywhere(lab: &Lab, inventory: &Path, data: &Path, log: &Path) -> Result<Self> {
        let mut daemon = Self::spawn_with(lab, inventory, data, log, &[], &[])?;
        daemon.process.wait_for(READY, START)?;
        Ok(daemon)
    }

    /// The same as who runs services does: `by` are the words before the daemon's own (`env NAME=VALUE`, `setpriv …`),
    /// which must become it.
    pub fn spawn_by(
        lab: &Lab,
        inventory: &Path,
        data: &Path,
        log: &Path,
        by: &[&str],
    ) -> Result<Self> {
        Self::spawn_with(lab, inventory, data, log, by, &[])
    }

    fn spawn_with(
        lab: &Lab,
        inventory: &Path,
        data: &Path,
        log: &Path,
        by: &[&str],
        interfaces: &[&str],
    ) -> Result<Self> {
        let state = lab.dir().join("state");
        std::fs::create_dir_all(&state).map_err(io_error("create", &state))?;
        let show = |path: &Path| path.display().to_string();
        let (inventory, data, dir) = (show(inventory), show(data), show(&state));
        let argv = [
            bridgehead(),
            "serve",
            "--inventory",
            &inventory,
            "--data",
            &data,
            "--state",
            &dir,
        ];
        let argv = [by, &argv[..], interfaces].concat();
        let process = Process::spawn("bridgehead serve", lab.appliance().name(), &argv, log)?;
        Ok(Self { process, state })
    }

    /// What it wrote.
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// Its process id.
    pub fn pid(&self) -> nix::unistd::Pid {
        self.process.pid()
    }

    /// Fails with its last words if it ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process.check_alive()
    }

    /// Waits for a line of its log, or fails at once if it ends.
    pub fn wait_for(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        self.process.wait_for(pattern, timeout)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.process.wait_exit(timeout)
    }

    /// Kills it the hard way.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_exit(Duration::from_secs(5)).map(|_| ())
    }

    /// Runs `bridgehead VERB --state DIR ARGS`.
    pub fn verb(&self, verb: &str, args: &[&str]) -> Result<Output> {
        let state = self.state.display().to_string();
        output(&[&[bridgehead(), verb, "--state", &state], args].concat())
    }

    /// `bridgehead status --json`.
    pub fn status(&self) -> Result<Status> {
        let done = self.verb("status", &["--json"])?;
        let text = String::from_utf8_lossy(&done.stdout);
        if !done.status.success() {
            return Err(LabError::Command {
                command: "bridgehead status --json".to_owned(),
                outcome: format!(
                    "{}: {}",
                    describe(done.status),
                    String::from_utf8_lossy(&done.stderr).trim()
                ),
            });
        }
        serde_json::from_str(&text).map_err(|error| LabError::Answer {
            peer: format!("bridgehead status --json ({error})"),
            answer: text.into_owned(),
        })
    }

    /// Waits until `host` has been through `stage`.
    pub fn wait_stage(&mut self, host: &str, stage: &str, timeout: Duration) -> Result<Stage> {
        let what = format!("{host} to reach {stage}");
        let log = self.log().clone();
        let probe = || {
            self.check_alive()?;
            let status = self.status()?;
            Ok(status.host(host).and_then(|h| h.stage(stage).cloned()))
        };
        wait::until(&what, timeout, probe, || log.tail(20))
    }
}

/// `status --json`, schema 1.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Always 1.
    pub schema: u32,
    /// Listed hosts.
    pub hosts: Vec<HostStatus>,
    /// Machines that are not listed.
    #[serde(default)]
    pub unknown: Vec<serde_json::Value>,
}

impl Status {
    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&HostStatus> {
        self.hosts.iter().find(|host| host.host == name)
    }
}

/// One host of [`Status`].
#[derive(Debug, Clone, Deserialize)]
pub struct HostStatus {
    /// Its name.
    pub host: String,
    /// The stage it is in.
    #[serde(default)]
    pub stage: Option<String>,
    /// `running`, `done`, `failed`, `stalled`; something else before the first boot.
    #[serde(default)]
    pub state: Option<String>,
    /// Anything the operator should know.
    #[serde(default)]
    pub note: Option<String>,
    /// The stages of this attempt, oldest first.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

impl HostStatus {
    /// The first entry that says the stage is passed.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        let found = |stage: &&Stage| stage.stage == name && stage.is_passed();
        self.stages.iter().find(found)
    }
}

/// One stage of a boot attempt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stage {
    /// Its id.
    pub stage: String,
    /// When, RFC 3339.
    #[serde(default)]
    pub at: String,
    /// Milliseconds since the attempt began.
    #[serde(default)]
    pub ms: u64,
    /// `ok`, `start`, `retry`, `fail`, `degraded`, `info`.
    #[serde(default)]
    pub state: Option<String>,
    /// What was said.
    #[serde(default)]
    pub message: Option<String>,
}

impl Stage {
    /// Seconds from `start` to this.
    pub fn seconds_since(&self, start: Timestamp) -> f64 {
        let at = self.at.parse().unwrap_or(start);
        at.duration_since(start).as_secs_f64()
    }

    /// Whether both say the same; the time is an estimate that gets better.
    pub fn tells_the_same(&self, other: &Self) -> bool {
        (&self.stage, &self.state, &self.message) == (&other.stage, &other.state, &other.message)
    }

    /// Whether something did not go as it should.
    pub fn is_trouble(&self) -> bool {
        matches!(self.state.as_deref(), Some("retry" | "fail" | "degraded"))
    }

    /// Whether the stage is behind us, and not just begun or tried.
    pub fn is_passed(&self) -> bool {
        matches!(self.state.as_deref(), None | Some("ok" | "info"))
    }
}
