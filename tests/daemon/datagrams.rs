//! A socket of datagrams, as a manager and the journal have one: what is sent to it lies in a short queue (unix(7)).

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::lab::io_error;
use crate::ok;

/// The last one, of the test itself.
const END: &[u8] = b"END";

/// One that nobody reads.
pub(crate) struct Deaf {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Deaf {
    pub(crate) fn at(path: &Path) -> Self {
        let socket = ok(UnixDatagram::bind(path).map_err(io_error("bind", path)));
        Self {
            path: path.to_owned(),
            socket,
        }
    }

    /// Takes every place of its queue.
    pub(crate) fn fill(&self) {
        let filler = ok(UnixDatagram::unbound().map_err(io_error("fill", &self.path)));
        ok(filler
            .set_nonblocking(true)
            .map_err(io_error("fill", &self.path)));
        while filler.send_to(b"FULL=1\n", &self.path).is_ok() {}
    }

    /// Takes what comes as it comes, so that whoever sends never waits for a test that looks elsewhere.
    pub(crate) fn hear(self) -> Datagrams {
        let (tell, heard) = channel();
        let Self { path, socket } = self;
        thread::spawn(move || {
            let mut datagram = vec![0; 1 << 16];
            while let Ok(length) = socket.recv(&mut datagram) {
                let datagram = &datagram[..length];
                if datagram == END || tell.send(datagram.to_vec()).is_err() {
                    return;
                }
            }
        });
        Datagrams { path, heard }
    }
}

/// What came, in order.
pub(crate) struct Datagrams {
    path: PathBuf,
    heard: Receiver<Vec<u8>>,
}

impl Datagrams {
    pub(crate) fn next(&self, wait: Duration) -> Option<Vec<u8>> {
        self.heard.recv_timeout(wait).ok()
    }

    /// All that was sent until now.
    pub(crate) fn rest(self) -> Vec<Vec<u8>> {
        let socket = ok(UnixDatagram::unbound().map_err(io_error("end", &self.path)));
        ok(socket
            .send_to(END, &self.path)
            .map_err(io_error("end", &self.path)));
        self.heard.iter().collect()
    }
}
