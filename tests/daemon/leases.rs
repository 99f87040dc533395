//! Leases and addresses when things go wrong: the daemon is killed, an address is somebody's
//! already, another server is on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::clients::{Program, lease};
use crate::fake::{self, INVENTORY};
use crate::lab::{Lab, Namespace, Process, Site, bridgehead, io_error, output};
use crate::ok;

fn site(name: &str, pool: &str) -> Option<Site> {
    let lab = Lab::for_test(name)?;
    let data = ok(fake::data_dir(lab.dir()));
    let logs = lab.dir().join("logs");
    let inventory = INVENTORY.replace("10.77.0.100-10.77.0.199", pool);
    Some(ok(Site::start(lab, &inventory, &data, &logs)))
}

type Mac = [u8; 6];

/// For a handful of leases.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay with machines behind it: what it sends comes back to its address, port 67.
struct Relay {
    socket: UdpSocket,
    address: Ipv4Addr,
}

impl Relay {
    fn new(namespace: &Namespace, address: Ipv4Addr) -> Self {
        ok(namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]));
        let bound = ok(namespace.enter(|| UdpSocket::bind((address, 67))));
        let socket = ok(bound.map_err(io_error("bind", "port 67".as_ref())));
        let patience = Some(Duration::from_millis(500));
        ok(socket
            .set_read_timeout(patience)
            .map_err(io_error("set up", "port 67".as_ref())));
        Self { socket, address }
    }

    /// Sends one request for `mac`; gives the answer's type and address.
    fn ask(&self, kind: u8, mac: Mac, wanted: Option<Ipv4Addr>) -> Option<(u8, Ipv4Addr)> {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
        let xid = [kind, mac[3], mac[4], mac[5]];
        bytes[4..8].copy_from_slice(&xid);
        bytes[24..28].copy_from_slice(&self.address.octets());
        bytes[28..34].copy_from_slice(&mac);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, kind]);
        if let Some(wanted) = wanted {
            bytes.extend_from_slice(&[50, 4]);
            bytes.extend_from_slice(&wanted.octets());
        }
        bytes.push(255);
        self.socket
            .send_to(&bytes, (crate::lab::APPLIANCE, 67))
            .ok()?;
        let end = Instant::now() + Duration::from_millis(500);
        let mut buffer = [0; 1500];
        while Instant::now() < end {
            let length = self.socket.recv(&mut buffer).ok()?;
            // What comes late is another question's.
            if length > 240 && buffer[4..8] == xid {
                let address = [buffer[16], buffer[17], buffer[18], buffer[19]];
                return Some((message_type(&buffer[240..length])?, address.into()));
            }
        }
        None
    }

    /// DISCOVER, OFFER, REQUEST, ACK: the address, once it is acknowledged.
    fn lease(&self, mac: Mac) -> Option<Ipv4Addr> {
        let (2, offered) = self.ask(1, mac, None)? else {
            return None;
        };
        match self.ask(3, mac, Some(offered))? {
            (5, address) => Some(address),
            _ => None,
        }
    }
}

/// Option 53.
fn message_type(mut options: &[u8]) -> Option<u8> {
    while let [code, length, rest @ ..] = options {
        if *code == 53 {
            return rest.first().copied();
        }
        options = rest.get(usize::from(*length)..)?;
    }
    None
}

/// Machines boot without end while the daemon is killed again and again, each time after
/// another number of ACKs: whoever heard an ACK has its address after the restart, and no two
/// have one.
#[test]
fn a_daemon_killed_at_any_moment_forgets_no_lease_and_gives_none_twice() {
    let Some(mut site) = site("killed", "10.77.0.60-10.77.0.254") else {
        return;
    };
    let relays: Vec<_> = (0..3_u8)
        .map(|number| {
            let mac = format!("52:54:00:00:02:0{number}");
            let namespace = ok(site.lab.client(&format!("relay{number}"), &mac));
            let relay = Relay::new(&namespace, Ipv4Addr::new(10, 77, 0, 50 + number));
            (namespace, relay)
        })
        .collect();
    let leases: Mutex<BTreeMap<Mac, Ipv4Addr>> = Mutex::default();
    let next = AtomicUsize::new(0);
    for round in 0..10 {
        let begun = Instant::now();
        let until = leases.lock().unwrap().len() + 3 + round * 5 % 11;
        std::thread::scope(|scope| {
            for (_, relay) in &relays {
                scope.spawn(|| {
                    while leases.lock().unwrap().len() < until && begun.elapsed() < PATIENCE {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let [.., high, low] = number.to_be_bytes();
                        let mac = [0x52, 0x54, 0, 1, high, low];
                        // Silence is no ACK: the daemon may be slow, or gone.
                        if let Some(address) = relay.lease(mac) {
                            leases.lock().unwrap().insert(mac, address);
                        }
                    }
                });
            }
            while leases.lock().unwrap().len() < until && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_micros(200));
            }
            ok(site.daemon.signal(Signal::SIGKILL));
        });
        assert!(begun.elapsed() < PATIENCE, "round {round}: no ACKs come");
        ok(site.daemon.wait_exit(Duration::from_secs(5)));
        ok(site.restart());
        let leases = leases.lock().unwrap();
        let distinct: BTreeSet<_> = leases.values().collect();
        assert_eq!(distinct.len(), leases.len(), "round {round}: {leases:?}");
        for (mac, address) in leases.iter() {
            let again = (0..4).find_map(|_| relays[0].1.ask(3, *mac, Some(*address)));
            assert_eq!(again, Some((5, *address)), "round {round}, {mac:02x?}");
        }
    }
    assert!(leases.lock().unwrap().len() > 50);
}

