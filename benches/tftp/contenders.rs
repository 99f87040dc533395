//! The servers, each set up as well as its manual allows.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_tftp::packet::Error;
use async_tftp::server::{Handler, TftpServerBuilder};
use futures_lite::io::Cursor;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::lab::{Result, output, repository};
use super::rig::{SERVER, Server};
use super::{Bench, client, io_error};

/// The argument that makes this program a server of async-tftp.
pub(crate) const ASYNC_TFTP: &str = "serve-async-tftp";

/// Ours serves whoever asks: nobody is listed, and without a pool nobody gets an address.
const INVENTORY: &str = "\
site: bench
networks:
  boot: {subnet: 10.77.0.0/16}
profiles:
hosts:
unknown: {policy: ignore}
";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Bridgehead,
    Dnsmasq,
    TftpdHpa,
    Atftpd,
    AsyncTftp,
}

impl Contender {
    pub(crate) const ALL: [Self; 5] = [
        Self::Bridgehead,
        Self::Dnsmasq,
        Self::TftpdHpa,
        Self::Atftpd,
        Self::AsyncTftp,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridgehead => "bridgehead",
            Self::Dnsmasq => "dnsmasq",
            Self::TftpdHpa => "tftpd-hpa",
            Self::Atftpd => "atftpd",
            Self::AsyncTftp => "async-tftp",
        }
    }

    /// Starts it and waits for its first answer.
    pub(crate) fn start(self, bench: &Bench) -> Result<Server> {
        let log = bench.logs.join(format!("{}.log", self.name()));
        let answers = || client::answers("loader");
        if self == Self::Bridgehead {
            let inventory = bench.logs.join("hosts.yaml");
            fs::write(&inventory, INVENTORY).map_err(io_error("write", &inventory))?;
            let state = bench.logs.join("state");
            let wire = &bench.wire;
            return Server::bridgehead(wire, &inventory, &bench.data, &state, &log, answers);
        }
        let argv = self.command(&bench.data.join("loaders"));
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        Server::start(&bench.wire, &argv, &log, answers)
    }

    /// The command line of another's server on `root`.
    fn command(self, root: &Path) -> Vec<String> {
        let root = root.display();
        let text = match self {
            Self::Bridgehead => "bridgehead serve".to_owned(),
            Self::Dnsmasq => format!(
                "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --pid-file= \
                 --log-facility=- --listen-address={SERVER} --bind-interfaces --enable-tftp --tftp-root={root} \
                 --tftp-max=2000"
            ),
            Self::TftpdHpa => {
                let program = peer("tftpd-hpa/usr/sbin/in.tftpd");
                format!("{program} --foreground --address {SERVER}:69 --user root --secure {root}")
            }
            Self::Atftpd => {
                let program = peer("atftpd/usr/sbin/atftpd");
                format!(
                    "{program} --daemon --no-fork --user root.root --logfile - --maxthread 1000 --bind-address \
                     {SERVER} {root}"
                )
            }
            Self::AsyncTftp => {
                let this = std::env::current_exe().unwrap_or_default();
                format!("{} {ASYNC_TFTP} {root}", this.display())
            }
        };
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn version(self) -> String {
        let first = |argv: &[&str]| {
            let said = output(argv).map(|done| [done.stdout, done.stderr].concat());
            let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
            said.lines().next().unwrap_or("unknown").to_owned()
        };
        match self {
            Self::Bridgehead => concat!("bridgehead ", env!("CARGO_PKG_VERSION")).to_owned(),
            Self::Dnsmasq => first(&["dnsmasq", "--version"]),
            Self::TftpdHpa => first(&[&peer("tftpd-hpa/usr/sbin/in.tftpd"), "--version"]),
            Self::Atftpd => first(&[&peer("atftpd/usr/sbin/atftpd"), "--version"]),
            Self::AsyncTftp => {
                "0.4.2, files in memory, one instance and thread for each of two cores, \
                receive buffers of 16 MiB, time-out 500 ms, 4 retries"
                    .to_owned()
            }
        }
    }
}

/// Versions and commands.
pub(crate) fn conditions(contenders: &[Contender]) -> Vec<(String, String)> {
    let of = |one: &Contender| {
        let command = one.command(Path::new("ROOT")).join(" ");
        (
            one.name().to_owned(),
            format!("{}: `{command}`", one.version()),
        )
    };
    contenders.iter().map(of).collect()
}

/// Debian's packages of these two exclude each other: they are taken apart and not installed (`make peers`).
fn peer(program: &str) -> String {
    let unpacked = PathBuf::from("build/peers").join(program);
    repository().join(unpacked).display().to_string()
}

/// Files in memory: async-tftp's own directory handler reads ahead 8 MiB for each transfer, by a pool of threads.
#[derive(Clone)]
struct Memory(Arc<HashMap<PathBuf, Arc<[u8]>>>);

impl Handler for Memory {
    type Reader = Cursor<Arc<[u8]>>;
    type Writer = futures_lite::io::Sink;

    async fn read_req_open(
        &mut self,
        _client: &SocketAddr,
        path: &Path,
    ) -> std::result::Result<(Self::Reader, Option<u64>), Error> {
        let file = self.0.get(path).ok_or(Error::FileNotFound)?;
        Ok((Cursor::new(file.clone()), Some(file.len() as u64)))
    }

    async fn write_req_open(
        &mut self,
        _client: &SocketAddr,
        _path: &Path,
        _size: Option<u64>,
    ) -> std::result::Result<Self::Writer, Error> {
        Err(Error::PermissionDenied)
    }
}

/// async-tftp as it does best: an instance on each of two threads, no runtime beside it, files in memory.
pub(crate) fn serve_async_tftp(root: &Path) -> ExitCode {
    let serve = || -> std::io::Result<()> {
        let mut files = HashMap::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let content: Arc<[u8]> = fs::read(entry.path())?.into();
            files.insert(PathBuf::from(entry.file_name()), content);
        }
        let handler = Memory(Arc::new(files));
        let sockets = [listener()?, listener()?];
        let threads = sockets.map(|socket| {
            let handler = handler.clone();
            thread::spawn(move || {
                let server = TftpServerBuilder::with_handler(handler)
                    .timeout(Duration::from_millis(500))
                    .max_send_retries(4)
                    .std_socket(socket)
                    .map_err(std::io::Error::other)?;
                let serving = async { server.build().await?.serve().await };
                futures_lite::future::block_on(serving).map_err(std::io::Error::other)
            })
        });
        for thread in threads {
            thread
                .join()
                .map_err(|_| std::io::Error::other("panic"))??;
        }
        Ok(())
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("async-tftp on {}: {error}", root.display());
            ExitCode::FAILURE
        }
    }
}

fn listener() -> std::io::Result<UdpSocket> {
    let address: SocketAddr = format!("{SERVER}:69")
        .parse()
        .map_err(std::io::Error::other)?;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
