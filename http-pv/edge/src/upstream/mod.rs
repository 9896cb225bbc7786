//! Targets: VMs' `http` bindings, each with the streams that its guest keeps open.

mod exchange;
mod health;
mod resume;
mod streams;
mod switch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hdrhistogram::Histogram;
use vamos_http_cache::Scope;
use vamos_proto::edge::TargetStats;

pub(crate) use exchange::failure;
pub use exchange::{REASON, exchange};
pub use health::Health;
pub use streams::{StreamError, Streams};
pub use switch::switch;

use crate::limits::LATENCY_US_MAX;

/// A VM's binding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetName {
    /// Which VM.
    pub vm: String,
    /// Which of its bindings.
    pub binding: String,
}

/// What is known of a target.
#[derive(Debug)]
pub struct Target {
    /// Which it is.
    pub name: TargetName,
    /// The streams its guest keeps open.
    pub streams: Streams,
    /// Whether it answered lately.
    pub health: Health,
    /// What is kept of its answers, with the room that a route gives it.
    cache: RwLock<Arc<Scope>>,
    requests: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

impl Target {
    fn new(name: TargetName) -> Self {
        Self {
            name,
            streams: Streams::default(),
            health: Health::default(),
            cache: RwLock::new(Scope::new(0)),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            latency: Mutex::new(latencies()),
        }
    }

    /// Where its answers are kept.
    pub fn cache(&self) -> Arc<Scope> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives its answers so much room, bytes. What was kept goes if that is another than before.
    pub fn give_room(&self, room: u64) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.room() != room {
            *cache = Scope::new(room);
        }
    }

    /// Counts one request that was answered, by the guest or for it, after so long.
    pub fn answered(&self, status: http::StatusCode, after: Duration) {
        self.requests.fetch_add(1, Relaxed);
        if status.is_server_error() {
            self.failed.fetch_add(1, Relaxed);
        }
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// What was counted since the edge began.
    pub fn stats(&self) -> TargetStats {
        let cached = self.cache().stats();
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        TargetStats {
            vm: self.name.vm.clone(),
            binding: self.name.binding.clone(),
            streams: u32::try_from(self.streams.open()).unwrap_or(u32::MAX),
            requests: self.requests.load(Relaxed),
            responses_5xx: self.failed.load(Relaxed),
            retried: self.retried.load(Relaxed),
            latency_p50_us: latency.value_at_quantile(0.5),
            latency_p99_us: latency.value_at_quantile(0.99),
            latency_p999_us: latency.value_at_quantile(0.999),
            cache_hits: cached.hits,
            cache_misses: cached.misses,
            cached_bytes: cached.bytes,
            cached_objects: cached.objects,
        }
    }
}

/// Three digits of each latency; that takes some 200 KiB at most.
fn latencies() -> Histogram<u64> {
    // INVARIANT: the bound is above 2 and the digits below 6, all that is asked for.
    Histogram::new_with_max(LATENCY_US_MAX, 3).expect("a histogram of three digits")
}

/// Every target that a route or a guest has named.
#[derive(Debug, Default)]
pub struct Targets(Mutex<HashMap<TargetName, Arc<Target>>>);

impl Targets {
    /// The target of this name.
    pub fn target(&self, name: TargetName) -> Arc<Target> {
        let mut targets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        targets.entry(name.clone()).or_insert_with(|| Arc::new(Target::new(name))).clone()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Target>> {
        let targets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = targets.values().cloned().collect();
        all.sort_by(|a, b| (&a.name.vm, &a.name.binding).cmp(&(&b.name.vm, &b.name.binding)));
        all
    }

    /// Forgets those of a VM that is served here no longer: their streams end.
    pub fn forget(&self, vm: &str) {
        let mut targets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|name, target| {
            if name.vm == vm {
                target.streams.end();
            }
            name.vm != vm
        });
    }
}
