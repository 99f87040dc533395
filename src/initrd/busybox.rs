//! Static BusyBox and a link for each applet that it has.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::elf::Elf;
use super::error::{BuildError, Warning};
use super::tree::{Item, Tree};

/// Where the binary stands in the image.
pub(crate) const PATH: &str = "bin/busybox";

/// Applets without which no stage runs; `sbin/modprobe` is also what the kernel starts.
const REQUIRED: [&str; 4] = ["bin/sh", "bin/mount", "sbin/modprobe", "sbin/switch_root"];

/// Taken when the binary can't be asked: made for another architecture, or not executable here.
const USUAL: &[&str] = &[
    "bin/ash",
    "bin/cat",
    "bin/chmod",
    "bin/chown",
    "bin/cp",
    "bin/cpio",
    "bin/cttyhack",
    "bin/date",
    "bin/dd",
    "bin/df",
    "bin/dmesg",
    "bin/echo",
    "bin/egrep",
    "bin/false",
    "bin/fgrep",
    "bin/grep",
    "bin/gunzip",
    "bin/gzip",
    "bin/hostname",
    "bin/ip",
    "bin/kill",
    "bin/ln",
    "bin/ls",
    "bin/mkdir",
    "bin/mknod",
    "bin/mktemp",
    "bin/more",
    "bin/mount",
    "bin/mv",
    "bin/netstat",
    "bin/ping",
    "bin/ps",
    "bin/pwd",
    "bin/rm",
    "bin/rmdir",
    "bin/sed",
    "bin/sh",
    "bin/sleep",
    "bin/stat",
    "bin/stty",
    "bin/sync",
    "bin/tar",
    "bin/touch",
    "bin/true",
    "bin/umount",
    "bin/uname",
    "bin/usleep",
    "bin/vi",
    "bin/zcat",
    "sbin/arp",
    "sbin/blkid",
    "sbin/depmod",
    "sbin/halt",
    "sbin/ifconfig",
    "sbin/insmod",
    "sbin/klogd",
    "sbin/losetup",
    "sbin/lsmod",
    "sbin/mdev",
    "sbin/modinfo",
    "sbin/modprobe",
    "sbin/pivot_root",
    "sbin/poweroff",
    "sbin/reboot",
    "sbin/rmmod",
    "sbin/route",
    "sbin/switch_root",
    "sbin/sysctl",
    "sbin/syslogd",
    "sbin/udhcpc",
    "sbin/watchdog",
    "usr/bin/[",
    "usr/bin/[[",
    "usr/bin/awk",
    "usr/bin/basename",
    "usr/bin/clear",
    "usr/bin/cmp",
    "usr/bin/cut",
    "usr/bin/diff",
    "usr/bin/dirname",
    "usr/bin/du",
    "usr/bin/env",
    "usr/bin/expr",
    "usr/bin/find",
    "usr/bin/free",
    "usr/bin/head",
    "usr/bin/hexdump",
    "usr/bin/id",
    "usr/bin/killall",
    "usr/bin/less",
    "usr/bin/logger",
    "usr/bin/md5sum",
    "usr/bin/nc",
    "usr/bin/nohup",
    "usr/bin/nslookup",
    "usr/bin/od",
    "usr/bin/pgrep",
    "usr/bin/pkill",
    "usr/bin/printf",
    "usr/bin/readlink",
    "usr/bin/realpath",
    "usr/bin/reset",
    "usr/bin/seq",
    "usr/bin/setsid",
    "usr/bin/sha256sum",
    "usr/bin/sort",
    "usr/bin/strings",
    "usr/bin/tail",
    "usr/bin/tee",
    "usr/bin/test",
    "usr/bin/tftp",
    "usr/bin/time",
    "usr/bin/timeout",
    "usr/bin/top",
    "usr/bin/tr",
    "usr/bin/traceroute",
    "usr/bin/tty",
    "usr/bin/uniq",
    "usr/bin/unxz",
    "usr/bin/uptime",
    "usr/bin/wc",
    "usr/bin/wget",
    "usr/bin/which",
    "usr/bin/xargs",
    "usr/bin/xzcat",
    "usr/bin/yes",
    "usr/sbin/arping",
    "usr/sbin/brctl",
    "usr/sbin/chroot",
];

