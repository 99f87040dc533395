//! One contender's process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Pid;

use super::group::Group;
use super::usage::Watch;
use super::wire::{INTERFACE, Wire};
use crate::lab::{LabError, Process, Result, bridgehead, io_error, until};

/// From its start to its first answer.
const STARTS: Duration = Duration::from_secs(30);

/// A server at the wire's end. Dropping it ends it.
///
/// Fields drop in order: the process ends before its group goes.
#[derive(Debug)]
pub struct Server {
    process: Process,
    group: Option<Group>,
}

impl Server {
    /// Starts `argv` and waits until `answers` is true: a request of the clients' own protocol, sent from
    /// [`Wire::client`]. A process that listens isn't ready, and one that is slow to be isn't late.
    ///
    /// # Errors
    /// Where it ends, or doesn't answer in half a minute: with the end of `log`, what it wrote.
    pub fn start(
        wire: &Wire,
        argv: &[&str],
        log: &Path,
        answers: impl Fn() -> bool + Sync,
    ) -> Result<Self> {
        let name = argv.first().copied().unwrap_or_default();
        let mut process = Process::spawn(name, wire.server().name(), argv, log)?;
        let group = Group::around(process.pid());
        let text = process.log().clone();
        let probe = || {
            process.check_alive()?;
            let answered = wire.client().enter(&answers)?;
            Ok(answered.then_some(()))
        };
        until(&format!("an answer of {name}"), STARTS, probe, || {
            text.tail(20)
        })?;
        Ok(Self { process, group })
    }

    /// Starts our daemon, as its operator does, on an inventory and a data directory; `state` is emptied first.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn bridgehead(
        wire: &Wire,
        inventory: &Path,
        data: &Path,
        state: &Path,
        log: &Path,
        answers: impl Fn() -> bool + Sync,
    ) -> Result<Self> {
        if state.exists() {
            fs::remove_dir_all(state).map_err(io_error("remove", state))?;
        }
        fs::create_dir_all(state).map_err(io_error("create", state))?;
        let show = |path: &Path| path.display().to_string();
        let (inventory, data, state) = (show(inventory), show(data), show(state));
        let argv = [
            bridgehead(),
            "serve",
            "--inventory",
            &inventory,
            "--data",
            &data,
            "--state",
            &state,
            "--interface",
            INTERFACE,
        ];
        Self::start(wire, &argv, log, answers)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// True where children count that nobody waits for, see [`Usage::cpu`](super::Usage::cpu).
    pub fn counts_all(&self) -> bool {
        self.group.is_some()
    }

    /// Begins to count what it uses.
    pub fn watch(&self) -> Watch {
        Watch::start(self.pid(), self.group.as_ref().map(Group::path))
    }

    /// Fails with the end of its log if it ended.
    ///
    /// # Errors
    /// [`LabError::Ended`].
    pub fn check_alive(&mut self) -> Result<(), LabError> {
        self.process.check_alive()
    }
}