#[test]
fn an_address_that_somebody_took_by_hand_is_found_out_and_rests() {
    let Some(mut site) = site("squatter", "10.77.0.100-10.77.0.102") else {
        return;
    };
    let squatter = ok(site.lab.client("squatter", "52:54:00:00:03:01"));
    for last in [100, 101] {
        ok(squatter.ip(&["addr", "add", &format!("10.77.0.{last}/24"), "dev", "eth0"]));
    }
    let client = ok(site.lab.client("client", "52:54:00:00:03:02"));
    let given = ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
    assert_eq!(given.address, Ipv4Addr::new(10, 77, 0, 102));
    // The two that are left are the squatter's.
    let late = ok(site.lab.client("late", "52:54:00:00:03:03"));
    assert!(lease(Program::Udhcpc, &late, site.lab.dir(), None).is_err());
    for last in [100, 101] {
        let said = format!("10.77.0.{last} of the pool is in use by 52:54:00:00:03:01");
        ok(site.daemon.wait_for(&said, Duration::from_secs(10)));
    }
}

fn dnsmasq(site: &Site, namespace: &Namespace, pxe: bool) -> Process {
    let leases = format!(
        "--dhcp-leasefile={}",
        site.lab.dir().join("dnsmasq").display()
    );
    let mut argv = vec![
        "dnsmasq",
        "-k",
        "-C",
        "/dev/null",
        "--port=0",
        "--interface=eth0",
        "--bind-interfaces",
        "--dhcp-range=10.77.0.230,10.77.0.240,1h",
        "--user=root",
        "--log-facility=-",
        &leases,
    ];
    if pxe {
        argv.push("--dhcp-boot=pxelinux.0");
    }
    let log = site.logs.join("dnsmasq.log");
    let mut process = ok(Process::spawn("dnsmasq", namespace.name(), &argv, &log));
    ok(process.wait_for("DHCP, IP range", Duration::from_secs(10)));
    process
}

#[test]
fn another_dhcp_server_is_named_wherever_an_operator_looks() {
    let Some(mut site) = site("rogue", "10.77.0.100-10.77.0.199") else {
        return;
    };
    let rogue = ok(site.lab.client("rogue", "52:54:00:00:04:01"));
    ok(rogue.ip(&["addr", "add", "10.77.0.99/24", "dev", "eth0"]));
    let _server = dnsmasq(&site, &rogue, true);
    // It looks at its start.
    ok(site.daemon.signal(Signal::SIGTERM));
    ok(site.daemon.wait_exit(Duration::from_secs(20)));
    ok(site.restart());
    let line = ok(site
        .daemon
        .wait_for("another DHCP server", Duration::from_secs(30)));
    for part in ["10.77.0.99", "52:54:00:00:04:01", "boot file", "stop it"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    let said = ok(site.daemon.verb("status", &["--json"]));
    let status: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let server = &status["dhcp_servers"][0];
    assert_eq!(server["server"], "10.77.0.99", "{status}");
    assert_eq!(server["pxe"], true, "{status}");
    assert_eq!(server["expected"], false, "{status}");
    assert_eq!(
        status["dhcp_servers"].as_array().unwrap().len(),
        1,
        "ours is none"
    );
    let metrics = ok(rogue.run(&["curl", "-s", "http://10.77.0.1/metrics"]));
    let unexpected = "bridgehead_dhcp_other_servers{kind=\"unexpected\"} 1";
    assert!(metrics.contains(unexpected), "{metrics}");
    let (file, data) = (
        site.inventory.display().to_string(),
        site.data.display().to_string(),
    );
    let mut check = vec!["ip", "netns", "exec", site.lab.appliance().name()];
    check.extend([
        bridgehead(),
        "check",
        "--live",
        "--inventory",
        &file,
        "--data",
        &data,
    ]);
    let done = ok(output(&check));
    let words = String::from_utf8_lossy(&done.stdout);
    assert!(words.contains("10.77.0.99"), "{words}");
    assert!(!words.contains("10.77.0.1 "), "{words}");
}
