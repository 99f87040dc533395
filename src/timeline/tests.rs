use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::limits::{IGNORED_PER_BOOT, IGNORED_PER_SECOND, UNLISTED_PER_SECOND};
use super::*;
use crate::policy::client::Asker;
use crate::policy::event::ClockSet;
use crate::policy::progress::Standing;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn host() -> MachineId {
    MachineId("kvm01".into())
}

fn event(second: i64, stage: Stage) -> BootEvent {
    BootEvent::sent(at(second), host(), stage, StageState::Ok, String::new())
}

#[test]
fn joined_needs_the_report_token_once() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    assert_eq!(
        timeline.report(event(0, Stage::Joined), "x"),
        Err(Refusal::NoAttempt)
    );
    timeline.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
    let attempt = timeline.attempt(&host(), at(2));
    let (boot, report) = (
        timeline.boot_token(&attempt),
        timeline.report_token(&attempt),
    );
    assert_eq!(
        timeline.report(event(3, Stage::Joined), &boot),
        Err(Refusal::WrongToken)
    );
    assert_eq!(timeline.report(event(4, Stage::Bridge), &boot), Ok(()));
    assert_eq!(timeline.report(event(5, Stage::Identity), &report), Ok(()));
    assert_eq!(
        timeline.report(event(6, Stage::Root), &boot),
        Err(Refusal::BootTokenSpent)
    );
    assert_eq!(timeline.report(event(7, Stage::Joined), &report), Ok(()));
    assert_eq!(
        timeline.report(event(8, Stage::Joined), &report),
        Err(Refusal::AlreadyJoined)
    );
}

/// A machine that waited, and the attempt in which it goes on as `host`.
fn waited(timeline: &Timeline, second: i64) -> (MachineId, AttemptId) {
    let id = MachineId("mac-3cecef000007".into());
    let mut asks = event(second, Stage::Dhcp);
    asks.machine = id.clone();
    timeline.record_asking(asks, Asker::PxeRom);
    let attempt = timeline.attempt(&id, at(second));
    (id, attempt)
}

#[test]
fn a_clock_that_is_set_back_makes_no_spent_token_of_a_machine_that_waited_good_again() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    let (id, former) = waited(&timeline, 10_000);
    let goes_on = |timeline: &Timeline, second| {
        timeline.attempt_following(&host(), (&id, &former), at(second))
    };
    let attempt = goes_on(&timeline, 4000).unwrap();
    assert_eq!(
        goes_on(&timeline, 3000),
        Some(attempt.clone()),
        "it was lost"
    );
    let token = timeline.report_token(&attempt);
    timeline.report(event(3001, Stage::Root), &token).unwrap();
    for second in [0, 3002, 20_000] {
        assert_eq!(goes_on(&timeline, second), None);
    }
    drop(timeline);
    let timeline = Timeline::open(dir.path()).unwrap();
    assert_eq!(goes_on(&timeline, 3003), None, "after a restart");
    // The log goes round several times.
    let token = timeline.report_token(&former);
    let mut waits = event(3004, Stage::Inventory);
    waits.machine = id.clone();
    timeline.report(waits, &token).unwrap();
    timeline.lock().log.rotate_at = 20_000;
    let mut other = event(3005, Stage::Root);
    other.machine = MachineId("kvm02".into());
    (0..1000).for_each(|_| timeline.record(other.clone()));
    drop(timeline);
    let kept = std::fs::read_to_string(dir.path().join("events.old.jsonl")).unwrap();
    assert!(!kept.contains("kvm01"), "the log went round");
    let timeline = Timeline::open(dir.path()).unwrap();
    assert_eq!(goes_on(&timeline, 3006), None, "the log went round");
    assert_eq!(timeline.machine(&host()).unwrap().attempts.len(), 1);
}

#[test]
fn a_host_that_joined_before_the_clock_was_set_back_holds_up_no_successor() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    timeline.record_asking(event(10_000, Stage::Dhcp), Asker::PxeRom);
    let old = timeline.attempt(&host(), at(10_000));
    let token = timeline.report_token(&old);
    timeline.report(event(10_001, Stage::Root), &token).unwrap();
    let (id, former) = waited(&timeline, 500);
    let next = timeline.attempt_following(&host(), (&id, &former), at(501));
    assert!(next.is_some_and(|next| next != old));
}

