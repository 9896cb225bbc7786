//! A client's session, called as `sql-pv/server` calls it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use vamos_sql_protocol::{BlockBuilder, Rows, Value};
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{
    Answer, BatchExecution, BatchOutcome, Engine, EngineSession, Execution, Numbering, PageLimit,
    SessionIdentity,
};
use vamos_sqlite::SqliteEngine;

/// All of a result at once.
const EVERYTHING: PageLimit = PageLimit { rows: 0, blocks: usize::MAX };

/// A session.
pub struct Session {
    engine: Arc<SqliteEngine>,
    session: <SqliteEngine as Engine>::Session,
    sequence: u64,
}

impl Session {
    /// Opens one.
    ///
    /// # Errors
    /// The engine's.
    pub async fn open(engine: &Arc<SqliteEngine>) -> Result<Self, SqlError> {
        // As the host mints them: never twice, whatever engine is asked.
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let key = KEYS.fetch_add(1, Relaxed);
        let session = answer(Engine::open(&**engine, SessionIdentity { key, epoch: 1 }, "faults")).await?;
        Ok(Self { engine: engine.clone(), session, sequence: 0 })
    }

    /// Runs a statement and gives its rows.
    ///
    /// # Errors
    /// The engine's.
    pub async fn run(&mut self, text: &str, values: &[Value]) -> Result<Vec<Vec<Value>>, SqlError> {
        self.sequence += 1;
        let parameters = match values {
            [] => Bytes::new(),
            values => block([values.to_vec()]),
        };
        let statement = self.engine.statement(text.into());
        let execution = Execution { numbering: self.numbering(), statement, parameters, limit: EVERYTHING };
        let page = answer(self.session.execute(execution)).await?;
        let broken = |_| SqlError::protocol("a block that is none");
        let mut table = Vec::new();
        for block in &page.blocks {
            let mut rows = Rows::new(block).map_err(broken)?;
            for _ in 0..rows.rows() {
                let row = (0..rows.columns()).map(|_| rows.value().map(|value| value.to_owned()));
                table.push(row.collect::<Result<Vec<_>, _>>().map_err(broken)?);
            }
        }
        Ok(table)
    }

    /// Each request acknowledges those before it.
    fn numbering(&self) -> Numbering {
        Numbering { number: self.sequence, acknowledged: self.sequence - 1, repeated: false }
    }

    /// Runs a statement once per row of values.
    ///
    /// # Errors
    /// The engine's.
    pub async fn batch(
        &mut self,
        text: &str,
        rows: Vec<Vec<Value>>,
        atomic: bool,
    ) -> Result<BatchOutcome, SqlError> {
        self.sequence += 1;
        let statement = self.engine.statement(text.into());
        let batch =
            BatchExecution { numbering: self.numbering(), statement, parameters: block(rows), atomic };
        answer(self.session.batch(batch)).await
    }
}

async fn answer<T>(answer: Answer<T>) -> Result<T, SqlError> {
    match answer {
        Answer::Ready(outcome) => outcome,
        Answer::Pending(pending) => pending.outcome.await,
    }
}

fn block(rows: impl IntoIterator<Item = Vec<Value>>) -> Bytes {
    let mut rows = rows.into_iter().peekable();
    let mut block = BlockBuilder::new(rows.peek().map_or(0, Vec::len));
    rows.for_each(|row| block.row(row.iter().map(Value::as_ref)));
    block.finish()
}
