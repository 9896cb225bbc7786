//! What clients do with the engine, told as they would: through the service, over frames.

mod support;

use std::time::{Duration, Instant};

use support::{Host, execute, is_open};
use vamos_sql_protocol::message::{self, Transaction};
use vamos_sql_protocol::{BlockBuilder, Kind, Value, ValueRef};
use vamos_sql_server::SqlConfig;
use vamos_sqlite::SqliteConfig;

fn int(i: i64) -> Value {
    Value::Integer(i)
}

#[tokio::test]
async fn a_table_is_made_filled_and_asked() {
    let host = Host::start();
    let mut client = host.session().await;
    assert_eq!(
        client.run("CREATE TABLE person (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL)").await.command,
        "CREATE"
    );
    let inserted = client
        .try_with(1, "INSERT INTO person (name) VALUES (?), (?)", &["Ada".into(), "Bob".into()])
        .await
        .unwrap();
    assert_eq!((inserted.changes, inserted.last_insert_rowid, inserted.command.as_str()), (2, 2, "INSERT"));
    let asked = client.run("SELECT id, name, id + 1 AS next FROM person ORDER BY id").await;
    assert_eq!(asked.rows, [vec![int(1), "Ada".into(), int(2)], vec![int(2), "Bob".into(), int(3)]]);
    let columns: Vec<_> =
        asked.columns.iter().map(|c| (&*c.name, &*c.declared, &*c.table, &*c.origin)).collect();
    assert_eq!(
        columns,
        [("id", "INTEGER", "person", "id"), ("name", "VARCHAR(40)", "person", "name"), ("next", "", "", "")]
    );
    assert_eq!(client.rows("SELECT last_insert_rowid(), changes()").await, [[int(2), int(2)]]);
    assert_eq!(client.run("UPDATE person SET name = upper(name)").await.changes, 2);
    assert_eq!(
        client
            .run("WITH gone AS (SELECT 1 AS id) DELETE FROM person WHERE id IN (SELECT id FROM gone)")
            .await
            .changes,
        1
    );
    assert!(client.run(" -- nothing\n;").await.command.is_empty());
}

#[tokio::test]
async fn statements_are_kept_by_id_and_asked_for_again() {
    let host = Host::start();
    let mut client = host.session().await;
    let mut by_id = message::Execute { statement: 7, ..Default::default() };
    let sequence = client.send(1, Kind::Execute, &by_id).await;
    assert_eq!(client.reply(1, sequence).await.0, Kind::TextWanted);
    by_id.text = Some("SELECT 1 AS one".to_owned());
    let sequence = client.send(1, Kind::Execute, &by_id).await;
    assert_eq!(client.result(1, sequence).await.unwrap().columns.len(), 1);
    by_id.text = None;
    let sequence = client.send(1, Kind::Execute, &by_id).await;
    let again = client.result(1, sequence).await.unwrap();
    assert_eq!((again.rows, again.columns.len()), (vec![vec![int(1)]], 0), "columns are told once");
    by_id.text = Some("SELECT 2".to_owned());
    let sequence = client.send(1, Kind::Execute, &by_id).await;
    assert_eq!(client.error(1, sequence).await.sqlstate, "26000");
    let sequence = client.send(1, Kind::CloseStatement, &message::CloseStatement { statement: 7 }).await;
    assert_eq!(client.reply(1, sequence).await.0, Kind::Closed);
    by_id.text = None;
    let sequence = client.send(1, Kind::Execute, &by_id).await;
    assert_eq!(client.reply(1, sequence).await.0, Kind::TextWanted);
}

#[tokio::test]
async fn columns_are_told_again_when_the_schema_changes() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    let by_id =
        message::Execute { statement: 1, text: Some("SELECT * FROM t".to_owned()), ..Default::default() };
    for columns in [1, 0, 0] {
        let sequence = client.send(1, Kind::Execute, &by_id).await;
        assert_eq!(client.result(1, sequence).await.unwrap().columns.len(), columns);
    }
    client.run("ALTER TABLE t ADD COLUMN b").await;
    let sequence = client.send(1, Kind::Execute, &by_id).await;
    assert_eq!(client.result(1, sequence).await.unwrap().columns.len(), 2);
}

