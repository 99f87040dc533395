//! Boots without firmware: what the daemon's script says a loader is to start, QEMU starts. A boot is half a
//! minute shorter, and goes on as every other from the kernel on.

use std::path::Path;

use super::error::{LabError, Result};
use super::server::{ServerSpec, VirtualServer};
use super::site::Site;

/// What a loader would start.
#[derive(Debug, Clone)]
pub struct BootOrder {
    /// The kernel below the data directory.
    pub kernel: String,
    /// The initrd below the data directory.
    pub initrd: String,
    /// The kernel command line, with the tokens of a fresh boot attempt.
    pub cmdline: String,
}

impl BootOrder {
    /// Without the words of the command line that begin with `word`.
    pub fn without(mut self, word: &str) -> Self {
        let words = self.cmdline.split(' ');
        let kept: Vec<&str> = words.filter(|found| !found.starts_with(word)).collect();
        self.cmdline = kept.join(" ");
        self
    }
}

impl Site {
    /// Asks for the iPXE script of the machine with `mac` from its `address`, as a loader would.
    pub fn boot_order(&self, mac: &str, address: &str) -> Result<BootOrder> {
        let client = self.lab.client("loader", mac)?;
        client.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        let url = format!("http://{}/boot/{mac}/script.ipxe", super::APPLIANCE);
        let script = client.run(&[
            "curl",
            "-sS",
            "--max-time",
            "10",
            "--retry",
            "3",
            "--fail-with-body",
            &url,
        ])?;
        BootOrder::read(&script).ok_or(LabError::Answer {
            peer: url,
            answer: script,
        })
    }

    /// Powers a server on straight into the kernel that the daemon has for it, with further kernel arguments.
    pub fn boot_directly(
        &self,
        spec: ServerSpec,
        address: &str,
        more: &str,
    ) -> Result<VirtualServer> {
        let order = self.boot_order(spec.mac(), address)?;
        self.boot_order_on(spec, &order, more)
    }

    /// The same with a boot order that was asked for before.
    pub fn boot_order_on(
        &self,
        spec: ServerSpec,
        order: &BootOrder,
        more: &str,
    ) -> Result<VirtualServer> {
        let cmdline = format!("{} {more}", order.cmdline);
        let (kernel, initrd) = (self.data.join(&order.kernel), self.data.join(&order.initrd));
        spec.boots_kernel(&kernel, &initrd, cmdline.trim())
            .power_on(&self.lab, &self.logs)
    }

    /// The same with another initrd.
    pub fn boot_image_on(
        &self,
        spec: ServerSpec,
        order: &BootOrder,
        initrd: &Path,
    ) -> Result<VirtualServer> {
        let kernel = self.data.join(&order.kernel);
        spec.boots_kernel(&kernel, initrd, &order.cmdline)
            .power_on(&self.lab, &self.logs)
    }
}

impl BootOrder {
    /// The `kernel` and `initrd` lines of a script made from templates/ipxe/boot.ipxe.
    pub fn read(script: &str) -> Option<Self> {
        let line = |word: &str| script.lines().find_map(|line| line.strip_prefix(word));
        let file = |url: &str| Some(url.split_once("/files/")?.1.to_owned());
        let (url, rest) = line("kernel ")?.split_once(' ')?;
        let arguments = rest.split(" || ").next()?;
        let cmdline = arguments
            .strip_prefix("initrd=initrd.img ")
            .unwrap_or(arguments);
        let initrd = line("initrd --name initrd.img ")?.split(' ').next()?;
        Some(Self {
            kernel: file(url)?,
            initrd: file(initrd)?,
            cmdline: cmdline.to_owned(),
        })
    }
}
