//! What happens to a machine on its way from power-on to *joined*.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::inventory::model::MacAddr;
use crate::policy::client::Asker;

/// Who an event is about: a listed host's name, else `mac-525400000001`; `wire` for
/// packets that nobody can be blamed for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MachineId(pub String);

/// What the names of machines begin with that are not listed.
pub const UNLISTED_PREFIX: &str = "mac-";

impl MachineId {
    /// The name of a machine that is not listed.
    pub fn unlisted(mac: MacAddr) -> Self {
        let hex: String = mac.0.iter().map(|octet| format!("{octet:02x}")).collect();
        Self(format!("{UNLISTED_PREFIX}{hex}"))
    }

    /// Where packets without a usable sender are filed.
    pub fn wire() -> Self {
        Self("wire".into())
    }

    /// The MAC in the name of a machine that is not listed.
    pub fn unlisted_mac(&self) -> Option<MacAddr> {
        let hex = self
            .0
            .strip_prefix(UNLISTED_PREFIX)
            .filter(|hex| hex.len() == 12)?;
        let mut octets = [0; 6];
        for (index, octet) in octets.iter_mut().enumerate() {
            *octet = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(MacAddr(octets))
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One boot of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub String);

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! stages {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $patience:literal;)+) => {
        /// The ladder from power-on to *joined*, in order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Stage { $($(#[$doc])* $variant,)+ }

        impl Stage {
            /// Every stage, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the console, in events and in `status`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Seconds of silence after this stage before the boot counts as stalled;
            /// 0: it may stay here for ever.
            pub const fn patience_s(self) -> i64 {
                match self { $(Self::$variant => $patience,)+ }
            }
        }
    };
}

stages! {
    /// DHCP: an address was offered or given.
    Dhcp = "dhcp", 60;
    /// The loader was asked for.
    Loader = "loader", 60;
    /// A menu was sent; somebody may be looking at it.
    Menu = "menu", 0;
    /// The loader's script or config was rendered and sent.
    Script = "script", 60;
    /// The machine was sent to its own disk.
    LocalDisk = "local-disk", 0;
    /// The kernel was fetched.
    Kernel = "kernel", 120;
    /// The initrd was fetched.
    Initrd = "initrd", 180;
    /// The initrd runs.
    Early = "early", 120;
    /// NIC drivers.
    Drivers = "drivers", 60;
    /// Boot NIC.
    Nic = "nic", 240;
    /// The end of an inventory boot: a machine that nobody listed waits in the initrd for its name.
    Inventory = "inventory", 0;
    /// Carrier.
    Link = "link", 60;
    /// The bridge over the boot NIC.
    Bridge = "bridge", 90;
    /// The bridge's address.
    Address = "address", 360;
    /// The host's configuration, from the daemon.
    Config = "config", 120;
    /// Hostname and machine-id.
    Identity = "identity", 60;
    /// Storage network.
    StorageNet = "storage-net", 300;
    /// The end of a rescue boot: the initrd stays, with a login.
    Rescue = "rescue", 0;
    /// NFS root.
    Root = "root", 360;
    /// tmpfs overlay.
    Overlay = "overlay", 240;
    /// The initrd checks what it made.
    Verify = "verify", 120;
    /// Switch to the root.
    Switch = "switch", 300;
    /// The root's systemd is up and the bridge still stands.
    Online = "online", 300;
    /// The image pool.
    Pool = "pool", 600;
    /// Checked by the host and reported.
    Joined = "joined", 0;
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Stage {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Self::ALL.iter().find(|stage| stage.name() == text);
        found.copied().ok_or(())
    }
}

/// How a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// Begun.
    Start,
    /// Done.
    Ok,
    /// A try failed, another follows.
    Retry,
    /// Failed for good; the machine reboots or waits.
    Fail,
    /// Works, but not as it should.
    Degraded,
    /// Worth knowing.
    Info,
    /// We did not answer, and the message says why.
    Ignored,
}

impl StageState {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::Start,
        Self::Ok,
        Self::Retry,
        Self::Fail,
        Self::Degraded,
        Self::Info,
        Self::Ignored,
    ];

    /// The word in events and on the console.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Fail => "fail",
            Self::Degraded => "degraded",
            Self::Info => "info",
            Self::Ignored => "ignored",
        }
    }

    /// What a host may report of itself.
    pub fn reported(text: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|state| state.name() == text);
        known.copied().filter(|state| *state != Self::Ignored)
    }
}

