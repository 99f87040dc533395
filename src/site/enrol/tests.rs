mod together;

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::explain::testing;
use crate::inventory::load;
use crate::inventory::model::Inventory;
use crate::policy::discovered::Identity;
use crate::policy::enrol::Enrol;
use crate::policy::event::{BootEvent, Stage, StageState};
use crate::scribe::{Edit, Naming, Request, perform};

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
    let report = format!("serial=SERIAL{serial}\n");
    let mut machine = Discovered::of_report(mac(last), Some("boot".into()), &report, at(0));
    machine.identity = Identity::of_report(&report);
    machine
}

fn naming(mac: MacAddr, enrol: &Enrol) -> Naming {
    Naming {
        host: enrol.host.name.clone(),
        mac,
        replacing: enrol.replaces,
    }
}

fn write(path: &std::path::Path, mac: MacAddr, enrol: &Enrol) -> bool {
    let edit = Edit::SetMac(naming(mac, enrol));
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
            let alive = |host: &Host| Life {
                sign: (!host.macs.is_empty())
                    .then_some(Sign { at: at(0), kind: SignKind::Heard }),
                joined: false,
                asked: Asked::Silent,
            };
            let free = FreeHosts::of(stale);
            let decision = decide(stale, &free, &Taken::default(), &machine(who, serial), alive, at(1));
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
    let life = |now| site.life(host, mac(1), at(now)).sign;
    let claimed = |at| {
        Some(Sign {
            at,
            kind: SignKind::Claimed,
        })
    };
    assert_eq!(life(999), None);
    site.enrolment.claims(mac(1), host, at(1000));
    assert_eq!(life(1000), claimed(at(1000)), "it was never heard of");
    let id = MachineId(host.name.clone());
    let (stage, state) = (Stage::Joined, StageState::Ok);
    site.timeline
        .record(BootEvent::sent(at(10), id, stage, state, String::new()));
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
}

#[test]
fn the_address_of_a_host_that_its_claimant_says_it_has_is_no_silence() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    let snapshot = site.snapshot();
    let host = snapshot.inventory.hosts.values().next().unwrap();
    let life = |claimant, now| site.life(host, mac(claimant), at(now));
    assert_eq!(life(1, 0).asked, Asked::Unknown, "it was never asked");
    let looked = |found: &Holders, now| site.enrolment.looked(host, mac(1), found, at(now));
    let sign = |kind, second| {
        Some(Sign {
            at: at(second),
            kind,
        })
    };
    looked(&Holders::Stations(vec![mac(1)]), 1000);
    assert_eq!(life(1, 1001).sign, sign(SignKind::Usurped, 1000));
    assert_eq!(life(2, 1001).sign, sign(SignKind::Answered, 1000));
    // Whoever was heard first.
    looked(&Holders::Stations(vec![mac(1), mac(9)]), 1100);
    assert_eq!(life(1, 1100).sign, sign(SignKind::Answered, 1100));
    looked(&Holders::Mounted, 1200);
    assert_eq!(life(1, 1200).sign, sign(SignKind::Mounted, 1200));
    for (second, asked) in [(1300, Asked::Mute), (1310, Asked::Unknown)] {
        looked(&Holders::Nobody(asked), second);
        assert_eq!(life(1, second).asked, asked);
        assert_eq!(life(1, second).sign, sign(SignKind::Mounted, 1200));
    }
    assert!(site.enrolment.is_fresh(host, at(1310 + KEPT_S - 1)));
    assert!(!site.enrolment.is_fresh(host, at(1310 + KEPT_S)));
    assert!(!site.enrolment.is_fresh(host, at(1309)));
}

#[tokio::test]
async fn a_link_that_cannot_ask_is_no_silence_and_every_answer_counts() {
    let enrolment = std::sync::Arc::new(Enrolment::default());
    let address = Ipv4Addr::new(10, 77, 0, 11);
    let interfaces = ["eno1".to_owned(), "eno2".to_owned()];
    let answers = |answers: [Option<Vec<MacAddr>>; 2]| {
        let enrolment = enrolment.clone();
        let interfaces = interfaces.clone();
        lock(&enrolment.links).clear();
        for (name, answer) in interfaces.iter().zip(answers) {
            let mut questions = enrolment.link(name);
            tokio::spawn(async move {
                let question = questions.recv().await.unwrap();
                question.answer.send(answer).unwrap();
            });
        }
        async move { enrolment.who_has(&interfaces, address).await }
    };
    let nobody = |asked| Some(Holders::Nobody(asked));
    assert_eq!(
        answers([Some(vec![]), Some(vec![])]).await,
        nobody(Asked::Silent)
    );
    assert_eq!(answers([Some(vec![]), None]).await, nobody(Asked::Unknown));
    let both = Some(Holders::Stations(vec![mac(1), mac(2)]));
    assert_eq!(
        answers([Some(vec![mac(1)]), Some(vec![mac(2)])]).await,
        both
    );
    let elsewhere = ["eno3".to_owned()];
    assert_eq!(enrolment.who_has(&elsewhere, address).await, None);
    // Its receiver is gone, as where the interface is served no more.
    lock(&enrolment.links).clear();
    drop(enrolment.link("eno3"));
    assert_eq!(
        enrolment.who_has(&elsewhere, address).await,
        nobody(Asked::Unknown)
    );
}

#[test]
fn who_came_first_is_looked_at_first_and_beyond_the_bound_the_oldest_go() {
    let enrolment = Enrolment::default();
    for last in [9, 1, 5, 1] {
        enrolment.consider(mac(last));
    }
    assert_eq!(enrolment.pop(2), [mac(9), mac(1)]);
    assert_eq!(enrolment.pop(2), [mac(5)]);
    assert_eq!(enrolment.pop(2), []);
    let mut recent = Recent::default();
    let many = |n: usize| MacAddr([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
    for n in 0..MOST {
        recent.note(many(n), n);
    }
    assert_eq!(recent.note(many(0), 7), Some(0));
    recent.note(many(MOST), MOST);
    assert_eq!((recent.get(many(0)), recent.get(many(1))), (Some(&7), None));
    assert_eq!(recent.of.len(), MOST);
}

#[test]
fn a_reason_is_said_when_it_changes() {
    let enrolment = Enrolment::default();
    let says = |words| enrolment.says(mac(1), words, None);
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
        for m in 0..32 {
            enrolment.says(MacAddr([m, 0, 0, 0, 0, n]), "waits", None);
            enrolment.consider(MacAddr([m, 0, 0, 0, 0, n]));
        }
    }
    assert!(lock(&enrolment.memory).said.of.len() <= MOST);
    assert_eq!(lock(&enrolment.wanted).queue.len(), MOST);
}
