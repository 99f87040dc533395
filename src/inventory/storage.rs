//! Where a root and an image pool come from: the strings that mount commands take.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::model::Sourced;
use super::names::is_file_name;
use super::scalars::{Bad, one_of};
use super::suggest::quote;
use super::tree::Scalar;

/// The MooseFS master's port for clients (mfsmount(8), `mfsport`).
const MOOSEFS_PORT: u16 = 9421;

/// Where `/` comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The NFS export.
    pub source: RootSource,
    /// Size cap of the tmpfs that takes writes, bytes.
    pub overlay: u64,
}

/// Who exports the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// The embedded NFSv3 server; `roots/NAME` of the data directory, mounted as `/roots/NAME`.
    Embedded {
        /// The `NAME`.
        name: String,
    },
    /// Another NFS server.
    External {
        /// Its address.
        server: Ipv4Addr,
        /// The exported path, absolute.
        path: PathBuf,
        /// NFS protocol version.
        version: NfsVersion,
    },
}

/// NFS protocol version of an external root or pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NfsVersion {
    /// NFSv3 over TCP, without locks (RFC 1813).
    V3,
    /// NFSv4.2 (RFC 7862).
    V4_2,
}

/// The shared pool of VM images and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePool {
    /// Which file system.
    pub kind: PoolKind,
    /// Mount point, absolute.
    pub mount: PathBuf,
    /// The interface that Lustre's LNet uses; `None`: the boot bridge.
    pub network: Option<Sourced<String>>,
    /// Further mount options, comma-separated.
    pub options: Option<String>,
}

/// A file system that can hold the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolKind {
    /// `MGSNID[:MGSNID...]:/FSNAME`, as mount.lustre takes it.
    Lustre {
        /// The device string.
        source: String,
    },
    /// A MooseFS master.
    Moosefs {
        /// Master's address or name.
        master: String,
        /// Master's client port (9421).
        port: u16,
        /// Subfolder of the file system, absolute.
        subfolder: String,
    },
    /// An NFS export.
    Nfs {
        /// Server address or name.
        server: String,
        /// Exported path.
        path: String,
        /// Protocol version.
        version: NfsVersion,
    },
}

/// What `root.nfs` names, before its version is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NfsTarget {
    Embedded { name: String },
    External { server: Ipv4Addr, path: PathBuf },
}

fn bad(scalar: &Scalar<'_>, why: &str, help: &str) -> Bad {
    let message = format!("{} {why}", quote(&scalar.text));
    Bad::new("inventory::bad_source", message, help)
}

/// An absolute path that needs no quoting anywhere and does not climb.
fn is_plain_path(text: &str) -> bool {
    let awkward = |c: char| c.is_whitespace() || c.is_control() || "\"'\\$`,;".contains(c);
    text.starts_with('/')
        && text.len() <= 1024
        && !text.contains(awkward)
        && !text.split('/').any(|part| part == ".." || part == ".")
}

/// A mount point.
pub(super) fn mount_point(scalar: &Scalar<'_>) -> Result<PathBuf, Bad> {
    let path = scalar.text.trim_end_matches('/');
    if is_plain_path(path) {
        return Ok(PathBuf::from(path));
    }
    let message = format!("{} is not a mount point", quote(&scalar.text));
    let help = "write an absolute path below `/`, without blanks and `..`: /var/lib/libvirt/images";
    Err(Bad::new("inventory::bad_path", message, help))
}

/// Comma-separated mount options.
pub(super) fn mount_options(scalar: &Scalar<'_>) -> Result<String, Bad> {
    let awkward = |c: char| c.is_whitespace() || c.is_control() || "\"'\\$`;".contains(c);
    if !scalar.text.is_empty() && !scalar.text.contains(awkward) {
        return Ok(scalar.text.to_string());
    }
    let message = format!("{} are not mount options", quote(&scalar.text));
    let help = "write them as mount -o takes them, with commas and no blanks: flock,noatime";
    Err(Bad::new("inventory::bad_options", message, help))
}

