use std::fs;

use super::*;
use crate::inventory::load;

const TEXT: &str = "\
# The site.
networks: {boot: {subnet: 10.77.0.0/24}}
profiles:
  kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}, interfaces: {storage: {nic: nic1}}}
hosts:   # rack by rack
  # the first
  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm, rack: r1, nics: {nic1: \"52:54:00:00:0a:01\"}}   # west
  kvm02:
    mac: \"52:54:00:00:00:02\"   # the left port
    ip: 10.77.0.12
    # its disk died
    profile: kvm
    nics: {nic1: \"52:54:00:00:0a:02\"}
  # the last
  n[1-8]: {mac: \"52:54:00:00:01:01\", ip: 10.77.0.21, profile: kvm, rack: \"r[1-2]\", unit: 4, nics: {nic1: \"52:54:00:00:0b:01\"}, addresses: {storage: 10.88.0.21/24}}   # new
  p[01-04]: {switch: sw1, port: \"Gi1/0/[1-4]\", ip: 10.77.0.41, profile: kvm, macs: {p03: \"52:54:00:00:03:03\"}, serials: [A1, A2, A3, \"0004\"], nics: {nic1: \"52:54:00:00:0c:01\"}}
# the end
unknown: {policy: hold}
";

/// The lines that the edit takes out, and those that it puts in.
fn removed(text: &str, names: &[&str]) -> Result<(Vec<String>, Vec<String>), EditError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts.yaml");
    fs::write(&path, text).unwrap();
    let before = load(&path).unwrap().inventory;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let tried = remove(&path, &names, true);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let done = remove(&path, &names, false);
    let new = fs::read_to_string(&path).unwrap();
    if let Err(error) = done {
        assert_eq!(new, text);
        return Err(error);
    }
    assert!(tried.unwrap().rewritten);
    // Whoever stays is as before.
    let after = load(&path).unwrap().inventory;
    for (name, host) in &before.hosts {
        let expected = (!names.contains(name)).then_some(());
        let left = after.hosts.get(name);
        assert_eq!(left.map(|_| ()), expected, "{name}");
        let told = |host: &Host| {
            let macs: Vec<_> = host.macs.iter().map(|mac| **mac).collect();
            let nics: Vec<_> = host.nics.values().map(|mac| **mac).collect();
            let plug = host.plug.as_ref();
            let plug = plug.map(|plug| (plug.switch.value.clone(), plug.port.value.clone()));
            let serial = serial(host);
            (
                *host.ip,
                macs,
                nics,
                plug,
                serial,
                host.rack.clone(),
                host.unit,
            )
        };
        assert!(left.is_none_or(|left| told(left) == told(host)), "{name}");
    }
    let only = |a: &str, b: &str| -> Vec<String> {
        let lines = a
            .lines()
            .filter(|line| !b.lines().any(|other| other == *line));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    Ok((only(text, &new), only(&new, text)))
}

#[test]
fn a_host_goes_with_its_lines_and_the_comments_of_others_stay() {
    let (gone, new) = removed(TEXT, &["kvm01"]).unwrap();
    assert_eq!((gone.len(), new.len()), (1, 0));
    assert!(gone[0].starts_with("kvm01:"));
    let (gone, new) = removed(TEXT, &["kvm02"]).unwrap();
    assert_eq!((gone.len(), new.len()), (6, 0));
    assert!(!gone.contains(&"# the last".to_owned()), "{gone:?}");
    let range: Vec<_> = (1..9).map(|n| format!("n{n}")).collect();
    let range: Vec<_> = range.iter().map(String::as_str).collect();
    let (gone, new) = removed(TEXT, &range).unwrap();
    assert_eq!((gone.len(), new.len()), (1, 0));
    let all = ["kvm01", "kvm02", "p01", "p02", "p03", "p04"];
    removed(TEXT, &[&all[..], &range].concat()).unwrap();
}

#[test]
fn the_others_of_a_range_stay_where_they_are() {
    let (gone, new) = removed(TEXT, &["n3"]).unwrap();
    assert_eq!(gone.len(), 1);
    let rest = |key: &str, mac: u8, ip: u8, rack: &str, unit: u8| {
        format!(
            "{key}: {{mac: \"52:54:00:00:01:0{mac}\", ip: 10.77.0.{ip}, profile: kvm, rack: {rack}, unit: {unit}, nics: {{nic1: \"52:54:00:00:0b:0{mac}\"}}, addresses: {{storage: 10.88.0.{ip}/24}}}}   # new"
        )
    };
    let wanted = [
        rest("n[1-2]", 1, 21, "r1", 4),
        rest("n4", 4, 24, "r1", 7),
        rest("n[5-8]", 5, 25, "r2", 4),
    ];
    assert_eq!(new, wanted);
    let (_, new) = removed(TEXT, &["p02"]).unwrap();
    assert_eq!(
        new,
        [
            "p01: {switch: sw1, port: Gi1/0/1, ip: 10.77.0.41, profile: kvm, serials: [A1], nics: {nic1: \"52:54:00:00:0c:01\"}}",
            "p[03-04]: {switch: sw1, port: \"Gi1/0/[3-4]\", ip: 10.77.0.43, profile: kvm, macs: {p03: \"52:54:00:00:03:03\"}, serials: [A3, \"0004\"], nics: {nic1: \"52:54:00:00:0c:03\"}}"
        ]
    );
    let (_, new) = removed(TEXT, &["p01", "p02", "p04"]).unwrap();
    assert_eq!(
        new,
        [
            "p03: {switch: sw1, port: Gi1/0/3, ip: 10.77.0.43, profile: kvm, mac: \"52:54:00:00:03:03\", serials: [A3], nics: {nic1: \"52:54:00:00:0c:03\"}}"
        ]
    );
    for index in 1..=8 {
        removed(TEXT, &[&format!("n{index}")]).unwrap();
    }
}

#[test]
fn files_of_every_kind_stay_as_they_are() {
    const HEAD: &str = "networks: {boot: {subnet: 10.77.0.0/24}}\nprofiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}\n";
    let host = |name: &str, n: u8| {
        format!("{name}: {{mac: \"52:54:00:00:00:0{n}\", ip: 10.77.0.1{n}, profile: kvm}}")
    };
    let (a, b, range) = (host("a", 1), host("b", 2), host("\"c[1-3]\"", 3));
    let c = [host("\"c1\"", 3), host("\"c3\"", 5)];
    for (what, before, names, after) in [
        (
            "no end of the last line",
            format!("hosts:\n  {a}\n  {range}"),
            &["c2"][..],
            Some(format!("hosts:\n  {a}\n  {}\n  {}", c[0], c[1])),
        ),
        (
            "CRLF",
            format!("hosts:\r\n  {a}\r\n  {range}\r\n"),
            &["a", "c2"],
            Some(format!("hosts:\r\n  {}\r\n  {}\r\n", c[0], c[1])),
        ),
        (
            "the only one",
            format!("hosts:\n  {a}\n"),
            &["a"],
            Some("hosts:\n".to_owned()),
        ),
        (
            "braces",
            format!("hosts: {{{a}, {range}, {b}}}\n"),
            &["c2"],
            Some(format!("hosts: {{{a}, {}, {}, {b}}}\n", c[0], c[1])),
        ),
        (
            "all in braces",
            format!("hosts: {{{a}, {b}}}\n"),
            &["a", "b"],
            Some("hosts: {}\n".to_owned()),
        ),
        (
            "the last in braces",
            format!("hosts: {{{a}, {b}}}\n"),
            &["b"],
            Some(format!("hosts: {{{a}}}\n")),
        ),
        (
            "whose comment?",
            format!("hosts: {{\n  {a},\n  # which?\n  {b}}}\n"),
            &["b"],
            None,
        ),
        (
            "an alias",
            format!(
                "hosts:\n  {}\n  d: {{<<: *x, ip: 10.77.0.99}}\n",
                a.replace("a: {", "a: &x {")
            ),
            &["a"],
            None,
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts.yaml");
        fs::write(&path, format!("{HEAD}{before}")).unwrap();
        if load(&path).is_err() {
            // Aliases may be refused as such.
            assert_eq!(what, "an alias");
            continue;
        }
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let done = remove(&path, &names, false);
        assert_eq!(done.is_ok(), after.is_some(), "{what}: {done:?}");
        let wanted = format!("{HEAD}{}", after.unwrap_or(before));
        assert_eq!(fs::read_to_string(&path).unwrap(), wanted, "{what}");
    }
}

#[test]
fn any_of_the_hosts_in_one_map_in_braces_can_go() {
    let text = "\
networks: {boot: {subnet: 10.77.0.0/24}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}
hosts: {a: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm}, b: {mac: \"52:54:00:00:00:02\", ip: 10.77.0.12, profile: kvm},
  \"c[1-2]\": {serials: {c1: X1}, macs: {c1: \"52:54:00:00:00:03\"}, ip: 10.77.0.13, profile: kvm}, d: {mac: \"52:54:00:00:00:05\", ip: 10.77.0.15, profile: kvm}}
";
    let all = ["a", "b", "c1", "c2", "d"];
    for subset in 1_u32..31 {
        let chosen = all.iter().enumerate();
        let chosen = chosen.filter(|(index, _)| subset >> index & 1 == 1);
        let chosen: Vec<&str> = chosen.map(|(_, name)| *name).collect();
        removed(text, &chosen).unwrap_or_else(|error| panic!("{chosen:?}: {error}"));
    }
}

#[test]
fn who_is_not_there_or_stands_in_two_files_is_told() {
    let error = removed(TEXT, &["kvm05", "kvm01", "kvm03"]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("no host kvm03, kvm05 in") && error.contains("did you mean"),
        "{error}"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts.yaml");
    fs::write(&path, format!("include: more.yaml\n{TEXT}")).unwrap();
    let more = "hosts: {kvm09: {mac: \"52:54:00:00:00:09\", ip: 10.77.0.19, profile: kvm, nics: {nic1: \"52:54:00:00:0a:09\"}}}\n";
    fs::write(directory.path().join("more.yaml"), more).unwrap();
    let names = ["kvm01".to_owned(), "kvm09".to_owned()];
    let error = remove(&path, &names, false).unwrap_err().to_string();
    assert!(
        error.contains("hosts.yaml and ") && error.contains("one file at a time"),
        "{error}"
    );
    let done = remove(&path, &names[1..], false).unwrap();
    assert!(done.file.ends_with("more.yaml"), "{done:?}");
    assert_eq!(done.changes.summary(), "hosts: 1 removed");
}

/// Whatever the file looks like, the one host goes, or the file stays.
#[test]
fn every_host_of_every_valid_inventory_can_be_removed() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inventories/valid");
    let mut all = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let hosts = crate::inventory::load::parse("x", &text).unwrap().0.hosts;
        for name in hosts.keys() {
            removed(&text, &[name])
                .unwrap_or_else(|error| panic!("{}: {name}: {error}", file.display()));
            all += 1;
        }
    }
    assert!(all > 10, "{all}");
}
