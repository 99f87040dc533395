//! What comes over the wire in a soak: clients that do as they should, and everything else.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bridgehead::wire::tftp::Packet;
use socket2::{Domain, Socket, Type};

use crate::BAD;
use crate::fake::LOADER;
use crate::lab::repository;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GOOD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

/// How long a client that is well waits before it asks again, and how often it does: UDP may be lost in a flood.
const TRY: Duration = Duration::from_secs(3);
const TRIES: usize = 10;

/// For whatever a client that is well waits for by TCP.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two rounds of one client: the machine has other work.
const PAUSE: Duration = Duration::from_millis(8);

/// How often something went well, and ill.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) offers: AtomicU64,
    pub(crate) loaders: AtomicU64,
    pub(crate) downloads: AtomicU64,
    pub(crate) reads: AtomicU64,
    /// Of the clients that are well.
    pub(crate) failures: AtomicU64,
    /// Datagrams and connections of the others.
    pub(crate) bad: AtomicU64,
}

impl Counts {
    /// Whether every client that did as it should was served, and each protocol was asked.
    pub(crate) fn served_all(&self) -> bool {
        let all = [
            &self.offers,
            &self.loaders,
            &self.downloads,
            &self.reads,
            &self.bad,
        ];
        all.iter().all(|count| count.load(Ordering::Relaxed) > 0)
            && self.failures.load(Ordering::Relaxed) == 0
    }

