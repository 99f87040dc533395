//! The inventory as an operator meets it: good files load, bad ones say what is wrong.
//!
//! Each file of `tests/inventories/invalid` has one snapshot of what is printed for it.
//! After a change of words look at the new ones: `INSTA_UPDATE=always cargo test --test integration inventory::`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::path::{Path, PathBuf};

use bridgehead::diagnostic::{Severity, render};
use bridgehead::inventory::model::{
    Boots, Inventory, Loader, Menu, NfsVersion, OnFailure, PoolKind, RootSource, Unknown,
    UnknownPolicy,
};
use bridgehead::inventory::{Loaded, artefacts, load, parse};
use proptest::prelude::*;

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

#[test]
fn several_files_are_one_inventory() {
    for path in files("several") {
        let shown = match load(&path.join("hosts.yaml")) {
            Ok(loaded) => format!("{:#?}\n{}", loaded.warnings, describe(&loaded.inventory)),
            Err(faults) => faults.to_string(),
        };
        let shown = shown.replace(&format!("{}/", path.display()), "");
        assert!(!shown.contains("hunter2"), "{shown}");
        let name = format!("several-{}", stem(&path));
        settings().bind(|| insta::assert_snapshot!(name, shown));
    }
}

#[test]
fn every_file_and_directory_that_was_looked_at_is_told() {
    let good = root().join("tests/inventories/several/good");
    let seen = load(&good.join("hosts.yaml")).unwrap().seen;
    let mut paths: Vec<_> = seen
        .iter()
        .map(|seen| seen.path.strip_prefix(&good).unwrap())
        .collect();
    paths.sort();
    let wanted = [
        "hosts.d",
        "hosts.d/empty.yaml",
        "hosts.d/r1.yaml",
        "hosts.d/r2/more.yaml",
        "hosts.d/r2.yaml",
        "hosts.yaml",
        "profiles.yaml",
    ];
    assert_eq!(paths, wanted.map(Path::new));
}

/// What people are told is what is served.
#[test]
fn values_and_their_places_are_those_of_the_typed_settings() {
    for path in files("valid") {
        let (name, text) = text_of(&path);
        let (inventory, _) = parse(&name, &text).unwrap();
        for host in inventory.hosts.values() {
            let values = inventory.values_of(host);
            let of = |key: &str| {
                let mut of_key = values.iter().filter(|value| value.key == key);
                let first = of_key.next();
                assert!(of_key.next().is_none(), "{key} of {} twice", host.name);
                first.map(|value| (value.value.clone(), value.origin.clone()))
            };
            let profile = &host.profile;
            let kernel = (profile.kernel.value.clone(), profile.kernel.origin.clone());
            assert_eq!(of("kernel"), Some(kernel));
            let initrd = (profile.initrd.value.clone(), profile.initrd.origin.clone());
            assert_eq!(of("initrd"), Some(initrd));
            let origin = |key| of(key).and_then(|(_, origin)| origin);
            assert_eq!(origin("loader"), profile.loader.origin);
            assert_eq!(origin("on_failure"), profile.on_failure.origin);
            assert_eq!(origin("root.nfs"), profile.root.origin);
            let version = of("root.version").is_some();
            let external = matches!(profile.root.source, RootSource::External { .. });
            assert!(
                external || !version,
                "{} has the version of another root",
                host.name
            );
            assert_eq!(of("bridge.name").unwrap().0, profile.bridge.name);
            let pool = profile.image_pool.is_some();
            let told = of("image_pool").is_some_and(|(text, _)| text != "none");
            assert_eq!(told, pool, "{}", host.name);
            let arguments = values.iter().filter(|value| value.key == "cmdline");
            let arguments: Vec<_> = arguments
                .map(|at| (&at.value, at.origin.as_ref()))
                .collect();
            let typed = profile.cmdline.iter();
            let typed: Vec<_> = typed.map(|at| (&at.value, at.origin.as_ref())).collect();
            assert_eq!(arguments, typed);
            assert_eq!(of("ip").unwrap().0, host.ip.to_string());
            assert_eq!(of("rack").map(|(rack, _)| rack), host.rack);
            let unit = of("unit").map(|(unit, _)| unit.parse().unwrap());
            assert_eq!(unit, host.unit);
        }
    }
}

