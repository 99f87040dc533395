//! The process as the kernel sees it, read when somebody asks. The names are those that every Prometheus client gives.

use std::fmt;
use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory in use",
                kib(&status, "VmRSS:") << 10,
            ),
            (
                "process_peak_resident_memory_bytes",
                "The most memory that was ever in use",
                kib(&status, "VmHWM:") << 10,
            ),
            ("process_open_fds", "Open file descriptors", open_files()),
            (
                "process_max_fds",
                "File descriptors that may be open",
                most_open_files(),
            ),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, value)?;
        }
        let spent = ConstCounter::new(cpu_seconds());
        let help = "User and system time";
        let to =
            encoder.encode_descriptor("process_cpu_seconds", help, None, spent.metric_type())?;
        spent.encode(to)
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: i64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// A line of proc_pid_status(5): `VmRSS:     12345 kB`.
fn kib(status: &str, key: &str) -> i64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn open_files() -> i64 {
    // One of them is the directory that is being read.
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    i64::try_from(open).unwrap_or(i64::MAX)
}

fn most_open_files() -> i64 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn cpu_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return 0.0;
    };
    let times = [usage.user_time(), usage.system_time()];
    let seconds = times.map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    seconds.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(kib(&status, "VmRSS:") > 100, "{status}");
        assert!(kib(&status, "VmHWM:") >= kib(&status, "VmRSS:"));
        assert!(open_files() >= 3 && open_files() <= most_open_files());
        assert_eq!(kib("VmRSS:\t  77 kB\n", "VmRSS:"), 77);
        assert_eq!(kib("", "VmRSS:"), 0);
    }
}
