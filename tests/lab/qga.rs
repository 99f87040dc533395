//! The QEMU guest agent: how the lab looks at a host from the inside, as its operator would.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{LabError, Result};
use super::qmp::JsonPeer;
use super::wait;

/// How long one program on the guest may run: an emulated machine is slow.
const PROGRAM: Duration = Duration::from_secs(180);
/// How long one answer of the agent may take; it answers to `guest-exec` once the program is loaded.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to the agent of one virtual server.
#[derive(Debug)]
pub struct GuestAgent {
    name: String,
    peer: JsonPeer,
}

/// What a program on the guest left.
#[derive(Debug, Clone)]
pub struct GuestOutput {
    /// Exit code; 128 + number for a signal.
    pub code: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl GuestAgent {
    /// Connects once the agent answers, at the latest after `timeout`.
    pub fn connect(name: &str, path: &Path, timeout: Duration) -> Result<Self> {
        let what = format!("the guest agent of {name}");
        let probe = || Ok(Self::try_connect(name, path).ok());
        let help = "does the root have the package qemu-guest-agent?";
        wait::until(&what, timeout, probe, || help.to_owned())
    }

    fn try_connect(name: &str, path: &Path) -> Result<Self> {
        let peer = JsonPeer::connect(&format!("guest agent of {name}"), path)?;
        let name = name.to_owned();
        let mut agent = Self { name, peer };
        agent.peer.deadline(Duration::from_secs(3))?;
        agent.synchronize()?;
        agent.peer.deadline(ANSWER)?;
        Ok(agent)
    }

    /// Discards what earlier connections left in the channel (qemu-ga, guest-sync-delimited):
    /// their answers, and complaints about the byte that resets the agent's parser. Each
    /// connection has an id of its own, so that no earlier answer is taken for this one's.
    fn synchronize(&mut self) -> Result<()> {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        self.peer.send_raw(&[0xff])?;
        let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
        self.peer.send_raw(format!("{request}\n").as_bytes())?;
        while self.peer.receive()?["return"] != json!(id) {}
        Ok(())
    }

    /// Runs `script` by `sh -c` on the guest and waits for its end.
    pub fn sh(&mut self, script: &str) -> Result<GuestOutput> {
        let arguments = json!({
            "path": "/bin/sh", "arg": ["-c", script], "capture-output": true,
        });
        let started = self.peer.execute("guest-exec", &arguments)?;
        let pid = json!({ "pid": started["pid"] });
        let what = format!("`{script}` on {}", self.name);
        let probe = || {
            let status = self.peer.execute("guest-exec-status", &pid)?;
            Ok((status["exited"] == json!(true)).then(|| guest_output(&status)))
        };
        wait::until(&what, PROGRAM, probe, String::new)
    }

    /// Runs `script`, which must succeed; gives its standard output without trailing white space.
    pub fn ask(&mut self, script: &str) -> Result<String> {
        let done = self.sh(script)?;
        if done.code == 0 {
            return Ok(done.stdout.trim_end().to_owned());
        }
        Err(LabError::Command {
            command: format!("{script} (on {})", self.name),
            outcome: format!("exit {}: {}", done.code, done.stderr.trim()),
        })
    }
}

fn guest_output(status: &Value) -> GuestOutput {
    let signal = status["signal"].as_i64().map_or(-1, |s| 128 + s);
    GuestOutput {
        code: status["exitcode"].as_i64().unwrap_or(signal),
        stdout: base64_text(status["out-data"].as_str().unwrap_or_default()),
        stderr: base64_text(status["err-data"].as_str().unwrap_or_default()),
    }
}

/// RFC 4648 section 4; the agent's output is well-formed, other characters are passed over.
fn base64_text(encoded: &str) -> String {
    let sextet = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for value in encoded.bytes().filter_map(sextet) {
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held).to_le_bytes()[0]);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
