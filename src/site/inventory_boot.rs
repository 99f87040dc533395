//! The small inventory boot: a machine that nobody listed runs a profile's kernel and initrd to tell what it is, waits
//! there, and goes on as the host that it becomes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::boot::{
    BootRequest, Denied, STAND_IN, endpoint, initrd_links, kernel_links, server_context, words,
};
use super::menu::LoaderConfig;
use super::{Site, Snapshot};
use crate::assets::{initrd_path, kernel_path};
use crate::inventory::model::{Host, Inventory, MacAddr, Network, Profile};
use crate::policy::discovered::{Discovered, Hardware, Identity};
use crate::policy::event::{AttemptId, BootEvent, MachineId, Stage, StageState};
use crate::render::{BootContext, BridgeContext, ConfigKind, RenderError, Templates};

/// The word on the command line that makes the initrd stop and tell; its value is the image's id.
const WORD: &str = "bridgehead.inventory";

/// What a machine that waits in its initrd is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It is not listed.
    Wait {
        /// Whether what it is made of is known here.
        known: bool,
        /// Whether it is to ask for its lease by broadcast, as somebody did in its name by another port: its renewals
        /// go past the relay, and never contradict.
        asks: bool,
    },
    /// It is this host.
    Go {
        /// The host's name.
        host: String,
        /// What goes on in the kernel and initrd that run, if those are the host's; else it is to boot anew.
        here: Option<Here>,
    },
}

/// What a host boots, for a machine that may run it already.
#[derive(Debug, PartialEq, Eq)]
pub struct Here {
    /// Kernel, initrd and kernel arguments.
    pub image: String,
    /// The host's kernel command line.
    pub cmdline: String,
}

impl Next {
    /// As the initrd reads it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Wait { known, asks } => {
                let unknown = if *known { "" } else { "hardware=unknown\n" };
                let asks = if *asks { "lease=ask\n" } else { "" };
                format!("next=wait\n{asks}{unknown}")
            }
            Self::Go { host, here } => {
                let here = here.as_ref().map(|here| {
                    let Here { image, cmdline } = here;
                    format!("image={image}\ncmdline={cmdline}\n")
                });
                format!("next=go\nhost={host}\n{}", here.unwrap_or_default())
            }
        }
    }
}

/// What there is to boot a machine with that nobody listed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stranger<'a> {
    pub(crate) kind: ConfigKind,
    pub(crate) mac: MacAddr,
    /// The daemon's address that it asked.
    pub(crate) local: Ipv4Addr,
    pub(crate) attempt: &'a AttemptId,
    pub(crate) token: &'a str,
}

impl Stranger<'_> {
    fn context(&self, inventory: &Inventory, profile: &Profile) -> BootContext {
        let server = server_context(endpoint(inventory, None, self.local));
        BootContext {
            site: inventory.site.clone(),
            machine: MachineId::unlisted(self.mac).0,
            mac: self.mac.to_string(),
            bootif: self.mac.bootif(),
            attempt: self.attempt.to_string(),
            token: self.token.to_owned(),
            daemon: server.clone(),
            bridge: BridgeContext {
                name: profile.bridge.name.clone(),
                mtu: 1500,
                vlan: None,
                bond: None,
                ports: None,
            },
            address: "dhcp".into(),
            router: None,
            dns: None,
            // It comes back to the loader, which holds it when that helps no more.
            on_failure: "reboot".into(),
            arguments: words(&profile.cmdline),
            kernel: kernel_links(&profile.kernel, &server),
            serial: None,
            initrd: Some(initrd_links(&profile.initrd, &server)),
            server,
        }
    }

    /// The script of the inventory boot with this profile.
    pub(crate) fn script(
        &self,
        snapshot: &Snapshot,
        profile: &Profile,
    ) -> Result<LoaderConfig, RenderError> {
        let mut context = self.context(&snapshot.inventory, profile);
        let cmdline = snapshot.templates.cmdline(&context)?;
        let image = image(snapshot, profile, &cmdline).unwrap_or_default();
        context.arguments.push(format!("{WORD}={image}"));
        let text = snapshot.templates.boot_config(self.kind, &context)?;
        Ok(LoaderConfig::script(text).with_story("inventory boot: "))
    }
}

