//! Runs `initrd/test/run`: the shell tests of the initrd's library, in `BusyBox` as in the image.

use std::path::Path;
use std::process::Command;

#[test]
fn the_initrds_library_passes_its_tests() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("initrd/test/run");
    let output = Command::new(&script)
        .output()
        .unwrap_or_else(|error| panic!("start {}: {error}", script.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");
}
