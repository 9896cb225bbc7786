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
    if let Err(error) = check_protocol(open.protocol) {
        return refuse(error, reply);
    }
    if let Err(error) = check_database(session, &open.database) {
        return refuse(error, reply);
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
        Ok(engine) => opened(session, protocol, engine, Vec::new(), reply),
        Err(error) => refuse(error, reply),
    }
}

/// The session goes on from here.
pub(super) fn opened<E: Engine>(
    session: &mut Session<E>,
    protocol: u32,
    engine: E::Session,
    recorded: Vec<u64>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    session.engine = Some(engine);
    session.told_state();
    let (identity, shared) = (session.identity, &session.shared);
    reply.opened(&Opened {
        protocol,
        key: identity.key,
        epoch: identity.epoch,
        seal: shared.seal(identity),
        engine: shared.engine.version(),
        recorded,
    });
    Step::Answered
}

/// Versions this host speaks.
pub(super) fn check_protocol(version: u32) -> Result<(), SqlError> {
    if version > 0 {
        return Ok(());
    }
    Err(SqlError::new(sqlstate::FEATURE_NOT_SUPPORTED, "paravirtual SQL has no version 0")
        .hint(format!("This host speaks versions 1 to {PROTOCOL}.")))
}

/// The one database of the binding.
pub(super) fn check_database<E: Engine>(session: &Session<E>, wanted: &str) -> Result<(), SqlError> {
    let database = &session.shared.config.database;
    if database.is_empty() || database == wanted {
        return Ok(());
    }
    let message = format!("database {wanted:?} does not exist");
    Err(SqlError::new(sqlstate::INVALID_CATALOG_NAME, message).hint(format!("This binding is {database:?}.")))
}

/// Without an open session there is nothing to keep.
pub(super) fn refuse<E: Engine>(error: SqlError, reply: &mut Reply<'_>) -> Step<E> {
    reply.error(&error, Transaction::None);
    Step::Over
}
