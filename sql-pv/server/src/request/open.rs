//! Open: starts a session.

use bytes::Bytes;
use vamos_sql_protocol::message::{Open, Opened, Transaction};
use vamos_sql_protocol::{Kind, PROTOCOL};

use super::{Done, Step, Verb, Work, parse, proceed};
use crate::engine::Engine;
use crate::error::{SqlError, sqlstate};
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    if session.engine.is_some() {
        return Step::Violation(SqlError::protocol("the session is open already"));
    }
    let open: Open = match parse(Kind::Open, body) {
        Ok(open) => open,
        Err(error) => return Step::Violation(error),
    };
    if open.protocol == 0 {
        return refuse(
            SqlError::new(sqlstate::FEATURE_NOT_SUPPORTED, "paravirtual SQL has no version 0")
                .hint(format!("This host speaks versions 1 to {PROTOCOL}.")),
            reply,
        );
    }
    let database = &session.shared.config.database;
    if !database.is_empty() && *database != open.database {
        let message = format!("database {:?} does not exist", open.database);
        return refuse(
            SqlError::new(sqlstate::INVALID_CATALOG_NAME, message)
                .hint(format!("This binding is {database:?}.")),
            reply,
        );
    }
    let answer = session.shared.engine.open(session.identity, &open.application);
    let verb = Verb::Open { protocol: open.protocol.min(PROTOCOL) };
    proceed(session, verb, answer, (Done::Open, Work::Open), reply)
}

pub(super) fn finish<E: Engine>(
    session: &mut Session<E>,
    protocol: u32,
    outcome: Result<E::Session, SqlError>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match outcome {
        Ok(engine) => {
            session.engine = Some(engine);
            let (key, epoch) = (session.identity.key, session.identity.epoch);
            reply.opened(&Opened { protocol, key, epoch, engine: session.shared.engine.version() });
            Step::Answered
        }
        Err(error) => refuse(error, reply),
    }
}

/// Without an open session there is nothing to keep.
fn refuse<E: Engine>(error: SqlError, reply: &mut Reply<'_>) -> Step<E> {
    reply.error(&error, Transaction::None);
    Step::Over
}
