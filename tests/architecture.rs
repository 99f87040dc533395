//! The invariants of the house that can be read off its source.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(room: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the room is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no source in src/{room}");
    found
}

/// The text before the unit tests, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("readable source");
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn policy_and_wire_touch_nothing() {
    let forbidden = [
        "tokio",
        "std::fs",
        "std::net::UdpSocket",
        "std::net::Tcp",
        "::now()",
        "std::env",
        "std::process",
        "std::thread",
        "rand::",
        "tracing",
    ];
    for path in ["policy", "wire"].into_iter().flat_map(sources) {
        let code = code(&path);
        for word in forbidden {
            assert!(!code.contains(word), "{} has `{word}`", path.display());
        }
    }
}

#[test]
fn servers_do_not_know_each_other() {
    for (room, others) in [
        ("dhcp", ["crate::tftp", "crate::http", "crate::nfs"]),
        ("tftp", ["crate::dhcp", "crate::http", "crate::nfs"]),
        ("nfs", ["crate::dhcp", "crate::http", "crate::tftp"]),
    ] {
        for path in sources(room) {
            let code = code(&path);
            for other in others {
                assert!(!code.contains(other), "{} uses {other}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_stays_where_the_kernel_is_met() {
    let allowed = [
        "src/assets/sealed.rs",
        "src/dhcp/packet.rs",
        "src/dhcp/socket.rs",
    ];
    for path in [
        "policy",
        "wire",
        "inventory",
        "render",
        "assets",
        "leases",
        "timeline",
        "metrics",
        "site",
        "http",
        "cli",
        "daemon",
        "nfs",
        "tftp",
        "initrd",
        "dhcp",
        "explain",
        "scribe",
    ]
    .into_iter()
    .flat_map(sources)
    {
        if code(&path).contains("unsafe ") {
            assert!(
                allowed.iter().any(|end| path.ends_with(end)),
                "{} has unsafe code",
                path.display()
            );
        }
    }
}

/// Cargo finds no test by itself here (`autotests`), and a forgotten one would never fail.
#[test]
fn every_test_is_run() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(top.join(path)).expect("readable source");
    let (manifest, main) = (read("Cargo.toml"), read("tests/main.rs"));
    for entry in fs::read_dir(top.join("tests")).expect("tests are there") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_test = path.is_file() && name != "main" || path.join("main.rs").exists();
        let runs = manifest.contains(&format!("[[test]]\nname = \"{name}\""))
            || main.contains(&format!("mod {name};"));
        assert!(runs || !is_test, "{} is in no program", path.display());
    }
}