#[tokio::test]
async fn a_transaction_is_its_sessions_own_until_it_commits() {
    let host = Host::start();
    let (mut ada, mut bob) = (host.session().await, host.session().await);
    ada.run("CREATE TABLE t (a)").await;
    assert!(is_open(&ada.run("BEGIN").await));
    assert!(is_open(&ada.run("INSERT INTO t VALUES (1)").await));
    ada.run("SAVEPOINT s").await;
    ada.run("INSERT INTO t VALUES (2)").await;
    ada.run("ROLLBACK TO s").await;
    assert_eq!(ada.rows("SELECT count(*) FROM t").await, [[int(1)]]);
    assert_eq!(bob.rows("SELECT count(*) FROM t").await, [[int(0)]]);
    assert!(!is_open(&ada.run("COMMIT").await));
    assert_eq!(bob.rows("SELECT count(*) FROM t").await, [[int(1)]]);
    assert_eq!(ada.fails("COMMIT").await, "25P01");
}

#[tokio::test]
async fn a_writer_waits_for_the_one_before_and_never_hears_busy() {
    let host = Host::start();
    let (mut ada, mut bob) = (host.session().await, host.session().await);
    ada.run("CREATE TABLE t (a)").await;
    ada.run("BEGIN IMMEDIATE").await;
    ada.run("INSERT INTO t VALUES (1)").await;
    let waiting = bob.send_execute(1, "INSERT INTO t VALUES (2)", &[]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    ada.run("COMMIT").await;
    assert_eq!(bob.result(1, waiting).await.unwrap().changes, 1);
    // A transaction that wrote on what is out of date is told to start again.
    ada.run("BEGIN").await;
    ada.rows("SELECT * FROM t").await;
    bob.run("INSERT INTO t VALUES (3)").await;
    assert_eq!(ada.fails("INSERT INTO t VALUES (4)").await, "40001");
    ada.run("ROLLBACK").await;
    assert_eq!(ada.rows("SELECT count(*) FROM t").await, [[int(3)]]);
}

#[tokio::test]
async fn sixty_four_sessions_share_commits() {
    let host = Host::start();
    let mut client = host.link();
    for session in 1..=64 {
        client.open(session).await;
    }
    client.run("CREATE TABLE t (session, n)").await;
    let before = host.service.engine().activity();
    const EACH: i64 = 20;
    let mut sent = Vec::new();
    for n in 0..EACH {
        for session in 1..=64 {
            let values = [int(i64::from(session)), int(n)];
            sent.push((session, client.send_execute(session, "INSERT INTO t VALUES (?, ?)", &values).await));
        }
    }
    for (session, sequence) in sent {
        assert_eq!(client.result(session, sequence).await.unwrap().changes, 1);
    }
    assert_eq!(
        client.rows("SELECT count(*), count(DISTINCT session) FROM t").await,
        [[int(64 * EACH), int(64)]]
    );
    let after = host.service.engine().activity();
    let (commits, writes) = (after.commits - before.commits, after.grouped_writes - before.grouped_writes);
    assert_eq!(writes, 64 * EACH as u64);
    assert!(commits * 4 < writes, "{commits} commits for {writes} writes");
}

#[tokio::test]
async fn one_writers_failure_is_not_the_groups() {
    let host = Host::start();
    let mut client = host.link();
    for session in 1..=4 {
        client.open(session).await;
    }
    client.run("CREATE TABLE t (a UNIQUE)").await;
    client.run("CREATE TABLE parent (id INTEGER PRIMARY KEY)").await;
    client.run("CREATE TABLE child (p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)").await;
    client.run("INSERT INTO t VALUES (0)").await;
    for round in 0..20 {
        let texts = [
            format!("INSERT INTO t VALUES ({})", 10 * round + 1),
            "INSERT OR ROLLBACK INTO t VALUES (0)".to_owned(),
            format!("INSERT INTO t VALUES ({})", 10 * round + 2),
            "INSERT INTO child VALUES (99)".to_owned(),
        ];
        let mut sent = Vec::new();
        for (session, text) in (1..).zip(&texts) {
            sent.push((session, client.send_execute(session, text, &[]).await));
        }
        let mut states = Vec::new();
        for (session, sequence) in sent {
            states.push(client.result(session, sequence).await.map(|a| a.changes).map_err(|e| e.sqlstate));
        }
        assert_eq!(states, [Ok(1), Err("23505".to_owned()), Ok(1), Err("23503".to_owned())]);
    }
    assert_eq!(
        client.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM child)").await,
        [[int(41), int(0)]]
    );
}

