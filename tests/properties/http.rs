//! HTTP: whatever a connection brings, it ends, and what it is sent is a response and the file's very bytes.

use std::cell::LazyCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bridgehead::http::{App, Tokens, Turns, router, serve_tcp};
use bridgehead::leases::Journal;
use bridgehead::metrics::HttpMetrics;
use bridgehead::policy::event::MachineId;
use bridgehead::site::{Paths, ReloadState, Site, Snapshot};
use bridgehead::timeline::{Consoles, Timeline};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

const INVENTORY: &str = r#"
site: properties
networks: {boot: {subnet: 10.77.0.0/24, dhcp: server, pool: 10.77.0.100-10.77.0.199}}
profiles: {kvm-host: {kernel: debian, initrd: default, root: {nfs: "10.0.0.9:/srv/root"}}}
hosts: {kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm-host}}
unknown: {policy: hold}
"#;

/// Made true by what follows: a request that ends the connection, if what came before it is whole.
const LAST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Turns of the one thread that all runs on, without a byte: nothing comes any more.
const QUIET: usize = 100;

/// A connection that is open longer after the client has closed its side hangs.
const HANGS: Duration = Duration::from_secs(20);

/// The host of the inventory, and the daemon.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

const LOADER: &str = "ipxe.efi";

thread_local! {
    static WORLD: LazyCell<World> = const { LazyCell::new(World::start) };
}

/// Holds for the bytes of every connection. `@BOOT@` and `@REPORT@` in them stand for the host's tokens.
pub(crate) fn check(bytes: &[u8]) {
    WORLD.with(|world| {
        let bytes = world.with_tokens(bytes);
        let answer = world
            .runtime
            .block_on(converse(world.client, world.address, &bytes));
        check_response(&answer, &world.files);
    });
}

/// A daemon's HTTP side, on this thread.
struct World {
    runtime: Runtime,
    client: Ipv4Addr,
    address: SocketAddr,
    site: Arc<Site>,
    files: [Vec<u8>; 2],
    _dir: TempDir,
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // One that is copied, and one that the kernel sends by itself once it is its turn.
        let pattern = |length: u32| (0..length).map(|at| (at ^ (at >> 8)) as u8).collect();
        let files: [Vec<u8>; 2] = [pattern(70_001), pattern((1 << 20) + 77)];
        let app = app(dir.path(), &files);
        let site = app.site.clone();
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        // Without root nobody is the host, and its own files and reports are refused.
        let own_network = enter_network().is_some();
        let (client, server) = match own_network {
            true => (CLIENT, SERVER),
            false => (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST),
        };
        let listener = runtime.block_on(TcpListener::bind((server, 0)));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("a port");
        let told = Arc::new(|_, why: String| assert!(!why.is_empty()));
        runtime.spawn(serve_tcp(
            listener,
            router(app),
            None,
            site.metrics.http.clone(),
            told,
            CancellationToken::new(),
        ));
        Self {
            runtime,
            client,
            address,
            site,
            files,
            _dir: dir,
        }
    }

    fn with_tokens(&self, bytes: &[u8]) -> Vec<u8> {
        let timeline = &self.site.timeline;
        let attempt = timeline.attempt(&MachineId("kvm01".into()), Timestamp::now());
        let bytes = replaced(bytes, b"@BOOT@", timeline.boot_token(&attempt).as_bytes());
        replaced(
            &bytes,
            b"@REPORT@",
            timeline.report_token(&attempt).as_bytes(),
        )
    }
}

/// A network of this thread's own, whose loopback has both addresses.
fn enter_network() -> Option<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
    let [client, server] = [CLIENT, SERVER].map(|address| address.to_string());
    let changes = [
        ["link", "set", "lo", "up"].as_slice(),
        &["addr", "add", &client, "dev", "lo"],
        &["addr", "add", &server, "dev", "lo"],
    ];
    let made = |change: &&[&str]| Command::new("ip").args(*change).status();
    let all = changes
        .iter()
        .all(|change| made(change).is_ok_and(|status| status.success()));
    assert!(all, "ip(8) is needed");
    Some(())
}

