use super::file::{self, push_change};
use super::*;
use crate::inventory::model::MacAddr;
use crate::policy::switch_port::{PluggedIn, SwitchPort};
use jiff::Timestamp;
use std::cell::Cell;
use std::net::Ipv4Addr;

thread_local! {
    /// Of this thread's syncs to come, a bit for each that fails, the next one's lowest.
    static FAILING_SYNCS: Cell<u64> = const { Cell::new(0) };
    /// How many ways to keep a file fail: a second name, then a copy.
    static REFUSED: Cell<u32> = const { Cell::new(0) };
}

pub(super) fn fail_when_told() -> io::Result<()> {
    let failing = FAILING_SYNCS.get();
    FAILING_SYNCS.set(failing >> 1);
    match failing & 1 {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(5)),
    }
}

pub(super) fn refuse_when_told() -> io::Result<()> {
    let left = REFUSED.get();
    REFUSED.set(left.saturating_sub(1));
    match left {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(1)),
    }
}

fn bind(number: u16, expires: i64) -> LeaseChange {
    let [high, low] = number.to_be_bytes();
    LeaseChange::Bind {
        mac: MacAddr([2, 0, 0, 0, high, low]),
        address: Ipv4Addr::new(10, 0, high, low),
        expires: Timestamp::from_second(expires).unwrap(),
        port: None,
    }
}

fn addresses(table: &LeaseTable) -> Vec<Ipv4Addr> {
    let mut all: Vec<_> = table.iter().map(|(_, lease)| lease.address).collect();
    all.sort();
    all
}

/// One that never waits before it tries again.
fn writer(directory: &Path) -> writer::Writer {
    let mut writer = writer::open(directory.join("leases.jsonl"), Reading::now()).unwrap();
    writer.mend_every = Duration::ZERO;
    writer
}

fn on_disk(directory: &Path) -> Vec<Ipv4Addr> {
    addresses(&file::read(&directory.join("leases.jsonl")).unwrap().table)
}

#[tokio::test]
async fn what_was_committed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.leases().iter().count(), 0);
    for number in (0..50).step_by(2) {
        let two = vec![bind(number, 100), bind(number + 1, 100)];
        journal.commit(two).await.unwrap();
    }
    let again = Journal::open(dir.path()).unwrap();
    assert_eq!(again.leases().iter().count(), 50);
}

#[tokio::test]
async fn where_a_machine_is_plugged_in_is_there_again_also_after_a_journal_was_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let expires = Timestamp::from_second(4_000_000_000).unwrap();
    let mut bound = bind(7, 4_000_000_000);
    let LeaseChange::Bind { mac, port, .. } = &mut bound else {
        unreachable!()
    };
    let at = |circuit: &str| SwitchPort {
        relay: Some(Ipv4Addr::new(10, 88, 0, 254)),
        circuit_id: Some(circuit.into()),
        remote_id: Some("sw \"r1\"".into()),
    };
    let known = PluggedIn::after(None, Some(at("Gi1/0/3")), 1, Timestamp::UNIX_EPOCH);
    let known = PluggedIn::after(known.as_ref(), Some(at("Gi1/0/4")), 2, expires).unwrap();
    let mac = *mac;
    *port = Some(Box::new(known.clone()));
    Journal::open(dir.path())
        .unwrap()
        .commit(vec![bound])
        .await
        .unwrap();
    // Each start writes it anew.
    for _ in 0..3 {
        let journal = Journal::open(dir.path()).unwrap();
        let now = Timestamp::from_second(1).unwrap();
        assert_eq!(journal.leases().plugged_in(mac, now), Some(&known));
        assert_eq!(journal.leases().plugged_in(mac, expires), None);
    }
}

/// What changes, by a number: few machines and addresses, so that every order ends otherwise.
fn change(number: u16) -> LeaseChange {
    let mac = MacAddr([2, 0, 0, 0, 0, (number % 3) as u8]);
    let address = Ipv4Addr::new(10, 0, 0, (number % 5) as u8);
    let at = Timestamp::from_second(i64::from(number)).unwrap();
    match number % 7 {
        0 => LeaseChange::Release {
            mac,
            address: None,
            at,
        },
        _ => LeaseChange::Bind {
            mac,
            address,
            expires: at,
            port: None,
        },
    }
}

