//! Many clients in two threads, or one that blocks.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::fetch::{Ask, Fetch, Room};
use super::rig::SERVER;

/// So many threads play the clients.
const THREADS: usize = 2;

/// What the clients do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) clients: usize,
    /// File after file for so long; without it each client fetches one.
    pub(crate) lasts: Option<Duration>,
    pub(crate) ask: Ask<'a>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Result {
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Of each file, seconds.
    pub(crate) times: Vec<f64>,
    pub(crate) timeouts: u64,
}

/// Runs all clients to their end, from the thread's own network namespace.
pub(crate) fn run(load: &Load<'_>) -> io::Result<Result> {
    let started = Instant::now();
    let until = load.lasts.map(|lasts| started + lasts);
    let mut total = match load.clients {
        1 => alone(load.ask, until)?,
        _ => thread::scope(|scope| {
            let share = |n| load.clients / THREADS + usize::from(n < load.clients % THREADS);
            let threads: Vec<_> = (0..THREADS)
                .map(|n| scope.spawn(move || together(load.ask, share(n), until)))
                .collect();
            let mut total = Result::default();
            for thread in threads {
                total.add(thread.join().map_err(|_| io::Error::other("panic"))??);
            }
            io::Result::Ok(total)
        })?,
    };
    total.elapsed = started.elapsed();
    Ok(total)
}

/// A request to see whether the server answers; whatever it says, it does.
pub(crate) fn answers(name: &str) -> bool {
    let ask = Ask {
        name,
        block_size: 1432,
        window: 1,
        probe: true,
        content: &[],
    };
    let heard = || -> io::Result<()> {
        let mut probe = Fetch::start(ask, server()?, true)?;
        probe.receive(&mut Room::new(1), server()?)
    };
    heard().is_ok()
}

impl Result {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.times.extend(other.times);
        self.timeouts += other.timeouts;
    }

    fn count(&mut self, fetch: &Fetch<'_>, took: Duration) {
        self.bytes += fetch.bytes();
        self.times.push(took.as_secs_f64());
        self.timeouts += fetch.timeouts;
    }
}

fn server() -> io::Result<SocketAddr> {
    format!("{SERVER}:69").parse().map_err(io::Error::other)
}

/// One client that does nothing but wait for its server.
fn alone(ask: Ask<'_>, until: Option<Instant>) -> io::Result<Result> {
    let (server, mut room) = (server()?, Room::new(ask.window));
    let mut total = Result::default();
    loop {
        let mut fetch = Fetch::start(ask, server, true)?;
        let took = loop {
            match fetch.receive(&mut room, server) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => fetch.on_time(server)?,
                received => received?,
            }
            if let Some(took) = fetch.took {
                break took;
            }
        };
        total.count(&fetch, took);
        if until.is_none_or(|until| Instant::now() >= until) {
            return Ok(total);
        }
    }
}

/// `count` clients that one thread plays, woken by epoll(7).
fn together(ask: Ask<'_>, count: usize, until: Option<Instant>) -> io::Result<Result> {
    let (server, mut room) = (server()?, Room::new(ask.window));
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let begin = |n: usize| -> io::Result<Fetch<'_>> {
        let fetch = Fetch::start(ask, server, false)?;
        epoll.add(&fetch, EpollEvent::new(EpollFlags::EPOLLIN, n as u64))?;
        Ok(fetch)
    };
    let mut fetches: Vec<_> = (0..count).map(begin).collect::<io::Result<_>>()?;
    let (mut total, mut running) = (Result::default(), count);
    let mut events = vec![EpollEvent::empty(); 64];
    let mut looked = Instant::now();
    while running > 0 {
        let ready = epoll.wait(&mut events, EpollTimeout::from(100_u8))?;
        for event in &events[..ready] {
            let n = event.data() as usize;
            let fetch = &mut fetches[n];
            match fetch.receive(&mut room, server) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                received => received?,
            }
            let Some(took) = fetch.took else { continue };
            total.count(fetch, took);
            epoll.delete(&*fetch)?;
            if until.is_some_and(|until| Instant::now() < until) {
                *fetch = begin(n)?;
            } else {
                running -= 1;
            }
        }
        if looked.elapsed() > Duration::from_millis(100) {
            looked = Instant::now();
            let silent = fetches.iter_mut().filter(|fetch| fetch.took.is_none());
            silent
                .into_iter()
                .try_for_each(|fetch| fetch.on_time(server))?;
        }
    }
    Ok(total)
}
