//! Execute: runs one statement.

use bytes::Bytes;
use vamos_sql_protocol::message::Execute;
use vamos_sql_protocol::{Kind, Rows};

use super::{Done, Step, Streaming, Verb, Work, engine, numbering, parse, proceed, statement};
use crate::engine::{Engine, EngineSession, Execution};
use crate::error::SqlError;
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    let execute: Execute = match parse(Kind::Execute, body) {
        Ok(execute) => execute,
        Err(error) => return Step::Violation(error),
    };
    match Rows::new(&execute.parameters) {
        Ok(rows) if rows.rows() <= 1 => {}
        Ok(rows) => {
            let message =
                format!("Execute with {} rows of parameters; Batch takes more than one", rows.rows());
            return Step::Violation(SqlError::protocol(message));
        }
        Err(error) => return Step::Violation(SqlError::protocol(format!("parameters: {error}"))),
    }
    let numbering = match numbering(execute.number, execute.acknowledged, reply) {
        Ok(numbering) => numbering,
        Err(step) => return step,
    };
    let statement = match statement(session, execute.statement, execute.text, reply) {
        Ok(statement) => statement,
        Err(step) => return step,
    };
    let streaming =
        Streaming::new(numbering.number, execute.statement, execute.rows, execute.blocks, execute.describe);
    let execution =
        Execution { numbering, statement, parameters: execute.parameters, limit: streaming.limit() };
    let answer = match engine(session) {
        Ok(engine) => engine.execute(execution),
        Err(step) => return step,
    };
    proceed(session, Verb::Stream(streaming), answer, (Done::Page, Work::Page), reply)
}
