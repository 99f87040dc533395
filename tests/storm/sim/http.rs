//! HTTP/1.1 as loaders and BusyBox speak it, with as little work as can be: what arrives is counted, and thrown away
//! in the kernel, unless somebody wants to see it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A server that says nothing for this long is gone. iPXE itself would wait on.
const SILENCE: Duration = Duration::from_secs(120);
/// Thrown away at once, bytes.
const DISCARD: usize = 1 << 20;

/// A connection of one machine.
pub(super) struct Connection {
    stream: TcpStream,
    server: SocketAddrV4,
    read: Vec<u8>,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) length: usize,
}

impl Connection {
    pub(super) async fn open(from: Ipv4Addr, server: SocketAddrV4) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let connecting = socket.connect(SocketAddr::V4(server));
        let stream = timeout(SILENCE, connecting).await.map_err(|_| silent())??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            server,
            read: Vec::new(),
        })
    }

    /// Sends a request and reads the head of its answer.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<Answer> {
        let length = match method {
            "POST" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let host = self.server;
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}\r\n{body}");
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
                self.read.drain(..end + 4);
                return answer(&head);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        let reading = self.stream.read_buf(&mut self.read);
        match timeout(SILENCE, reading).await.map_err(|_| silent())?? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The body of an answer.
    pub(super) async fn body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        while self.read.len() < answer.length {
            self.more().await?;
        }
        Ok(self.read.drain(..answer.length).collect())
    }

    /// Takes the body of an answer and looks at nothing but its length.
    pub(super) async fn discard(&mut self, answer: &Answer) -> io::Result<()> {
        let read = self.read.len().min(answer.length);
        self.read.drain(..read);
        let mut rest = answer.length - read;
        let mut nothing = vec![0; DISCARD];
        while rest > 0 {
            // tcp(7): with MSG_TRUNC the bytes are not copied, and the buffer is only a length.
            let most = rest.min(DISCARD);
            let fd = self.stream.as_raw_fd();
            let cut =
                || recv(fd, &mut nothing[..most], MsgFlags::MSG_TRUNC).map_err(io::Error::from);
            let cutting = self.stream.async_io(Interest::READABLE, cut);
            match timeout(SILENCE, cutting).await.map_err(|_| silent())?? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                gone => rest -= gone,
            }
        }
        Ok(())
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server fell silent")
}

fn answer(head: &str) -> io::Result<Answer> {
    let bad = || io::Error::other(format!("not an answer: {head}"));
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    let status = status.ok_or_else(bad)?;
    // 204 has no body.
    let length = length.or((status == 204).then_some(0)).ok_or_else(bad)?;
    Ok(Answer { status, length })
}

/// `http://10.77.0.1:8080/path`, taken apart.
pub(super) fn split(url: &str) -> Option<(SocketAddrV4, &str)> {
    let rest = url.strip_prefix("http://")?;
    let slash = rest.find('/')?;
    let (host, path) = rest.split_at(slash);
    let server = host.parse().ok().or_else(|| {
        let address: Ipv4Addr = host.parse().ok()?;
        Some(SocketAddrV4::new(address, 80))
    });
    Some((server?, path))
}
