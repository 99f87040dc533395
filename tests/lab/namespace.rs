//! Network namespaces: named after the lab and its process, removed with everything in them.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::Result;
use super::process::run;

/// A network namespace of our own. Dropping it ends what still runs in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `bh-LAB-PID-ROLE`, with loopback up.
    pub fn new(lab: &str, role: &str) -> Result<Self> {
        let name = format!("bh-{lab}-{}-{role}", std::process::id());
        run(&["ip", "netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip ARGS` on it; gives standard output.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        run(&[&["ip", "-n", &self.name], args].concat())
    }

    /// Runs a short program in it that must succeed; gives standard output.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        run(&[&["ip", "netns", "exec", &self.name], argv].concat())
    }

    /// Runs a short program in it, whatever comes of it.
    pub fn output(&self, argv: &[&str]) -> Result<std::process::Output> {
        super::process::output(&[&["ip", "netns", "exec", &self.name], argv].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces that a killed lab left behind: ours by name, and their process is gone.
pub fn remove_stale() -> Result<()> {
    for line in run(&["ip", "netns", "list"])?.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if owner(name).is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
    Ok(())
}

/// The PID in `bh-LAB-PID-ROLE`.
fn owner(name: &str) -> Option<&str> {
    let (rest, _role) = name.strip_prefix("bh-")?.rsplit_once('-')?;
    let (_lab, pid) = rest.rsplit_once('-')?;
    pid.bytes().all(|b| b.is_ascii_digit()).then_some(pid)
}

fn remove(name: &str) {
    // Whatever runs in a namespace that only we know was started by us.
    for pid in run(&["ip", "netns", "pids", name])
        .unwrap_or_default()
        .lines()
    {
        if let Ok(pid) = pid.parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = run(&["ip", "netns", "del", name]);
}
