mod lists;
mod members;

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::super::compress::{Compression, tests::gzip, tests::xz};
use super::super::kinds::Kind;
use super::super::listing::{Listing, list};
use super::super::testing::Lab;
use super::super::{Reason, cpio};
use super::*;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.module(
        "kernel/igb.ko",
        &["kernel/dca.ko"],
        &[("firmware", "igb.fw")],
    );
    lab.module("kernel/dca.ko", &[], &[]);
    lab.write("kernel/firmware/igb.fw", "firmware");
    lab.list("igb\n");
    lab.write("initrd/tree/lib/stages/net.sh", "true\n");
    lab
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect()
}

#[test]
fn an_image_holds_all_of_it() {
    let lab = lab();
    let built = build(&lab.spec()).unwrap();
    assert!(!built.up_to_date);
    let listing = list(&lab.path("out/default.img")).unwrap();
    assert_eq!(listing.sha256, built.sha256);
    assert_eq!(listing.manifest.as_ref(), Some(&built.manifest));
    let found = paths(&listing);
    for path in [
        "init",
        "bin/busybox",
        "bin/sh",
        "sbin/modprobe",
        "dev/console",
        "dev/null",
        "proc",
        "sys",
        "run",
        "tmp",
        "lib/stages/net.sh",
        "lib/firmware/igb.fw",
        "lib/modules/6.1.0-test/modules.dep",
        "lib/modules/6.1.0-test/modules.alias",
        "lib/modules/6.1.0-test/kernel/igb.ko",
    ] {
        assert!(found.contains(&path), "{path} in {found:?}");
    }
    let find = |path: &str| listing.files.iter().find(|file| file.path == path).unwrap();
    assert_eq!(find("init").mode, 0o100_755);
    assert_eq!(find("tmp").mode, 0o041_777);
    assert_eq!(find("dev/console").mode, 0o020_600);
    assert_eq!(find("bin/sh").target.as_deref(), Some("busybox"));
    let reason = |path: &str| find(path).reason.clone();
    let module = |name: &str| reason(&format!("lib/modules/6.1.0-test/kernel/{name}.ko"));
    assert_eq!(module("igb").as_deref(), Some("listed in modules.list:1"));
    assert_eq!(module("dca").as_deref(), Some("igb needs it"));
    assert_eq!(
        reason("lib/firmware/igb.fw").as_deref(),
        Some("firmware of igb")
    );
}

#[test]
fn every_directory_stands_before_its_content_in_its_member() {
    let lab = lab();
    build(&lab.spec()).unwrap();
    let listing = list(&lab.path("out/default.img")).unwrap();
    for (index, file) in listing.files.iter().enumerate() {
        let Some((parent, _)) = file.path.rsplit_once('/') else {
            continue;
        };
        let before = listing.files[..index].iter();
        let mut before = before.filter(|other| other.member == file.member);
        assert!(before.any(|other| other.path == parent), "{}", file.path);
    }
}

#[test]
fn the_same_bytes_from_another_directory_and_checkout() {
    let (one, other) = (lab(), lab());
    other.chmod("initrd/tree/lib/stages", 0o700);
    other.chmod("initrd/tree/init", 0o775);
    let first = build(&one.spec()).unwrap();
    let second = build(&other.spec()).unwrap();
    assert_eq!(first.sha256, second.sha256);
    let bytes = |lab: &Lab, file: &str| fs::read(lab.path(file)).unwrap();
    for file in ["out/default.img", "out/default.manifest"] {
        assert_eq!(bytes(&one, file), bytes(&other, file), "{file}");
    }
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let lab = lab();
    build(&lab.spec()).unwrap();
    let inode = || fs::metadata(lab.path("out/default.img")).unwrap().ino();
    let before = inode();
    assert!(build(&lab.spec()).unwrap().up_to_date);
    assert_eq!(inode(), before);
    lab.write("initrd/tree/lib/stages/net.sh", "false\n");
    assert!(!build(&lab.spec()).unwrap().up_to_date);
    assert_ne!(inode(), before);
}

