//! A server with files in a map, a record of its events, and a client that speaks in datagrams.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bridgehead::tftp::{
    Limits, Observer, Outcome, Patience, Refusal, Request, Server, Source, TransferEvent, What,
};
use bridgehead::wire::tftp::{ErrorCode, Mode, Options, Packet, Request as WireRequest};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything: far beyond what a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

struct Files(HashMap<String, Bytes>);

impl Source for Files {
    fn open(&self, request: &Request) -> Result<Bytes, Refusal> {
        let file = self.0.get(&*request.name);
        file.cloned().ok_or_else(Refusal::not_found)
    }
}

struct Recorder(mpsc::UnboundedSender<TransferEvent>);

impl Observer for Recorder {
    fn observe(&self, event: TransferEvent) {
        let _ = self.0.send(event);
    }
}

/// A running server; it ends with this.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    runtime: Option<Runtime>,
    running: Option<JoinHandle<()>>,
    events: mpsc::UnboundedReceiver<TransferEvent>,
}

/// A megabyte and a bit that doesn't compress or repeat at any block size.
pub(crate) fn image() -> Bytes {
    let mut state = 0x2545_f491_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(1_300_007).collect()
}

/// Serves as the daemon does.
pub(crate) fn serve() -> Served {
    serve_with(Limits::default(), Duration::ZERO)
}

/// Serves without ever sending again for want of an answer, so that a slow machine sees the same conversation.
pub(crate) fn serve_calmly() -> Served {
    serve_with(calm(), Duration::ZERO)
}

pub(crate) fn calm() -> Limits {
    let hour = Duration::from_secs(3600);
    let patience = Patience {
        first: hour,
        floor: hour,
        ceiling: hour,
        stalled: hour,
        last_ack: hour,
        lifetime: hour,
    };
    Limits {
        patience,
        ..Limits::default()
    }
}

pub(crate) fn serve_with(limits: Limits, drain: Duration) -> Served {
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    start(Server::bind(loopback).unwrap().with_limits(limits), drain)
}

/// Serves `boot/image`, `small` and the like on `server`'s sockets.
pub(crate) fn start(server: Server, drain: Duration) -> Served {
    let address = server.local_addresses().next().unwrap();
    let files = [
        ("boot/image", image()),
        ("image", image()),
        ("small", Bytes::from_static(b"hello\r\nworld\n")),
        ("empty", Bytes::new()),
        ("kilobyte", image().slice(..1024)),
        (
            "lines",
            Bytes::from_static(b"one\ntwo\r\nthree\rfour\0five"),
        ),
    ];
    let files = files.map(|(name, file)| (name.to_owned(), file));
    let source = Arc::new(Files(HashMap::from(files)));
    let (sender, events) = mpsc::unbounded_channel();
    let observer = Arc::new(Recorder(sender));
    let shutdown = CancellationToken::new();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let serving = server.run(source, observer, shutdown.clone(), drain);
    let running = runtime.spawn(async { serving.await.unwrap() });
    Served {
        address,
        shutdown,
        runtime: Some(runtime),
        running: Some(running),
        events,
    }
}

impl Served {
    /// The next event that `pick` takes; others are dropped.
    #[track_caller]
    pub(crate) fn event<T>(&mut self, mut pick: impl FnMut(TransferEvent) -> Option<T>) -> T {
        let events = &mut self.events;
        let found = async {
            while let Some(event) = events.recv().await {
                if let Some(found) = pick(event) {
                    return Some(found);
                }
            }
            None
        };
        let runtime = self.runtime.as_ref().unwrap();
        let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, found).await });
        found
            .expect("no such event in time")
            .expect("the server ended")
    }

    #[track_caller]
    pub(crate) fn outcome(&mut self) -> Outcome {
        self.event(|event| match event.what {
            What::Finished { outcome, .. } => Some(outcome),
            _ => None,
        })
    }

    /// The next `count` outcomes; those of transfers that follow one another may come in either order.
    #[track_caller]
    pub(crate) fn outcomes(&mut self, count: usize) -> Vec<Outcome> {
        (0..count).map(|_| self.outcome()).collect()
    }

    /// Waits for the server's own end.
    #[track_caller]
    pub(crate) fn wait(&mut self) {
        let running = self.running.take().unwrap();
        let runtime = self.runtime.as_ref().unwrap();
        let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, running).await });
        ended.expect("the server goes on").unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

/// A client's socket.
pub(crate) struct Client(pub(crate) UdpSocket);

impl Client {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn send(&self, to: SocketAddr, packet: &Packet<'_>) {
        self.0.send_to(&packet.to_bytes(), to).unwrap();
    }

    pub(crate) fn read(&self, to: SocketAddr, name: &str, options: Options) {
        let mode = Mode::Octet;
        let request = WireRequest {
            name,
            mode,
            options,
        };
        self.send(to, &Packet::Read(request));
    }

    pub(crate) fn ack(&self, to: SocketAddr, block: u16) {
        self.send(to, &Packet::Ack { block });
    }

    pub(crate) fn error(&self, to: SocketAddr, code: ErrorCode, message: &str) {
        let message = message.into();
        self.send(to, &Packet::Error { code, message });
    }

    /// The next datagram and where it came from.
    #[track_caller]
    pub(crate) fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let mut buffer = vec![0; 70_000];
        let (length, from) = self.0.recv_from(&mut buffer).expect("no answer in time");
        buffer.truncate(length);
        (from, buffer)
    }

    #[track_caller]
    pub(crate) fn receive_option_ack(&self) -> (SocketAddr, Options) {
        let (from, bytes) = self.receive();
        match Packet::parse(&bytes) {
            Ok(Packet::OptionAck(options)) => (from, options),
            other => panic!("no OACK: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn receive_data(&self) -> (SocketAddr, u16, Vec<u8>) {
        let (from, bytes) = self.receive();
        match Packet::parse(&bytes) {
            Ok(Packet::Data { block, payload }) => (from, block, payload.to_vec()),
            other => panic!("no DATA: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn receive_error(&self) -> (SocketAddr, ErrorCode, String) {
        let (from, bytes) = self.receive();
        match Packet::parse(&bytes) {
            Ok(Packet::Error { code, message }) => (from, code, message.into_owned()),
            other => panic!("no ERROR: {other:?}"),
        }
    }

    /// Takes what follows the OACK up to the end, acknowledging whole windows.
    #[track_caller]
    pub(crate) fn take_file(&self, from: SocketAddr, block_size: usize, window: u16) -> Vec<u8> {
        self.ack(from, 0);
        let mut file = Vec::new();
        let mut wanted = 1_u16;
        loop {
            let (_, block, payload) = self.receive_data();
            if block != wanted {
                continue;
            }
            let is_last = payload.len() < block_size;
            file.extend(payload);
            if is_last || wanted.is_multiple_of(window) {
                self.ack(from, wanted);
            }
            if is_last {
                return file;
            }
            wanted = wanted.wrapping_add(1);
        }
    }
}

pub(crate) fn asking(block_size: u32, window_size: u16) -> Options {
    Options {
        block_size: Some(block_size),
        window_size: Some(window_size),
        transfer_size: Some(0),
        timeout: None,
    }
}
