//! The scribe's process: started while there are rights to give it, and confined to what it is for.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::privileges;
use crate::scribe::{Desk, ORPHANED, Scribe, work};

/// The hidden verb that it runs as.
pub(crate) const VERB: &str = "scribe";

/// The process, with our ends of its pipes.
#[derive(Debug)]
pub(super) struct Process {
    desk: Desk,
    child: Child,
}

/// Starts it. Without one the daemon serves all the same, and refuses edits.
///
/// It must be called by the thread that lives as long as the process does: the kernel takes that thread's end for the
/// daemon's (prctl(2), `PR_SET_PDEATHSIG`).
pub(super) fn start(inventory: &Path) -> (Scribe, Option<Process>) {
    let (scribe, desk) = Scribe::new();
    // The very program that runs, whatever was put in its place meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bridgehead").arg(VERB).arg(inventory);
    command.env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    match command.spawn() {
        Ok(child) => (scribe, Some(Process { desk, child })),
        Err(error) => {
            let why = format!(
                "the process that edits the inventory's file can't be started ({error}): restart the daemon, or edit the file by hand"
            );
            tracing::error!("{why}");
            (Scribe::none(why), None)
        }
    }
}

impl Process {
    /// Serves until `shutdown`, and waits for it.
    ///
    /// # Errors
    /// Its pipes can't be used.
    pub(super) async fn serve(mut self, shutdown: CancellationToken) -> io::Result<()> {
        let gone = || io::Error::other("the scribe has no pipes");
        let input: OwnedFd = self.child.stdin.take().ok_or_else(gone)?.into();
        let output: OwnedFd = self.child.stdout.take().ok_or_else(gone)?.into();
        let to = pipe::Sender::from_owned_fd(input)?;
        let from = pipe::Receiver::from_owned_fd(output)?;
        let mut child = self.child;
        let end = async move {
            let waited = tokio::task::spawn_blocking(move || child.wait()).await;
            match waited {
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            }
        };
        self.desk.serve(to, from, end, shutdown).await;
        Ok(())
    }
}

/// Runs as the scribe, until the daemon is gone.
///
/// # Errors
/// It can't be confined, or the daemon speaks another language.
pub fn run(inventory: &Path) -> io::Result<()> {
    confine()?;
    work(inventory, io::stdin().lock(), io::stdout().lock())
}

fn confine() -> io::Result<()> {
    // What ends the daemon (a service manager signals both) lets it finish edits: the scribe ends after it.
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ends.add(signal);
    }
    ends.thread_block()?;
    // A network of its own, with nothing in it. In a container that may be forbidden, and so is much else.
    let _ = unshare(CloneFlags::CLONE_NEWNET);
    privileges::keep_only_the_scribes()?;
    prctl::set_no_new_privs()?;
    // After the capabilities: giving some up could take it back.
    prctl::set_pdeathsig(ORPHANED)?;
    Ok(())
}