/// `3` or `4.2`.
pub(super) fn nfs_version(scalar: &Scalar<'_>) -> Result<NfsVersion, Bad> {
    const WORDS: &[(&str, NfsVersion)] = &[("3", NfsVersion::V3), ("4.2", NfsVersion::V4_2)];
    one_of(
        "an NFS version served here",
        "inventory::bad_version",
        WORDS,
    )(scalar)
}

/// `/roots/NAME` (our own server) or `ADDRESS:/path`.
pub(super) fn root_target(scalar: &Scalar<'_>) -> Result<NfsTarget, Bad> {
    if let Some(name) = scalar.text.strip_prefix("/roots/") {
        let name = name.trim_end_matches('/').to_owned();
        return if is_file_name(&name) {
            Ok(NfsTarget::Embedded { name })
        } else {
            let help = "write `/roots/NAME`, with a directory of the data directory's roots/";
            Err(bad(scalar, "names no root", help))
        };
    }
    let help = "write `/roots/NAME` for a root served from here, or `10.0.0.9:/srv/roots/kvm` for another server";
    let (server, path) = scalar
        .text
        .split_once(':')
        .filter(|(_, path)| is_plain_path(path))
        .ok_or_else(|| bad(scalar, "is not an NFS root", help))?;
    let server = server.parse().map_err(|_| {
        let help = "write the server's IPv4 address: the initrd has no resolver yet";
        bad(scalar, "does not begin with an IPv4 address", help)
    })?;
    let path = PathBuf::from(path);
    Ok(NfsTarget::External { server, path })
}

/// A name or an address, as `mount` takes it.
fn is_host(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    (1..=253).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with(['-', '.'])
}

/// `HOST:/path` of an image pool.
pub(super) fn pool_nfs(scalar: &Scalar<'_>) -> Result<(String, String), Bad> {
    let parts = scalar.text.split_once(':');
    let parts = parts.filter(|(host, path)| is_host(host) && is_plain_path(path));
    parts
        .map(|(host, path)| (host.to_owned(), path.to_owned()))
        .ok_or_else(|| {
            let help = "write server and exported path: 10.0.0.9:/srv/images";
            bad(scalar, "is not an NFS export", help)
        })
}

/// `HOST[:PORT][:/SUBFOLDER]`, as mfsmount takes it.
pub(super) fn moosefs(scalar: &Scalar<'_>) -> Result<PoolKind, Bad> {
    let parsed = split_moosefs(&scalar.text);
    let valid = parsed.filter(|(host, _, folder)| is_host(host) && is_plain_path(folder));
    valid
        .map(|(master, port, subfolder)| PoolKind::Moosefs {
            master: master.to_owned(),
            port,
            subfolder: subfolder.to_owned(),
        })
        .ok_or_else(|| {
            let help = "write the master, and port or subfolder if they are not 9421 and `/`: 10.77.0.5:9421:/images";
            bad(scalar, "is not a MooseFS master", help)
        })
}

fn split_moosefs(text: &str) -> Option<(&str, u16, &str)> {
    let (server, folder) = match text.split_once(":/") {
        Some((server, _)) => (server, text.get(server.len() + 1..)?),
        None => (text, "/"),
    };
    match server.split_once(':') {
        Some((host, port)) => {
            let port = port.parse().ok().filter(|port| *port != 0)?;
            Some((host, port, folder))
        }
        None => Some((server, MOOSEFS_PORT, folder)),
    }
}

