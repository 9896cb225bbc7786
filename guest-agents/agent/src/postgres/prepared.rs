//! Prepared statements: what a Parse makes of a text.

use std::collections::VecDeque;
use std::sync::Arc;

use pgwire::messages::extendedquery::ParseComplete;
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::Statement;
use vamos_sql_dialect::postgres::inference::Types;
use vamos_sql_dialect::postgres::{PgType, Translated, split};

use super::connection::{Connection, Failure};
use super::error::PgError;
use super::infer;
use super::parameter::ParameterType;
use super::result::{self, Shape};
use super::simple::in_original;
use crate::limits::{POSTGRES_STATEMENTS_MAX, POSTGRES_TEXTS_MAX};

/// A prepared statement.
pub(super) struct Prepared {
    /// Its text, as the client wrote it.
    pub(super) text: String,
    /// What it is; `None`: nothing at all.
    pub(super) translated: Option<Translated>,
    /// What the engine knows it as, if the engine is to run it.
    pub(super) engine: Option<EngineStatement>,
    /// What it takes.
    pub(super) parameters: Vec<ParameterType>,
}

/// A text the engine has prepared, with what was found out about it.
#[derive(Clone)]
pub(super) struct EngineStatement {
    pub(super) statement: Statement,
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
        let statement = self.session.prepare(sql).await?;
        let wanted = statement.parameters() > 0
            || statement.columns().iter().any(|column| PgType::of_declared(&column.declared).is_none());
        let types =
            if wanted { infer::types(&self.session, original, &statement).await? } else { Types::default() };
        let engine =
            EngineStatement { statement, columns: types.columns.into(), parameters: types.parameters.into() };
        self.texts.keep(engine.clone());
        Ok(engine)
    }

    /// The statement of that name.
    pub(super) fn statement(&self, name: &str) -> Result<Arc<Prepared>, PgError> {
        let missing = || match name {
            "" => PgError::new("26000", "unnamed prepared statement does not exist"),
            name => PgError::new("26000", format!("prepared statement \"{name}\" does not exist")),
        };
        self.statements.get(name).cloned().ok_or_else(missing)
    }
}

impl Prepared {
    /// How many columns its result has, as far as that is known without running it.
    pub(super) fn column_count(&self) -> Option<usize> {
        self.engine.as_ref().map(|engine| engine.statement.columns().len())
    }

    /// The columns of its result; `None` if it returns none.
    pub(super) fn shapes(&self) -> Result<Option<Vec<Shape>>, PgError> {
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
