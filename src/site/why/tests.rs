use std::sync::Arc;

use super::*;
use crate::explain::testing;
use crate::policy::client::Asker;
use crate::policy::discovered::{Discovered, Hardware, Identity};
use crate::policy::event::{Evidence, Stage, StageState};
use crate::site::ReloadState;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn event(name: &str, second: i64, stage: Stage, state: StageState) -> BootEvent {
    let machine = MachineId(name.into());
    BootEvent::sent(
        at(second),
        machine,
        stage,
        state,
        format!("{stage} of {name}"),
    )
}

/// It asks for an address, and is offered one.
fn asks(site: &Site, name: &str, second: i64) {
    let asks = event(name, second, Stage::Dhcp, StageState::Ok);
    site.timeline.record_asking(asks, Asker::PxeRom);
}

fn told(site: &Site, name: &str, console: &str, second: i64) -> Why {
    let words = Words {
        console: console.to_owned(),
        syslog: Vec::new(),
    };
    why(site, &MachineId(name.into()), &words, at(second)).unwrap()
}

#[test]
fn a_host_that_never_came_and_a_stranger_that_did_are_held_together() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    assert!(why(&site, &MachineId("kvm09".into()), &Words::default(), at(1)).is_none());
    let never = told(&site, "kvm01", "", 1);
    assert_eq!((never.state.as_str(), never.stage), ("unseen", None));
    assert!(never.cause.contains("52:54:00:00:00:01"), "{}", never.cause);
    let stranger = "mac-525400001001";
    asks(&site, stranger, 5);
    let never = told(&site, "kvm01", "", 10);
    let first = "52:54:00:00:10:01 asks, one digit off kvm01's 52:54:00:00:00:01";
    assert!(never.next[0].starts_with(first), "{:?}", never.next);
    assert!(never.next[0].contains("hosts.yaml:"), "{:?}", never.next);
    let stranger = told(&site, stranger, "", 10);
    assert!(
        stranger.next[0].contains("correct that host's `mac`"),
        "{:?}",
        stranger.next
    );
    assert_eq!(told(&site, "kvm02", "", 10).next.len(), 3);
}

#[test]
fn a_listed_machine_is_nobodys_typing_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    // It asked before it was listed, as kvm02, which was bought with kvm01.
    let asks = event("mac-525400000002", 5, Stage::Dhcp, StageState::Ignored);
    site.timeline.record(asks);
    let never = told(&site, "kvm01", "", 10);
    assert!(
        never.next[0].starts_with("switch it on"),
        "{:?}",
        never.next
    );
}

#[test]
fn an_event_without_words_has_a_cause() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    asks(&site, "kvm01", 0);
    let mut failed = event("kvm01", 1, Stage::Root, StageState::Fail);
    failed.message = String::new();
    failed.evidence = Evidence::Reported;
    site.timeline.record(failed);
    let failed = told(&site, "kvm01", "", 2);
    assert_eq!(failed.state, "failed");
    assert!(
        failed.cause.contains("the root's server"),
        "{}",
        failed.cause
    );
}

#[test]
fn who_says_it_is_a_host_that_lives_is_not_to_be_approved() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    let edit = |old: &str, new: &str| {
        let edited = Arc::new(testing::edited(dir.path(), &site.snapshot(), old, new));
        let outline = site.outline(Timestamp::now());
        site.replace(
            edited.clone(),
            &outline.changes(&edited.inventory.outline()),
        );
    };
    edit("0.199\n", "0.199\n    unknown: {policy: by-serial}\n");
    edit(
        "{mac: \"52:54:00:00:00:01\",",
        "{mac: \"52:54:00:00:00:01\", serial: SN41,",
    );
    let now = Timestamp::now();
    let mac: MacAddr = "3c:ec:ef:55:00:05".parse().unwrap();
    let waits = |report: &str| {
        let seen = Discovered::of_report(mac, Some("boot".into()), report, now);
        let said = Identity::of_report(report);
        site.discovery.found(seen, said, Hardware::default());
        site.discovery.held(mac);
        site.timeline.record(BootEvent {
            at: now,
            ..event("mac-3cecef550005", 0, Stage::Script, StageState::Ok)
        });
        why(
            &site,
            &MachineId("mac-3cecef550005".into()),
            &Words::default(),
            now,
        )
        .unwrap()
    };
    let stranger = waits("");
    assert!(
        stranger.cause.contains("has not said its serial number"),
        "{}",
        stranger.cause
    );
    assert!(
        stranger.next[0].contains("discover approve"),
        "{:?}",
        stranger.next
    );
    let asks = BootEvent {
        at: now,
        ..event("kvm01", 0, Stage::Dhcp, StageState::Ok)
    };
    site.timeline.record_asking(asks, Asker::PxeRom);
    let liar = waits("serial=SN41\n");
    assert!(
        liar.cause.contains("kvm01 is alive (last sign"),
        "{}",
        liar.cause
    );
    assert!(
        liar.cause.contains("serial number SN41 is held"),
        "{}",
        liar.cause
    );
    let next = liar.next.join("\n");
    assert!(
        next.contains("why kvm01") && !next.contains("discover approve"),
        "{next}"
    );
    // As the daemon notes it when it looks at the machine.
    site.enrolment
        .says(mac, "waits: kvm01 is alive", Some("kvm01"));
    let host = || why(&site, &MachineId("kvm01".into()), &Words::default(), now).unwrap();
    let words = "3c:ec:ef:55:00:05 says that it is this host, and is held";
    assert!(host().cause.contains(words), "{}", host().cause);
    let fleet = report::fleet(&site, &ReloadState::default(), now);
    let notes: Vec<_> = fleet.hosts.iter().map(|host| host.note.as_str()).collect();
    assert!(
        notes[0].contains(words) && !notes[1].contains(words),
        "{notes:?}"
    );
    site.enrolment.done(mac);
    assert!(!host().cause.contains(words), "{}", host().cause);
}

