//! What the lists of the site name.

use super::*;

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
    lab.write("lustre/lnet.ko", crate::initrd::testing::module(&[]));
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
    let bytes = crate::initrd::testing::module(&[("depends", "igb"), ("alias", "lnet-x")]);
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
fn files_of_the_list_have_a_member_of_their_own() {
    let lab = lab();
    lab.write("tool", crate::initrd::testing::executable(None));
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
