//! Loader configs: who may have them, and what goes into them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;

use super::inventory_boot::Stranger;
use super::menu::{self, LoaderConfig};
use super::{Found, Site, Snapshot, links};
use crate::assets::{initrd_path, kernel_path};
use crate::inventory::model::{DhcpMode, Host, Inventory, MacAddr, OnFailure, Sourced};
use crate::policy::boot_target::Endpoint;
use crate::policy::event::{AttemptId, MachineId, Stage, StageState};
use crate::render::{BootContext, ConfigKind, FileLinks, HoldContext, RenderError, ServerContext};
use crate::timeline::Refusal;

/// How long an unlisted machine waits before it asks again, seconds.
pub(super) const HOLD_S: u32 = 15;

/// Why a config was not given.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The address that asks does not belong to the machine it asks for.
    #[error("{peer} asked for the boot script of {mac} and does not have that machine's address")]
    NotYours {
        /// Who asks.
        peer: Ipv4Addr,
        /// For whom.
        mac: MacAddr,
    },
    /// Nobody here has the address that asks.
    #[error("nobody has the address {0}: it has no lease and no listed host has it")]
    Nobody(Ipv4Addr),
    /// The menu of this host has no such entry, or it has no menu: hosts.yaml was edited meanwhile.
    #[error("the menu of {machine} has no entry `{entry}`")]
    NoEntry {
        /// Whose menu.
        machine: String,
        /// What was asked for.
        entry: String,
    },
    /// Whoever asks in a waiting machine's name has not its token.
    #[error(
        "{peer} asked what {mac} does next and did not show the token of its inventory boot: {why}"
    )]
    NotProven {
        /// Who asks.
        peer: Ipv4Addr,
        /// For whom.
        mac: MacAddr,
        /// What is wrong with the token.
        why: Refusal,
    },
    /// The host has come up since.
    #[error(
        "{peer} asked what {mac} does next, but it has gone on as {host} already: it is to boot anew"
    )]
    GoneOn {
        /// Who asks.
        peer: Ipv4Addr,
        /// For whom.
        mac: MacAddr,
        /// The host that it is.
        host: String,
    },
    /// Machines of that network do not boot to tell what they are.
    #[error(
        "{0} asked as an inventory boot does, and the `unknown` of its network has no `inventory`"
    )]
    NoInventory(Ipv4Addr),
    /// The template does not render.
    #[error("the script could not be rendered")]
    Render(#[from] RenderError),
}

impl Denied {
    /// With its cause.
    pub(crate) fn words(&self) -> String {
        let cause = std::error::Error::source(self).map(|cause| format!(": {cause}"));
        format!("{self}{}", cause.unwrap_or_default())
    }
}

/// A listed host that asks for a config, and all that its answer is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BootRequest<'a> {
    pub(crate) kind: ConfigKind,
    pub(crate) inventory: &'a Inventory,
    pub(crate) host: &'a Host,
    pub(crate) mac: MacAddr,
    /// The daemon's address that it asked.
    pub(crate) local: Ipv4Addr,
    pub(crate) attempt: &'a AttemptId,
    pub(crate) token: &'a str,
}

impl Site {
    /// The config for the machine with this MAC, if `peer` is that machine's address; of its menu's
    /// `entry`, or the first that it gets.
    ///
    /// The address is what ties a request to a machine here: a guest that is bridged onto
    /// the network has another one.
    ///
    /// # Errors
    /// [`Denied`], which is recorded too.
    pub fn config_for_mac(
        &self,
        kind: ConfigKind,
        mac: MacAddr,
        entry: Option<&str>,
        peer: Ipv4Addr,
        local: Ipv4Addr,
    ) -> Result<LoaderConfig, Denied> {
        let now = Timestamp::now();
        let host = self.snapshot().inventory.by_mac.get(&mac).cloned();
        let holds_lease = self.holder(peer) == Some(mac);
        let reserved = self.is_reserved(host.as_ref(), mac, peer);
        let result = match host {
            Some(host) if reserved => self.boot_config(kind, &host, mac, entry, local),
            // Listed since it got its address of the pool, or not listed: it waits.
            host if holds_lease => self.hold_config(kind, host.as_deref(), mac, (peer, local), now),
            _ => Err(Denied::NotYours { peer, mac }),
        };
        self.tell(peer, result)
    }