#[tokio::test]
async fn a_long_result_comes_in_blocks_as_it_is_fetched() {
    let host = Host::start();
    let mut client = host.session().await;
    let text = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i, hex(i) || 'abcdefgh' FROM n";
    assert_eq!(client.rows(text).await.len(), 50_000);
    let cursor = client.send(1, Kind::Execute, &message::Execute { rows: 10, ..execute(text, &[]) }).await;
    let part = client.result(1, cursor).await.unwrap();
    assert_eq!((part.rows.len(), part.suspended), (10, true));
    // Others go on meanwhile, this session too.
    client.run("CREATE TABLE t (a)").await;
    let mut last = int(10);
    let mut total = 10;
    loop {
        let fetch = client.send(1, Kind::Fetch, &message::Fetch { cursor, rows: 0, blocks: 3 }).await;
        let part = client.result(1, fetch).await.unwrap();
        assert!(part.frames <= 3);
        total += part.rows.len();
        if let Some(row) = part.rows.first() {
            let Value::Integer(before) = last else { panic!("{last:?}") };
            assert_eq!(row[0], int(before + 1));
            last = part.rows.last().unwrap()[0].clone();
        }
        if !part.suspended {
            break;
        }
    }
    assert_eq!(total, 50_000);
    let gone = client.send(1, Kind::Fetch, &message::Fetch { cursor, ..Default::default() }).await;
    assert_eq!(client.error(1, gone).await.sqlstate, "34000");
}

#[tokio::test]
async fn open_cursors_are_bounded_and_closed() {
    let host = Host::start();
    let mut client = host.session().await;
    let text = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let mut open = Vec::new();
    let refused = loop {
        let cursor = client.send(1, Kind::Execute, &message::Execute { rows: 1, ..execute(text, &[]) }).await;
        match client.result(1, cursor).await {
            Ok(part) => assert!(part.suspended),
            Err(error) => break error,
        }
        open.push(cursor);
    };
    assert_eq!((open.len(), refused.sqlstate.as_str()), (16, "54000"));
    for cursor in open {
        let close = client.send(1, Kind::CloseCursor, &message::CloseCursor { cursor }).await;
        assert_eq!(client.reply(1, close).await.0, Kind::Closed);
    }
    assert_eq!(client.rows("SELECT 1").await.len(), 1);
}

#[tokio::test]
async fn a_returning_write_is_fetched_in_parts_too() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY)").await;
    let text = "INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5]') RETURNING a";
    let cursor = client.send(1, Kind::Execute, &message::Execute { rows: 2, ..execute(text, &[]) }).await;
    let mut part = client.result(1, cursor).await.unwrap();
    let mut sizes = vec![part.rows.len()];
    while part.suspended {
        let fetch = client.send(1, Kind::Fetch, &message::Fetch { cursor, rows: 2, blocks: 1 }).await;
        part = client.result(1, fetch).await.unwrap();
        sizes.push(part.rows.len());
    }
    assert_eq!((sizes, part.changes), (vec![2, 2, 1], 5));
}