/// `NID[,NID][:NID]:/FSNAME[/SUBDIRECTORY]`, as mount.lustre(8) takes it.
pub(super) fn lustre(scalar: &Scalar<'_>) -> Result<PoolKind, Bad> {
    let help = "write the MGS's NID and the file system: \"10.77.0.5@tcp:/images\"";
    let refuse = |why: &str| bad(scalar, why, help);
    let (nids, path) = scalar
        .text
        .split_once(":/")
        .ok_or_else(|| refuse("does not name a Lustre file system"))?;
    if let Some(nid) = nids.split([':', ',']).find(|nid| !is_nid(nid)) {
        return Err(refuse(&format!(
            "does not name a Lustre file system: {} is no NID",
            quote(nid)
        )));
    }
    let fsname = path.split('/').next().unwrap_or_default();
    // LUSTRE_MAXFSNAME in the kernel's lustre_user.h.
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !(1..=8).contains(&fsname.len()) || !fsname.bytes().all(legal) {
        return Err(refuse(
            "names no Lustre file system: its name has 1 to 8 letters and digits",
        ));
    }
    if !is_plain_path(&format!("/{path}")) {
        return Err(refuse("has a subdirectory that can't be mounted"));
    }
    let source = scalar.text.to_string();
    Ok(PoolKind::Lustre { source })
}

/// `ADDRESS@NETWORK`, such as `10.77.0.5@tcp` or `10.1.0.5@o2ib1`.
fn is_nid(text: &str) -> bool {
    let Some((host, network)) = text.split_once('@') else {
        return false;
    };
    let kind = network.trim_end_matches(|c: char| c.is_ascii_digit());
    is_host(host) && matches!(kind, "tcp" | "o2ib" | "gni" | "ptlf" | "kfi")
        || network == "o2ib" && is_host(host)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn quoted(text: &str) -> Scalar<'_> {
        let text = Cow::Borrowed(text);
        Scalar { text, plain: false }
    }

    #[test]
    fn a_root_is_ours_or_anothers() {
        let ours = root_target(&quoted("/roots/kvm-host")).unwrap();
        assert_eq!(
            ours,
            NfsTarget::Embedded {
                name: "kvm-host".into()
            }
        );
        let theirs = root_target(&quoted("10.0.0.9:/srv/roots/kvm")).unwrap();
        let path = PathBuf::from("/srv/roots/kvm");
        let server = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(theirs, NfsTarget::External { server, path });
    }

    #[test]
    fn roots_that_climb_or_need_a_resolver_are_refused() {
        for text in [
            "/roots/../etc",
            "/roots/",
            "/roots/a/b",
            "/srv/kvm",
            "nas:/srv",
            "10.0.0.9:srv",
            "10.0.0.9:/srv/../etc",
            "10.0.0.9:/a b",
            "",
        ] {
            assert!(root_target(&quoted(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn moosefs_has_defaults() {
        let kind = |text: &str| moosefs(&quoted(text)).unwrap();
        let expected = |port, subfolder: &str| PoolKind::Moosefs {
            master: "10.77.0.5".into(),
            port,
            subfolder: subfolder.into(),
        };
        assert_eq!(kind("10.77.0.5"), expected(9421, "/"));
        assert_eq!(kind("10.77.0.5:9999"), expected(9999, "/"));
        assert_eq!(kind("10.77.0.5:/images"), expected(9421, "/images"));
        assert_eq!(kind("10.77.0.5:9999:/a/b"), expected(9999, "/a/b"));
        for text in ["", ":9421", "a b", "h:0", "h:70000", "h:x", "h:/..", "-h"] {
            assert!(moosefs(&quoted(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn lustre_takes_failover_nids() {
        for text in [
            "10.77.0.5@tcp:/images",
            "10.77.0.5@tcp1,10.1.0.5@o2ib:10.77.0.6@tcp:/images/sub",
        ] {
            assert!(lustre(&quoted(text)).is_ok(), "{text}");
        }
        for text in [
            "10.77.0.5:/images",
            "10.77.0.5@tcp",
            "10.77.0.5@tcp:/toolongname",
            "@tcp:/x",
        ] {
            assert!(lustre(&quoted(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn mount_points_are_below_the_root() {
        assert!(mount_point(&quoted("/")).is_err());
        assert!(mount_point(&quoted("srv")).is_err());
        assert_eq!(
            mount_point(&quoted("/srv/")).unwrap(),
            PathBuf::from("/srv")
        );
    }
}
