//! The servers, each set up as well as its manual allows.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use bridgehead::inventory::model::MacAddr;
use bridgehead::wire::offer;
use serde_json::json;

use super::Bench;
use super::lab::{Result, io_error, output};
use super::rig::{CLIENT, INTERFACE, SERVER, Server};

/// Machines that are not listed get addresses of the pool.
const INVENTORY: &str = "\
site: bench
networks:
  boot: {subnet: 10.77.0.0/16, pool: 10.77.8.0-10.77.250.255, lease_time: 1h}
profiles:
hosts:
unknown: {policy: hold}
";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Bridgehead,
    Kea,
    Dnsmasq,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Bridgehead, Self::Kea, Self::Dnsmasq];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridgehead => "bridgehead",
            Self::Kea => "kea",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Starts it with no lease, and waits for its first answer.
    pub(crate) fn start(self, bench: &Bench) -> Result<Server> {
        let (place, wire) = (&bench.place, &bench.wire);
        fs::create_dir_all(place).map_err(io_error("create", place))?;
        let log = place.join(format!("{}.log", self.name()));
        let write = |name: &str, text: &str| {
            let file = place.join(name);
            fs::write(&file, text).map_err(io_error("write", &file))?;
            Ok(file)
        };
        let argv = match self {
            Self::Bridgehead => {
                let inventory = write("hosts.yaml", INVENTORY)?;
                let (data, state) = (place.join("data"), place.join("state"));
                let loaders = data.join("loaders");
                fs::create_dir_all(&loaders).map_err(io_error("create", &loaders))?;
                return Server::bridgehead(wire, &inventory, &data, &state, &log, answers);
            }
            Self::Kea => {
                let leases = place.join("kea.csv");
                let _ = fs::remove_file(&leases);
                let config = write("kea.json", &kea(&leases))?;
                // Its lock and its pid file go where nobody else's are.
                format!(
                    "env KEA_PIDFILE_DIR={0} KEA_LOCKFILE_DIR={0} kea-dhcp4 -c {1}",
                    place.display(),
                    config.display()
                )
            }
            Self::Dnsmasq => {
                let leases = place.join("dnsmasq.leases");
                let _ = fs::remove_file(&leases);
                dnsmasq(&leases)
            }
        };
        let argv: Vec<&str> = argv.split_whitespace().collect();
        Server::start(wire, &argv, &log, answers)
    }
}

/// All machines are behind a relay: Kea's manual advises UDP sockets for that. Two threads, as there are cores here.
fn kea(leases: &Path) -> String {
    json!({"Dhcp4": {
        "interfaces-config": {"interfaces": [INTERFACE], "dhcp-socket-type": "udp"},
        "multi-threading": {"enable-multi-threading": true, "thread-pool-size": 2, "packet-queue-size": 64},
        "lease-database": {"type": "memfile", "persist": true, "name": leases, "lfc-interval": 0},
        "valid-lifetime": 3600,
        "subnet4": [{"id": 1, "subnet": "10.77.0.0/16", "pools": [{"pool": "10.77.8.0-10.77.250.255"}]}],
        "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stdout"}]}],
    }})
    .to_string()
}

fn dnsmasq(leases: &Path) -> String {
    format!(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --pid-file= --log-facility=- \
         --interface={INTERFACE} --bind-interfaces --quiet-dhcp --no-ping --dhcp-lease-max=100000 \
         --dhcp-range=10.77.8.0,10.77.250.255,255.255.0.0,1h --dhcp-leasefile={}",
        leases.display()
    )
}

/// Whether a DISCOVER gets an answer, from a relay.
fn answers() -> bool {
    let asked = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((CLIENT, 67))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut discover = offer::discover(1, MacAddr([2, 0, 0, 0xff, 0, 1]));
        // A PXE client is answered by who has a loader for it: what says so goes, the message type stays.
        discover.truncate(243);
        discover.push(255);
        discover.resize(300, 0);
        let relay: std::net::Ipv4Addr = CLIENT.parse().map_err(std::io::Error::other)?;
        discover[24..28].copy_from_slice(&relay.octets());
        socket.send_to(&discover, (SERVER, 67))?;
        socket.recv(&mut [0; 1500])
    };
    asked().is_ok()
}

/// Versions and commands.
pub(crate) fn conditions(contenders: &[Contender]) -> Vec<(String, String)> {
    let version = |argv: &[&str]| {
        let text = output(argv).map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
        text.unwrap_or_default()
            .lines()
            .next()
            .unwrap_or("?")
            .to_owned()
    };
    let of = |contender: &Contender| {
        let text = match contender {
            Contender::Bridgehead => version(&[super::lab::bridgehead(), "--version"]),
            Contender::Kea => format!("Kea {}", version(&["kea-dhcp4", "-v"])),
            Contender::Dnsmasq => version(&["dnsmasq", "--version"]),
        };
        (contender.name().to_owned(), text)
    };
    contenders.iter().map(of).collect()
}
