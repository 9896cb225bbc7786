//! Describe: what a statement takes and returns.

use bytes::Bytes;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::Describe;

use super::{Done, Step, Verb, Work, engine, parse, proceed, refuse, statement};
use crate::engine::{Description, Engine, EngineSession};
use crate::error::SqlError;
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    let describe: Describe = match parse(Kind::Describe, body) {
        Ok(describe) => describe,
        Err(error) => return Step::Violation(error),
    };
    let statement = match statement(session, describe.statement, describe.text, reply) {
        Ok(statement) => statement,
        Err(step) => return step,
    };
    let answer = match engine(session) {
        Ok(engine) => engine.describe(statement),
        Err(step) => return step,
    };
    let verb = Verb::Describe { statement: describe.statement };
    proceed(session, verb, answer, (Done::Describe, Work::Describe), reply)
}

pub(super) fn finish<E: Engine>(
    session: &mut Session<E>,
    statement: u64,
    outcome: Result<Description, SqlError>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match outcome {
        Ok(description) => {
            session.statements.must_tell(statement, &description.columns);
            reply.described(&description);
            Step::Answered
        }
        Err(error) => refuse(error, session.transaction(), reply),
    }
}