fn app(dir: &Path, [loader, initrd]: &[Vec<u8>; 2]) -> App {
    let (data, state) = (dir.join("data"), dir.join("state"));
    let put = |name: &str, bytes: &[u8]| {
        let path = data.join(name);
        std::fs::create_dir_all(path.parent().expect("below data")).expect("a directory");
        std::fs::write(path, bytes).expect("a file");
    };
    std::fs::create_dir_all(&state).expect("a directory");
    put("../hosts.yaml", INVENTORY.as_bytes());
    put("kernels/debian/vmlinuz", b"small");
    put("initrds/default.img", initrd);
    for file in [LOADER, "undionly.kpxe", "snponly.efi"] {
        put(&format!("loaders/{file}"), loader);
    }
    let paths = Paths {
        inventory: dir.join("hosts.yaml"),
        data,
        templates: None,
    };
    let loaded = Snapshot::load(&paths, None);
    let (snapshot, _) = loaded.unwrap_or_else(|found| panic!("{}", found.to_text(false)));
    let journal = Journal::open(&state).expect("an empty journal");
    let timeline = Timeline::open(&state).expect("an empty timeline");
    let tokens = Tokens::default();
    tokens.set(Some("secret".into()), Some("another".into()));
    App {
        site: Arc::new(Site::new(snapshot, journal, timeline, Arc::default())),
        consoles: Arc::new(Consoles::new(&state)),
        reload: Arc::new(ReloadState::default()),
        turns: Arc::new(Turns::new(HttpMetrics::default())),
        live: Arc::default(),
        tokens: Arc::new(tokens),
    }
}

/// Sends all of it, then nothing more; gives what came back.
async fn converse(client: Ipv4Addr, address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = SocketAddr::from((client, 0));
    socket.bind(from).expect("the client's address");
    let mut stream = socket.connect(address).await.expect("the server listens");
    let mut answer = Vec::new();
    for part in [bytes, LAST] {
        // It may hang up before it has read all.
        let _ = stream.write_all(part).await;
    }
    let ended = read_until_quiet(&stream, &mut answer).await;
    if !ended {
        let _ = stream.shutdown().await;
        let end = read_to_end(&stream, &mut answer);
        tokio::time::timeout(HANGS, end)
            .await
            .expect("a connection that its client closed ends");
    }
    answer
}

/// True at the end of the stream.
async fn read_until_quiet(stream: &TcpStream, answer: &mut Vec<u8>) -> bool {
    let mut quiet = 0;
    while quiet < QUIET {
        match stream.try_read_buf(answer) {
            Ok(0) => return true,
            Ok(_) => quiet = 0,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                quiet += 1;
                yield_now().await;
            }
            // It hung up on what it did not want to read.
            Err(_) => return true,
        }
    }
    false
}

async fn read_to_end(stream: &TcpStream, answer: &mut Vec<u8>) {
    while stream.readable().await.is_ok() {
        match stream.try_read_buf(answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn check_response(answer: &[u8], files: &[Vec<u8>; 2]) {
    if answer.is_empty() {
        return;
    }
    let end = find(answer, b"\r\n\r\n").expect("a whole head");
    let head = std::str::from_utf8(&answer[..end]).expect("a head is text");
    let body = &answer[end + 4..];
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .or(head.strip_prefix("HTTP/1.0 "));
    let status: u16 = status
        .and_then(|rest| rest[..3].parse().ok())
        .expect("a status");
    assert!((100..600).contains(&status), "{head}");
    assert_ne!(
        status,
        500,
        "a fault of our own: {}",
        String::from_utf8_lossy(answer)
    );
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    if let Some(range) = header(head, "content-range").filter(|_| status == 206) {
        check_part(&range, length, body, files);
    } else if let Some(file) = files.iter().find(|file| Some(file.len()) == length) {
        check_bytes(body, file, head);
    }
}

/// HEAD has no body, and of a client that was quiet too early it may be cut.
fn check_bytes(body: &[u8], file: &[u8], what: &str) {
    let common = body.len().min(file.len());
    let is_next = body.starts_with(b"HTTP/1.");
    assert!(
        is_next || body[..common] == file[..common],
        "other bytes: {what}"
    );
}

/// RFC 9110 section 14.4: the part that it says it is.
fn check_part(range: &str, length: Option<usize>, body: &[u8], files: &[Vec<u8>; 2]) {
    let parsed = range.strip_prefix("bytes ").and_then(|range| {
        let (first, rest) = range.split_once('-')?;
        let (last, size) = rest.split_once('/')?;
        Some((
            first.parse::<usize>().ok()?,
            last.parse::<usize>().ok()?,
            size.parse::<usize>().ok()?,
        ))
    });
    let (first, last, size) = parsed.unwrap_or_else(|| panic!("{range}"));
    assert!(first <= last && last < size, "{range}");
    assert_eq!(length, Some(last + 1 - first), "{range}");
    if let Some(file) = files.iter().find(|file| file.len() == size) {
        check_bytes(body, &file[first..=last], range);
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (bytes, Vec::with_capacity(bytes.len()));
    while let Some(at) = find(rest, from) {
        out.extend(&rest[..at]);
        out.extend(to);
        rest = &rest[at + from.len()..];
    }
    out.extend(rest);
    out
}
