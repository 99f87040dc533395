//! TFTP as firmware speaks it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use bridgehead::wire::tftp::{ErrorCode, Mode, Options, Packet, Request};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::weather::Weather;

/// How a client fetches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    block: u32,
    window: Option<u16>,
    /// Asks for the size first and refuses the transfer as soon as it knows.
    probes: bool,
    /// Milliseconds to wait for a packet, try by try; from the start again after each that came.
    ladder: &'static [u64],
}

/// EDK2 NetworkPkg: `PcdPxeTftpWindowSize` 4, `PXEBC_MTFTP_TIMEOUT` 4 s and 6 tries.
pub(super) const EDK2: Client = Client {
    block: 1468,
    window: Some(4),
    probes: true,
    ladder: &[4000; 6],
};
/// iPXE src/net/udp/tftp.c and src/net/retry.c: lock-step; a quarter of a second, doubled up to 10 s.
pub(super) const LOCK_STEP: Client = Client {
    block: 1432,
    window: None,
    probes: false,
    ladder: &[250, 500, 1000, 2000, 4000, 8000, 10_000],
};

/// One machine's ways to the server.
pub(super) struct Fetching<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) server: SocketAddrV4,
    pub(super) weather: &'a mut Weather,
    /// Packets that were sent again.
    pub(super) retries: u64,
}

impl Fetching<'_> {
    /// Fetches `name`; what arrives must be `expected`.
    pub(super) async fn fetch(
        &mut self,
        client: Client,
        name: &str,
        expected: &[u8],
    ) -> Result<(), String> {
        if client.probes {
            self.probe(client, name, expected.len()).await?;
        }
        let mut transfer = self.begin(client, name).await?;
        transfer.run(expected).await?;
        self.retries += transfer.retries;
        Ok(())
    }

    /// Asks for the size and refuses the rest (EDK2 PxeBcMtftp.c, `PxeBcTftpGetFileSize`).
    async fn probe(&mut self, client: Client, name: &str, size: usize) -> Result<(), String> {
        let mut transfer = self.begin(client, name).await?;
        let reply = transfer.hear().await?;
        let told = match Packet::parse(&reply) {
            Ok(Packet::OptionAck(options)) => options.transfer_size,
            other => return Err(format!("no OACK to a size probe: {other:?}")),
        };
        let message = "User aborted the transfer".into();
        let code = ErrorCode::OptionsRefused;
        transfer
            .say(Packet::Error { code, message }.to_bytes())
            .await?;
        self.retries += transfer.retries;
        if told == Some(size as u64) {
            Ok(())
        } else {
            Err(format!("tsize {told:?} for a file of {size} bytes"))
        }
    }

    async fn begin(&mut self, client: Client, name: &str) -> Result<Transfer<'_>, String> {
        let socket = UdpSocket::bind((self.address, 0)).await;
        let request = Request {
            name,
            mode: Mode::Octet,
            options: Options {
                block_size: Some(client.block),
                transfer_size: Some(0),
                window_size: client.window,
                timeout: None,
            },
        };
        let mut transfer = Transfer {
            socket: socket.map_err(|error| format!("cannot bind {}: {error}", self.address))?,
            server: SocketAddr::V4(self.server),
            known: false,
            weather: self.weather,
            client,
            last: Vec::new(),
            buffer: vec![0; 2048],
            retries: 0,
        };
        transfer.say(Packet::Read(request).to_bytes()).await?;
        Ok(transfer)
    }
}

struct Transfer<'a> {
    socket: UdpSocket,
    server: SocketAddr,
    /// The server has chosen its port.
    known: bool,
    weather: &'a mut Weather,
    client: Client,
    last: Vec<u8>,
    buffer: Vec<u8>,
    retries: u64,
}

impl Transfer<'_> {
    async fn say(&mut self, packet: Vec<u8>) -> Result<(), String> {
        self.last = packet;
        self.repeat().await
    }

    async fn repeat(&mut self) -> Result<(), String> {
        self.weather.travel().await;
        if self.weather.loses() {
            return Ok(());
        }
        let sent = self.socket.send_to(&self.last, self.server).await;
        sent.map(drop)
            .map_err(|error| format!("cannot send: {error}"))
    }

    async fn ack(&mut self, block: u16) -> Result<(), String> {
        self.say(Packet::Ack { block }.to_bytes()).await
    }

    /// The next packet; what was said last is said again while none comes.
    async fn hear(&mut self) -> Result<Vec<u8>, String> {
        for wait in self.client.ladder {
            let until = Instant::now() + Duration::from_millis(*wait);
            loop {
                let heard = timeout_at(until.into(), self.socket.recv_from(&mut self.buffer));
                let Ok(heard) = heard.await else { break };
                let (length, from) = heard.map_err(|error| format!("cannot receive: {error}"))?;
                if self.weather.loses() || (self.known && from != self.server) {
                    continue;
                }
                (self.server, self.known) = (from, true);
                return Ok(self.buffer[..length].to_vec());
            }
            self.retries += 1;
            self.repeat().await?;
        }
        Err(format!(
            "no answer by TFTP after {} tries",
            self.client.ladder.len()
        ))
    }

    /// Takes blocks until the short one.
    async fn run(&mut self, expected: &[u8]) -> Result<(), String> {
        let (block_size, window) = self.terms().await?;
        let mut taken = 0;
        let mut in_window = 0;
        loop {
            let packet = self.hear().await?;
            let (block, payload) = match Packet::parse(&packet) {
                Ok(Packet::Data { block, payload }) => (block, payload),
                // The ACK of block 0 was lost.
                Ok(Packet::OptionAck(_)) => {
                    self.ack(0).await?;
                    continue;
                }
                other => return Err(format!("after {taken} bytes: {other:?}")),
            };
            let have = (taken / block_size) as u16;
            if block != have.wrapping_add(1) {
                // Each one, as EDK2 Mtftp4Rrq.c does: RFC 7440 section 4 would have it once.
                self.ack(have).await?;
                in_window = 0;
                continue;
            }
            if expected.get(taken..taken + payload.len()) != Some(payload) {
                return Err(format!("other bytes at {taken}"));
            }
            taken += payload.len();
            in_window += 1;
            let last = payload.len() < block_size;
            if last || in_window == window {
                self.ack(block).await?;
                in_window = 0;
            }
            if last {
                return if taken == expected.len() {
                    Ok(())
                } else {
                    Err(format!("{taken} of {} bytes", expected.len()))
                };
            }
        }
    }

    /// Block and window size that the server grants.
    async fn terms(&mut self) -> Result<(usize, u32), String> {
        let reply = self.hear().await?;
        let options = match Packet::parse(&reply) {
            Ok(Packet::OptionAck(options)) => options,
            other => return Err(format!("no OACK: {other:?}")),
        };
        self.ack(0).await?;
        let block = options.block_size.unwrap_or(512) as usize;
        Ok((block, u32::from(options.window_size.unwrap_or(1))))
    }
}
