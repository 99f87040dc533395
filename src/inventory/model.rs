//! The inventory as true: every reference resolved, every value in range.
//!
//! Only `load` makes these values; whoever holds an [`Inventory`] may trust it.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

pub use super::firmware::{Firmware, LoaderFiles};
pub use super::hardware::{Plug, PlugKey};
pub use super::layers::{Layer, Layers, Setting, Value};
pub use super::links::{BOOT_ROLE, Bond, BondMode, Bridge, Interface, InterfaceKind};
pub use super::mac::{BadMac, MacAddr};
pub use super::menu::{Boots, EntryGone, Menu, MenuEntry};
use super::pci::PciId;
use super::rescue::PasswordHash;
pub use super::storage::{ImagePool, NfsVersion, PoolKind, Root, RootSource};
pub use super::unknown::{Unknown, UnknownPolicy};

/// Where a value stands in the operator's files.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// 1-based line.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
    /// What it stands in: `profile kvm-host`, `host kvm01`, `default`.
    pub layer: Arc<str>,
}

/// A value with the place it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it was written; `None` for a built-in default.
    pub origin: Option<Origin>,
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Everything `hosts.yaml` says, checked.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The site's name, for banners and the status page.
    pub site: String,
    /// The daemon's own ports.
    pub server: Server,
    /// Networks by name.
    pub networks: BTreeMap<String, Arc<Network>>,
    /// Profiles by name, inheritance resolved.
    pub profiles: BTreeMap<String, Arc<Profile>>,
    /// Hosts by name.
    pub hosts: BTreeMap<String, Arc<Host>>,
    /// How machines that are not listed are met, where their network does not say otherwise.
    pub unknown: Unknown,
    /// The file with the secrets of [`Profile::files`], as written: relative to the inventory.
    pub secrets: Option<Sourced<PathBuf>>,
    /// Every MAC of every host.
    pub by_mac: HashMap<MacAddr, Arc<Host>>,
    /// Every MAC of every host's `nics`, from which it does not boot.
    pub by_nic: HashMap<MacAddr, Arc<Host>>,
    /// Every serial number, as it is compared.
    pub by_serial: HashMap<String, Arc<Host>>,
    /// Every switch port, as it is compared.
    pub by_plug: HashMap<PlugKey, Arc<Host>>,
    /// All of it as it was written, with its places.
    pub written: Layers,
}

/// The ports that the daemon listens on, and what it does at once; DHCP's (67, 4011) are fixed by its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// TCP port of boot files and API.
    pub http_port: u16,
    /// TCP port of the embedded NFS server.
    pub nfs_port: u16,
    /// UDP port of TFTP; firmware asks on 69 only.
    pub tftp_port: u16,
    /// UDP port of syslog lines; `None`: they are not taken. iPXE sends to 514 only.
    pub syslog_port: Option<u16>,
    /// Large transfers by HTTP that run at once; others wait their turn.
    pub transfers: usize,
    /// TCP port of the API where that of the boot files has none; `None`: they share one.
    pub api_port: Option<u16>,
    /// HTTPS, beside HTTP.
    pub tls: Option<Tls>,
    /// Who may read the page, the API and the metrics over the network.
    pub read: Reading,
    /// Who may change the inventory over the network.
    pub write: Writing,
}

/// Who may read over the network how machines stand. The control socket is open to whom its file mode lets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Whoever can reach it.
    Open,
    /// Who shows the token of the state directory.
    Token,
}

/// Who may change the inventory over the network, and never in the clear. The control socket is open to whom its file
/// mode lets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Nobody.
    Off,
    /// Who shows the token of the state directory.
    Token,
}

/// Boot files and API by HTTPS. Files as written: relative to the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and those between it and the CA, PEM.
    pub certificate: Sourced<PathBuf>,
    /// Its private key, PEM.
    pub key: Sourced<PathBuf>,
    /// TCP port.
    pub port: u16,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            http_port: 80,
            nfs_port: 2049,
            tftp_port: 69,
            syslog_port: None,
            transfers: 128,
            api_port: None,
            tls: None,
            read: Reading::Open,
            write: Writing::Off,
        }
    }
}

impl Server {
    /// Whether syslog lines are taken on the port that iPXE sends them to (`include/ipxe/syslog.h`).
    pub fn hears_ipxe(&self) -> bool {
        self.syslog_port == Some(514)
    }
}

/// One layer-2 network with its IPv4 subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its key in `networks:`.
    pub name: String,
    /// The subnet.
    pub subnet: Ipv4Net,
    /// Default router (option 3).
    pub router: Option<Ipv4Addr>,
    /// The daemon's own address here, where its interface has several; `None`: the one in the
    /// subnet.
    pub server: Option<Ipv4Addr>,
    /// Name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Domain name (option 15).
    pub domain: Option<String>,
    /// NTP servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Interface MTU (option 26); `None`: not sent.
    pub mtu: Option<u16>,
    /// Whether and how DHCP is served here.
    pub dhcp: DhcpMode,
    /// Addresses for machines that are not listed.
    pub pool: Option<AddressRange>,
    /// Whether the pool's addresses are probed by ARP before they are given.
    pub probe: bool,
    /// Lease time (option 51) for pool addresses.
    pub lease_time: Duration,
    /// Domains to search for short names (option 119).
    pub search: Vec<String>,
    /// Routes beside the default one (option 121): to where, by whom.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Further options, by code, as bytes.
    pub options: BTreeMap<u8, Vec<u8>>,
    /// Whether no other DHCP server is here: then addresses that we know nothing of are judged
    /// too (RFC 2131 §4.3.2).
    pub authoritative: bool,
    /// How long replies to booting firmware are held back.
    pub reply_delay: BTreeMap<Firmware, Duration>,
    /// Whether iPXE is let wait for an IPv6 router here.
    pub ipxe_ipv6: bool,
    /// Files of `loaders/` for kinds of firmware, in place of those that profiles imply.
    pub loaders: LoaderFiles,
    /// How machines that are not listed are met here.
    pub unknown: Unknown,
}

