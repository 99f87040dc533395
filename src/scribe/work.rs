//! The child's side: a request, an edit, a reply, until the daemon is gone.

use std::io::{self, BufRead, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};

use super::{Done, Kind, LONGEST, Refusal, Reply, Request, perform};
use crate::inventory::edit::EditError;

/// What the kernel sends when the daemon is gone. It waits while a file is being written.
pub(crate) const ORPHANED: Signal = Signal::SIGUSR1;

/// Makes the edits that are asked for by `input`, until its end.
///
/// # Errors
/// The daemon's ends are broken, or speak another language.
pub(crate) fn work(
    inventory: &Path,
    mut input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    while let Some(request) = next(&mut input)? {
        let reply = undisturbed(|| answer(|| perform(inventory, &request)))?;
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        output.write_all(&line)?;
        output.flush()?;
    }
    Ok(())
}

fn next(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = Vec::new();
    input.take(LONGEST as u64).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::other("a request without an end")),
    }
}

/// An orphan finishes the file that it has begun.
fn undisturbed<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let mut orphaned = SigSet::empty();
    orphaned.add(ORPHANED);
    orphaned.thread_block()?;
    let done = work();
    orphaned.thread_unblock()?;
    Ok(done)
}

/// A fault of ours costs one edit: another scribe can't be started.
fn answer(perform: impl FnOnce() -> Result<Done, EditError>) -> Reply {
    match catch_unwind(AssertUnwindSafe(perform)) {
        Ok(Ok(done)) => Reply::Done(done),
        Ok(Err(error)) => Reply::Refused(error.into()),
        Err(_) => {
            let words = "the inventory's file was perhaps written, by a fault of ours: look at it; the daemon's log has the fault's place";
            Reply::Refused(Refusal::new(Kind::Unwritable, words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It may come after the file was replaced.
    #[test]
    fn a_fault_of_ours_is_not_called_unwritten() {
        match answer(|| panic!("a test")) {
            Reply::Refused(refusal) => assert!(refusal.words.contains("perhaps written")),
            Reply::Done(done) => panic!("{done:?}"),
        }
    }
}
