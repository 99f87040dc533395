//! `GET /v1/live`: what has changed since, as server-sent events.
//!
//! All machines are looked at once a second at most, and only while somebody watches; what each watcher is told is the
//! difference to what it has. So a watcher costs no queue, and one that comes back (`Last-Event-ID`) goes on where it
//! was. The page at `/` is made once a second at most, too, however many ask.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_lite::{Stream, stream};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::addresses::{Addresses, Seat};
use super::{App, Ends, approve, status};
use crate::page::{self, Card};
use crate::site::report::{FleetStatus, MachineStatus};

/// How often all machines are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Who watches at once; each holds a connection.
const WATCHERS: usize = 64;
/// Of them with one address: a few people behind one router, and no more, for a client can hold a stream for ever.
const OF_ADDRESS: usize = 8;
/// How long those who are not listed may come and go before pages are loaded anew for them: anybody can invent some.
const STRANGERS: Duration = Duration::from_secs(10);
/// A comment that keeps proxies from closing a stream on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the page shows, with the version that each part is from.
#[derive(Debug)]
pub struct Live {
    /// Another with each start of the daemon: its versions begin anew.
    epoch: String,
    board: Arc<Mutex<Board>>,
    seats: Arc<Semaphore>,
    addresses: Arc<Addresses>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            epoch: Uuid::now_v7().simple().to_string(),
            board: Arc::default(),
            seats: Arc::new(Semaphore::new(WATCHERS)),
            addresses: Arc::new(Addresses::new(OF_ADDRESS)),
        }
    }
}

/// What was seen last.
#[derive(Debug, Default)]
struct Board {
    looked: Option<Instant>,
    fleet: Arc<FleetStatus>,
    /// The page of that, once somebody has asked for it.
    page: Option<Bytes>,
    version: u64,
    /// The version in which something changed that is not a machine's: the page is to be loaded anew.
    whole: u64,
    frame: String,
    /// Those not listed that the page shows, who of them waits, and since when it shows these.
    strangers: BTreeSet<String>,
    waiting: BTreeSet<String>,
    strangers_since: Option<Instant>,
    machines: BTreeMap<String, (u64, Card)>,
}

/// What one look at the site found.
#[derive(Debug, Default)]
struct Seen {
    /// How many edits of the inventory were taken up: any may change what the page offers.
    edits: u64,
    fleet: FleetStatus,
    /// Those not listed that wait to be made hosts.
    waiting: BTreeSet<String>,
}

impl Seen {
    fn of(app: &App) -> Self {
        // First: what an edit changes after this is seen by the next look.
        let edits = app.reload.accepted();
        Self {
            edits,
            fleet: status::fleet(app),
            waiting: app.site.discovery.waiting(Timestamp::now()),
        }
    }
}

impl Board {
    fn look(&mut self, seen: Seen, now: Instant) {
        let (next, frame) = (self.version + 1, frame(&seen));
        let fleet = seen.fleet;
        if self.meets_strangers(&fleet, seen.waiting, now) || frame != self.frame {
            (self.whole, self.frame) = (next, frame);
        }
        let shown = fleet
            .unknown
            .iter()
            .filter(|one| self.strangers.contains(&one.host));
        let cards: Vec<Card> = fleet.hosts.iter().chain(shown).map(Card::new).collect();
        let machines = cards.into_iter().map(|card| {
            let before = self.machines.remove(&card.host);
            let same = before.filter(|(_, old)| *old == card);
            (
                card.host.clone(),
                (same.map_or(next, |(version, _)| version), card),
            )
        });
        self.machines = machines.collect();
        let newest = self.machines.values().map(|(version, _)| *version).max();
        self.version = self.whole.max(newest.unwrap_or(0));
        self.fleet = Arc::new(fleet);
        self.page = None;
        self.looked = Some(now);
    }

    /// Whether others that are not listed are to be shown from now on.
    fn meets_strangers(
        &mut self,
        fleet: &FleetStatus,
        waiting: BTreeSet<String>,
        now: Instant,
    ) -> bool {
        let strangers: BTreeSet<String> =
            fleet.unknown.iter().map(|one| one.host.clone()).collect();
        let rests = self
            .strangers_since
            .is_some_and(|since| now.saturating_duration_since(since) < STRANGERS);
        if rests || (strangers == self.strangers && waiting == self.waiting) {
            return false;
        }
        (self.strangers, self.waiting) = (strangers, waiting);
        self.strangers_since = Some(now);
        true
    }

    /// What somebody is to be told who has seen `version`.
    fn news(&self, version: u64) -> News<'_> {
        if version < self.whole {
            return News::Whole;
        }
        let newer = self
            .machines
            .values()
            .filter(|(changed, _)| *changed > version);
        let cards: Vec<&Card> = newer.map(|(_, card)| card).collect();
        if cards.is_empty() {
            News::Nothing
        } else {
            News::Machines(cards)
        }
    }
}

