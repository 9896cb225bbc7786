//! The extended protocol: statements prepared, bound to parameters, described and run in portals.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::EmptyQueryResponse;
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::{Cursor, Statement, Value};
use vamos_sql_dialect::postgres::{PgType, Translated, split};

use super::connection::{Connection, Failure};
use super::error::PgError;
use super::frontend::{self, Bind, Target};
use super::infer;
use super::parameter::{self, ParameterType};
use super::result::{self, Shape};
use super::simple::{finished, in_original, may_write};
use super::tag::command_tag;
use super::transaction::State;
use crate::limits::{PORTAL_WINDOW_BLOCKS, POSTGRES_STATEMENTS_MAX, POSTGRES_TEXTS_MAX};

/// A prepared statement.
pub(super) struct Prepared {
    text: String,
    /// What it is; `None`: nothing at all.
    translated: Option<Translated>,
    /// What the engine knows it as, if the engine is to run it.
    engine: Option<EngineStatement>,
    parameters: Vec<ParameterType>,
}

/// A text the engine has prepared, with what was found out about it.
#[derive(Clone)]
struct EngineStatement {
    statement: Statement,
    /// Types of the result's columns without declared ones.
    columns: Arc<[Option<PgType>]>,
    parameters: Arc<[Option<PgType>]>,
}

/// Texts prepared lately: many clients prepare the same unnamed statement again and again.
#[derive(Default)]
pub(super) struct TextCache {
    known: VecDeque<EngineStatement>,
}

impl TextCache {
    fn find(&mut self, sql: &str) -> Option<EngineStatement> {
        let at = self.known.iter().position(|known| known.statement.text() == sql)?;
        let found = self.known.remove(at)?;
        self.known.push_front(found.clone());
        Some(found)
    }

    fn keep(&mut self, statement: EngineStatement) {
        self.known.push_front(statement);
        self.known.truncate(POSTGRES_TEXTS_MAX);
    }

    /// The schema changed: what statements take and return must be found out again.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

/// A statement with its parameters, on its way to be run or being run.
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    values: Vec<Value>,
    formats: Vec<i16>,
    run: Run,
}

