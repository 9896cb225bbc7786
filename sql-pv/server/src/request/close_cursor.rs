//! CloseCursor: gives up the rest of a result.

use bytes::Bytes;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::CloseCursor;

use super::{Done, Step, Verb, Work, engine, parse, proceed, refuse};
use crate::engine::{Engine, EngineSession};
use crate::error::SqlError;
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    let close: CloseCursor = match parse(Kind::CloseCursor, body) {
        Ok(close) => close,
        Err(error) => return Step::Violation(error),
    };
    if !session.cursors.remove(&close.cursor) {
        // It may just have come to its end: closing is then nothing to complain about.
        reply.empty(Kind::Closed);
        return Step::Answered;
    }
    let answer = match engine(session) {
        Ok(engine) => engine.close_cursor(close.cursor),
        Err(step) => return step,
    };
    proceed(session, Verb::CloseCursor, answer, (Done::Unit, Work::Unit), reply)
}

pub(super) fn finish<E: Engine>(
    session: &mut Session<E>,
    outcome: Result<(), SqlError>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match outcome {
        Ok(()) => {
            reply.empty(Kind::Closed);
            Step::Answered
        }
        Err(error) => refuse(error, session.transaction(), reply),
    }
}
