//! T10, T11: what a host does while the root's server or its cable is away, and when the daemon's answers are bad.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::lab::{
    Answer, FaultyDaemon, Firmware, Ganesha, Result, ServerSpec, Site, VirtualServer, until,
};
use super::{AGENT, SWITCH, check_console, said, scenario, site};

const MAC: &str = "52:54:00:00:00:01";
const ADDRESS: &str = "10.77.0.11";
/// A minute without the servers.
const OUTAGE: Duration = Duration::from_secs(60);
/// A cable that someone pulled by mistake.
const PULLED: Duration = Duration::from_secs(20);
/// From the end of an outage to the next answer: TCP's retransmissions are up to two minutes apart by then.
const RECOVERY: Duration = Duration::from_secs(180);
/// From the switch to a root that answers the guest agent.
const ROOT: Duration = Duration::from_secs(300);
/// The longest of the initrd's retries, and what a slow machine needs to come to it.
const RETRY: Duration = Duration::from_secs(120);
const NFS: u16 = 2049;

fn kvm01() -> ServerSpec {
    ServerSpec::new("kvm01", MAC, Firmware::Bios)
}

/// The daemon's NFS 3 and another server's NFS 4.2, both the roots of a host.
struct NfsServers<'a> {
    site: &'a Site,
    other: &'a Ganesha,
}

impl NfsServers<'_> {
    /// The machines stay, the daemon too; of NFS nothing is heard.
    fn set_heard(&self, heard: bool) -> Result<()> {
        self.site.lab.appliance().set_heard(NFS, heard)?;
        self.other.namespace().set_heard(NFS, heard)
    }
}

#[test]
#[ignore = "make test-boot"]
fn t10_nfs_and_the_link_away_at_mount_and_at_run_time() {
    scenario("t10", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let root = site.data.join("roots/kvm-host");
        let other = Ganesha::start(&site.lab, &root, &logs.join("ganesha"), &logs)?;
        let kvm06 = ServerSpec::new("kvm06", "52:54:00:00:00:06", Firmware::Bios);
        NfsServers {
            site: &site,
            other: &other,
        }
        .set_heard(false)?;
        let mut hosts = [
            site.boot_directly(kvm01(), ADDRESS, "")?,
            site.boot_directly(kvm06, "10.77.0.16", "")?,
        ];
        check_outage_at_mount(
            &NfsServers {
                site: &site,
                other: &other,
            },
            &mut hosts,
        )?;
        for host in &mut hosts {
            site.wait_stage(host, "online", ROOT)?;
            check_console(host);
        }
        check_systemd_holds_the_watchdog(&hosts[0])?;
        let servers = NfsServers {
            site: &site,
            other: &other,
        };
        for host in &hosts {
            host.agent(AGENT)?.ask(READER)?;
        }
        check_pause(&hosts, |away| servers.set_heard(!away), OUTAGE)?;
        let plug = |up| hosts.iter().try_for_each(|host| host.set_link(up));
        check_pause(&hosts, |away| plug(!away), PULLED)
    });
}

/// Two tries of half a minute each with a link, and one without. Each says which it was.
fn check_outage_at_mount(servers: &NfsServers<'_>, hosts: &mut [VirtualServer]) -> Result<()> {
    for host in &mut *hosts {
        let tried = host.wait_for("(try 2, next in 4 s)", SWITCH)?;
        assert!(tried.contains(" root        retry "), "{tried}");
        assert!(
            tried.contains(": no answer in 30 s (port eth0 carrier=1 rx="),
            "{tried}"
        );
        host.set_link(false)?;
    }
    for host in &mut *hosts {
        let tried = host.wait_for("(try 3, next in 8 s)", RETRY)?;
        assert!(tried.contains(" (port eth0 carrier=0 rx="), "{tried}");
    }
    servers.set_heard(true)?;
    hosts.iter().try_for_each(|host| host.set_link(true))
}

/// Reads from the root for ever, past the cache, and says so on the console: that needs nothing of the root.
const READER: &str = "(while :; do echo 3 > /proc/sys/vm/drop_caches; cat /usr/bin/dpkg* > /dev/null && \
    echo 'reader: read' > /dev/ttyS0; sleep 1; done) > /dev/null 2>&1 &";