enum Run {
    Ready,
    /// `first` is the first block, until it is sent; `begun`: the first round's rows have been.
    Open {
        cursor: Cursor,
        first: Option<Bytes>,
        shapes: Vec<Shape>,
        begun: bool,
    },
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Answers a Parse.
    pub(super) async fn parse(&mut self, name: String, text: String, types: Vec<u32>) -> Result<(), Failure> {
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            return Err(PgError::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        } else if self.statements.len() >= POSTGRES_STATEMENTS_MAX {
            let message = format!("a connection holds at most {POSTGRES_STATEMENTS_MAX} prepared statements");
            return Err(PgError::new("54000", message).hint("DEALLOCATE what is not used.").into());
        }
        match self.prepare_text(&text, &types).await {
            Ok(prepared) => {
                self.statements.insert(name, Arc::new(prepared));
                self.wire.put(&ParseComplete::new());
                Ok(())
            }
            Err(Failure::Told(error)) if !error.is_fatal() => {
                self.refuse_in_extended(&error, Some(&text)).await;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn prepare_text(&mut self, text: &str, types: &[u32]) -> Result<Prepared, Failure> {
        let spans = split(text).map_err(PgError::from)?;
        let span = match spans.as_slice() {
            [] => {
                let parameters = types.iter().map(|oid| ParameterType::Declared(*oid)).collect();
                return Ok(Prepared { text: String::new(), translated: None, engine: None, parameters });
            }
            [span] => *span,
            _ => {
                return Err(PgError::new(
                    "42601",
                    "cannot insert multiple commands into a prepared statement",
                )
                .into());
            }
        };
        self.refresh_databases();
        let original = span.of(text);
        let translated = self.translate(original);
        self.check_block(&translated)?;
        let sql = match &translated {
            Translated::PassThrough => Some(original),
            Translated::Rewritten(rewritten) => Some(rewritten.sql.as_str()),
            Translated::Catalog(catalog) => Some(catalog.sql.as_str()),
            Translated::Refused(refusal) => return Err(PgError::from(refusal.clone()).into()),
            _ => None,
        };
        let engine = match sql {
            Some(sql) => match self.engine_statement(original, sql).await {
                Ok(engine) => Some(engine),
                Err(Failure::Told(error)) => {
                    let mut error = in_original(error, &translated);
                    error.position = error.position.map(|position| position + span.start);
                    return Err(error.into());
                }
                Err(failure) => return Err(failure),
            },
            None => None,
        };
        let taken = engine.as_ref().map_or(0, |engine| engine.statement.parameters());
        let parameters = (0..taken.max(types.len())).map(|at| {
            let inferred = engine.as_ref().and_then(|engine| engine.parameters.get(at).copied().flatten());
            match (types.get(at), inferred) {
                (Some(oid), _) if *oid != 0 => ParameterType::Declared(*oid),
                (_, Some(pg)) => ParameterType::Inferred(pg),
                _ => ParameterType::Unknown,
            }
        });
        let parameters = parameters.collect();
        Ok(Prepared { text: original.to_owned(), translated: Some(translated), engine, parameters })
    }

    async fn engine_statement(&mut self, original: &str, sql: &str) -> Result<EngineStatement, Failure> {
        if let Some(known) = self.texts.find(sql) {
            return Ok(known);
        }
        let statement = Self::timed(&self.settings, &self.session, self.session.prepare(sql)).await?;
        let wanted = statement.parameters() > 0
            || statement.columns().iter().any(|column| PgType::of_declared(&column.declared).is_none());
        let types = if wanted {
            infer::types(&self.session, original, &statement).await?
        } else {
            infer::Types::default()
        };
        let engine =
            EngineStatement { statement, columns: types.columns.into(), parameters: types.parameters.into() };
        self.texts.keep(engine.clone());
        Ok(engine)
    }

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
        self.portals.insert(bind.portal, Portal { prepared, values, formats: bind.results, run: Run::Ready });
        self.wire.put(&BindComplete::new());
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, PgError> {
        let missing = || match name {
            "" => PgError::new("26000", "unnamed prepared statement does not exist"),
            name => PgError::new("26000", format!("prepared statement \"{name}\" does not exist")),
        };
        self.statements.get(name).cloned().ok_or_else(missing)
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
        match prepared.shapes()? {
            Some(shapes) => self.wire.put(&result::description(&shapes, &formats)),
            None => self.wire.put(&NoData::new()),
        }
        Ok(())
    }

    /// Answers an Execute.
    pub(super) async fn execute(&mut self, name: &str, rows: u32) -> Result<(), Failure> {
        let Some(mut portal) = self.portals.remove(name) else {
            return Err(PgError::new("34000", format!("portal \"{name}\" does not exist")).into());
        };
        let outcome = self.execute_portal(&mut portal, rows).await;
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
            portal.run = self.start(&prepared, &portal.values, rows).await?;
        }
        let (tag, done) = match &mut portal.run {
            Run::Ready => return Ok(()),
            Run::Done => ("SELECT 0".to_owned(), true),
            Run::Open { cursor, first, shapes, begun } => {
                if std::mem::replace(begun, true) {
                    cursor.want(u64::from(rows));
                }
                let mut now = 0;
                if let Some(block) = first.take() {
                    now += result::send_block(&mut self.wire, &block, shapes, &portal.formats).await?;
                }
                now += result::send_rows(&mut self.wire, cursor, shapes, &portal.formats).await?;
                if cursor.is_suspended() {
                    self.wire.put(&PortalSuspended::new());
                    return Ok(());
                }
                let summary = cursor.summary();
                let tag = match translated {
                    Translated::Rewritten(rewritten) => rewritten.tag,
                    _ => None,
                };
                (
                    tag.map_or_else(
                        || command_tag(&prepared.text, &summary, now),
                        |tag| finished(tag, now, summary.changes),
                    ),
                    true,
                )
            }
        };
        if done {
            portal.run = Run::Done;
        }
        if matches!(tag.split(' ').next(), Some("CREATE" | "DROP" | "ALTER")) {
            self.texts.clear();
        }
        self.complete(tag);
        Ok(())
    }

    /// Starts the engine on a portal's statement.
    async fn start(&mut self, prepared: &Prepared, values: &[Value], rows: u32) -> Result<Run, Failure> {
        let Some(engine) = &prepared.engine else {
            return Err(PgError::new("XX000", "a prepared statement has nothing to run").into());
        };
        self.check_read_only(&engine.statement)?;
        let cursor =
            self.session.query_cursor(&engine.statement, values, u64::from(rows), PORTAL_WINDOW_BLOCKS);
        let mut cursor = cursor.await?;
        let first = self.first_block(&mut cursor).await?;
        let shapes = prepared.shapes()?.unwrap_or_default();
        Ok(Run::Open { cursor, first, shapes, begun: false })
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

impl Prepared {
    /// How many columns its result has, as far as that is known without running it.
    fn column_count(&self) -> Option<usize> {
        self.engine.as_ref().map(|engine| engine.statement.columns().len())
    }

    /// The columns of its result; `None` if it returns none.
    fn shapes(&self) -> Result<Option<Vec<Shape>>, PgError> {
        let shapes = match (&self.translated, &self.engine) {
            (Some(Translated::Catalog(catalog)), _) => result::known_shapes(&catalog.columns),
            (Some(Translated::Answer(answer) | Translated::Set { answer: Some(answer), .. }), _) => {
                result::known_shapes(&answer.columns)
            }
            (_, Some(engine)) => result::shapes(engine.statement.columns(), &engine.columns, None)?,
            _ => return Ok(None),
        };
        Ok((!shapes.is_empty()).then_some(shapes))
    }
}
