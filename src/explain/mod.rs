//! What the daemon would do: asked without a packet being sent, and without a daemon.
//!
//! Nothing here decides. The answers are those of [`dhcp`](crate::dhcp), [`policy`](crate::policy) and
//! [`site`](crate::site), as they are given to machines.

mod capture;
mod options;
mod posing;
mod provenance;
mod replay;
mod scene;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::dhcp::decide;
use crate::inventory::model::{Boots, Firmware, Host, MacAddr, Profile};
use crate::policy::client::{Asker, Client};
use crate::policy::dhcp::{Port, Received};
use crate::policy::enrol::promise;
use crate::policy::event::{AttemptId, MachineId};
use crate::policy::lease::LeaseTable;
use crate::policy::near::{NearMiss, near_misses};
use crate::policy::verdict::{Destination, Transmit, Verdict};
use crate::render::ConfigKind;
use crate::site::Snapshot;
use crate::site::boot::{self, BootRequest, Denied};
use crate::site::inventory_boot;
use crate::site::menu::LoaderConfig;
use crate::wire::dhcp::Request;

pub use capture::{CaptureError, End};
pub use options::OptionLine;
pub use posing::{BadPosing, Posing};
pub use provenance::{Superseded, Value};
pub use replay::{ReplayError, Replayed, What, replay};
pub use scene::Stand;

/// Version of the JSON.
const SCHEMA: u32 = 1;
/// Stands for what each boot gets anew.
const ATTEMPT: &str = "ATTEMPT";
const TOKEN: &str = "TOKEN";
/// Firmware, the iPXE that it loads, and the loader that this is told to load.
const MAX_ASKERS: usize = 3;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What is served.
    pub snapshot: &'a Snapshot,
    /// The machine.
    pub mac: MacAddr,
    /// What it is taken for; `None`: UEFI that runs its kernel.
    pub posing: Option<Posing>,
    /// The entry that it takes of its menu; `None`: it is shown the menu.
    pub entry: Option<&'a str>,
    /// The daemon's address, where it can't be known from the inventory.
    pub server: Option<Ipv4Addr>,
}

/// The inventory has no network that could be asked in.
#[derive(Debug, thiserror::Error)]
#[error("no network of the inventory is served by DHCP: add one to `networks`")]
pub struct NoNetwork;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Version of this shape.
    pub schema: u32,
    /// The host, or `mac-…`.
    pub machine: String,
    /// The MAC that asks.
    pub mac: MacAddr,
    /// Whether it is in the inventory.
    pub listed: bool,
    /// Listed MACs that may have been meant, where it is not.
    pub near: Vec<NearMiss>,
    /// What the network's policy makes of it, where it is not.
    pub policy: Option<String>,
    /// Where the daemon stands.
    pub server: Stand,
    /// What is asked and answered, in order.
    pub steps: Vec<Step>,
    /// What the kernel is told, where it is known which.
    pub cmdline: Option<String>,
    /// What the machine boots, and where each of it is written.
    pub values: Vec<Value>,
}

/// One question and its answer.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Step {
    /// A DISCOVER.
    Dhcp(DhcpStep),
    /// A loader's script or config.
    Config(ConfigStep),
}

impl Step {
    /// Whether DHCP answers.
    fn is_offer(&self) -> bool {
        matches!(self, Self::Dhcp(step) if step.answer.is_some())
    }
}

/// What DHCP says.
#[derive(Debug, Serialize)]
pub struct DhcpStep {
    /// Who asks, and how.
    pub asks: String,
    /// What is sent; `None`: nothing.
    pub answer: Option<Answer>,
    /// Why.
    pub because: String,
    /// What `bridgehead log` would say.
    pub event: String,
}

/// A reply.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// `OFFER`, `ACK` or `NAK`.
    pub message: String,
    /// The address that is given; none where another server gives it.
    pub address: Option<Ipv4Addr>,
    /// The way that it takes.
    pub way: String,
    /// `siaddr`.
    pub next_server: Ipv4Addr,
    /// `file`; empty where there is nothing to boot.
    pub boot_file: String,
    /// The size of that file, where we have it, bytes.
    pub boot_file_bytes: Option<usize>,
    /// Everything else.
    pub options: Vec<OptionLine>,
    /// How long it is held back, milliseconds.
    pub delay_ms: u128,
}

/// What a loader is sent.
#[derive(Debug, Serialize)]
pub struct ConfigStep {
    /// `iPXE script`, `GRUB config` or `PXELINUX config`.
    pub what: String,
    /// What it asks for.
    pub asked: String,
    /// The text; `None`: it gets none.
    pub text: Option<String>,
    /// Why not, or why this one.
    pub because: String,
}

/// Answers the question.
///
/// # Errors
/// [`NoNetwork`].
pub fn explain(question: &Question<'_>) -> Result<Explanation, NoNetwork> {
    let inventory = &question.snapshot.inventory;
    let host = inventory.by_mac.get(&question.mac);
    let network = host.map(|host| host.network.as_ref());
    let network = network.or_else(|| scene::usual_network(inventory));
    let network = network.ok_or(NoNetwork)?;
    let mut play = Play {
        question,
        host,
        server: scene::stand(network, question.server),
        steps: Vec::new(),
    };
    play.run();
    Ok(play.told())
}

