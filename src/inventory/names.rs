//! Names that become file names, interface names, hostnames and kernel arguments.

use super::scalars::{Bad, unambiguous};
use super::suggest::quote;
use super::tree::Scalar;

/// Arguments that the daemon writes itself.
const RESERVED: [&str; 2] = ["bridgehead.", "BOOTIF="];

/// A file or directory name below the data directory: no path, nothing hidden.
pub(super) fn file_name(scalar: &Scalar<'_>) -> Result<String, Bad> {
    unambiguous(scalar)?;
    if is_file_name(&scalar.text) {
        return Ok(scalar.text.to_string());
    }
    Err(Bad::new(
        "inventory::bad_name",
        format!(
            "{} is not a name in the data directory",
            quote(&scalar.text)
        ),
        "write one name of letters, digits, `.`, `_`, `+`, `~` and `-`, not beginning with `.` or `-`",
    ))
}

/// A tree of files: a directory's name below `templates/files/`.
pub(super) fn tree_name(scalar: &Scalar<'_>) -> Result<String, Bad> {
    file_name(scalar).map_err(|bad| match unambiguous(scalar) {
        Err(trap) => trap,
        Ok(()) => bad.renamed(format!(
            "{} is not the name of a tree in templates/files/",
            quote(&scalar.text)
        )),
    })
}

pub(super) fn is_file_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with(['.', '-'])
}

/// The name of a network or profile.
pub(super) fn key_name(scalar: &Scalar<'_>) -> Result<String, Bad> {
    file_name(scalar).map_err(|bad| match unambiguous(scalar) {
        Err(trap) => trap,
        Ok(()) => bad.renamed(format!(
            "{} can't be the name of a network or profile",
            quote(&scalar.text)
        )),
    })
}

/// A host name of one label (RFC 1123, 2.1), and not one that a machine without a name gets.
pub(super) fn host_name(scalar: &Scalar<'_>) -> Result<String, Bad> {
    unambiguous(scalar)?;
    let text = &*scalar.text;
    let bad = |why: &str, help: &str| {
        let message = format!("{} {why}", quote(text));
        Err(Bad::new("inventory::bad_host_name", message, help))
    };
    if !is_label(text) {
        return bad(
            "is not a host name",
            "write at most 63 letters, digits and `-`, without `-` at either end (RFC 1123); the domain belongs to the network",
        );
    }
    if is_nameless(text) {
        return bad(
            "is what a machine that is not listed is called",
            "choose another name",
        );
    }
    Ok(text.to_owned())
}

/// One label of a domain name.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `mac-525400000001`.
fn is_nameless(text: &str) -> bool {
    text.strip_prefix("mac-")
        .is_some_and(|mac| mac.len() == 12 && mac.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A domain name (option 15).
pub(super) fn domain(scalar: &Scalar<'_>) -> Result<String, Bad> {
    unambiguous(scalar)?;
    let text = scalar.text.strip_suffix('.').unwrap_or(&scalar.text);
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        "inventory::bad_domain",
        format!("{} is not a domain name", quote(&scalar.text)),
        "write labels of letters, digits and `-` with dots between: lab.example.org",
    ))
}

/// A network interface's name that every tool takes: at most 15 bytes (`IFNAMSIZ` less the NUL).
pub(super) fn interface(scalar: &Scalar<'_>) -> Result<String, Bad> {
    unambiguous(scalar)?;
    let text = &*scalar.text;
    let bad = |why: String| {
        Err(Bad::new(
            "inventory::bad_bridge",
            format!("{} can't name an interface: {why}", quote(text)),
            "write at most 15 letters, digits, `.`, `_` and `-`, beginning with a letter: br0",
        ))
    };
    if text.len() > 15 {
        return bad(format!(
            "it has {} bytes, and the kernel takes 15",
            text.len()
        ));
    }
    if matches!(text, "lo" | "all" | "default") || is_kernel_nic(text) {
        return bad(String::from("the kernel uses that name itself"));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !text.bytes().all(legal) || !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return bad(String::from("a character is not allowed"));
    }
    Ok(text.to_owned())
}

/// `eth0`: what NICs are called in the initrd, the bridge's future port among them.
fn is_kernel_nic(text: &str) -> bool {
    let number = text.strip_prefix("eth");
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// One kernel argument. Blanks need double quotes around them, as for the kernel itself.
pub(super) fn kernel_argument(scalar: &Scalar<'_>) -> Result<String, Bad> {
    let text = &*scalar.text;
    let bad = |why: &str, help: &str| {
        let message = format!("{} {why}", quote(text));
        Err(Bad::new("inventory::bad_argument", message, help))
    };
    let mut quoted = false;
    let blank_outside = text.chars().any(|c| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    });
    let ascii = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if text.is_empty() || !ascii || quoted {
        return bad(
            "is not a kernel argument",
            "write printable ASCII, and close double quotes",
        );
    }
    if text.contains("${") {
        return bad(
            "has `${`, which iPXE expands and has no way to quote",
            "write it without: the kernel expands nothing",
        );
    }
    if blank_outside {
        return bad(
            "is more than one kernel argument",
            "write a list with one argument per item: [quiet, \"console=ttyS0,115200\"]",
        );
    }
    if RESERVED.iter().any(|reserved| text.starts_with(reserved)) {
        return bad("is written by the daemon", "remove it");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn plain(text: &str) -> Scalar<'_> {
        let text = Cow::Borrowed(text);
        Scalar { text, plain: true }
    }

    #[test]
    fn a_path_is_not_a_file_name() {
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "-rf",
            ".hidden",
            "a b",
            &"x".repeat(65),
        ] {
            assert!(!is_file_name(text), "{text}");
        }
        assert!(is_file_name("6.1.0-40-amd64+x~1_2"));
    }

    #[test]
    fn host_names_are_labels() {
        for text in [
            "kvm_01",
            "-kvm",
            "kvm-",
            "kvm.lab",
            "mac-525400000001",
            "1e3",
        ] {
            assert!(host_name(&plain(text)).is_err(), "{text}");
        }
        assert!(host_name(&plain("KVM-01")).is_ok());
        assert!(host_name(&plain(&"k".repeat(63))).is_ok());
        assert!(host_name(&plain(&"k".repeat(64))).is_err());
    }

    #[test]
    fn bridges_have_names_of_their_own() {
        for text in [
            "",
            "lo",
            "eth0",
            "all",
            "0br",
            "br:0",
            "br/0",
            "br 0",
            "a-name-of-16-byt",
        ] {
            assert!(interface(&plain(text)).is_err(), "{text}");
        }
        for text in ["br0", "ethernet", "vmbr0.100", "a-name-of-15-by"] {
            assert!(interface(&plain(text)).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_quoted_blank_is_part_of_an_argument() {
        assert!(kernel_argument(&plain("dyndbg=\"file a.c +p\"")).is_ok());
        assert!(kernel_argument(&plain("quiet splash")).is_err());
        assert!(kernel_argument(&plain("a=\"b")).is_err());
        assert!(kernel_argument(&plain("bridgehead.token=x")).is_err());
        assert!(kernel_argument(&plain("a=${net0/mac}")).is_err());
        assert!(kernel_argument(&plain("a=$x")).is_ok());
    }
}
