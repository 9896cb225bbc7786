//! The requests: one verb, one file; each parses its body, applies it and replies.

mod batch;
mod close;
mod close_cursor;
mod close_statement;
mod describe;
mod execute;
mod fail;
mod fetch;
mod open;
mod ping;
mod resume;
mod stream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::Transaction;

use crate::engine::{Answer, BatchOutcome, BoxFuture, Cancel, Description, Engine, Numbering, Page, Resumed};
use crate::error::{SqlError, sqlstate};
use crate::reply::Reply;
use crate::session::Session;
use crate::statements::Lookup;

pub(crate) use stream::Streaming;

/// What a request has come to.
pub(crate) enum Step<E: Engine> {
    /// Its reply is complete.
    Answered,
    /// The engine works on it.
    Pending(Verb, Work<E>, Arc<dyn Cancel>),
    /// The client must read before the reply goes on.
    Stalled(Verb),
    /// It breaks the protocol; nothing has been replied yet.
    Violation(SqlError),
    /// It was the session's last, and is answered.
    Over,
}

/// Which request is under way, with what its reply depends on.
pub(crate) enum Verb {
    Open { protocol: u32 },
    Resume { protocol: u32 },
    Stream(Streaming),
    Batch,
    Describe { statement: u64 },
    CloseCursor,
    Close,
}

type Outcome<T> = Result<T, SqlError>;

/// A future the link polls for a session.
pub(crate) enum Work<E: Engine> {
    Open(BoxFuture<Outcome<E::Session>>),
    Resume(BoxFuture<Outcome<Resumed<E::Session>>>),
    Page(BoxFuture<Outcome<Page>>),
    Batch(BoxFuture<Outcome<BatchOutcome>>),
    Describe(BoxFuture<Outcome<Description>>),
    Unit(BoxFuture<Outcome<()>>),
}

/// What such a future ended with.
pub(crate) enum Done<E: Engine> {
    Open(Outcome<E::Session>),
    Resume(Outcome<Resumed<E::Session>>),
    Page(Outcome<Page>),
    Batch(Outcome<BatchOutcome>),
    Describe(Outcome<Description>),
    Unit(Outcome<()>),
}

impl<E: Engine> Future for Work<E> {
    type Output = Done<E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done<E>> {
        match &mut *self {
            Work::Open(future) => future.as_mut().poll(cx).map(Done::Open),
            Work::Resume(future) => future.as_mut().poll(cx).map(Done::Resume),
            Work::Page(future) => future.as_mut().poll(cx).map(Done::Page),
            Work::Batch(future) => future.as_mut().poll(cx).map(Done::Batch),
            Work::Describe(future) => future.as_mut().poll(cx).map(Done::Describe),
            Work::Unit(future) => future.as_mut().poll(cx).map(Done::Unit),
        }
    }
}

/// Begins a request whose turn it is.
pub(crate) fn start<E: Engine>(
    session: &mut Session<E>,
    kind: Kind,
    body: Bytes,
    reply: &mut Reply<'_>,
) -> Step<E> {
    if session.engine.is_none() && !matches!(kind, Kind::Open | Kind::Resume) {
        return Step::Violation(SqlError::protocol("the session is not open"));
    }
    match kind {
        Kind::Open => open::start(session, body, reply),
        Kind::Resume => resume::start(session, body, reply),
        Kind::Execute => execute::start(session, body, reply),
        Kind::Batch => batch::start(session, body, reply),
        Kind::Fetch => fetch::start(session, body, reply),
        Kind::CloseCursor => close_cursor::start(session, body, reply),
        Kind::Describe => describe::start(session, body, reply),
        Kind::CloseStatement => close_statement::start(session, body, reply),
        Kind::Close => close::start(session, reply),
        Kind::Ping => ping::start(reply),
        Kind::Fail => fail::start(session, body, reply),
        Kind::Cancel
        | Kind::Opened
        | Kind::Result
        | Kind::BatchResult
        | Kind::Described
        | Kind::Closed
        | Kind::Pong
        | Kind::Error
        | Kind::TextWanted => Step::Violation(SqlError::protocol(format!("{kind:?} is not a request"))),
    }
}

