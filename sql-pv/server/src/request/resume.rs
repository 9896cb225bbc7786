//! Resume: continues a session whose link was lost. The identity must be this VM's, of its present
//! generation, and sealed by the host.

use bytes::Bytes;
use vamos_seam::{Bug, errs};
use vamos_sql_protocol::message::Resume;
use vamos_sql_protocol::{Kind, PROTOCOL};

use super::open::{check_database, check_protocol, opened, refuse};
use super::{Done, Step, Verb, Work, parse, proceed};
use crate::engine::{Engine, Resumed, Resumption, SessionIdentity};
use crate::error::{SqlError, sqlstate};
use crate::reply::Reply;
use crate::session::Session;

pub(super) fn start<E: Engine>(session: &mut Session<E>, body: Bytes, reply: &mut Reply<'_>) -> Step<E> {
    if session.engine.is_some() {
        return Step::Violation(SqlError::protocol("the session is open already"));
    }
    let resume: Resume = match parse(Kind::Resume, body) {
        Ok(resume) => resume,
        Err(error) => return Step::Violation(error),
    };
    if resume.acknowledged >= reply.sequence {
        let message = format!("request {} acknowledged before it was sent", resume.acknowledged);
        return Step::Violation(SqlError::protocol(message));
    }
    let identity = SessionIdentity { key: resume.key, epoch: resume.epoch };
    let judged = check_protocol(resume.protocol)
        .and_then(|()| check_database(session, &resume.database))
        .and_then(|()| check_identity(session, identity, resume.seal));
    if let Err(error) = judged {
        return refuse(error, reply);
    }
    session.identity = identity;
    let Resume { acknowledged, state, application, .. } = resume;
    let resumption = Resumption { identity, sequence: reply.sequence, acknowledged, state };
    let answer = session.shared.engine.resume(resumption, &application);
    let verb = Verb::Resume { protocol: resume.protocol.min(PROTOCOL) };
    proceed(session, verb, answer, (Done::Resume, Work::Resume), reply)
}

pub(super) fn finish<E: Engine>(
    session: &mut Session<E>,
    protocol: u32,
    outcome: Result<Resumed<E::Session>, SqlError>,
    reply: &mut Reply<'_>,
) -> Step<E> {
    match outcome {
        Ok(resumed) => opened(session, protocol, resumed.session, resumed.recorded, reply),
        Err(error) => refuse(error, reply),
    }
}

fn check_identity<E: Engine>(
    session: &Session<E>,
    identity: SessionIdentity,
    seal: u64,
) -> Result<(), SqlError> {
    if session.shared.seal(identity) != seal && !errs(Bug::SealUnchecked) {
        let message = "the session to resume was not opened by this VM on this database";
        return Err(SqlError::new(sqlstate::INVALID_AUTHORIZATION, message).hint("Open a new session."));
    }
    let generation = session.shared.config.epoch;
    if identity.epoch != generation && !errs(Bug::GenerationUnfenced) {
        let message = format!(
            "the session to resume is of generation {} of the VM, which is fenced off: this is generation {generation}",
            identity.epoch
        );
        return Err(SqlError::new(sqlstate::CONNECTION_DOES_NOT_EXIST, message).hint("Open a new session."));
    }
    Ok(())
}
