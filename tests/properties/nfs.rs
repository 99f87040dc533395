//! The NFS front: whatever a connection brings, it ends, and what it is sent are whole replies to its calls.

use std::cell::LazyCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bridgehead::nfs::{Exports, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The shortest call: a record mark, and a header with empty credential and verifier (RFC 5531 section 9).
const SHORTEST_CALL: usize = 4 + 40;

/// The longest reply: a READ of 1 MiB and what stands before it.
const LONGEST_REPLY: usize = (1 << 20) + 4096;

/// A connection that is open longer after the client has closed its side hangs.
const HANGS: Duration = Duration::from_secs(20);

thread_local! {
    static WORLD: LazyCell<World> = const { LazyCell::new(World::start) };
}

/// Holds for the bytes of every connection.
pub(crate) fn check(bytes: &[u8]) {
    WORLD.with(|world| {
        let replies = world.runtime.block_on(converse(world.address, bytes));
        check_replies(bytes, &replies);
    });
}

/// The server, on loopback and on this thread. Handles come from names, so they are the same in every run.
struct World {
    runtime: Runtime,
    address: SocketAddr,
    _root: TempDir,
}

impl World {
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        plant(root.path());
        let exports = Exports::scan(&[("demo".to_owned(), root.path().to_owned())]);
        let exports = exports.expect("a sound root");
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let observer = Arc::new(|event| assert!(!format!("{event:?}").is_empty()));
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = runtime.block_on(Server::bind(anywhere, exports, observer));
        let server = server.expect("a port");
        let address = server.local_addr().expect("a port");
        runtime.spawn(server.serve(CancellationToken::new()));
        Self {
            runtime,
            address,
            _root: root,
        }
    }
}

/// Some of what stands in the tree that the corpus was captured from: its handles are for these paths.
fn plant(root: &Path) {
    for directory in ["etc", "usr/bin", "big", "tmp"] {
        std::fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    let content: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(root.join("usr/bin/tool"), content).expect("a file");
    std::fs::write(root.join("etc/shadow"), "root:*:1::::::\n").expect("a file");
    symlink("/etc/passwd", root.join("etc/out")).expect("a link");
    for number in 0..40 {
        let name = format!("big/entry-{number:04}");
        std::fs::write(root.join(name), b"").expect("a file");
    }
}

async fn converse(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    let (mut from, mut to) = stream.into_split();
    let send = async {
        // It may hang up before it has read all.
        let _ = to.write_all(bytes).await;
        let _ = to.shutdown().await;
    };
    let mut replies = Vec::new();
    let receive = async {
        // A connection that is cut for what it sent may end by a reset.
        let _ = from.read_to_end(&mut replies).await;
    };
    let both = async { tokio::join!(send, receive) };
    tokio::time::timeout(HANGS, both)
        .await
        .expect("a connection that its client closed ends");
    replies
}

fn check_replies(sent: &[u8], mut replies: &[u8]) {
    let mut count = 0;
    while let Some((mark, rest)) = replies.split_first_chunk() {
        let mark = u32::from_be_bytes(*mark);
        assert_ne!(mark & 1 << 31, 0, "a reply is one fragment");
        let length = (mark & !(1 << 31)) as usize;
        assert!(
            (12..LONGEST_REPLY).contains(&length),
            "a reply of {length} bytes"
        );
        // Cut by a reset, it may end anywhere.
        let Some((reply, rest)) = rest.split_at_checked(length) else {
            break;
        };
        assert_eq!(reply[4..8], [0, 0, 0, 1], "a reply, and no call");
        let xid = &reply[..4];
        assert!(
            sent.windows(4).any(|window| window == xid),
            "a reply to no call"
        );
        count += 1;
        replies = rest;
    }
    assert!(
        count <= sent.len() / SHORTEST_CALL + 1,
        "{count} replies to {} bytes",
        sent.len()
    );
}
