//! Clients that cost next to nothing: they fetch a file and have the kernel throw it away.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Socket, Type};

/// A server that says nothing for this long has failed.
const SILENCE: Duration = Duration::from_secs(60);

/// Where a file is.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) server: SocketAddrV4,
    pub(super) path: String,
    pub(super) size: usize,
}

/// Every one of `clients` fetches the file `times` times, each time on a connection of its own and from an address of
/// its own, as booting hosts do. Gives the seconds of each fetch.
pub(super) fn fetch_all(
    target: &Target,
    clients: &[Ipv4Addr],
    times: usize,
) -> io::Result<Vec<f64>> {
    let one = |address: Ipv4Addr| {
        (0..times)
            .map(|_| fetch(target, address))
            .collect::<io::Result<Vec<_>>>()
    };
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter()
            .map(|&address| scope.spawn(move || one(address)))
            .collect();
        let mut seconds = Vec::new();
        for client in running {
            let done = client.join();
            seconds.extend(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(seconds)
    })
}

pub(super) fn fetch(target: &Target, address: Ipv4Addr) -> io::Result<f64> {
    let began = Instant::now();
    let mut stream = connect(target, address)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        target.path, target.server
    );
    stream.write_all(request.as_bytes())?;
    let mut left = target.size - head(&mut stream)?;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        // tcp(7): with MSG_TRUNC the bytes are counted and thrown away, not copied.
        match recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)? {
            0 => return Err(io::Error::other(format!("{left} bytes are missing"))),
            length => left -= length.min(left),
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

fn connect(target: &Target, address: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddrV4::new(address, 0).into())?;
    socket.connect(&target.server.into())?;
    socket.set_read_timeout(Some(SILENCE))?;
    Ok(socket.into())
}

/// Reads to the end of the response's head; gives the bytes of the body that came with it.
fn head(stream: &mut TcpStream) -> io::Result<usize> {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        got.extend_from_slice(&buffer[..length]);
        let end = got.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let text = String::from_utf8_lossy(&got[..end]);
            if !text.starts_with("HTTP/1.1 200 ") {
                return Err(io::Error::other(format!("the answer is {text}")));
            }
            return Ok(got.len() - end - 4);
        }
        if length == 0 {
            return Err(io::Error::other("no answer"));
        }
    }
}