#[tokio::test]
async fn temporary_tables_and_settings_stay_with_their_session() {
    let host = Host::start();
    let (mut ada, mut bob) = (host.session().await, host.session().await);
    ada.run("CREATE TEMP TABLE mine (a)").await;
    ada.run("INSERT INTO mine VALUES (1)").await;
    assert_eq!(ada.rows("SELECT a FROM mine").await, [[int(1)]]);
    assert_eq!(bob.fails("SELECT a FROM mine").await, "42P01");
    ada.run("CREATE TABLE ours (a)").await;
    ada.run("INSERT INTO ours SELECT a FROM mine").await;
    assert_eq!(bob.rows("SELECT a FROM ours").await, [[int(1)]]);
    ada.run("CREATE TEMP TABLE ours (b)").await;
    assert_eq!(ada.run("SELECT * FROM ours").await.columns[0].name, "b");
    assert_eq!(bob.run("SELECT * FROM ours").await.columns[0].name, "a");
    ada.run("DROP TABLE temp.ours").await;
    ada.run("DROP TABLE mine").await;
    bob.run("CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
    bob.run("CREATE TABLE c (p REFERENCES p)").await;
    ada.run("PRAGMA foreign_keys = OFF").await;
    assert_eq!(ada.rows("PRAGMA foreign_keys").await, [[int(0)]]);
    ada.run("INSERT INTO c VALUES (1)").await;
    assert_eq!(bob.fails("INSERT INTO c VALUES (1)").await, "23503");
    assert_eq!(bob.rows("PRAGMA foreign_keys").await, [[int(1)]]);
}

#[tokio::test]
async fn a_session_without_transaction_holds_no_thread_and_no_place() {
    let host = Host::with(SqliteConfig { seats_max: 2, ..SqliteConfig::default() }, SqlConfig::default());
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(host.session().await);
    }
    for client in &mut clients {
        client.run("BEGIN").await;
        client.run("COMMIT").await;
        client.run("CREATE TEMP TABLE t (a)").await;
        client.run("DROP TABLE t").await;
    }
    assert!(host.service.engine().activity().threads <= 5);
    drop(clients);
}

#[tokio::test]
async fn threads_end_when_there_is_nothing_to_do() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    client.run("INSERT INTO t VALUES (1)").await;
    client.rows("SELECT count(*) FROM t, t b").await;
    client.run("BEGIN").await;
    client.run("COMMIT").await;
    assert!(host.service.engine().activity().threads > 0);
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(host.service.engine().activity().threads, 0);
    assert_eq!(client.rows("SELECT a FROM t").await, [[int(1)]], "and begin again");
    client.run("INSERT INTO t VALUES (2)").await;
}

#[tokio::test]
async fn batches_bind_rows_and_report_failures() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)").await;
    let block = |values: &[i64]| {
        let mut block = BlockBuilder::new(2);
        values.iter().for_each(|v| block.row([ValueRef::Integer(*v), ValueRef::Text(b"x")]));
        block
    };
    let insert = "INSERT INTO t VALUES (?, ?)";
    let done = client.batch(1, insert, block(&[1, 2, 3]), true).await.unwrap();
    assert_eq!((done.executed, done.changes, done.command.as_str()), (3, 3, "INSERT"));
    let some = client.batch(1, insert, block(&[4, 2, 5]), false).await.unwrap();
    let failed: Vec<_> =
        some.failures.iter().map(|f| (f.row, f.error.as_ref().unwrap().sqlstate.as_str())).collect();
    assert_eq!((some.executed, failed), (2, vec![(1, "23505")]));
    let none = client.batch(1, insert, block(&[6, 1]), true).await.unwrap();
    assert_eq!((none.executed, none.failures.len()), (0, 1));
    assert_eq!(client.rows("SELECT count(*) FROM t").await, [[int(5)]]);
    // In a transaction it is a part of that.
    client.run("BEGIN").await;
    let done = client.batch(1, insert, block(&[7, 8]), true).await.unwrap();
    assert_eq!((done.executed, done.transaction), (2, Transaction::Open as i32));
    client.batch(1, insert, block(&[9, 1]), true).await.unwrap();
    assert_eq!(client.rows("SELECT count(*) FROM t").await, [[int(7)]]);
    client.run("ROLLBACK").await;
    assert_eq!(client.rows("SELECT count(*) FROM t").await, [[int(5)]]);
    let mut narrow = BlockBuilder::new(1);
    narrow.row([ValueRef::Null]);
    assert_eq!(client.batch(1, insert, narrow, true).await.unwrap_err().sqlstate, "07001");
}