struct Play<'a> {
    question: &'a Question<'a>,
    host: Option<&'a Arc<Host>>,
    server: Stand,
    steps: Vec<Step>,
}

impl Play<'_> {
    fn run(&mut self) {
        let kernels = self.question.snapshot.assets.kernels();
        let kernel = self
            .host
            .and_then(|host| kernels.get(&*host.profile.kernel));
        let posing = self.question.posing;
        match posing.unwrap_or_else(|| Posing::likely(kernel.copied())) {
            Posing::Loader(kind) => self.ask_for_config(kind),
            Posing::Program(asker, firmware) => self.ask(asker, firmware),
        }
    }

    fn ask(&mut self, mut asker: Asker, firmware: Firmware) {
        for _ in 0..MAX_ASKERS {
            let Some(file) = self.ask_dhcp(asker, firmware) else {
                return;
            };
            match loader_of(asker, &file) {
                Some(ConfigKind::Ipxe) if asker != Asker::Ipxe => asker = Asker::Ipxe,
                Some(kind) => return self.ask_for_config(kind),
                None => return,
            }
        }
    }

    /// What DHCP tells this program to load.
    fn ask_dhcp(&mut self, asker: Asker, firmware: Firmware) -> Option<String> {
        let snapshot = self.question.snapshot;
        let mut request = scene::discover(self.question.mac, asker, firmware);
        let client = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let relay = self.server.relay.map(|relay| SocketAddrV4::new(relay, 67));
        if let Some(relay) = relay {
            request.giaddr = *relay.ip();
        }
        let received = Received {
            request: &request,
            locals: &[self.server.address],
            to: relay.map_or(Ipv4Addr::BROADCAST, |_| self.server.address),
            source: relay.unwrap_or(client),
            port: Port::Dhcp,
        };
        let (mut leases, now) = (LeaseTable::default(), Timestamp::now());
        let own = scene::owning(&[self.server.address], &snapshot.inventory);
        let verdict = decide(&received, snapshot, &own, &mut leases, now, false);
        let step = DhcpStep::new(snapshot, &request, &verdict);
        let file = step.answer.as_ref().map(|answer| answer.boot_file.clone());
        self.steps.push(Step::Dhcp(step));
        file.filter(|file| !file.is_empty())
    }

    fn ask_for_config(&mut self, kind: ConfigKind) {
        let attempt = AttemptId(ATTEMPT.into());
        let config = match self.host {
            Some(host) => {
                let request = self.request(kind, host, &attempt);
                boot::config(self.question.snapshot, &request, self.question.entry)
            }
            None => self.strangers_config(kind, &attempt),
        };
        let because = match (&config, self.host) {
            (Err(denied), _) => denied.words(),
            (Ok(_), Some(host)) if host.profile.menu.is_some() && self.question.entry.is_none() => {
                "its profile has a menu; --entry NAME shows what an entry boots".to_owned()
            }
            (Ok(_), Some(host)) => format!("it is {}, profile {}", host.name, host.profile.name),
            (Ok(_), None) => match self.inventory_profile() {
                Some(profile) => format!(
                    "it is not listed: it boots the inventory of profile {}, says there what it is, and waits for its name",
                    profile.name
                ),
                None => "it is not listed: it waits, and asks again until it is".to_owned(),
            },
        };
        self.steps.push(Step::Config(ConfigStep {
            what: kind.to_string(),
            asked: self.name_of(kind),
            text: config.ok().map(|config| config.text),
            because,
        }));
    }

    /// What strangers boot here to tell what they are.
    fn inventory_profile(&self) -> Option<&Profile> {
        let snapshot = self.question.snapshot;
        inventory_boot::profile(
            snapshot,
            inventory_boot::network_of(snapshot, self.server.address),
        )
    }

    fn strangers_config(
        &self,
        kind: ConfigKind,
        attempt: &AttemptId,
    ) -> Result<LoaderConfig, Denied> {
        let (snapshot, mac, local) = (
            self.question.snapshot,
            self.question.mac,
            self.server.address,
        );
        let Some(profile) = self.inventory_profile() else {
            return boot::hold(snapshot, kind, None, mac, local);
        };
        let stranger = inventory_boot::Stranger {
            kind,
            mac,
            local,
            attempt,
            token: TOKEN,
        };
        Ok(stranger.script(snapshot, profile)?)
    }

    /// What loaders ask for; firmware and iPXE were told, the others have it built in.
    fn name_of(&self, kind: ConfigKind) -> String {
        let mac = self.question.mac;
        let address = self.host.and_then(|host| host.network.server);
        let endpoint = crate::policy::boot_target::Endpoint {
            address: address.unwrap_or(self.server.address),
            http_port: self.question.snapshot.inventory.server.http_port,
        };
        match kind {
            ConfigKind::Ipxe => endpoint.script_url(mac),
            ConfigKind::Pxelinux => format!("pxelinux.cfg/{} by TFTP", mac.bootif()),
            ConfigKind::Grub => "grub/grub.cfg by TFTP".to_owned(),
        }
    }

    fn request<'r>(
        &'r self,
        kind: ConfigKind,
        host: &'r Host,
        attempt: &'r AttemptId,
    ) -> BootRequest<'r> {
        BootRequest {
            kind,
            inventory: &self.question.snapshot.inventory,
            host,
            mac: self.question.mac,
            local: self.server.address,
            attempt,
            token: TOKEN,
        }
    }

    /// The host as what it boots makes it: an entry of its menu, or the menu's default, may be another profile.
    fn booted(&self) -> Option<Arc<Host>> {
        let host = self.host?;
        let Some(menu) = &host.profile.menu else {
            return Some(host.clone());
        };
        let name = self.question.entry.unwrap_or(&menu.default);
        match &menu.entry(name)?.boots {
            Boots::Profile(profile) => Some(host.with_profile(profile)),
            Boots::LocalDisk | Boots::Kernel { .. } => None,
        }
    }

    fn told(self) -> Explanation {
        let (inventory, mac) = (&self.question.snapshot.inventory, self.question.mac);
        let machine = self
            .host
            .map_or_else(|| MachineId::unlisted(mac).0, |host| host.name.clone());
        let booted = self.booted();
        let cmdline = booted.as_deref().and_then(|host| {
            let attempt = AttemptId(ATTEMPT.into());
            let context = self.request(ConfigKind::Ipxe, host, &attempt).context(host);
            self.question.snapshot.templates.cmdline(&context).ok()
        });
        let near = match self.host {
            Some(_) => Vec::new(),
            None => near_misses(mac, &inventory.by_mac),
        };
        let mut values = booted
            .as_deref()
            .map(|host| provenance::of(inventory, host, mac))
            .unwrap_or_default();
        if self.steps.iter().any(Step::is_offer) {
            values.extend(provenance::of_network(inventory, &self.server.network));
        }
        Explanation {
            schema: SCHEMA,
            machine,
            mac,
            listed: self.host.is_some(),
            near,
            policy: self
                .host
                .is_none()
                .then(|| promise(inventory, &self.server.network)),
            cmdline,
            values,
            server: self.server,
            steps: self.steps,
        }
    }
}

