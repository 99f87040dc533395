//! Machines that become hosts by themselves: whom to look at, what is known of the hosts that they would be, and what
//! was said of it.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot};

use super::Site;
use crate::inventory::model::{Host, MacAddr};
use crate::policy::discovered::Discovered;
use crate::policy::enrol::{Decision, Sign, SignKind, decide};
use crate::policy::event::MachineId;
use crate::policy::progress::Machine;

/// Machines that are remembered at most; as many wait as are known.
const MOST: usize = 512;
/// Questions that wait on one link.
const QUESTIONS: usize = 16;
/// A link answers within; a probe is asked twice.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// A claim that was not heard for so long is a new one when it comes again, seconds: GRUB restarts the machine between.
const CLAIM_RESTS_S: i64 = 300;

/// Who has an address, asked on a link.
#[derive(Debug)]
pub struct Question {
    /// The address.
    pub address: Ipv4Addr,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Option<MacAddr>>,
}

/// What is known for it.
#[derive(Debug, Default)]
pub struct Enrolment {
    wanted: Mutex<BTreeSet<MacAddr>>,
    asked: Notify,
    memory: Mutex<Memory>,
    links: Mutex<Vec<mpsc::Sender<Question>>>,
    /// The inventory's file was written: it need not be waited for that somebody looks.
    pub written: Notify,
}

#[derive(Debug, Default)]
struct Memory {
    /// When somebody had the address of a host, by its name.
    answered: HashMap<String, Timestamp>,
    /// Machines that say the serial number of a host which has another one.
    claims: HashMap<MacAddr, Claim>,
    /// What was last said of each.
    said: HashMap<MacAddr, String>,
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
        if wanted.len() < MOST {
            wanted.insert(mac);
            self.asked.notify_one();
        }
    }

    /// The next machine to look at.
    pub async fn next(&self) -> MacAddr {
        loop {
            let next = lock(&self.wanted).pop_first();
            match next {
                Some(mac) => return mac,
                None => self.asked.notified().await,
            }
        }
    }

    /// Questions for a link, from now on.
    pub fn link(&self) -> mpsc::Receiver<Question> {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        lock(&self.links).push(sender);
        questions
    }

    /// Who has an address on any link.
    pub async fn who_has(&self, address: Ipv4Addr) -> Option<MacAddr> {
        let links: Vec<_> = lock(&self.links).clone();
        let ask = |link: &mpsc::Sender<Question>| {
            let (answer, answered) = oneshot::channel();
            let question = Question { address, answer };
            link.try_send(question).ok().map(|()| answered)
        };
        let asked: Vec<_> = links.iter().filter_map(ask).collect();
        let deadline = tokio::time::Instant::now() + ANSWERS_WITHIN;
        for answered in asked {
            let answer = tokio::time::timeout_at(deadline, answered).await;
            if let Ok(Ok(Some(mac))) = answer {
                return Some(mac);
            }
        }
        None
    }

    /// Somebody has a host's address.
    pub fn answered(&self, host: &Host, now: Timestamp) {
        lock(&self.memory).answered.insert(host.name.clone(), now);
    }

    /// A machine says the serial number of a host that has another one.
    pub fn claims(&self, mac: MacAddr, host: &Host, now: Timestamp) {
        let claims = &mut lock(&self.memory).claims;
        if claims.len() >= MOST && !claims.contains_key(&mac) {
            claims.clear();
        }
        let host = host.name.clone();
        let goes_on = |known: &&mut Claim| {
            known.host == host && now.as_second() - known.last.as_second() < CLAIM_RESTS_S
        };
        match claims.get_mut(&mac).filter(goes_on) {
            Some(known) => known.last = now,
            None => {
                let (since, last) = (now, now);
                claims.insert(mac, Claim { host, since, last });
            }
        }
    }

    /// Remembers what is said of a machine; false where that was said before.
    pub fn says(&self, mac: MacAddr, words: &str) -> bool {
        let said = &mut lock(&self.memory).said;
        if said.len() >= MOST && !said.contains_key(&mac) {
            said.clear();
        }
        // Times in it go on.
        let same = |a: &str, b: &str| a.split('(').next() == b.split('(').next();
        let before = said.insert(mac, words.to_owned());
        !before.is_some_and(|before| same(&before, words))
    }

    /// What was last said of a machine that is not listed.
    pub fn said(&self, mac: MacAddr) -> Option<String> {
        lock(&self.memory).said.get(&mac).cloned()
    }

    /// It is a host.
    pub fn done(&self, mac: MacAddr) {
        let mut memory = lock(&self.memory);
        memory.said.remove(&mac);
        memory.claims.remove(&mac);
    }
}

