use std::fs;
use std::path::PathBuf;

use super::*;
use crate::inventory::load;

const TEXT: &str = "\
# The site.
networks: {boot: {subnet: 10.77.0.0/24}}
profiles:
  kvm: # what all boot
    kernel: debian
    initrd: default
    root: {nfs: /roots/kvm}

hosts:   # rack by rack
  # the first
  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm, rack: r1, unit: 4}   # west
  kvm02:
    mac: \"52:54:00:00:00:02\"   # the left port
    ip: 10.77.0.12
    # its disk died
    profile: kvm
    bridge:
      mtu: 9000 # jumbo
  n[1-3]: {mac: \"52:54:00:00:01:01\", ip: 10.77.0.21, profile: kvm, root: {overlay: 2G},}
# the end
unknown: {policy: hold}
";

struct Scene {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Scene {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts.yaml");
        fs::write(&path, text).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    fn edit(&self, verb: Verb, host: &str, values: &[&str]) -> Result<Edited, EditError> {
        let values: Vec<Assignment> = values.iter().map(|text| text.parse().unwrap()).collect();
        edit(&self.path, verb, host, &values, false)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }
}

/// The lines that an edit takes out and puts in.
fn lines(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let only = |a: &str, b: &str| {
        let mut others: Vec<_> = b.lines().collect();
        // Each line of one stands for one of the other.
        let lines = a.lines().filter(|line| {
            let same = others.iter().position(|other| other == line);
            same.map(|index| others.swap_remove(index)).is_none()
        });
        lines.map(str::to_owned).collect()
    };
    (only(before, after), only(after, before))
}

fn set(host: &str, values: &[&str]) -> (Vec<String>, Vec<String>) {
    let scene = Scene::new(TEXT);
    let edited = scene.edit(Verb::Set, host, values);
    edited.unwrap_or_else(|error| panic!("{values:?}: {error}"));
    lines(TEXT, &scene.text())
}

#[test]
fn a_value_in_braces_is_replaced_in_its_place() {
    let (gone, new) = set("kvm01", &["rack=r2", "ip=10.77.0.99", "unit="]);
    assert_eq!(gone.len(), 1);
    assert_eq!(
        new,
        ["  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.99, profile: kvm, rack: r2}   # west"]
    );
}

#[test]
fn a_key_is_added_where_it_belongs() {
    let (_, new) = set("kvm01", &["root.overlay=4G", "cmdline=[quiet, \"x=1,2\"]"]);
    assert!(
        new[0].ends_with("unit: 4, root: {overlay: 4G}, cmdline: [quiet, \"x=1,2\"]}   # west"),
        "{new:?}"
    );
    let (gone, new) = set("kvm02", &["bridge.name=br1", "kernel=edge"]);
    assert_eq!(
        (gone.len(), new),
        (0, vec!["      name: br1".into(), "    kernel: edge".into()])
    );
    let (_, new) = set("n[1-3]", &["rack=r[1-3]", "root.overlay=3G"]);
    assert!(
        new[0].ends_with("root: {overlay: 3G}, rack: \"r[1-3]\",}"),
        "{new:?}"
    );
}

#[test]
fn a_line_of_its_own_is_taken_out_whole() {
    let (gone, new) = set("kvm02", &["mac=", "macs=[\"52:54:00:00:00:02\"]"]);
    assert_eq!(gone, ["    mac: \"52:54:00:00:00:02\"   # the left port"]);
    assert_eq!(new, ["    macs: [\"52:54:00:00:00:02\"]"]);
}

/// In braces over several lines a comment may be about another key than the one that goes.
#[test]
fn no_comment_goes_with_a_key() {
    let host = "{\n    mac: \"52:54:00:00:00:09\", ip: 10.77.0.19, profile: kvm,\n    \
                unit: 4,  # moved 2024\n    rack: r1\n  }";
    let listed = host.replace("unit: 4", "cmdline: [a, # why\n      b]");
    for (host, value, gone) in [
        (host, "rack=", None),
        (&*listed, "cmdline=", None),
        (host, "unit=", Some(",\n    unit: 4")),
    ] {
        let text = TEXT.replace("# the end", &format!("  kvm09: {host}\n# the end"));
        let scene = Scene::new(&text);
        let result = scene.edit(Verb::Set, "kvm09", &[value]);
        let refused = matches!(result, Err(EditError::TooHard { .. }));
        assert_eq!(refused, gone.is_none(), "{value}: {result:?}");
        assert_eq!(scene.text(), text.replace(gone.unwrap_or("\0"), ""));
    }
}

#[test]
fn a_file_with_crlf_keeps_it_and_a_rewriting_that_means_the_same_is_told_as_one() {
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let base = TEXT.split("hosts:").next().unwrap();
    let (new, whole) = (
        ["mac=52:54:00:00:00:07", "ip=10.77.0.17", "profile=kvm"],
        crlf(TEXT),
    );
    for (text, verb, host, values) in [
        (&whole, Verb::Set, "kvm02", &["rack=r1"][..]),
        (&whole, Verb::Add, "kvm07", &new),
        (&crlf(base), Verb::Add, "kvm07", &new),
        (&crlf(&format!("{base}hosts:\n")), Verb::Add, "kvm07", &new),
    ] {
        let scene = Scene::new(text);
        scene.edit(verb, host, values).unwrap();
        let text = scene.text();
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    }
    let scene = Scene::new(TEXT);
    let same = ["mac=", "macs=[\"52:54:00:00:00:02\"]"];
    let edited = scene.edit(Verb::Set, "kvm02", &same).unwrap();
    assert!(edited.rewritten && edited.changes.is_empty());
    let again = scene.edit(Verb::Set, "kvm02", &same[1..]).unwrap();
    assert!(!again.rewritten);
}

#[test]
fn texts_are_quoted_where_another_reader_would_not_take_them_for_texts() {
    let written = |value| splice::written(value).map(|written| written.text);
    for (value, text) in [
        ("debian", "debian"),
        ("4", "4"),
        ("true", "true"),
        ("10.77.0.5", "10.77.0.5"),
        ("10.77.0.0/24", "10.77.0.0/24"),
        ("/roots/kvm", "/roots/kvm"),
        ("52:54:00:00:00:01", "\"52:54:00:00:00:01\""),
        ("10.77.0.5@tcp:/images", "\"10.77.0.5@tcp:/images\""),
        ("a # b", "\"a # b\""),
        ("a, b", "\"a, b\""),
        ("r[1-2]", "\"r[1-2]\""),
        ("0123", "\"0123\""),
        ("- a", "\"- a\""),
        ("a}", "\"a}\""),
        ("[a, b]", "[a, b]"),
        ("{a: b}", "{a: b}"),
        ("\"x\"", "\"x\""),
    ] {
        assert_eq!(written(value).as_deref(), Some(text), "{value}");
    }
    for value in ["[a", "{a: b}}", "\"a", "[a], b: [c]", "'a' b"] {
        assert_eq!(written(value), None, "{value}");
    }
}

#[test]
fn a_host_is_added_behind_the_last() {
    let new = [
        "mac=52:54:00:00:00:07",
        "ip=10.77.0.17",
        "profile=kvm",
        "root.overlay=4G",
    ];
    let line =
        "kvm07: {mac: \"52:54:00:00:00:07\", ip: 10.77.0.17, profile: kvm, root: {overlay: 4G}}";
    let base = TEXT.split("hosts:").next().unwrap();
    for (before, after) in [
        (
            TEXT.to_owned(),
            TEXT.replace("# the end", &format!("  {line}\n# the end")),
        ),
        (base.to_owned(), format!("{base}\nhosts:\n  {line}\n")),
        (format!("{base}hosts:"), format!("{base}hosts:\n  {line}\n")),
        (
            format!("{base}hosts: # none\nsite: x\n"),
            format!("{base}hosts: # none\n  {line}\nsite: x\n"),
        ),
        (
            format!("{base}hosts: {{}}\n"),
            format!("{base}hosts: {{{line}}}\n"),
        ),
    ] {
        let scene = Scene::new(&before);
        let edited = scene.edit(Verb::Add, "kvm07", &new);
        let edited = edited.unwrap_or_else(|error| panic!("{before}: {error}"));
        assert_eq!(scene.text(), after);
        assert_eq!(edited.changes.summary(), "hosts: 1 added");
    }
}

#[test]
fn what_would_have_faults_is_not_written() {
    let scene = Scene::new(TEXT);
    for (verb, host, values, wanted) in [
        (Verb::Set, "kvm01", &["ip=10.77.0.12"][..], "faults"),
        (Verb::Set, "kvm01", &["adress=10.77.0.12"], "faults"),
        (Verb::Set, "kvm03", &["rack=r1"], "did you mean `kvm01`?"),
        (Verb::Set, "n2", &["rack=r1"], "one of n[1-3]"),
        (Verb::Add, "kvm01", &["rack=r1"], "there already"),
        (Verb::Add, "n[1-3]", &["rack=r1"], "there already"),
        (Verb::Add, "kvm07", &["ip=10.77.0.17"], "faults"),
        (Verb::Add, "kvm07: {}, x", &["ip=10.77.0.17"], "by hand"),
        (Verb::Set, "kvm02", &["bridge={mtu: 1500}"], "by hand"),
        (Verb::Set, "kvm02", &["bridge.mtu="], "by hand"),
        (Verb::Set, "kvm01", &["rack=[r1"], "does not end like one"),
    ] {
        let error = scene.edit(verb, host, values).unwrap_err();
        assert!(error.to_string().contains(wanted), "{values:?}: {error}");
        assert_eq!(scene.text(), TEXT);
    }
    let left: Vec<_> = fs::read_dir(scene.path.parent().unwrap())
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn the_edit_is_made_in_the_file_that_has_the_host() {
    let scene = Scene::new(&format!("include: more.yaml\n{TEXT}"));
    let more = scene.path.with_file_name("more.yaml");
    let host = "hosts: {kvm09: {mac: \"52:54:00:00:00:09\", ip: 10.77.0.19, profile: kvm}}";
    fs::write(&more, host).unwrap();
    let link = scene.path.with_file_name("link.yaml");
    fs::rename(&more, &link).unwrap();
    std::os::unix::fs::symlink("link.yaml", &more).unwrap();
    let edited = scene.edit(Verb::Set, "kvm09", &["rack=r1"]).unwrap();
    assert_eq!(edited.file, more);
    assert_eq!(
        fs::read_to_string(&link).unwrap(),
        host.replace("kvm}", "kvm, rack: r1}")
    );
    assert!(more.is_symlink());
}

#[test]
fn mode_stays_and_a_dry_run_writes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new(TEXT);
    fs::set_permissions(&scene.path, fs::Permissions::from_mode(0o640)).unwrap();
    let values = ["rack=r7".parse().unwrap()];
    let edited = edit(&scene.path, Verb::Set, "kvm01", &values, true).unwrap();
    assert_eq!(edited.changes.lines(9), "~ host kvm01 rack: r1 -> r7\n");
    assert_eq!(scene.text(), TEXT);
    edit(&scene.path, Verb::Set, "kvm01", &values, false).unwrap();
    assert!(scene.text().contains("rack: r7"));
    assert_eq!(
        fs::metadata(&scene.path).unwrap().permissions().mode() & 0o777,
        0o640
    );
}

#[test]
fn writers_take_turns_and_none_is_lost() {
    let scene = Scene::new(TEXT);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let scene = &scene;
            scope.spawn(move || {
                let mac = format!("mac=52:54:00:00:07:0{n}");
                let ip = format!("ip=10.77.0.10{n}");
                let host = format!("new{n}");
                scene
                    .edit(Verb::Add, &host, &[&mac, &ip, "profile=kvm"])
                    .unwrap();
            });
        }
    });
    let inventory = load(&scene.path).unwrap().inventory;
    assert_eq!(inventory.hosts.len(), 13);
}

