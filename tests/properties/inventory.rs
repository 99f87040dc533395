//! hosts.yaml: any text is an inventory or gets faults that point into it; nothing takes long.

use std::time::{Duration, Instant};

use bridgehead::diagnostic::{Diagnostic, Diagnostics};
use bridgehead::inventory::edit::{Verb, edit};
use bridgehead::inventory::model::{Inventory, MacAddr, Sourced};
use bridgehead::inventory::{artefacts, load, parse};
use bridgehead::render::Templates;
use bridgehead::site::rehearse::rehearse;

/// For the largest text that the fuzzer makes, with a hundred times to spare.
const SLOW: Duration = Duration::from_secs(20);

/// Holds for the bytes of every file.
pub(crate) fn check(bytes: &[u8]) {
    let began = Instant::now();
    match std::str::from_utf8(bytes) {
        Ok(text) => check_text(text),
        Err(_) => check_file(bytes),
    }
    assert!(began.elapsed() < SLOW, "it took {:?}", began.elapsed());
}

fn check_text(text: &str) {
    match parse("hosts.yaml", text) {
        Ok((inventory, warnings)) => {
            check_places(text, warnings.iter());
            check_sound(&inventory);
            check_edit(text, &inventory);
        }
        Err(found) => check_faults(text, &found),
    }
}

/// What is not UTF-8 is told at the byte that is not.
fn check_file(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a temporary file");
    let found = load(file.path()).expect_err("not UTF-8");
    check_faults(&String::from_utf8_lossy(bytes), &found);
}

fn check_faults(text: &str, found: &Diagnostics) {
    assert!(found.errors() > 0, "refused without an error");
    check_places(text, found.iter());
    // The same for a terminal and for a program.
    for colour in [false, true] {
        let shown = found.to_text(colour);
        assert!(!shown.is_empty());
        let escape = |c: char| c.is_control() && c != '\n' && !(colour && c == '\x1b');
        assert!(!shown.contains(escape), "control characters: {shown:?}");
    }
}

fn check_places<'a>(text: &str, found: impl Iterator<Item = &'a Diagnostic>) {
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = unified.split('\n').collect();
    for diagnostic in found {
        assert!(!diagnostic.message.is_empty());
        for label in &diagnostic.labels {
            let line = label.line.checked_sub(1).and_then(|line| lines.get(line));
            let line = line.unwrap_or_else(|| panic!("line {} of {}", label.line, lines.len()));
            let end = line.chars().count() + 1;
            assert!(
                (1..=end).contains(&label.column),
                "{diagnostic:?} in {line:?}"
            );
        }
    }
}

/// `hosts set` changes what it was told to and nothing else, or leaves the file as it was.
fn check_edit(text: &str, inventory: &Inventory) {
    let Some(key) = inventory.hosts.values().next().map(|host| &host.key) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("hosts.yaml");
    std::fs::write(&file, text).expect("a file");
    let value = "rack=of-this-test".parse().expect("an assignment");
    let edited = edit(&file, Verb::Set, key, &[value], false);
    let after = std::fs::read_to_string(&file).expect("a file");
    if let Err(refused) = edited {
        assert!(!refused.to_string().is_empty());
        return assert_eq!(after, text, "refused, and changed");
    }
    let (new, _) = parse("hosts.yaml", &after).expect("what an edit leaves is sound");
    let (old, new) = (inventory.outline(), new.outline());
    for (name, host) in old.hosts {
        let now = &new.hosts[&name];
        if inventory.hosts[&name].key == *key {
            assert_eq!(now["rack"], ["of-this-test"], "{name}");
        } else {
            assert_eq!(*now, host, "{name}");
        }
    }
    assert_eq!(old.profiles, new.profiles);
    assert_eq!(old.networks, new.networks);
}

/// What was accepted can be served: each host's boot can be written.
fn check_sound(inventory: &Inventory) {
    for (name, host) in &inventory.hosts {
        assert_eq!(*name, host.name);
        assert!(host.network.subnet.contains(&*host.ip), "{name}");
        let known = |mac: &Sourced<MacAddr>| inventory.by_mac[&mac.value].name == *name;
        assert!(host.macs.iter().all(known), "{name}");
    }
    let missing = artefacts::check(
        inventory,
        std::path::Path::new("/nonexistent"),
        &Default::default(),
    );
    // Networks name loaders, too.
    let names_nothing = inventory.profiles.is_empty()
        && inventory.hosts.is_empty()
        && inventory
            .networks
            .values()
            .all(|network| network.loaders.is_empty());
    assert_eq!(missing.is_empty(), names_nothing);
    let templates = Templates::load(None).expect("the built-in templates are sound");
    for fault in rehearse(inventory, &templates) {
        assert!(!fault.to_string().is_empty());
    }
}
