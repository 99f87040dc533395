//! One host from power-on to *joined*.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::air::Air;
use super::dhcp::{self, Asking, Lease};
use super::http::{self, Connection};
use super::place::Files;
use super::tftp::{self, Fetching};
use super::weather::Weather;
use super::{PATIENCE, Storm};
use crate::rig::SERVER;

/// One host of so many looks at every byte of its kernel and initrd.
const INSPECTS: u16 = 50;

/// How often a machine that waits for its name asks; our initrd takes 8 s.
const NEXT: Duration = Duration::from_secs(2);

/// What a host waits for, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The firmware's address and boot file.
    Dhcp,
    /// The loader, by TFTP.
    Loader,
    /// iPXE's address and script.
    IpxeDhcp,
    /// The script, by HTTP.
    Script,
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// Configuration, files and events of the initrd and the root, up to *joined*.
    Report,
}

impl Stage {
    /// Every one, in order.
    pub const ALL: [Self; 7] = [
        Self::Dhcp,
        Self::Loader,
        Self::IpxeDhcp,
        Self::Script,
        Self::Kernel,
        Self::Initrd,
        Self::Report,
    ];

    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Loader => "loader",
            Self::IpxeDhcp => "ipxe-dhcp",
            Self::Script => "script",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Report => "report",
        }
    }
}

/// A host that did not come up.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub host: u16,
    /// Where; `None`: it took too long in all.
    pub stage: Option<Stage>,
    /// Why.
    pub why: String,
}

/// One boot.
#[derive(Debug, Default)]
pub(super) struct Boot {
    /// How long each stage took.
    pub(super) stages: Vec<(Stage, Duration)>,
    /// From power-on to the end.
    pub(super) took: Duration,
    /// Without the report: up to the initrd's last byte, which is where other servers end.
    pub(super) loaded: Duration,
    pub(super) dhcp_retries: u64,
    pub(super) tftp_retries: u64,
    pub(super) http_retries: u64,
    pub(super) lost: u64,
    /// The name that it was given, if it waited for one.
    pub(super) name: Option<String>,
    /// The longest that it waited for an answer then.
    pub(super) slowest: Duration,
    pub(super) failure: Option<Failure>,
}

impl Boot {
    pub(super) fn overdue(host: u16) -> Self {
        let why = format!("not done after {} s", PATIENCE.as_secs());
        Self {
            failure: Some(Failure {
                host,
                stage: None,
                why,
            }),
            took: PATIENCE,
            ..Self::default()
        }
    }
}

/// A machine without a disk.
pub(super) struct Host {
    number: u16,
    air: Arc<Air>,
    files: Arc<Files>,
    weather: Weather,
    boot: Boot,
    stage: Stage,
    report: bool,
    unlisted: bool,
}

/// What a loader's script says.
struct Script {
    kernel: String,
    initrd: String,
    cmdline: Vec<(String, String)>,
}

type Outcome<T> = Result<T, String>;

impl Host {
    pub(super) fn new(number: u16, storm: &Storm, air: Arc<Air>, files: Arc<Files>) -> Self {
        Self {
            number,
            air,
            files,
            weather: Weather::new(storm.seed, number, storm.loss_percent, storm.delay),
            boot: Boot::default(),
            stage: Stage::Dhcp,
            report: storm.report,
            unlisted: storm.unlisted,
        }
    }

