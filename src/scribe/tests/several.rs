//! Several machines named by one edit.

use super::*;
use crate::inventory::load;

const WRITTEN: &str = "# the lab
networks: {boot: {subnet: 10.77.0.0/16, pool: 10.77.9.100-10.77.9.199}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: \"/roots/kvm\"}}}
hosts:   # rack by rack
  a1: {ip: 10.77.0.1, profile: kvm}   # the first
  a2:
    # its disk died
    mac: \"52:54:00:00:00:f2\"   # the left port
    ip: 10.77.0.2
    profile: kvm
  odd:
    mac: >-
      52:54:00:00:00:f9
    ip: 10.77.0.3
    profile: kvm
  'b[1-4]': {ip: 10.77.1.1, profile: kvm}   # a range
  c[1-3]: {macs: {c2: \"52:54:00:00:00:c2\"}, ip: 10.77.2.1, profile: kvm}
  d[1-2]: {macs: [\"52:54:00:00:00:d1\", \"52:54:00:00:00:d2\"], ip: 10.77.3.1, profile: kvm}
  e[1-3]:
    macs:
      e1: \"52:54:00:00:00:e1\" # moved
    ip: 10.77.4.1 # from here on
    profile: kvm
  f[1-2]: {mac: \"52:54:00:00:01:01\", ip: 10.77.5.1, profile: kvm}
# the end
";

struct Scene(tempfile::TempDir);

impl Scene {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hosts.yaml"), text).unwrap();
        Self(dir)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("hosts.yaml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn named(&self, namings: Vec<Naming>) -> Reply {
        let edit = Edit::SetMacs(namings);
        let dry_run = false;
        let line = serde_json::to_string(&Request { edit, dry_run }).unwrap() + "\n";
        let mut output = Vec::new();
        work(&self.path(), Cursor::new(line), &mut output).unwrap();
        assert!(output.len() < LONGEST, "{} bytes", output.len());
        serde_json::from_slice(&output).unwrap()
    }
}

fn words(left_out: &[LeftOut]) -> Vec<(u8, &str)> {
    let one = |one: &LeftOut| (one.mac.0[5], one.refusal.words.clone().leak() as &str);
    left_out.iter().map(one).collect()
}

#[test]
fn they_are_written_wherever_they_stand_and_the_rest_stays_as_it_was() {
    let scene = Scene::new(WRITTEN);
    let replaced = |host: &str, last, old| naming(host, last, Some(old));
    let mut other = replaced("f2", 14, 0);
    other.replacing = Some(MacAddr([0x52, 0x54, 0, 0, 1, 2]));
    let reply = scene.named(vec![
        naming("b3", 1, None),
        naming("a1", 2, None),
        naming("b1", 3, None),
        replaced("a2", 4, 0xf2),
        naming("c3", 5, None),
        replaced("d2", 6, 0xd2),
        replaced("c2", 7, 0xc2),
        naming("e3", 8, None),
        replaced("e1", 9, 0xe1),
        naming("c1", 10, None),
        replaced("d1", 11, 0xd1),
        naming("e2", 12, None),
        naming("b2", 13, None),
        other,
    ]);
    let told = done(&reply);
    assert_eq!((told.rewritten, &*told.left_out), (true, &[][..]));
    assert!(told.changes.contains("a1"), "{}", told.changes);
    let mac = |last: u8| format!("\"52:54:00:00:00:{last:02x}\"");
    let mut expected = WRITTEN.to_owned();
    for (old, new) in [
        (
            "ip: 10.77.0.1, profile: kvm}",
            format!("ip: 10.77.0.1, profile: kvm, mac: {}}}", mac(2)),
        ),
        ("\"52:54:00:00:00:f2\"", mac(4)),
        (
            "ip: 10.77.1.1, profile: kvm}",
            format!(
                "ip: 10.77.1.1, profile: kvm, macs: {{b3: {}, b1: {}, b2: {}}}}}",
                mac(1),
                mac(3),
                mac(13)
            ),
        ),
        (
            "\"52:54:00:00:00:c2\"}",
            format!("{}, c3: {}, c1: {}}}", mac(7), mac(5), mac(10)),
        ),
        ("\"52:54:00:00:00:d1\"", mac(11)),
        ("\"52:54:00:00:00:d2\"", mac(6)),
        (
            "\"52:54:00:00:00:e1\" # moved\n",
            format!(
                "{} # moved\n      e3: {}\n      e2: {}\n",
                mac(9),
                mac(8),
                mac(12)
            ),
        ),
        (
            "ip: 10.77.5.1, profile: kvm}",
            format!("ip: 10.77.5.1, profile: kvm, macs: {{f2: {}}}}}", mac(14)),
        ),
    ] {
        assert_eq!(expected.matches(old).count(), 1, "{old}");
        expected = expected.replace(old, &new);
    }
    assert_eq!(scene.text(), expected);
    let inventory = load(&scene.path()).unwrap().inventory;
    assert_eq!(&*inventory.by_mac[&super::mac(13)].name, "b2");
    assert_eq!(inventory.by_mac.len(), 16);
}

#[test]
fn who_does_not_fit_is_left_out_with_its_own_words_and_the_others_are_written() {
    let scene = Scene::new(WRITTEN);
    let mut group = naming("b2", 9, None);
    // No NIC sends from it: the whole inventory would be refused.
    group.mac = MacAddr([1, 0, 0x5e, 0, 0, 9]);
    let reply = scene.named(vec![
        naming("b1", 1, None),
        naming("nobody", 2, None),
        naming("b1", 3, None),
        naming("b3", 1, None),
        group,
        naming("a2", 4, None),
        naming("b4", 0xd1, None),
        naming("odd", 5, Some(0xf9)),
        naming("a1", 6, None),
    ]);
    let told = done(&reply);
    let mut left_out = words(&told.left_out);
    left_out.sort_unstable();
    let expected = [
        (1, "nothing was changed: 52:54:00:00:00:01 is b1 already"),
        (2, "no host nobody in the inventory"),
        (
            3,
            "nothing was changed: b1 has another MAC by now: 52:54:00:00:00:01",
        ),
        (
            4,
            "nothing was changed: a2 has another MAC by now: 52:54:00:00:00:f2",
        ),
        (5, "`mac` stands on several lines"),
        (
            9,
            "nothing was changed: `01:00:5e:00:00:09` is a multicast address",
        ),
        (0xd1, "nothing was changed: 52:54:00:00:00:d1 is d1 already"),
    ];
    assert_eq!(left_out.len(), expected.len(), "{left_out:?}");
    for ((last, said), (of, words)) in left_out.into_iter().zip(expected) {
        assert!(last == of && said.contains(words), "{last}: {said}");
    }
    let text = WRITTEN
        .replace(
            "0.1, profile: kvm}",
            "0.1, profile: kvm, mac: \"52:54:00:00:00:06\"}",
        )
        .replace(
            "1.1, profile: kvm}",
            "1.1, profile: kvm, macs: {b1: \"52:54:00:00:00:01\"}}",
        );
    assert_eq!(scene.text(), text);
}

/// Firmware boots from any NIC.
#[test]
fn a_nic_of_a_host_is_no_other_host() {
    let scene = Scene::new(
        "\
networks: {boot: {subnet: 10.77.0.0/16}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}, interfaces: {storage: {nic: nic1}}}}
hosts:
  a1: {ip: 10.77.0.1, profile: kvm, nics: {nic1: \"52:54:00:00:00:11\"}}
  a2: {ip: 10.77.0.2, profile: kvm, nics: {nic1: \"52:54:00:00:00:12\"}}
",
    );
    let reply = scene.named(vec![naming("a2", 0x11, None), naming("a1", 1, None)]);
    let left_out = words(&done(&reply).left_out);
    assert!(
        matches!(left_out[..], [(0x11, words)] if words.contains("is the NIC nic1 of a1 already (")),
        "{left_out:?}"
    );
    assert!(
        scene.text().contains("52:54:00:00:00:01"),
        "{}",
        scene.text()
    );
}

#[test]
fn nothing_is_written_where_nobody_fits_or_the_file_has_a_fault() {
    let scene = Scene::new(WRITTEN);
    let reply = scene.named(vec![naming("nobody", 1, None), naming("a2", 2, None)]);
    assert!(!done(&reply).rewritten && done(&reply).left_out.len() == 2);
    assert_eq!(scene.text(), WRITTEN);
    let faulty = WRITTEN.replace("profile: kvm\n", "profile: kwm\n");
    let scene = Scene::new(&faulty);
    let reply = scene.named(vec![naming("a1", 1, None), naming("b1", 2, None)]);
    let (kind, said) = refused(&reply);
    assert!(kind == Kind::Faulty && said.contains("kwm"), "{said}");
    assert_eq!(scene.text(), faulty);
}

/// A range of so many hosts with the longest names, each of which gets the place of another machine.
fn longest() -> (String, Vec<Naming>) {
    let name = "x".repeat(59);
    let hosts = WRITTEN.split_once("  a1:").unwrap().0;
    let text = format!(
        "{hosts}  {name}[0001-0256]: {{mac: \"52:54:00:00:02:00\", ip: 10.77.0.1, profile: kvm}}\n"
    );
    let naming = |number: u16| Naming {
        host: format!("{name}{:04}", number + 1),
        mac: MacAddr([0x52, 0x54, 0, 9, (number >> 8) as u8, number as u8]),
        replacing: Some(MacAddr([0x52, 0x54, 0, 0, 2, number as u8])),
    };
    (text, (0..256).map(naming).collect())
}

#[test]
fn as_many_as_one_edit_names_go_through_the_pipe_in_both_directions() {
    let (text, namings) = longest();
    assert_eq!(namings.len(), MOST_NAMED);
    let scene = Scene::new(&text);
    assert_eq!(done(&scene.named(namings.clone())).left_out, []);
    let inventory = load(&scene.path()).unwrap().inventory;
    for naming in &namings {
        assert_eq!(inventory.by_mac[&naming.mac].name, naming.host);
    }
    // Each is left out with as many words as there may be.
    let again = scene.named(namings.clone());
    assert_eq!(done(&again).left_out.len(), MOST_NAMED);
    let mut many = namings;
    many.push(naming("a1", 1, None));
    let reply = scene.named(many);
    let (kind, said) = refused(&reply);
    assert!(
        kind == Kind::Unfit && said.contains("256 machines at most, not 257"),
        "{said}"
    );
}

/// Whatever a name is, no more than that is sent.
#[tokio::test]
async fn an_edit_that_is_too_large_is_not_asked_for() {
    let shutdown = CancellationToken::new();
    let (scribe, _pipe, _serving) = served(&shutdown);
    let host = "x".repeat(LONGEST / 2);
    let namings = vec![naming(&host, 1, None), naming(&host, 2, None)];
    let said = scribe
        .edit(Edit::SetMacs(namings), false)
        .await
        .unwrap_err();
    assert!(said.words.contains("more than one edit may say"), "{said}");
}