/// Takes the engine's answer to the request under way.
pub(crate) fn finish<E: Engine>(
    session: &mut Session<E>,
    verb: Verb,
    done: Done<E>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match (verb, done) {
        (Verb::Open { protocol }, Done::Open(outcome)) => open::finish(session, protocol, outcome, reply),
        (Verb::Resume { protocol }, Done::Resume(outcome)) => {
            resume::finish(session, protocol, outcome, reply)
        }
        (Verb::Stream(streaming), Done::Page(outcome)) => stream::finish(session, streaming, outcome, reply),
        (Verb::Batch, Done::Batch(outcome)) => batch::finish(session, outcome, reply),
        (Verb::Describe { statement }, Done::Describe(outcome)) => {
            describe::finish(session, statement, outcome, reply)
        }
        (Verb::CloseCursor, Done::Unit(outcome)) => close_cursor::finish(session, outcome, reply),
        (Verb::Close, Done::Unit(outcome)) => close::finish(outcome, reply),
        _ => Step::Violation(SqlError::protocol("the engine answered another request")),
    }
}

/// Goes on with a reply that had to wait for the client to read.
pub(crate) fn go_on<E: Engine>(
    session: &mut Session<E>,
    verb: Verb,
    cancelled: bool,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match verb {
        Verb::Stream(streaming) => stream::go_on(session, streaming, cancelled, reply),
        _ => Step::Violation(SqlError::protocol("only results can wait for the client")),
    }
}

/// How an outcome and its future are named.
type Names<E, T> = (fn(Outcome<T>) -> Done<E>, fn(BoxFuture<Outcome<T>>) -> Work<E>);

/// Answers now, or later when the engine needs time.
fn proceed<E: Engine, T>(
    session: &mut Session<E>,
    verb: Verb,
    answer: Answer<T>,
    (done, work): Names<E, T>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match answer {
        Answer::Ready(outcome) => finish(session, verb, done(outcome), reply),
        Answer::Pending(pending) => Step::Pending(verb, work(pending.outcome), pending.cancel),
    }
}

/// Replies with an error; one of the protocol ends the session.
fn refuse<E: Engine>(error: SqlError, transaction: Transaction, reply: &mut Reply<'_>) -> Step<E> {
    if error.sqlstate == sqlstate::PROTOCOL_VIOLATION {
        return Step::Violation(error);
    }
    reply.error(&error, transaction);
    Step::Answered
}

/// Parses a body.
fn parse<M: prost::Message + Default>(kind: Kind, body: Bytes) -> Result<M, SqlError> {
    M::decode(body).map_err(|error| SqlError::protocol(format!("body of {kind:?}: {error}")))
}

/// What a request says of its number, if that can be.
fn numbering<E: Engine>(number: u64, acknowledged: u64, reply: &Reply<'_>) -> Result<Numbering, Step<E>> {
    let repeated = number != 0 && number != reply.sequence;
    let number = if number == 0 { reply.sequence } else { number };
    if number > reply.sequence || acknowledged >= number {
        let sequence = reply.sequence;
        let message =
            format!("request {sequence} says that it is number {number} and that {acknowledged} is answered");
        return Err(Step::Violation(SqlError::protocol(message)));
    }
    Ok(Numbering { number, acknowledged, repeated })
}

/// Finds the statement a request means; otherwise the request has been dealt with.
fn statement<E: Engine>(
    session: &mut Session<E>,
    id: u64,
    text: Option<String>,
    reply: &mut Reply<'_>,
) -> Result<E::Statement, Step<E>> {
    match session.statements.find(&session.shared.engine, id, text) {
        Ok(Lookup::Found(statement)) => Ok(statement),
        Ok(Lookup::TextWanted) => {
            reply.empty(Kind::TextWanted);
            Err(Step::Answered)
        }
        Err(error) => Err(refuse(error, session.transaction(), reply)),
    }
}

/// The engine's session, which [`start`] has made sure of.
fn engine<E: Engine>(session: &mut Session<E>) -> Result<&mut E::Session, Step<E>> {
    session.engine.as_mut().ok_or_else(|| Step::Violation(SqlError::protocol("the session is not open")))
}