    /// Every second one is a BIOS machine.
    fn is_uefi(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    pub(super) async fn boot(mut self) -> Boot {
        let began = Instant::now();
        if let Err(why) = self.stages().await {
            self.boot.failure = Some(Failure {
                host: self.number,
                stage: Some(self.stage),
                why,
            });
        }
        self.boot.took = began.elapsed();
        self.boot.lost = self.weather.lost;
        let upto_initrd = self
            .boot
            .stages
            .iter()
            .filter(|(stage, _)| *stage < Stage::Report);
        self.boot.loaded = upto_initrd.map(|(_, took)| *took).sum();
        self.boot
    }

    async fn stages(&mut self) -> Outcome<()> {
        let (rom, ipxe) = if self.is_uefi() {
            (dhcp::EDK2, dhcp::UEFI_IPXE)
        } else {
            (dhcp::BIOS_ROM, dhcp::BIOS_IPXE)
        };
        let mut at = Instant::now();
        let lease = self.lease(rom).await?;
        self.done(Stage::Dhcp, Stage::Loader, &mut at);
        self.loader(&lease).await?;
        self.done(Stage::Loader, Stage::IpxeDhcp, &mut at);
        let again = self.lease(ipxe).await?;
        if again.address != lease.address {
            return Err(format!("{} became {}", lease.address, again.address));
        }
        self.done(Stage::IpxeDhcp, Stage::Script, &mut at);
        let (server, path) = http::split(&again.boot_file)
            .ok_or_else(|| format!("boot file {:?} is no URL", again.boot_file))?;
        let mut connection = self.connect(lease.address, server).await?;
        let text = self.get(&mut connection, path).await?;
        let script = script(&text)?;
        self.done(Stage::Script, Stage::Kernel, &mut at);
        if self.unlisted {
            drop(connection);
            let from = lease.address;
            return self.wait_for_name(from, server, &script).await;
        }
        let files = self.files.clone();
        self.load(
            &mut connection,
            lease.address,
            &script.kernel,
            &files.kernel,
        )
        .await?;
        self.done(Stage::Kernel, Stage::Initrd, &mut at);
        self.load(
            &mut connection,
            lease.address,
            &script.initrd,
            &files.initrd,
        )
        .await?;
        drop(connection);
        self.done(Stage::Initrd, Stage::Report, &mut at);
        if self.report {
            self.report(lease.address, server, &script).await?;
            self.done(Stage::Report, Stage::Report, &mut at);
        }
        Ok(())
    }

    fn done(&mut self, stage: Stage, next: Stage, at: &mut Instant) {
        self.boot.stages.push((stage, at.elapsed()));
        self.stage = next;
        *at = Instant::now();
    }

    async fn lease(&mut self, client: dhcp::Client) -> Outcome<Lease> {
        let mut asking = Asking {
            number: self.number,
            air: &self.air,
            weather: &mut self.weather,
            retries: 0,
        };
        let lease = asking.lease(client).await;
        self.boot.dhcp_retries += asking.retries;
        let lease = lease?;
        // Each time: a server may have told its kernel the MAC in the DHCP packet (SIOCSARP, as dnsmasq does), which is
        // not the one that the simulator's kernel takes.
        let resolved = self.air.resolve(lease.address, server_address()).await;
        resolved.map_err(|error| format!("cannot ask for the server's MAC: {error}"))?;
        Ok(lease)
    }

    async fn loader(&mut self, lease: &Lease) -> Outcome<()> {
        let (client, loader) = if self.is_uefi() {
            (tftp::EDK2, &self.files.uefi_loader)
        } else {
            (tftp::LOCK_STEP, &self.files.bios_loader)
        };
        let mut fetching = Fetching {
            address: lease.address,
            server: SocketAddrV4::new(server_address(), 69),
            weather: &mut self.weather,
            retries: 0,
        };
        let fetched = fetching.fetch(client, &lease.boot_file, loader).await;
        self.boot.tftp_retries += fetching.retries;
        fetched.map_err(|why| format!("{}: {why}", lease.boot_file))
    }

    async fn connect(&self, from: Ipv4Addr, server: SocketAddrV4) -> Outcome<Connection> {
        let open = Connection::open(from, server).await;
        open.map_err(|error| format!("cannot connect to {server}: {error}"))
    }

    async fn get(&self, connection: &mut Connection, path: &str) -> Outcome<String> {
        let failed = |error| format!("GET {path}: {error}");
        self.weather.travel().await;
        let answer = connection
            .ask("GET", path, "Connection: keep-alive\r\n", "")
            .await;
        let answer = answer.map_err(failed)?;
        let body = connection.body(&answer).await.map_err(failed)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        match answer.status {
            200 => Ok(text),
            status => Err(format!("GET {path}: {status} {text}")),
        }
    }

    /// Fetches a file as our script tells iPXE to: up to five more tries, 5 s apart (templates/ipxe).
    async fn load(
        &mut self,
        connection: &mut Connection,
        from: Ipv4Addr,
        url: &str,
        expected: &[u8],
    ) -> Outcome<()> {
        let (server, path) = http::split(url).ok_or_else(|| format!("{url:?} is no URL"))?;
        let mut why = String::new();
        for tries in 0..6 {
            if tries > 0 {
                self.boot.http_retries += 1;
                tokio::time::sleep(Duration::from_secs(5)).await;
                *connection = self.connect(from, server).await?;
            }
            match self.take(connection, path, expected).await {
                Ok(()) => return Ok(()),
                Err(bad) => why = bad,
            }
        }
        Err(format!("GET {path}: {why}"))
    }

    async fn take(&self, connection: &mut Connection, path: &str, expected: &[u8]) -> Outcome<()> {
        let said = |error: std::io::Error| error.to_string();
        self.weather.travel().await;
        let answer = connection
            .ask("GET", path, "Connection: keep-alive\r\n", "")
            .await;
        let answer = answer.map_err(said)?;
        if (answer.status, answer.length) != (200, expected.len()) {
            return Err(format!("{answer:?} for {} bytes", expected.len()));
        }
        if !self.number.is_multiple_of(INSPECTS) {
            return connection.discard(&answer).await.map_err(said);
        }
        let body = connection.body(&answer).await.map_err(said)?;
        if body == expected {
            Ok(())
        } else {
            Err("other bytes".into())
        }
    }

    /// What the inventory boot tells, and asks until it is told who it is.
    async fn wait_for_name(
        &mut self,
        from: Ipv4Addr,
        server: SocketAddrV4,
        script: &Script,
    ) -> Outcome<()> {
        let token = script.of("bridgehead.token").unwrap_or_default();
        let machine = script.of("bridgehead.host").unwrap_or_default();
        let [a, b, c, d, e, f] = super::mac(self.number);
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        let found = format!(
            "machine=x86_64\nfirmware=uefi\nserial=STORM{}\ncpus=64\nmemory_kib=263842816\nnic=eth0\nmac={mac}\nlink=1\n",
            self.number
        );
        let told = format!("/v1/boot/{machine}/inventory");
        self.ask(from, server, token, "POST", &told, &found).await?;
        loop {
            let asked = Instant::now();
            let path = format!("/boot/{mac}/next");
            let next = self.ask(from, server, token, "GET", &path, "").await?;
            self.boot.slowest = self.boot.slowest.max(asked.elapsed());
            let next = String::from_utf8_lossy(&next).into_owned();
            let host = next.lines().find_map(|line| line.strip_prefix("host="));
            if let Some(host) = host.filter(|_| next.starts_with("next=go\n")) {
                self.boot.name = Some(host.to_owned());
                return Ok(());
            }
            tokio::time::sleep(NEXT).await;
        }
    }

    /// On a connection of its own, as BusyBox's wget does.
    async fn ask(
        &self,
        from: Ipv4Addr,
        server: SocketAddrV4,
        token: &str,
        method: &'static str,
        path: &str,
        body: &str,
    ) -> Outcome<Vec<u8>> {
        let mut connection = self.connect(from, server).await?;
        let headers = format!("Connection: close\r\nX-Bridgehead-Token: {token}\r\n");
        let failed = |error: std::io::Error| format!("{method} {path}: {error}");
        self.weather.travel().await;
        let answer = connection.ask(method, path, &headers, body).await;
        let answer = answer.map_err(failed)?;
        let body = connection.body(&answer).await.map_err(failed)?;
        match answer.status {
            200 | 204 => Ok(body),
            status => Err(format!(
                "{method} {path}: {status} {}",
                String::from_utf8_lossy(&body)
            )),
        }
    }

    /// What initrd and root ask and tell.
    async fn report(&self, from: Ipv4Addr, server: SocketAddrV4, script: &Script) -> Outcome<()> {
        let boot_token = script.of("bridgehead.token").unwrap_or_default();
        let name = script.of("bridgehead.host").unwrap_or_default();
        let api = |resource: &str| format!("/v1/boot/{name}/{resource}");
        let ask = |token: String, method: &'static str, path: String, body: String| async move {
            self.ask(from, server, &token, method, &path, &body).await
        };
        let before_address = ["early", "drivers", "nic", "link", "bridge", "address"];
        let events: Vec<_> = before_address
            .iter()
            .map(|stage| event(stage, script))
            .collect();
        ask(boot_token.into(), "POST", api("events"), events.join("\n")).await?;
        let config = ask(boot_token.into(), "GET", api("config"), String::new()).await?;
        let config = String::from_utf8_lossy(&config).into_owned();
        let of = |key: &str| {
            let line = config.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.strip_prefix('='))
                .unwrap_or_default()
                .to_owned()
        };
        let token = of("report_token");
        for stage in ["config", "identity", "root"] {
            ask(token.clone(), "POST", api("events"), event(stage, script)).await?;
        }
        if let Ok(bytes) = of("files_bytes").parse::<usize>() {
            let archive = ask(token.clone(), "GET", api("files"), String::new()).await?;
            if archive.len() != bytes {
                return Err(format!("{} bytes of files, not {bytes}", archive.len()));
            }
        }
        for stage in ["overlay", "verify", "switch", "online", "pool", "joined"] {
            ask(token.clone(), "POST", api("events"), event(stage, script)).await?;
        }
        Ok(())
    }
}

