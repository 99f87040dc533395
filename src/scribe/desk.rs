//! The daemon's side: one edit at a time, a short line of those that wait, and an end to every wait.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Done, Edit, Kind, LONGEST, Refusal, Reply, Request};

/// Edits that wait for the one under way.
const WAITING: usize = 16;
/// What became of an edit.
pub type Outcome = Result<Done, Refusal>;

/// How long somebody waits: both together less than a request by HTTP may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// In the line.
    pub(super) line: Duration,
    /// For the edit, once it is asked for: more than the ten seconds that it waits for another writer.
    pub(super) edit: Duration,
}

const PATIENCE: Patience = Patience {
    line: Duration::from_secs(10),
    edit: Duration::from_secs(15),
};

struct Job {
    /// A line of JSON.
    request: Vec<u8>,
    /// Told when it is asked for. Closed: nobody waits for it any more, and it is not done.
    begun: oneshot::Sender<()>,
    end: End,
}

/// Who is told what became of an edit.
struct End {
    done: oneshot::Sender<Outcome>,
    /// Called whether or not somebody waits.
    ended: Box<dyn FnOnce(&Outcome) + Send>,
}

impl End {
    fn tell(self, outcome: Outcome) {
        (self.ended)(&outcome);
        let _ = self.done.send(outcome);
    }
}

/// Asks the scribe.
#[derive(Debug, Clone)]
pub struct Scribe {
    jobs: mpsc::Sender<Job>,
    gone: Arc<OnceLock<String>>,
    pub(super) patience: Patience,
}

/// Carries what is asked to the scribe, and back.
pub struct Desk {
    jobs: mpsc::Receiver<Job>,
    gone: Arc<OnceLock<String>>,
    /// Of what the scribe was asked for, and has not answered.
    open: Option<End>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Scribe {
    /// One whose desk is to be served.
    pub fn new() -> (Self, Desk) {
        let (sender, jobs) = mpsc::channel(WAITING);
        let gone = Arc::<OnceLock<String>>::default();
        let desk = Desk {
            jobs,
            gone: gone.clone(),
            open: None,
        };
        let scribe = Self {
            jobs: sender,
            gone,
            patience: PATIENCE,
        };
        (scribe, desk)
    }

    /// None, and why.
    pub fn none(why: impl Into<String>) -> Self {
        let (scribe, _) = Self::new();
        let _ = scribe.gone.set(why.into());
        scribe
    }

    /// Why there is none, if there is none.
    pub fn gone(&self) -> Option<&str> {
        self.gone.get().map(String::as_str)
    }

    /// Whether no edit is made any more.
    pub fn is_closed(&self) -> bool {
        self.jobs.is_closed()
    }

    /// How many edits wait for the one under way.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        WAITING - self.jobs.capacity()
    }

    /// Has an edit made, or only tried.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, or its words say that this is not known.
    pub async fn edit(&self, edit: Edit, dry_run: bool) -> Outcome {
        self.edit_then(edit, dry_run, |_| ()).await
    }

    /// The same; `ended` is called with what became of it, also where nobody waits any more. It is not called for an
    /// edit that nobody began.
    ///
    /// # Errors
    /// As `edit`.
    pub async fn edit_then(
        &self,
        edit: Edit,
        dry_run: bool,
        ended: impl FnOnce(&Outcome) + Send + 'static,
    ) -> Outcome {
        let request = line(&Request { edit, dry_run })?;
        let ((begun, begins), (done, answer)) = (oneshot::channel(), oneshot::channel());
        let ended = Box::new(ended);
        let end = End { done, ended };
        let job = Job {
            request,
            begun,
            end,
        };
        if let Err(full) = self.jobs.try_send(job) {
            return Err(self.unasked(&full));
        }
        self.turn(begins).await?;
        match tokio::time::timeout(self.patience.edit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unknown(self.gone())),
            Err(_) => {
                let seconds = self.patience.edit.as_secs();
                let words = format!(
                    "the inventory's file was not written within {seconds} s, and may be yet: is its disk or server stuck? Look at it before you try again"
                );
                Err(Refusal::new(Kind::Busy, words))
            }
        }
    }

    /// Waits until an edit is asked for; who stops to wait takes it out of the line.
    async fn turn(&self, mut begins: oneshot::Receiver<()>) -> Result<(), Refusal> {
        let begun = match tokio::time::timeout(self.patience.line, &mut begins).await {
            Ok(begun) => begun.is_ok(),
            Err(_) => {
                begins.close();
                begins.try_recv().is_ok()
            }
        };
        match begun {
            true => Ok(()),
            false if self.is_closed() => Err(self.closed()),
            false => {
                let words = "nothing was changed: other edits are before it; try again";
                Err(Refusal::new(Kind::Busy, words))
            }
        }
    }

    fn unasked(&self, why: &mpsc::error::TrySendError<Job>) -> Refusal {
        match why {
            mpsc::error::TrySendError::Full(_) => {
                let words = format!("nothing was changed: {WAITING} edits wait already; try again");
                Refusal::new(Kind::Busy, words)
            }
            mpsc::error::TrySendError::Closed(_) => self.closed(),
        }
    }

    fn closed(&self) -> Refusal {
        let why = self.gone().unwrap_or("the daemon ends");
        Refusal::new(Kind::Gone, format!("nothing was changed: {why}"))
    }
}

