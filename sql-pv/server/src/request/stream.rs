//! The reply to Execute and Fetch: as many blocks as the client allows, pulled from the engine a page
//! at a time and never faster than the client reads.

use std::sync::Arc;

use bytes::Bytes;
use vamos_sql_protocol::message::Column;

use super::{Done, Step, Verb, Work, engine, proceed, refuse};
use crate::engine::{Engine, EngineSession, Page, PageLimit};
use crate::error::{SqlError, sqlstate};
use crate::limits::{LINK_OUTPUT_BYTES_MAX, PAGE_BLOCKS_MAX, SESSION_CURSORS_MAX};
use crate::reply::{Reply, ResultPart};
use crate::session::Session;

/// A reply made of results, under way.
pub(crate) struct Streaming {
    cursor: u64,
    /// The statement's id if columns may have to be told.
    tell: Option<u64>,
    describe: bool,
    /// Rows still allowed; `None`: any number.
    rows: Option<u64>,
    /// Blocks still allowed.
    blocks: u64,
}

impl Streaming {
    /// The reply to an Execute. `rows` 0 is no limit, `blocks` 0 is 1.
    pub(super) fn new(cursor: u64, statement: u64, rows: u64, blocks: u32, describe: bool) -> Self {
        let rows = (rows != 0).then_some(rows);
        Self { cursor, tell: Some(statement), describe, rows, blocks: u64::from(blocks.max(1)) }
    }

    /// The reply to a Fetch.
    pub(super) fn continued(cursor: u64, rows: u64, blocks: u32) -> Self {
        Self { tell: None, ..Self::new(cursor, 0, rows, blocks, false) }
    }

    /// What to ask of the engine next.
    pub(super) fn limit(&self) -> PageLimit {
        PageLimit { rows: self.rows.unwrap_or(0), blocks: self.blocks.min(PAGE_BLOCKS_MAX as u64) as usize }
    }

    /// Counts a page; true if the client allows more.
    fn count(&mut self, page: &Page) -> bool {
        self.blocks = self.blocks.saturating_sub(page.blocks.len().max(1) as u64);
        self.rows = self.rows.map(|rows| rows.saturating_sub(page.rows));
        self.blocks > 0 && self.rows != Some(0)
    }

    fn columns<'p, E: Engine>(
        &mut self,
        session: &mut Session<E>,
        columns: &'p Arc<[Column]>,
    ) -> Option<&'p [Column]> {
        let statement = self.tell.take()?;
        let must = session.statements.must_tell(statement, columns);
        (must || self.describe).then_some(columns)
    }
}

pub(super) fn go_on<E: Engine>(
    session: &mut Session<E>,
    streaming: Streaming,
    cancelled: bool,
    reply: &mut Reply<'_>,
) -> Step<E> {
    let (cursor, limit) = (streaming.cursor, streaming.limit());
    let engine = match engine(session) {
        Ok(engine) => engine,
        Err(step) => return step,
    };
    if cancelled {
        // The cursor's end need not be waited for: the engine keeps a session's calls in order.
        drop(engine.close_cursor(cursor));
        session.cursors.remove(&cursor);
        return refuse(SqlError::cancelled(), session.transaction(), reply);
    }
    let answer = engine.fetch(cursor, limit);
    proceed(session, Verb::Stream(streaming), answer, (Done::Page, Work::Page), reply)
}

pub(super) fn finish<E: Engine>(
    session: &mut Session<E>,
    mut streaming: Streaming,
    outcome: Result<Page, SqlError>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    let page = match outcome {
        Ok(page) => page,
        Err(error) => {
            session.cursors.remove(&streaming.cursor);
            return refuse(error, session.transaction(), reply);
        }
    };
    let go_on = page.end.is_none() && streaming.count(&page);
    let suspended = page.end.is_none() && !go_on;
    if suspended
        && !session.cursors.contains(&streaming.cursor)
        && session.cursors.len() >= SESSION_CURSORS_MAX
    {
        if let Ok(engine) = engine(session) {
            drop(engine.close_cursor(streaming.cursor));
        }
        let message = format!("the session has {SESSION_CURSORS_MAX} cursors open");
        let error = SqlError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
            .hint("Fetch them to their end, or close some.");
        return refuse(error, session.transaction(), reply);
    }
    if suspended {
        session.cursors.insert(streaming.cursor);
    } else if page.end.is_some() {
        session.cursors.remove(&streaming.cursor);
    }
    send(session, &mut streaming, &page, (go_on, suspended), reply);
    if !go_on {
        Step::Answered
    } else if reply.out.len() >= LINK_OUTPUT_BYTES_MAX {
        Step::Stalled(Verb::Stream(streaming))
    } else {
        self::go_on(session, streaming, false, reply)
    }
}

/// Puts a page into the output, a frame a block; without blocks, one frame if the reply ends with it.
fn send<E: Engine>(
    session: &mut Session<E>,
    streaming: &mut Streaming,
    page: &Page,
    (go_on, suspended): (bool, bool),
    reply: &mut Reply<'_>,
) {
    let transaction = session.transaction();
    let mut state = if page.end.is_some() { session.untold_state() } else { Bytes::new() };
    let mut columns = streaming.columns(session, &page.columns);
    let mut blocks = page.blocks.iter().peekable();
    if blocks.peek().is_none() {
        let end = page.end.as_ref();
        return reply.result(
            ResultPart { columns, more: go_on, suspended, end, state, ..ResultPart::default() },
            transaction,
        );
    }
    while let Some(block) = blocks.next() {
        let last = blocks.peek().is_none();
        let part = ResultPart {
            columns: columns.take(),
            rows: block.clone(),
            more: !last || go_on,
            suspended: last && suspended,
            end: page.end.as_ref().filter(|_| last),
            state: if last { std::mem::take(&mut state) } else { Bytes::new() },
        };
        reply.result(part, transaction);
    }
}
