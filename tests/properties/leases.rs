//! The lease journal: any bytes in its place are read, mended or refused; a cut anywhere costs what it cuts.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use bridgehead::inventory::model::MacAddr;
use bridgehead::leases::Journal;
use bridgehead::policy::lease::{Lease, LeaseChange, LeaseTable};
use bridgehead::policy::switch_port::{PluggedIn, SwitchPort};
use jiff::Timestamp;

/// Holds for the bytes of every file, and for every sequence of changes and every cut.
pub(crate) fn check(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match bytes {
        // A journal of our own making, cut where the first two bytes say.
        [0xff, high, low, changes @ ..] => runtime.block_on(check_cut(
            usize::from(*high) << 8 | usize::from(*low),
            changes,
        )),
        bytes => runtime.block_on(check_bytes(bytes)),
    }
}

type Held = BTreeMap<MacAddr, (Lease, Option<PluggedIn>)>;

fn held(table: &LeaseTable) -> Held {
    let port = |mac| table.last_plugged_in(mac).cloned();
    let held: Held = table
        .iter()
        .map(|(mac, lease)| (mac, (lease, port(mac))))
        .collect();
    // Who holds nothing is plugged in nowhere.
    for mac in (0..8).map(machine) {
        assert!(held.contains_key(&mac) || port(mac).is_none(), "{mac}");
    }
    held
}

/// What one start of the daemon makes of a file, the next one makes of it too, and it can be written to.
async fn check_bytes(bytes: &[u8]) {
    let state = tempfile::tempdir().expect("a directory");
    fs::write(file(state.path()), bytes).expect("a file");
    let Ok(journal) = Journal::open(state.path()) else {
        // Left as it is, for the operator to look at.
        let left = fs::read(file(state.path())).expect("a file");
        return assert_eq!(left, bytes, "a journal that was refused was changed");
    };
    let mut then = held(&journal.leases());
    drop(journal);
    let journal = Journal::open(state.path()).expect("opened before");
    let mut table = journal.leases().clone();
    assert_eq!(held(&table), then);
    let change = bind(1, 2, 3);
    journal
        .commit(vec![change.clone()])
        .await
        .expect("a change is taken");
    drop(journal);
    let last = Journal::open(state.path()).expect("opened before");
    table.apply(&change);
    then = held(&table);
    assert_eq!(held(&last.leases()), then);
}

/// After a cut at any byte the table is that of some number of whole changes.
async fn check_cut(cut: usize, changes: &[u8]) {
    let state = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(state.path()).expect("an empty journal");
    let mut table = journal.leases().clone();
    let mut known = vec![held(&table)];
    for change in changes.chunks_exact(3).take(16).map(change) {
        journal
            .commit(vec![change.clone()])
            .await
            .expect("a change is taken");
        table.apply(&change);
        assert_eq!(held(&journal.leases()), held(&table));
        known.push(held(&table));
    }
    drop(journal);
    let whole = fs::read(file(state.path())).expect("a journal");
    let cut = cut % (whole.len() + 1);
    fs::write(file(state.path()), &whole[..cut]).expect("a file");
    let found = Journal::open(state.path()).expect("a cut is mended");
    let found = held(&found.leases());
    assert!(known.contains(&found), "cut at {cut}");
    if cut == whole.len() {
        assert_eq!(Some(&found), known.last());
    }
}

fn file(state: &Path) -> std::path::PathBuf {
    state.join("leases.jsonl")
}

fn machine(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn bind(mac: u8, address: u8, expires: u8) -> LeaseChange {
    LeaseChange::Bind {
        mac: machine(mac),
        address: Ipv4Addr::new(10, 0, 0, address),
        expires: at(expires),
        port: plugged_in(expires).map(Box::new),
    }
}

/// Nowhere that is known, at a port, or at two.
fn plugged_in(by: u8) -> Option<PluggedIn> {
    let port = |by: u8| SwitchPort {
        relay: (by & 8 > 0).then_some(Ipv4Addr::new(10, 0, 1, by)),
        // Whatever the wire makes of it stays in one line.
        circuit_id: (by & 16 > 0).then(|| format!("\"Gi\\{}\n", char::from(by))),
        remote_id: (by & 32 > 0).then(|| "\u{1f5a7}".repeat(64)),
    };
    let heard = [by, by.rotate_left(1)].map(|by| (by & 64 > 0).then(|| port(by)));
    heard.into_iter().fold(None, |known, heard| {
        PluggedIn::after(known.as_ref(), heard, by.into(), at(by))
    })
}

fn at(seconds: u8) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + i64::from(seconds)).expect("in range")
}

fn change(bytes: &[u8]) -> LeaseChange {
    let (kind, mac, address) = (bytes[0], bytes[1] % 8, bytes[2] % 8);
    match kind % 4 {
        0 | 1 => bind(mac, address, kind),
        2 => LeaseChange::Release {
            mac: MacAddr([2, 0, 0, 0, 0, mac]),
            // Journals of old do not say it.
            address: (address > 0).then_some(Ipv4Addr::new(10, 0, 0, address)),
            at: at(kind),
        },
        _ => LeaseChange::Decline {
            mac: MacAddr([2, 0, 0, 0, 0, mac]),
            address: Ipv4Addr::new(10, 0, 0, address),
            found: kind % 8 > 3,
            until: at(kind),
        },
    }
}
