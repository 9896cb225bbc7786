//! What a session keeps between two requests: a few words, no thread and no connection.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use vamos_sql_protocol::message::{Column, Transaction};
use vamos_sql_protocol::{BlockBuilder, Rows, ValueRef};
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{Completed, Page, PageLimit};

use crate::connection::Settings;
use crate::guard::History;
use crate::record;
use crate::seat::{Seat, Standing};
use crate::sqlstate;

/// A session's state.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) history: History,
    /// The session's own connection.
    pub(crate) seat: Option<Arc<Seat>>,
    pub(crate) has_temp: bool,
    pub(crate) transaction: Transaction,
    /// Why the transaction is no more, until the client says ROLLBACK.
    pub(crate) failed: Option<SqlError>,
    /// Where the cursors are that were opened outside a transaction.
    pub(crate) cursors: HashMap<u64, Arc<Seat>>,
    /// Results that are here already (of writes) and have not been fetched.
    pub(crate) spooled: HashMap<u64, Spool>,
    /// What [`packed`](Self::packed) gave last, and of what.
    packed: Option<((Settings, History, bool), Bytes)>,
}

/// The rest of a result.
pub(crate) struct Spool {
    columns: Arc<[Column]>,
    blocks: VecDeque<Bytes>,
    end: Completed,
}

impl State {
    /// The transaction is no more; the client has to be told, and to say ROLLBACK.
    pub(crate) fn lose(&mut self, error: SqlError) {
        self.failed = Some(error);
        self.transaction = Transaction::None;
        if !self.has_temp {
            self.seat = None;
        }
    }

    /// What the client is to give back to go on with the session.
    pub(crate) fn packed(&mut self) -> Bytes {
        let of = (self.settings, self.history, self.has_temp);
        match &self.packed {
            Some((known, packed)) if *known == of => packed.clone(),
            _ => {
                let packed = record::pack_state(of.0, of.1, of.2);
                self.packed = Some((of, packed.clone()));
                packed
            }
        }
    }

    pub(crate) fn note(&mut self, standing: Standing) {
        self.transaction = standing.transaction;
        self.has_temp = standing.has_temp;
        if standing.left {
            self.seat = None;
        }
        if standing.lost {
            self.failed = Some(sqlstate::lost_transaction());
        }
    }

    /// Hands over as much as is allowed and keeps the rest.
    pub(crate) fn spool(&mut self, cursor: u64, mut page: Page, limit: PageLimit) -> Page {
        let is_more = page.blocks.len() > limit.blocks || (limit.rows > 0 && page.blocks.len() > 1);
        if let Some(end) = page.end.take_if(|_| is_more) {
            let spool = Spool { columns: page.columns, blocks: page.blocks.into(), end };
            self.spooled.insert(cursor, spool);
            return self.take_spooled(cursor, limit).unwrap_or_else(|| empty_page("", &self.history));
        }
        page
    }

    pub(crate) fn take_spooled(&mut self, cursor: u64, limit: PageLimit) -> Option<Page> {
        let spool = self.spooled.get_mut(&cursor)?;
        let wanted = if limit.rows > 0 { 1 } else { limit.blocks };
        let blocks: Vec<Bytes> = spool.blocks.drain(..wanted.min(spool.blocks.len())).collect();
        let rows =
            blocks.iter().filter_map(|block| Rows::new(block).ok()).map(|rows| u64::from(rows.rows())).sum();
        let columns = spool.columns.clone();
        let end = spool.blocks.is_empty().then(|| spool.end.clone());
        if end.is_some() {
            self.spooled.remove(&cursor);
        }
        Some(Page { columns, blocks, rows, end })
    }
}

/// A result without rows.
pub(crate) fn empty_page(command: &'static str, history: &History) -> Page {
    let end =
        Completed { changes: 0, last_insert_rowid: history.last_insert_rowid, command, returns_rows: false };
    Page { columns: Arc::new([]), blocks: Vec::new(), rows: 0, end: Some(end) }
}

/// The answer to a PRAGMA: at most one row.
pub(crate) fn row_page(names: &[&str], row: Option<Vec<ValueRef<'_>>>, history: &History) -> Page {
    let mut page = empty_page("PRAGMA", history);
    let column = |name: &&str| Column { name: (*name).to_owned(), ..Column::default() };
    page.columns = names.iter().map(column).collect();
    if let Some(row) = row {
        let mut block = BlockBuilder::new(names.len());
        block.row(row);
        page.blocks = vec![block.finish()];
        page.rows = 1;
    }
    if let Some(end) = &mut page.end {
        end.returns_rows = !names.is_empty();
    }
    page
}