#[test]
fn what_a_nearer_layer_says_supersedes_the_farther() {
    let (name, text) = text_of(&root().join("tests/inventories/valid/inheritance.yaml"));
    let (inventory, _) = parse(&name, &text).unwrap();
    let values = inventory.values_of(&inventory.hosts["kvm02"]);
    let lines = values.iter().map(|value| {
        let place = |origin: &bridgehead::inventory::model::Origin| {
            format!("{}:{} {}", origin.line, origin.column, origin.layer)
        };
        let superseded = value.superseded.iter();
        let superseded: String = superseded
            .map(|old| format!("\n  not {} {} {}", old.key, old.value, place(&old.origin)))
            .collect();
        let origin = value.origin.as_ref().map_or("default".into(), place);
        format!("{} {} {origin}{superseded}", value.key, value.value)
    });
    let lines: Vec<_> = lines.collect();
    settings().bind(|| insta::assert_snapshot!("values-of-a-host", lines.join("\n")));
    let (name, text) = text_of(&root().join("tests/inventories/valid/menus.yaml"));
    let (inventory, _) = parse(&name, &text).unwrap();
    let values = inventory.values_of(&inventory.hosts["kvm04"]);
    let menu = values.iter().find(|value| value.key == "menu").unwrap();
    assert_eq!(menu.value, "none");
    assert!(menu.superseded.iter().any(|old| old.key == "menu.timeout"));
    let hash = values.iter().flat_map(|value| &value.superseded);
    let hash: Vec<_> = hash.filter(|old| old.value.contains("hash")).collect();
    assert!(hash.is_empty(), "{hash:?}");
}

/// Hosts with what they boot, one per line.
fn describe(inventory: &Inventory) -> String {
    let mut lines: Vec<String> = Vec::new();
    for network in inventory.networks.values() {
        lines.push(format!("{network:?}"));
    }
    if inventory.unknown != Unknown::default() {
        lines.push(format!("{:?}", inventory.unknown));
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
        let interfaces = profile.interfaces.iter();
        lines.extend(interfaces.map(|interface| format!("  {interface:?}")));
        let serial = host.serial.iter();
        lines.extend(serial.map(|serial| format!("  serial {}", **serial)));
        let plug = host.plug.iter();
        lines.extend(plug.map(|plug| format!("  {} of {}", *plug.port, *plug.switch)));
        let loaders = host.loaders.iter();
        lines.extend(loaders.map(|(firmware, file)| format!("  {firmware}: {}", file.value)));
        lines.extend(profile.menu.as_ref().map(menu));
        if host.home.address.addr() != host.ip.value {
            let network = &host.home.network.name;
            lines.push(format!("  lives at {} on {network}", host.home.address));
        }
    }
    lines.join("\n")
}

