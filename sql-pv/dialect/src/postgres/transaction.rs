//! Transaction control: PostgreSQL's and SQLite's spellings, and the engine's.

use super::answer::{Refusal, Translated};
use super::cursor::Cursor;
use super::literal::quote_name;
use super::settings::{Action, Scope, SettingChange};

/// A statement that begins, ends or marks a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// `BEGIN`. Inside a transaction PostgreSQL warns (25001) and goes on.
    Begin {
        /// When the engine takes its locks: SQLite's `DEFERRED`, unless the client used SQLite's words.
        lock: Lock,
        /// `READ ONLY`: the front door has to refuse writes (25006) until it ends.
        read_only: bool,
        /// `START TRANSACTION` is the tag to report, instead of `BEGIN`.
        start: bool,
    },
    /// `COMMIT`, `END`. Outside a transaction PostgreSQL warns (25P01) and goes on.
    Commit,
    /// `ROLLBACK`, `ABORT`. Likewise.
    Rollback,
    /// `SAVEPOINT name`. Outside a transaction an error in PostgreSQL (25P01); SQLite would begin one.
    Savepoint(String),
    /// `RELEASE name`.
    Release(String),
    /// `ROLLBACK TO name`.
    RollbackTo(String),
}

/// SQLite's kinds of `BEGIN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Locks are taken when they are needed.
    Deferred,
    /// The write lock is taken at once.
    Immediate,
    /// Likewise, and in WAL mode no different.
    Exclusive,
}

impl Transaction {
    /// The statement for the engine.
    pub fn sql(&self) -> String {
        match self {
            Transaction::Begin { lock: Lock::Deferred, .. } => "BEGIN".to_owned(),
            Transaction::Begin { lock: Lock::Immediate, .. } => "BEGIN IMMEDIATE".to_owned(),
            Transaction::Begin { lock: Lock::Exclusive, .. } => "BEGIN EXCLUSIVE".to_owned(),
            Transaction::Commit => "COMMIT".to_owned(),
            Transaction::Rollback => "ROLLBACK".to_owned(),
            Transaction::Savepoint(name) => format!("SAVEPOINT {}", quote_name(name)),
            Transaction::Release(name) => format!("RELEASE SAVEPOINT {}", quote_name(name)),
            Transaction::RollbackTo(name) => format!("ROLLBACK TO SAVEPOINT {}", quote_name(name)),
        }
    }

    /// The command tag to report.
    pub fn tag(&self) -> &'static str {
        match self {
            Transaction::Begin { start: true, .. } => "START TRANSACTION",
            Transaction::Begin { .. } => "BEGIN",
            Transaction::Commit => "COMMIT",
            Transaction::Rollback | Transaction::RollbackTo(_) => "ROLLBACK",
            Transaction::Savepoint(_) => "SAVEPOINT",
            Transaction::Release(_) => "RELEASE",
        }
    }
}

/// Reads the statement after its first word, which is `first` in lower case.
pub(super) fn parse(first: &str, cursor: &mut Cursor<'_>) -> Result<Translated, Refusal> {
    let transaction = match first {
        "begin" => begin(cursor)?,
        "start" => {
            if !cursor.word("transaction") {
                return Err(cursor.syntax_error());
            }
            Transaction::Begin { lock: Lock::Deferred, read_only: modes(cursor)?.read_only, start: true }
        }
        "commit" if cursor.word("prepared") => return Err(Refusal::unsupported("COMMIT PREPARED")),
        "rollback" if cursor.word("prepared") => return Err(Refusal::unsupported("ROLLBACK PREPARED")),
        "commit" | "end" => {
            end(first, cursor)?;
            Transaction::Commit
        }
        "rollback" | "abort" => {
            cursor.one_of(&["work", "transaction"]);
            if first == "rollback" && cursor.word("to") {
                cursor.word("savepoint");
                Transaction::RollbackTo(savepoint(cursor)?)
            } else {
                end(first, cursor)?;
                Transaction::Rollback
            }
        }
        "savepoint" => Transaction::Savepoint(savepoint(cursor)?),
        _ => {
            cursor.word("savepoint");
            Transaction::Release(savepoint(cursor)?)
        }
    };
    cursor.expect_end()?;
    Ok(Translated::Transaction(transaction))
}

fn begin(cursor: &mut Cursor<'_>) -> Result<Transaction, Refusal> {
    let lock = match cursor.one_of(&["deferred", "immediate", "exclusive"]) {
        Some("immediate") => Lock::Immediate,
        Some("exclusive") => Lock::Exclusive,
        _ => Lock::Deferred,
    };
    cursor.one_of(&["work", "transaction"]);
    Ok(Transaction::Begin { lock, read_only: modes(cursor)?.read_only, start: false })
}

fn savepoint(cursor: &mut Cursor<'_>) -> Result<String, Refusal> {
    cursor.name().ok_or_else(|| cursor.syntax_error())
}

/// What may follow `COMMIT` and `ROLLBACK`.
fn end(first: &str, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
    cursor.one_of(&["work", "transaction"]);
    if cursor.words(&["and", "no", "chain"]) || cursor.at_end() {
        return Ok(());
    }
    if cursor.words(&["and", "chain"]) {
        let what = format!("{} AND CHAIN", first.to_ascii_uppercase());
        return Err(Refusal::unsupported(what).hint("Begin the next transaction with BEGIN."));
    }
    Err(cursor.syntax_error())
}

/// The modes of a transaction.
#[derive(Debug, Clone, Copy, Default)]
struct Modes {
    read_only: bool,
}

/// Reads `ISOLATION LEVEL ..., READ ONLY, [NOT] DEFERRABLE`, in any order.
///
/// Every level may be asked for: SQLite's transactions are serializable, which is what the lesser ones promise
/// and more.
fn modes(cursor: &mut Cursor<'_>) -> Result<Modes, Refusal> {
    let mut modes = Modes::default();
    let levels =
        [&["serializable"][..], &["repeatable", "read"], &["read", "committed"], &["read", "uncommitted"]];
    while !cursor.at_end() {
        if cursor.words(&["isolation", "level"]) {
            if !levels.iter().any(|level| cursor.words(level)) {
                return Err(cursor.syntax_error());
            }
        } else if cursor.words(&["read", "only"]) {
            modes.read_only = true;
        } else if cursor.words(&["read", "write"]) {
            modes.read_only = false;
        } else if !(cursor.words(&["not", "deferrable"]) || cursor.word("deferrable")) {
            return Err(cursor.syntax_error());
        }
        if cursor.symbol(b',') && cursor.at_end() {
            return Err(cursor.syntax_error());
        }
    }
    Ok(modes)
}

/// Reads what follows `SET TRANSACTION` or `SET SESSION CHARACTERISTICS AS TRANSACTION`.
pub(super) fn set_transaction(what: &str, cursor: &mut Cursor<'_>) -> Result<Translated, Refusal> {
    if cursor.is("snapshot") {
        return Err(Refusal::unsupported("SET TRANSACTION SNAPSHOT"));
    }
    if cursor.at_end() {
        return Err(cursor.syntax_error());
    }
    if modes(cursor)?.read_only {
        let refusal = Refusal::unsupported(format!("{what} READ ONLY"));
        return Err(refusal.hint("Begin the transaction with BEGIN READ ONLY."));
    }
    let change = SettingChange { scope: Scope::Session, action: Action::Nothing };
    Ok(Translated::Set { change, answer: None })
}
