//! One file's way to one client, as little work as can be: what is measured is the server.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use bridgehead::wire::tftp::{ErrorCode, Mode, Options, Packet, Request};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg};

/// A client that hears nothing for so long sends its last packet again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// Tries without any answer, after which the server has failed.
const TRIES: u32 = 20;
/// Room for a block of Ethernet's size.
const DATAGRAM: usize = 1500;

/// What a client wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) name: &'a str,
    pub(crate) block_size: u16,
    pub(crate) window: u16,
    /// Ask for the size first, and abort that.
    pub(crate) probe: bool,
    /// What has to arrive.
    pub(crate) content: &'a [u8],
}

/// Room for a window, shared by all fetches of a thread.
pub(crate) struct Room {
    headers: MultiHeaders<SockaddrIn>,
    blocks: Vec<[u8; DATAGRAM]>,
}

impl Room {
    pub(crate) fn new(window: u16) -> Self {
        let blocks = vec![[0; DATAGRAM]; usize::from(window)];
        let headers = MultiHeaders::preallocate(blocks.len(), None);
        Self { headers, blocks }
    }
}

/// One file that is under way.
pub(crate) struct Fetch<'a> {
    ask: Ask<'a>,
    socket: UdpSocket,
    started: Instant,
    heard: Instant,
    tries: u32,
    /// The server's port for this transfer is known.
    connected: bool,
    probing: bool,
    window: u16,
    block_size: usize,
    /// Bytes that are there.
    offset: usize,
    wanted: u16,
    in_window: u16,
    /// An ACK out of turn was sent for the gap that follows.
    complained: bool,
    pub(crate) timeouts: u64,
    /// From the first request to the last block.
    pub(crate) took: Option<Duration>,
}

impl AsFd for Fetch<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<'a> Fetch<'a> {
    /// Sends the first request. A socket that blocks does so for [`RETRY`] at most.
    pub(crate) fn start(ask: Ask<'a>, server: SocketAddr, blocking: bool) -> io::Result<Self> {
        let now = Instant::now();
        let fetch = Self {
            socket: socket(server, blocking)?,
            started: now,
            heard: now,
            tries: 0,
            connected: false,
            probing: ask.probe,
            window: 1,
            block_size: 512,
            offset: 0,
            wanted: 1,
            in_window: 0,
            complained: false,
            timeouts: 0,
            took: None,
            ask,
        };
        fetch.request(server)?;
        Ok(fetch)
    }

    fn request(&self, server: SocketAddr) -> io::Result<()> {
        let request = Packet::Read(Request {
            name: self.ask.name,
            mode: Mode::Octet,
            options: Options {
                block_size: Some(self.ask.block_size.into()),
                timeout: None,
                transfer_size: Some(0),
                window_size: (self.ask.window > 1).then_some(self.ask.window),
            },
        });
        self.socket.send_to(&request.to_bytes(), server).map(drop)
    }

    /// Takes what has arrived: a window at once.
    pub(crate) fn receive(&mut self, room: &mut Room, server: SocketAddr) -> io::Result<()> {
        if !self.connected {
            let block = &mut room.blocks[0];
            let (length, from) = self.socket.recv_from(block)?;
            let first = block[..length].to_vec();
            return self.first(&first, from, server);
        }
        if self.window == 1 {
            let length = self.socket.recv(&mut room.blocks[0])?;
            return self.take(&room.blocks[0][..length]);
        }
        let Room { headers, blocks } = room;
        let mut parts: Vec<_> = blocks.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let fd = self.socket.as_raw_fd();
        let lengths: Vec<usize> = recvmmsg(fd, headers, parts.iter_mut(), flags, None)?
            .map(|message| message.bytes)
            .collect();
        for (length, block) in lengths.into_iter().zip(&*blocks) {
            self.take(&block[..length])?;
        }
        Ok(())
    }

    /// The first answer tells the transfer's port.
    fn first(&mut self, bytes: &[u8], from: SocketAddr, server: SocketAddr) -> io::Result<()> {
        if self.probing {
            let abort = Packet::Error {
                code: ErrorCode::OptionsRefused,
                message: "User aborted the transfer".into(),
            };
            self.socket.send_to(&abort.to_bytes(), from)?;
            self.probing = false;
            // As EDK2, which takes its next port.
            return self.request(server);
        }
        if self.offset == 0 && from.ip() != server.ip() {
            return Err(io::Error::other(format!("answer from {from}")));
        }
        match Packet::parse(bytes) {
            Ok(Packet::OptionAck(granted)) => {
                self.window = granted.window_size.unwrap_or(1);
                let size = granted.block_size.unwrap_or(512);
                self.block_size = usize::try_from(size).map_err(io::Error::other)?;
                self.connect(from)?;
                self.heard = Instant::now();
                self.acknowledge()
            }
            Ok(Packet::Data { .. }) => {
                self.connect(from)?;
                self.take(bytes)
            }
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<()> {
        self.connected = true;
        self.socket.connect(to)
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let [0, 3, high, low, payload @ ..] = bytes else {
            return match Packet::parse(bytes) {
                Ok(Packet::OptionAck(_)) => self.acknowledge(),
                other => Err(io::Error::other(format!("{other:?}"))),
            };
        };
        if u16::from_be_bytes([*high, *low]) != self.wanted {
            return self.complain();
        }
        self.heard = Instant::now();
        (self.tries, self.complained) = (0, false);
        let expected = self.ask.content.get(self.offset..).unwrap_or(&[]);
        if !expected.starts_with(payload) {
            return Err(io::Error::other(format!("wrong bytes at {}", self.offset)));
        }
        self.offset += payload.len();
        self.wanted = self.wanted.wrapping_add(1);
        self.in_window += 1;
        if payload.len() < self.block_size {
            return self.finish();
        }
        if self.in_window >= self.window {
            return self.acknowledge();
        }
        Ok(())
    }

    /// A gap in a window is told at once, and once (RFC 7440 section 4); in lock-step a copy is left.
    fn complain(&mut self) -> io::Result<()> {
        if self.window == 1 || self.complained {
            return Ok(());
        }
        self.complained = true;
        self.acknowledge()
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.offset != self.ask.content.len() {
            let length = self.offset;
            return Err(io::Error::other(format!("file ends after {length} bytes")));
        }
        self.took = Some(self.started.elapsed());
        self.acknowledge()
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        self.in_window = 0;
        let [high, low] = self.wanted.wrapping_sub(1).to_be_bytes();
        self.socket.send(&[0, 4, high, low]).map(drop)
    }

    /// Sends the last packet again where it is time.
    pub(crate) fn on_time(&mut self, server: SocketAddr) -> io::Result<()> {
        if self.heard.elapsed() < RETRY {
            return Ok(());
        }
        self.timeouts += 1;
        self.tries += 1;
        self.heard = Instant::now();
        if self.tries > TRIES {
            let kind = io::ErrorKind::TimedOut;
            return Err(io::Error::new(kind, format!("silent at {}", self.offset)));
        }
        match self.connected {
            true => self.acknowledge(),
            false => self.request(server),
        }
    }

    /// Bytes of the file that arrived.
    pub(crate) fn bytes(&self) -> u64 {
        self.offset as u64
    }
}

fn socket(server: SocketAddr, blocking: bool) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(!blocking)?;
    if blocking {
        socket.set_read_timeout(Some(RETRY))?;
    }
    Ok(socket)
}
