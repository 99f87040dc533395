//! Network namespaces: named after the lab and its process, removed with everything in them.

use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{LabError, Result, io_error};
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

    /// Runs `work` on a thread inside it: the sockets that it opens belong to the namespace for good.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.name);
        let handle = fs::File::open(&path).map_err(io_error("open", &path))?;
        let inside = || {
            setns(&handle, CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::Io {
                doing: format!("enter {}: {errno}", path.display()),
                source: errno.into(),
            })?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Keeps the servers at TCP `port` from being heard, established connections too, or lets them be heard again:
    /// what they send goes nowhere (ip-rule(8)).
    pub fn set_heard(&self, port: u16, heard: bool) -> Result<()> {
        let change = if heard { "del" } else { "add" };
        let rule = format!("rule {change} ipproto tcp sport {port} blackhole");
        self.ip(&rule.split(' ').collect::<Vec<_>>()).map(|_| ())
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

/// Where labs keep their directories, named like their namespaces. Short, for Unix sockets.
pub const DIRECTORIES: &str = "/tmp";

/// Removes what a killed lab left behind: ours by name, and its process is gone.
pub fn remove_stale() -> Result<()> {
    let stale = |name: &str| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid).exists());
    for line in run(&["ip", "netns", "list"])?.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if stale(name) {
            remove(name);
        }
    }
    let root = |entry: &DirEntry| entry.metadata().is_ok_and(|found| found.uid() == 0);
    for entry in fs::read_dir(DIRECTORIES).into_iter().flatten().flatten() {
        if stale(&entry.file_name().to_string_lossy()) && root(&entry) {
            let _ = fs::remove_dir_all(entry.path());
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
