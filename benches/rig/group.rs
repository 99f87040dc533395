//! A control group (cgroups(7), version 2) around one server: it adds up the time of every process that was ever in
//! it, also of children that nobody waits for. tftpd-hpa has such, and /proc forgets them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;

use super::usage::Family;

/// A group of our own below the one that this process is in. Dropping it ends what is in it and removes it.
#[derive(Debug)]
pub(super) struct Group(PathBuf);

impl Group {
    /// Puts a process that was just started into a new group; `None` where the machine has none, or won't.
    pub(super) fn around(pid: Pid) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let place = fields.next()?;
            (fields.next()? == "cgroup2").then_some(place)
        })?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let path = Path::new(mount).join(own).join(format!("bh-bench-{pid}"));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        let take = |pid: i32| fs::write(group.0.join("cgroup.procs"), pid.to_string());
        take(pid.as_raw()).ok()?;
        // What it forked before it was in, as nginx does at once; those may have forked meanwhile, too.
        for _ in 0..2 {
            for child in Family::of(pid).members() {
                // One that ended costs nothing any more.
                let _ = take(*child);
            }
        }
        group.cpu().map(|_| group)
    }

    /// Where it is, for who only reads it.
    pub(super) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    fn cpu(&self) -> Option<f64> {
        cpu(&self.0)
    }
}

/// User and system time of all that was ever in the group at `path`, seconds.
pub(super) fn cpu(path: &Path) -> Option<f64> {
    let text = fs::read_to_string(path.join("cpu.stat")).ok()?;
    let micros = text.lines().find_map(|l| l.strip_prefix("usage_usec "))?;
    Some(micros.parse::<f64>().ok()? / 1e6)
}

impl Drop for Group {
    fn drop(&mut self) {
        // Linux 5.14. Children that the server leaves behind are ours, too.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