#[tokio::test]
async fn quick_reads_are_answered_without_a_hand_over() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b)").await;
    client.run("INSERT INTO t VALUES (1, 'one'), (2, 'two')").await;
    let text = "SELECT b FROM t WHERE a = ?";
    for _ in 0..3 {
        client.try_with(1, text, &[int(1)]).await.unwrap();
    }
    let before = host.service.engine().activity().inline;
    for _ in 0..100 {
        assert_eq!(client.try_with(1, text, &[int(2)]).await.unwrap().rows, [["two".into()]]);
    }
    // A slow machine may have measured the first runs as slow; then nothing may be inline at all.
    let inline = host.service.engine().activity().inline - before;
    assert!(inline == 100 || inline == 0, "{inline}");
    // What it reads is what was committed last.
    client.run("UPDATE t SET b = 'TWO' WHERE a = 2").await;
    assert_eq!(client.try_with(1, text, &[int(2)]).await.unwrap().rows, [["TWO".into()]]);
}

#[tokio::test]
async fn a_quick_statement_that_turns_slow_is_still_answered() {
    let host = Host::start();
    let mut client = host.session().await;
    let text =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT max(i) FROM n";
    for _ in 0..5 {
        client.try_with(1, text, &[int(3)]).await.unwrap();
    }
    assert_eq!(client.try_with(1, text, &[int(300_000)]).await.unwrap().rows, [[int(300_000)]]);
    let before = host.service.engine().activity().inline;
    client.try_with(1, text, &[int(3)]).await.unwrap();
    assert_eq!(host.service.engine().activity().inline, before, "not inlined again");
}

#[tokio::test]
async fn a_cancelled_statement_ends_and_the_session_goes_on() {
    let host = Host::start();
    let mut client = host.session().await;
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let running = client.send_execute(1, endless, &[]).await;
    let queued = client.send_execute(1, "SELECT 1", &[]).await;
    let next = client.send_execute(1, "SELECT 2", &[]).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    client.cancel(1, queued).await;
    client.cancel(1, running).await;
    assert_eq!(client.error(1, running).await.sqlstate, "57014");
    assert_eq!(client.error(1, queued).await.sqlstate, "57014");
    assert_eq!(client.result(1, next).await.unwrap().rows, [[int(2)]]);
}

#[tokio::test]
async fn a_slow_reader_is_waited_for_with_bounded_memory_and_stalls_nobody() {
    let host = Host::start();
    let mut slow = host.narrow_link(4 << 10);
    slow.open(1).await;
    let text = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT zeroblob(100000) FROM n";
    let sequence = slow.send_execute(1, text, &[]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut other = host.session().await;
    let started = Instant::now();
    assert_eq!(other.rows("SELECT 1").await.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(2));
    let result = slow.result(1, sequence).await.unwrap();
    assert_eq!(result.rows.len(), 100);
    assert!(result.rows.iter().all(|row| row[0] == Value::Blob(vec![0; 100_000])));
}

#[tokio::test]
async fn a_link_that_ends_leaves_nothing_behind() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    let mut other = host.session().await;
    other.run("BEGIN IMMEDIATE").await;
    other.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(host.service.sessions(), 2);
    other.end().await.unwrap();
    // The lane is free again, and what was not committed is gone.
    client.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(client.rows("SELECT a FROM t").await, [[int(2)]]);
    assert_eq!(host.service.sessions(), 1);
    let close = client.send(1, Kind::Close, &message::Close {}).await;
    assert_eq!(client.reply(1, close).await.0, Kind::Closed);
    assert_eq!(host.service.sessions(), 0);
}