/// What a page shows besides how machines stand, and which are where.
fn frame(Seen { edits, fleet, .. }: &Seen) -> String {
    let place = |host: &MachineStatus| format!("{}\t{:?}\t{:?}\n", host.host, host.rack, host.unit);
    let places: String = fleet.hosts.iter().map(place).collect();
    let warnings = page::warnings(fleet);
    format!(
        "{edits} {} {:?} {warnings:?}\n{places}",
        fleet.site, fleet.refused_edit
    )
}

#[derive(Debug, PartialEq, Eq)]
enum News<'a> {
    Nothing,
    /// These machines.
    Machines(Vec<&'a Card>),
    /// More than machines: load the page anew.
    Whole,
}

impl Live {
    /// All machines as they were at most a second ago, and the version of that.
    pub(super) async fn fleet(&self, app: &App) -> (Arc<FleetStatus>, String) {
        let board = self.board(app).await;
        (board.fleet.clone(), self.id(board.version))
    }

    /// The page of that.
    ///
    /// # Errors
    /// Why it can't be made.
    pub(super) async fn page(&self, app: &App) -> Result<Bytes, String> {
        let mut board = self.board(app).await;
        if let Some(page) = &board.page {
            return Ok(page.clone());
        }
        let (fleet, version) = (board.fleet.clone(), self.id(board.version));
        let site = app.site.clone();
        let make = move || {
            let now = Timestamp::now();
            page::fleet(&fleet, approve::waiting(&site, now), &version, now)
        };
        let made = spawn_blocking(make)
            .await
            .map_err(|error| error.to_string())?;
        let page = Bytes::from(made.map_err(|error| error.to_string())?);
        Ok(board.page.insert(page).clone())
    }

    /// Ten thousand machines are looked at where nothing else waits for it.
    async fn board(&self, app: &App) -> OwnedMutexGuard<Board> {
        let mut board = self.board.clone().lock_owned().await;
        let now = Instant::now();
        if board
            .looked
            .is_some_and(|looked| now.saturating_duration_since(looked) < LOOK)
        {
            return board;
        }
        let app = app.clone();
        let looking = spawn_blocking(move || {
            board.look(Seen::of(&app), now);
            board
        });
        match looking.await {
            Ok(board) => board,
            // A fault of ours; what was seen before is better than nothing.
            Err(_) => self.board.clone().lock_owned().await,
        }
    }

    fn id(&self, version: u64) -> String {
        format!("{}-{version}", self.epoch)
    }

