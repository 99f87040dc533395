//! What went over the wire between the switch and the appliance.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Lab;
use super::error::{Result, io_error};
use super::process::{Process, run};

/// A running capture of the appliance's switch port. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts to write what passes `filter` (pcap-filter(7)) to `LOGS/NAME.pcap`.
    pub fn start(lab: &Lab, logs: &Path, name: &str, filter: &str) -> Result<Self> {
        std::fs::create_dir_all(logs).map_err(io_error("create", logs))?;
        let file = logs.join(format!("{name}.pcap"));
        let show = file.display().to_string();
        // `-Z root`: the user that Debian's tcpdump becomes may not write here.
        let argv = [
            "tcpdump", "-Z", "root", "-n", "-U", "-i", "srv0", "-w", &show, filter,
        ];
        let log = logs.join(format!("{name}.tcpdump"));
        let mut process = Process::spawn("tcpdump", lab.switch().name(), &argv, &log)?;
        process.wait_for("listening on", Duration::from_secs(10))?;
        Ok(Self { process, file })
    }

    /// Ends the capture.
    pub fn stop(mut self) -> Result<Captured> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait_exit(Duration::from_secs(10))?;
        Ok(Captured { file: self.file })
    }
}

/// A capture that has ended.
#[derive(Debug)]
pub struct Captured {
    file: PathBuf,
}

impl Captured {
    /// The packets that pass `filter`, one a line in tcpdump's words.
    pub fn packets(&self, filter: &str) -> Result<Vec<String>> {
        let file = self.file.display().to_string();
        let lines = run(&["tcpdump", "-Z", "root", "-n", "-r", &file, filter])?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// Every iPXE went from DISCOVER to REQUEST at once, in so many conversations.
    ///
    /// It has an OFFER and waits for a proxy's until 2 s are over (`DHCP_DISC_PROXY_TIMEOUT_SEC` of its `dhcp.c`), and
    /// asks again after the first of them: whoever asked once heard `no-pxedhcp`, or the proxy.
    pub fn check_ipxe_asks_once(&self, conversations: usize) -> Result<()> {
        for kind in [1, 3] {
            // Its options begin with 53 (the kind), 57 and 93; EDK2 has 55 third.
            let filter =
                format!("udp dst port 67 and udp[248:4] = 0x35010{kind}39 and udp[255] = 0x5d");
            let asked = self.packets(&filter)?;
            assert_eq!(
                asked.len(),
                conversations,
                "message type {kind}: {asked:#?}"
            );
        }
        Ok(())
    }

    /// The names of the files that `client` asked for by TFTP, in their order; a repeated request counts once.
    pub fn tftp_names(&self, client: &str) -> Result<Vec<String>> {
        let requests = self.packets(&format!("udp dst port 69 and src host {client}"))?;
        let mut names: Vec<String> = requests
            .iter()
            .filter_map(|line| line.split('"').nth(1))
            .map(str::to_owned)
            .collect();
        names.dedup();
        Ok(names)
    }
}