#[test]
fn of_a_stranger_the_cause_is_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    let name = "mac-525400001001";
    asks(&site, name, 5);
    assert!(
        told(&site, name, "", 6)
            .cause
            .contains("will wait at its loader")
    );
    let stuck = told(&site, name, "", 200);
    assert!(
        stuck
            .cause
            .contains("did not come to its loader: address offered"),
        "{}",
        stuck.cause
    );
    assert_eq!(stuck.next.len(), 3, "{:?}", stuck.next);
    // The host that it is near has come: it is another machine.
    asks(&site, "kvm01", 7);
    assert_eq!(told(&site, name, "", 8).next.len(), 1);
    site.timeline
        .record(event(name, 9, Stage::Dhcp, StageState::Ignored));
    let refused = told(&site, name, "", 10).cause;
    assert!(
        refused.ends_with("not in the inventory: dhcp of mac-525400001001"),
        "{refused}"
    );
    let listed = "mac-525400000002";
    site.timeline
        .record(event(listed, 11, Stage::Dhcp, StageState::Ignored));
    let listed = told(&site, listed, "", 12);
    assert!(listed.cause.contains("listed as kvm02"), "{}", listed.cause);
    assert!(listed.next[0].contains("why kvm02"), "{:?}", listed.next);
}

#[test]
fn a_machine_that_waits_is_told_alike_by_status_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    let now = Timestamp::now();
    let later = |seconds| now + jiff::SignedDuration::from_secs(seconds);
    let mac: MacAddr = "3c:ec:ef:55:00:05".parse().unwrap();
    let id = MachineId::unlisted(mac);
    let at_loader = Discovered::of_report(mac, Some("boot".into()), "", now);
    site.discovery
        .found(at_loader, Identity::default(), Hardware::default());
    for stage in [Stage::Dhcp, Stage::Script] {
        let event = event(&id.0, now.as_second(), stage, StageState::Ok);
        site.timeline.record_asking(event, Asker::PxeRom);
    }
    for (seconds, state, words) in [
        (90, "running", "waits at its loader until it is listed"),
        (299, "running", "waits at its loader until it is listed"),
        (
            400,
            "stalled",
            "waited at its loader and has not asked for 6m40s",
        ),
    ] {
        let told = why(&site, &id, &Words::default(), later(seconds)).unwrap();
        let fleet = report::fleet(&site, &ReloadState::default(), later(seconds));
        let status = &fleet.unknown[0];
        assert_eq!((&*told.state, &*status.state), (state, state), "{seconds}");
        assert!(told.cause.contains(words), "{}", told.cause);
        assert!(status.note.contains(words), "{}", status.note);
        let looks = told.next.iter().any(|next| next.contains("BMC"));
        assert_eq!(looks, state == "stalled", "{:?}", told.next);
    }
}

#[test]
fn who_is_near_a_host_that_came_is_no_typing_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    let mac: MacAddr = "52:54:00:00:10:01".parse().unwrap();
    let seen = Discovered::of_report(mac, Some("boot".into()), "", at(5));
    site.discovery
        .found(seen, Identity::default(), Hardware::default());
    let near = || site.discovered(at(8)).machines[0].near.clone();
    assert_eq!(near(), ["one digit off kvm01's 52:54:00:00:00:01"]);
    asks(&site, "kvm01", 7);
    assert_eq!(near(), Vec::<String>::new());
}

#[test]
fn who_looks_at_a_menu_may_do_so_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    asks(&site, "kvm01", 0);
    site.timeline
        .record(event("kvm01", 5, Stage::Menu, StageState::Ok));
    let cause = told(&site, "kvm01", "", 900).cause;
    assert!(
        cause.contains("until somebody acts there, and has for 895 s"),
        "{cause}"
    );
}

