//! The inventory as an operator meets it: good files load, bad ones say what is wrong.
//!
//! Each file of `tests/inventories/invalid` has one snapshot of what is printed for it.
//! After a change of words look at the new ones: `INSTA_UPDATE=always cargo test --test inventory`.

use std::path::{Path, PathBuf};

use bridgehead::inventory::model::{
    Inventory, Loader, NfsVersion, OnFailure, PoolKind, RootSource,
};
use bridgehead::inventory::{Loaded, load, parse};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(kind: &str) -> Vec<PathBuf> {
    let directory = root().join("tests/inventories").join(kind);
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Names the file as if it stood in the working directory, so that snapshots are portable.
fn text_of(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    (name, std::fs::read_to_string(path).unwrap())
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("inventories/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_invalid_file_says_what_is_wrong() {
    for path in files("invalid") {
        let (name, text) = text_of(&path);
        let faults = parse(&name, &text).expect_err(&name);
        settings().bind(|| insta::assert_snapshot!(stem(&path), faults.to_string()));
    }
}

#[test]
fn every_valid_file_loads() {
    for path in files("valid") {
        let (name, text) = text_of(&path);
        let (inventory, warnings) = parse(&name, &text).unwrap_or_else(|faults| panic!("{faults}"));
        let shown = format!("{warnings:#?}\n{}", describe(&inventory));
        settings().bind(|| insta::assert_snapshot!(format!("valid-{}", stem(&path)), shown));
    }
}

/// Hosts with what they boot, one per line.
fn describe(inventory: &Inventory) -> String {
    let mut lines: Vec<String> = Vec::new();
    for network in inventory.networks.values() {
        lines.push(format!("{network:?}"));
    }
    for host in inventory.hosts.values() {
        let profile = &host.profile;
        lines.push(format!(
            "{} {:?} {} on {} rack {:?} unit {:?}\n  {} < {:?}: {:?} {} {} {:?}\n  {:?} {:?}\n  {:?}",
            host.name,
            host.macs.iter().map(|mac| mac.value).collect::<Vec<_>>(),
            host.ip.value,
            host.network.name,
            host.rack,
            host.unit,
            profile.name,
            profile.extends,
            profile.loader.value,
            profile.kernel.value,
            profile.initrd.value,
            profile.on_failure.value,
            profile.bridge.value,
            profile.root.value,
            profile.image_pool.as_ref().map(|pool| &pool.value),
        ));
        let arguments = profile
            .cmdline
            .iter()
            .map(|argument| argument.value.as_str());
        lines.push(format!("  {}", arguments.collect::<Vec<_>>().join(" ")));
    }
    lines.join("\n")
}

#[test]
fn the_example_of_the_repository_is_what_the_demo_expects() {
    let Loaded {
        inventory,
        warnings,
        ..
    } = load(&root().join("hosts.yaml")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(warnings, []);
    assert_eq!(inventory.site, "lab");
    assert_eq!(inventory.hosts.len(), 2);
    let kvm01 = &inventory.hosts["kvm01"];
    assert_eq!(kvm01.macs[0].to_string(), "52:54:00:00:00:01");
    assert_eq!(kvm01.ip.to_string(), "10.77.0.11");
    assert_eq!((kvm01.rack.as_deref(), kvm01.unit), (Some("r1"), Some(4)));
    let profile = &kvm01.profile;
    assert_eq!(profile.extends, ["base"]);
    assert_eq!(*profile.loader, Loader::Ipxe);
    assert_eq!(*profile.on_failure, OnFailure::Reboot);
    assert_eq!(profile.root.overlay, 1 << 30);
    let pool = profile.image_pool.as_ref().unwrap();
    assert!(
        matches!(&pool.kind, PoolKind::Moosefs { master, port: 9421, .. } if master == "10.77.0.5")
    );
}

#[test]
fn the_examples_in_its_comments_load_too() {
    let text = std::fs::read_to_string(root().join("hosts.yaml")).unwrap();
    let uncommented: Vec<_> = text
        .lines()
        .map(|line| {
            line.replace("  # kvm", "  kvm")
                .replace("    # server: 10.77.0.1 ", "    server: 10.77.0.1 ")
                .replace("    # domain:", "    domain:")
                .replace("    # ntp:", "    ntp:")
                .replace("    # lease_time:", "    lease_time:")
                .replace("    # loader:", "    loader:")
                .replace("    # on_failure:", "    on_failure:")
                .replace("# server: {", "server: {")
        })
        .collect();
    let (inventory, _) =
        parse("hosts.yaml", &uncommented.join("\n")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(inventory.hosts.len(), 15);
    assert_eq!(inventory.hosts["kvm15"].ip.to_string(), "10.77.0.25");
    assert_eq!(inventory.hosts["kvm15"].unit, Some(18));
    assert_eq!(
        *inventory.hosts["kvm03"].profile.on_failure,
        OnFailure::Shell
    );
}

#[test]
fn provenance_names_file_line_and_layer() {
    let (name, text) = text_of(&root().join("tests/inventories/valid/inheritance.yaml"));
    let (inventory, _) = parse(&name, &text).unwrap_or_else(|faults| panic!("{faults}"));
    let profile = &inventory.hosts["kvm02"].profile;
    let kernel = profile.kernel.origin.as_ref().unwrap();
    assert_eq!(&*kernel.layer, "host kvm02");
    let line = text.lines().nth(kernel.line - 1).unwrap();
    let from_column: String = line.chars().skip(kernel.column - 1).collect();
    assert!(from_column.starts_with("testing"), "{from_column}");
    let layers: Vec<_> = profile
        .cmdline
        .iter()
        .map(|argument| argument.origin.as_ref().unwrap().layer.to_string())
        .collect();
    assert_eq!(
        layers,
        ["profile base", "profile base", "profile kvm", "host kvm02"]
    );
    assert_eq!(profile.loader.origin, None);
    let RootSource::External { version, .. } = &profile.root.source else {
        panic!("{:?}", profile.root);
    };
    assert_eq!(*version, NfsVersion::V3);
}

#[test]
fn hosts_without_settings_of_their_own_share_their_profile() {
    let Loaded { inventory, .. } = load(&root().join("hosts.yaml")).unwrap();
    let shared = &inventory.profiles["kvm-host"];
    for host in inventory.hosts.values() {
        assert!(std::sync::Arc::ptr_eq(&host.profile, shared));
        assert!(std::sync::Arc::ptr_eq(
            &host.network,
            &inventory.networks["boot"]
        ));
        for mac in &host.macs {
            assert!(std::sync::Arc::ptr_eq(&inventory.by_mac[&mac.value], host));
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let faults = load(Path::new("/nonexistent/hosts.yaml")).unwrap_err();
    let text = faults.to_string();
    assert!(text.contains("/nonexistent/hosts.yaml"), "{text}");
    assert_eq!(faults.errors(), 1);
}

#[test]
fn bytes_that_are_not_utf8_have_a_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts.yaml");
    std::fs::write(&path, b"site: lab\nnetworks: \xff\n").unwrap();
    let faults = load(&path).unwrap_err();
    let place = faults.iter().next().unwrap().place().unwrap();
    assert_eq!((place.line, place.column), (2, 11));
    assert!(faults.to_text(false).contains("networks:"));
}

#[test]
fn json_has_a_schema_and_every_label() {
    let faults = parse(
        "hosts.yaml",
        "networks: {boot: {subnet: 10.0.0.0/24, dncp: off}}\n",
    )
    .unwrap_err();
    let json = serde_json::to_value(faults.report()).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["errors"], 1);
    let first = &json["diagnostics"][0];
    assert_eq!(first["code"], "inventory::unknown_key");
    assert_eq!(first["severity"], "error");
    assert_eq!(first["labels"][0]["line"], 1);
    assert_eq!(first["labels"][0]["column"], 40);
    assert_eq!(first["labels"][0]["length"], 4);
    assert_eq!(first["help"], "did you mean `dhcp`?");
    assert_eq!(json["warnings"], 0);
}

#[test]
fn colour_only_if_asked() {
    let faults = parse("hosts.yaml", "networks: 1\n").unwrap_err();
    assert!(!faults.to_text(false).contains('\u{1b}'));
    assert!(faults.to_text(true).contains('\u{1b}'));
}
