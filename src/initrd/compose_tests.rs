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

#[test]
fn lists_of_modules_d_are_read_by_name_after_the_list() {
    let lab = lab();
    lab.write("initrd/modules.d/20-late.list", "dca optional\n");
    lab.write("initrd/modules.d/10-early.list", "dca\n");
    lab.write("initrd/modules.d/notes.txt", "not a list\n");
    let built = build(&lab.spec()).unwrap();
    let mut modules = built.manifest.modules.iter();
    let dca = modules.find(|module| module.name == "dca").unwrap();
    assert_eq!(dca.reason.to_string(), "listed in modules.d/20-late.list:1");
}

#[test]
fn faults_of_all_lists_are_told_at_once() {
    let lab = lab();
    lab.list("igb\nnone\nixgbe igc\n");
    lab.write("initrd/modules.d/site.list", "gone\n");
    lab.write("initrd/firmware.list", "absent.fw\n");
    let text = build(&lab.spec()).unwrap_err().to_string();
    for expected in [
        "modules.list:2: required module `none` is not in kernel",
        "modules.list:3: `igc` is no option",
        "modules.d/site.list:1: required module `gone` is not in kernel",
        "firmware.list:1: firmware `absent.fw` is neither in ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_directory_of_modules_that_no_list_names_is_warned_of() {
    let lab = lab();
    lab.write("lustre/lnet.ko", super::super::testing::module(&[]));
    let mut spec = lab.spec();
    spec.extra_modules = vec![lab.path("lustre")];
    let built = build(&spec).unwrap();
    let text = built.warnings.last().unwrap().to_string();
    assert!(
        text.contains("/lustre is in the image; name those"),
        "{text}"
    );
}

#[test]
fn out_of_tree_modules_and_further_trees_and_lists_go_in() {
    let lab = lab();
    let bytes = super::super::testing::module(&[("depends", "igb"), ("alias", "lnet-x")]);
    lab.write("lustre/net/lnet.ko.xz", xz(&bytes));
    lab.write("site/etc/site.conf", "x");
    lab.write("site.list", "lnet\n");
    let mut spec = lab.spec();
    spec.extra_modules = vec![lab.path("lustre")];
    spec.extra_trees = vec![lab.path("site")];
    spec.extra_lists = vec![lab.path("site.list")];
    let built = build(&spec).unwrap();
    let lnet = built
        .manifest
        .modules
        .iter()
        .find(|module| module.name == "lnet");
    let lnet = lnet.unwrap();
    assert_eq!(lnet.path, "lib/modules/6.1.0-test/updates/net/lnet.ko");
    assert_eq!(
        lnet.reason,
        Reason::Listed {
            list: "site.list".into(),
            line: 1
        }
    );
    assert!(
        built
            .manifest
            .files
            .iter()
            .any(|file| file.path == "etc/site.conf")
    );
}

#[test]
fn lists_several_members_of_every_kind() {
    let lab = Lab::new();
    let archive = |name: &str| {
        let entry = cpio::Entry {
            name,
            mode: cpio::S_IFREG | 0o644,
            rdev: (0, 0),
            data: b"data",
        };
        cpio::write([entry].into_iter(), 0).unwrap()
    };
    let mut image = archive("kernel/x86/microcode/GenuineIntel.bin");
    image.extend(gzip(&archive("gzip")));
    image.extend([0; 7]);
    image.extend(xz(&archive("xz")));
    image.extend(super::super::compress::pack_zstd(&archive("zstd"), 3).unwrap());
    lab.write("several.img", &image);
    let listing = list(&lab.path("several.img")).unwrap();
    assert_eq!(
        paths(&listing),
        [
            "kernel/x86/microcode/GenuineIntel.bin",
            "gzip",
            "xz",
            "zstd"
        ]
    );
    let kinds: Vec<Compression> = listing
        .members
        .iter()
        .map(|part| part.compression)
        .collect();
    use Compression::{Gzip, None, Xz, Zstd};
    assert_eq!(kinds, [None, Gzip, Xz, Zstd]);
    assert!(listing.no_manifest.is_some());
}

#[test]
fn microcode_stands_first_plain_aligned_and_on_top_of_the_limits() {
    let lab = lab();
    let blob = b"\x01\0\0\0".repeat(5000);
    lab.write("fw/intel-ucode/06-55-04", &blob);
    let mut spec = lab.spec();
    let without = build(&spec).unwrap();
    spec.microcode = Microcode::Directory(lab.path("fw"));
    spec.budget = without.bytes + 8;
    let built = build(&spec).unwrap();
    assert_eq!(built.warnings, without.warnings);
    let bytes = fs::read(lab.path("out/default.img")).unwrap();
    let listing = list(&lab.path("out/default.img")).unwrap();
    let members: Vec<_> = listing
        .members
        .iter()
        .map(|part| (part.name.as_deref().unwrap_or_default(), part.compression))
        .collect();
    use Compression::{None, Zstd};
    assert_eq!(
        members,
        [("microcode", None), ("drivers", Zstd), ("system", Zstd)]
    );
    // As the kernel finds it (lib/earlycpio.c): by its name in the plain bytes, content behind.
    let (entries, _) = cpio::read(&bytes).unwrap();
    let path = "kernel/x86/microcode/GenuineIntel.bin";
    let microcode = entries.iter().find(|entry| entry.name == path).unwrap();
    assert_eq!(microcode.data, blob);
    let offset = microcode.data.as_ptr() as usize - bytes.as_ptr() as usize;
    assert_eq!(offset % 16, 0);
    assert_eq!(listing.members[1].offset % 4, 0);
    let file = listing.files.iter().find(|file| file.path == path).unwrap();
    assert_eq!(file.reason.as_deref(), Some("1 file of intel-ucode"));
    assert!(
        listing
            .files
            .iter()
            .all(|file| file.member == 0 || !file.path.starts_with("kernel"))
    );
    assert!(build(&spec).unwrap().up_to_date);
    spec.max_size = Some(without.bytes);
    assert!(build(&spec).is_err());
}

#[test]
fn archives_are_appended_as_they_are_and_listed() {
    let lab = lab();
    let archive = |name: &str| {
        let entry = cpio::Entry {
            name,
            mode: cpio::S_IFREG | 0o644,
            rdev: (0, 0),
            data: b"data",
        };
        cpio::write([entry].into_iter(), 0).unwrap()
    };
    lab.write("one.cpio", archive("init"));
    let two = [gzip(&archive("lib/modules/x/a.ko")), archive("b")].concat();
    lab.write("two.cpio", &two);
    let mut spec = lab.spec();
    spec.appended = vec![lab.path("one.cpio"), lab.path("two.cpio")];
    let built = build(&spec).unwrap();
    let listing = list(&lab.path("out/default.img")).unwrap();
    let names: Vec<&str> = listing
        .members
        .iter()
        .map(|part| part.name.as_deref().unwrap())
        .collect();
    assert_eq!(
        names,
        ["drivers", "system", "one.cpio", "two.cpio", "two.cpio"]
    );
    assert_eq!(listing.members[2].offset % 4, 0);
    let of = |path: &str| {
        let files = listing.files.iter().filter(|file| file.path == path);
        files.map(|file| file.reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("init"), [None, Some("appended one.cpio".to_owned())]);
    assert_eq!(
        of("lib/modules/x/a.ko"),
        [Some("appended two.cpio".to_owned())]
    );
    let bytes = fs::read(lab.path("out/default.img")).unwrap();
    assert!(bytes.ends_with(&two));
    assert!(build(&spec).unwrap().up_to_date);
    lab.write("one.cpio", archive("other"));
    let after = build(&spec).unwrap();
    assert_eq!(after.manifest.members[..2], built.manifest.members[..2]);
}

#[test]
fn what_can_not_be_appended_is_refused() {
    let lab = lab();
    lab.write("text.cpio", "rubbish");
    lab.write("empty.cpio", "");
    let mut spec = lab.spec();
    spec.appended = ["text.cpio", "empty.cpio", "gone.cpio"]
        .map(|name| lab.path(name))
        .to_vec();
    let text = build(&spec).unwrap_err().to_string();
    for expected in [
        "text.cpio: unknown compression (known: gzip, xz, zstd); it must be a newc archive",
        "empty.cpio: it is empty",
        "read archive ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn files_of_the_list_have_a_member_of_their_own() {
    let lab = lab();
    lab.write("tool", super::super::testing::executable(None));
    lab.chmod("tool", 0o755);
    lab.write("initrd/site.conf", "x");
    let tool = lab.path("tool");
    let text = format!("site.conf /etc/site.conf\n{} /usr/bin/\n", tool.display());
    lab.write("initrd/files.list", text);
    let before = build(&lab.spec()).unwrap();
    let listing = list(&lab.path("out/default.img")).unwrap();
    let files = listing.files.iter().filter(|file| file.member == 1);
    let files: Vec<(&str, Option<&str>)> = files
        .map(|file| (file.path.as_str(), file.reason.as_deref()))
        .collect();
    assert_eq!(
        files,
        [
            ("etc", None),
            ("etc/site.conf", Some("listed in files.list:1")),
            ("usr", None),
            ("usr/bin", None),
            ("usr/bin/tool", Some("listed in files.list:2")),
        ]
    );
    lab.write("initrd/tree/lib/stages/net.sh", "false\n");
    let after = build(&lab.spec()).unwrap();
    assert_eq!(after.manifest.members[..2], before.manifest.members[..2]);
    lab.write("tool", "#!/bin/bash\n");
    let text = build(&lab.spec()).unwrap_err().to_string();
    assert!(
        text.contains("(listed in files.list:2) needs /bin/bash to run"),
        "{text}"
    );
}

#[test]
fn what_is_no_initrd_is_refused() {
    let lab = Lab::new();
    for (bytes, expected) in [
        (&b"rubbish"[..], "unpack the member at offset 0"),
        (&b"070701"[..], "read the cpio archive at offset 0"),
    ] {
        lab.write("bad.img", bytes);
        let text = list(&lab.path("bad.img")).unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
    }
    let text = list(&lab.path("none.img")).unwrap_err().to_string();
    assert!(text.starts_with("read initrd"), "{text}");
    let text = "text that is no archive, ".repeat(9);
    lab.write("cut.img", gzip(text.as_bytes()));
    assert!(
        list(&lab.path("cut.img"))
            .unwrap_err()
            .to_string()
            .contains("no newc header")
    );
}

#[test]
fn totals_and_reasons_are_there_without_a_manifest_too() {
    let lab = lab();
    lab.write("initrd/tree/lib/bridgehead/stages/30-nic", "note ok\n");
    lab.write("initrd/hooks/nic.d/10-leds", "#!/bin/sh\n");
    lab.chmod("initrd/hooks/nic.d/10-leds", 0o755);
    build(&lab.spec()).unwrap();
    let image = lab.path("out/default.img");
    let with = list(&image).unwrap();
    fs::rename(&image, lab.path("copy.img")).unwrap();
    let without = list(&lab.path("copy.img")).unwrap();
    assert_eq!(with.totals, without.totals);
    let total = |kind: Kind| {
        without
            .totals
            .iter()
            .find(|total| total.kind == kind)
            .unwrap()
    };
    assert_eq!(
        (total(Kind::Module).files, total(Kind::Firmware).bytes),
        (2, 8)
    );
    let reason = |listing: &Listing, end: &str| {
        let file = listing
            .files
            .iter()
            .find(|file| file.path.ends_with(end))
            .unwrap();
        file.reason.clone()
    };
    let hook = "lib/bridgehead/hooks/nic.d/10-leds";
    assert_eq!(reason(&with, hook).as_deref(), Some("hook after nic"));
    assert_eq!(
        reason(&with, "igb.ko").as_deref(),
        Some("listed in modules.list:1")
    );
    assert_eq!(reason(&without, "igb.ko"), None);
    assert_eq!(reason(&without, "dca.ko").as_deref(), Some("igb needs it"));
    assert!(without.no_manifest.is_some());
}

#[test]
fn a_hook_whose_shell_is_not_in_the_image_is_refused() {
    let lab = lab();
    lab.write("initrd/tree/lib/bridgehead/stages/30-nic", "note ok\n");
    lab.write("initrd/hooks/nic.d/10-leds", "#!/bin/bash\n");
    lab.chmod("initrd/hooks/nic.d/10-leds", 0o755);
    let text = build(&lab.spec()).unwrap_err().to_string();
    assert!(
        text.contains("10-leds`: (hook after nic) needs /bin/bash to run"),
        "{text}"
    );
}

#[test]
fn nics_that_nothing_drives_are_warned_of() {
    let lab = lab();
    let mut spec = lab.spec();
    spec.nics = Nics::from([("8086:1572".parse().unwrap(), vec!["kvm01".into()])]);
    let built = build(&spec).unwrap();
    let text = built.warnings.last().unwrap().to_string();
    assert!(
        text.contains("the NIC 8086:1572 of kvm01, and kernel"),
        "{text}"
    );
}