impl DhcpStep {
    /// What the decision on a packet was.
    fn new(snapshot: &Snapshot, request: &Request, verdict: &Verdict) -> Self {
        let kind = format!("{:?}", request.message_type).to_uppercase();
        let event = verdict.events.first();
        Self {
            asks: format!("{kind} by {}", Client::of(request)),
            answer: verdict.reply.as_ref().map(|sent| answer(snapshot, sent)),
            because: verdict.because.to_string(),
            event: event.map(|event| event.message.clone()).unwrap_or_default(),
        }
    }
}

fn answer(snapshot: &Snapshot, sent: &Transmit) -> Answer {
    let reply = &sent.reply;
    let file = &reply.boot_file;
    let asset = match file.split_once("/files/") {
        Some((_, path)) => snapshot.assets.get(path),
        None => snapshot.assets.get_by_tftp(file).map(|(_, asset)| asset),
    };
    let options = reply.options.iter();
    Answer {
        message: format!("{:?}", reply.message_type).to_uppercase(),
        address: Some(reply.yiaddr).filter(|address| !address.is_unspecified()),
        way: way(sent),
        next_server: reply.next_server,
        boot_file: file.clone(),
        boot_file_bytes: asset.map(|asset| asset.bytes.len()),
        options: options
            .map(|(code, bytes)| options::line(*code, bytes))
            .collect(),
        delay_ms: sent.delay.as_millis(),
    }
}

fn way(sent: &Transmit) -> String {
    let from = sent.from;
    match sent.destination {
        Destination::Unicast(to) => format!("from {from} to {to}"),
        Destination::Broadcast => format!("from {from} by broadcast"),
        Destination::Frame { mac, .. } => format!("from {from} by a frame to {mac}"),
    }
}

/// What kind of config the program asks for that a boot file is; `None` for a Raspberry Pi's own firmware, which
/// asks for nothing that we render.
fn loader_of(asker: Asker, file: &str) -> Option<ConfigKind> {
    if asker == Asker::Ipxe && file.contains("://") {
        return Some(ConfigKind::Ipxe);
    }
    let name = file.rsplit('/').next().unwrap_or(file);
    let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
    if begins(&["bootcode", "start"]) {
        None
    } else if begins(&["pxelinux", "lpxelinux"]) {
        Some(ConfigKind::Pxelinux)
    } else if begins(&["grub", "shim"]) {
        Some(ConfigKind::Grub)
    } else {
        Some(ConfigKind::Ipxe)
    }
}
