//! CloseStatement: forgets a statement id.

use bytes::Bytes;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::CloseStatement;

use super::{Step, parse};
use crate::engine::Engine;
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    let close: CloseStatement = match parse(Kind::CloseStatement, body) {
        Ok(close) => close,
        Err(error) => return Step::Violation(error),
    };
    session.statements.forget(close.statement);
    reply.empty(Kind::Closed);
    Step::Answered
}
