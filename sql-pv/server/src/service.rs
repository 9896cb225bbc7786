//! The `sql` service of one binding: an engine, its policy, and what its links share.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use siphasher::sip::SipHasher24;
use vamos_service::{ByteStream, Service, Serving, VmContext};

use crate::engine::{Engine, SessionIdentity};
use crate::limits::{FRAME_DEADLINE, SERVICE_SESSIONS_MAX};
use crate::link::Link;
use crate::pace::Pace;

/// Policy of a binding, as far as it does not concern the engine.
#[derive(Debug, Clone)]
pub struct SqlConfig {
    /// Name clients must open; empty: any.
    pub database: String,
    /// Most sessions open at a time.
    pub sessions_max: usize,
    /// From a frame's first byte to its last.
    pub frame_deadline: Duration,
    /// Requests taken per second, over all links; `None`: as many as come.
    pub operations_per_second: Option<u32>,
    /// Generation of the VM. Sessions of another one are refused: a clone's, or from before a restore.
    pub epoch: u64,
    /// The VM's own, the same in every process that serves it: what seals sessions' identities.
    pub secret: [u8; 16],
}

impl Default for SqlConfig {
    /// Everything allowed; sessions can be resumed within the process only.
    fn default() -> Self {
        let random = RandomState::new();
        let mut secret = [0; 16];
        let (high, low) = secret.split_at_mut(8);
        high.copy_from_slice(&random.hash_one(0).to_le_bytes());
        low.copy_from_slice(&random.hash_one(1).to_le_bytes());
        Self {
            database: String::new(),
            sessions_max: SERVICE_SESSIONS_MAX,
            frame_deadline: FRAME_DEADLINE,
            operations_per_second: None,
            epoch: 1,
            secret,
        }
    }
}

/// What all links of a service share.
pub(crate) struct Shared<E> {
    pub(crate) engine: E,
    pub(crate) config: SqlConfig,
    pub(crate) pace: Option<Pace>,
    pub(crate) statement_bytes: Arc<AtomicUsize>,
    sessions: Arc<AtomicUsize>,
    keys: RandomState,
    minted: AtomicUsize,
}

impl<E> Shared<E> {
    /// An identity no other session of the VM has.
    pub(crate) fn mint(&self) -> SessionIdentity {
        let mut hasher = self.keys.build_hasher();
        hasher.write_usize(self.minted.fetch_add(1, Relaxed));
        SessionIdentity { key: hasher.finish(), epoch: self.config.epoch }
    }

    /// What proves that an identity was minted for this VM and this database.
    pub(crate) fn seal(&self, identity: SessionIdentity) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.config.secret);
        hasher.write_u64(identity.key);
        hasher.write_u64(identity.epoch);
        hasher.write(self.config.database.as_bytes());
        hasher.finish()
    }

    /// A place for one more session, unless all are taken.
    pub(crate) fn place(&self) -> Option<SessionPlace> {
        if self.sessions.fetch_add(1, Relaxed) >= self.config.sessions_max {
            self.sessions.fetch_sub(1, Relaxed);
            return None;
        }
        Some(SessionPlace(self.sessions.clone()))
    }
}

/// A session's share of the quota; dropping it gives it back.
pub(crate) struct SessionPlace(Arc<AtomicUsize>);

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Serves paravirtual SQL with one engine.
pub struct SqlService<E> {
    shared: Arc<Shared<E>>,
}

impl<E: Engine> SqlService<E> {
    /// A service for `engine` under `config`.
    pub fn new(engine: E, config: SqlConfig) -> Self {
        let shared = Shared {
            engine,
            pace: config.operations_per_second.map(Pace::new),
            config,
            statement_bytes: Arc::default(),
            sessions: Arc::default(),
            keys: RandomState::new(),
            minted: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sessions open at this moment, over all links.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Relaxed)
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.shared.engine
    }
}

impl<E: Engine> Service for SqlService<E> {
    fn kind(&self) -> &'static str {
        "sql"
    }

    fn serve(self: Arc<Self>, stream: ByteStream, vm: Arc<VmContext>) -> Serving {
        let shared = self.shared.clone();
        Box::pin(async move {
            tracing::debug!(vm = %vm.vm, "sql link opened");
            let ended = Link::new(shared, stream).serve().await;
            tracing::debug!(vm = %vm.vm, outcome = ?ended, "sql link ended");
            ended
        })
    }
}