fn server_address() -> Ipv4Addr {
    SERVER.parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// An event as initrd/tree writes it.
fn event(stage: &str, script: &Script) -> String {
    let attempt = script.of("bridgehead.attempt").unwrap_or_default();
    // The host's own clock, which tells a report that was repeated from another one.
    let uptime: usize = stage.bytes().map(usize::from).sum();
    format!(
        "attempt={attempt}\nstage={stage}\nstate=ok\nuptime_ms={uptime}\ntry=1\nmessage={stage} of a storm\n"
    )
}

impl Script {
    /// An argument of the kernel's command line.
    fn of(&self, key: &str) -> Option<&str> {
        let found = self.cmdline.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }
}

/// The `kernel` and `initrd` lines of an iPXE script.
fn script(text: &str) -> Outcome<Script> {
    let line = |verb: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(verb));
        found.ok_or_else(|| format!("no `{verb}` in the script {text:?}"))
    };
    let mut kernel = line("kernel ")?.split_whitespace();
    let initrd = line("initrd ")?
        .split_whitespace()
        .find(|word| word.starts_with("http://"));
    let url = kernel.next().unwrap_or_default().to_owned();
    let argument = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(Script {
        kernel: url,
        initrd: initrd.unwrap_or_default().to_owned(),
        cmdline: kernel.map(argument).collect(),
    })
}
