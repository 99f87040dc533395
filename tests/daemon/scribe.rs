//! The process that edits the inventory's file: what it may do, and how long it lives.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::Value;

use crate::broken::get;
use crate::discover::{BARE, Stranger, approve};
use crate::lab::{Site, io_error, until};
use crate::{ok, site};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A process of /proc, with a line of its status by that line's name.
pub(crate) struct Process(PathBuf);

impl Process {
    pub(crate) fn of(pid: Pid) -> Self {
        Self(format!("/proc/{pid}").into())
    }

    pub(crate) fn says(&self, name: &str) -> Option<String> {
        let status = fs::read_to_string(self.0.join("status")).ok()?;
        let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
        Some(lines.find(|(found, _)| *found == name)?.1.to_owned())
    }

    pub(crate) fn network(&self) -> PathBuf {
        let link = self.0.join("ns/net");
        ok(fs::read_link(&link).map_err(io_error("read", &link)))
    }

    /// Dead, whether or not somebody has taken note.
    fn is_gone(&self) -> bool {
        self.says("State")
            .is_none_or(|state| state.starts_with(['Z', 'X']))
    }
}

/// The daemon's only child, once it is confined.
pub(crate) fn scribe(site: &Site) -> Pid {
    let daemon = site.daemon.pid().to_string();
    let child = |entry: fs::DirEntry| {
        let process = Process(entry.path());
        let confined = process.says("NoNewPrivs").as_deref() == Some("1");
        (confined && process.says("PPid")? == daemon)
            .then(|| entry.file_name().to_str()?.parse().ok())
            .flatten()
    };
    let find = || {
        let all = fs::read_dir("/proc").map_err(io_error("list", "/proc".as_ref()))?;
        Ok(all
            .filter_map(Result::ok)
            .find_map(child)
            .map(Pid::from_raw))
    };
    ok(until("the scribe", PATIENCE, find, || {
        site.daemon.log().tail(20)
    }))
}

fn wait_gone(site: &Site, pid: Pid) {
    let gone = || Ok(Process::of(pid).is_gone().then_some(()));
    ok(until("its end", PATIENCE, gone, || {
        site.daemon.log().tail(20)
    }));
}

fn signal(pid: Pid, signal: Signal) {
    kill(pid, signal).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_scribe_may_edit_files_and_nothing_else_and_lives_as_long_as_the_daemon() {
    let Some(mut site) = site("scribe") else {
        return;
    };
    let pid = scribe(&site);
    let (daemon, child) = (Process::of(site.daemon.pid()), Process::of(pid));
    // CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER.
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(
            child.says(set).as_deref(),
            Some("000000000000000b"),
            "{set}"
        );
        let own = daemon.says(set).unwrap_or_default();
        assert_eq!(own, "0000000000002404", "{set} of the daemon");
    }
    assert_ne!(child.network(), daemon.network());
    let routes = fs::read_to_string(child.0.join("net/route")).unwrap_or_default();
    assert!(routes.lines().count() <= 1, "{routes}");

    // A service manager signals all processes of a service; the daemon has work to finish.
    for end in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signal(pid, end);
    }
    ok(site.daemon.signal(Signal::SIGHUP));
    ok(site.daemon.wait_for("reloaded: ", PATIENCE));
    assert!(!child.is_gone());
    ok(site.daemon.signal(Signal::SIGTERM));
    let status = ok(site.daemon.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0), "{}", site.daemon.log().tail(20));
    wait_gone(&site, pid);

    ok(site.restart());
    let pid = scribe(&site);
    ok(site.daemon.signal(Signal::SIGKILL));
    wait_gone(&site, pid);
}

#[test]
fn a_daemon_without_its_scribe_says_so_and_serves_on() {
    let Some(mut site) = site("scribeless") else {
        return;
    };
    signal(scribe(&site), Signal::SIGKILL);
    let said = "the process that edits the inventory's file is gone";
    let said = ok(site.daemon.wait_for(said, PATIENCE));
    assert!(
        said.contains("SIGKILL") && said.contains("restart the daemon"),
        "{said}"
    );
    let status = ok(site.daemon.verb("status", &[]));
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("inventory's file is gone"), "{status}");
    // Machines boot all the same.
    let ready = get(&site, "/readyz");
    assert!(ready.starts_with("ready\nscribe: the process"), "{ready}");
    let ready: Value = serde_json::from_str(&get(&site, "/readyz?format=json")).unwrap_or_default();
    assert_eq!(ready["ready"], true, "{ready}");
    assert_eq!(ready["failing"][0]["part"], "scribe", "{ready}");
    Stranger::new(&site, "bare", BARE).dhcp();
    let (done, said) = approve(&site, BARE, "kvm07", &[]);
    assert!(
        !done && said.contains("nothing was changed: the process that edits"),
        "{said}"
    );
    ok(site.daemon.signal(Signal::SIGHUP));
    ok(site.daemon.wait_for("reloaded: ", PATIENCE));
    ok(site.daemon.signal(Signal::SIGTERM));
    let status = ok(site.daemon.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0), "{}", site.daemon.log().tail(20));
}
