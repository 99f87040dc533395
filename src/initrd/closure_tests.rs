use super::super::compress::{pack_zstd, tests::gzip, tests::xz};
use super::super::testing::{Lab, module};
use super::*;

fn close(lab: &Lab) -> Result<Closure, BuildError> {
    lab.close(&Catalog::read(&lab.kernel_dir(), &[])?)
}

fn names(closure: &Closure) -> Vec<&str> {
    closure.modules.keys().map(String::as_str).collect()
}

#[test]
fn takes_dependencies_softdeps_and_their_dependencies() {
    let lab = Lab::new();
    lab.module("kernel/r8169.ko", &["kernel/libphy.ko"], &[]);
    lab.module("kernel/libphy.ko", &[], &[]);
    lab.module(
        "kernel/realtek.ko",
        &["kernel/libphy.ko", "kernel/swphy.ko"],
        &[],
    );
    lab.module("kernel/swphy.ko", &[], &[]);
    lab.module("kernel/after.ko", &["kernel/r8169.ko"], &[]);
    lab.module("kernel/weak.ko", &[], &[]);
    lab.module("kernel/other.ko", &[], &[]);
    lab.append("modules.softdep", "softdep r8169 pre: realtek post: after");
    lab.append("modules.weakdep", "weakdep realtek weak absent");
    lab.list("r8169\n");
    let closure = close(&lab).unwrap();
    assert_eq!(
        names(&closure),
        ["after", "libphy", "r8169", "realtek", "swphy", "weak"]
    );
    let reason = |name: &str| closure.modules[name].reason.to_string();
    assert_eq!(reason("r8169"), "listed in modules.list:1");
    assert_eq!(reason("libphy"), "r8169 needs it");
    assert_eq!(reason("realtek"), "soft dependency of r8169");
    assert_eq!(reason("swphy"), "realtek needs it");
    assert_eq!(reason("weak"), "weak dependency of realtek");
    assert!(closure.warnings.is_empty());
}

#[test]
fn a_softdep_by_alias_takes_every_provider() {
    let lab = Lab::new();
    lab.module("kernel/libcrc32c.ko", &[], &[]);
    lab.module("kernel/crc32c-intel.ko", &[], &[]);
    lab.module("kernel/crc32c_generic.ko", &[], &[]);
    lab.append("modules.alias", "alias crc32c crc32c_intel");
    lab.append("modules.alias", "alias crc32c crc32c_generic");
    lab.append("modules.softdep", "softdep libcrc32c pre: crc32c");
    lab.list("libcrc32c\n");
    assert_eq!(
        names(&close(&lab).unwrap()),
        ["crc32c_generic", "crc32c_intel", "libcrc32c"]
    );
}

#[test]
fn builtin_satisfies_a_line_and_a_dependency() {
    let lab = Lab::new();
    lab.module("kernel/a.ko", &["kernel/lib/gone.ko"], &[]);
    lab.append("modules.builtin", "kernel/net/packet/af_packet.ko");
    lab.append("modules.builtin", "kernel/lib/gone.ko");
    lab.list("af-packet\na\n");
    let closure = close(&lab).unwrap();
    assert_eq!(names(&closure), ["a"]);
    assert!(closure.builtin.contains_key("af_packet"));
}

#[test]
fn arrow_rules_fire_for_dependencies_too() {
    let lab = Lab::new();
    lab.module("kernel/lustre.ko", &["kernel/lnet.ko"], &[]);
    lab.module("kernel/lnet.ko", &[], &[]);
    lab.module("kernel/ksocklnd.ko", &["kernel/lnet.ko"], &[]);
    lab.list("lustre\nlnet -> ksocklnd ko2iblnd?\n");
    let closure = close(&lab).unwrap();
    assert_eq!(names(&closure), ["ksocklnd", "lnet", "lustre"]);
    assert_eq!(
        closure.modules["ksocklnd"].reason.to_string(),
        "lnet requests it (modules.list:2)"
    );
    lab.list("lustre\nlnet -> ksocklmd\n");
    let text = close(&lab).unwrap_err().to_string();
    assert!(
        text.starts_with(lab.path("initrd/modules.list:2").to_str().unwrap()),
        "{text}"
    );
    assert!(text.contains("nearest names: ksocklnd"), "{text}");
}

