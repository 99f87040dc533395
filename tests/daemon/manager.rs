//! What the daemon tells a service manager: the datagrams of sd_notify(3), in the order in which systemd would get them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::datagrams::{Datagrams, Deaf};
use crate::fake::INVENTORY;
use crate::host_files::Booting;
use crate::lab::{Daemon, Lab, Site};
use crate::{ok, site, site_by};

/// To start under load; everything else is quick.
const PATIENCE: Duration = Duration::from_secs(120);

/// The manager's end.
struct Manager {
    datagrams: Datagrams,
    heard: Vec<String>,
}

/// The socket of a manager that does not read yet, and the daemon's environment.
fn deaf(lab: &Lab) -> (Deaf, [String; 2]) {
    let path = lab.dir().join("notify");
    let socket_at = format!("NOTIFY_SOCKET={}", path.display());
    (Deaf::at(&path), [socket_at, "WATCHDOG_USEC=2000000".into()])
}

fn text(datagram: &[u8]) -> String {
    String::from_utf8_lossy(datagram).into_owned()
}

impl Manager {
    fn reading(deaf: Deaf) -> Self {
        Self {
            datagrams: deaf.hear(),
            heard: Vec::new(),
        }
    }

    /// Waits for a datagram like this one.
    fn wait(&mut self, what: &str, like: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let Some(datagram) = self.datagrams.next(PATIENCE) else {
                break;
            };
            let text = text(&datagram);
            self.heard.push(text.clone());
            if like(&text) {
                return text;
            }
        }
        panic!("{what} was not told, but: {:#?}", self.heard);
    }

    /// All that it was told, by a daemon that has ended.
    fn all(mut self) -> Vec<String> {
        let rest = self.datagrams.rest();
        self.heard
            .extend(rest.iter().map(|datagram| text(datagram)));
        self.heard
    }

    fn wait_status(&mut self, words: &str) -> String {
        self.wait(words, |text| {
            let lines = text.lines();
            lines
                .filter_map(|line| line.strip_prefix("STATUS="))
                .any(|line| line.contains(words))
        })
    }

    /// A reload begins, says since when, and ends.
    fn wait_reload(&mut self) {
        let begun = self.wait("RELOADING", |text| text.starts_with("RELOADING=1\n"));
        let since = begun.lines().find_map(|line| {
            let usec = line.strip_prefix("MONOTONIC_USEC=")?;
            usec.parse::<u64>().ok()
        });
        assert!(since.is_some(), "{begun}");
        self.wait("READY", |text| text == "READY=1\n");
    }
}

/// A daemon of a manager that does not read.
fn started(name: &str, prepare: impl FnOnce(&Deaf)) -> Option<(Site, Deaf)> {
    site_by(name, |lab| {
        let (deaf, environment) = deaf(lab);
        prepare(&deaf);
        let by = ["env".to_owned()].into_iter().chain(environment);
        (deaf, by.collect())
    })
}

/// A daemon that a manager started, ready.
fn managed(name: &str) -> Option<(Site, Manager)> {
    let (site, deaf) = started(name, |_| ())?;
    let mut manager = Manager::reading(deaf);
    manager.wait("READY", |text| text == "READY=1\n");
    Some((site, manager))
}