/// Packs the binary and its links; a path that the source tree has taken stays the tree's.
///
/// Returns the ELF machine, and a warning if the links are a guess.
pub(crate) fn add(tree: &mut Tree, path: &Path) -> Result<(u16, Option<Warning>), BuildError> {
    let bad = |problem: String| BuildError::Busybox {
        path: path.to_owned(),
        problem,
    };
    let bytes = fs::read(path).map_err(BuildError::io("read busybox", path))?;
    let elf = Elf::new(&bytes).map_err(|problem| bad(problem.to_string()))?;
    if let Some(interpreter) = elf
        .interpreter()
        .map_err(|problem| bad(problem.to_string()))?
    {
        return Err(bad(format!(
            "is dynamically linked (it wants {interpreter})"
        )));
    }
    let machine = elf.machine();
    let (applets, warning) = match ask(path) {
        Ok(applets) => (applets, None),
        Err(because) => (usual(), Some(Warning::Applets { because })),
    };
    if let Some(lacking) = REQUIRED
        .iter()
        .find(|applet| !applets.iter().any(|have| have == *applet))
    {
        return Err(bad(format!("has no applet /{lacking}")));
    }
    tree.insert_new(PATH, Item::file(0o755, bytes))?;
    for applet in applets {
        tree.insert_new(&applet, Item::symlink(link_target(&applet)))?;
    }
    Ok((machine, warning))
}

fn usual() -> Vec<String> {
    USUAL.iter().map(|path| (*path).to_owned()).collect()
}

/// From `usr/bin/awk` to `../../bin/busybox`: right wherever the image is unpacked.
fn link_target(applet: &str) -> String {
    let up = "../".repeat(applet.matches('/').count());
    match applet.strip_prefix("bin/") {
        Some(name) if !name.contains('/') => "busybox".to_owned(),
        _ => format!("{up}{PATH}"),
    }
}

/// The applets' paths without leading `/`, sorted.
fn ask(path: &Path) -> Result<Vec<String>, String> {
    const ENOUGH: u64 = 64 << 10;
    let path = fs::canonicalize(path).map_err(|error| error.to_string())?;
    // The name decides what a multi-call binary does, whatever the file is called.
    let mut child = Command::new(path)
        .arg0("busybox")
        .arg("--list-full")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(ENOUGH).read_to_string(&mut text),
        None => Ok(0),
    };
    // What has not ended by itself, having closed its output or printed too much, is no busybox.
    drop(child.kill());
    child.wait().map_err(|error| error.to_string())?;
    read.map_err(|error| error.to_string())?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.+-[".contains(&byte);
    let mut applets = Vec::new();
    for line in text
        .lines()
        .filter(|line| *line != "busybox" && *line != PATH)
    {
        let parts_fit = line.split('/').all(|part| !part.is_empty() && part != "..");
        if !parts_fit || !line.bytes().all(fits) {
            return Err(format!("`{line}` is no applet's path"));
        }
        applets.push(line.to_owned());
    }
    if applets.is_empty() {
        return Err("it printed nothing for --list-full".to_owned());
    }
    applets.sort();
    applets.dedup();
    Ok(applets)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Lab, executable};
    use super::super::tree::Node;
    use super::*;

    #[test]
    fn links_are_relative_and_the_trees_files_stay() {
        let lab = Lab::new();
        let mut tree = Tree::default();
        let own = Item::file(0o755, b"own".to_vec());
        tree.insert("bin/cat", own.clone()).unwrap();
        let (machine, warning) = add(&mut tree, &lab.path("busybox")).unwrap();
        assert_eq!(machine, 62);
        assert!(matches!(warning, Some(Warning::Applets { .. })));
        let link = |path: &str| tree.0[path].node.clone();
        assert_eq!(link("bin/sh"), Node::Symlink("busybox".into()));
        assert_eq!(
            link("sbin/modprobe"),
            Node::Symlink("../bin/busybox".into())
        );
        assert_eq!(link("usr/bin/["), Node::Symlink("../../bin/busybox".into()));
        assert_eq!(tree.0["bin/cat"], own);
    }

    #[test]
    fn a_dynamic_busybox_is_refused() {
        let lab = Lab::new();
        lab.write("bb", executable(Some("/lib64/ld-linux-x86-64.so.2")));
        let error = add(&mut Tree::default(), &lab.path("bb")).unwrap_err();
        assert!(error.to_string().contains("dynamically linked"), "{error}");
        lab.write("bb", "#!/bin/sh");
        let error = add(&mut Tree::default(), &lab.path("bb")).unwrap_err();
        assert!(error.to_string().contains("not an ELF file"), "{error}");
    }

    #[test]
    fn applet_paths_are_checked() {
        assert_eq!(
            parse("usr/bin/[\nbin/sh\nbin/busybox\n").unwrap(),
            ["bin/sh", "usr/bin/["]
        );
        assert!(parse("").is_err());
        assert!(parse("../etc/passwd").is_err());
        assert!(parse("/bin/sh").is_err());
    }

    #[test]
    fn the_usual_applets_hold_the_required() {
        assert!(REQUIRED.iter().all(|applet| USUAL.contains(applet)));
    }
}
