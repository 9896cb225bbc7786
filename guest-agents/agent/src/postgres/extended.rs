//! The extended protocol: statements bound to parameters, described and run in portals.

use std::sync::Arc;

use bytes::Bytes;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, PortalSuspended};
use pgwire::messages::response::EmptyQueryResponse;
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::{Cursor, Value};
use vamos_sql_dialect::postgres::{Rewritten, Translated};

use super::connection::{Connection, Failure};
use super::error::PgError;
use super::execute::Deadline;
use super::frontend::{self, Bind, Target};
use super::parameter;
use super::prepared::Prepared;
use super::result::{self, Shape};
use super::simple::{finished, in_original, may_write};
use super::tag::command_tag;
use super::transaction::State;
use super::wire::Mark;
use crate::limits::{PORTAL_WINDOW_BLOCKS, POSTGRES_STATEMENTS_MAX};

/// A statement with its parameters, on its way to be run or being run.
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    values: Vec<Value>,
    formats: Vec<i16>,
    /// The description of its result, as long as it can be taken back.
    described: Option<Mark>,
    run: Run,
}

enum Run {
    Ready,
    Open(Box<Open>),
    Done,
}

/// A portal's result, being read.
struct Open {
    cursor: Cursor,
    /// The first block, until it is sent.
    first: Option<Bytes>,
    shapes: Vec<Shape>,
    /// Whether the first round's rows have been sent.
    begun: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Answers a Bind.
    pub(super) fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let prepared = self.statement(&bind.statement)?;
        if let Some(translated) = &prepared.translated {
            self.check_block(translated)?;
        }
        let (given, wanted) = (bind.parameters.len(), prepared.parameters.len());
        if given != wanted {
            let name = &bind.statement;
            let message = format!(
                "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
            );
            return Err(PgError::protocol(message).into());
        }
        if bind.formats.len() > 1 && bind.formats.len() != given {
            let count = bind.formats.len();
            let message = format!("bind message has {count} parameter formats but {given} parameters");
            return Err(PgError::protocol(message).into());
        }
        if let Some(format) = bind.formats.iter().chain(&bind.results).find(|format| !matches!(format, 0 | 1))
        {
            return Err(PgError::new("22023", format!("unsupported format code: {format}")).into());
        }
        if let Some(columns) =
            prepared.column_count().filter(|columns| bind.results.len() > 1 && bind.results.len() != *columns)
        {
            let count = bind.results.len();
            let message = format!("bind message has {count} result formats but query has {columns} columns");
            return Err(PgError::protocol(message).into());
        }
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(PgError::new("42P03", format!("cursor \"{}\" already exists", bind.portal)).into());
        }
        if self.portals.len() >= POSTGRES_STATEMENTS_MAX {
            let message = format!("a connection holds at most {POSTGRES_STATEMENTS_MAX} portals");
            return Err(PgError::new("54000", message).into());
        }
        let mut values = Vec::with_capacity(given);
        for (at, (bytes, kind)) in bind.parameters.iter().zip(&prepared.parameters).enumerate() {
            values.push(match bytes {
                None => Value::Null,
                Some(bytes) => parameter::read(bytes, *kind, result::is_binary(&bind.formats, at), at + 1)?,
            });
        }
        values.truncate(prepared.engine.as_ref().map_or(0, |engine| engine.statement.parameters()));
        self.portals.insert(
            bind.portal,
            Portal { prepared, values, formats: bind.results, described: None, run: Run::Ready },
        );
        self.wire.put(&BindComplete::new());
        Ok(())
    }

    /// Answers a Describe.
    pub(super) fn describe(&mut self, target: Target, name: &str) -> Result<(), Failure> {
        let (prepared, formats) = match target {
            Target::Statement => {
                let prepared = self.statement(name)?;
                let oids = prepared.parameters.iter().map(|parameter| parameter.oid()).collect();
                self.wire.put(&ParameterDescription::new(oids));
                (prepared, Vec::new())
            }
            Target::Portal => match self.portals.get(name) {
                Some(portal) => (Arc::clone(&portal.prepared), portal.formats.clone()),
                None => return Err(PgError::new("34000", format!("portal \"{name}\" does not exist")).into()),
            },
        };
        let mark = match prepared.shapes()? {
            Some(shapes) => Some(self.wire.put_marked(&result::description(&shapes, &formats))),
            None => {
                self.wire.put(&NoData::new());
                None
            }
        };
        if let (Target::Portal, Some(portal)) = (target, self.portals.get_mut(name)) {
            portal.described = mark;
        }
        Ok(())
    }

    /// Answers an Execute.
    pub(super) async fn execute(&mut self, name: &str, rows: u32) -> Result<(), Failure> {
        let Some(mut portal) = self.portals.remove(name) else {
            return Err(PgError::new("34000", format!("portal \"{name}\" does not exist")).into());
        };
        let deadline = Deadline::new(&self.settings, &self.session);
        let outcome = deadline.meet(self.execute_portal(&mut portal, rows)).await;
        match outcome {
            Ok(()) => {
                // The end of a transaction takes its portals with it.
                let ends = matches!(portal.prepared.translated, Some(Translated::Transaction(_)));
                if !ends {
                    self.portals.insert(name.to_owned(), portal);
                }
                Ok(())
            }
            Err(Failure::Told(error)) if !error.is_fatal() => {
                let error = match &portal.prepared.translated {
                    Some(translated) => in_original(error, translated),
                    None => error,
                };
                let text = portal.prepared.text.clone();
                drop(portal);
                self.refuse_in_extended(&error, Some(&text)).await;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn execute_portal(&mut self, portal: &mut Portal, rows: u32) -> Result<(), Failure> {
        let prepared = Arc::clone(&portal.prepared);
        let Some(translated) = &prepared.translated else {
            self.wire.put(&EmptyQueryResponse::new());
            return Ok(());
        };
        self.check_block(translated)?;
        if matches!(portal.run, Run::Ready) {
            if self.run_local(translated, false, &portal.formats).await? {
                portal.run = Run::Done;
                return Ok(());
            }
            if frontend::executes_again_before_sync(self.wire.arrived()) {
                // Several statements before one Sync are one transaction.
                self.begin_implicit(may_write(&prepared.text)).await?;
            }
            if let Translated::Copy(copy) = translated {
                portal.run = Run::Done;
                return self.copy(copy).await;
            }
            portal.run = self.start(portal, rows).await?;
        }
        let tag = match &mut portal.run {
            Run::Ready => return Ok(()),
            Run::Done => "SELECT 0".to_owned(),
            Run::Open(open) => {
                if std::mem::replace(&mut open.begun, true) {
                    open.cursor.want(u64::from(rows));
                }
                let mut now = 0;
                if let Some(block) = open.first.take() {
                    now += result::send_block(&mut self.wire, &block, &open.shapes, &portal.formats).await?;
                }
                now += result::send_rows(&mut self.wire, &mut open.cursor, &open.shapes, &portal.formats)
                    .await?;
                if open.cursor.is_suspended() {
                    self.wire.put(&PortalSuspended::new());
                    return Ok(());
                }
                let summary = open.cursor.summary();
                match translated {
                    Translated::Rewritten(Rewritten { tag: Some(tag), .. }) => {
                        finished(tag, now, summary.changes)
                    }
                    _ => command_tag(&prepared.text, &summary, now),
                }
            }
        };
        portal.run = Run::Done;
        self.complete(tag);
        Ok(())
    }

    /// Starts the engine on a portal's statement.
    async fn start(&mut self, portal: &Portal, rows: u32) -> Result<Run, Failure> {
        let Some(engine) = &portal.prepared.engine else {
            return Err(PgError::new("XX000", "a prepared statement has nothing to run").into());
        };
        self.check_read_only(&engine.statement)?;
        let cursor = self.session.query_cursor(
            &engine.statement,
            &portal.values,
            u64::from(rows),
            PORTAL_WINDOW_BLOCKS,
        );
        let mut cursor = cursor.await?;
        let first = cursor.next_block().await?;
        let mut shapes = portal.prepared.shapes()?.unwrap_or_default();
        if cursor.columns()[..] != engine.statement.columns()[..] {
            // The schema changed since the statement was prepared. What this portal's description said can be
            // corrected as long as it has not left; a client that has read it must not be surprised.
            self.texts.clear();
            if !portal.described.is_some_and(|mark| self.wire.take_back(mark)) {
                return Err(PgError::new("0A000", "cached plan must not change result type").into());
            }
            shapes = result::shapes(cursor.columns(), &[], first.as_deref())?;
            self.wire.put(&result::description(&shapes, &portal.formats));
        }
        Ok(Run::Open(Box::new(Open { cursor, first, shapes, begun: false })))
    }

    /// Answers a Close: what does not exist is closed already.
    pub(super) fn close_named(&mut self, target: Target, name: &str) -> Result<(), Failure> {
        match target {
            Target::Statement => drop(self.statements.remove(name)),
            Target::Portal => drop(self.portals.remove(name)),
        }
        self.wire.put(&CloseComplete::new());
        Ok(())
    }

    /// Answers a Sync: the end of an implicit transaction.
    pub(super) async fn sync(&mut self) -> Result<(), Failure> {
        let failed = std::mem::take(&mut self.skipping);
        if self.block.state == State::Implicit {
            match self.end_transaction(!failed).await {
                Err(Failure::Told(error)) if !error.is_fatal() => self.wire.put_error(&error, None),
                done => done?,
            }
        }
        if self.block.state == State::Idle {
            self.portals.clear();
        }
        self.ready().await
    }
}