    /// Whether `peer` is the machine's own address: a listed host's, or one that it was given while it waits.
    pub(super) fn is_its_own(
        &self,
        host: Option<&Arc<Host>>,
        mac: MacAddr,
        peer: Ipv4Addr,
    ) -> bool {
        self.is_reserved(host, mac, peer) || self.holder(peer) == Some(mac)
    }

    /// Whether `peer` is the address that the host with this MAC has for its own.
    ///
    /// Where another server gives the addresses, the MAC on the link decides; behind a relay there is none, and the
    /// host must have the address that is listed.
    pub(super) fn is_reserved(
        &self,
        host: Option<&Arc<Host>>,
        mac: MacAddr,
        peer: Ipv4Addr,
    ) -> bool {
        match self.holder(peer) {
            Some(holder) if self.is_beside(peer) => holder == mac,
            holder => host.is_some_and(|host| {
                *host.ip == peer && holder.is_none_or(|holder| host.has(holder))
            }),
        }
    }

    /// The config for whoever has the address `peer`: GRUB's file name carries no MAC.
    ///
    /// # Errors
    /// [`Denied`], which is recorded too.
    pub fn config_for_peer(
        &self,
        kind: ConfigKind,
        entry: Option<&str>,
        peer: Ipv4Addr,
        local: Ipv4Addr,
    ) -> Result<LoaderConfig, Denied> {
        let now = Timestamp::now();
        let result = match self.machine_at(peer) {
            Some(Found {
                host: Some(host),
                mac: None,
                ..
            }) => {
                // Of several NICs, the one that took the lease asks.
                let holder = self.holder(peer);
                match holder.or_else(|| host.first_mac()) {
                    Some(mac) => self.boot_config(kind, &host, mac, entry, local),
                    None => Err(Denied::Nobody(peer)),
                }
            }
            Some(Found {
                host,
                mac: Some(mac),
                ..
            }) => self.hold_config(kind, host.as_deref(), mac, (peer, local), now),
            Some(Found { mac: None, .. }) | None => Err(Denied::Nobody(peer)),
        };
        self.tell(peer, result)
    }

    /// `autoexec.ipxe`, which some builds of iPXE look for beside themselves: it leads to the
    /// script of whichever machine runs it. No secret is in it.
    pub fn autoexec(&self, local: Ipv4Addr) -> String {
        let base = endpoint(&self.snapshot().inventory, None, local).base_url();
        format!(
            "#!ipxe\nisset ${{netX/ip}} || dhcp ||\nchain --replace {base}/boot/${{netX/mac}}/script.ipxe\n"
        )
    }

    pub(super) fn tell<T>(&self, peer: Ipv4Addr, result: Result<T, Denied>) -> Result<T, Denied> {
        if let Err(denied) = &result {
            self.note(peer, Stage::Script, StageState::Ignored, denied.words());
        }
        result
    }

    fn boot_config(
        &self,
        kind: ConfigKind,
        host: &Arc<Host>,
        mac: MacAddr,
        entry: Option<&str>,
        local: Ipv4Addr,
    ) -> Result<LoaderConfig, Denied> {
        let id = MachineId(host.name.clone());
        let now = Timestamp::now();
        let attempt = match (host.network.dhcp, entry) {
            (DhcpMode::Off, None) => self.timeline.attempt_unseen(&id, now),
            _ => self.timeline.attempt(&id, now),
        };
        let (snapshot, host) = self.boots_by(host, &attempt);
        let request = BootRequest {
            kind,
            inventory: &snapshot.inventory,
            host: &host,
            mac,
            local,
            attempt: &attempt,
            token: &self.timeline.boot_token(&attempt),
        };
        config(&snapshot, &request, entry)
    }

