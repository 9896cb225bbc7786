//! Fetch: more rows of an open cursor.

use bytes::Bytes;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::Fetch;

use super::{Step, Streaming, parse, refuse, stream};
use crate::engine::Engine;
use crate::error::{SqlError, sqlstate};
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    let fetch: Fetch = match parse(Kind::Fetch, body) {
        Ok(fetch) => fetch,
        Err(error) => return Step::Violation(error),
    };
    if !session.cursors.contains(&fetch.cursor) {
        let message = format!("cursor {} is not open", fetch.cursor);
        return refuse(SqlError::new(sqlstate::INVALID_CURSOR_NAME, message), session.transaction(), reply);
    }
    let streaming = Streaming::continued(fetch.cursor, fetch.rows, fetch.blocks);
    stream::go_on(session, streaming, false, reply)
}
