//! Threads that carry the transfers, each its own by epoll(7): a block costs one receive, one send and a share of one
//! wait, and no task, timer or lock is touched for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::session::{Session, Then};

/// More threads than this would wait for the network, not for each other.
const MOST_THREADS: usize = 8;

/// Sockets that are looked at between two looks at the clock.
const BATCH: usize = 128;

/// Among the events, what isn't a session but [`Post::wake`].
const WAKE: u64 = u64::MAX;

/// All threads, as those see it who give them work.
#[derive(Debug)]
pub(super) struct Crew {
    posts: Vec<Arc<Post>>,
    next_id: AtomicU64,
}

/// Where one thread gets its work.
#[derive(Debug)]
pub(super) struct Post {
    epoll: Epoll,
    wake: EventFd,
    /// Sessions that are here or on their way.
    load: AtomicUsize,
    inbox: Mutex<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    /// Bounded: a session starts once, and rings once until it is looked at.
    messages: Vec<Message>,
    /// No more work will come.
    closing: bool,
    /// Nobody empties it any more.
    left: bool,
}

#[derive(Debug)]
enum Message {
    Start(u64, Box<Session>),
    Ring(u64),
}

/// Wakes the thread of one session.
#[derive(Debug)]
pub(super) struct Bell {
    post: Arc<Post>,
    id: u64,
}

impl Bell {
    pub(super) fn ring(&self) {
        // Without a reader the session is gone, too.
        let _ = self.post.put(Message::Ring(self.id));
    }
}

impl Crew {
    /// As many posts as the machine has cores; [`work`] wants a thread for each.
    pub(super) fn new() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let posts = (0..cores.min(MOST_THREADS)).map(|_| Post::new().map(Arc::new));
        Ok(Self {
            posts: posts.collect::<io::Result<_>>()?,
            next_id: AtomicU64::new(0),
        })
    }

    pub(super) fn posts(&self) -> impl Iterator<Item = Arc<Post>> + '_ {
        self.posts.iter().cloned()
    }

    /// Gives a session to the thread that has the fewest. One that comes after all have left is dropped.
    pub(super) fn start(&self, session: Session) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let load = |post: &&Arc<Post>| post.load.load(Ordering::Relaxed);
        let Some(post) = self.posts.iter().min_by_key(load) else {
            return;
        };
        let bell = Bell {
            post: post.clone(),
            id,
        };
        session.line().hang(bell);
        post.load.fetch_add(1, Ordering::Relaxed);
        // Dropped outside the lock: a session that ends asks for others' locks.
        drop(post.put(Message::Start(id, Box::new(session))));
    }

    /// Lets the threads end once their sessions have.
    pub(super) fn close(&self) {
        for post in &self.posts {
            post.inbox().closing = true;
            post.wake();
        }
    }
}

impl Post {
    fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            wake,
            load: AtomicUsize::new(0),
            inbox: Mutex::default(),
        })
    }

    /// Gives the message back where nobody reads it.
    fn put(&self, message: Message) -> Result<(), Message> {
        let mut inbox = self.inbox();
        if inbox.left {
            return Err(message);
        }
        let first = inbox.messages.is_empty();
        inbox.messages.push(message);
        drop(inbox);
        if first {
            self.wake();
        }
        Ok(())
    }

    fn wake(&self) {
        // It fails only where the counter is full, and then the thread wakes anyway.
        let _ = self.wake.write(1);
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // No code panics while it holds the lock.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries the sessions of `post` until [`Crew::close`] and the end of the last one.
pub(super) fn work(post: Arc<Post>) {
    let mut worker = Worker {
        post,
        sessions: HashMap::new(),
        alarms: BinaryHeap::new(),
    };
    let mut events = [EpollEvent::empty(); BATCH];
    while !worker.may_leave() {
        // An interrupted wait is a wait without events.
        let timeout = worker.timeout();
        let ready = worker.post.epoll.wait(&mut events, timeout).unwrap_or(0);
        let now = Instant::now();
        for event in &events[..ready] {
            match event.data() {
                WAKE => drop(worker.post.wake.read()),
                id => worker.step(id, |session| session.on_ready(event.events(), now)),
            }
        }
        worker.take_messages(now);
        worker.ring_alarms(now);
    }
}

struct Worker {
    post: Arc<Post>,
    sessions: HashMap<u64, Box<Session>>,
    /// When to look at which session. A deadline mostly moves away: then the old alarm rings early, which costs less
    /// than to set it for each block.
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Worker {
    /// Looks at one session, and does with it what it says.
    fn step(&mut self, id: u64, look: impl FnOnce(&mut Session) -> Then) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match look(session) {
            Then::GoOn => {}
            Then::Watch(flags) => {
                let mut event = EpollEvent::new(flags, id);
                // A session that can't be watched is woken by its alarms.
                let _ = self.post.epoll.modify(session.socket(), &mut event);
            }
            Then::End => return self.end(id),
        }
        if let Some(at) = session.new_alarm() {
            self.alarms.push(Reverse((at, id)));
        }
    }

    fn end(&mut self, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.post.load.fetch_sub(1, Ordering::Relaxed);
            // Closing the socket ends its watching.
            session.end();
        }
    }

    fn take_messages(&mut self, now: Instant) {
        let messages = std::mem::take(&mut self.post.inbox().messages);
        for message in messages {
            match message {
                Message::Ring(id) => self.step(id, |session| session.on_command(now)),
                Message::Start(id, session) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, id);
                    let watched = self.post.epoll.add(session.socket(), event);
                    self.sessions.insert(id, session);
                    self.step(id, |session| session.begin(watched, now));
                }
            }
        }
    }

    fn ring_alarms(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.alarms.peek().copied()
            && at <= now
        {
            self.alarms.pop();
            self.step(id, |session| session.on_alarm(at, now));
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let Some(Reverse((at, _))) = self.alarms.peek() else {
            return EpollTimeout::NONE;
        };
        let wait = at.saturating_duration_since(Instant::now()).as_millis();
        // Rounded up: a millisecond late is no trouble, but to look too early again and again is.
        let wait = i32::try_from(wait + 1).unwrap_or(i32::MAX);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::NONE)
    }

    fn may_leave(&self) -> bool {
        if !self.sessions.is_empty() {
            return false;
        }
        let mut inbox = self.post.inbox();
        inbox.left = inbox.closing && inbox.messages.is_empty();
        inbox.left
    }
}