/// A menu with what its entries boot.
fn menu(menu: &Menu) -> String {
    let mut text = format!(
        "  menu {:?}, {} in {:?}, serial {}",
        menu.title, menu.default, menu.timeout, menu.serial
    );
    for entry in &menu.entries {
        let boots = match &entry.boots {
            Boots::LocalDisk => "local disk".to_owned(),
            Boots::Kernel { kernel, cmdline } => {
                format!("kernel {} alone, {} arguments", **kernel, cmdline.len())
            }
            Boots::Profile(profile) => {
                assert_eq!(profile.menu, None, "menus do not nest");
                let cmdline = profile.cmdline.iter().map(|at| at.value.as_str());
                format!(
                    "{} {} {} {:?} {:?} rescue {} {:?}",
                    profile.name,
                    *profile.kernel,
                    *profile.initrd,
                    profile.root.source,
                    *profile.on_failure,
                    profile.rescue.is_some(),
                    cmdline.collect::<Vec<_>>()
                )
            }
        };
        text += &format!("\n    {} {:?}: {boots}", entry.name, entry.label);
    }
    text
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
                .replace("    # loaders:", "    loaders:")
                .replace("    # search:", "    search:")
                .replace("    # routes:", "    routes:")
                .replace("    # options:", "    options:")
                .replace("    # authoritative:", "    authoritative:")
                .replace("    # reply_delay:", "    reply_delay:")
                .replace("    # ipxe_ipv6:", "    ipxe_ipv6:")
                .replace("    # unknown:", "    unknown:")
                .replace("  # virtual:", "  virtual:")
                .replace("    # loader:", "    loader:")
                .replace("    # on_failure:", "    on_failure:")
                .replace("    # files: [", "    files: [")
                .replace("# secrets: ", "secrets: ")
                .replace("# server: {", "server: {")
        })
        .collect();
    let (inventory, _) =
        parse("hosts.yaml", &uncommented.join("\n")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(inventory.hosts.len(), 31);
    let plug = inventory.hosts["kvm32"].plug.as_ref().unwrap();
    assert_eq!((&**plug.switch, &**plug.port), ("sw2", "Gi1/0/8"));
    let unknown = &inventory.networks["boot"].unknown;
    assert!(unknown.policy == UnknownPolicy::NextFree && unknown.allows_virtual);
    assert_eq!(inventory.hosts["kvm15"].ip.to_string(), "10.77.0.25");
    assert_eq!(inventory.hosts["kvm15"].unit, Some(18));
    let files = &inventory.hosts["kvm15"].profile.files;
    let trees: Vec<_> = files.iter().map(|tree| tree.value.as_str()).collect();
    assert_eq!(trees, ["base", "sysctl"]);
    let secrets = inventory.secrets.as_ref().unwrap();
    assert_eq!(secrets.value, Path::new("secrets.yaml"));
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
    let nics: Vec<_> = profile.pci.iter().map(|id| id.to_string()).collect();
    assert_eq!(nics, ["8086:1572", "14e4:16d8"]);
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

/// A data directory with these files, each with its text.
fn data_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = data.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    data
}

const COMPLETE: [(&str, &str); 7] = [
    ("kernels/debian/vmlinuz", ""),
    ("kernels/debian/release", "6.1.0-40-amd64\n"),
    ("initrds/default.img", ""),
    (
        "initrds/default.manifest",
        r#"{"schema": 1, "kernel_release": "6.1.0-40-amd64"}"#,
    ),
    ("loaders/undionly.kpxe", ""),
    ("loaders/snponly.efi", ""),
    ("roots/kvm-host/etc/os-release", ""),
];

#[test]
fn a_complete_data_directory_is_silent() {
    let Loaded {
        inventory, sources, ..
    } = load(&root().join("hosts.yaml")).unwrap();
    let data = data_with(&COMPLETE);
    assert_eq!(artefacts::check(&inventory, data.path(), &sources), []);
}

#[test]
fn what_is_missing_is_named_with_the_verb_that_builds_it() {
    // A file of its own: the lines of the repository's example move with every new key.
    let text = "\
site: lab
networks: {boot: {subnet: 10.77.0.0/24}}
profiles:
  kvm-host:
    kernel: debian
    initrd: default
    bridge: {name: br0}
    root: {nfs: /roots/kvm-host}
    image_pool: none
hosts: {kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm-host}}
";
    let directory = data_with(&[("hosts.yaml", text)]);
    let loaded = load(&directory.path().join("hosts.yaml")).unwrap();
    let data = data_with(&[("initrds/defualt.img", ""), ("kernels/debian/release", "x")]);
    let found = artefacts::check(&loaded.inventory, data.path(), &loaded.sources);
    let shown = render(&found, &loaded.sources, false)
        .replace(&data.path().display().to_string(), "DATA")
        .replace(&directory.path().display().to_string(), "DIR");
    settings().bind(|| insta::assert_snapshot!("artefacts-missing", shown));
}