/// How we know: what we *sent* may never have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// We sent it.
    Sent,
    /// The client acknowledged it, byte for byte or by its next step; of a transfer that broke off, a part.
    Acknowledged,
    /// The host said so, with its attempt's token.
    Reported,
    /// A datagram from the host's address said so (syslog): anybody who can forge that address can send it.
    Unproven,
}

impl Evidence {
    /// The word in `log` and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Acknowledged => "acknowledged",
            Self::Reported => "reported",
            Self::Unproven => "unproven",
        }
    }
}

/// What a machine took out of its menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The entry.
    pub entry: String,
    /// Whether what it boots will tell how it goes on.
    pub reports: bool,
}

/// The daemon's wall clock was set: what happened in between, as it was told then, is told by the new time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// From here, by the old time.
    pub since: Timestamp,
    /// Up to here, by the old time.
    pub until: Timestamp,
    /// How far it was set ahead, milliseconds; less than 0: back.
    pub ms: i64,
}

impl ClockSet {
    /// By the new time.
    pub fn mend(&self, at: &mut Timestamp) {
        let told = (self.since..=self.until).contains(at);
        let mended = at.checked_add(SignedDuration::from_millis(self.ms));
        *at = mended.ok().filter(|_| told).unwrap_or(*at);
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEvent {
    /// When the daemon saw it.
    pub at: Timestamp,
    /// Who.
    pub machine: MachineId,
    /// Its MAC, where the event came with one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<MacAddr>,
    /// Which stage.
    pub stage: Stage,
    /// How it stands.
    pub state: StageState,
    /// How we know.
    pub evidence: Evidence,
    /// In plain words.
    pub message: String,
    /// Set where this event begins a boot attempt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub begins: Option<AttemptId>,
    /// Which program's question began it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub begun_by: Option<Asker>,
    /// Set where the machine took an entry of its menu.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub choice: Option<Choice>,
    /// Which attempt it belongs to, where the sender proved it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<AttemptId>,
    /// The host's uptime at the event, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uptime_ms: Option<u64>,
    /// What a known failure in the machine's last words means.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// Set where it is that the wall clock was set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock: Option<ClockSet>,
}

impl BootEvent {
    /// An event of the daemon's own doing.
    pub fn sent(
        at: Timestamp,
        machine: MachineId,
        stage: Stage,
        state: StageState,
        message: String,
    ) -> Self {
        Self {
            at,
            machine,
            mac: None,
            stage,
            state,
            evidence: Evidence::Sent,
            message,
            begins: None,
            begun_by: None,
            choice: None,
            attempt: None,
            uptime_ms: None,
            hint: None,
            clock: None,
        }
    }

    /// How much memory it takes, about; bytes.
    pub fn weight(&self) -> usize {
        let ids = [&self.begins, &self.attempt].into_iter().flatten();
        let ids: usize = ids.map(|id| id.0.len()).sum();
        let choice = self.choice.as_ref().map_or(0, |choice| choice.entry.len());
        let hint = self.hint.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.machine.0.len() + self.message.len() + ids + choice + hint
    }

    /// Whether anybody on the wire can cause it, and it tells little: what a host reports needs its token.
    pub fn is_cheap(&self) -> bool {
        let cheap = matches!(self.state, StageState::Ignored | StageState::Info);
        cheap && self.evidence != Evidence::Reported
    }

    /// The same, seen from a certain MAC.
    pub fn from_mac(mut self, mac: MacAddr) -> Self {
        self.mac = Some(mac);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_serde_agree() {
        for stage in Stage::ALL {
            assert_eq!(stage.name().parse(), Ok(*stage));
            let json = serde_json::to_string(stage).unwrap();
            assert_eq!(json, format!("\"{stage}\""));
        }
    }

    #[test]
    fn unlisted_names_carry_the_mac() {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 0xff]);
        let id = MachineId::unlisted(mac);
        assert_eq!(id.0, "mac-5254000000ff");
        assert_eq!(id.unlisted_mac(), Some(mac));
        assert_eq!(MachineId("kvm01".into()).unlisted_mac(), None);
        assert_eq!(MachineId("mac-éééééé".into()).unlisted_mac(), None);
    }
}