impl Site {
    /// What becomes of a machine now.
    pub fn verdict(&self, machine: &Discovered, now: Timestamp) -> Decision {
        let snapshot = self.snapshot();
        let life = |host: &Host| self.life(host, machine.mac, now);
        decide(&snapshot.inventory, machine, life, now)
    }

    /// The last sign of life of a host's machine; a machine that claims to be it counts from its claim on, as the host
    /// may be restarting just then.
    fn life(&self, host: &Host, claimant: MacAddr, now: Timestamp) -> Option<Sign> {
        let sign = |kind| move |at| Sign { at, kind };
        let id = MachineId(host.name.clone());
        let heard = self
            .timeline
            .read(|machines| last_event(machines.get(&id)?));
        let holder = self.lease_holder(*host.ip);
        let leased = holder.filter(|mac| host.has(*mac)).map(|_| now);
        let memory = lock(&self.enrolment.memory);
        let answered = memory.answered.get(&host.name).copied();
        let claim = memory.claims.get(&claimant);
        let claimed = claim.filter(|claim| claim.host == host.name);
        let own = [
            heard.map(sign(SignKind::Heard)),
            answered.map(sign(SignKind::Answered)),
            leased.map(sign(SignKind::Lease)),
        ];
        let last = own.into_iter().flatten().max_by_key(|sign| sign.at)?;
        let claimed = claimed.map(|claim| sign(SignKind::Claimed)(claim.since));
        Some(
            claimed
                .filter(|claimed| claimed.at > last.at)
                .unwrap_or(last),
        )
    }
}

