//! Who has a port that could not be bound.

use std::fs;
use std::io;
use std::path::Path;

/// A port that was to be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// UDP.
    Udp(u16),
    /// TCP.
    Tcp(u16),
}

impl Port {
    /// What else helps where another process has it. Firmware knows no other port for DHCP and PXE.
    fn evasion(self) -> &'static str {
        match self {
            Self::Udp(67 | 4011) => {
                "leave the interface's networks to it (`dhcp: \"off\"` in hosts.yaml)"
            }
            _ => "give Bridgehead another port (`server:` in hosts.yaml)",
        }
    }
}

/// The end of the error message: who has the port, or what is missing to bind it.
pub(super) fn advice(error: &io::Error, port: Port) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder(port) {
            Some(holder) => format!(": the port is taken by {holder}; stop it, or {}", port.evasion()),
            None => ": the port is taken, by a process that can't be seen from here (another user's, or in a container); `ss -lpn` as root names it".into(),
        },
        io::ErrorKind::PermissionDenied => ": it needs root, or the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW: run it with sudo or by its systemd unit".into(),
        io::ErrorKind::AddrNotAvailable => ": the address is not on this machine (any more)".into(),
        _ => String::new(),
    }
}

/// `NAME (process 123)` of whoever listens on the port.
fn holder(port: Port) -> Option<String> {
    let (tables, port) = match port {
        Port::Udp(port) => (["udp", "udp6"], port),
        Port::Tcp(port) => (["tcp", "tcp6"], port),
    };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/self/net/{table}")).ok())
        .flat_map(|text| inodes_of(&text, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    // `/proc/self` is a process too, but no name for one.
    let numbered = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.iter().all(u8::is_ascii_digit)
    };
    let holders = processes
        .map(|entry| entry.path())
        .filter(numbered)
        .filter(|process| has_socket(process, &inodes))
        .map(|process| pid(&process));
    let pid = choose(holders, &std::process::id().to_string())?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (process {pid})", name.trim()))
}

fn pid(process: &Path) -> String {
    let name = process.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// We may have the port ourselves on another interface; then it is the other one that is in the way on this.
fn choose(mut holders: impl Iterator<Item = String>, own: &str) -> Option<String> {
    let first = holders.next()?;
    if first != own {
        return Some(first);
    }
    Some(holders.next().unwrap_or(first))
}

/// Socket inodes of the lines whose local port is `port` (proc(5), `/proc/net/tcp`); for TCP
/// those that listen (state 0A), for UDP all (07).
fn inodes_of(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let fields = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|f| f.len() > 9 && f[1].ends_with(&suffix) && matches!(f[3], "0A" | "07"))
        .map(|f| f[9].to_owned())
        .collect()
}

fn has_socket(process: &Path, inodes: &[String]) -> bool {
    let open = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| {
            let link = link.to_string_lossy();
            let inode = link
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.iter().any(|wanted| wanted == inode))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = holder(Port::Tcp(port)).unwrap();
        assert!(
            holder.ends_with(&format!("(process {})", std::process::id())),
            "{holder}"
        );
        drop(listener);
    }

    #[test]
    fn another_process_is_named_rather_than_this_one() {
        let chosen = |holders: &[&str]| choose(holders.iter().map(ToString::to_string), "7");
        assert_eq!(chosen(&["7", "9"]).as_deref(), Some("9"));
        assert_eq!(chosen(&["5", "7"]).as_deref(), Some("5"));
        assert_eq!(chosen(&["7"]).as_deref(), Some("7"));
        assert_eq!(chosen(&[]), None);
    }
}
