//! Machines that become hosts by themselves: whom to look at, what is known of the hosts that they would be, and what
//! was said of it.

mod disputes;
mod recent;
mod together;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{Site, Snapshot};
use crate::inventory::model::{Host, MacAddr};
use crate::nfs::Connected;
use crate::policy::discovered::Discovered;
use crate::policy::enrol::{
    Asked, Decision, FreeHosts, Life, SILENCE_S, Sign, SignKind, Taken, decide,
};
use crate::policy::event::MachineId;
use crate::policy::progress::Machine;
use recent::Recent;

pub use together::Verdicts;

/// Machines that are looked for at most: as many as are known.
const MOST: usize = recent::MOST;
/// Questions that wait on one link.
const QUESTIONS: usize = 64;
/// A link answers within; a probe is asked twice.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// What came of asking for a host is kept for so long, seconds: of several that claim to be it each asks every second.
const KEPT_S: i64 = 5;
/// A claim that was not heard for so long is a new one when it comes again, seconds: GRUB restarts the machine between.
const CLAIM_RESTS_S: i64 = 300;

/// Who has an address, asked on a link.
#[derive(Debug)]
pub struct Question {
    /// The address.
    pub address: Ipv4Addr,
    /// Where the answer goes: everybody who has it, or that it could not be asked.
    pub answer: oneshot::Sender<Option<Vec<MacAddr>>>,
}

/// Who has the addresses of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holders {
    /// These, by ARP.
    Stations(Vec<MacAddr>),
    /// Somebody who took or refused a connection.
    Somebody,
    /// Who has a connection for its root.
    Mounted,
    /// Nobody answered.
    Nobody(Asked),
}

/// What is known for it.
#[derive(Debug, Default)]
pub struct Enrolment {
    wanted: Mutex<Wanted>,
    asked: Notify,
    memory: Mutex<Memory>,
    links: Mutex<Vec<(String, mpsc::Sender<Question>)>>,
    roots: Mutex<Vec<Connected>>,
    /// The inventory's file was written: it need not be waited for that somebody looks.
    pub written: Notify,
}

/// Whom to look at, in the order in which they came.
#[derive(Debug, Default)]
struct Wanted {
    queue: VecDeque<MacAddr>,
    all: HashSet<MacAddr>,
}

#[derive(Debug, Default)]
struct Memory {
    /// What came of asking for a host, by its name.
    looks: HashMap<String, Look>,
    /// Machines that say that they are a host which has another MAC.
    claims: Recent<Claim>,
    /// What was last said of each.
    said: Recent<Said>,
}

#[derive(Debug)]
struct Look {
    at: Timestamp,
    asked: Asked,
    answered: Option<Answer>,
}

#[derive(Debug)]
struct Said {
    words: String,
    /// The host that it says it is, while another machine is that host.
    disputes: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    sign: Sign,
    holder: Option<MacAddr>,
}

