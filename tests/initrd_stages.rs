//! Runs `initrd/test/run`, the shell tests of the initrd's library in `BusyBox` as in the image, and
//! `initrd/test/network`, the network stages on this machine's kernel.
#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("initrd/test")
}

/// Runs a script that must succeed; gives what it said.
fn run(script: &str, arguments: &[&str]) -> String {
    let script = tests().join(script);
    let output = Command::new(&script)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("start {}: {error}", script.display()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");
    said
}

#[test]
fn the_initrds_library_passes_its_tests() {
    run("run", &[]);
}

/// Those that this kernel has the devices for, and that don't wait for a spanning tree; `make test-boot` runs all of
/// them on Debian's kernel.
#[test]
fn the_network_stages_pass_on_this_kernel() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: network namespaces need root; run it with sudo");
        return;
    }
    let cases = std::fs::read_to_string(tests().join("network-cases")).unwrap();
    let names = cases.lines().filter_map(|line| line.strip_suffix("() {"));
    let names = names.filter(|name| name.starts_with("case_") && !name.contains("_after_50_s"));
    let said = run("network", &names.collect::<Vec<_>>());
    assert!(said.contains("ok      case_plain_nic\n"), "{said}");
}
