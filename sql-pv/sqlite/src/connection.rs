//! A connection as every part of the engine uses it: safe settings, callbacks in place, and a session's
//! own settings put on before each statement and never left behind.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::hooks::Wal;
use rusqlite::limits::Limit;
use rusqlite::{Connection, MAIN_DB, OpenFlags, TransactionState};

use crate::authorizer;
use crate::damage::Damage;
use crate::guard::Guard;
use crate::limits::{INLINE_CACHE_KIB, READER_CACHE_KIB, WRITER_CACHE_KIB};
use crate::limits::{INLINE_VALUE_BYTES_MAX, PAGE_BYTES, PREPARED_MAX, PROGRESS_INSTRUCTIONS, SQLITE_LIMITS};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Groups of autocommit writes.
    Writer,
    /// Autocommit reads, or one session that needs a connection of its own.
    Reader,
    /// Quick reads on the caller's thread.
    Inline,
}

/// Settings a session may choose (PRAGMA), and the one the operator has chosen for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) foreign_keys: bool,
    pub(crate) recursive_triggers: bool,
    pub(crate) query_only: bool,
    /// The operator's word: no session may write, whatever it chooses.
    pub(crate) read_only: bool,
}

impl Settings {
    fn refuses_writes(self) -> bool {
        self.query_only || self.read_only
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { foreign_keys: true, recursive_triggers: false, query_only: false, read_only: false }
    }
}

/// A connection to the database.
pub(crate) struct Conn {
    pub(crate) db: Connection,
    pub(crate) guard: Arc<Guard>,
    applied: Cell<Settings>,
    /// The version of the schema that was looked at last.
    schema: Cell<u64>,
    /// Temporary objects exist: what is known about a text elsewhere may not hold here.
    pub(crate) has_temp: Cell<bool>,
}

impl Conn {
    /// Opens the database, which is created if it does not exist.
    pub(crate) fn open(
        path: &Path,
        role: Role,
        bytes_max: u64,
        damage: &Arc<Damage>,
        commits: &Arc<AtomicU64>,
        log: impl FnMut(&mut Wal, i32) -> rusqlite::Result<()> + Send + 'static,
    ) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = vamos_sql_checksum::open(path, flags)?;
        damage.is_known_as(db.path());
        settle(&db, role, bytes_max)?;
        let guard = Arc::new(Guard::of(damage.clone()));
        let (asked, looking, counted) = (guard.clone(), guard.clone(), commits.clone());
        db.authorizer(Some(move |context: rusqlite::hooks::AuthContext<'_>| {
            authorizer::authorize(&asked, context)
        }))?;
        db.progress_handler(PROGRESS_INSTRUCTIONS, Some(move || looking.look()))?;
        db.commit_hook(Some(move || {
            counted.fetch_add(1, Relaxed);
            false
        }))?;
        db.wal_hook(Some(log))?;
        add_history_functions(&db, &guard)?;
        Ok(Self {
            db,
            guard,
            applied: Cell::new(Settings::default()),
            schema: Cell::new(u64::MAX),
            has_temp: Cell::new(false),
        })
    }

    /// Runs one of the engine's own statements. The guest's deadline does not hold for it.
    pub(crate) fn engine(&self, text: &str) -> rusqlite::Result<()> {
        self.aside(|db| {
            let mut statement = db.prepare_cached(text)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        })
    }

    /// Does something of the engine's own in the midst of what a guest has under way.
    pub(crate) fn aside<T>(
        &self,
        own: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let paused = self.guard.pause();
        let outcome = own(&self.db);
        self.guard.resume(paused);
        outcome
    }

    /// Puts a session's settings on.
    pub(crate) fn apply(&self, settings: Settings) -> rusqlite::Result<()> {
        let applied = self.applied.get();
        if settings == applied {
            return Ok(());
        }
        let switch = |name: &str, on: bool| self.engine(&format!("PRAGMA {name} = {}", u8::from(on)));
        if settings.foreign_keys != applied.foreign_keys {
            switch("foreign_keys", settings.foreign_keys)?;
        }
        if settings.recursive_triggers != applied.recursive_triggers {
            switch("recursive_triggers", settings.recursive_triggers)?;
        }
        if settings.refuses_writes() != applied.refuses_writes() {
            switch("query_only", settings.refuses_writes())?;
        }
        self.applied.set(settings);
        Ok(())
    }

    /// Makes sure that statements are prepared for the schema as it is: SQLite itself would only notice
    /// when it runs them, after their columns have been told.
    pub(crate) fn look_at_schema(&self, version: u64) -> rusqlite::Result<()> {
        if self.schema.get() != version {
            self.db.flush_prepared_statement_cache();
            self.engine("SELECT 1 FROM sqlite_schema LIMIT 1")?;
            self.schema.set(version);
        }
        Ok(())
    }

    /// Whether a transaction has begun to write the database.
    pub(crate) fn is_writing(&self) -> bool {
        matches!(self.db.transaction_state(Some(MAIN_DB)), Ok(TransactionState::Write))
    }

    /// Looks whether there are temporary objects. Prepared statements do not outlive the change.
    pub(crate) fn look_for_temp(&self) -> rusqlite::Result<bool> {
        let objects = "SELECT count(*) FROM sqlite_temp_schema";
        let has = self.aside(|db| db.query_row(objects, [], |row| row.get::<_, i64>(0)))? > 0;
        if has != self.has_temp.replace(has) {
            self.db.flush_prepared_statement_cache();
        }
        Ok(has)
    }

    /// Rolls back whatever is open; a connection on which that fails is good for nothing.
    pub(crate) fn roll_back(&self) -> rusqlite::Result<()> {
        if self.db.is_autocommit() { Ok(()) } else { self.engine("ROLLBACK") }
    }
}