/// How DHCP is served on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpMode {
    /// We are the DHCP server.
    Server,
    /// Another server gives addresses; we add the PXE answers.
    Proxy,
    /// We are silent.
    Off,
}

/// An inclusive range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The first address.
    pub first: Ipv4Addr,
    /// The last address, not below the first.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Whether the address lies in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

/// A server that the operator listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its hostname (RFC 1123 label).
    pub name: String,
    /// Its key in `hosts:`: the name, or that of the range that it is one of.
    pub key: Arc<str>,
    /// Every NIC it may boot from; none while it waits for its hardware.
    pub macs: Vec<Sourced<MacAddr>>,
    /// Its serial number, by which a machine becomes this host.
    pub serial: Option<Sourced<String>>,
    /// The switch port by which a machine becomes this host.
    pub plug: Option<Plug>,
    /// Its reserved address, inside its network's subnet and outside its pool.
    pub ip: Sourced<Ipv4Addr>,
    /// The network that `ip` lies in.
    pub network: Arc<Network>,
    /// Where it lives once its boot bridge stands.
    pub home: Home,
    /// Its other NICs, by role.
    pub nics: BTreeMap<String, Sourced<MacAddr>>,
    /// Static addresses with their prefix, by interface; the boot bridge may be among them.
    pub addresses: BTreeMap<String, Sourced<Ipv4Net>>,
    /// Its profile, with the host's own settings laid over it.
    pub profile: Arc<Profile>,
    /// Files of `loaders/` for kinds of firmware; they win over the network's.
    pub loaders: LoaderFiles,
    /// Rack name.
    pub rack: Option<String>,
    /// Rack unit, from 1.
    pub unit: Option<u16>,
    /// Where the host stands in the file.
    pub origin: Origin,
}

impl Host {
    /// Whether it may boot from this MAC.
    pub fn has(&self, mac: MacAddr) -> bool {
        self.macs.iter().any(|known| **known == mac)
    }

    /// The first that it may boot from.
    pub fn first_mac(&self) -> Option<MacAddr> {
        self.macs.first().map(|mac| **mac)
    }

    /// Whether no machine is it yet.
    pub fn waits_for_hardware(&self) -> bool {
        self.macs.is_empty()
    }

    /// Whether a machine may become it by itself while it has none.
    pub fn is_filled_by(&self, policy: UnknownPolicy) -> bool {
        match policy {
            UnknownPolicy::NextFree => self.serial.is_none() && self.plug.is_none(),
            UnknownPolicy::BySerial => self.serial.is_some(),
            UnknownPolicy::ByPort => self.plug.is_some(),
            UnknownPolicy::Ignore | UnknownPolicy::Hold | UnknownPolicy::Approve => false,
        }
    }

    /// The MACs of a role: every one that it may boot from for `boot`, else that of `nics`.
    pub fn macs_of(&self, role: &str) -> Vec<MacAddr> {
        let boot = self.macs.iter().filter(|_| role == BOOT_ROLE);
        boot.chain(self.nics.get(role)).map(|mac| **mac).collect()
    }
}

/// The boot bridge's address. Loaders use [`Host::ip`]; a bridge on a VLAN may lie elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Address and prefix length.
    pub address: Ipv4Net,
    /// The network that it lies in.
    pub network: Arc<Network>,
}

/// What a kind of host boots; inheritance is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its key in `profiles:`.
    pub name: String,
    /// The chain it extends, nearest first.
    pub extends: Vec<String>,
    /// Which loader to send.
    pub loader: Sourced<Loader>,
    /// Directory in the data directory's `kernels/`.
    pub kernel: Sourced<String>,
    /// File stem in the data directory's `initrds/`.
    pub initrd: Sourced<String>,
    /// Further kernel arguments, parents' first.
    pub cmdline: Vec<Sourced<String>>,
    /// The bridge over the boot NIC.
    pub bridge: Sourced<Bridge>,
    /// What is built beside the boot bridge, in build order.
    pub interfaces: Vec<Interface>,
    /// The root file system.
    pub root: Sourced<Root>,
    /// The shared pool of VM images.
    pub image_pool: Option<Sourced<ImagePool>>,
    /// Trees of files that are laid into the root, parents' first; a later one wins.
    pub files: Vec<Sourced<String>>,
    /// What the initrd does after a stage has failed for good.
    pub on_failure: Sourced<OnFailure>,
    /// Root's password for a rescue boot, which stays in the initrd; `None`: an ordinary boot.
    pub rescue: Option<Sourced<PasswordHash>>,
    /// What it offers on the console first; `None`: it boots at once.
    pub menu: Option<Menu>,
    /// NICs that these hosts have; `initrd build` warns of one that nothing drives.
    pub pci: Vec<Sourced<PciId>>,
}

/// First-stage loader of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loader {
    /// iPXE: script, kernel and initrd by HTTP.
    Ipxe,
    /// PXELINUX: BIOS only, all by TFTP; UEFI clients of such a profile get iPXE.
    Pxelinux,
    /// GRUB: behind shim for UEFI.
    Grub,
}

/// What the initrd does when a stage has failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Reboot after the hold that the daemon names.
    Reboot,
    /// Offer a shell on the console.
    Shell,
    /// Stay as it is, with the failure on the screen, until someone resets it.
    Hold,
}