#[test]
fn an_incremental_build_gives_the_bytes_of_a_fresh_one() {
    let (lab, fresh) = (lab(), lab());
    let before = build(&lab.spec()).unwrap();
    for lab in [&lab, &fresh] {
        lab.write("initrd/tree/etc/new", "new\n");
    }
    let after = build(&lab.spec()).unwrap();
    assert_eq!(after.manifest.members[0], before.manifest.members[0]);
    assert_ne!(after.manifest.members[1], before.manifest.members[1]);
    assert_eq!(after.sha256, build(&fresh.spec()).unwrap().sha256);
}

/// Packing the drivers takes seconds. Bytes that only the old image can have show that they
/// come from there.
#[test]
fn a_member_with_unchanged_inputs_is_not_packed_again() {
    let (fresh, lab) = (lab(), lab());
    let inputs = build(&fresh.spec()).unwrap().manifest.members[0]
        .inputs
        .clone();
    let mut spec = lab.spec();
    spec.mtime = 1;
    let mut manifest = build(&spec).unwrap().manifest;
    let old = manifest.members[0].sha256.clone();
    manifest.members[0].inputs = inputs;
    lab.write("out/default.manifest", manifest.to_json().unwrap());
    let built = build(&lab.spec()).unwrap().manifest;
    assert_eq!(built.members[0].sha256, old);
    assert_ne!(built.members[1].sha256, manifest.members[1].sha256);
}

#[test]
fn a_damaged_old_image_is_not_taken_over() {
    let lab = lab();
    let good = build(&lab.spec()).unwrap();
    let image = lab.path("out/default.img");
    let mut bytes = fs::read(&image).unwrap();
    bytes[20] ^= 1;
    fs::write(&image, bytes).unwrap();
    let again = build(&lab.spec()).unwrap();
    assert!(!again.up_to_date);
    assert_eq!(again.sha256, good.sha256);
    fs::write(lab.path("out/default.manifest"), "{}").unwrap();
    assert_eq!(build(&lab.spec()).unwrap().sha256, good.sha256);
}

#[test]
fn level_and_time_decide_the_bytes_too() {
    let lab = lab();
    let first = build(&lab.spec()).unwrap().sha256;
    let mut spec = lab.spec();
    spec.mtime = 1_700_000_000;
    let second = build(&spec).unwrap().sha256;
    assert_ne!(first, second);
}

#[test]
fn an_unusable_source_leaves_the_old_image() {
    let lab = lab();
    let good = build(&lab.spec()).unwrap();
    lab.chmod("initrd/tree/init", 0o644);
    let error = build(&lab.spec()).unwrap_err();
    assert!(error.to_string().contains("chmod 755 tree/init"), "{error}");
    assert_eq!(
        list(&lab.path("out/default.img")).unwrap().sha256,
        good.sha256
    );
}

#[test]
fn an_image_over_budget_is_warned_of() {
    let lab = lab();
    let mut spec = lab.spec();
    spec.budget = 100;
    let built = build(&spec).unwrap();
    let text = built.warnings.last().unwrap().to_string();
    assert!(text.contains("over the budget of 100"), "{text}");
    assert!(text.contains("igb.ko ("), "{text}");
}

#[test]
fn an_image_over_the_limit_is_not_written() {
    let lab = lab();
    let good = build(&lab.spec()).unwrap();
    let mut spec = lab.spec();
    spec.level = 1;
    spec.max_size = Some(good.bytes / 2);
    let text = build(&spec).unwrap_err().to_string();
    assert!(
        text.contains("raise --max-size") && text.contains("igb.ko ("),
        "{text}"
    );
    assert_eq!(
        list(&lab.path("out/default.img")).unwrap().sha256,
        good.sha256
    );
}