    fn note(&self, count: &AtomicU64, what: &str, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => count.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                eprintln!("a client that did as it should was not served by {what}: {error}");
                self.failures.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// One client's doings, again and again until told to stop.
pub(crate) type Work = fn(&Counts, &(dyn Fn() -> bool + Sync));

/// From a listed host's address.
pub(crate) const WELL: [Work; 4] = [asks, loads, downloads, reads];

/// From many addresses.
pub(crate) const ILL: [Work; 4] = [floods, abandons, mutters, shouts];

fn repeat(done: &(dyn Fn() -> bool + Sync), mut work: impl FnMut(u32)) {
    for round in 0.. {
        if done() {
            return;
        }
        work(round);
        std::thread::sleep(PAUSE);
    }
}

fn other(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

/// DHCP: a listed host asks for its address by a relay's hand, so that the answer finds a socket.
fn asks(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    let socket = UdpSocket::bind((GOOD, 67)).expect("port 67");
    socket.set_read_timeout(Some(TRY)).expect("a timeout");
    repeat(done, |round| {
        counts.note(&counts.offers, "DHCP", ask(&socket, round))
    });
}

fn ask(socket: &UdpSocket, xid: u32) -> io::Result<()> {
    let request = discover([0x52, 0x54, 0, 0, 0, 1], xid, GOOD);
    let mut reply = [0; 1500];
    for _ in 0..TRIES {
        socket.send_to(&request, (SERVER, 67))?;
        // Late answers to the question before may come first.
        while let Some(length) = received(socket.recv(&mut reply))? {
            if reply[4..8] == xid.to_be_bytes() {
                let offered = length >= 300 && reply[16..20] == GOOD.octets();
                return offered
                    .then_some(())
                    .ok_or_else(|| other("another address was offered"));
            }
        }
    }
    Err(other("no answer"))
}

/// `None` where nothing came in time.
fn received<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// RFC 2131 section 2, as a relay sends it on.
fn discover(mac: [u8; 6], xid: u32, giaddr: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; 236];
    packet[..3].copy_from_slice(&[1, 1, 6]);
    packet[4..8].copy_from_slice(&xid.to_be_bytes());
    packet[24..28].copy_from_slice(&giaddr.octets());
    packet[28..34].copy_from_slice(&mac);
    packet.extend([99, 130, 83, 99, 53, 1, 1, 93, 2, 0, 7]);
    packet.extend([60, 20]);
    packet.extend(b"PXEClient:Arch:00007");
    packet.push(255);
    packet
}

/// TFTP: a loader, in lock-step, to its last byte.
fn loads(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    repeat(done, |_| counts.note(&counts.loaders, "TFTP", load()));
}

fn load() -> io::Result<()> {
    let socket = UdpSocket::bind((GOOD, 0))?;
    socket.set_read_timeout(Some(TRY))?;
    let request = [b"\0\x01", LOADER.as_bytes(), b"\0octet\0blksize\x001432\0"].concat();
    let (mut last, mut to) = (request, SocketAddr::from((SERVER, 69)));
    socket.send_to(&last, to)?;
    let (mut buffer, mut expected, mut total, mut silent) = ([0; 2048], 0_u16, 0, 0);
    while silent < TRIES {
        let Some((length, peer)) = received(socket.recv_from(&mut buffer))? else {
            silent += 1;
            socket.send_to(&last, to)?;
            continue;
        };
        let (block, payload) = match Packet::parse(&buffer[..length]) {
            Ok(Packet::OptionAck(_)) => (0, None),
            Ok(Packet::Data { block, payload }) => (block, Some(payload.len())),
            packet => return Err(other(&format!("{packet:?}"))),
        };
        if block != expected {
            continue;
        }
        total += payload.unwrap_or(0);
        expected = expected.wrapping_add(1);
        (last, to) = (Packet::Ack { block }.to_bytes(), peer);
        socket.send_to(&last, to)?;
        if payload.is_some_and(|length| length < 1432) {
            return (total == 300_003)
                .then_some(())
                .ok_or_else(|| other("a loader of another size"));
        }
    }
    Err(other("no more blocks"))
}

fn connect(from: Ipv4Addr, from_port: u16, port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // No TIME_WAIT: a port below 1024 is wanted again soon.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((from, from_port)).into())?;
    socket.connect(&SocketAddrV4::new(SERVER, port).into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// HTTP: a kernel, whole, and a part of it on the same connection.
fn downloads(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    repeat(done, |_| counts.note(&counts.downloads, "HTTP", download()));
}

fn download() -> io::Result<()> {
    let mut stream = connect(GOOD, 0, 80)?;
    stream.write_all(
        b"GET /files/kernels/debian/vmlinuz HTTP/1.1\r\nHost: x\r\nRange: bytes=7-\r\n\r\n",
    )?;
    stream.write_all(
        b"GET /files/initrds/default.img HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let whole = answer.len() > 3_000_000 + 900_001 && answer.starts_with(b"HTTP/1.1 206");
    whole
        .then_some(())
        .ok_or_else(|| other(&format!("{} bytes by HTTP", answer.len())))
}

/// NFS: a session of the Linux kernel's client, replayed.
fn reads(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    let session = captured("nfs")
        .into_iter()
        .max_by_key(Vec::len)
        .expect("a session");
    repeat(done, |round| {
        let answered = (|| {
            let mut stream = connect(GOOD, 600 + (round % 400) as u16, 2049)?;
            stream.write_all(&session)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            (answer.len() > 1000)
                .then_some(())
                .ok_or_else(|| other("no replies by NFS"))
        })();
        counts.note(&counts.reads, "NFS", answered);
    });
}

/// The fuzzers' corpus of a protocol.
fn captured(target: &str) -> Vec<Vec<u8>> {
    let folder: &Path = &repository().join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(folder).expect("the corpus").flatten();
    entries
        .map(|entry| std::fs::read(entry.path()).expect("a file"))
        .collect()
}

/// An address of the bad ones, another in each round.
fn bad_address(round: u32) -> Ipv4Addr {
    let last = BAD.start + (round % u32::from(BAD.end - BAD.start)) as u8;
    Ipv4Addr::new(10, 77, 0, last)
}

/// Damages what was captured: another byte somewhere, or cut.
fn damaged(mut bytes: Vec<u8>, round: u32) -> Vec<u8> {
    let at = round.wrapping_mul(2_654_435_761) as usize % bytes.len().max(1);
    match round % 3 {
        0 => bytes.truncate(at),
        1 => bytes[at] = bytes[at].wrapping_add(round as u8),
        _ => {}
    }
    bytes
}

/// DHCP: machines that nobody listed, without end; broken packets among them.
fn floods(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    let corpus = captured("dhcp");
    repeat(done, |round| {
        let Ok(socket) = UdpSocket::bind((bad_address(round), 0)) else {
            return;
        };
        for each in 0..8 {
            let number = round * 8 + each;
            let [_, a, b, c] = number.to_be_bytes();
            let packet = match each {
                0 => damaged(corpus[number as usize % corpus.len()].clone(), number),
                _ => discover([2, 0, 1, a, b, c], number, bad_address(round)),
            };
            let _ = socket.send_to(&packet, (SERVER, 67));
            counts.bad.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// TFTP: requests whose answers nobody takes, and packets of no transfer.
fn abandons(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    let corpus = captured("tftp");
    // Some stay open and silent, so that the transfer has to give up by itself.
    let mut silent = Vec::new();
    repeat(done, |round| {
        let Ok(socket) = UdpSocket::bind((bad_address(round), 0)) else {
            return;
        };
        let request = [b"\0\x01", LOADER.as_bytes(), b"\0octet\0windowsize\x0016\0"].concat();
        let packet = match round % 2 {
            0 => request,
            _ => damaged(corpus[round as usize % corpus.len()].clone(), round),
        };
        let _ = socket.send_to(&packet, (SERVER, 69));
        counts.bad.fetch_add(1, Ordering::Relaxed);
        silent.push(socket);
        if silent.len() > 64 {
            silent.remove(0);
        }
    });
}

/// HTTP: damaged requests, half ones, and downloads that are left in the middle.
fn mutters(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    let corpus = captured("http");
    leave(counts, done, 80, |round| {
        damaged(corpus[round as usize % corpus.len()].clone(), round)
    });
}

/// NFS: damaged calls, half records, and records of 2 GiB, says their mark.
fn shouts(counts: &Counts, done: &(dyn Fn() -> bool + Sync)) {
    let corpus = captured("nfs");
    leave(counts, done, 2049, |round| match round % 5 {
        0 => vec![0xff; 4],
        _ => damaged(corpus[round as usize % corpus.len()].clone(), round),
    });
}

/// Sends, reads a little of what comes, and is gone; some stay connected for a while and say nothing more.
fn leave(
    counts: &Counts,
    done: &(dyn Fn() -> bool + Sync),
    port: u16,
    bytes: impl Fn(u32) -> Vec<u8>,
) {
    let mut lingering = Vec::new();
    repeat(done, |round| {
        let low_port = if port == 2049 {
            600 + (round % 400) as u16
        } else {
            0
        };
        let Ok(mut stream) = connect(bad_address(round), low_port, port) else {
            return;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
        let _ = stream.write_all(&bytes(round));
        let _ = stream.read(&mut [0; 4096]);
        counts.bad.fetch_add(1, Ordering::Relaxed);
        if round % 4 == 0 {
            lingering.push(stream);
        }
        if lingering.len() > 48 {
            lingering.remove(0);
        }
    });
}
