//! A statement that has been begun and not ended: it stays where it stopped between two fetches.

use bytes::Bytes;
use rusqlite::{CachedStatement, Rows};
use self_cell::{MutBorrow, self_cell};
use vamos_sql_protocol::BlockBuilder;
use vamos_sql_protocol::limits::SQL_VALUE_BYTES_MAX;
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::PageLimit;

use crate::bind::stored;
use crate::guard::Guard;
use crate::limits::PREPARED_TEXT_BYTES_MAX;
use crate::sqlstate;

type RowsOf<'s> = Rows<'s>;

self_cell!(
    struct Begun<'conn> {
        owner: MutBorrow<CachedStatement<'conn>>,
        #[covariant]
        dependent: RowsOf,
    }
);

/// A statement under way on a connection.
pub(crate) struct Cursor<'conn> {
    begun: Begun<'conn>,
    columns: usize,
    keep: bool,
}

/// Some of a cursor's rows.
pub(crate) struct Rowset {
    pub(crate) blocks: Vec<Bytes>,
    pub(crate) rows: u64,
    /// Nothing is left.
    pub(crate) done: bool,
}

impl<'conn> Cursor<'conn> {
    /// Begins a statement whose parameters are bound.
    pub(crate) fn begin(statement: CachedStatement<'conn>, text_bytes: usize, keep: bool) -> Self {
        let columns = statement.column_count();
        let begun = Begun::new(MutBorrow::new(statement), |statement| statement.borrow_mut().raw_query());
        Self { begun, columns, keep: keep && text_bytes <= PREPARED_TEXT_BYTES_MAX }
    }

    /// Packs rows until a limit is reached or none is left.
    pub(crate) fn fill(&mut self, limit: PageLimit, guard: &Guard) -> Result<Rowset, SqlError> {
        let columns = self.columns;
        self.begun.with_dependent_mut(|_, rows| fill(rows, columns, limit, guard))
    }

    /// Ends it; the prepared statement stays for the next time if it is worth keeping.
    pub(crate) fn end(self) {
        let keep = self.keep;
        let statement = self.begun.into_owner().into_inner();
        if !keep {
            statement.discard();
        }
    }
}

fn fill(rows: &mut Rows<'_>, columns: usize, limit: PageLimit, guard: &Guard) -> Result<Rowset, SqlError> {
    let mut set = Rowset { blocks: Vec::new(), rows: 0, done: false };
    let mut block = BlockBuilder::new(columns);
    while limit.rows == 0 || set.rows < limit.rows {
        let Some(row) = rows.next().map_err(|error| sqlstate::from_sqlite(&error, guard))? else {
            set.done = true;
            break;
        };
        if set.rows == 0 && row.as_ref().column_count() != columns {
            return Err(sqlstate::schema_changed());
        }
        let start = block.len();
        for at in 0..columns {
            block.push(stored(row.get_ref(at).map_err(|error| sqlstate::from_sqlite(&error, guard))?));
            if block.len() - start > SQL_VALUE_BYTES_MAX {
                let message = format!("a row of the result has more than {SQL_VALUE_BYTES_MAX} bytes");
                return Err(sqlstate::limit(message, "Select fewer or shorter columns."));
            }
        }
        block.end_row();
        set.rows += 1;
        if block.is_full() {
            set.blocks.push(block.finish());
            if set.blocks.len() >= limit.blocks {
                return Ok(set);
            }
        }
    }
    if !block.is_empty() {
        set.blocks.push(block.finish());
    }
    Ok(set)
}