#[test]
fn a_data_directory_that_is_not_there_is_one_fault() {
    let directory = tempfile::tempdir().unwrap();
    let Loaded {
        inventory, sources, ..
    } = load(&root().join("hosts.yaml")).unwrap();
    for (data, words) in [
        (directory.path().to_owned(), "is no data directory"),
        (directory.path().join("nowhere"), "is not there"),
    ] {
        let found = artefacts::check(&inventory, &data, &sources);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].code, "artefacts::no_data");
        assert!(found[0].message.contains(words), "{found:?}");
        let help = found[0].help.as_deref().unwrap_or_default();
        assert!(help.contains("--data build"), "{found:?}");
    }
}

#[test]
fn an_initrd_for_another_kernel_is_an_error() {
    let Loaded {
        inventory, sources, ..
    } = load(&root().join("hosts.yaml")).unwrap();
    let mut files = COMPLETE;
    files[1].1 = "6.1.0-41-amd64\n";
    let data = data_with(&files);
    let found = artefacts::check(&inventory, data.path(), &sources);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, "artefacts::release_mismatch");
    assert_eq!(found[0].severity, Severity::Error);
    assert_eq!(found[0].labels.len(), 2);
}

#[test]
fn a_root_with_modules_of_another_kernel_is_warned_of() {
    let inventory = load(&root().join("hosts.yaml")).unwrap().inventory;
    let mut files = COMPLETE.to_vec();
    files.push((
        "roots/kvm-host/usr/lib/modules/6.1.0-39-amd64/modules.dep",
        "",
    ));
    let data = data_with(&files);
    let found = artefacts::check(&inventory, data.path(), &Default::default());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, "artefacts::root_without_modules");
    assert!(found[0].message.contains("6.1.0-40-amd64"), "{found:?}");
    std::fs::create_dir(
        data.path()
            .join("roots/kvm-host/usr/lib/modules/6.1.0-40-amd64"),
    )
    .unwrap();
    assert_eq!(
        artefacts::check(&inventory, data.path(), &Default::default()),
        []
    );
}

#[test]
fn each_loader_has_its_own_files() {
    for (loader, missing) in [
        ("ipxe", &["snponly.efi", "undionly.kpxe"][..]),
        ("pxelinux", &["ldlinux.c32", "pxelinux.0", "snponly.efi"]),
        ("grub", &["grub-bios.pxe", "grubx64.efi", "shimx64.efi"]),
    ] {
        let text = std::fs::read_to_string(root().join("hosts.yaml")).unwrap();
        let text = text.replace("# loader: ipxe ", &format!("loader: {loader} "));
        let (inventory, _) = parse("hosts.yaml", &text).unwrap();
        let complete = COMPLETE
            .iter()
            .filter(|(name, _)| !name.starts_with("loaders"));
        let data = data_with(&complete.copied().collect::<Vec<_>>());
        let found = artefacts::check(&inventory, data.path(), &Default::default());
        let named: Vec<_> = found
            .iter()
            .map(|diagnostic| diagnostic.message.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(named, missing, "{loader}");
    }
}

#[test]
fn a_loader_that_a_network_or_host_names_must_be_there() {
    let text = std::fs::read_to_string(root().join("hosts.yaml")).unwrap();
    let text = text.replace(
        "    dhcp: server",
        "    loaders: {uefi-x64: snponly.elf}\n    dhcp: server",
    );
    let (inventory, _) = parse("hosts.yaml", &text).unwrap();
    let found = artefacts::check(&inventory, data_with(&COMPLETE).path(), &Default::default());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].message.contains("snponly.elf for UEFI x64"),
        "{found:?}"
    );
    let help = found[0].help.as_deref().unwrap_or_default();
    assert!(help.contains("did you mean `snponly.efi`?"), "{help}");
    let text = text.replace("snponly.elf", "snponly.efi");
    let (inventory, _) = parse("hosts.yaml", &text).unwrap();
    let found = artefacts::check(&inventory, data_with(&COMPLETE).path(), &Default::default());
    assert_eq!(found, []);
}

#[test]
fn a_profile_that_no_host_boots_only_warns() {
    let text = std::fs::read_to_string(root().join("hosts.yaml")).unwrap();
    let text = text.replace(
        "\nhosts:",
        "\n  lab:\n    extends: kvm-host\n    kernel: edge\n\nhosts:",
    );
    let (inventory, _) = parse("hosts.yaml", &text).unwrap();
    let data = data_with(&COMPLETE);
    let found = artefacts::check(&inventory, data.path(), &Default::default());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].labels[0].column, 13);
}