#[test]
fn a_clock_that_was_set_makes_no_boot_late_and_keeps_their_order_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    timeline.record(event(900, Stage::Dhcp));
    timeline.record_asking(event(5_000, Stage::Dhcp), Asker::PxeRom);
    timeline.record(event(5_030, Stage::Loader));
    let set = ClockSet {
        since: at(4_000),
        until: at(5_040),
        ms: -3_600_000,
    };
    timeline.record(clock::event(set, at(1_440)));
    timeline.record(event(1_445, Stage::Script));
    let check = |timeline: &Timeline| {
        let machine = timeline.machine(&host()).unwrap();
        let attempt = machine.attempt().unwrap();
        let told: Vec<_> = attempt.events.iter().map(|e| e.at.as_second()).collect();
        assert_eq!(
            (told, attempt.began),
            (vec![1_400, 1_430, 1_445], at(1_400))
        );
        // What an earlier run told, by a clock of its own.
        assert_eq!(machine.strays[0].at, at(900));
        assert_eq!(machine.standing(at(1_500)), Standing::Running);
        assert_eq!(machine.standing(at(1_506)), Standing::Stalled);
    };
    check(&timeline);
    drop(timeline);
    check(&Timeline::open(dir.path()).unwrap());
}

#[test]
fn a_step_of_the_clock_counts_once_though_the_log_goes_round() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    timeline.record_asking(event(5_000, Stage::Dhcp), Asker::PxeRom);
    timeline.record(event(5_030, Stage::Loader));
    let mut other = event(5_035, Stage::Root);
    other.machine = MachineId("kvm02".into());
    let goes_round = |at: i64| {
        let mut inner = timeline.lock();
        let full = inner.log.rotate_at;
        inner.log.rotate_at = 0;
        drop(inner);
        let mut other = other.clone();
        other.at = Timestamp::from_second(at).unwrap();
        timeline.record(other);
        timeline.lock().log.rotate_at = full;
    };
    goes_round(5_036);
    // Further back than where it is told from, so that a second time would move it again.
    let set = ClockSet {
        since: at(1_000),
        until: at(5_040),
        ms: -600_000,
    };
    timeline.record(clock::event(set, at(4_440)));
    let began = |timeline: &Timeline| {
        let machine = timeline.machine(&host()).unwrap();
        machine.attempt().unwrap().began
    };
    assert_eq!(began(&timeline), at(4_400));
    goes_round(4_441);
    assert_eq!(began(&timeline), at(4_400));
    drop(timeline);
    assert_eq!(began(&Timeline::open(dir.path()).unwrap()), at(4_400));
}

#[test]
fn a_boot_fails_once_however_often_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    let boots = |result| timeline.metrics.boots.of(result).get();
    for attempt in 0..2 {
        let began = attempt * 1000;
        timeline.record_asking(event(began, Stage::Dhcp), Asker::PxeRom);
        let token = timeline.report_token(&timeline.attempt(&host(), at(began)));
        for stage in [Stage::Root, Stage::Rescue, Stage::Root] {
            let mut failed = event(began + 5, stage);
            failed.state = StageState::Fail;
            timeline.report(failed, &token).unwrap();
        }
    }
    assert_eq!(boots(BootResult::Failed), 2);
    assert_eq!(boots(BootResult::Joined), 0);
}

#[test]
fn an_old_attempts_token_is_worth_nothing_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    timeline.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
    let old = timeline.report_token(&timeline.attempt(&host(), at(1)));
    timeline.record(event(2, Stage::Loader));
    timeline.record_asking(event(1000, Stage::Dhcp), Asker::PxeRom);
    let new = timeline.report_token(&timeline.attempt(&host(), at(1000)));
    // Until the new one is heard of, its DISCOVER may have been forged.
    assert!(timeline.authorize(&host(), &old).is_ok());
    timeline.report(event(1001, Stage::Identity), &new).unwrap();
    assert_eq!(timeline.authorize(&host(), &old), Err(Refusal::WrongToken));
}

#[test]
fn a_flood_is_cut_and_the_boots_of_listed_hosts_keep_their_stories() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    let hosts = 0..100;
    let info = |machine: MachineId| {
        let (at, said) = (at(1), "said".to_owned());
        timeline.record(BootEvent::sent(
            at,
            machine,
            Stage::Config,
            StageState::Info,
            said,
        ));
    };
    for host in hosts.clone() {
        let mut began = event(1, Stage::Dhcp);
        began.machine = MachineId(format!("kvm{host}"));
        timeline.record_asking(began, Asker::PxeRom);
        (0..5).for_each(|_| info(MachineId(format!("kvm{host}"))));
    }
    assert_eq!(timeline.suppressed(), 0);
    let events = |name: &str| {
        let machine = timeline.machine(&MachineId(name.into())).unwrap();
        machine.attempt().unwrap().events.len()
    };
    assert!(
        hosts
            .into_iter()
            .all(|host| events(&format!("kvm{host}")) == 6)
    );
    // Who asks without an end is cut, whoever it says it is.
    (0..1000).for_each(|_| info(MachineId("kvm7".into())));
    (0..1000).for_each(|_| info(MachineId("mac-525400000009".into())));
    let kept = IGNORED_PER_BOOT - 5 + IGNORED_PER_SECOND as usize;
    assert_eq!(timeline.suppressed(), 2000 - kept as u64);
    assert_eq!(events("kvm7"), 6 + kept);
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = Timeline::open(dir.path()).unwrap();
    first.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
    let attempt = first.attempt(&host(), at(1));
    let token = first.report_token(&attempt);
    first.report(event(2, Stage::Identity), &token).unwrap();
    drop(first);
    let second = Timeline::open(dir.path()).unwrap();
    assert_eq!(second.attempt(&host(), at(3)), attempt);
    assert!(second.report(event(4, Stage::Joined), &token).is_ok());
}

