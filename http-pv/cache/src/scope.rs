//! What is kept for one target, with room of its own: whatever others do, it keeps its share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::watch;

use crate::fetch::key_of;
use crate::fill::Fill;
use crate::limits::{
    ANSWER_BYTES_MAX, ANSWER_SHARE_MAX, EXPECTED_ANSWER_BYTES, PASSED_FOR, PASSED_MAX, VARIANTS_MAX,
};
use crate::stored::{Stored, Terms};

/// The answers to one URL.
type Variants = Arc<[Arc<Stored>]>;

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Arc<str>, Variants> for Weight {
    fn weight(&self, key: &Arc<str>, variants: &Variants) -> u64 {
        key.len() as u64 + variants.iter().map(|stored| stored.weight()).sum::<u64>()
    }
}

/// What became of a request for a URL that others wait for.
#[derive(Debug, Clone, Default)]
pub(crate) enum Flight {
    #[default]
    UnderWay,
    /// The answer comes, and is for everybody whose request is as this one is.
    Fills(Arc<Filling>),
    /// It is kept now, or could be: look again.
    Landed,
    /// It is for that one client only.
    Passed,
}

/// An answer that comes.
#[derive(Debug)]
pub(crate) struct Filling {
    /// As it will be kept, without its content.
    pub(crate) head: Stored,
    pub(crate) fill: Arc<Fill>,
}

/// Who goes to the server, and who waits.
#[derive(Debug)]
pub(crate) enum Turn {
    Lead(Lead),
    Wait(watch::Receiver<Flight>),
    /// This URL is not waited for.
    Pass,
}

/// The request that others wait for. Dropped, they look again.
#[derive(Debug)]
pub(crate) struct Lead {
    scope: Arc<Scope>,
    key: Arc<str>,
    flight: watch::Sender<Flight>,
}

/// See the module.
#[derive(Debug)]
pub struct Scope {
    room: u64,
    kept: Cache<Arc<str>, Variants, Weight>,
    flights: Mutex<HashMap<Arc<str>, watch::Receiver<Flight>>>,
    passed: Mutex<HashMap<Arc<str>, Instant>>,
    /// Answered from here.
    pub(crate) hits: AtomicU64,
    /// Answered by the server.
    pub(crate) misses: AtomicU64,
}

/// What is counted of a [`Scope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeStats {
    /// Requests that were answered without their server.
    pub hits: u64,
    /// Requests that could have been, and were not.
    pub misses: u64,
    /// What is kept takes, bytes.
    pub bytes: u64,
    /// Answers that are kept.
    pub objects: u64,
}

/// What to remove.
#[derive(Debug, Clone, Copy)]
pub enum Purge<'a> {
    /// The answers to a URL, as `https://example.org/path?query`.
    Url(&'a str),
    /// Those that their server has given this tag, by `Cache-Tag` or `Surrogate-Key`.
    Tag(&'a str),
    /// All.
    All,
}

impl Scope {
    /// With room for so many bytes; 0 keeps nothing.
    pub fn new(room: u64) -> Arc<Self> {
        let expected = usize::try_from(room / EXPECTED_ANSWER_BYTES).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Arc::new(Self {
            room,
            kept: Cache::with_weighter(expected, room, Weight),
            flights: Mutex::default(),
            passed: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// Whether anything is kept here.
    pub fn keeps(&self) -> bool {
        self.room > 0
    }

    /// Its room, bytes.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Largest content of an answer that is kept, bytes.
    pub(crate) fn largest(&self) -> u64 {
        ANSWER_BYTES_MAX.min(self.room / ANSWER_SHARE_MAX)
    }

    pub(crate) fn find(&self, key: &str, request: &HeaderMap) -> Option<Arc<Stored>> {
        let variants = self.kept.get(key)?;
        variants.iter().find(|stored| stored.answers(request)).cloned()
    }

    pub(crate) fn keep(&self, key: &Arc<str>, stored: Stored) {
        let stored = Arc::new(stored);
        let others = self.kept.peek(&**key);
        let others = others.iter().flat_map(|variants| variants.iter());
        let others = others.filter(|other| !other.is_replaced_by(&stored)).take(VARIANTS_MAX - 1).cloned();
        let variants: Vec<_> = [stored.clone()].into_iter().chain(others).collect();
        self.kept.insert(key.clone(), variants.into());
    }

    /// Forgets an answer that is void.
    pub(crate) fn forget(&self, key: &str) {
        self.kept.remove(key);
    }

    /// Removes answers; how many URLs they were of.
    pub fn purge(&self, what: Purge<'_>) -> usize {
        let before = self.kept.len();
        match what {
            Purge::Url(url) => {
                let key = url.parse().map_or_else(|_| url.into(), |uri| key_of(&uri));
                drop(self.kept.remove(&key));
            }
            Purge::Tag(tag) => self
                .kept
                .retain(|_, variants| variants.iter().all(|stored| stored.tags.iter().all(|own| own != tag))),
            Purge::All => self.kept.clear(),
        }
        before.saturating_sub(self.kept.len())
    }

    /// What is counted.
    pub fn stats(&self) -> ScopeStats {
        ScopeStats {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            bytes: self.kept.weight(),
            objects: self.kept.iter().map(|(_, variants)| variants.len() as u64).sum(),
        }
    }

    pub(crate) fn turn(self: &Arc<Self>, key: &Arc<str>) -> Turn {
        if self.is_passed(key) {
            return Turn::Pass;
        }
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key).filter(|flight| flight.has_changed().is_ok()) {
            return Turn::Wait(flight.clone());
        }
        let (flight, watched) = watch::channel(Flight::UnderWay);
        flights.insert(key.clone(), watched);
        Turn::Lead(Lead { scope: self.clone(), key: key.clone(), flight })
    }

    fn is_passed(&self, key: &Arc<str>) -> bool {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.get(key).is_some_and(|since| since.elapsed() < PASSED_FOR)
    }
}

impl Lead {
    /// Tells those who wait that an answer comes.
    pub(crate) fn fills(&self, filling: Arc<Filling>) {
        self.flight.send_replace(Flight::Fills(filling));
    }

    /// Tells them to look again.
    pub(crate) fn landed(self) {
        self.flight.send_replace(Flight::Landed);
    }

    /// Tells them to ask for themselves, and so for a while whoever comes.
    pub(crate) fn passed(self) {
        let mut passed = self.scope.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.len() >= PASSED_MAX {
            passed.retain(|_, since| since.elapsed() < PASSED_FOR);
        }
        if passed.len() < PASSED_MAX {
            passed.insert(self.key.clone(), Instant::now());
        }
        drop(passed);
        self.flight.send_replace(Flight::Passed);
    }

    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.scope.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// An answer that comes, as it will be kept.
pub(crate) fn filling(terms: Terms, received: &crate::stored::Received<'_>, length: u64) -> Arc<Filling> {
    let head = Stored::new(terms, received, bytes::Bytes::new());
    Arc::new(Filling { head, fill: Fill::new(length) })
}