#[test]
fn faults_beyond_the_limit_are_counted_and_not_kept() {
    let entries: String = (0..5000).map(|n| format!("key{n}: x\n")).collect();
    let faults = parse("hosts.yaml", &entries).unwrap_err();
    assert_eq!(faults.errors(), 5001);
    assert_eq!(faults.iter().count(), 200);
    assert_eq!(faults.omitted(), 4801);
    assert!(faults.summary().contains("4801"), "{}", faults.summary());
}

fn many_hosts(count: u32) -> String {
    let mut text = String::from(
        "networks: {boot: {subnet: 10.0.0.0/8, pool: 10.255.0.0-10.255.255.0}}\n\
         profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}\nhosts:\n",
    );
    for n in 0..count {
        let [_, b, c, d] = (n + 256).to_be_bytes();
        text += &format!(
            "  kvm{n:05}: {{mac: \"52:54:00:{b:02x}:{c:02x}:{d:02x}\", ip: 10.{b}.{c}.{d}, profile: kvm, rack: r{}, unit: {}}}\n",
            n / 40,
            n % 40 + 1
        );
    }
    text
}

#[test]
fn ten_thousand_hosts_load() {
    let (inventory, warnings) = parse("hosts.yaml", &many_hosts(10_000)).unwrap();
    assert_eq!(inventory.hosts.len(), 10_000);
    assert_eq!(inventory.by_mac.len(), 10_000);
    assert_eq!(warnings, []);
}

#[test]
fn a_million_values_are_refused() {
    let text = format!("networks: [{}]", "a,".repeat(1_100_000));
    let faults = parse("hosts.yaml", &text).unwrap_err();
    assert_eq!(faults.iter().next().unwrap().code, "inventory::syntax");
}

#[test]
fn long_lists_of_profiles_stay_cheap() {
    let mut text = String::from("networks: {a: {subnet: 10.0.0.0/8}}\nprofiles:\n  p0: {}\n");
    for n in 1..20_000 {
        text += &format!("  p{n}: {{extends: p{}}}\n", n - 1);
    }
    let faults = parse("hosts.yaml", &text).unwrap_err();
    assert!(
        faults
            .iter()
            .all(|fault| fault.code == "inventory::long_chain")
    );
}

fn check_never_panics(text: &str) {
    if let Err(faults) = parse("hosts.yaml", text) {
        assert!(faults.errors() > 0);
        let shown = faults.to_text(true);
        assert!(!shown.is_empty());
        serde_json::to_string(&faults.report()).unwrap();
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        check_never_panics(&text);
    }

    #[test]
    fn yaml_soup_is_answered(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "networks:", "hosts:", "profiles:", "unknown:", " ", "  ", "\n", "\r", "\t", "- ", "? ", ": ",
            "{", "}", "[", "]", ",", "\"", "'", "&a ", "*a", "<<: ", "!!str ", "|\n", ">\n", "#", "---\n",
            "...", "%YAML", "kvm[1-3]:", "mac:", "ip:", "subnet: 10.0.0.0/8", "10.0.0.1", "~", "null",
            "é", "\u{feff}", "\u{85}", "\u{2028}", "extends: a", "a: ", "root: {nfs: ", "/roots/a",
        ]), 0..60)
    ) {
        check_never_panics(&tokens.concat());
    }

    #[test]
    fn a_damaged_inventory_is_answered(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), ".{0,3}"), 1..6)
    ) {
        let path = root().join("tests/inventories/valid/inheritance.yaml");
        let mut text: Vec<char> = std::fs::read_to_string(path).unwrap().chars().collect();
        for (from, length, replacement) in edits {
            let start = from.index(text.len());
            let end = (start + length.index(20)).min(text.len());
            text.splice(start..end, replacement.chars());
        }
        check_never_panics(&text.into_iter().collect::<String>());
    }
}
