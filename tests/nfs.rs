//! The NFS server as its clients see it: a client of our own, and the Linux kernel's.
// Also in what the tests share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "nfs/client.rs"]
mod client;
#[path = "nfs/guest.rs"]
mod guest;
#[path = "nfs/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bridgehead::nfs::{BindError, Exports, Limits, ScanError};
use client::Client;
use nfs3_types::mount::mountstat3;
use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::{Opaque, Pack, Void};
use server::Running;
use tempfile::TempDir;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A small root: what is easy to get wrong.
fn tree() -> TempDir {
    let top = tempfile::tempdir().unwrap();
    let at = |path: &str| top.path().join(path);
    for directory in ["etc", "usr/bin", "big", "tmp", "dev"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::write(at("etc/shadow"), "root:*:1::::::\n").unwrap();
    fs::write(at("etc/empty"), "").unwrap();
    fs::write(
        at("usr/bin/tool"),
        (0..3_000_000_u32)
            .map(|n| (n % 251) as u8)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    fs::hard_link(at("usr/bin/tool"), at("usr/bin/link")).unwrap();
    fs::write(top.path().join(OsStr::from_bytes(b"etc/na\xffme")), "odd").unwrap();
    symlink("/etc/passwd", at("etc/out")).unwrap();
    symlink("../../../../../../etc/passwd", at("etc/up")).unwrap();
    for number in 0..3000 {
        fs::write(at(&format!("big/entry-{number:04}")), number.to_string()).unwrap();
    }
    let mode =
        |path: &str, mode| fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    mode("etc/shadow", 0o600);
    mode("usr/bin/tool", 0o4755);
    mode("tmp", 0o1777);
    mode("etc", 0o755);
    nodes(top.path());
    top
}

/// Device nodes, fifo, socket.
fn nodes(top: &Path) {
    let _ = std::os::unix::net::UnixListener::bind(top.join("dev/socket")).unwrap();
    let make = |arguments: &[&str]| {
        assert!(
            Command::new("mknod")
                .args(arguments)
                .current_dir(top)
                .status()
                .unwrap()
                .success()
        )
    };
    make(&["dev/fifo", "p"]);
    if is_root() {
        make(&["dev/null", "c", "1", "3"]);
        make(&["dev/sda1", "b", "8", "1"]);
        std::os::unix::fs::chown(top.join("etc/shadow"), Some(0), Some(42)).unwrap();
    } else {
        println!("SKIPPED: device nodes and foreign owners (not root)");
    }
}

fn serve(top: &TempDir) -> (Running, Client, nfs_fh3) {
    let running = Running::start(&[("demo", top.path().to_owned())]);
    let mut client = Client::connect(running.address);
    let root = client.mount("/roots/demo").unwrap();
    (running, client, root)
}

#[test]
fn exports_are_mounted_by_name_and_nothing_else_is() {
    let (one, two) = (tree(), tempfile::tempdir().unwrap());
    fs::write(two.path().join("two"), "").unwrap();
    let running = Running::start(&[
        ("one", one.path().to_owned()),
        ("two", two.path().to_owned()),
    ]);
    let mut client = Client::connect(running.address);
    let root = client.mount("/roots/two").unwrap();
    assert!(client.lookup(&root, b"two").is_ok());
    let other = client.mount("/roots/one/").unwrap();
    assert_ne!(
        client.getattr(&root).unwrap().fsid,
        client.getattr(&other).unwrap().fsid
    );
    for path in [
        "/",
        "",
        "/roots",
        "/roots/",
        "/roots/three",
        "/roots/one/etc",
        "/roots/../etc",
        "/roots/one/..",
        "/etc",
    ] {
        assert!(
            matches!(client.mount(path), Err(mountstat3::MNT3ERR_NOENT)),
            "{path}"
        );
    }
    assert!(running.told("Mounted") && running.told("export: \"two\""));
    assert!(running.told("UnknownExport { path: \"/roots/three\" }"));
}

#[test]
fn the_whole_tree_is_as_on_the_host() {
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    let mut inodes = BTreeMap::new();
    compare(&mut client, &root, top.path(), &mut inodes);
    assert!(inodes.len() > 3010);
}

/// Compares a directory with the host's, entry by entry; `inodes` maps file ids to the host's.
fn compare(client: &mut Client, directory: &nfs_fh3, host: &Path, inodes: &mut BTreeMap<u64, u64>) {
    let mut names = Vec::new();
    for entry in client.readdirplus(directory, 4096) {
        let name = entry.name.as_ref().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        let path = host.join(OsStr::from_bytes(&name));
        let (handle, listed) = (entry.name_handle.unwrap(), entry.name_attributes.unwrap());
        assert_eq!(client.lookup(directory, &name).unwrap(), handle);
        assert_eq!(
            format!("{listed:?}"),
            format!("{:?}", client.getattr(&handle).unwrap())
        );
        compare_file(client, &handle, &listed, &path);
        let inode = fs::symlink_metadata(&path).unwrap().ino();
        assert_eq!(
            *inodes.entry(listed.fileid).or_insert(inode),
            inode,
            "{}",
            path.display()
        );
        if listed.type_ == ftype3::NF3DIR {
            compare(client, &handle, &path, inodes);
        }
        names.push(name);
    }
    names.sort();
    let mut expected: Vec<_> = fs::read_dir(host)
        .unwrap()
        .map(|e| e.unwrap().file_name().as_bytes().to_vec())
        .collect();
    expected.sort();
    assert_eq!(names, expected);
    let plain = client.readdir(directory, 1024);
    assert_eq!(plain.len(), names.len() + 2);
}

fn compare_file(client: &mut Client, handle: &nfs_fh3, served: &fattr3, path: &Path) {
    let host = fs::symlink_metadata(path).unwrap();
    let shown = path.display();
    assert_eq!(served.mode, host.mode() & 0o7777, "{shown}");
    assert_eq!(
        (served.uid, served.gid, served.size),
        (host.uid(), host.gid(), host.size()),
        "{shown}"
    );
    assert_eq!(u64::from(served.nlink), host.nlink(), "{shown}");
    assert_eq!(
        (
            i64::from(served.mtime.seconds),
            i64::from(served.mtime.nseconds)
        ),
        (host.mtime(), host.mtime_nsec())
    );
    let rdev = (
        u64::from(served.rdev.specdata1),
        u64::from(served.rdev.specdata2),
    );
    assert_eq!(
        rdev,
        (
            nix::sys::stat::major(host.rdev()),
            nix::sys::stat::minor(host.rdev())
        ),
        "{shown}"
    );
    let kind = match served.type_ {
        ftype3::NF3REG => 0o10,
        ftype3::NF3DIR => 0o04,
        ftype3::NF3BLK => 0o06,
        ftype3::NF3CHR => 0o02,
        ftype3::NF3LNK => 0o12,
        ftype3::NF3SOCK => 0o14,
        ftype3::NF3FIFO => 0o01,
    };
    assert_eq!(kind, host.mode() >> 12, "{shown}");
    match served.type_ {
        ftype3::NF3REG => assert!(
            client.read_all(handle, 70_000) == fs::read(path).unwrap(),
            "{shown}"
        ),
        ftype3::NF3LNK => assert_eq!(
            client.readlink(handle).unwrap(),
            fs::read_link(path).unwrap().as_os_str().as_bytes()
        ),
        _ => assert_eq!(
            client.read(handle, 0, 10),
            Err(nfsstat3::NFS3ERR_INVAL),
            "{shown}"
        ),
    }
}

#[test]
fn no_name_leads_out_of_an_export() {
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    assert_eq!(client.lookup(&root, b"..").unwrap(), root);
    assert_eq!(client.lookup(&root, b".").unwrap(), root);
    let etc = client.path(&root, "etc");
    assert_eq!(client.lookup(&etc, b"..").unwrap(), root);
    for name in [
        &b"etc/shadow"[..],
        b"/etc",
        b"../etc",
        b"etc\0",
        b"\0",
        b"",
        b"etc/",
    ] {
        assert_eq!(
            client.lookup(&root, name),
            Err(nfsstat3::NFS3ERR_NOENT),
            "{name:?}"
        );
    }
    assert_eq!(
        client.lookup(&root, &[b'x'; 256]),
        Err(nfsstat3::NFS3ERR_NAMETOOLONG)
    );
    for link in ["etc/out", "etc/up"] {
        let link = client.path(&root, link);
        assert_eq!(client.getattr(&link).unwrap().type_, ftype3::NF3LNK);
        assert_eq!(client.read(&link, 0, 100), Err(nfsstat3::NFS3ERR_INVAL));
        assert_eq!(client.lookup(&link, b"x"), Err(nfsstat3::NFS3ERR_NOTDIR));
    }
}

#[test]
fn a_file_that_becomes_a_symlink_is_not_followed() {
    let top = tree();
    let (running, mut client, root) = serve(&top);
    let file = client.path(&root, "etc/shadow");
    fs::remove_file(top.path().join("etc/shadow")).unwrap();
    symlink("/etc/passwd", top.path().join("etc/shadow")).unwrap();
    assert_eq!(client.read(&file, 0, 100), Err(nfsstat3::NFS3ERR_STALE));
    let directory = client.path(&root, "usr/bin/tool");
    fs::rename(top.path().join("usr"), top.path().join("away")).unwrap();
    symlink("away", top.path().join("usr")).unwrap();
    assert_eq!(
        client.read(&directory, 0, 100),
        Err(nfsstat3::NFS3ERR_STALE)
    );
    assert_eq!(
        running
            .events()
            .iter()
            .filter(|event| event.contains("Changed"))
            .count(),
        1
    );
}

#[test]
fn forged_handles_open_nothing() {
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    let good = root.data.to_vec();
    let forged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        nfs_fh3 {
            data: Opaque::owned(bytes),
        }
    };
    let handles = [
        forged(&|bytes| bytes[23] ^= 1),
        forged(&|bytes| bytes[8] ^= 1),
        forged(&|bytes| bytes[0] ^= 1),
        forged(&|bytes| bytes[7] ^= 0x80),
        forged(&|bytes| bytes.truncate(23)),
        forged(&|bytes| bytes.truncate(3)),
        forged(&Vec::clear),
        forged(&|bytes| bytes.resize(64, 7)),
    ];
    for handle in handles {
        let status = client.getattr(&handle).unwrap_err();
        assert!(
            matches!(
                status,
                nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE
            ),
            "{handle:?}: {status}"
        );
        assert!(client.read(&handle, 0, 1).is_err() && client.lookup(&handle, b"etc").is_err());
        let arguments = ACCESS3args {
            object: handle,
            access: 0x3f,
        };
        let access: ACCESS3res = client.nfs(NFS_PROGRAM::NFSPROC3_ACCESS, &arguments);
        assert!(matches!(access, Nfs3Result::Err(_)));
    }
    assert!(
        client
            .try_call::<GETATTR3res>(PROGRAM, 1, &Opaque::owned(vec![0; 65]))
            .unwrap_err()
            .contains("GARBAGE_ARGS")
    );
}

/// The status of a result whose shape does not matter.
struct Status(nfsstat3);

impl nfs3_types::xdr_codec::Unpack for Status {
    fn unpack(input: &mut impl Read) -> nfs3_types::xdr_codec::Result<(Self, usize)> {
        let (status, _) = nfsstat3::unpack(input)?;
        let mut rest = Vec::new();
        input.read_to_end(&mut rest)?;
        Ok((Self(status), 4 + rest.len()))
    }
}

fn refused(client: &mut Client, procedure: NFS_PROGRAM, arguments: &impl Pack) {
    let status: Status = client.nfs(procedure, arguments);
    assert_eq!(status.0, nfsstat3::NFS3ERR_ROFS, "{procedure}");
}

#[test]
fn every_write_to_a_file_is_refused() {
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    let file = client.path(&root, "etc/shadow");
    let setattr = SETATTR3args {
        object: file.clone(),
        new_attributes: sattr3::default(),
        guard: sattrguard3::None,
    };
    let write = WRITE3args {
        file: file.clone(),
        offset: 0,
        count: 4096,
        stable: stable_how::FILE_SYNC,
        data: Opaque::owned(vec![1; 4096]),
    };
    let commit = COMMIT3args {
        file: file.clone(),
        offset: 0,
        count: 0,
    };
    refused(&mut client, NFS_PROGRAM::NFSPROC3_SETATTR, &setattr);
    refused(&mut client, NFS_PROGRAM::NFSPROC3_WRITE, &write);
    refused(&mut client, NFS_PROGRAM::NFSPROC3_COMMIT, &commit);
}

#[test]
fn every_write_to_a_directory_is_refused() {
    use NFS_PROGRAM::*;
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    let new = || entry(&root, b"new");
    let (c, attributes) = (&mut client, sattr3::default);
    let how = createhow3::GUARDED(attributes());
    refused(c, NFSPROC3_CREATE, &CREATE3args { where_: new(), how });
    let mkdir = MKDIR3args {
        where_: new(),
        attributes: attributes(),
    };
    refused(c, NFSPROC3_MKDIR, &mkdir);
    let symlink = symlinkdata3 {
        symlink_attributes: attributes(),
        symlink_data: b"x"[..].into(),
    };
    refused(
        c,
        NFSPROC3_SYMLINK,
        &SYMLINK3args {
            where_: new(),
            symlink,
        },
    );
    let what = mknoddata3::NF3FIFO(attributes());
    refused(
        c,
        NFSPROC3_MKNOD,
        &MKNOD3args {
            where_: new(),
            what,
        },
    );
    let object = entry(&root, b"etc");
    refused(c, NFSPROC3_REMOVE, &REMOVE3args { object });
    let object = entry(&root, b"etc");
    refused(c, NFSPROC3_RMDIR, &RMDIR3args { object });
    assert!(!top.path().join("new").exists() && top.path().join("etc").exists());
}

#[test]
fn a_refused_rename_and_link_have_the_shape_of_their_failure() {
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    let rename = RENAME3args {
        from: entry(&root, b"etc"),
        to: entry(&root, b"new"),
    };
    let rename: RENAME3res = client.nfs(NFS_PROGRAM::NFSPROC3_RENAME, &rename);
    assert!(matches!(
        rename,
        Nfs3Result::Err((nfsstat3::NFS3ERR_ROFS, _))
    ));
    let file = client.path(&root, "etc/shadow");
    let link = LINK3args {
        file,
        link: entry(&root, b"new"),
    };
    let link: LINK3res = client.nfs(NFS_PROGRAM::NFSPROC3_LINK, &link);
    assert!(matches!(link, Nfs3Result::Err((nfsstat3::NFS3ERR_ROFS, _))));
}

fn entry(dir: &nfs_fh3, name: &'static [u8]) -> diropargs3<'static> {
    diropargs3 {
        dir: dir.clone(),
        name: name.into(),
    }
}

#[test]
fn access_and_file_system_facts() {
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    let (shadow, tool) = (
        client.path(&root, "etc/shadow"),
        client.path(&root, "usr/bin/tool"),
    );
    assert_eq!(client.access(&root), ACCESS3_READ | ACCESS3_LOOKUP);
    assert_eq!(client.access(&shadow), ACCESS3_READ);
    assert_eq!(client.access(&tool), ACCESS3_READ | ACCESS3_EXECUTE);
    client.uid = 4321;
    assert_eq!(client.access(&shadow), 0);
    let info: FSINFO3res = client.nfs(
        NFS_PROGRAM::NFSPROC3_FSINFO,
        &FSINFO3args {
            fsroot: root.clone(),
        },
    );
    let info = info.unwrap();
    assert_eq!(
        (info.rtmax, info.properties & FSF3_CANSETTIME),
        (1 << 20, 0)
    );
    let space: FSSTAT3res = client.nfs(
        NFS_PROGRAM::NFSPROC3_FSSTAT,
        &FSSTAT3args {
            fsroot: root.clone(),
        },
    );
    let space = space.unwrap();
    assert!(space.tbytes >= 3_000_000 && space.tfiles > 3000 && space.abytes == 0);
    let names: PATHCONF3res = client.nfs(
        NFS_PROGRAM::NFSPROC3_PATHCONF,
        &PATHCONF3args { object: root },
    );
    assert_eq!(names.unwrap().name_max, 255);
}

#[test]
fn handles_outlive_the_server_and_a_rebuild() {
    let top = tree();
    let (running, mut client, root) = serve(&top);
    let file = client.path(&root, "usr/bin/tool");
    let (address, exports) = (running.address, running.exports.clone());
    let before = client.read(&file, 1000, 100).unwrap();
    drop((client, running));

    // Built anew in place: other inodes, the same paths.
    let content = fs::read(top.path().join("usr/bin/tool")).unwrap();
    fs::remove_dir_all(top.path().join("usr")).unwrap();
    fs::create_dir_all(top.path().join("usr/bin")).unwrap();
    fs::write(top.path().join("usr/bin/link"), "other").unwrap();
    fs::write(top.path().join("usr/bin/tool"), content).unwrap();
    exports.rescan().unwrap();
    let running = Running::start_with(address, exports, |server| server).unwrap();
    let mut client = Client::connect(running.address);
    assert_eq!(client.getattr(&root).unwrap().type_, ftype3::NF3DIR);
    // The old id stood for the first link, `usr/bin/link`.
    assert_eq!(client.read(&file, 0, 100).unwrap().0, b"other");
    let root = client.mount("/roots/demo").unwrap();
    let tool = client.path(&root, "usr/bin/tool");
    assert_eq!(client.read(&tool, 1000, 100).unwrap(), before);
}

#[test]
fn a_rescan_follows_the_operators_symlink_and_keeps_the_last_good_index() {
    let (old, new, data) = (tree(), tree(), tempfile::tempdir().unwrap());
    fs::write(new.path().join("etc/empty"), "not any more").unwrap();
    fs::remove_file(new.path().join("usr/bin/link")).unwrap();
    let name = data.path().join("demo");
    symlink(old.path(), &name).unwrap();
    let running = Running::start(&[("demo", name.clone())]);
    let mut client = Client::connect(running.address);
    let root = client.mount("/roots/demo").unwrap();
    let (file, link) = (
        client.path(&root, "etc/empty"),
        client.path(&root, "usr/bin/link"),
    );
    fs::remove_file(&name).unwrap();
    assert!(
        running.exports.rescan().unwrap_err().0[0]
            .to_string()
            .contains("demo")
    );
    assert_eq!(client.read(&file, 0, 100).unwrap(), (vec![], true));
    symlink(new.path(), &name).unwrap();
    running.exports.rescan().unwrap();
    assert_eq!(client.read(&file, 0, 100).unwrap().0, b"not any more");
    assert_eq!(client.getattr(&link).unwrap_err(), nfsstat3::NFS3ERR_STALE);
    running.exports.replace(&[]).unwrap();
    assert_eq!(client.getattr(&file).unwrap_err(), nfsstat3::NFS3ERR_STALE);
    assert!(running.exports.list().is_empty());
}

#[test]
fn hostile_bytes_cost_a_connection_and_nothing_more() {
    let top = tree();
    let (running, mut client, root) = serve(&top);
    let send = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(running.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    assert!(send(&[0xff; 8]).is_empty());
    assert!(send(&[0x7f, 0xff, 0xff, 0xff, 1, 2]).is_empty());
    assert!(send(b"GET / HTTP/1.1\r\n\r\n").is_empty());
    assert!(send(&[0x80, 0, 0, 4, 0, 0, 0, 9]).is_empty());
    assert!(send(&[0x80, 0, 0, 12, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2]).is_empty());
    assert!(
        running.told("longer than 64 KiB")
            && running.told("a reply")
            && running.told("shorter than a header")
    );
    // Lengths that lie: in a credential, in a handle, in a name.
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect::<Vec<_>>()
    };
    client.send_record(&words(&[7, 0, 2, 100_003, 3, 1, 1, u32::MAX]));
    assert_eq!(client.read_record().unwrap()[..12], words(&[7, 1, 1]));
    for procedure in 0..24 {
        let arguments = words(&[8, 0, 2, 100_003, 3, procedure, 0, 0, 0, 0, u32::MAX, 1]);
        client.send_record(&arguments);
        assert_eq!(client.read_record().unwrap()[..4], words(&[8]));
    }
    assert!(
        client
            .try_call::<Void>(100_000, 3, &Void)
            .unwrap_err()
            .contains("PROG_UNAVAIL")
    );
    // NFS_ACL is there (overlayfs needs it), has no lists and takes none.
    let acl = |procedure| words(&[9, 0, 2, 100_227, 3, procedure, 0, 0, 0, 0]);
    client.send_record(&acl(0));
    assert_eq!(client.read_record().unwrap(), words(&[9, 1, 0, 0, 0, 0]));
    client.send_record(&acl(2));
    assert_eq!(
        client.read_record().unwrap(),
        words(&[9, 1, 0, 0, 0, 0, 30, 0])
    );
    client.send_record(&[acl(1), words(&[8, 1, 2, 0xf])].concat());
    assert_eq!(
        client.read_record().unwrap(),
        words(&[9, 1, 0, 0, 0, 0, 10_001, 0])
    );
    assert!(client.try_call::<Void>(PROGRAM, 0, &Void).is_ok());
    let tool = client.path(&root, "usr/bin/tool");
    assert_eq!(client.read(&tool, 0, u32::MAX).unwrap().0.len(), 1 << 20);
    assert_eq!(
        client.read(&tool, u64::MAX, u32::MAX).unwrap(),
        (vec![], true)
    );
    assert!(!running.told("Faltered"));
}

#[test]
fn many_calls_in_flight_are_all_answered() {
    let top = tree();
    let (_running, mut client, root) = serve(&top);
    let tool = client.path(&root, "usr/bin/tool");
    let handle = [&24_u32.to_be_bytes()[..], &tool.data].concat();
    // 1000 calls of 64 KiB each, more than the engine takes and than the budget holds; one xid for all.
    let mut sender = client.stream.try_clone().unwrap();
    let call: Vec<u8> = [9, 0, 2, 100_003, 3, 6, 0, 0, 0, 0]
        .iter()
        .flat_map(|word: &u32| word.to_be_bytes())
        .collect();
    let record = [&call[..], &handle, &[0; 8], &65536_u32.to_be_bytes()].concat();
    let sending = std::thread::spawn(move || {
        let mark = (0x8000_0000 | u32::try_from(record.len()).unwrap()).to_be_bytes();
        for _ in 0..1000 {
            sender.write_all(&[&mark[..], &record].concat()).unwrap();
        }
    });
    for _ in 0..1000 {
        let reply = client.read_record().unwrap();
        assert_eq!(reply[..4], 9_u32.to_be_bytes());
        assert!(reply.len() > 65536, "{reply:?}");
    }
    sending.join().unwrap();
}

#[test]
fn connections_are_limited_and_places_come_back() {
    let top = tree();
    let limits = Limits {
        connections: 4,
        connections_per_address: 2,
        ..Limits::default()
    };
    let exports = Exports::scan(&[("demo".to_owned(), top.path().to_owned())]).unwrap();
    let running = Running::start_with("127.0.0.1:0".parse().unwrap(), exports, |server| {
        server.limits(limits)
    })
    .unwrap();
    let mut first = Client::connect(running.address);
    let mut second = Client::connect(running.address);
    assert!(first.mount("/roots/demo").is_ok() && second.mount("/roots/demo").is_ok());
    let mut third = TcpStream::connect(running.address).unwrap();
    assert!(!matches!(third.read(&mut [0]), Ok(1..)));
    assert!(running.told("TooManyConnections { limit: 2"));
    drop(second);
    let (started, limit) = (Instant::now(), Duration::from_secs(20));
    let again = || {
        let mut client = Client::connect(running.address);
        client.stream.write_all(&[0x80, 0, 0, 40]).is_ok() && {
            let null: Vec<u8> = [1, 0, 2, 100_003, 3, 0, 0, 0, 0, 0]
                .iter()
                .flat_map(|w: &u32| w.to_be_bytes())
                .collect();
            client.stream.write_all(&null).is_ok()
                && client
                    .stream
                    .read(&mut [0; 28])
                    .is_ok_and(|count| count > 0)
        }
    };
    assert!(
        std::iter::repeat_with(again)
            .take_while(|_| started.elapsed() < limit)
            .any(|served| served),
        "the place of a closed connection never came back"
    );
    assert!(first.mount("/roots/demo").is_ok());
}

#[test]
fn who_connects_and_asks_for_nothing_is_let_go_and_who_uses_a_root_is_not() {
    let top = tree();
    let limits = Limits {
        silence: Duration::from_secs(1),
        ..Limits::default()
    };
    let exports = Exports::scan(&[("demo".to_owned(), top.path().to_owned())]).unwrap();
    let running = Running::start_with("127.0.0.1:0".parse().unwrap(), exports, |server| {
        server.limits(limits)
    })
    .unwrap();
    let mut host = Client::connect(running.address);
    let root = host.mount("/roots/demo").unwrap();
    assert!(host.getattr(&root).is_ok());
    let mut idle = Client::connect(running.address);
    // A call that anybody may make does not keep the place.
    idle.try_call::<Void>(PROGRAM, 0, &Void).unwrap();
    assert_eq!(idle.read_record(), None);
    assert!(host.getattr(&root).is_ok());
}

#[test]
fn who_is_not_allowed_gets_nothing_but_the_reason() {
    let top = tree();
    let (open, mut client, root) = serve(&top);
    assert!(client.getattr(&root).is_ok());
    let address = "127.0.0.1:0".parse().unwrap();
    let running = Running::start_with(address, open.exports.clone(), |server| {
        server.allow(|_| false)
    })
    .unwrap();
    let mut client = Client::connect(running.address);
    assert!(matches!(
        client.mount("/roots/demo"),
        Err(mountstat3::MNT3ERR_ACCES)
    ));
    assert!(running.told("NotAllowed"));
    let denied = client.try_call::<GETATTR3res>(PROGRAM, 1, &GETATTR3args { object: root });
    assert!(denied.unwrap_err().contains("AUTH_TOOWEAK"));
}

#[test]
fn a_taken_port_is_named() {
    let top = tree();
    let (running, ..) = serve(&top);
    let error = Running::start_with(running.address, running.exports.clone(), |server| server)
        .err()
        .unwrap();
    assert!(matches!(error, BindError::Taken { .. }));
    assert!(
        error
            .to_string()
            .contains(&running.address.port().to_string())
    );
}

#[test]
fn each_bad_root_is_named() {
    let top = tree();
    let file = top.path().join("etc/empty");
    let root = |name: &str, path: &Path| (name.to_owned(), path.to_owned());
    let roots = [
        root("good", top.path()),
        root("good", top.path()),
        root("gone", Path::new("/nonexistent/root")),
        root("file", &file),
        root("a/b", top.path()),
        root("..", top.path()),
    ];
    let (exports, faults) = Exports::scan_available(&roots);
    assert_eq!(
        exports
            .list()
            .iter()
            .map(|export| &export.name[..])
            .collect::<Vec<_>>(),
        ["good"]
    );
    let text = faults
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(matches!(
        faults[0],
        ScanError::Duplicate { .. } | ScanError::Unreadable { .. } | ScanError::BadName { .. }
    ));
    for part in [
        "used twice",
        "/nonexistent/root: it is not there",
        "not a directory",
        "`a/b`",
        "`..`",
    ] {
        assert!(text.contains(part), "{part} not in:\n{text}");
    }
    assert_eq!(Exports::scan(&roots).unwrap_err().0.len(), 5);
}

#[test]
fn another_file_system_in_the_tree_is_served_empty() {
    if !is_root() {
        println!("SKIPPED: another file system in the tree (not root: cannot mount)");
        return;
    }
    let top = tree();
    let path = top.path().to_owned();
    // A mount namespace for this thread alone: nothing to clean up.
    let index = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            assert!(
                Command::new(program)
                    .args(arguments)
                    .status()
                    .unwrap()
                    .success()
            )
        };
        run("mount", &["--make-rprivate", "/"]);
        run(
            "mount",
            &["-t", "tmpfs", "none", path.join("usr").to_str().unwrap()],
        );
        fs::write(path.join("usr/hidden"), "").unwrap();
        Exports::scan(&[("demo".to_owned(), path)]).unwrap()
    });
    let exports = index.join().unwrap();
    let running =
        Running::start_with("127.0.0.1:0".parse().unwrap(), exports, |server| server).unwrap();
    let mut client = Client::connect(running.address);
    let root = client.mount("/roots/demo").unwrap();
    let mounted = client.path(&root, "usr");
    assert_eq!(client.readdir(&mounted, 4096).len(), 2);
}

#[test]
fn the_linux_client_sees_the_tree_and_survives_a_restart() {
    let build =
        std::env::var_os("BRIDGEHEAD_BUILD").map_or_else(|| PathBuf::from("build"), PathBuf::from);
    match guest::Kernel::find(&build.join("kernels/debian")) {
        Ok(kernel) => guest::boots_from_the_server(&kernel, &tree()),
        Err(missing) => {
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            println!("SKIPPED: the Linux client in a virtual machine: {missing}");
        }
    }
}