/// Whoever reads waits, and goes on when what was away is back.
fn check_pause(
    hosts: &[VirtualServer],
    away: impl Fn(bool) -> Result<()>,
    outage: Duration,
) -> Result<()> {
    let reads = |host: &VirtualServer| host.serial().text().matches("reader: read").count();
    let goes_on = |host: &VirtualServer, after: usize| {
        let probe = || Ok((reads(host) > after).then_some(()));
        until("the root's reader", RECOVERY, probe, || {
            host.serial().tail(20)
        })
    };
    for host in hosts {
        goes_on(host, reads(host))?;
    }
    away(true)?;
    // What was on its way may still be read.
    let before: Vec<usize> = hosts.iter().map(reads).collect();
    thread::sleep(outage);
    let after: Vec<usize> = hosts.iter().map(reads).collect();
    away(false)?;
    for ((host, before), after) in hosts.iter().zip(before).zip(after) {
        assert!(
            after <= before + 1,
            "{} read on\n{}",
            host.spec().name(),
            host.serial().tail(20)
        );
        goes_on(host, after + 2)?;
    }
    Ok(())
}

/// In the end systemd has the device that the initrd's keeper armed, and its time-out. The way there isn't looked at:
/// that a close leaves the device armed is the kernel's promise (watchdog-api.rst, magic close).
fn check_systemd_holds_the_watchdog(server: &VirtualServer) -> Result<()> {
    let mut agent = server.agent(AGENT)?;
    let held = "cat /sys/class/watchdog/watchdog0/state; ls -l /proc/1/fd | grep -c /dev/watchdog; \
                systemctl show --property RuntimeWatchdogUSec --value";
    assert_eq!(agent.ask(held)?, "active\n1\n2min");
    Ok(())
}

#[test]
#[ignore = "make test-boot"]
fn t11_bad_answers_for_a_configuration_end_in_recovery_or_a_stated_failure() {
    scenario("t11", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let faulty = FaultyDaemon::new(&site.lab)?;
        let more = format!("bridgehead.url={} bridgehead.fail=hold", FaultyDaemon::URL);
        let kvm02 = ServerSpec::new("kvm02", "52:54:00:00:00:02", Firmware::Bios);
        let mut recovers = site.boot_directly(kvm01(), ADDRESS, &more)?;
        let mut fails = site.boot_directly(kvm02, "10.77.0.12", &more)?;
        for server in [&mut recovers, &mut fails] {
            let away = server.wait_for("(try 1, next in 1 s)", SWITCH)?;
            assert!(away.contains(" address     retry "), "{away}");
            assert!(
                away.contains("no connection to the daemon at 10.77.0.7:80: "),
                "{away}"
            );
            assert!(
                away.contains("Connection refused (port eth0 carrier=1 rx="),
                "{away}"
            );
        }
        faulty.listen(HashMap::from([
            ("kvm01", BAD.to_vec()),
            ("kvm02", vec![BAD[3]]),
        ]))?;
        site.wait_stage(&mut recovers, "switch", SWITCH)?;
        check_console(&recovers);
        check_retries(&recovers, &said(&site, "kvm01")?);
        check_config_failure(&site, &mut fails)
    });
}

const BAD: [Answer; 5] = [
    Answer::Status("500 Internal Server Error"),
    Answer::CutOff,
    Answer::WrongHash,
    Answer::Status("404 Not Found"),
    Answer::Daemon,
];

/// Each bad answer by its name, on the console and at the daemon.
fn check_retries(server: &VirtualServer, log: &str) {
    for (index, cause) in [
        "HTTP/1.1 500 Internal Server Error from",
        "connection closed prematurely",
        "its sha256 does not match",
        "HTTP/1.1 404 Not Found from",
    ]
    .iter()
    .enumerate()
    {
        let line = format!("(try {}, next in", index + 1);
        let told = |text: &str| {
            text.lines()
                .any(|said| said.contains("config") && said.contains(cause) && said.contains(&line))
        };
        assert!(
            told(&server.serial().text()),
            "{cause}\n{}",
            server.serial().tail(40)
        );
        assert!(told(log), "{cause}\n{log}");
    }
}

/// After 90 s: the line, the event, and as the command line says, no reboot.
fn check_config_failure(site: &Site, server: &mut VirtualServer) -> Result<()> {
    let line = server.wait_for(" -> stays as it is; switch it off or reset it", SWITCH)?;
    for words in [
        " config      FAIL ",
        "404 Not Found",
        "the daemon knows no host kvm02",
        " tries (port eth0 carrier=1 rx=",
    ] {
        assert!(line.contains(words), "no `{words}` in {line}");
    }
    let log = said(site, "kvm02")?;
    let event = log.lines().find(|line| line.contains(" fail "));
    let event = event.unwrap_or_else(|| panic!("no failure in\n{log}"));
    assert!(event.contains("404 Not Found"), "{event}");
    assert!(event.ends_with("-> stays as it is"), "{event}");
    Ok(())
}