    fn hold_config(
        &self,
        kind: ConfigKind,
        host: Option<&Host>,
        mac: MacAddr,
        (peer, local): (Ipv4Addr, Ipv4Addr),
        now: Timestamp,
    ) -> Result<LoaderConfig, Denied> {
        let snapshot = self.snapshot();
        let id = host.map_or_else(
            || MachineId::unlisted(mac),
            |host| MachineId(host.name.clone()),
        );
        let attempt = self.timeline.attempt(&id, now);
        self.discovery.held(mac);
        // iPXE tells who it is with the same question.
        if kind != ConfigKind::Ipxe {
            self.enrolment.consider(mac);
        }
        let stranger = Stranger {
            kind,
            mac,
            local,
            attempt: &attempt,
            token: &self.timeline.boot_token(&attempt),
        };
        let inventory_boot = match host {
            None => self.inventory_boot(&snapshot, &stranger, peer),
            Some(_) => None,
        };
        inventory_boot.unwrap_or_else(|| hold(&snapshot, kind, host, mac, local))
    }
}

/// What a listed host is sent: its script, its menu, or what an entry of that boots.
pub(crate) fn config(
    snapshot: &Snapshot,
    request: &BootRequest<'_>,
    entry: Option<&str>,
) -> Result<LoaderConfig, Denied> {
    let host = request.host;
    match (&host.profile.menu, entry) {
        (Some(menu), _) => menu::config(snapshot, request, menu, entry),
        (None, Some(entry)) => Err(Denied::NoEntry {
            machine: host.name.clone(),
            entry: entry.to_owned(),
        }),
        (None, None) => {
            let context = request.context(host);
            let text = snapshot.templates.boot_config(request.kind, &context)?;
            Ok(LoaderConfig::script(text))
        }
    }
}

/// What makes a machine wait until it is listed.
pub(crate) fn hold(
    snapshot: &Snapshot,
    kind: ConfigKind,
    host: Option<&Host>,
    mac: MacAddr,
    local: Ipv4Addr,
) -> Result<LoaderConfig, Denied> {
    let context = HoldContext {
        site: snapshot.inventory.site.clone(),
        mac: mac.to_string(),
        server: server_context(endpoint(&snapshot.inventory, host, local)),
        hold_seconds: HOLD_S,
    };
    let text = snapshot.templates.hold_config(kind, &context)?;
    let story = match host {
        None => "not listed, it waits: ",
        Some(_) => "listed since it got its address, it takes its own first: ",
    };
    Ok(LoaderConfig::script(text).with_story(story))
}

pub(super) fn endpoint(inventory: &Inventory, host: Option<&Host>, local: Ipv4Addr) -> Endpoint {
    let address = host.and_then(|host| host.network.server).unwrap_or(local);
    Endpoint {
        address,
        http_port: inventory.server.http_port,
    }
}

pub(super) fn server_context(endpoint: Endpoint) -> ServerContext {
    ServerContext {
        url: endpoint.base_url(),
        address: endpoint.address.to_string(),
    }
}

pub(super) fn kernel_links(kernel: &str, server: &ServerContext) -> FileLinks {
    FileLinks::new(kernel, &kernel_path(kernel), server)
}

pub(super) fn initrd_links(initrd: &str, server: &ServerContext) -> FileLinks {
    FileLinks::new(initrd, &initrd_path(initrd), server)
}

/// Kernel arguments without where they come from.
pub(super) fn words(cmdline: &[Sourced<String>]) -> Vec<String> {
    let words = cmdline.iter();
    words.map(|argument| argument.value.clone()).collect()
}

impl BootRequest<'_> {
    /// What boots `host`: the one that asks, or the same with another profile.
    pub(crate) fn context(&self, host: &Host) -> BootContext {
        let (inventory, mac) = (self.inventory, self.mac);
        let profile = &host.profile;
        let address = host.network.server.unwrap_or(self.local);
        let http_port = inventory.server.http_port;
        let server = server_context(Endpoint { address, http_port });
        let home = &host.home.network;
        let daemon = server_context(Endpoint {
            address: home.server.unwrap_or(address),
            http_port,
        });
        let dns: Vec<String> = home.dns.iter().map(Ipv4Addr::to_string).collect();
        BootContext {
            site: inventory.site.clone(),
            machine: host.name.clone(),
            mac: mac.to_string(),
            bootif: mac.bootif(),
            attempt: self.attempt.to_string(),
            token: self.token.to_owned(),
            daemon,
            bridge: links::bridge(host),
            address: host.home.address.to_string(),
            router: home.router.map(|router| router.to_string()),
            dns: (!dns.is_empty()).then(|| dns.join(",")),
            on_failure: on_failure(*profile.on_failure).into(),
            arguments: words(&profile.cmdline),
            kernel: kernel_links(&profile.kernel, &server),
            serial: None,
            initrd: Some(initrd_links(&profile.initrd, &server)),
            server,
        }
    }
}