/// The log goes round several times while a host that joined long ago says nothing.
#[test]
fn a_host_that_joined_long_ago_is_known_after_the_log_went_round_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = Timeline::open(dir.path()).unwrap();
    first.lock().log.rotate_at = 20_000;
    first.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
    let attempt = first.attempt(&host(), at(1));
    let token = first.report_token(&attempt);
    for (second, stage) in [(2, Stage::Identity), (3, Stage::Root), (4, Stage::Joined)] {
        first.report(event(second, stage), &token).unwrap();
    }
    let mut failing = event(5, Stage::Dhcp);
    failing.machine = MachineId("kvm02".into());
    first.record_asking(failing.clone(), Asker::PxeRom);
    for second in 6..1000 {
        failing.at = at(second);
        failing.stage = Stage::Root;
        failing.state = StageState::Fail;
        first.record(failing.clone());
    }
    let failures = |timeline: &Timeline| timeline.machine(&failing.machine).unwrap().failures;
    let before = failures(&first);
    drop(first);
    let text = std::fs::read_to_string(dir.path().join("events.old.jsonl")).unwrap();
    assert!(!text.contains("kvm01"), "the log went round");
    let second = Timeline::open(dir.path()).unwrap();
    let machine = second.machine(&host()).unwrap();
    assert_eq!(machine.attempt().unwrap().id, attempt);
    assert_eq!(machine.attempt().unwrap().joined, Some(at(4)));
    assert_eq!(
        machine.standing(at(100_000)),
        crate::policy::progress::Standing::Done
    );
    // Its token is worth what it was: it has joined, and can say that it is no longer well.
    let again = second.report(event(1001, Stage::Joined), &token);
    assert_eq!(again, Err(Refusal::AlreadyJoined));
    let mut worse = event(1002, Stage::Pool);
    worse.state = StageState::Degraded;
    assert_eq!(second.report(worse, &token), Ok(()));
    // One attempt each, and no failure that never was.
    assert_eq!(second.machine(&host()).unwrap().attempts.len(), 1);
    assert_eq!(second.machine(&failing.machine).unwrap().attempts.len(), 1);
    assert!(failures(&second) <= before);
}

#[test]
fn where_nobody_sees_the_firmware_each_boot_is_an_attempt_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    let first = timeline.attempt_unseen(&host(), at(1));
    // GRUB asks for its script again and again.
    assert_eq!(timeline.attempt_unseen(&host(), at(2)), first);
    let token = timeline.report_token(&first);
    timeline.report(event(3, Stage::Identity), &token).unwrap();
    timeline.report(event(9, Stage::Joined), &token).unwrap();
    let second = timeline.attempt_unseen(&host(), at(1000));
    assert_ne!(second, first);
    let token = timeline.report_token(&second);
    timeline
        .report(event(1009, Stage::Identity), &token)
        .unwrap();
    assert_eq!(timeline.report(event(1010, Stage::Joined), &token), Ok(()));
    assert_eq!(timeline.machine(&host()).unwrap().attempts.len(), 2);
}

#[test]
fn invented_machines_do_not_push_hosts_out_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(dir.path()).unwrap();
    for index in 0..1000_u32 {
        let [_, a, b, c] = index.to_be_bytes();
        let mac = crate::inventory::model::MacAddr([2, 0, 0, a, b, c]);
        let mut invented = event(7, Stage::Dhcp);
        invented.machine = MachineId::unlisted(mac);
        timeline.record(invented);
    }
    timeline.record(event(7, Stage::Dhcp));
    let log = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    assert_eq!(log.lines().count(), UNLISTED_PER_SECOND as usize + 1);
    assert_eq!(timeline.read(BTreeMap::len), 1001);
}

/// Looks at the timeline with every line of the log, as nobody could who waits for its lock.
struct Looks(Arc<Timeline>, Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Looks {
    fn on_event(&self, line: &tracing::Event<'_>, _: Context<'_, S>) {
        let free = self.0.inner.try_lock().is_ok();
        assert!(free, "locked for {}", line.metadata().name());
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_reader_of_the_timeline() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Arc::new(Timeline::open(dir.path()).unwrap());
    let lines = Arc::new(AtomicUsize::new(0));
    let looks = Looks(Arc::clone(&timeline), Arc::clone(&lines));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(looks), || {
        timeline.record_asking(event(1, Stage::Dhcp), Asker::PxeRom);
        timeline.record(event(2, Stage::Loader));
    });
    assert_eq!(lines.load(Ordering::Relaxed), 2);
}