fn settle(db: &Connection, role: Role, bytes_max: u64) -> rusqlite::Result<()> {
    db.busy_timeout(Duration::from_secs(5))?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false)?;
    // The last one to be closed would checkpoint, and say nothing of a sync that failed.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.set_prepared_statement_cache_capacity(PREPARED_MAX);
    let cache = match role {
        Role::Writer => WRITER_CACHE_KIB,
        Role::Reader => READER_CACHE_KIB,
        Role::Inline => INLINE_CACHE_KIB,
    };
    // The page size is a database's from its first page on; the quota counts in those.
    db.execute_batch(&format!("PRAGMA page_size = {PAGE_BYTES}"))?;
    vamos_sql_checksum::prepare(db)?;
    db.execute_batch("PRAGMA journal_mode = WAL")?;
    let page_bytes: u64 = db.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?.unsigned_abs();
    let pages = (bytes_max / page_bytes.max(1)).clamp(1, 0xffff_fffe);
    db.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache}; PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {}; PRAGMA max_page_count = {pages}",
        64 << 20
    ))?;
    // Only now: it forbids the journal mode to be chosen.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    for (limit, value) in SQLITE_LIMITS {
        db.set_limit(limit, value)?;
    }
    if role == Role::Inline {
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, INLINE_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

/// `changes()` and its like, which tell a session what it did itself, wherever that ran. Within a
/// trigger they tell what the statement before the triggering one did.
fn add_history_functions(db: &Connection, guard: &Arc<Guard>) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    let of = guard.clone();
    db.create_scalar_function(c"last_insert_rowid", 0, flags, move |_: &Context<'_>| {
        Ok(of.last_insert_rowid.load(Relaxed))
    })?;
    let of = guard.clone();
    db.create_scalar_function(c"changes", 0, flags, move |_: &Context<'_>| Ok(of.changes.load(Relaxed)))?;
    let of = guard.clone();
    db.create_scalar_function(c"total_changes", 0, flags, move |_: &Context<'_>| {
        Ok(of.total_changes.load(Relaxed))
    })
}
