//! Machines that come at once get what they would get one by one.

use super::*;
use crate::site::{Paths, Site};

/// A site on these hosts, that knows of each that nobody answers for it.
struct Scene {
    dir: tempfile::TempDir,
    site: Site,
}

impl Scene {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let scene = Self { dir, site };
        fs::write(scene.path(), text).unwrap();
        scene.reload();
        scene
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("hosts.yaml")
    }

    fn reload(&self) {
        let paths = Paths {
            inventory: self.path(),
            data: self.dir.path().join("data"),
            templates: None,
        };
        let served = self.site.snapshot();
        let loaded = Snapshot::load(&paths, Some(&served)).map_err(|found| found.to_string());
        let changes = crate::inventory::outline::Changes::default();
        self.site.replace(loaded.unwrap().0.into(), &changes);
    }

    /// Everybody is asked for, and nobody answers.
    fn silence(&self, now: i64) {
        for host in self.site.snapshot().inventory.hosts.values() {
            let nobody = Holders::Nobody(Asked::Silent);
            self.site.enrolment.looked(host, mac(0), &nobody, at(now));
        }
    }

    /// As the daemon does it: decides, writes once, serves, and comes back to who could not be decided on.
    fn named(&self, machines: &[Discovered], now: i64) {
        let mut open = machines.to_vec();
        for _ in 0..machines.len() + 1 {
            self.silence(now);
            let Verdicts { named, again, .. } = self.site.verdicts(&open, at(now));
            let namings = named.iter().map(|(mac, enrol)| naming(*mac, enrol));
            let edit = Edit::SetMacs(namings.collect());
            let dry_run = false;
            let done = perform(&self.path(), &Request { edit, dry_run }).unwrap();
            assert_eq!(done.left_out, [], "what was decided fits together");
            for (_, enrol) in named {
                let id = MachineId(enrol.host.name.clone());
                let (stage, state) = (Stage::Script, StageState::Info);
                let event = BootEvent::sent(at(now), id, stage, state, "becomes".into());
                self.site.timeline.record(event);
            }
            self.reload();
            open.retain(|machine| again.contains(&machine.mac));
            if open.is_empty() {
                return;
            }
        }
        panic!("{} are decided on again and again", open.len());
    }

    fn owners(&self) -> HashMap<String, MacAddr> {
        owners(&load(&self.path()).unwrap().inventory)
    }
}