#[derive(Debug)]
struct Claim {
    host: String,
    since: Timestamp,
    last: Timestamp,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Enrolment {
    /// More is known of a machine that waits, or it asked again: it is looked at soon.
    pub fn consider(&self, mac: MacAddr) {
        let mut wanted = lock(&self.wanted);
        // Beyond, it asks again.
        if wanted.all.len() < MOST && wanted.all.insert(mac) {
            wanted.queue.push_back(mac);
            self.asked.notify_one();
        }
    }

    /// The next machines to look at: those that want it now, so many at most. Waits for the first, and for no other.
    pub async fn next(&self, most: usize) -> Vec<MacAddr> {
        loop {
            let next = self.pop(most);
            if !next.is_empty() {
                return next;
            }
            self.asked.notified().await;
        }
    }

    fn pop(&self, most: usize) -> Vec<MacAddr> {
        let mut wanted = lock(&self.wanted);
        let Wanted { queue, all } = &mut *wanted;
        let next = queue.drain(..most.min(queue.len()));
        next.inspect(|mac| {
            all.remove(mac);
        })
        .collect()
    }

    /// Questions for the link of an interface, from now on.
    pub fn link(&self, interface: &str) -> mpsc::Receiver<Question> {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        lock(&self.links).push((interface.to_owned(), sender));
        questions
    }

    /// Who has an address on the links of these interfaces; none if no such link is served.
    pub async fn who_has(&self, interfaces: &[String], address: Ipv4Addr) -> Option<Holders> {
        let mut links = lock(&self.links).clone();
        links.retain(|(name, _)| interfaces.contains(name));
        let ask = |(_, link): &(String, mpsc::Sender<Question>)| {
            let (answer, answered) = oneshot::channel();
            let question = Question { address, answer };
            link.try_send(question).ok().map(|()| answered)
        };
        let asked: Vec<_> = links.iter().map(ask).collect();
        if asked.is_empty() {
            return None;
        }
        let deadline = tokio::time::Instant::now() + ANSWERS_WITHIN;
        let (mut stations, mut all) = (Vec::new(), true);
        for answered in asked {
            let answer = match answered {
                Some(answered) => tokio::time::timeout_at(deadline, answered).await.ok(),
                None => None,
            };
            match answer.and_then(|answer| answer.ok().flatten()) {
                Some(found) => stations.extend(found),
                None => all = false,
            }
        }
        Some(match (stations.is_empty(), all) {
            (false, _) => Holders::Stations(stations),
            (true, true) => Holders::Nobody(Asked::Silent),
            (true, false) => Holders::Nobody(Asked::Unknown),
        })
    }

    /// Who is connected for a root, from now on.
    pub fn roots(&self, connected: Connected) {
        lock(&self.roots).push(connected);
    }

    /// Whether an address holds a connection for its root.
    pub fn has_root(&self, address: Ipv4Addr) -> bool {
        let roots = lock(&self.roots);
        roots.iter().any(|roots| roots.has(address.into()))
    }

    /// Whether it was asked a moment ago if a host lives.
    pub fn is_fresh(&self, host: &Host, now: Timestamp) -> bool {
        let memory = lock(&self.memory);
        let look = memory.looks.get(&host.name);
        // A clock that was set back proves nothing.
        look.is_some_and(|look| (0..KEPT_S).contains(&(now.as_second() - look.at.as_second())))
    }

    /// Notes what came of asking for a host that this machine would be.
    pub fn looked(&self, host: &Host, claimant: MacAddr, found: &Holders, now: Timestamp) {
        let looks = &mut lock(&self.memory).looks;
        if looks.len() >= MOST {
            let recent = |at: Timestamp| now.as_second() - at.as_second() < SILENCE_S;
            looks.retain(|_, look| recent(look.at));
        }
        let answer = |kind, holder| {
            let sign = Sign { at: now, kind };
            Some(Answer { sign, holder })
        };
        let (asked, answered) = match found {
            Holders::Nobody(asked) => (*asked, None),
            Holders::Stations(stations) => {
                let other = stations.iter().find(|station| **station != claimant);
                let holder = other.or(stations.first()).copied();
                (Asked::Silent, answer(SignKind::Answered, holder))
            }
            Holders::Somebody => (Asked::Silent, answer(SignKind::Answered, None)),
            Holders::Mounted => (Asked::Silent, answer(SignKind::Mounted, None)),
        };
        let before = looks.get(&host.name).and_then(|look| look.answered);
        let (at, answered) = (now, answered.or(before));
        let look = Look {
            at,
            asked,
            answered,
        };
        looks.insert(host.name.clone(), look);
    }

    /// A machine says that it is a host which has another MAC.
    pub fn claims(&self, mac: MacAddr, host: &Host, now: Timestamp) {
        let claims = &mut lock(&self.memory).claims;
        let host = host.name.clone();
        let goes_on = |known: &&Claim| {
            known.host == host && now.as_second() - known.last.as_second() < CLAIM_RESTS_S
        };
        let known = claims.get(mac).filter(goes_on);
        let (since, last) = (known.map_or(now, |known| known.since), now);
        claims.note(mac, Claim { host, since, last });
    }

    /// Remembers what is said of a machine, and which living host it says it is; false where that was said before.
    pub fn says(&self, mac: MacAddr, words: &str, disputes: Option<&str>) -> bool {
        let said = &mut lock(&self.memory).said;
        // Times in it go on.
        let same = |a: &str, b: &str| a.split('(').next() == b.split('(').next();
        let new = Said {
            words: words.to_owned(),
            disputes: disputes.map(str::to_owned),
        };
        let before = said.note(mac, new);
        !before.is_some_and(|before| same(&before.words, words))
    }

    /// What was last said of a machine that is not listed.
    pub fn said(&self, mac: MacAddr) -> Option<String> {
        let memory = lock(&self.memory);
        memory.said.get(mac).map(|said| said.words.clone())
    }

    /// It is a host.
    pub fn done(&self, mac: MacAddr) {
        let mut memory = lock(&self.memory);
        memory.said.of.remove(&mac);
        memory.claims.of.remove(&mac);
    }
}

impl Site {
    /// What becomes of a machine now, where others become the hosts that are `taken`.
    pub fn verdict(&self, machine: &Discovered, taken: &Taken, now: Timestamp) -> Decision {
        let snapshot = self.snapshot();
        let (inventory, free) = (&snapshot.inventory, snapshot.free_hosts());
        let life = |host: &Host| self.life(host, machine.mac, now);
        decide(inventory, free, taken, machine, life, now)
    }

