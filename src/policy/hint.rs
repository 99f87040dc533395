//! Known failures in what a machine last said: hints for a person, never state.

use serde::{Deserialize, Serialize};

use crate::wire::text::clean;

/// Hints of one text; more would bury the first.
const MOST: usize = 3;
/// A line is cut to this, characters.
const MAX_LINE: usize = 200;

/// A line that is known, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The line, without control characters.
    pub line: String,
    /// What it means.
    pub means: String,
    /// The next thing to try.
    pub next: String,
}

/// Words of a line (in small letters), what they mean, what to try. The first that fits counts: special before general.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "unable to mount root fs",
        "the kernel ran without its initrd: it was not loaded, or could not be unpacked",
        "look whether the machine has enough memory, and whether the initrd is of this kernel (`bridgehead initrd list`)",
    ),
    (
        "initramfs unpacking failed",
        "the initrd could not be unpacked: too little memory, or a kernel that can't read its compression",
        "give the machine more memory, or build the initrd with the kernel's own compression",
    ),
    (
        "deadlocked on memory",
        "the machine has too little memory for its initrd",
        "give it more memory, or make the initrd smaller",
    ),
    (
        "out of memory",
        "memory ran out and the kernel killed a program",
        "give the machine more memory, or lower `overlay` of its profile",
    ),
    (
        "attempted to kill init",
        "the first program ended, and the kernel with it",
        "the lines before it say why; then build the initrd or the root anew",
    ),
    (
        "no working init found",
        "there is no program to start: the initrd or the root is incomplete",
        "build the initrd (`make initrd`) or the root (`make root`) anew",
    ),
    (
        "kernel panic",
        "the kernel gave up",
        "the lines before it say why; try another kernel (`kernel` of the profile)",
    ),
    (
        "hardware error",
        "the processor or the memory reported a fault of the hardware",
        "run a memory test, and look into the machine's own log (BMC)",
    ),
    (
        "loading of unsigned module is rejected",
        "Secure Boot is on, and a module is not signed by a key that the kernel knows",
        "take a module of the kernel's own packages, sign it, or switch Secure Boot off",
    ),
    (
        "security violation",
        "Secure Boot refused a file whose signature it does not know",
        "say `loader: grub` (shim, signed) in the profile, or switch Secure Boot off",
    ),
    (
        "stale file handle",
        "the root image was changed or removed under the running host",
        "reboot the host; build new images beside the old ones",
    ),
    (
        "not responding",
        "the server of the root or the pool does not answer",
        "look whether that server runs and is reached from the host's bridge",
    ),
    (
        "no lease, failing",
        "nobody answered the host's DHCP questions",
        "look at the switch port (VLAN, spanning tree) and for `dhcp: off` on the network",
    ),
    (
        "no configuration methods succeeded",
        "nobody answered the loader's DHCP questions",
        "look at the switch port: one that forwards late (spanning tree) needs `portfast`",
    ),
    (
        "dracut-emergency",
        "another initrd than ours runs, and gave up",
        "look at `initrd` of the profile, and who else answers DHCP (`bridgehead check --live`)",
    ),
    (
        "emergency mode",
        "the root's systemd could not start all that it must, and waits at a shell",
        "look at the host's console: `systemctl --failed` there says what",
    ),
    (
        "emergency shell",
        "the boot gave up and waits at a shell",
        "look at the host's console",
    ),
    (
        "pxe-e32",
        "the firmware asked for the loader by TFTP and heard nothing",
        "look for a firewall: UDP 69 and the high ports of the answer",
    ),
    (
        "pxe-e51",
        "the firmware heard no DHCP offer",
        "look at the cable, the VLAN, and the relay if there is one",
    ),
    (
        "pxe-e53",
        "a DHCP server answered without a boot file",
        "another DHCP server may be first: `bridgehead check --live`",
    ),
    (
        "pxe-e18",
        "the server of the loader did not answer: the way back is broken",
        "look at the router that the network names, and for replies that leave by another NIC",
    ),
    (
        "pxe-e16",
        "the firmware heard no offer that names something to boot",
        "`bridgehead explain HOST` shows what is offered; look for another DHCP server",
    ),
];

/// The hints in a text, oldest first; the newest few of them.
pub fn hints(text: &str) -> Vec<Hint> {
    let mut found: Vec<Hint> = Vec::new();
    for hint in text.lines().filter_map(hint) {
        found.retain(|known| known.means != hint.means);
        found.push(hint);
    }
    found.split_off(found.len().saturating_sub(MOST))
}

fn hint(line: &str) -> Option<Hint> {
    let said = || clean(line, MAX_LINE);
    if let Some(code) = ipxe_code(line) {
        let (means, next) = ipxe_error(code);
        let page = format!("{next}; https://ipxe.org/{code:08x} says more");
        return Some(Hint {
            line: said(),
            means: means.to_owned(),
            next: page,
        });
    }
    let small = line.to_ascii_lowercase();
    let (_, means, next) = KNOWN.iter().find(|(words, ..)| small.contains(words))?;
    Some(Hint {
        line: said(),
        means: (*means).to_owned(),
        next: (*next).to_owned(),
    })
}