/// Who waits for a batch wakes in any order; on disk and in memory is that of the decisions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_are_taken_in_the_order_of_the_decisions() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let all = |table: &LeaseTable| table.iter().collect::<std::collections::BTreeMap<_, _>>();
    let decided = std::sync::Arc::new(Mutex::new(LeaseTable::default()));
    let batches: Vec<_> = (0..800)
        .map(|number| {
            let (journal, decided) = (journal.clone(), decided.clone());
            tokio::spawn(async move {
                let pending = {
                    let _decision = journal.leases();
                    decided.lock().unwrap().apply(&change(number));
                    journal.submit(vec![change(number)]).unwrap()
                };
                pending.wait().await.unwrap();
            })
        })
        .collect();
    for batch in batches {
        batch.await.unwrap();
    }
    let decided = all(&decided.lock().unwrap());
    assert_eq!(all(&journal.leases()), decided);
    assert_eq!(all(&Journal::open(dir.path()).unwrap().leases()), decided);
}

#[test]
fn a_release_of_old_without_its_address_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let lines = concat!(
        r#"{"op":"bind","mac":"02:00:00:00:00:01","address":"10.0.0.1","expires":"2100-01-01T00:00:00Z"}"#,
        "\n",
        r#"{"op":"release","mac":"02:00:00:00:00:01","at":"2001-01-01T00:00:00Z"}"#,
        "\n"
    );
    std::fs::write(dir.path().join("leases.jsonl"), lines).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let (_, lease) = journal.leases().iter().next().unwrap();
    assert_eq!(lease.expires, "2001-01-01T00:00:00Z".parse().unwrap());
}

/// A crash can cut the file at any byte: all whole lines are kept, and writing goes on.
#[test]
fn a_cut_at_any_byte_loses_only_the_line_it_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.jsonl");
    let mut whole = Vec::new();
    file::push_mark(&mut whole, writer(dir.path()).clock().mark()).unwrap();
    let mut ends = Vec::new();
    for number in 1..=3 {
        push_change(&mut whole, &bind(number, 100)).unwrap();
        ends.push(whole.len());
    }
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut writer = writer(dir.path());
        let kept = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(writer.table().iter().count(), kept, "cut at {cut}");
        writer.commit(&[bind(9, 100)]).unwrap();
        assert_eq!(on_disk(dir.path()).len(), kept + 1, "after a cut at {cut}");
    }
}

/// A journal of a mark and five leases, and where each lease's line ends.
fn five_leases(directory: &Path) -> (Vec<u8>, Vec<usize>) {
    let mut whole = Vec::new();
    file::push_mark(&mut whole, writer(directory).clock().mark()).unwrap();
    let ends = (1..=5).map(|number| {
        push_change(&mut whole, &bind(number, 100)).unwrap();
        whole.len()
    });
    let ends = ends.collect();
    (whole, ends)
}

/// The file had grown when the power went, and its data was not there: NULs at its end, or
/// between blocks that were there.
#[test]
fn a_hole_of_nuls_anywhere_loses_the_lines_that_it_touches_and_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.jsonl");
    let (whole, ends) = five_leases(dir.path());
    let begins = |at: usize| whole[..at].iter().rposition(|byte| *byte == b'\n');
    for start in 0..=whole.len() {
        // A byte, the end of one line and most of the next, all that follows and beyond, pieces
        // that are read at once.
        let length = [1, 150, 5000, 8192][start % 4];
        let mut torn = whole.clone();
        torn.resize(whole.len().max(start + length), 0);
        torn[start..start + length].fill(0);
        std::fs::write(&path, &torn).unwrap();
        let mut writer = writer(dir.path());
        let whole_line = |end: &&usize| {
            let begin = begins(**end - 1).map_or(0, |at| at + 1);
            **end <= start || begin >= start + length
        };
        // Where the line's end became a NUL, the next one is a part of it.
        let joined = |end: &&usize| {
            let begin = begins(**end - 1).map_or(0, |at| at + 1);
            begin >= start + length && begin > 0 && torn[begin - 1] == 0
        };
        let kept = ends.iter().filter(whole_line);
        let kept = kept.filter(|end| !joined(end)).count();
        let what = format!("{length} NULs at {start}");
        assert_eq!(writer.table().iter().count(), kept, "{what}");
        let aside = file::kept_aside(&path).unwrap();
        assert_eq!(
            std::fs::read(aside.last().unwrap()).unwrap(),
            torn,
            "{what}"
        );
        assert!(aside.len() <= file::KEPT_ASIDE, "{aside:?}");
        assert_eq!(file::read(&path).unwrap().torn, None, "after {what}");
        if start % 7 == 0 {
            writer.commit(&[bind(9, 100)]).unwrap();
            assert_eq!(on_disk(dir.path()).len(), kept + 1, "after {what}");
        }
    }
}