const RANGES: &str = "\
networks: {boot: {subnet: 10.77.0.0/24, unknown: {policy: next-free}}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}
hosts:
  a[1-3]: {ip: 10.77.0.11, profile: kvm}   # new
  b[1-3]: {macs: {b2: \"52:54:00:00:02:02\"}, ip: 10.77.0.21, profile: kvm}
  c[1-3]: {mac: \"52:54:00:00:03:01\", ip: 10.77.0.31, profile: kvm}
  d[1-2]: {macs: [\"52:54:00:00:04:01\", \"52:54:00:00:04:02\"], ip: 10.77.0.41, profile: kvm}
  e[1-3]:
    macs:
      e1: \"52:54:00:00:05:01\"   # the old one
      # between
      e3: \"52:54:00:00:05:03\"
    ip: 10.77.0.51
    profile: kvm
  f[1-2]: {macs: [\"52:54:00:00:06:01\",   # one
                 \"52:54:00:00:06:02\"], ip: 10.77.0.61, profile: kvm}
  g1: {ip: 10.77.0.71, profile: kvm}   # alone
";

#[test]
fn one_host_of_a_range_gets_a_mac_of_its_own() {
    for (host, new) in [
        (
            "a2",
            "  a[1-3]: {ip: 10.77.0.11, profile: kvm, macs: {a2: \"MAC\"}}   # new",
        ),
        (
            "b1",
            "  b[1-3]: {macs: {b2: \"52:54:00:00:02:02\", b1: \"MAC\"}, ip: 10.77.0.21, profile: kvm}",
        ),
        (
            "b2",
            "  b[1-3]: {macs: {b2: \"MAC\"}, ip: 10.77.0.21, profile: kvm}",
        ),
        (
            "c3",
            "  c[1-3]: {mac: \"52:54:00:00:03:01\", ip: 10.77.0.31, profile: kvm, macs: {c3: \"MAC\"}}",
        ),
        (
            "d2",
            "  d[1-2]: {macs: [\"52:54:00:00:04:01\", \"MAC\"], ip: 10.77.0.41, profile: kvm}",
        ),
        ("e2", "      e2: \"MAC\""),
        ("e1", "      e1: \"MAC\"   # the old one"),
        (
            "f2",
            "                 \"MAC\"], ip: 10.77.0.61, profile: kvm}",
        ),
        (
            "g1",
            "  g1: {ip: 10.77.0.71, profile: kvm, mac: \"MAC\"}   # alone",
        ),
    ] {
        let scene = Scene::new(RANGES);
        let edited = scene.edit(Verb::Set, host, &["mac=52:54:00:00:99:99"]);
        let edited = edited.unwrap_or_else(|error| panic!("{host}: {error}"));
        let (gone, written) = lines(RANGES, &scene.text());
        assert!(gone.len() <= 1, "{gone:?}");
        assert_eq!(written, [new.replace("MAC", "52:54:00:00:99:99")]);
        let changes = edited.changes.lines(9);
        assert!(
            changes.starts_with(&format!("~ host {host} mac: ")),
            "{changes}"
        );
        assert_eq!(changes.lines().count(), 1, "{changes}");
        let inventory = load(&scene.path).unwrap().inventory;
        assert_eq!(
            inventory.hosts[host].macs[0].to_string(),
            "52:54:00:00:99:99"
        );
    }
    let scene = Scene::new(RANGES);
    scene.edit(Verb::Set, "a3", &["serial=7XKQ2M3"]).unwrap();
    assert!(
        scene
            .text()
            .contains("profile: kvm, serials: {a3: 7XKQ2M3}}")
    );
    scene.edit(Verb::Set, "b2", &["mac="]).unwrap();
    assert!(
        load(&scene.path).unwrap().inventory.hosts["b2"]
            .macs
            .is_empty()
    );
    for (host, value) in [("a1", "rack=r1"), ("d1", "mac=")] {
        let error = scene.edit(Verb::Set, host, &[value]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("one of a[1-3]") || text.contains("by hand"),
            "{text}"
        );
    }
}

/// Whatever the file looks like, an edit is exactly the one asked for, or none.
#[test]
fn every_valid_inventory_can_be_edited() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inventories/valid");
    let mut edits = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let hosts = super::super::load::parse("x", &text).unwrap().0.hosts;
        for host in hosts.values() {
            let scene = Scene::new(&text);
            let edited = scene.edit(
                Verb::Set,
                &host.key,
                &["rack=\"rack 7\"", "on_failure=hold"],
            );
            edited.unwrap_or_else(|error| panic!("{}: {error}\n{text}", host.key));
            let scene = Scene::new(&text);
            let added = ["mac=52:54:00:99:99:99", "ip=10.0.0.99"];
            let profile = format!("profile={}", host.profile.name);
            let added = [&added[..], &[&profile]].concat();
            // Some lack the network; the text must do all the same.
            match scene.edit(Verb::Add, "added", &added) {
                Ok(_) | Err(EditError::Refused(_)) => edits += 1,
                Err(error) => panic!("{error}\n{text}"),
            }
        }
    }
    assert!(edits > 10);
}

/// Files as people and their editors leave them: what is not asked for stays to the byte.
#[test]
fn files_of_every_kind_stay_as_they_are() {
    const HEAD: &str = "networks: {boot: {subnet: 10.77.0.0/24}}\nprofiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}\n";
    let new = "kvm07: {mac: \"52:54:00:00:00:07\", ip: 10.77.0.17, profile: kvm}";
    let values = ["mac=52:54:00:00:00:07", "ip=10.77.0.17", "profile=kvm"];
    let one = "mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm";
    // The hosts as they stand; with rack r2 set; with one more. Nothing: that is left to a person.
    let cases = [
        (
            "no end of the last line",
            format!("hosts:\n  kvm01: {{{one}}}"),
            Some(format!("hosts:\n  kvm01: {{{one}, rack: r2}}")),
            Some(format!("hosts:\n  kvm01: {{{one}}}\n  {new}\n")),
        ),
        (
            "a comment without an end of its line",
            format!("hosts:\n  kvm01: {{{one}}} # west"),
            Some(format!("hosts:\n  kvm01: {{{one}, rack: r2}} # west")),
            Some(format!("hosts:\n  kvm01: {{{one}}} # west\n  {new}\n")),
        ),
        (
            "the end of the document",
            format!("hosts:\n  kvm01: {{{one}}}\n...\n"),
            Some(format!("hosts:\n  kvm01: {{{one}, rack: r2}}\n...\n")),
            Some(format!("hosts:\n  kvm01: {{{one}}}\n  {new}\n...\n")),
        ),
        (
            "four spaces, tabs between, comments that end it",
            format!("hosts:\t# all\n    kvm01:\t{{{one}}}\t# west\n    # kvm02: {{}}\n\n# end\n"),
            Some(format!(
                "hosts:\t# all\n    kvm01:\t{{{one}, rack: r2}}\t# west\n    # kvm02: {{}}\n\n# end\n"
            )),
            Some(format!(
                "hosts:\t# all\n    kvm01:\t{{{one}}}\t# west\n    {new}\n    # kvm02: {{}}\n\n# end\n"
            )),
        ),
        (
            "braces over several lines",
            format!("hosts: {{\n  kvm01: {{{one}}},   # west\n  # none\n}}\n"),
            Some(format!(
                "hosts: {{\n  kvm01: {{{one}, rack: r2}},   # west\n  # none\n}}\n"
            )),
            Some(format!(
                "hosts: {{\n  kvm01: {{{one}}}, {new},   # west\n  # none\n}}\n"
            )),
        ),
        (
            "a text on several lines",
            format!(
                "hosts:\n  kvm01:\n    {}\n    cmdline: >-\n      x=#none\nsite: x\n",
                one.replace(", ", "\n    ")
            ),
            Some(format!(
                "hosts:\n  kvm01:\n    {}\n    cmdline: >-\n      x=#none\n    rack: r2\nsite: x\n",
                one.replace(", ", "\n    ")
            )),
            Some(format!(
                "hosts:\n  kvm01:\n    {}\n    cmdline: >-\n      x=#none\n  {new}\nsite: x\n",
                one.replace(", ", "\n    ")
            )),
        ),
        (
            "a key in quotes, and one as a question",
            format!("hosts:\n  \"kvm01\": {{{one}}}\n"),
            Some(format!("hosts:\n  \"kvm01\": {{{one}, rack: r2}}\n")),
            Some(format!("hosts:\n  \"kvm01\": {{{one}}}\n  {new}\n")),
        ),
        (
            "a host on the line of its key",
            format!("hosts:\n  ? kvm01\n  : {{{one}}}\n"),
            Some(format!("hosts:\n  ? kvm01\n  : {{{one}, rack: r2}}\n")),
            None,
        ),
    ];
    for mark in ["", "\u{feff}"] {
        for (what, hosts, set, added) in &cases {
            let text = format!("{mark}{HEAD}{hosts}");
            for (verb, host, values, wanted) in [
                (Verb::Set, "kvm01", &["rack=r2"][..], set),
                (Verb::Add, "kvm07", &values[..], added),
            ] {
                let scene = Scene::new(&text);
                let edited = scene.edit(verb, host, values);
                let wanted = wanted.as_ref();
                assert_eq!(edited.is_ok(), wanted.is_some(), "{what}: {edited:?}");
                let wanted = wanted.map_or(text.clone(), |hosts| format!("{mark}{HEAD}{hosts}"));
                assert_eq!(scene.text(), wanted, "{what}");
            }
        }
    }
}
