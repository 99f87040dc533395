//! What is served in a storm, and our daemon that serves it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::fake::{self, Sizes};
use crate::lab::{LabError, Result, bridgehead, io_error, output, repository};
use crate::openmetrics::Exposition;
use crate::rig::{SERVER, Server, Wire};

/// Of the size of Debian's kernel, our initrd and iPXE's loaders.
const REAL: Sizes = Sizes {
    kernel: 8_233_920,
    initrd: 7_647_901,
    loader: |name| match name {
        "snponly.efi" => 173_792,
        "undionly.kpxe" => 74_213,
        _ => 850_528,
    },
};

/// What hosts must receive.
#[derive(Debug, Clone)]
pub struct Files {
    pub kernel: Arc<[u8]>,
    pub initrd: Arc<[u8]>,
    pub uefi_loader: Arc<[u8]>,
    pub bios_loader: Arc<[u8]>,
}

impl Files {
    fn read(data: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = data.join(name);
            fs::read(&path)
                .map(Arc::from)
                .map_err(io_error("read", &path))
        };
        Ok(Self {
            kernel: read("kernels/debian/vmlinuz")?,
            initrd: read("initrds/default.img")?,
            uefi_loader: read("loaders/snponly.efi")?,
            bios_loader: read("loaders/undionly.kpxe")?,
        })
    }
}

/// Data directory and inventory of a storm.
#[derive(Debug)]
pub struct Site {
    /// Kernels, initrds, loaders.
    pub data: PathBuf,
    /// What hosts must receive.
    pub files: Files,
    dir: PathBuf,
    inventory: PathBuf,
}

impl Site {
    /// Makes both in `dir`, for so many hosts.
    pub fn make(dir: &Path, hosts: u16) -> Result<Self> {
        Self::of(dir, &super::inventory(hosts))
    }

    /// Makes both in `dir`, for this inventory.
    pub fn of(dir: &Path, text: &str) -> Result<Self> {
        let data = fake::sized_data_dir(dir, &REAL)?;
        let inventory = dir.join("hosts.yaml");
        fs::write(&inventory, text).map_err(io_error("write", &inventory))?;
        // Trees of host files come with templates of one's own only; they lie beside the inventory.
        let templates = dir.join("templates");
        if !templates.exists() {
            symlink(repository().join("templates"), &templates)
                .map_err(io_error("link", &templates))?;
        }
        Ok(Self {
            files: Files::read(&data)?,
            data,
            dir: dir.to_owned(),
            inventory,
        })
    }

    /// The hosts that the file lists by now, each with the one MAC that it has.
    pub fn hosts(&self) -> Result<Vec<(String, [u8; 6])>> {
        let loaded = bridgehead::inventory::load(&self.inventory);
        let loaded = loaded.map_err(|faults| LabError::Answer {
            peer: self.inventory.display().to_string(),
            answer: faults.to_string(),
        })?;
        let hosts = loaded.inventory.hosts.values();
        let one = |host: &Arc<bridgehead::inventory::model::Host>| match &host.macs[..] {
            [mac] => Ok((host.name.clone(), mac.0)),
            macs => Err(LabError::Answer {
                peer: host.name.clone(),
                answer: format!("{} MACs", macs.len()),
            }),
        };
        let mut hosts = hosts.map(one).collect::<Result<Vec<_>>>()?;
        hosts.sort();
        Ok(hosts)
    }

    /// Starts our daemon on it, with nothing remembered.
    pub fn serve(&self, wire: &Wire, log: &Path) -> Result<Ours> {
        let state = self.dir.join("state");
        let server =
            Server::bridgehead(wire, &self.inventory, &self.data, &state, log, answers_http)?;
        Ok(Ours { server, state })
    }
}

/// Whether somebody takes connections on port 80 of the servers' address.
pub fn answers_http() -> bool {
    std::net::TcpStream::connect((SERVER, 80)).is_ok()
}

/// Our daemon in a storm.
#[derive(Debug)]
pub struct Ours {
    /// The process.
    pub server: Server,
    state: PathBuf,
}

impl Ours {
    /// What it counted.
    pub fn metrics(&self, wire: &Wire) -> Result<Exposition> {
        let url = format!("http://{SERVER}/metrics");
        let text = wire.client().run(&["curl", "-sS", "-m", "20", &url])?;
        Exposition::parse(&text).map_err(|answer| LabError::Answer {
            peer: url,
            answer: format!("{answer}\n{text}"),
        })
    }

    /// How many hosts stand how in `bridgehead status --json`.
    pub fn standing(&self, state: &str) -> Result<usize> {
        let dir = self.state.display().to_string();
        let done = output(&[bridgehead(), "status", "--state", &dir, "--json"])?;
        let status: Value =
            serde_json::from_slice(&done.stdout).map_err(|error| LabError::Answer {
                peer: "bridgehead status".to_owned(),
                answer: format!("{error}: {}", String::from_utf8_lossy(&done.stderr)),
            })?;
        let hosts = status["hosts"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(hosts.iter().filter(|host| host["state"] == state).count())
    }
}
