//! What a statement turned out to be, and what the front door is to do about it.

use super::copy::Copy;
use super::settings::SettingChange;
use super::transaction::Transaction;
use super::types::PgType;

/// One statement, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Translated {
    /// SQLite's own SQL: send the text as it came.
    PassThrough,
    /// Send this text instead.
    Rewritten(Rewritten),
    /// Send this query instead; it is about the catalogue, and its columns are known beforehand.
    Catalog(CatalogQuery),
    /// Nothing to execute: these rows are the result.
    Answer(Answer),
    /// Change a setting with [`super::Settings::apply`]; then give the rows, if there are any, or the tag alone.
    Set {
        /// The change.
        change: SettingChange,
        /// Rows of `SELECT set_config(..)`.
        answer: Option<Answer>,
    },
    /// Transaction control: [`Transaction::sql`] is what the engine understands.
    Transaction(Transaction),
    /// Rows to or from the client.
    Copy(Copy),
    /// Forget prepared statements: the named one, or all.
    Deallocate(Option<String>),
    /// Close portals: the named one, or all.
    ClosePortal(Option<String>),
    /// `DISCARD`.
    Discard(Discard),
    /// Nothing to do: report this tag.
    Done(&'static str),
    /// Not possible here; nothing was done.
    Refused(Refusal),
}

/// What `DISCARD` throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Everything: settings, prepared statements, portals, temporary tables.
    All,
    /// Cached plans, which is nothing a client can see.
    Plans,
    /// Sequence caches: likewise.
    Sequences,
}

/// A statement in the engine's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The text for the engine.
    pub sql: String,
    /// How places in it correspond to places in what the client wrote.
    pub positions: PositionMap,
    /// Types that the client's casts give to parameters (`$1::int4`), by their numbers.
    pub parameters: Vec<(u32, PgType)>,
    /// Tag to report where the engine's own would not be PostgreSQL's.
    pub tag: Option<&'static str>,
}

/// A query about the catalogue in the engine's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogQuery {
    /// The text for the engine.
    pub sql: String,
    /// Names and types of its columns. Booleans come from the engine as integers.
    pub columns: Vec<(String, PgType)>,
}

/// Rows that need no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Names and types of the columns.
    pub columns: Vec<(String, PgType)>,
    /// Values in text form; None is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// Command tag: `SHOW`; `SELECT` is to be followed by the number of rows.
    pub tag: &'static str,
}

impl Answer {
    /// One column of text with one row.
    pub(crate) fn single(column: &str, value: &str, tag: &'static str) -> Self {
        let columns = vec![(column.to_owned(), PgType::Text)];
        Self { columns, rows: vec![vec![Some(value.to_owned())]], tag }
    }
}

/// Why a statement is not executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Five characters; `0A000` for what this dialect cannot say.
    pub sqlstate: &'static str,
    /// What is refused, by name.
    pub message: String,
    /// What to do instead; may be empty.
    pub hint: String,
    /// Byte of the statement it is about, from 0.
    pub position: Option<usize>,
}

impl Refusal {
    pub(crate) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), hint: String::new(), position: None }
    }

    /// `what` exists in PostgreSQL and not here.
    pub(crate) fn unsupported(what: impl AsRef<str>) -> Self {
        Self::new("0A000", format!("{} is not supported", what.as_ref()))
    }

    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self::new("42601", message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }
}

impl From<Refusal> for Translated {
    fn from(refusal: Refusal) -> Self {
        Translated::Refused(refusal)
    }
}

/// Corresponding places of a rewritten text and its original.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PositionMap {
    /// (byte in the rewritten text, byte in the original): from the first on they run in step, up to
    /// the next pair. Ascending.
    pub(crate) steps: Vec<(usize, usize)>,
}

impl PositionMap {
    /// The byte of the original that a byte of the rewritten text stands for.
    pub fn original(&self, rewritten: usize) -> usize {
        let next = self.steps.partition_point(|step| step.0 <= rewritten);
        let Some(&(here, there)) = next.checked_sub(1).and_then(|last| self.steps.get(last)) else {
            return rewritten;
        };
        let place = there + (rewritten - here);
        // What was put in stands for the place it was put at.
        self.steps.get(next).map_or(place, |following| place.min(following.1))
    }
}