    /// The version that an id names; 0 where it is not of this run of the daemon.
    fn version(&self, id: &str) -> u64 {
        let number = id
            .strip_prefix(&self.epoch)
            .and_then(|rest| rest.strip_prefix('-'));
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// The next thing to tell who has seen `version`, and the version then.
    async fn next(&self, app: &App, version: u64) -> (Event, u64) {
        loop {
            let board = self.board(app).await;
            // A version that was never given, by a client that makes one up, is as good as none.
            let seen = if version > board.version { 0 } else { version };
            let event = Event::default().id(self.id(board.version));
            let event = match board.news(seen) {
                News::Nothing => None,
                // An event without data is none (HTML, "dispatch the event").
                News::Whole => Some(event.event("whole").data("again")),
                News::Machines(cards) => event.event("hosts").json_data(cards).ok(),
            };
            if let Some(event) = event {
                return (event, board.version);
            }
            drop(board);
            sleep(LOOK).await;
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    since: String,
}

/// The daemon's end, which ends streams that have none of their own.
#[derive(Debug, Clone)]
pub(super) struct Closing(pub(super) CancellationToken);

/// What a watcher holds while it watches.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _seat: Seat,
}

impl Live {
    fn place(&self, ends: Ends) -> Option<Place> {
        Some(Place {
            _permit: self.seats.clone().try_acquire_owned().ok()?,
            _seat: self.addresses.admit(ends.peer()).ok()?,
        })
    }
}

pub(super) async fn live(
    State(app): State<App>,
    Query(Since { since }): Query<Since>,
    Extension(ends): Extension<Ends>,
    Extension(Closing(closing)): Extension<Closing>,
    headers: HeaderMap,
) -> Response {
    let Some(place) = app.live.place(ends) else {
        let words = format!(
            "{WATCHERS} watch already, or {OF_ADDRESS} from your address; the page comes again\n"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let version = app.live.version(last.unwrap_or(&since));
    let events = events(app, version, place, closing);
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn events(
    app: App,
    version: u64,
    place: Place,
    closing: CancellationToken,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(
        (app, version, place, closing),
        async |(app, version, place, closing)| {
            let (event, version) = tokio::select! {
                () = closing.cancelled() => return None,
                next = app.live.next(&app, version) => next,
            };
            Some((Ok(event), (app, version, place, closing)))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(host: &str, state: &str, for_s: i64) -> MachineStatus {
        serde_json::from_value(serde_json::json!({
            "host": host, "stage": "kernel", "state": state, "since": null, "for_s": for_s, "attempt": null,
            "note": "", "rack": null, "unit": null, "stages": [],
        }))
        .unwrap()
    }

    fn fleet(hosts: Vec<MachineStatus>) -> Seen {
        Seen {
            fleet: FleetStatus {
                hosts,
                ..FleetStatus::default()
            },
            ..Seen::default()
        }
    }

    #[test]
    fn invented_machines_load_no_page_anew_each_second() {
        let (mut board, now) = (Board::default(), Instant::now());
        let mut told = 0;
        for second in 0..60 {
            let mut flooded = fleet(vec![machine("a", "running", 1)]);
            flooded.fleet.unknown = (0..50)
                .map(|n| machine(&format!("mac-{second}-{n}"), "running", 1))
                .collect();
            let seen = board.version;
            board.look(flooded, now + LOOK * second);
            told += u32::from(board.news(seen) == News::Whole);
            assert!(board.machines.len() <= 51);
        }
        assert_eq!(told, 6, "once in ten seconds");
    }

    #[test]
    fn one_address_leaves_places_to_others() {
        let live = Live::default();
        let from = |last| Ends::Network {
            peer: [10, 0, 0, last].into(),
            local: [10, 0, 0, 1].into(),
            sealed: false,
        };
        let mut held: Vec<Place> = (0..OF_ADDRESS)
            .filter_map(|_| live.place(from(9)))
            .collect();
        assert_eq!(held.len(), OF_ADDRESS);
        assert!(live.place(from(9)).is_none());
        assert!(live.place(from(8)).is_some());
        held.pop();
        assert!(
            live.place(from(9)).is_some(),
            "a place that was left is free"
        );
    }

    fn names(news: &News<'_>) -> Vec<String> {
        match news {
            News::Machines(cards) => cards.iter().map(|card| card.host.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_watcher_is_told_what_it_has_not_seen_and_nothing_twice() {
        let (mut board, now) = (Board::default(), Instant::now());
        board.look(
            fleet(vec![machine("a", "running", 1), machine("b", "running", 1)]),
            now,
        );
        assert_eq!(board.news(0), News::Whole, "who has nothing loads the page");
        let first = board.version;
        assert_eq!(board.news(first), News::Nothing);
        board.look(
            fleet(vec![machine("a", "running", 2), machine("b", "running", 2)]),
            now,
        );
        assert_eq!(
            (board.news(first), board.version),
            (News::Nothing, first),
            "time alone is no news"
        );
        board.look(
            fleet(vec![machine("a", "done", 3), machine("b", "running", 3)]),
            now,
        );
        let second = board.version;
        assert_eq!(names(&board.news(first)), ["a"]);
        board.look(
            fleet(vec![machine("a", "done", 4), machine("b", "stalled", 4)]),
            now,
        );
        assert_eq!(names(&board.news(second)), ["b"]);
        assert_eq!(
            names(&board.news(first)),
            ["a", "b"],
            "who was away is told all of it"
        );
    }

    #[test]
    fn machines_that_come_and_go_and_edits_load_the_page_anew() {
        let (mut board, now) = (Board::default(), Instant::now());
        board.look(fleet(vec![machine("a", "running", 1)]), now);
        let mut seen = board.version;
        let moved = || {
            let mut moved = machine("b", "running", 1);
            moved.rack = Some("r2".to_owned());
            moved
        };
        let mut refused = fleet(vec![moved()]);
        refused.fleet.refused_edit = Some("line 3".to_owned());
        // Who may approve, say: no machine stands otherwise for it.
        let edited = Seen {
            edits: 1,
            ..fleet(vec![moved()])
        };
        let waits = Seen {
            edits: 1,
            waiting: BTreeSet::from(["mac-525400000009".to_owned()]),
            ..fleet(vec![moved()])
        };
        for next in [
            fleet(vec![machine("a", "running", 1), machine("b", "running", 1)]),
            fleet(vec![machine("b", "running", 1)]),
            fleet(vec![moved()]),
            refused,
            edited,
            waits,
        ] {
            board.look(next, now);
            assert_eq!(board.news(seen), News::Whole);
            seen = board.version;
            assert_eq!(board.news(seen), News::Nothing);
        }
    }

    #[test]
    fn versions_of_another_run_count_for_nothing() {
        let (before, live) = (Live::default(), Live::default());
        assert_eq!(live.version(&live.id(7)), 7);
        for bad in [
            before.id(7),
            String::new(),
            "-".to_owned(),
            format!("{}-x", live.epoch),
        ] {
            assert_eq!(live.version(&bad), 0, "{bad}");
        }
    }
}
