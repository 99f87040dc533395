//! A server in its own thread, and what it told its observer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bridgehead::nfs::{BindError, Exports, Server};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) exports: Exports,
    events: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(roots: &[(&str, PathBuf)]) -> Self {
        let roots: Vec<_> = roots
            .iter()
            .map(|(name, path)| ((*name).to_owned(), path.clone()))
            .collect();
        Self::start_with(
            "127.0.0.1:0".parse().unwrap(),
            Exports::scan(&roots).unwrap(),
            |server| server,
        )
        .unwrap()
    }

    pub(crate) fn start_with(
        address: SocketAddr,
        exports: Exports,
        configure: impl FnOnce(Server) -> Server,
    ) -> Result<Self, BindError> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let observer = Arc::new(move |event| log.lock().unwrap().push(format!("{event:?}")));
        let runtime = Runtime::new().unwrap();
        let server =
            configure(runtime.block_on(Server::bind(address, exports.clone(), observer))?);
        let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
        let serving = server.serve(stop.clone());
        let thread = Some(std::thread::spawn(move || runtime.block_on(serving)));
        Ok(Self {
            address,
            exports,
            events,
            stop,
            thread,
        })
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn told(&self, what: &str) -> bool {
        self.events().iter().any(|event| event.contains(what))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
