//! Fail: the session's transaction could not be replayed as it was.

use bytes::Bytes;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::Fail;

use super::{Done, Step, Verb, Work, engine, parse, proceed};
use crate::engine::{Engine, EngineSession};
use crate::error::{SqlError, sqlstate};
use crate::limits::FAIL_REASON_BYTES_MAX;
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    let fail = match parse::<Fail>(Kind::Fail, body) {
        Ok(fail) if fail.reason.len() <= FAIL_REASON_BYTES_MAX => fail,
        Ok(_) => return Step::Violation(SqlError::protocol("the reason of a Fail is too long")),
        Err(error) => return Step::Violation(error),
    };
    let error = SqlError::new(sqlstate::SERIALIZATION_FAILURE, fail.reason)
        .hint("Roll the transaction back and run it again.");
    let answer = match engine(session) {
        Ok(engine) => engine.fail(error),
        Err(step) => return step,
    };
    proceed(session, Verb::CloseCursor, answer, (Done::Unit, Work::Unit), reply)
}