/// A hole that ends where a piece of a line does, within a line: its tail is none.
#[test]
fn what_follows_a_hole_keeps_nobody_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.jsonl");
    let (whole, _) = five_leases(dir.path());
    for (torn, kept) in [
        ([&[0; 4096][..], b"\"expires\":1}\n", &whole].concat(), 5),
        ([&whole[..], &[0; 4096], b"\"expires\":1}"].concat(), 5),
        ([&whole[..], b"\0\n{\"op\":1}\n", &whole].concat(), 5),
        ([b"\0\n", &whole[..whole.len() - 1]].concat(), 4),
    ] {
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(writer(dir.path()).table().iter().count(), kept);
    }
}

/// Some file systems know no second names; a full one takes no copy.
#[test]
fn a_file_that_cannot_be_kept_keeps_nobody_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.jsonl");
    let (mut torn, _) = five_leases(dir.path());
    torn.extend([0; 10]);
    for (refused, aside) in [(1, 1), (2, 1)] {
        std::fs::write(&path, &torn).unwrap();
        REFUSED.set(refused);
        assert_eq!(writer(dir.path()).table().iter().count(), 5);
        assert_eq!(REFUSED.get(), 0);
        let kept = file::kept_aside(&path).unwrap();
        assert_eq!(kept.len(), aside, "{kept:?}");
        assert_eq!(std::fs::read(&kept[0]).unwrap(), torn);
    }
}

#[test]
fn damage_that_no_crash_leaves_is_named_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.jsonl");
    let (whole, _) = five_leases(dir.path());
    let endless = [&whole[..], &[b' '; 10_000]].concat();
    for (damaged, at) in [(&b"{}\n"[..], 1), (&endless, 7)] {
        std::fs::write(&path, damaged).unwrap();
        let error = Journal::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, JournalError::Damaged { line, .. } if line == at),
            "{error}"
        );
        assert_eq!(
            std::fs::read(&path).unwrap(),
            damaged,
            "it is left as it is"
        );
    }
}

/// After a downgrade.
#[test]
fn a_newer_versions_journal_is_said_to_be_one_and_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.jsonl");
    let (whole, _) = five_leases(dir.path());
    let whole = String::from_utf8(whole).unwrap();
    assert!(
        whole.starts_with(r#"{"op":"clock","format":1,"at":"#),
        "{whole}"
    );
    let (first, rest) = whole.split_once('\n').unwrap();
    for line in [&first.replace(":1,", ":2,"), r#"{"format":2,"op":"what"}"#] {
        let text = format!("{line}\n{rest}");
        std::fs::write(&path, &text).unwrap();
        let error = Journal::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, JournalError::Newer { format: 2, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("start that one again"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

/// A thousand machines that ask while the disk fails are no thousand rewrites of the file.
#[test]
fn a_file_that_failed_is_not_tried_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    writer.mend_every = Duration::from_secs(3600);
    FAILING_SYNCS.set(0b111);
    for _ in 0..100 {
        writer.commit(&[bind(1, 100)]).unwrap_err();
    }
    // One of the append, one of the rewrite.
    assert_eq!(FAILING_SYNCS.replace(0), 1);
    writer.mend_every = Duration::ZERO;
    writer.commit(&[bind(1, 100)]).unwrap();
}

/// A disk where rewrites succeed, and what is appended fails, is not rewritten for each change.
#[test]
fn a_file_that_can_only_be_rewritten_is_not_rewritten_at_once_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    writer.mend_every = Duration::from_secs(3600);
    // An append; a rewrite has two syncs, of the file and of its directory.
    let each_append = 0b_001_001_001_001;
    FAILING_SYNCS.set(each_append);
    for _ in 0..100 {
        writer.commit(&[bind(1, 100)]).unwrap_err();
    }
    assert_eq!(FAILING_SYNCS.replace(0), each_append >> 4, "one rewrite");
    writer.mend_every = Duration::ZERO;
    writer.commit(&[bind(1, 100)]).unwrap();
}

#[tokio::test]
async fn the_end_of_the_writer_is_heard_of() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.commit(vec![bind(1, 100)]).await.unwrap();
    let Journal { jobs, ended, .. } = journal;
    assert!(!ended.is_cancelled());
    // A thread that panics drops what it holds too.
    drop(jobs);
    let heard = tokio::time::timeout(Duration::from_secs(20), ended.cancelled());
    heard.await.unwrap();
}

#[tokio::test]
async fn rewriting_keeps_the_living_state() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    // About 8 MB, of which three lines live.
    for round in 0..80 {
        let batch = (0..1000).map(|index| bind(index % 3 + 1, round));
        journal.commit(batch.collect()).await.unwrap();
    }
    let written = std::fs::metadata(dir.path().join("leases.jsonl")).unwrap();
    assert!(written.len() < 6 << 20, "{}", written.len());
    let again = Journal::open(dir.path()).unwrap();
    assert_eq!(
        addresses(&again.leases()),
        [1, 2, 3].map(|last| Ipv4Addr::new(10, 0, 0, last))
    );
    assert!(!dir.path().join("leases.jsonl.new").exists());
}