/// What runs where this profile is booted with this command line: two that have the same id differ in nothing that
/// the kernel was started with but our own words.
fn image(snapshot: &Snapshot, profile: &Profile, cmdline: &str) -> Option<String> {
    let file = |path: String| Some(snapshot.assets.get(&path)?.sha256.clone());
    let kernel = file(kernel_path(&profile.kernel))?;
    let initrd = file(initrd_path(&profile.initrd))?;
    let own = |word: &&str| word.starts_with("bridgehead.") || word.starts_with("BOOTIF=");
    let words: Vec<&str> = cmdline.split(' ').filter(|word| !own(word)).collect();
    let digest = Sha256::digest(format!("{kernel} {initrd} {}", words.join(" ")));
    let octets = digest.iter().take(16);
    Some(octets.map(|octet| format!("{octet:02x}")).collect())
}

/// The profile that strangers of the network boot to tell what they are, if there is one.
pub(crate) fn profile<'a>(
    snapshot: &'a Snapshot,
    network: Option<&Network>,
) -> Option<&'a Profile> {
    let name = network.map(|network| network.name.as_str());
    let unknown = snapshot.inventory.unknown_on(name);
    let name = unknown.inventory.as_ref()?;
    snapshot
        .inventory
        .profiles
        .get(&name.value)
        .map(|profile| &**profile)
}

/// Renders the command line of every inventory boot as if a stranger asked now, and returns what went wrong.
pub(super) fn rehearse(inventory: &Inventory, templates: &Templates) -> Vec<RenderError> {
    let networks = inventory.networks.values();
    let unknown = networks.map(|network| &network.unknown);
    let names: BTreeSet<&String> = unknown
        .filter_map(|unknown| Some(&unknown.inventory.as_ref()?.value))
        .collect();
    let profiles = names
        .into_iter()
        .filter_map(|name| inventory.profiles.get(name));
    let stranger = Stranger {
        kind: ConfigKind::Ipxe,
        mac: STAND_IN,
        local: Ipv4Addr::new(192, 0, 2, 1),
        attempt: &AttemptId("0".repeat(32)),
        token: &"0".repeat(32),
    };
    let contexts = profiles.map(|profile| {
        let mut context = stranger.context(inventory, profile);
        context.arguments.push(format!("{WORD}={}", "0".repeat(32)));
        context
    });
    contexts
        .filter_map(|context| templates.cmdline(&context).err())
        .collect()
}

impl Site {
    /// The inventory boot's script for a stranger, where its network has one and it may run: a machine on which it
    /// has failed again and again waits at its loader, with the reason.
    pub(super) fn inventory_boot(
        &self,
        snapshot: &Snapshot,
        stranger: &Stranger<'_>,
        peer: Ipv4Addr,
    ) -> Option<Result<LoaderConfig, Denied>> {
        let network = network_of(snapshot, peer)?;
        let profile = profile(snapshot, Some(network))?;
        let kernel = &*profile.kernel;
        let of = snapshot.assets.kernels().get(kernel).copied();
        let begun = self.discovery.begin_inventory(stranger.mac, of, kernel);
        if let Err(why) = begun {
            self.note(peer, Stage::Script, StageState::Info, why);
            return None;
        }
        Some(stranger.script(snapshot, profile).map_err(Denied::from))
    }

    /// What a machine that waits in its initrd is to do next, if `peer` is its address and `token` that of its
    /// inventory boot: what else runs at a host's address gets nothing, and begins no boot.
    ///
    /// # Errors
    /// [`Denied`], which is recorded too.
    pub fn next(
        &self,
        mac: MacAddr,
        peer: Ipv4Addr,
        local: Ipv4Addr,
        token: &str,
    ) -> Result<Next, Denied> {
        let snapshot = self.snapshot();
        let host = snapshot.inventory.by_mac.get(&mac);
        let at_home = |host: &&Arc<Host>| host.network.subnet.contains(&peer);
        let has_address = self.holder(peer) == Some(mac) || self.is_reserved(host, mac, peer);
        let result = match host.filter(at_home) {
            _ if !has_address => Err(Denied::NotYours { peer, mac }),
            Some(host) => {
                let attempt = self.waiting(mac, peer, token);
                attempt.and_then(|attempt| self.go(host, mac, (peer, local), &attempt))
            }
            None => {
                let attempt = self.inventories(&snapshot, peer);
                let attempt = attempt.and_then(|()| self.waiting(mac, peer, token));
                attempt.map(|_| self.wait(mac))
            }
        };
        self.tell(peer, result)
    }

