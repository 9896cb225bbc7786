//! A database: what all its sessions, threads and connections share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once};

use libsqlite3_sys as ffi;
use rusqlite::ErrorCode;
use tokio::sync::Semaphore;
use vamos_seam::Point;
use vamos_sql_checksum::Mismatch;
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{Answer, Engine, Pending, Resumed, Resumption, SessionIdentity};

use crate::config::SqliteConfig;
use crate::connection::{Conn, Role};
use crate::damage::Damage;
use crate::facts::{Facts, Interned};
use crate::guard::Guard;
use crate::inline::Inline;
use crate::lane::Lane;
use crate::limits::FENCE_OPEN_MAX;
use crate::pool::Pool;
use crate::record::Clock;
use crate::seam;
use crate::session::{self, SqliteSession};
use crate::sqlstate;
use crate::tenure::Tenures;
use crate::ticket::Ticket;
use crate::trust::Trust;
use crate::watchdog::Watchdog;
use crate::writer::Writer;

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name would leave the directory or is empty.
    #[error("{0:?} is not a database name: use letters, digits, '-', '_' and '.', not starting with '.'")]
    Name(String),
    /// SQLite could not open or set up the file.
    #[error("open the database {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The lease of the volume is another's, or was not renewed in time.
    #[error("the lease of the volume has lapsed or is lost")]
    Fenced,
    /// The watchdog's thread could not be started.
    #[error("start the watchdog")]
    Watchdog(#[source] std::io::Error),
}

/// What an engine has done so far, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Transactions committed: each is one fsync of the write-ahead log.
    pub commits: u64,
    /// Autocommit statements whose effects those commits made durable.
    pub grouped_writes: u64,
    /// Statements answered on the caller's thread.
    pub inline: u64,
    /// Threads alive at this moment, the watchdog aside.
    pub threads: usize,
}

/// Shared by everything that belongs to one database.
pub(crate) struct Database {
    pub(crate) path: PathBuf,
    pub(crate) config: SqliteConfig,
    pub(crate) facts: Interned,
    pub(crate) lane: Lane,
    pub(crate) seats: Arc<Semaphore>,
    pub(crate) pool: Pool,
    pub(crate) writer: Writer,
    pub(crate) inline: Inline,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) tenures: Arc<Tenures>,
    /// Orders completion records.
    pub(crate) clock: Clock,
    pub(crate) grouped_writes: AtomicU64,
    pub(crate) inlined: AtomicU64,
    commits: Arc<AtomicU64>,
    damage: Arc<Damage>,
    /// Counts changes of the schema.
    schema: AtomicU64,
    /// Lost when a commit or a sync failed (see [`Database::distrust`]), or with the volume.
    trust: Trust,
}

impl Database {
    /// Opens one more connection, watched over.
    pub(crate) fn connect(&self, role: Role) -> rusqlite::Result<Conn> {
        let log = self.writer.log_counter();
        let conn =
            Conn::open(&self.path, role, self.config.database_bytes_max, &self.damage, &self.commits, log)?;
        self.watchdog.add(&conn.guard);
        Ok(conn)
    }

    /// For what there is no connection for.
    pub(crate) fn guard(&self) -> Guard {
        Guard::of(self.damage.clone())
    }

    /// The damaged page that an error is about.
    pub(crate) fn mismatch(&self, error: &rusqlite::Error) -> Option<Mismatch> {
        vamos_sql_checksum::is_mismatch(error).then(|| self.damage.mismatch()).flatten()
    }

    /// Gives the process up if the error leaves open what is on the disk: a sync that failed (the next
    /// one would succeed without the pages this one lost), or a commit, which may be in the log although
    /// SQLite has rolled it back. Only a new process, which recovers from the log, knows; until then
    /// nothing is acknowledged any more.
    pub(crate) fn distrust(&self, error: &SqlError, committing: bool) {
        if !sqlstate::leaves_open(error, committing) {
            return;
        }
        tracing::error!(%error, code = error.code, committing, "the disk cannot be relied on");
        self.lose("a sync or a commit failed, and its outcome is unknown");
    }

    /// Waits until the volume's lease holds. Without one nothing may be written or acknowledged: a lease that is
    /// lost ends the process.
    pub(crate) fn hold(&self) -> Result<(), SqlError> {
        self.config.fence.wait().map_err(|lost| {
            self.lose(&lost.to_string());
            sqlstate::shutting_down()
        })
    }

    /// Gives the process up. Should it go on, nothing more begins here: whoever waits is told so only then.
    fn lose(&self, why: &str) {
        self.trust.lose(|| {
            self.config.give_up.call(why);
            self.close();
        });
    }

