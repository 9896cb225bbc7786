//! The engine's own rules let the catalogue's queries through: its authorizer, functions, pragmas and limits.

use std::sync::Arc;

use bytes::Bytes;
use vamos_sql_dialect::postgres::{SessionView, Settings, Translated, split, translate};
use vamos_sql_protocol::{BlockBuilder, ValueRef};
use vamos_sql_server::engine::{
    Answer, Engine, EngineSession, Execution, Numbering, Page, PageLimit, SessionIdentity,
};
use vamos_sqlite::{SqliteConfig, SqliteEngine};

async fn outcome<T>(answer: Answer<T>) -> Result<T, String> {
    let outcome = match answer {
        Answer::Ready(outcome) => outcome,
        Answer::Pending(pending) => pending.outcome.await,
    };
    outcome.map_err(|error| format!("{error:?}"))
}

struct Client {
    engine: SqliteEngine,
    session: <SqliteEngine as Engine>::Session,
    number: u64,
    _volume: tempfile::TempDir,
}

impl Client {
    async fn start() -> Self {
        let volume = tempfile::tempdir().expect("a directory");
        let engine =
            SqliteEngine::open(volume.path(), "catalog", SqliteConfig::default()).expect("an engine");
        let session =
            outcome(engine.open(SessionIdentity { key: 1, epoch: 1 }, "test")).await.expect("a session");
        Self { engine, session, number: 0, _volume: volume }
    }

    async fn run(&mut self, sql: &str, parameters: usize) -> Result<Page, String> {
        let mut block = BlockBuilder::new(parameters);
        block.row((0..parameters).map(|_| ValueRef::Text(b"1")));
        let parameters = if parameters > 0 { block.finish() } else { Bytes::new() };
        let statement = self.engine.statement(Arc::from(sql));
        let limit = PageLimit { rows: 0, blocks: 1_000 };
        self.number += 1;
        let numbering = Numbering { number: self.number, ..Numbering::default() };
        outcome(self.session.execute(Execution { numbering, statement, parameters, limit })).await
    }
}

#[tokio::test]
async fn the_engine_answers_what_clients_ask() {
    let mut client = Client::start().await;
    for statement in [
        "CREATE TABLE author (id INTEGER PRIMARY KEY, name text NOT NULL UNIQUE)",
        "CREATE TABLE book (id bigint PRIMARY KEY, title varchar(80), author_id bigint REFERENCES author(id))",
        "CREATE INDEX book_title ON book(title) WHERE id > 1",
        "CREATE VIEW cheap AS SELECT id FROM book",
        "CREATE TRIGGER book_check AFTER INSERT ON book BEGIN SELECT 1; END",
    ] {
        client.run(statement, 0).await.expect(statement);
    }
    let settings = Settings::new("me", []).expect("settings");
    let session = SessionView {
        database: "catalog",
        databases: &["catalog"],
        user: "me",
        backend_pid: 1,
        settings: &settings,
    };
    let mut rows = 0;
    for file in [
        include_str!("queries/psql-15.sql"),
        include_str!("queries/sqlalchemy-2.sql"),
        include_str!("queries/others.sql"),
    ] {
        for span in split(file).expect("splits") {
            let query = span.of(file);
            let Translated::Catalog(catalog) = translate(query, &session) else { panic!("{query}") };
            let parameters = (1..40).rev().find(|number| query.contains(&format!("${number}"))).unwrap_or(0);
            let page =
                client.run(&catalog.sql, parameters).await.unwrap_or_else(|error| panic!("{query}\n{error}"));
            assert_eq!(page.columns.len(), catalog.columns.len(), "{query}");
            rows += page.rows;
        }
    }
    assert!(rows > 100, "{rows} rows");
}
