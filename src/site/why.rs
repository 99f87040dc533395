//! Why a host is where it is: its last words, the likely cause, the next thing to try.

mod host;
mod stranger;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Site, report};
use crate::inventory::model::{MacAddr, Network};
use crate::policy::event::{AttemptId, BootEvent, MachineId};
use crate::policy::hint::{Hint, hints};
use crate::policy::progress::{Attempt, Machine, Standing};
use crate::span::span;
use crate::timeline::SyslogLine;

/// Version of the JSON.
const SCHEMA: u32 = 1;
/// Last words that are shown.
const LAST: usize = 6;
/// A loader says that its transfer broke off a moment before or after the daemon sees it, seconds.
const SLACK_S: i64 = 5;

/// All that is known about it, short.
#[derive(Debug, Serialize, Deserialize)]
pub struct Why {
    /// Version of this shape.
    pub schema: u32,
    /// Its name, or `mac-…`.
    pub host: String,
    /// `unseen`, `refused`, `running`, `done`, `away`, `degraded`, `failed` or `stalled`.
    pub state: String,
    /// The stage that it is in.
    pub stage: Option<String>,
    /// Seconds since it came there.
    pub for_s: Option<i64>,
    /// The boot attempt.
    pub attempt: Option<String>,
    /// An edit of its inventory waits for the end of this boot.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub edit_waits: bool,
    /// The address that it was given from the pool, if it is not listed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<Leased>,
    /// What it said and was told last, oldest first.
    pub last: Vec<Said>,
    /// The likely cause.
    pub cause: String,
    /// What to try, the most promising first.
    pub next: Vec<String>,
    /// What came from its address by syslog, the last of it; anybody who can forge that can have sent it.
    #[serde(default)]
    pub syslog: Vec<SyslogLine>,
    /// Known failures in its last words.
    pub hints: Vec<Hint>,
}

/// An address of the pool.
#[derive(Debug, Serialize, Deserialize)]
pub struct Leased {
    /// The address.
    pub address: Ipv4Addr,
    /// For how long it has it still, seconds; less than 0 where its time is up: it is given the same again if nobody
    /// else has it.
    pub left_s: i64,
}

impl Leased {
    /// Of the machine with this MAC. Leases have a clock of their own.
    fn of(site: &Site, mac: MacAddr) -> Option<Self> {
        let lease = site.journal.leases().of(mac)?;
        let left_s = lease.expires.as_second() - site.journal.clock().now().as_second();
        let address = lease.address;
        Some(Self { address, left_s })
    }

    /// In words.
    pub fn words(&self) -> String {
        let Self { address, left_s } = self;
        match left_s {
            0.. => format!("it has {address}, for {}", span(*left_s)),
            _ => format!("it had {address}, until {} ago", span(-left_s)),
        }
    }
}

/// What a machine last said in this boot.
#[derive(Debug, Default)]
pub struct Words {
    /// What it sent of its kernel's log.
    pub console: String,
    /// What came from its address by syslog.
    pub syslog: Vec<SyslogLine>,
}

impl Words {
    /// Known failures. What came by syslog long before the boot got where it is was overcome, and once the host
    /// speaks for itself what anybody can forge is no hint any more.
    fn hints(&self, machine: &Machine) -> Vec<Hint> {
        let attempt = machine.attempt();
        let open = attempt.is_some_and(|attempt| !attempt.claimed);
        let current = attempt.and_then(Attempt::current);
        let since = current.map_or(i64::MIN, |event| event.at.as_second() - SLACK_S);
        let fresh = self
            .syslog
            .iter()
            .filter(|line| open && line.at.as_second() >= since);
        let said: Vec<_> = fresh.map(|line| line.text.as_str()).collect();
        let by_syslog = hints(&said.join("\n")).into_iter().map(|hint| Hint {
            line: format!("{} (by syslog)", hint.line),
            next: format!("{} (by syslog)", hint.next),
            ..hint
        });
        by_syslog.chain(hints(&self.console)).collect()
    }
}