#[test]
fn a_manager_is_told_when_it_serves_reloads_lives_and_ends() {
    let Some((mut site, mut manager)) = managed("managed") else {
        return;
    };
    // What READY promises.
    assert_eq!(ok(site.daemon.status()).hosts.len(), 3);
    let pages = site.lab.appliance();
    ok(pages.run(&["curl", "-sSf", "http://10.77.0.1/readyz"]));
    manager.wait_status("3 hosts: 3 unseen");
    for _ in 0..3 {
        manager.wait("WATCHDOG", |text| text.starts_with("WATCHDOG=1\n"));
    }
    // A good edit, a faulty one, and two requests at once.
    ok(site.daemon.signal(Signal::SIGHUP));
    manager.wait_reload();
    ok(site.edit(&INVENTORY.replace("kernel: debian", "kernle: debian")));
    ok(site.daemon.signal(Signal::SIGHUP));
    manager.wait_reload();
    manager.wait_status("the last edit of the inventory is not served; the one before it is: ");
    ok(site.edit(INVENTORY));
    for _ in 0..2 {
        ok(site.daemon.signal(Signal::SIGHUP));
    }
    manager.wait_reload();
    manager.wait("STATUS", |text| text.contains("STATUS=3 hosts: 3 unseen"));

    ok(site.daemon.signal(Signal::SIGTERM));
    manager.wait("STOPPING", |text| text.starts_with("STOPPING=1\n"));
    let status = ok(site.daemon.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0), "{}", site.daemon.log().tail(20));
    // Reloads that began have ended.
    let all = manager.all();
    let count = |word: &str| all.iter().filter(|text| text.starts_with(word)).count();
    assert_eq!(count("RELOADING=1") + 1, count("READY=1"), "{all:#?}");
}

#[test]
fn a_manager_that_does_not_read_stops_nothing() {
    let Some((mut site, _deaf)) = started("manageddeaf", Deaf::fill) else {
        return;
    };
    ok(site.daemon.wait_for("bridgehead: ready", PATIENCE));
    ok(site.edit(&INVENTORY.replace("kernel: debian", "kernle: debian")));
    ok(site.daemon.signal(Signal::SIGHUP));
    ok(site.daemon.wait_for("reload refused", PATIENCE));
    ok(site.edit(INVENTORY));
    ok(site.daemon.signal(Signal::SIGHUP));
    let served = "http://10.77.0.1/readyz --retry 60 --retry-all-errors --max-time 5";
    let served: Vec<_> = ["curl", "-sSf"]
        .into_iter()
        .chain(served.split(' '))
        .collect();
    ok(site.lab.appliance().run(&served));
    ok(site.daemon.signal(Signal::SIGTERM));
    let status = ok(site.daemon.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0), "{}", site.daemon.log().tail(20));
}

#[test]
fn a_manager_that_reads_again_is_told_what_it_missed() {
    let Some((mut site, deaf)) = started("managedlate", Deaf::fill) else {
        return;
    };
    ok(site.daemon.wait_for("bridgehead: ready", PATIENCE));
    let mut manager = Manager::reading(deaf);
    manager.wait("READY", |text| text == "READY=1\n");
    manager.wait_status("3 hosts: 3 unseen");
}

#[test]
fn the_line_of_a_service_names_the_host_and_what_is_wrong_with_the_daemon_itself() {
    let Some((site, mut manager)) = managed("managedline") else {
        return;
    };
    let host = Booting::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12");
    let token = host.config(&host.boot_token())("report_token");
    let failed = "stage=root\nstate=fail\nmessage=no answer\nnext=reboots\nuptime_ms=9000\n";
    let path = "/v1/boot/kvm02/events";
    assert_eq!(host.get(path, &token, &["--data-binary", failed]), "200");
    let line = manager.wait_status("1 failed (kvm02 at root since ");
    assert!(line.contains("2 unseen: bridgehead why kvm02"), "{line}");
    ok(site.lab.appliance().ip(&["link", "set", "boot0", "down"]));
    let line = manager.wait_status("boot0 is down");
    assert!(
        line.contains(" | 3 hosts: 1 failed (kvm02 at root"),
        "{line}"
    );
}

#[test]
fn a_service_that_does_not_start_says_why() {
    let Some(site) = site("managednot") else {
        return;
    };
    // Its sockets are taken.
    let (deaf, environment) = deaf(&site.lab);
    let mut manager = Manager::reading(deaf);
    let by = ["env", &environment[0]];
    let log = site.logs.join("refused.log");
    let mut daemon = ok(Daemon::spawn_by(
        &site.lab,
        &site.inventory,
        &site.data,
        &log,
        &by,
    ));
    manager.wait_status("another bridgehead (process ");
    assert!(!ok(daemon.wait_exit(PATIENCE)).success());
    assert!(!manager.all().iter().any(|text| text.contains("READY")));
}
