//! What templates may ask for.

use serde::Serialize;

use super::SerialContext;

/// The daemon as the client sees it.
#[derive(Debug, Clone, Serialize)]
pub struct ServerContext {
    /// `http://10.77.0.1`, with the port where it is not 80.
    pub url: String,
    /// The address alone.
    pub address: String,
}

/// The bridge.
#[derive(Debug, Clone, Serialize)]
pub struct BridgeContext {
    /// Interface name.
    pub name: String,
    /// MTU.
    pub mtu: u16,
    /// VLAN id, where it does not stand on the NIC or bond itself.
    pub vlan: Option<u16>,
    /// The bond that it stands on: its name, then `OPTION=VALUE` as sysfs calls them, with commas.
    pub bond: Option<String>,
    /// The bond's NICs by their MACs, with commas.
    pub ports: Option<String>,
}

/// One boot file, by each name that a loader may want.
#[derive(Debug, Clone, Serialize)]
pub struct FileLinks {
    /// As the profile names it.
    pub name: String,
    /// Below the TFTP root.
    pub path: String,
    /// By HTTP.
    pub url: String,
    /// As GRUB writes a file on a TFTP server. Not HTTP: the signed UEFI image has no such module,
    /// and on BIOS over PXE GRUB 2.06 gives up a large file with "timeout reading".
    pub grub: String,
}

impl FileLinks {
    /// All names of the file at `path` of the data directory.
    pub fn new(name: &str, path: &str, server: &ServerContext) -> Self {
        let ServerContext { url, address } = server;
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            url: format!("{url}/files/{path}"),
            grub: format!("(tftp,{address})/{path}"),
        }
    }
}

/// For `cmdline.txt` and the `boot` templates.
#[derive(Debug, Clone, Serialize)]
pub struct BootContext {
    /// The site's name.
    pub site: String,
    /// The host's name.
    pub machine: String,
    /// The MAC that asks.
    pub mac: String,
    /// The same as `BOOTIF` wants it.
    pub bootif: String,
    /// The boot attempt.
    pub attempt: String,
    /// Its boot token.
    pub token: String,
    /// The daemon as the loader reaches it.
    pub server: ServerContext,
    /// The daemon as the host reaches it from its bridge, which may lie in another network.
    pub daemon: ServerContext,
    /// The bridge to build.
    pub bridge: BridgeContext,
    /// `ADDRESS/PREFIX`, or `dhcp`.
    pub address: String,
    /// Default router.
    pub router: Option<String>,
    /// Name servers, comma-separated.
    pub dns: Option<String>,
    /// `reboot` or `shell`.
    pub on_failure: String,
    /// The profile's `cmdline`.
    pub arguments: Vec<String>,
    /// The kernel.
    pub kernel: FileLinks,
    /// The serial line that a menu's loader drives: PXELINUX forgets it with each config.
    pub serial: Option<SerialContext>,
    /// The initrd; `None`: the kernel boots alone, and takes `arguments` for its whole command line.
    pub initrd: Option<FileLinks>,
}

/// For the `hold` templates.
#[derive(Debug, Clone, Serialize)]
pub struct HoldContext {
    /// The site's name.
    pub site: String,
    /// The MAC that asks.
    pub mac: String,
    /// The daemon.
    pub server: ServerContext,
    /// How long to wait before it asks again.
    pub hold_seconds: u32,
}
