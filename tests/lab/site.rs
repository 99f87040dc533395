//! A lab with a daemon in it: what boots, demo and daemon tests have in common.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::daemon::{Daemon, Stage};
use super::error::{LabError, Result, io_error};
use super::server::VirtualServer;
use super::{Lab, wait};

/// A lab whose appliance runs the daemon.
///
/// Fields drop in order: the daemon ends before its network goes.
#[derive(Debug)]
pub struct Site {
    /// The daemon.
    pub daemon: Daemon,
    /// The inventory that it serves.
    pub inventory: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
    /// The network.
    pub lab: Lab,
}

impl Site {
    /// Writes the inventory into the lab and starts the daemon on it.
    pub fn start(lab: Lab, inventory: &str, data: &Path, logs: &Path) -> Result<Self> {
        Self::start_by(Daemon::start, lab, inventory, data, logs)
    }

    /// The same on every interface of the appliance that has an address in a network.
    pub fn start_everywhere(lab: Lab, inventory: &str, data: &Path, logs: &Path) -> Result<Self> {
        Self::start_by(Daemon::start_everywhere, lab, inventory, data, logs)
    }

    fn start_by(
        start: fn(&Lab, &Path, &Path, &Path) -> Result<Daemon>,
        lab: Lab,
        inventory: &str,
        data: &Path,
        logs: &Path,
    ) -> Result<Self> {
        fs::create_dir_all(logs).map_err(io_error("create", logs))?;
        let file = lab.dir().join("hosts.yaml");
        fs::write(&file, inventory).map_err(io_error("write", &file))?;
        Ok(Self {
            daemon: start(&lab, &file, data, &logs.join("daemon.log"))?,
            inventory: file,
            data: data.to_owned(),
            logs: logs.to_owned(),
            lab,
        })
    }

    /// Starts the daemon again, after it was stopped or killed, on the same state.
    pub fn restart(&mut self) -> Result<()> {
        let log = self.logs.join("daemon-again.log");
        self.daemon = Daemon::start(&self.lab, &self.inventory, &self.data, &log)?;
        Ok(())
    }

    /// Replaces the inventory as an editor does: a new file is renamed over the old one.
    pub fn edit(&self, inventory: &str) -> Result<()> {
        let new = self.inventory.with_extension("new");
        fs::write(&new, inventory).map_err(io_error("write", &new))?;
        fs::rename(&new, &self.inventory).map_err(io_error("replace", &self.inventory))
    }

    /// Waits until the daemon has seen `server` pass `stage`. Ends early when its boot has failed.
    pub fn wait_stage(
        &mut self,
        server: &mut VirtualServer,
        stage: &str,
        timeout: Duration,
    ) -> Result<Stage> {
        let name = server.spec().name().to_owned();
        let (serial, log) = (server.serial().clone(), self.daemon.log().clone());
        let daemon = &mut self.daemon;
        let mut last = String::new();
        let probe = || {
            daemon.check_alive()?;
            server.check_alive()?;
            let status = daemon.status()?;
            let Some(host) = status.host(&name) else {
                return Ok(None);
            };
            if let Some(found) = host.stage(stage) {
                return Ok(Some(found.clone()));
            }
            last = format!("{:?} {:?} {:?}", host.stage, host.state, host.note);
            match host.state.as_deref() {
                Some("failed") => Err(LabError::Answer {
                    peer: format!("status of {name}"),
                    answer: format!("{last}\n{}", serial.tail(30)),
                }),
                _ => Ok(None),
            }
        };
        let context = || format!("{}{}", log.tail(20), serial.tail(30));
        wait::until(&format!("{name} to pass {stage}"), timeout, probe, context)
    }
}

/// The kernel that hosts boot: `make demo KERNEL=NAME`.
pub fn kernel() -> String {
    env::var("BRIDGEHEAD_KERNEL").unwrap_or_else(|_| "debian".to_owned())
}

/// Its folder, or an error with the make verb that builds it.
pub fn kernel_dir(data: &Path) -> Result<PathBuf> {
    let folder = format!("kernels/{}", kernel());
    let verb = format!("kernel KERNEL={}", kernel());
    require(data, &[(&format!("{folder}/vmlinuz"), &verb)])?;
    Ok(data.join(folder))
}

/// An inventory with that kernel in place of Debian's.
pub fn with_kernel(inventory: &str) -> String {
    inventory.replace("kernel: debian", &format!("kernel: {}", kernel()))
}

/// What a boot with firmware takes, or an error with the make verb that builds it.
pub fn require_boot_files(data: &Path) -> Result<()> {
    kernel_dir(data)?;
    let artefacts = [
        ("initrds/default.img", "initrd"),
        ("roots/kvm-host", "root"),
        ("loaders/snponly.efi", "loaders"),
    ];
    require(data, &artefacts)
}

/// Fails with the make verb that builds it if an artefact is not in the data directory.
pub fn require(data: &Path, artefacts: &[(&str, &str)]) -> Result<()> {
    for (path, verb) in artefacts {
        if !data.join(path).exists() {
            return Err(LabError::Missing {
                what: data.join(path).display().to_string(),
                help: format!("run `make {verb}`"),
            });
        }
    }
    Ok(())
}