const SERIALS: &str = "\
networks: {boot: {subnet: 10.77.0.0/24, pool: 10.77.0.100-10.77.0.199, unknown: {policy: by-serial}}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}
hosts:
  a1: {serial: SERIAL1, ip: 10.77.0.11, profile: kvm}   # empty
  a2: {serial: SERIAL2, ip: 10.77.0.12, profile: kvm, mac: \"3c:ec:ef:99:00:02\"}   # broken
  a3: {serial: SERIAL3, ip: 10.77.0.13, profile: kvm}
";

const FREE: &str = "\
networks: {boot: {subnet: 10.77.0.0/24, pool: 10.77.0.100-10.77.0.199, unknown: {policy: next-free}}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}
hosts:
  n[1-4]: {ip: 10.77.0.11, profile: kvm, rack: r1}   # new
  old: {mac: \"3c:ec:ef:99:00:09\", ip: 10.77.0.20, profile: kvm}
  late: {ip: 10.77.0.21, profile: kvm}
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// In any order, with serial numbers that several say, and with those that come again.
    #[test]
    fn together_they_become_what_they_become_one_by_one(
        by_serial: bool,
        parts in prop::collection::vec(prop::collection::vec((1_u8..9, 1_u8..5), 1..7), 1..4),
    ) {
        let text = if by_serial { SERIALS } else { FREE };
        let (together, alone) = (Scene::new(text), Scene::new(text));
        for (part, machines) in parts.iter().enumerate() {
            let now = 1000 + 10 * i64::try_from(part).unwrap();
            let mut seen = HashSet::new();
            let new = machines.iter().filter(|(who, _)| seen.insert(*who));
            let listed = together.owners();
            let new = new.filter(|(who, _)| !listed.values().any(|owner| *owner == mac(*who)));
            let machines: Vec<_> = new.map(|(who, serial)| machine(*who, *serial)).collect();
            together.named(&machines, now);
            for machine in &machines {
                alone.named(std::slice::from_ref(machine), now);
            }
            prop_assert_eq!(together.owners(), alone.owners());
        }
        let text = fs::read_to_string(together.path()).unwrap();
        let comment = if by_serial { "# broken" } else { "# new" };
        prop_assert!(text.contains(comment));
    }
}

#[test]
fn of_several_that_say_to_be_one_host_each_waits_for_its_silence() {
    let scene = Scene::new(SERIALS);
    let machines = [machine(1, 2), machine(2, 2), machine(3, 1)];
    let asked = |now| {
        let asked = scene.site.to_ask(&machines, at(now)).into_iter();
        asked.map(|(host, _)| host.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(asked(1000), ["a1", "a2"], "one question for both");
    scene.silence(1000);
    assert_eq!(asked(1001), [""; 0], "it is known");
    let verdicts = scene.site.verdicts(&machines, at(1001));
    let named: Vec<_> = verdicts.named.iter().map(|(mac, _)| *mac).collect();
    assert_eq!(named, [mac(3)]);
    let waits: Vec<_> = verdicts
        .waits
        .iter()
        .map(|(mac, why)| (*mac, why.to_string()))
        .collect();
    assert_eq!([waits[0].0, waits[1].0], [mac(1), mac(2)]);
    assert!(
        waits
            .iter()
            .all(|(_, why)| why.contains("a2 may be restarting")),
        "{waits:?}"
    );
    // The first of them gets it, and the other is told of that host that it lives.
    scene.named(&machines, 1000 + SILENCE_S);
    assert_eq!(scene.owners()["a2"], mac(1));
    let verdicts = scene.site.verdicts(&machines[1..2], at(1000 + SILENCE_S));
    assert_eq!(verdicts.waits[0].1.disputed(), Some("a2"));
}

#[test]
fn next_free_hosts_are_asked_for_ahead_and_each_once() {
    let scene = Scene::new(&FREE.replace("n[1-4]: {ip: 10.77.0.11", "n[01-40]: {ip: 10.77.0.31"));
    let names = |machines: u8| {
        let machines: Vec<_> = (1..=machines).map(|who| machine(who, who)).collect();
        let asked = scene.site.to_ask(&machines, at(1000)).into_iter();
        asked.map(|(host, _)| host.name.clone()).collect::<Vec<_>>()
    };
    let first = |many: u8| (1..=many).map(|n| format!("n{n:02}")).collect::<Vec<_>>();
    assert_eq!(names(1), first(16));
    assert_eq!(names(3), first(16));
    assert_eq!(names(30), first(30));
    assert_eq!(names(60).len(), 41);
    // What was not asked for is asked first.
    let verdicts = scene.site.verdicts(&[machine(1, 1)], at(1000));
    assert_eq!((verdicts.named, verdicts.again), (vec![], vec![mac(1)]));
}

#[test]
fn hosts_of_two_files_are_not_named_by_one_edit() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        let ip = if name == "a.yaml" { 11 } else { 12 };
        let host = name.trim_end_matches(".yaml");
        fs::write(
            &path,
            format!("hosts: {{{host}: {{serial: {host}1234, ip: 10.77.0.{ip}, profile: kvm}}}}\n"),
        )
        .unwrap();
        path.display().to_string()
    };
    let (a, b) = (file("a.yaml"), file("b.yaml"));
    let base = SERIALS.split("hosts:").next().unwrap();
    let scene = Scene::new(&format!("{base}include: [\"{a}\", \"{b}\"]\n"));
    let of = |who, serial: &str| {
        let mut machine = machine(who, 1);
        machine.identity.serial = Some(serial.into());
        machine
    };
    let machines = [of(1, "a1234"), of(2, "b1234")];
    scene.silence(1000);
    let verdicts = scene.site.verdicts(&machines, at(1000));
    assert_eq!(verdicts.named.len(), 1);
    assert_eq!(verdicts.again, [mac(2)]);
    // Whoever asks for it all the same is told so.
    let all = [("a", 1), ("b", 2)].map(|(host, last)| Naming {
        host: host.into(),
        mac: mac(last),
        replacing: None,
    });
    let (edit, dry_run) = (Edit::SetMacs(all.into()), true);
    let done = perform(&scene.path(), &Request { edit, dry_run }).unwrap();
    assert!(
        done.left_out[0]
            .refusal
            .words
            .contains("b.yaml, and the others"),
        "{done:?}"
    );
    scene.named(&machines, 1000);
    assert_eq!(scene.owners().len(), 2);
}