/// The word for it on the kernel command line and in the host's configuration.
pub fn on_failure(what: OnFailure) -> &'static str {
    match what {
        OnFailure::Reboot => "reboot",
        OnFailure::Shell => "shell",
        OnFailure::Hold => "hold",
    }
}

/// Of a machine that is not there yet.
pub(super) const STAND_IN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::lease::LeaseChange;
    use crate::render::Templates;

    /// The command lines of a host, as all loaders get them.
    fn cmdline(text: &str, name: &str) -> String {
        let (inventory, _) = crate::inventory::parse("interfaces.yaml", text).unwrap();
        let host = &inventory.hosts[name];
        let attempt = AttemptId("a".into());
        let local = Ipv4Addr::new(10, 77, 0, 1);
        let request = BootRequest {
            kind: ConfigKind::Ipxe,
            inventory: &inventory,
            host,
            mac: *host.macs[0],
            local,
            attempt: &attempt,
            token: "t",
        };
        let context = request.context(host);
        assert_eq!(context.server.url, "http://10.77.0.1");
        Templates::load(None).unwrap().cmdline(&context).unwrap()
    }

    const INTERFACES: &str = include_str!("../../tests/inventories/valid/interfaces.yaml");

    #[test]
    fn a_bridge_in_another_network_has_that_ones_address_router_and_daemon() {
        assert_eq!(
            cmdline(INTERFACES, "kvm02"),
            "bridgehead.url=http://10.99.0.1 bridgehead.host=kvm02 bridgehead.attempt=a \
             bridgehead.token=t bridgehead.bridge=br0 bridgehead.mtu=9000 bridgehead.vlan=100 \
             bridgehead.bond=bond0,mode=802.3ad,miimon=100,lacp_rate=fast,xmit_hash_policy=layer3+4 \
             bridgehead.ports=52:54:00:00:00:02,52:54:00:00:02:02 bridgehead.ip=10.99.0.12/24 \
             bridgehead.gw=10.99.0.254 bridgehead.dns=10.99.0.2 bridgehead.fail=reboot \
             BOOTIF=01-52-54-00-00-00-02 panic=30"
        );
    }

    /// The pool shrank, and one of its addresses is a host's now; who was given it waits there still.
    #[test]
    fn who_holds_an_address_that_is_anothers_now_gets_neither_its_config_nor_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let site = crate::explain::testing::site(dir.path());
        let (peer, local) = (Ipv4Addr::new(10, 77, 0, 12), Ipv4Addr::new(10, 77, 0, 1));
        let kvm02 = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
        let stranger = MacAddr([0x52, 0x54, 0, 0, 0x77, 7]);
        let lease = |mac| {
            site.leases().apply(&LeaseChange::Bind {
                mac,
                address: peer,
                expires: "2100-01-01T00:00:00Z".parse().unwrap(),
                port: None,
            });
        };
        let config = || site.config_for_peer(ConfigKind::Grub, None, peer, local);
        lease(stranger);
        let waits = config().unwrap().text;
        assert!(!waits.contains("bridgehead.token"), "{waits}");
        assert_eq!(
            site.machine_at(peer).unwrap().id,
            MachineId::unlisted(stranger)
        );
        let asked = site.config_for_mac(ConfigKind::Grub, kvm02, None, peer, local);
        assert!(matches!(asked, Err(Denied::NotYours { .. })), "{asked:?}");
        lease(kvm02);
        let boots = config().unwrap().text;
        assert!(boots.contains("bridgehead.host=kvm02"), "{boots}");
    }
}
