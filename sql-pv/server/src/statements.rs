//! A session's statements by the client's ids: bounded, and forgettable at any time (the client is
//! then asked for the text again).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use vamos_sql_protocol::limits::SQL_TEXT_BYTES_MAX;
use vamos_sql_protocol::message::Column;

use crate::engine::Engine;
use crate::error::{SqlError, sqlstate};
use crate::limits::{SERVICE_STATEMENT_BYTES_MAX, SESSION_STATEMENTS_MAX};

/// One statement a session knows.
pub(crate) struct Known<E: Engine> {
    text: Arc<str>,
    statement: E::Statement,
    /// The columns the client was told under this id.
    columns: Option<Arc<[Column]>>,
    used: u64,
}

/// What a request's id and text have come to.
pub(crate) enum Lookup<S> {
    /// This statement.
    Found(S),
    /// The id is unknown and there is no text.
    TextWanted,
}

/// The statements of one session.
pub(crate) struct Statements<E: Engine> {
    known: HashMap<u64, Known<E>>,
    /// Bytes of text all sessions of the service keep.
    budget: Arc<AtomicUsize>,
    clock: u64,
}

impl<E: Engine> Statements<E> {
    pub(crate) fn new(budget: Arc<AtomicUsize>) -> Self {
        Self { known: HashMap::new(), budget, clock: 0 }
    }

    /// The statement a request means. Id 0 is never kept.
    pub(crate) fn find(
        &mut self,
        engine: &E,
        id: u64,
        text: Option<String>,
    ) -> Result<Lookup<E::Statement>, SqlError> {
        self.clock += 1;
        if let Some(known) = self.known.get_mut(&id) {
            if text.as_deref().is_some_and(|text| text != &*known.text) {
                let message = format!("statement id {id} already stands for another text");
                return Err(SqlError::new(sqlstate::INVALID_STATEMENT_NAME, message)
                    .hint("Use a new id for a new text, or close the statement first."));
            }
            known.used = self.clock;
            return Ok(Lookup::Found(known.statement.clone()));
        }
        let Some(text) = text else {
            return if id == 0 {
                Err(SqlError::protocol("a request carries neither a statement id nor a text"))
            } else {
                Ok(Lookup::TextWanted)
            };
        };
        if text.len() > SQL_TEXT_BYTES_MAX {
            let message =
                format!("statement text of {} bytes, the limit is {SQL_TEXT_BYTES_MAX}", text.len());
            return Err(SqlError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
                .hint("Pass large values as parameters."));
        }
        let text: Arc<str> = text.into();
        let statement = engine.statement(text.clone());
        if id != 0 {
            self.keep(id, text, statement.clone());
        }
        Ok(Lookup::Found(statement))
    }

    /// Whether the client still has to be told `columns` under this id; it will have been.
    pub(crate) fn must_tell(&mut self, id: u64, columns: &Arc<[Column]>) -> bool {
        let Some(known) = self.known.get_mut(&id) else { return true };
        let told = known.columns.as_ref().is_some_and(|told| Arc::ptr_eq(told, columns));
        if !told {
            known.columns = Some(columns.clone());
        }
        !told
    }

    /// Forgets an id.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Some(known) = self.known.remove(&id) {
            self.budget.fetch_sub(known.text.len(), Relaxed);
        }
    }

    fn keep(&mut self, id: u64, text: Arc<str>, statement: E::Statement) {
        if self.known.len() >= SESSION_STATEMENTS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used).map(|(id, _)| *id);
            oldest.into_iter().for_each(|id| self.forget(id));
        }
        if self.budget.fetch_add(text.len(), Relaxed) + text.len() > SERVICE_STATEMENT_BYTES_MAX {
            self.budget.fetch_sub(text.len(), Relaxed);
            return;
        }
        self.known.insert(id, Known { text, statement, columns: None, used: self.clock });
    }
}

impl<E: Engine> Drop for Statements<E> {
    fn drop(&mut self) {
        let kept: usize = self.known.values().map(|known| known.text.len()).sum();
        self.budget.fetch_sub(kept, Relaxed);
    }
}
