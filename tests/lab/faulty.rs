//! A daemon that misbehaves: it answers a host's request for its configuration as the test says, and sends whoever
//! asks for anything else on to the real one.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::error::{LabError, Result};
use super::{APPLIANCE, Lab, Namespace};

/// What comes instead of a configuration.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// This status and no more: `404 Not Found`.
    Status(&'static str),
    /// Less than was promised.
    CutOff,
    /// All of it, with another's hash.
    WrongHash,
    /// Ask the real one.
    Daemon,
}

/// An address on the boot network where nobody listens until [`FaultyDaemon::listen`].
#[derive(Debug)]
pub struct FaultyDaemon(Namespace);

impl FaultyDaemon {
    /// What hosts are told in `bridgehead.url`.
    pub const URL: &str = "http://10.77.0.7";

    /// Takes the address.
    pub fn new(lab: &Lab) -> Result<Self> {
        let namespace = lab.client("faulty", "52:54:00:77:00:07")?;
        namespace.ip(&["addr", "add", "10.77.0.7/24", "dev", "eth0"])?;
        Ok(Self(namespace))
    }

    /// Answers each host's requests for its configuration in turn, the last answer for ever. The thread lives as long
    /// as the test does.
    pub fn listen(&self, answers: HashMap<&'static str, Vec<Answer>>) -> Result<()> {
        let bound = self.0.enter(|| TcpListener::bind("10.77.0.7:80"))?;
        let listener = bound.map_err(|source| LabError::Io {
            doing: "listen at 10.77.0.7:80".to_owned(),
            source,
        })?;
        thread::spawn(move || serve(&listener, answers));
        Ok(())
    }
}

fn serve(listener: &TcpListener, mut answers: HashMap<&'static str, Vec<Answer>>) {
    for connection in listener.incoming().flatten() {
        // A peer that asks nothing or goes away is none of the story.
        let _ = answer_one(connection, &mut answers);
    }
}

fn answer_one(
    mut connection: TcpStream,
    answers: &mut HashMap<&'static str, Vec<Answer>>,
) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let Some(path) = first.split(' ').nth(1) else {
        return Ok(());
    };
    connection.write_all(reply(path, next(path, answers)).as_bytes())?;
    connection.shutdown(Shutdown::Write)?;
    // To close with a request's body unread would reset the connection, and the reply with it.
    io::copy(&mut connection, &mut io::sink()).map(|_| ())
}

/// The next answer for `/v1/boot/HOST/config`.
fn next(path: &str, answers: &mut HashMap<&'static str, Vec<Answer>>) -> Answer {
    let host = path
        .strip_prefix("/v1/boot/")
        .and_then(|rest| rest.strip_suffix("/config"));
    match host.and_then(|host| answers.get_mut(host)) {
        Some(turn) if turn.len() > 1 => turn.remove(0),
        Some(turn) => turn.first().copied().unwrap_or(Answer::Daemon),
        None => Answer::Daemon,
    }
}

fn reply(path: &str, answer: Answer) -> String {
    let config = "hostname=kvm01\nroot_type=nfs\nroot_server=10.77.0.9\nroot_path=/none\n";
    match answer {
        Answer::Status(status) => format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
        Answer::CutOff => format!("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{config}"),
        Answer::WrongHash => {
            let body = format!("{config}sha256={}\n", "0".repeat(64));
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }
        Answer::Daemon => format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{APPLIANCE}{path}\r\nContent-Length: 0\r\n\r\n"
        ),
    }
}