/// One of its last words.
#[derive(Debug, Serialize, Deserialize)]
pub struct Said {
    /// When.
    pub at: Timestamp,
    /// In which stage.
    pub stage: String,
    /// How that stood.
    pub state: String,
    /// `sent`, `acknowledged` or `reported`.
    pub evidence: String,
    /// The words.
    pub message: String,
}

/// A cause and what to try.
type Reason = (String, Vec<String>);

/// About a machine that is listed, or was seen; `None` of any other.
pub fn why(site: &Site, id: &MachineId, words: &Words, now: Timestamp) -> Option<Why> {
    let snapshot = site.snapshot();
    let host = snapshot.inventory.hosts.get(&id.0);
    let known = site.timeline.machine(id);
    if host.is_none() && known.is_none() {
        return None;
    }
    let machine = known.unwrap_or_default();
    let mut status = report::machine_status(&id.0, &machine, now);
    let (mut cause, mut next) = match (id.unlisted_mac(), host) {
        (Some(mac), None) => {
            site.describe(std::slice::from_mut(&mut status), now);
            stranger::stranger(site, &machine, status.stage.as_deref(), mac, now)
        }
        _ => host::reason(site, host.map(AsRef::as_ref), &machine, now),
    };
    if machine
        .attempt()
        .is_some_and(|attempt| attempt.is_doubled(now))
    {
        // Whoever has its address can cause that: beside what is, not in its place.
        cause = format!("{cause}; {}", report::DOUBLE);
        next.push("look for a second machine with its MAC (a copied virtual machine, a NIC that was moved): then the switch shows it on two ports; else somebody else has its address, and `log --all` of it shows what came".to_owned());
    }
    if let Some(words) = site.disputed(now).remove(&id.0) {
        cause = format!("{cause}; {words}");
    }
    let hints = words.hints(&machine);
    let known = hints.iter().rev().map(|hint| hint.next.clone());
    let network = match (id.unlisted_mac(), host) {
        (_, Some(host)) => Some(&host.network),
        (Some(mac), None) => (site.discovery.network_of(mac))
            .and_then(|network| snapshot.inventory.networks.get(&network)),
        (None, None) => None,
    };
    let stranger = id.unlisted_mac().filter(|_| host.is_none());
    let attempt = status.attempt.clone().map(AttemptId);
    let ours = ours(site, network.map(AsRef::as_ref), &status.state);
    Some(Why {
        schema: SCHEMA,
        host: id.0.clone(),
        state: status.state,
        stage: status.stage,
        for_s: status.for_s,
        attempt: status.attempt,
        edit_waits: attempt.is_some_and(|attempt| site.pins.edit_waits(id, &attempt)),
        lease: stranger.and_then(|mac| Leased::of(site, mac)),
        last: last_words(&machine),
        cause,
        next: ours.into_iter().chain(known).chain(next).collect(),
        syslog: words.syslog[words.syslog.len().saturating_sub(LAST)..].to_vec(),
        hints,
    })
}

/// What is wrong with the daemon itself comes first: then the host is not to blame.
fn ours(site: &Site, network: Option<&Network>, state: &str) -> Vec<String> {
    let waits = [Standing::Unseen, Standing::Refused, Standing::Stalled];
    if waits.iter().all(|one| one.name() != state) {
        return Vec::new();
    }
    let troubles = site.troubles_on(network).into_iter();
    troubles.map(|trouble| trouble.message).collect()
}

fn last_words(machine: &Machine) -> Vec<Said> {
    let Some(attempt) = machine.attempt() else {
        let newest = machine.strays.iter().rev().take(LAST).rev();
        return newest.map(|event| said(event, event.at)).collect();
    };
    let mut events: Vec<_> = attempt
        .events
        .iter()
        .map(|event| (attempt.time_of(event), event))
        .collect();
    events.sort_by_key(|(at, _)| *at);
    let newest = events.split_off(events.len().saturating_sub(LAST));
    newest
        .into_iter()
        .map(|(at, event)| said(event, at))
        .collect()
}

fn said(event: &BootEvent, at: Timestamp) -> Said {
    Said {
        at,
        stage: event.stage.to_string(),
        state: event.state.name().to_owned(),
        evidence: event.evidence.name().to_owned(),
        message: event.message.clone(),
    }
}