/// It was asked, and ended.
fn unknown(gone: Option<&str>) -> Refusal {
    let why = gone.unwrap_or("the daemon ends");
    let words = format!("the inventory's file was perhaps written: {why}");
    Refusal::new(Kind::Gone, words)
}

impl Desk {
    /// Serves until `shutdown`; what was asked before that is done. `to` and `from` are the scribe's ends; `end` gives
    /// how it ended, once both are closed.
    pub async fn serve<W, R>(
        mut self,
        mut to: W,
        from: R,
        end: impl Future<Output = String>,
        shutdown: CancellationToken,
    ) where
        W: AsyncWrite + Unpin,
        R: AsyncRead + Unpin,
    {
        let mut from = BufReader::new(from);
        let broken = self.carry(&mut to, &mut from, &shutdown).await;
        // Its end of file: it ends.
        drop(to);
        let Err(error) = broken else {
            end.await;
            return;
        };
        drop(from);
        let why = format!(
            "the process that edits the inventory's file is gone ({error}; {}): restart the daemon, or edit the file by hand",
            end.await
        );
        tracing::error!("{why}");
        let outcome = unknown(Some(&why));
        let _ = self.gone.set(why);
        if let Some(end) = self.open.take() {
            end.tell(Err(outcome));
        }
        // Who waits, and who comes, is told so.
        drop(self);
        shutdown.cancelled().await;
    }

    async fn carry(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        from: &mut (impl AsyncBufRead + Unpin),
        shutdown: &CancellationToken,
    ) -> io::Result<()> {
        loop {
            let job = tokio::select! {
                biased;
                () = shutdown.cancelled(), if !self.jobs.is_closed() => {
                    self.jobs.close();
                    continue;
                }
                job = self.jobs.recv() => job,
                // Nobody asked it.
                said = from.fill_buf() => {
                    return Err(io::Error::other(match said?.len() {
                        0 => "it ended".to_owned(),
                        bytes => format!("it said {bytes} bytes unasked"),
                    }));
                }
            };
            let Some(job) = job else { return Ok(()) };
            let Job {
                request,
                begun,
                end,
            } = job;
            if begun.send(()).is_err() {
                continue;
            }
            self.open = Some(end);
            let outcome = match ask(&request, to, from).await? {
                Reply::Done(done) => Ok(done),
                Reply::Refused(refusal) => Err(refusal),
            };
            if let Some(end) = self.open.take() {
                end.tell(outcome);
            }
        }
    }
}

fn line(request: &Request) -> Result<Vec<u8>, Refusal> {
    let json = serde_json::to_vec(request);
    let json = json.ok().filter(|json| json.len() < LONGEST);
    let mut line = json.ok_or_else(|| {
        let words = "nothing was changed: it is more than one edit may say";
        Refusal::new(Kind::Unfit, words)
    })?;
    line.push(b'\n');
    Ok(line)
}

async fn ask(
    request: &[u8],
    to: &mut (impl AsyncWrite + Unpin),
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Reply> {
    to.write_all(request).await?;
    to.flush().await?;
    let mut reply = Vec::new();
    let mut from = from.take(LONGEST as u64);
    from.read_until(b'\n', &mut reply).await?;
    match reply.last() {
        Some(b'\n') => Ok(serde_json::from_slice(&reply)?),
        Some(_) => Err(io::Error::other("its reply has no end")),
        None => Err(io::Error::other("it ended without a reply")),
    }
}