    /// The inventory boot that the token is of.
    fn waiting(&self, mac: MacAddr, peer: Ipv4Addr, token: &str) -> Result<AttemptId, Denied> {
        let authorized = self.timeline.authorize(&MachineId::unlisted(mac), token);
        let (attempt, _) = authorized.map_err(|why| Denied::NotProven { peer, mac, why })?;
        let id = MachineId::unlisted(mac);
        self.timeline.proves(&id, &attempt, Timestamp::now());
        Ok(attempt)
    }

    /// Whether strangers at the address boot to tell what they are.
    fn inventories(&self, snapshot: &Snapshot, peer: Ipv4Addr) -> Result<(), Denied> {
        let network = network_of(snapshot, peer);
        let profile = network.and_then(|network| profile(snapshot, Some(network)));
        profile.map(|_| ()).ok_or(Denied::NoInventory(peer))
    }

    fn wait(&self, mac: MacAddr) -> Next {
        self.discovery.held(mac);
        self.enrolment.consider(mac);
        Next::Wait {
            known: self.discovery.knows_hardware(mac),
            asks: self.is_disputed(mac),
        }
    }

    fn go(
        &self,
        host: &Arc<Host>,
        mac: MacAddr,
        (peer, local): (Ipv4Addr, Ipv4Addr),
        former: &AttemptId,
    ) -> Result<Next, Denied> {
        let id = MachineId(host.name.clone());
        let former = (&MachineId::unlisted(mac), former);
        let attempt = self
            .timeline
            .attempt_following(&id, former, Timestamp::now());
        let attempt = attempt.ok_or_else(|| Denied::GoneOn {
            peer,
            mac,
            host: host.name.clone(),
        })?;
        let (snapshot, host) = self.boots_by(host, &attempt);
        let host = &*host;
        let request = BootRequest {
            kind: ConfigKind::Ipxe,
            inventory: &snapshot.inventory,
            host,
            mac,
            local,
            attempt: &attempt,
            token: &self.timeline.boot_token(&attempt),
        };
        let cmdline = snapshot.templates.cmdline(&request.context(host))?;
        // What a menu has first is its operator's choice, at the loader.
        let image = image(&snapshot, &host.profile, &cmdline);
        let image = image.filter(|_| host.profile.menu.is_none());
        self.tell_going_on(id, mac, peer);
        Ok(Next::Go {
            host: host.name.clone(),
            here: image.map(|image| Here { image, cmdline }),
        })
    }

    /// Once, however often the machine asks because the answer was lost.
    fn tell_going_on(&self, id: MachineId, mac: MacAddr, peer: Ipv4Addr) {
        let message = format!("command line sent to {peer}, which goes on from its inventory boot");
        if !self.timeline.is_at(&id, Stage::Script, &message) {
            let now = Timestamp::now();
            let event = BootEvent::sent(now, id, Stage::Script, StageState::Ok, message);
            self.timeline.record(event.from_mac(mac));
        }
    }

    /// Takes in what an inventory boot found, from the machine's own address and with its attempt's token.
    ///
    /// # Errors
    /// [`Denied`], which is recorded too.
    pub fn learn_hardware(
        &self,
        mac: MacAddr,
        peer: Ipv4Addr,
        token: &str,
        report: &str,
    ) -> Result<(), Denied> {
        let snapshot = self.snapshot();
        let mine = match self.holder(peer) {
            Some(holder) if holder == mac => self.waiting(mac, peer, token).map(|_| ()),
            _ => Err(Denied::NotYours { peer, mac }),
        };
        self.tell(peer, mine.and_then(|()| self.inventories(&snapshot, peer)))?;
        let network = network_of(&snapshot, peer).map(|network| network.name.clone());
        let seen = Discovered::of_report(mac, network, report, Timestamp::now());
        let (said, found) = (Identity::of_report(report), Hardware::of_report(report));
        self.discovery.found(seen, said, found);
        self.enrolment.consider(mac);
        Ok(())
    }
}

/// The network that an address lies in.
pub(crate) fn network_of(snapshot: &Snapshot, address: Ipv4Addr) -> Option<&Network> {
    let mut networks = snapshot.inventory.networks.values();
    let network = networks.find(|network| network.subnet.contains(&address));
    network.map(|network| &**network)
}