#[tokio::test]
async fn describe_says_what_a_statement_takes_and_returns() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a INTEGER, b TEXT)").await;
    for (text, parameters, columns, read_only, command) in [
        ("SELECT a, b FROM t WHERE a = ? AND b = ?", 2, 2, true, "SELECT"),
        ("INSERT INTO t VALUES (?, ?) RETURNING a", 2, 1, false, "INSERT"),
        ("WITH x AS (SELECT 1) UPDATE t SET a = ?", 1, 0, false, "UPDATE"),
        ("BEGIN", 0, 0, true, "BEGIN"),
    ] {
        let describe = message::Describe { statement: 0, text: Some(text.to_owned()) };
        let sequence = client.send(1, Kind::Describe, &describe).await;
        let (kind, body) = client.reply(1, sequence).await;
        assert_eq!(kind, Kind::Described, "{text}");
        let described = <message::Described as prost::Message>::decode(body).unwrap();
        let found =
            (described.parameters, described.columns.len(), described.read_only, described.command.as_str());
        assert_eq!(found, (parameters, columns, read_only, command), "{text}");
    }
    assert_eq!(client.rows("SELECT count(*) FROM t").await, [[int(0)]]);
}

#[tokio::test]
async fn errors_say_what_where_and_what_to_do() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
    client.run("CREATE TABLE t (a UNIQUE, b NOT NULL, c CHECK (c > 0), p REFERENCES p)").await;
    client.run("INSERT INTO t VALUES (1, 1, 1, NULL)").await;
    for (text, sqlstate) in [
        ("INSERT INTO t VALUES (1, 1, 1, NULL)", "23505"),
        ("INSERT INTO t VALUES (2, NULL, 1, NULL)", "23502"),
        ("INSERT INTO t VALUES (2, 1, 0, NULL)", "23514"),
        ("INSERT INTO t VALUES (2, 1, 1, 5)", "23503"),
        ("SELEC 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT missing FROM t", "42703"),
        ("INSERT INTO t (z) VALUES (1)", "42703"),
        ("SELECT nofunction(1)", "42883"),
        ("CREATE TABLE t (a)", "42P07"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SELECT ?", "07001"),
        ("SELECT json('{')", "22P02"),
        ("RELEASE nothing", "25P01"),
    ] {
        assert_eq!(client.fails(text).await, sqlstate, "{text}");
    }
    let error = client.try_run("SELECT 1 FRM t").await.unwrap_err();
    assert_eq!((error.sqlstate.as_str(), error.position), ("42601", Some(13)), "{error:?}");
}

#[tokio::test]
async fn a_full_database_says_so_and_recovers() {
    let config = SqliteConfig { database_bytes_max: 1 << 20, ..SqliteConfig::default() };
    let host = Host::with(config, SqlConfig::default());
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    let error = loop {
        if let Err(error) = client.try_run("INSERT INTO t VALUES (randomblob(100000))").await {
            break error;
        }
    };
    assert_eq!(error.sqlstate, "53100");
    client.run("DELETE FROM t").await;
    client.run("INSERT INTO t VALUES (randomblob(100000))").await;
}

#[tokio::test]
async fn a_bad_volume_or_name_is_refused_at_once() {
    use std::error::Error;
    use vamos_sqlite::SqliteEngine;
    let volume = tempfile::tempdir().unwrap();
    for name in ["", "../x", "a/b", ".hidden", "nul\0"] {
        assert!(SqliteEngine::open(volume.path(), name, SqliteConfig::default()).is_err(), "{name:?}");
    }
    assert!(SqliteEngine::open(&volume.path().join("absent"), "a", SqliteConfig::default()).is_err());
    std::fs::write(volume.path().join("bad.db"), [b'x'; 8192]).unwrap();
    let Err(error) = SqliteEngine::open(volume.path(), "bad", SqliteConfig::default()) else {
        panic!("opened")
    };
    assert!(error.source().unwrap().to_string().contains("not a database"), "{error:?}");
}