    /// Whether nothing may be acknowledged any more.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.trust.is_lost()
    }

    /// Lets nothing more begin.
    fn close(&self) {
        self.lane.close();
        self.pool.close();
        self.writer.close();
    }

    /// The schema's version, as this process counts.
    pub(crate) fn schema(&self) -> u64 {
        self.schema.load(Relaxed)
    }

    /// What is known about statements may not hold any more.
    pub(crate) fn schema_changed(&self) {
        self.schema.fetch_add(1, Relaxed);
    }
}

/// The embedded engine, for one database. Dropping it ends its threads.
pub struct SqliteEngine {
    database: Arc<Database>,
}

impl SqliteEngine {
    /// Opens `<directory>/<database>.db`, creating it if need be.
    ///
    /// # Errors
    /// [`OpenError`]: a bad name, or SQLite's own reason (unreadable, not a database, no space). One that has a page with
    /// another checksum is opened, and refuses every statement.
    pub fn open(directory: &Path, database: &str, config: SqliteConfig) -> Result<Self, OpenError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if database.is_empty() || database.starts_with('.') || !database.chars().all(is_plain) {
            return Err(OpenError::Name(database.to_owned()));
        }
        let path = directory.join(format!("{database}.db"));
        let watchdog =
            Watchdog::start(config.watchdog_grace, config.give_up.clone()).map_err(OpenError::Watchdog)?;
        let database = Arc::new(Database {
            facts: Interned::default(),
            lane: Lane::new(),
            seats: Arc::new(Semaphore::new(config.seats_max.max(1))),
            pool: Pool::new(config.readers_max.max(1)),
            writer: Writer::default(),
            inline: Inline::default(),
            watchdog,
            tenures: Arc::default(),
            clock: Clock::default(),
            grouped_writes: AtomicU64::new(0),
            inlined: AtomicU64::new(0),
            commits: Arc::default(),
            damage: Damage::none(path.clone()),
            schema: AtomicU64::new(0),
            trust: Trust::default(),
            path,
            config,
        });
        let engine = Self { database };
        // What opening writes (the log that is copied back, a new file's first page) is for the holder alone.
        if !matches!(engine.database.config.fence.wait_for(FENCE_OPEN_MAX), Ok(true)) {
            return Err(OpenError::Fenced);
        }
        match engine.try_out() {
            // Its own statements are told so; the volume's other databases are none the worse.
            Err(error) if engine.database.mismatch(&error).is_some() => {
                engine.database.damage.noticed(ffi::SQLITE_IOERR_DATA);
            }
            outcome => {
                let path = || engine.database.path.clone();
                outcome.map_err(|source| OpenError::Sqlite { path: path(), source })?;
            }
        }
        Ok(engine)
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// What the engine has done so far.
    pub fn activity(&self) -> Activity {
        Activity {
            commits: self.database.commits.load(Relaxed),
            grouped_writes: self.database.grouped_writes.load(Relaxed),
            inline: self.database.inlined.load(Relaxed),
            threads: self.database.pool.threads() + self.database.writer.threads(),
        }
    }

    /// Opens the file once, so that a bad one is known now and not to the first statement; and has what the
    /// process before left in the log synced before anybody is shown it: it may have died before its sync.
    fn try_out(&self) -> rusqlite::Result<()> {
        static HEAP: Once = Once::new();
        seam::pass(Point::Recover)?;
        let conn = self.database.connect(Role::Reader)?;
        HEAP.call_once(|| {
            let limit = format!("PRAGMA hard_heap_limit = {}", self.database.config.heap_bytes_max);
            if let Err(error) = conn.engine(&limit) {
                tracing::warn!(%error, "set SQLite's heap limit");
            }
        });
        conn.db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        match conn.engine("PRAGMA wal_checkpoint(PASSIVE)") {
            // The log is synced first; a full disk may still be read.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
            outcome => outcome,
        }?;
        seam::pass(Point::Recovered)
    }
}

impl Drop for SqliteEngine {
    fn drop(&mut self) {
        self.database.close();
        self.database.watchdog.close();
    }
}

impl Engine for SqliteEngine {
    type Session = SqliteSession;
    type Statement = Arc<Facts>;

    fn version(&self) -> String {
        format!("SQLite {}", rusqlite::version())
    }

    fn statement(&self, text: Arc<str>) -> Arc<Facts> {
        self.database.facts.facts(text)
    }

    fn open(&self, identity: SessionIdentity, _application: &str) -> Answer<SqliteSession> {
        // Nothing but its name is held for a session that has not said anything yet.
        match self.database.tenures.begin(identity.key) {
            Some(tenure) => Answer::Ready(Ok(SqliteSession::new(self.database.clone(), tenure))),
            None => Answer::refused(sqlstate::session_busy()),
        }
    }

    fn resume(&self, resumption: Resumption, _application: &str) -> Answer<Resumed<SqliteSession>> {
        let ticket = Arc::new(Ticket::new(self.database.config.statement_deadline));
        let outcome = session::resume(self.database.clone(), ticket.clone(), resumption);
        Answer::Pending(Pending { outcome: Box::pin(outcome), cancel: ticket })
    }
}
