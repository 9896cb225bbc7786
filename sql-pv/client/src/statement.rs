//! A prepared statement: a text under an id that the client chose.

use std::sync::Arc;

use bytes::Bytes;
use vamos_sql_protocol::message::{self, Column};
use vamos_sql_protocol::{BlockBuilder, Value};

use crate::link::Link;
use crate::sessions::SessionRef;

/// A statement the service knows by id. Clones share it; with the last one the service is told to
/// forget the id, together with the session's next request.
#[derive(Clone)]
pub struct Statement {
    prepared: Arc<Prepared>,
}

struct Prepared {
    link: Arc<Link>,
    session: SessionRef,
    id: u64,
    text: Arc<str>,
    columns: Arc<[Column]>,
    described: message::Described,
}

impl Statement {
    pub(crate) fn new(
        link: Arc<Link>,
        session: SessionRef,
        id: u64,
        text: Arc<str>,
        mut described: message::Described,
    ) -> Self {
        let columns = std::mem::take(&mut described.columns).into();
        Self { prepared: Arc::new(Prepared { link, session, id, text, columns, described }) }
    }

    /// The text it was prepared from.
    pub fn text(&self) -> &str {
        &self.prepared.text
    }

    /// How many parameters it takes.
    pub fn parameters(&self) -> usize {
        self.prepared.described.parameters as usize
    }

    /// The columns it returned rows of when it was prepared; a change of the schema may change them.
    pub fn columns(&self) -> &Arc<[Column]> {
        &self.prepared.columns
    }

    /// Whether it can return rows.
    pub fn returns_rows(&self) -> bool {
        self.prepared.described.returns_rows
    }

    /// Whether it changes nothing.
    pub fn is_read_only(&self) -> bool {
        self.prepared.described.read_only
    }

    /// Its first keyword, upper case.
    pub fn command(&self) -> &str {
        &self.prepared.described.command
    }

    pub(crate) fn shared_text(&self) -> &Arc<str> {
        &self.prepared.text
    }

    pub(crate) fn id(&self) -> u64 {
        self.prepared.id
    }

    pub(crate) fn session(&self) -> SessionRef {
        self.prepared.session
    }
}

impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statement").field("id", &self.prepared.id).field("text", &self.prepared.text).finish()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.link.forget_statement(self.session, self.id);
    }
}

/// Positional parameters as a packed block of one row; no bytes at all for none.
pub(crate) fn pack(parameters: &[Value]) -> Bytes {
    if parameters.is_empty() {
        return Bytes::new();
    }
    let mut block = BlockBuilder::new(parameters.len());
    block.row(parameters.iter().map(Value::as_ref));
    block.finish()
}