#[test]
fn two_machines_with_one_mac_are_told_though_one_has_joined() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    asks(&site, "kvm01", 0);
    let mut joined = event("kvm01", 9, Stage::Joined, StageState::Ok);
    joined.evidence = Evidence::Reported;
    site.timeline.record(joined);
    for second in 10..13 {
        let before = told(&site, "kvm01", "", second);
        assert_eq!(before.state, "done");
        assert_eq!(before.cause, "nothing is wrong: it has joined");
        let strange = event("kvm01", second, Stage::Early, StageState::Ignored);
        site.timeline.record(strange);
    }
    let doubled = told(&site, "kvm01", "", 14);
    assert_eq!(doubled.state, "done");
    let cause = format!("nothing is wrong: it has joined; {}", report::DOUBLE);
    assert_eq!(doubled.cause, cause);
    let machine = site.timeline.machine(&MachineId("kvm01".into())).unwrap();
    let note = report::machine_status("kvm01", &machine, at(14)).note;
    assert_eq!(note, format!("joined of kvm01; {}", report::DOUBLE));
    assert!(
        doubled.next[0].contains("on two ports"),
        "{:?}",
        doubled.next
    );
    let later = told(&site, "kvm01", "", 200);
    assert!(later.cause.contains("nothing is wrong"), "{}", later.cause);
}

#[test]
fn what_was_refused_is_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    site.timeline
        .record(event("kvm01", 5, Stage::Dhcp, StageState::Ignored));
    let refused = told(&site, "kvm01", "", 6);
    assert_eq!(refused.cause, "dhcp of kvm01");
    assert_eq!(refused.last.len(), 1);
}

#[test]
fn the_console_comes_before_what_is_likely() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    asks(&site, "kvm01", 0);
    let mut loader = event("kvm01", 1, Stage::Loader, StageState::Ok);
    loader.evidence = Evidence::Acknowledged;
    site.timeline.record(loader);
    let running = told(&site, "kvm01", "", 9);
    assert!(
        running
            .cause
            .contains("may be silent for 60 s, and has been for 8 s")
    );
    let panic = "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n";
    let stalled = told(&site, "kvm01", panic, 100);
    assert_eq!(stalled.state, "stalled");
    assert!(
        stalled.cause.contains("no script asked for"),
        "{}",
        stalled.cause
    );
    assert!(
        stalled.next[0].contains("enough memory"),
        "{:?}",
        stalled.next
    );
    assert!(
        stalled.next[1].contains("Secure Boot"),
        "{:?}",
        stalled.next
    );
    assert_eq!(stalled.hints.len(), 1);
    let evidence: Vec<_> = stalled
        .last
        .iter()
        .map(|said| said.evidence.as_str())
        .collect();
    assert_eq!(evidence, ["sent", "acknowledged"]);
}

/// Firmware boots from any NIC: it is not to be listed as one more host, whatever the policy is.
#[test]
fn a_nic_of_a_host_that_boots_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(dir.path());
    let old = "{mac: \"52:54:00:00:00:01\",";
    let new = format!("{old} nics: {{nic1: \"3c:ec:ef:55:00:05\"}},");
    let edited = Arc::new(testing::edited(dir.path(), &site.snapshot(), old, &new));
    let outline = site.outline(Timestamp::now());
    site.replace(
        edited.clone(),
        &outline.changes(&edited.inventory.outline()),
    );
    let now = Timestamp::now();
    let mac: MacAddr = "3c:ec:ef:55:00:05".parse().unwrap();
    let seen = Discovered::of_report(mac, Some("boot".into()), "", now);
    site.discovery
        .found(seen, Identity::of_report(""), Hardware::default());
    site.discovery.held(mac);
    let asks = event("mac-3cecef550005", 0, Stage::Script, StageState::Ok);
    site.timeline.record(BootEvent { at: now, ..asks });
    let id = MachineId("mac-3cecef550005".into());
    let nic = why(&site, &id, &Words::default(), now).unwrap();
    let whose = "3c:ec:ef:55:00:05 is not in the inventory: it is the NIC nic1 of kvm01: ";
    assert!(nic.cause.starts_with(whose), "{}", nic.cause);
    let swap = "`bridgehead hosts set kvm01 mac=3c:ec:ef:55:00:05 nics.nic1=52:54:00:00:00:01`";
    let told = nic.next.iter().any(|next| next.contains(swap));
    assert!(told, "{:?}", nic.next);
    let warnings = site.discovered(now).machines[0].warnings().join("\n");
    assert!(warnings.contains("NIC nic1 of kvm01"), "{warnings}");
}
