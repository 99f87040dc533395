//! One client's connection: calls in, replies out, both bounded.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, copy_buf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answers::{self, Answer};
use super::call::{BadCall, MAX_CALL, parse};
use super::event::Refusal;
use super::gate::{Gate, Route};

/// A client that has asked for something and says nothing for this long is cut off. Linux's closes after 5 minutes itself
/// (XS_IDLE_DISC_TO) and connects again when it needs to.
const IDLE: Duration = Duration::from_secs(600);

/// From a record's first byte to its last.
const RECORD: Duration = Duration::from_secs(30);

/// A client that does not acknowledge for this long is gone, or does not read what it asked for.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// How long calls under way may take at a shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// Replies under way on a connection, in pages: 8 MiB.
const BUDGET: u32 = 2048;
const PAGE: u32 = 4096;

/// Least cost of a call, in pages: makes 128 calls at most, half of what the engine refuses.
const LEAST_COST: u32 = 16;

/// Answers of the gate that wait to be sent.
const ANSWERS: usize = 32;

/// Buffers between client and engine, bytes.
const BUFFER: usize = 128 << 10;

/// In a record mark: this fragment is the last (RFC 5531 section 11).
const LAST_FRAGMENT: u32 = 1 << 31;

/// A call that the engine has not answered yet.
struct Waiting {
    xid: u32,
    cost: u32,
}

struct Connection<'a> {
    gate: &'a Gate,
    peer: SocketAddr,
    allowed: bool,
    /// By the number under which the engine knows the call. The engine stays silent to a number that it has
    /// seen in the last minute, so each call, also one that is sent again, has its own.
    waiting: Mutex<HashMap<u32, Waiting>>,
    budget: Semaphore,
}

/// Serves a client until it leaves, misbehaves, or the daemon stops.
///
/// # Errors
/// The socket's own; a peer that misbehaved was told to the observer.
pub(super) async fn serve(
    client: TcpStream,
    peer: SocketAddr,
    gate: &Gate,
    stop: &CancellationToken,
) -> io::Result<()> {
    watch_for_silence(&client)?;
    let engine = TcpStream::connect(gate.engine).await?;
    engine.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_engine, to_engine) = engine.into_split();
    let (answer, answers) = mpsc::channel(ANSWERS);
    let connection = Connection {
        gate,
        peer,
        allowed: (gate.allow)(peer),
        waiting: Mutex::default(),
        budget: Semaphore::new(BUDGET as usize),
    };
    tokio::select! {
        result = connection.calls(from_client, to_engine, answer, stop) => result,
        result = connection.replies(from_engine, to_client, answers) => result,
        () = drained(stop) => Ok(()),
    }
}

/// Ends a connection whose client does not take its replies while the daemon stops.
async fn drained(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(DRAIN).await;
}

fn watch_for_silence(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let socket = SockRef::from(client);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    let probes = TcpKeepalive::new()
        .with_time(UNACKNOWLEDGED)
        .with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&probes)
}

