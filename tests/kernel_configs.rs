//! `kernel-configs/fragments.awk`: what it merges, what it lets pass and what it refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel-configs/fragments.awk")
}

/// Files of one check, by the names under which faults tell of them.
struct Room(tempfile::TempDir);

impl Room {
    fn new(final_config: &str, fragments: &[(&str, &str)]) -> Self {
        let room = Self(tempfile::tempdir().expect("a directory"));
        room.write("result", final_config);
        for (name, text) in fragments {
            room.write(name, text);
        }
        room
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("the file is written");
    }

    fn awk(&self, words: &[&str]) -> Output {
        let mut awk = Command::new("awk");
        awk.current_dir(self.0.path()).args(["-v", words[0]]);
        awk.args(["-v", "final=result", "-v", "whitelist=whitelist", "-f"]);
        awk.arg(script()).args(&words[1..]);
        awk.output().expect("awk runs")
    }

    fn check(&self, files: &[&str]) -> (bool, String, String) {
        let done = self.awk(&[&["mode=check", "result"], files].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            done.status.success(),
            text(&done.stdout),
            text(&done.stderr),
        )
    }
}

const RESULT: &str = "#\n# made\n#\nCONFIG_BRIDGE=y\n# CONFIG_SOUND is not set\nCONFIG_TUN=m\n\
                      CONFIG_NR_CPUS=512\nCONFIG_LSM=\"yama,bpf\"\n";

#[test]
fn every_kind_of_line_holds() {
    let fragment = "# why\n\nCONFIG_BRIDGE=y # the root\n# CONFIG_SOUND is not set # no ears\n\
                    # CONFIG_ABSENT is not set\nCONFIG_TUN=m\nCONFIG_NR_CPUS=512\nCONFIG_LSM=\"yama,bpf\" # order\n";
    let room = Room::new(RESULT, &[("a.config", fragment)]);
    let (good, told, faults) = room.check(&["a.config"]);
    assert!(good, "{faults}");
    assert_eq!(told, "6 lines hold, 0 excused, 0 said twice\n");
}

#[test]
fn a_line_that_does_not_hold_is_named_with_what_is_there() {
    let fragment = "CONFIG_BRIDGE=m\nCONFIG_GONE=y\n# CONFIG_TUN is not set\nCONFIG_NR_CPUS=64\n";
    let room = Room::new(RESULT, &[("a.config", fragment)]);
    let (good, _, faults) = room.check(&["a.config"]);
    assert!(!good);
    for line in [
        "a.config:1: does not hold: CONFIG_BRIDGE=m (the result has CONFIG_BRIDGE=y)",
        "a.config:2: does not hold: CONFIG_GONE=y (the result has no CONFIG_GONE)",
        "a.config:3: does not hold: # CONFIG_TUN is not set (the result has CONFIG_TUN=m)",
        "a.config:4: does not hold: CONFIG_NR_CPUS=64 (the result has CONFIG_NR_CPUS=512)",
    ] {
        assert!(faults.contains(line), "{line} is not in\n{faults}");
    }
}

#[test]
fn a_whitelist_excuses_with_a_reason_only() {
    let room = Room::new(RESULT, &[("a.config", "CONFIG_GONE=y\n")]);
    room.write(
        "whitelist",
        "CONFIG_GONE=y # merged into BRIDGE\nCONFIG_TUN=y # once\n",
    );
    let (good, told, faults) = room.check(&["whitelist", "a.config"]);
    assert!(good, "{faults}");
    assert!(
        told.contains("whitelist:2: not needed any more: CONFIG_TUN=y"),
        "{told}"
    );
    assert!(told.contains("1 lines hold, 2 excused"), "{told}");
    room.write("whitelist", "CONFIG_GONE=y\n");
    let (good, _, faults) = room.check(&["whitelist", "a.config"]);
    assert!(!good);
    assert!(faults.contains("whitelist:1: no reason"), "{faults}");
}

#[test]
fn fragments_that_differ_are_reported_and_the_one_that_lost_fails() {
    let fragments = [
        ("a.config", "CONFIG_TUN=y\nCONFIG_BRIDGE=y\n"),
        ("b.config", "CONFIG_BRIDGE=y\nCONFIG_TUN=m\n"),
    ];
    let room = Room::new(RESULT, &fragments);
    let (good, told, faults) = room.check(&["a.config", "b.config"]);
    assert!(!good);
    assert!(
        told.contains("redefined: CONFIG_TUN=y (a.config:1) by CONFIG_TUN=m (b.config:2)"),
        "{told}"
    );
    assert!(
        faults.contains("a.config:1: does not hold: CONFIG_TUN=y"),
        "{faults}"
    );
}

#[test]
fn what_is_no_setting_is_refused() {
    let fragment = "CONFIG BRIDGE=y\n# CONFIG_TUN is not st\nCONFIG_BRIDGE=y because\n";
    let room = Room::new(RESULT, &[("a.config", fragment)]);
    let (good, _, faults) = room.check(&["a.config"]);
    assert!(!good);
    for line in [
        "a.config:1: no setting",
        "a.config:2: not \"#",
        "a.config:3: after the value",
    ] {
        assert!(faults.contains(line), "{line} is not in\n{faults}");
    }
}

/// The kernel's build system reads an unset option by its exact words, and no comment behind a value.
#[test]
fn the_merged_file_holds_settings_alone() {
    let room = Room::new(
        "",
        &[(
            "a.config",
            "# why\nCONFIG_BRIDGE=y # the root\n# CONFIG_SOUND is not set # no ears\n",
        )],
    );
    let done = room.awk(&["mode=merge", "a.config"]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(text, "CONFIG_BRIDGE=y\n# CONFIG_SOUND is not set\n");
}
