//! QEMU's monitor (QMP) and the guest agent: JSON objects, one per line, over a Unix socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{LabError, Result, io_error};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// A peer that takes `{"execute":…}` and answers `{"return":…}` or `{"error":…}`.
#[derive(Debug)]
pub struct JsonPeer {
    name: String,
    path: std::path::PathBuf,
    stream: BufReader<UnixStream>,
}

impl JsonPeer {
    /// Connects to the socket at `path`; `name` is for error messages.
    pub fn connect(name: &str, path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(io_error("connect to", path))?;
        stream
            .set_read_timeout(Some(ANSWER))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER)))
            .map_err(io_error("set a deadline on", path))?;
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            stream: BufReader::new(stream),
        })
    }

    /// Sets the deadline of each answer.
    pub fn deadline(&mut self, timeout: Duration) -> Result<()> {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(Some(timeout))
            .map_err(io_error("set a deadline on", &self.path))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.stream.get_mut();
        stream
            .write_all(bytes)
            .map_err(io_error("write to", &self.path))
    }

    /// The next object.
    pub fn receive(&mut self) -> Result<Value> {
        let mut line = Vec::new();
        self.stream
            .read_until(b'\n', &mut line)
            .map_err(io_error("read from", &self.path))?;
        // The guest agent puts 0xFF before the answer to a delimited sync.
        let start = line.iter().rposition(|&b| b == 0xff).map_or(0, |at| at + 1);
        serde_json::from_slice(&line[start..]).map_err(|_| LabError::Answer {
            peer: self.name.clone(),
            answer: format!("`{}`", String::from_utf8_lossy(&line).trim()),
        })
    }

    /// Runs a command; gives what it returned. Events in between are passed over.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.send_raw(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.receive()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(LabError::Answer {
                    peer: format!("{} to {command}", self.name),
                    answer: error.to_string(),
                });
            }
        }
    }
}

/// QEMU's monitor, ready for commands.
#[derive(Debug)]
pub struct Qmp(JsonPeer);

impl Qmp {
    /// Connects and leaves capability negotiation (QEMU, qmp-spec).
    pub fn connect(name: &str, path: &Path) -> Result<Self> {
        let mut peer = JsonPeer::connect(&format!("QEMU of {name}"), path)?;
        peer.receive()?;
        peer.execute("qmp_capabilities", &json!({}))?;
        Ok(Self(peer))
    }

    /// Runs a command.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.0.execute(command, arguments)
    }
}