/// The error number in `https://ipxe.org/2d0c613b`.
fn ipxe_code(line: &str) -> Option<u32> {
    let (_, behind) = line.split_once("ipxe.org/")?;
    let digits = behind.get(..8)?;
    let ends = behind[8..]
        .chars()
        .next()
        .is_none_or(|c| !c.is_alphanumeric());
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    (ends && hex)
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

/// What iPXE's error means, and where more is said of it.
pub fn ipxe_failure(code: u32) -> String {
    let (means, _) = ipxe_error(code);
    format!("{means} (https://ipxe.org/{code:08x})")
}

/// What to try after iPXE's error, where a message names one.
pub fn after_ipxe_failure(message: &str) -> Option<&'static str> {
    let (_, next) = ipxe_error(ipxe_code(message)?);
    Some(next)
}

/// iPXE's numbers carry a POSIX error in their highest byte (`include/errno.h`).
fn ipxe_error(code: u32) -> (&'static str, &'static str) {
    match code >> 24 {
        0x02 | 0x41 => (
            "iPXE was refused the file, or may not run it",
            "`bridgehead log HOST` says who was refused and why; with Secure Boot on, say `loader: grub`",
        ),
        0x04 => (
            "iPXE got no address by DHCP",
            "look at the switch port: one that forwards late (spanning tree) needs `portfast`",
        ),
        0x0b => ("somebody pressed a key at iPXE", "start the machine again"),
        0x0d | 0x0f => (
            "the connection to the daemon was cut",
            "`bridgehead log HOST` says whether the daemon did it; else look for a firewall between",
        ),
        0x0e => (
            "nothing listens at the address that iPXE asked",
            "look whether the daemon runs there, with this `http` port",
        ),
        0x17 | 0x28 => (
            "iPXE has no way to the daemon",
            "look at `router` and `subnet` of the network",
        ),
        0x1d => (
            "the file came damaged, or the server failed",
            "`bridgehead log HOST` says what was sent",
        ),
        0x26 | 0x38 => ("the link is down", "look at the cable and the switch port"),
        0x2a | 0x31 | 0x34 => (
            "iPXE ran out of memory",
            "make the initrd smaller, or boot by GRUB (`loader: grub`)",
        ),
        0x2c | 0x3e => (
            "iPXE found no network card that it can drive",
            "take `snponly.efi` or `undionly.kpxe`, which use the firmware's driver",
        ),
        0x2d => (
            "the server has no such file",
            "`bridgehead explain HOST` shows the names; another DHCP server may have named this one",
        ),
        0x2e => (
            "the file is not for this firmware: BIOS and UEFI, or two processors, were mixed up, or Secure Boot refused it",
            "`bridgehead explain HOST` shows which loader and kernel it gets, and why",
        ),
        0x3c | 0x3f => (
            "this iPXE was built without what it was told to do",
            "take the iPXE of loaders/ (`make loaders`)",
        ),
        0x4c => (
            "iPXE waited for an answer that did not come",
            "look for a firewall between: the machine asks TCP 80 and UDP 69 of the daemon",
        ),
        _ => ("iPXE stopped with an error", "look at the machine's screen"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_said_in_words_special_before_general() {
        let text = "[    1.0] fine\n[    2.1] VFS: Unable to mount root fs on unknown-block(0,0)\n[    2.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n";
        let found = hints(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].means.contains("without its initrd"));
        assert!(found[0].line.starts_with("[    2.2] Kernel panic"));
        assert!(hints("all is well\n").is_empty());
    }

    #[test]
    fn ipxe_says_its_error_by_number() {
        let of = |line: &str| hints(line).pop();
        let timed_out =
            of("http://10.77.0.1/x... Connection timed out (https://ipxe.org/4c126035)").unwrap();
        assert!(timed_out.means.contains("did not come"), "{timed_out:?}");
        assert!(
            timed_out
                .next
                .ends_with("https://ipxe.org/4c126035 says more")
        );
        assert!(
            of("Not found (http://ipxe.org/2d0c613b)")
                .unwrap()
                .means
                .contains("no such file")
        );
        for no in [
            "ipxe.org/",
            "ipxe.org/2d0c",
            "ipxe.org/zzzzzzzz",
            "ipxe.org/2d0c613b7",
            "ipxe.org/é2d0c613",
        ] {
            assert_eq!(of(no), None, "{no}");
        }
    }

    #[test]
    fn a_hostile_text_is_bounded() {
        let line = format!("kernel panic \x1b[2J{}\n", "x".repeat(10_000));
        let text =
            line.repeat(1000) + "hardware error\nout of memory\nstale file handle\npxe-e53\n";
        let found = hints(&text);
        assert_eq!(found.len(), MOST);
        let first = hints(&line).remove(0);
        assert!(first.line.chars().count() <= MAX_LINE && !first.line.contains('\x1b'));
    }
}