    /// The same of each alone of many, to whom the same hosts are free.
    pub(super) fn verdict_on(
        &self,
        snapshot: &Snapshot,
        free: &FreeHosts,
        machine: &Discovered,
        now: Timestamp,
    ) -> Decision {
        let life = |host: &Host| self.life(host, machine.mac, now);
        let (inventory, nobody) = (&snapshot.inventory, Taken::default());
        decide(inventory, free, &nobody, machine, life, now)
    }

    /// What decides which host is the next that is free, for a list of machines.
    pub(super) fn next_free_hosts(&self, snapshot: &Snapshot, now: Timestamp) -> FreeHosts {
        let nobody = MacAddr([0; 6]);
        let life = |host: &Host| self.life(host, nobody, now);
        snapshot.free_hosts().narrowed(life, now)
    }

    /// What is known of the life of a host's machine; one that claims to be it counts from its claim on, as the host
    /// may be restarting just then.
    fn life(&self, host: &Host, claimant: MacAddr, now: Timestamp) -> Life {
        let sign = |kind| move |at| Sign { at, kind };
        let id = MachineId(host.name.clone());
        let (heard, joined) = self.timeline.read(|machines| {
            let machine = machines.get(&id);
            (
                machine.and_then(Machine::heard),
                machine.is_some_and(joined),
            )
        });
        let holder = self.lease_holder(*host.ip);
        let own = |mac: &MacAddr| host.has(*mac) || (host.macs.is_empty() && *mac != claimant);
        let leased = holder.filter(own).map(|_| now);
        let memory = lock(&self.enrolment.memory);
        let look = memory.looks.get(&host.name);
        let answered = look.and_then(|look| look.answered);
        let claim = memory.claims.get(claimant);
        let claimed = claim.filter(|claim| claim.host == host.name);
        let signs = [
            heard.map(sign(SignKind::Heard)),
            answered.map(|answer| match answer.holder == Some(claimant) {
                true => sign(SignKind::Usurped)(answer.sign.at),
                false => answer.sign,
            }),
            leased.map(sign(SignKind::Lease)),
            claimed.map(|claim| sign(SignKind::Claimed)(claim.since)),
        ];
        Life {
            sign: last_sign(signs),
            joined,
            asked: look.map_or(Asked::Unknown, |look| look.asked),
        }
    }
}

/// Of several at one time the first that is no mere claim.
fn last_sign(signs: [Option<Sign>; 4]) -> Option<Sign> {
    let signs = signs.into_iter().flatten();
    signs.reduce(|last, sign| if sign.at > last.at { sign } else { last })
}

fn joined(machine: &Machine) -> bool {
    let mut attempts = machine.attempts.iter();
    attempts.any(|attempt| attempt.joined.is_some())
}

#[cfg(test)]
mod tests;
