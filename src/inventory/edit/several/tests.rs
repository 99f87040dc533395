use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::inventory::load;

const HOSTS: usize = 256;

/// So many hosts, a line each.
fn scene(dir: &tempfile::TempDir) -> PathBuf {
    let mut text = "\
networks: {boot: {subnet: 10.77.0.0/16, pool: 10.77.9.100-10.77.9.199}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}}
hosts:
"
    .to_owned();
    for host in 0..HOSTS {
        let (high, low) = (host / 100, host % 100 + 1);
        text += &format!("  h{host}: {{ip: 10.77.{high}.{low}, profile: kvm}}\n");
    }
    let file = dir.path().join("hosts.yaml");
    fs::write(&file, text).unwrap();
    file
}

/// Who is left out of all of them, with what words; each of the others has its MAC then.
fn named(bad: &[usize], with: &str, until: Instant) -> Vec<(usize, String)> {
    let dir = tempfile::tempdir().unwrap();
    let file = scene(&dir);
    let values = |host: usize| {
        let good = format!("mac=52:54:00:00:{:02x}:{:02x}", host / 256, host % 256);
        let value = match bad.contains(&host) {
            true => with.replace('N', &format!("{host:02x}")),
            false => good,
        };
        (format!("h{host}"), Ok(vec![value.parse().unwrap()]))
    };
    let wanted = |_: &Inventory| (0..HOSTS).map(values).collect();
    let several = edit_until(&file, wanted, false, until).unwrap();
    let left_out = several.left_out.into_iter();
    let left_out: Vec<_> = left_out
        .map(|(place, why)| (place, why.to_string()))
        .collect();
    let without: BTreeSet<_> = left_out.iter().map(|(place, _)| *place).collect();
    let inventory = load(&file).unwrap().inventory;
    for host in 0..HOSTS {
        let has = !inventory.hosts[&format!("h{host}")].macs.is_empty();
        assert_eq!(has, !without.contains(&host), "h{host}");
    }
    left_out
}

fn no_hurry() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn places(left_out: &[(usize, String)]) -> Vec<usize> {
    let mut places: Vec<_> = left_out.iter().map(|(place, _)| *place).collect();
    places.sort_unstable();
    places
}

/// Its value stands where the fault is.
const GROUP: &str = "mac=01:00:5e:00:00:N";
/// The fault is said of the host's whole entry.
const WITHOUT_ADDRESS: &str = "ip=";

#[test]
fn one_that_does_not_fit_costs_nobody_else_its_name_wherever_it_stands() {
    for bad in [0, 127, 128, 255] {
        let left_out = named(&[bad], GROUP, no_hurry());
        assert_eq!(places(&left_out), [bad]);
    }
    let left_out = named(&[200], WITHOUT_ADDRESS, no_hurry());
    assert_eq!(places(&left_out), [200]);
}

#[test]
fn of_several_that_do_not_fit_each_is_found() {
    let bad = [0, 3, 64, 65, 127, 190, 254, 255];
    assert_eq!(places(&named(&bad, GROUP, no_hurry())), bad);
    let near = [62, 63];
    assert_eq!(places(&named(&near, WITHOUT_ADDRESS, no_hurry())), near);
    let all: Vec<_> = (0..HOSTS).collect();
    assert_eq!(places(&named(&all, GROUP, no_hurry())), all);
}

/// Whoever waits for it is not kept, and is told which of them come again.
#[test]
fn when_there_is_no_more_time_the_rest_comes_again() {
    let over = Instant::now();
    assert_eq!(named(&[], GROUP, over), [], "all at once are tried");
    let left_out = named(&[7], GROUP, over);
    assert_eq!(left_out.len(), HOSTS);
    for (place, words) in &left_out {
        let expected = match place {
            7 => "01:00:5e:00:00:07",
            _ => "comes again",
        };
        assert!(words.contains(expected), "{place}: {words}");
    }
    let left_out = named(&[7], WITHOUT_ADDRESS, over);
    assert!(
        left_out
            .iter()
            .all(|(_, words)| words.contains("comes again"))
    );
    assert_eq!(left_out.len(), HOSTS);
}

#[test]
fn the_largest_piece_is_tried_first() {
    let dir = tempfile::tempdir().unwrap();
    let file = scene(&dir);
    let inventory = load(&file).unwrap().inventory;
    let wanted = (0..7).map(|host| (format!("h{host}"), Ok(Vec::new())));
    let (parts, _) = parts(&file, &inventory, wanted.collect());
    let all: Vec<&Part> = parts.iter().collect();
    let mut open: Vec<Vec<&Part>> = [1, 0, 4, 2].map(|size| all[..size].to_vec()).into();
    let sizes: Vec<_> =
        std::iter::from_fn(|| take_largest(&mut open).map(|some| some.len())).collect();
    assert_eq!(sizes, [4, 2, 1]);
}