impl Connection<'_> {
    async fn calls(
        &self,
        client: OwnedReadHalf,
        mut engine: OwnedWriteHalf,
        answer: mpsc::Sender<(Answer, u32)>,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let mut client = BufReader::with_capacity(BUFFER, client);
        let mut number = 0_u32;
        loop {
            // A guest on the hosts' network must not keep them from their roots by connections that it does not use.
            let patience = if self.allowed && number > 0 {
                IDLE
            } else {
                self.gate.limits.silence
            };
            let record = tokio::select! {
                record = read_record(&mut client, patience) => record,
                () = stop.cancelled() => break,
            };
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => return self.malformed_or(error),
            };
            match self.decide(&record) {
                Ok(Route::Answer(bytes)) => {
                    self.spend(LEAST_COST).await;
                    let _ = answer.send((bytes, LEAST_COST)).await;
                }
                Ok(Route::Engine { arguments, reply }) => {
                    let cost = (reply / PAGE + 1).max(LEAST_COST);
                    self.spend(cost).await;
                    number = number.wrapping_add(1);
                    let header = &record[..24];
                    self.await_reply(
                        number,
                        Waiting {
                            xid: first_word(header),
                            cost,
                        },
                    );
                    engine
                        .write_all(&engine_call(number, header, &self.gate.secret, &arguments))
                        .await?;
                }
                Err(why) => {
                    self.tell_malformed(why);
                    return Ok(());
                }
            }
        }
        // What was asked before is still answered.
        let _ = timeout(DRAIN, self.budget.acquire_many(BUDGET)).await;
        Ok(())
    }

    fn decide(&self, record: &[u8]) -> Result<Route, &'static str> {
        use nfs3_server::nfs3_types::rpc::auth_stat::AUTH_BADCRED;
        match parse(record) {
            Ok(call) => Ok(self.gate.route(&call, self.peer, self.allowed)),
            Err(BadCall::RpcVersion { xid }) => Ok(Route::Answer(answers::rpc_mismatch(xid))),
            Err(BadCall::Credential { xid }) => {
                Ok(Route::Answer(answers::denied(xid, AUTH_BADCRED)))
            }
            Err(BadCall::Malformed(why)) => Err(why),
        }
    }

    async fn replies(
        &self,
        engine: OwnedReadHalf,
        client: OwnedWriteHalf,
        mut answers: mpsc::Receiver<(Answer, u32)>,
    ) -> io::Result<()> {
        let mut engine = BufReader::with_capacity(BUFFER, engine);
        let mut client = BufWriter::with_capacity(BUFFER, client);
        loop {
            let cost = tokio::select! {
                Some((answer, cost)) = answers.recv() => {
                    self.gate.metrics.sent.inc_by(answer.len() as u64);
                    client.write_all(&answer).await?;
                    cost
                }
                buffered = engine.fill_buf() => {
                    if buffered?.is_empty() {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the engine closed"));
                    }
                    self.relay(&mut engine, &mut client).await?
                }
            };
            client.flush().await?;
            self.budget.add_permits(cost as usize);
        }
    }

    /// Copies one reply of the engine to the client, under the client's number. Gives its cost.
    async fn relay(
        &self,
        engine: &mut BufReader<OwnedReadHalf>,
        client: &mut BufWriter<OwnedWriteHalf>,
    ) -> io::Result<u32> {
        let mark = engine.read_u32().await?;
        let number = engine.read_u32().await?;
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number);
        let length = u64::from(mark & !LAST_FRAGMENT).checked_sub(4);
        let (Some(waiting), Some(length)) = (waiting, length) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a reply to no call from the engine",
            ));
        };
        client.write_u32(mark).await?;
        client.write_u32(waiting.xid).await?;
        self.gate.metrics.sent.inc_by(length + 8);
        if copy_buf(&mut engine.take(length), client).await? == length {
            Ok(waiting.cost)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn await_reply(&self, number: u32, waiting: Waiting) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, waiting);
    }

    /// Waits until replies of this size fit into what is under way; [`Self::replies`] gives it back.
    async fn spend(&self, cost: u32) {
        if let Ok(permit) = self.budget.acquire_many(cost).await {
            permit.forget();
        }
    }

    fn malformed_or(&self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::InvalidData => self.tell_malformed("longer than 64 KiB"),
            io::ErrorKind::UnexpectedEof => self.tell_malformed("cut short"),
            io::ErrorKind::TimedOut => {}
            _ => return Err(error),
        }
        Ok(())
    }

    fn tell_malformed(&self, why: &'static str) {
        self.gate.refuse(self.peer, Refusal::Malformed(why));
    }
}

/// Reads a call, all fragments, at most [`MAX_CALL`] bytes; `None` when the client has closed between calls.
async fn read_record(
    client: &mut BufReader<OwnedReadHalf>,
    patience: Duration,
) -> io::Result<Option<Vec<u8>>> {
    if timeout(patience, client.fill_buf()).await??.is_empty() {
        return Ok(None);
    }
    timeout(RECORD, read_fragments(client)).await?.map(Some)
}

async fn read_fragments(client: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut record = Vec::new();
    loop {
        let mark = client.read_u32().await?;
        let (start, length) = (record.len(), (mark & !LAST_FRAGMENT) as usize);
        if start + length > MAX_CALL {
            return Err(io::ErrorKind::InvalidData.into());
        }
        record.resize(start + length, 0);
        client.read_exact(&mut record[start..]).await?;
        if mark & LAST_FRAGMENT != 0 {
            return Ok(record);
        }
    }
}

/// The call as the engine gets it: with our number, our credential, no verifier.
fn engine_call(number: u32, header: &[u8], secret: &[u8; 16], arguments: &[u8]) -> Vec<u8> {
    /// `authsys_parms`: stamp, machine name (the secret), uid, gid, no further gids.
    const CREDENTIAL: usize = 4 + 4 + 16 + 4 + 4 + 4;
    let length = header.len() + 8 + CREDENTIAL + 8 + arguments.len();
    let word = |value: usize| u32::try_from(value).unwrap_or(0).to_be_bytes();
    let mut call = Vec::with_capacity(4 + length);
    call.extend((LAST_FRAGMENT | u32::from_be_bytes(word(length))).to_be_bytes());
    call.extend(number.to_be_bytes());
    call.extend(&header[4..]);
    call.extend([word(1), word(CREDENTIAL), word(0), word(secret.len())].concat());
    call.extend(secret);
    call.extend([0; 12 + 8]);
    call.extend(arguments);
    call
}

fn first_word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}
