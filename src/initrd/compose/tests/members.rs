//! The members of an image, and what they hold.

use super::*;

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
    image.extend(crate::initrd::compress::pack_zstd(&archive("zstd"), 3).unwrap());
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
        "cannot read archive ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn what_is_no_initrd_is_refused() {
    let lab = Lab::new();
    for (bytes, expected) in [
        (&b"rubbish"[..], "cannot unpack the member at offset 0"),
        (&b"070701"[..], "cannot read the cpio archive at offset 0"),
    ] {
        lab.write("bad.img", bytes);
        let text = list(&lab.path("bad.img")).unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
    }
    let text = list(&lab.path("none.img")).unwrap_err().to_string();
    assert!(text.starts_with("cannot read initrd"), "{text}");
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