/// Whatever it is: somebody used the host's name or address.
fn last_event(machine: &Machine) -> Option<Timestamp> {
    let attempts = machine.attempts.iter();
    let newest = attempts.filter_map(|attempt| attempt.events.back());
    newest
        .chain(machine.strays.back())
        .map(|event| event.at)
        .max()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::explain::testing;
    use crate::inventory::load;
    use crate::inventory::model::Inventory;
    use crate::policy::discovered::Identity;
    use crate::policy::enrol::Enrol;
    use crate::policy::event::{BootEvent, Stage, StageState};
    use crate::scribe::{Edit, Request, perform};

    const INVENTORY: &str = "\
networks: {boot: {subnet: 10.77.0.0/24, pool: 10.77.0.100-10.77.0.199, unknown: {policy: POLICY}}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}
hosts:
  a[1-2]: {MANY ip: 10.77.0.11, profile: kvm}
  b1: {ONE ip: 10.77.0.21, profile: kvm}
";

    fn mac(last: u8) -> MacAddr {
        MacAddr([0x3c, 0xec, 0xef, 0, last.wrapping_mul(37), last])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn machine(last: u8, serial: u8) -> Discovered {
        Discovered {
            mac: mac(last),
            network: Some("boot".into()),
            architecture: String::new(),
            identity: Identity {
                serial: Some(format!("SERIAL{serial}")),
                ..Identity::default()
            },
            relay: None,
            port: None,
            circuit_id: None,
            remote_id: None,
            first_seen: at(0),
            last_seen: at(0),
            discovers: 1,
            held: Some(at(0)),
            hardware: None,
            said: None,
            firmware: None,
            begun: None,
        }
    }

    fn write(path: &std::path::Path, mac: MacAddr, enrol: &Enrol) -> bool {
        let edit = Edit::SetMac {
            host: enrol.host.name.clone(),
            mac,
            replacing: enrol.replaces,
        };
        let dry_run = false;
        perform(path, &Request { edit, dry_run }).is_ok()
    }

    /// Whose MAC is where; each host has one at most, and each MAC one host.
    fn owners(inventory: &Inventory) -> HashMap<String, MacAddr> {
        let hosts = inventory.hosts.values();
        let owners: HashMap<_, _> = hosts
            .filter_map(|host| Some((host.name.clone(), host.first_mac()?)))
            .collect();
        assert_eq!(owners.len(), inventory.by_mac.len());
        owners
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whoever decides may know an inventory that is long gone, and may write late: no host that has a machine
        /// gets another one, and no machine two hosts.
        #[test]
        fn two_machines_never_get_one_name(
            by_serial: bool,
            steps in prop::collection::vec((1_u8..6, 1_u8..4, 0_usize..4), 1..24),
        ) {
            let (policy, several, one) = match by_serial {
                true => ("by-serial", "serials: [SERIAL1, SERIAL2], ", "serial: SERIAL3, "),
                false => ("next-free", "", ""),
            };
            let text = INVENTORY.replace("POLICY", policy);
            let text = text.replace("MANY", several).replace("ONE", one);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("hosts.yaml");
            fs::write(&path, text).unwrap();
            let mut known = vec![load(&path).unwrap().inventory];
            for (who, serial, age) in steps {
                let stale = &known[known.len().saturating_sub(1 + age)];
                let alive = |_: &Host| Some(Sign { at: at(0), kind: SignKind::Heard });
                let decision = decide(stale, &machine(who, serial), alive, at(1));
                let Decision::Enrol(enrol) = decision else { continue };
                write(&path, mac(who), &enrol);
                let now = load(&path).unwrap().inventory;
                let before = owners(known.last().unwrap());
                let after = owners(&now);
                for (host, mac) in &before {
                    prop_assert_eq!(after.get(host), Some(mac));
                }
                known.push(now);
            }
        }
    }

    #[test]
    fn a_host_that_may_be_restarting_is_not_taken_by_who_first_claims_it_then() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let snapshot = site.snapshot();
        let host = snapshot.inventory.hosts.values().next().unwrap();
        let life = |now| site.life(host, mac(1), at(now));
        site.enrolment.claims(mac(1), host, at(1000));
        assert_eq!(life(1000), None, "it was never heard of");
        let id = MachineId(host.name.clone());
        let (stage, state) = (Stage::Joined, StageState::Ok);
        site.timeline
            .record(BootEvent::sent(at(10), id, stage, state, String::new()));
        let claimed = |at| {
            Some(Sign {
                at,
                kind: SignKind::Claimed,
            })
        };
        assert_eq!(life(1200), claimed(at(1000)));
        site.enrolment.claims(mac(1), host, at(1200));
        assert_eq!(life(1200), claimed(at(1000)), "it goes on");
        site.enrolment
            .claims(mac(1), host, at(1200 + CLAIM_RESTS_S));
        assert_eq!(
            life(1600),
            claimed(at(1200 + CLAIM_RESTS_S)),
            "it is a new one"
        );
        site.enrolment.answered(host, at(1700));
        let kind = SignKind::Answered;
        assert_eq!(life(1701), Some(Sign { at: at(1700), kind }));
        assert_eq!(site.life(host, mac(2), at(1701)), life(1701));
    }

    #[test]
    fn a_reason_is_said_when_it_changes() {
        let enrolment = Enrolment::default();
        let says = |words| enrolment.says(mac(1), words);
        assert!(says("waits: kvm01 is alive (last sign 20s ago): held"));
        assert!(!says("waits: kvm01 is alive (last sign 35s ago): held"));
        assert!(says("waits: no free host"));
        assert_eq!(
            enrolment.said(mac(1)).as_deref(),
            Some("waits: no free host")
        );
        enrolment.done(mac(1));
        assert_eq!(enrolment.said(mac(1)), None);
        for n in 0..=u8::MAX {
            for m in 0..4 {
                enrolment.says(MacAddr([m, 0, 0, 0, 0, n]), "waits");
                enrolment.consider(MacAddr([m, 0, 0, 0, 0, n]));
            }
        }
        assert!(lock(&enrolment.memory).said.len() <= MOST);
        assert_eq!(lock(&enrolment.wanted).len(), MOST);
    }
}
