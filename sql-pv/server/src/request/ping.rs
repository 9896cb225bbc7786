//! Ping: nothing but a round trip, in the session's order.

use vamos_sql_protocol::Kind;

use super::Step;
use crate::engine::Engine;
use crate::reply::Reply;

pub(super) fn start<E: Engine>(reply: &mut Reply<'_>) -> Step<E> {
    reply.empty(Kind::Pong);
    Step::Answered
}
