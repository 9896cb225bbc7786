//! Batch: runs one statement once per row of parameters.

use bytes::Bytes;
use vamos_sql_protocol::message::Batch;
use vamos_sql_protocol::{Kind, Rows};

use super::{Done, Step, Verb, Work, engine, numbering, parse, proceed, refuse, statement};
use crate::engine::{BatchExecution, BatchOutcome, Engine, EngineSession};
use crate::error::SqlError;
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    let batch: Batch = match parse(Kind::Batch, body) {
        Ok(batch) => batch,
        Err(error) => return Step::Violation(error),
    };
    if let Err(error) = Rows::new(&batch.parameters) {
        return Step::Violation(SqlError::protocol(format!("parameters: {error}")));
    }
    let numbering = match numbering(batch.number, batch.acknowledged, reply) {
        Ok(numbering) => numbering,
        Err(step) => return step,
    };
    let statement = match statement(session, batch.statement, batch.text, reply) {
        Ok(statement) => statement,
        Err(step) => return step,
    };
    let batch = BatchExecution { numbering, statement, parameters: batch.parameters, atomic: batch.atomic };
    let answer = match engine(session) {
        Ok(engine) => engine.batch(batch),
        Err(step) => return step,
    };
    proceed(session, Verb::Batch, answer, (Done::Batch, Work::Batch), reply)
}

pub(super) fn finish<E: Engine>(
    session: &mut Session<E>,
    outcome: Result<BatchOutcome, SqlError>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match outcome {
        Ok(outcome) => {
            let state = session.untold_state();
            reply.batch_result(&outcome, session.transaction(), state);
            Step::Answered
        }
        Err(error) => refuse(error, session.transaction(), reply),
    }
}
