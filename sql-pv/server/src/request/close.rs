//! Close: ends the session; an open transaction is rolled back first.

use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::Transaction;

use super::{Done, Step, Verb, Work, engine, proceed};
use crate::engine::{Engine, EngineSession};
use crate::error::SqlError;
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, reply: &mut Reply<'_>) -> Step<E> {
    let answer = match engine(session) {
        Ok(engine) => engine.close(),
        Err(step) => return step,
    };
    proceed(session, Verb::Close, answer, (Done::Unit, Work::Unit), reply)
}

pub(super) fn finish<E: Engine>(outcome: Result<(), SqlError>, reply: &mut Reply<'_>) -> Step<E> {
    match outcome {
        Ok(()) => reply.empty(Kind::Closed),
        Err(error) => reply.error(&error, Transaction::None),
    }
    Step::Over
}