#[test]
fn a_missing_required_module_is_named_with_its_neighbours() {
    let lab = Lab::new();
    lab.module("kernel/igb.ko", &[], &[]);
    lab.module("kernel/igbvf.ko", &[], &[]);
    lab.list("# NICs\nigbb\n");
    let list = lab.path("initrd/modules.list");
    let modules = lab.path("kernel/modules");
    assert_eq!(
        close(&lab).unwrap_err().to_string(),
        format!(
            "{}:2: required module `igbb` is not in kernel 6.1.0-test ({}); nearest names: igb, igbvf; \
             correct the name, enable the driver in the kernel, or mark the line `optional`",
            list.display(),
            modules.display()
        )
    );
}

#[test]
fn an_optional_line_is_left_out_whole() {
    let lab = Lab::new();
    lab.module("kernel/a.ko", &["kernel/b.ko", "kernel/c.ko"], &[]);
    lab.module("kernel/b.ko", &[], &[]);
    lab.list("a optional\nnone optional\n");
    let closure = close(&lab).unwrap();
    assert!(closure.modules.is_empty());
    let texts: Vec<String> = closure.warnings.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("module `a` needs `c`"), "{texts:?}");
    assert!(texts[1].starts_with("left out `none`"), "{texts:?}");
}

#[test]
fn a_module_file_that_is_gone_or_damaged_is_named() {
    let lab = Lab::new();
    lab.module("kernel/a.ko", &[], &[]);
    lab.list("a\n");
    lab.write("kernel/modules/kernel/a.ko", "rubbish");
    assert!(
        close(&lab)
            .unwrap_err()
            .to_string()
            .contains("a.ko: not an ELF file")
    );
    std::fs::remove_file(lab.path("kernel/modules/kernel/a.ko")).unwrap();
    assert!(
        close(&lab)
            .unwrap_err()
            .to_string()
            .starts_with("cannot read module ")
    );
}

#[test]
fn every_compression_is_read() {
    let lab = Lab::new();
    let plain = module(&[("license", "GPL")]);
    let packed = [
        ("a.ko", plain.clone()),
        ("b.ko.gz", gzip(&plain)),
        ("c.ko.xz", xz(&plain)),
        ("d.ko.zst", pack_zstd(&plain, 3).unwrap()),
    ];
    for (file, bytes) in &packed {
        lab.write(&format!("kernel/modules/kernel/{file}"), bytes);
        lab.append("modules.dep", &format!("kernel/{file}:"));
    }
    lab.list("a\nb\nc\nd\n");
    let closure = close(&lab).unwrap();
    assert_eq!(closure.modules.len(), 4);
    assert!(
        closure
            .modules
            .values()
            .all(|chosen| chosen.loaded.bytes == plain)
    );
}

#[test]
fn required_firmware_stops_the_build_and_names_the_package() {
    let lab = Lab::new();
    lab.module("kernel/bnx2x.ko", &[], &[("firmware", "bnx2x/e2.fw")]);
    lab.list("bnx2x firmware=required\n");
    let text = close(&lab).unwrap_err().to_string();
    assert!(
        text.contains("modules.list:1: module `bnx2x` names firmware that is not in ")
            && text
                .contains("/kernel/firmware: bnx2x/e2.fw; package firmware-bnx2x usually holds it")
            && text.ends_with("/initrd/firmware"),
        "{text}"
    );
    lab.list("bnx2x optional firmware=required\n");
    assert!(close(&lab).unwrap().modules.is_empty());
    lab.write("kernel/firmware/bnx2x/e2.fw", "fw");
    assert_eq!(names(&close(&lab).unwrap()), ["bnx2x"]);
}

#[test]
fn the_strictest_firmware_policy_holds() {
    let lab = Lab::new();
    lab.module("kernel/a.ko", &["kernel/lib.ko"], &[]);
    lab.module("kernel/b.ko", &["kernel/lib.ko"], &[]);
    lab.module("kernel/lib.ko", &[], &[]);
    lab.list("a firmware=none\nb\n");
    let closure = close(&lab).unwrap();
    assert_eq!(closure.modules["a"].firmware, FirmwarePolicy::None);
    assert_eq!(closure.modules["lib"].firmware, FirmwarePolicy::Optional);
}

#[test]
fn cycles_end() {
    let lab = Lab::new();
    lab.module("kernel/a.ko", &["kernel/b.ko"], &[]);
    lab.module("kernel/b.ko", &["kernel/a.ko"], &[]);
    lab.append("modules.softdep", "softdep a pre: a b");
    lab.list("a\n");
    assert_eq!(names(&close(&lab).unwrap()), ["a", "b"]);
}