/// Linux takes the pages of a failed sync for clean: a second sync of the same file would
/// "succeed" without them.
#[test]
fn after_a_failed_sync_the_file_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    writer.commit(&[bind(1, 100)]).unwrap();
    let inode = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path.join("leases.jsonl")).unwrap().ino()
    };
    let before = inode(dir.path());
    FAILING_SYNCS.set(1);
    writer.commit(&[bind(2, 100)]).unwrap_err();
    writer.commit(&[bind(3, 100)]).unwrap();
    assert_ne!(inode(dir.path()), before);
    // What was refused is not there: the client was not told that it has it.
    assert_eq!(
        on_disk(dir.path()),
        [1, 3].map(|last| Ipv4Addr::new(10, 0, 0, last))
    );
}

/// Whichever sync of a rewrite fails: nothing is appended to a file that may have lost its
/// name, and what was acknowledged is there.
#[test]
fn a_rewrite_that_fails_half_way_is_done_again() {
    for failing in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        writer.commit(&[bind(1, 100)]).unwrap();
        FAILING_SYNCS.set((1 << failing) - 1);
        let mut acknowledged = vec![Ipv4Addr::new(10, 0, 0, 1)];
        for number in 2..40 {
            if writer.commit(&[bind(number, 100)]).is_ok() {
                acknowledged.push(Ipv4Addr::from(0x0a00_0000 + u32::from(number)));
            }
        }
        assert!(acknowledged.len() > 30, "{failing}: it never recovered");
        assert_eq!(on_disk(dir.path()), acknowledged, "{failing} syncs failed");
    }
}

#[test]
fn a_wall_clock_that_jumped_changes_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let started = writer(dir.path()).clock().now();
    for years in [-10, 10] {
        let mut reading = Reading::now();
        let jump = jiff::SignedDuration::from_hours(years * 365 * 24);
        reading.wall = reading.wall.checked_add(jump).unwrap();
        let path = dir.path().join("leases.jsonl");
        let clock = writer::open(path, reading).unwrap().clock();
        let passed = clock.now().duration_since(started).as_secs();
        assert!((0..60).contains(&passed), "{years} years: {passed} s");
    }
}

fn health(writer: &writer::Writer) -> Option<String> {
    writer.health().lock().unwrap().failing.clone()
}

/// A file system without room: a tmpfs of 64 KiB in a mount namespace of this thread's own.
#[test]
fn a_full_disk_withholds_the_ack_until_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let mut command = std::process::Command::new("mount");
        assert!(command.args(arguments).status().unwrap().success());
    };
    mount(&["--make-rprivate", "/"]);
    let at = dir.path().to_str().unwrap();
    mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs", at]);
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, [0; 24 << 10]).unwrap();
    let mut writer = writer(dir.path());
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for number in 0..600 {
        match writer.commit(&[bind(number, 100)]) {
            Ok(()) => acknowledged.push(Ipv4Addr::from(0x0a00_0000 + u32::from(number))),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100, "{refused}");
    assert_eq!(on_disk(dir.path()), acknowledged, "while it is full");
    std::fs::remove_file(&ballast).unwrap();
    assert!(health(&writer).is_some_and(|why| why.contains("No space left")));
    writer.probe();
    assert_eq!(health(&writer), None, "nobody asked");
    writer.commit(&[bind(700, 100)]).unwrap();
    acknowledged.push(Ipv4Addr::new(10, 0, 2, 188));
    assert_eq!(on_disk(dir.path()), acknowledged, "after room was made");
    mount_gone(at);
}

fn mount_gone(at: &str) {
    let _ = std::process::Command::new("umount").arg(at).status();
}
