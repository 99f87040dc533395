//! What `make install` puts where, and the unit as systemd reads it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const BRIDGEHEAD: &str = env!("CARGO_BIN_EXE_bridgehead");
const UNIT: &str = include_str!("../packaging/bridgehead.service");

/// `systemd-analyze security`'s measure times ten: 96 for a service that is not confined at all.
const MOST_EXPOSED: u32 = 45;

fn run(command: &mut Command) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it starts");
    let said = [stdout, stderr].concat();
    (
        status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn make(verb: &str, to: &Path) -> String {
    let (program, to) = (format!("bridgehead={BRIDGEHEAD}"), to.display());
    let mut command = Command::new("make");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["-s", verb, &program, "PREFIX=/opt/bh"]);
    let (done, said) = run(command.arg(format!("DESTDIR={to}")));
    assert!(done, "{said}");
    said
}

#[test]
fn what_is_installed_is_whole_and_goes_again_and_an_inventory_stays() {
    let to = tempfile::tempdir().expect("a directory");
    let at = |path: &str| to.path().join(path);
    let read = |path: &str| fs::read_to_string(at(path)).unwrap_or_else(|_| panic!("{path}"));
    make("install", to.path());
    let unit = read("opt/bh/lib/systemd/system/bridgehead.service");
    assert!(unit.contains("\nExecStart=/opt/bh/bin/bridgehead serve "));
    assert!(!unit.contains("/usr/local/bin"), "{unit}");
    let (runs, version) = run(Command::new(at("opt/bh/bin/bridgehead")).arg("--version"));
    assert!(runs, "{version}");
    for (file, word) in [
        ("man/man1/bridgehead.1", "bridgehead"),
        ("man/man1/bridgehead-hosts-set.1", "set"),
        ("bash-completion/completions/bridgehead", "_bridgehead"),
        ("zsh/site-functions/_bridgehead", "#compdef bridgehead"),
        ("fish/vendor_completions.d/bridgehead.fish", "complete -c"),
    ] {
        let text = read(&format!("opt/bh/share/{file}"));
        assert!(text.contains(word), "{file}: {text}");
    }
    let completions = at("opt/bh/share/bash-completion/completions/bridgehead");
    let (sound, said) = run(Command::new("bash").arg("-n").arg(completions));
    assert!(sound, "{said}");

    // The operator's own by now.
    let inventory = at("etc/bridgehead/hosts.yaml");
    fs::write(&inventory, "site: mine\n").expect("written");
    let said = make("install", to.path());
    assert!(said.contains("stays as it is"), "{said}");
    make("uninstall", to.path());
    assert_eq!(read("etc/bridgehead/hosts.yaml"), "site: mine\n");
    let left = walkdir::WalkDir::new(at("opt")).into_iter().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_type().is_file()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn systemd_takes_the_unit_and_finds_it_confined() {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("bridgehead.service");
    let here = UNIT.replace("/usr/local/bin/bridgehead", BRIDGEHEAD);
    fs::write(&unit, here).expect("written");
    let analyze = |words: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        run(command.args(words).arg(&unit))
    };
    let (taken, said) = analyze(&["verify", "--man=no"]);
    assert!(taken && !said.contains("bridgehead.service"), "{said}");
    let threshold = format!("--threshold={MOST_EXPOSED}");
    let (confined, said) = analyze(&["security", "--no-pager", "--offline=true", &threshold]);
    assert!(confined, "{said}");
}

#[test]
fn the_unit_leaves_the_daemon_what_it_needs() {
    let says = |line: &str| UNIT.lines().any(|found| found == line);
    for line in [
        "Type=notify",
        // A reload checks what is served.
        "ExecStart=/usr/local/bin/bridgehead serve $BRIDGEHEAD_FILES",
        "ExecReload=/usr/local/bin/bridgehead check $BRIDGEHEAD_FILES",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "StateDirectory=bridgehead",
        "ReadWritePaths=-/etc/bridgehead",
        "RestrictNamespaces=net",
    ] {
        assert!(says(line), "{line}");
    }
    // The one takes openat2(2) away, the other kills the child in the middle of an edit.
    for word in ["RestrictSUIDSGID=", "KillMode="] {
        assert!(!UNIT.lines().any(|line| line.starts_with(word)), "{word}");
    }
}
