//! THREATS, group D and threat 9: SQL that means harm.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use support::{Host, all_fail, impatient, int};
use vamos_sql_protocol::{BlockBuilder, Value, ValueRef};
use vamos_sql_server::SqlConfig;
use vamos_sqlite::{GiveUp, SqliteConfig};

#[tokio::test]
async fn d31_no_file_but_the_database() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    let before = host.files();
    let target = host.volume.path().join("stolen.db");
    let target = target.to_str().unwrap();
    for text in [
        format!("ATTACH '{target}' AS x"),
        format!("ATTACH '{target}' || '' AS x"),
        format!("ATTACH 'file:{target}?mode=rwc' AS x"),
        "ATTACH '' AS x".to_owned(),
        "ATTACH ':memory:' AS x".to_owned(),
        format!("VACUUM INTO '{target}'"),
        format!("VACUUM main INTO '{target}'"),
        format!("EXPLAIN ATTACH '{target}' AS x"),
        "DETACH main".to_owned(),
        "DETACH temp".to_owned(),
    ] {
        assert_eq!(client.fails(&text).await, "42501", "{text}");
    }
    for text in ["ATTACH ? AS x", "VACUUM INTO ?"] {
        let error = client.try_with(1, text, &[target.into()]).await.unwrap_err();
        assert_eq!(error.sqlstate, "42501", "{text}: {error:?}");
    }
    client.run("BEGIN").await;
    assert_eq!(client.fails(&format!("ATTACH '{target}' AS x")).await, "42501");
    client.run("ROLLBACK").await;
    assert_eq!(host.files(), before);
    client.run("VACUUM").await;
    client.run("vacuum main;").await;
    assert_eq!(host.files(), before);
    assert_eq!(client.rows("PRAGMA database_list").await, [[int(0), "main".into(), "".into()]]);
    assert_eq!(client.fails("SELECT * FROM pragma_database_list").await, "42501");
}

#[tokio::test]
async fn d32_no_way_out_of_sql() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    for text in [
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('x', 'y')",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM sqlite_stmt",
        "SELECT * FROM bytecode('SELECT 1')",
        "CREATE VIRTUAL TABLE v USING fts3(a)",
        "CREATE VIRTUAL TABLE v USING dbstat",
        "PRAGMA writable_schema = 1",
        "PRAGMA schema_version = 99",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA trusted_schema = 1",
        "SELECT sqlite_log(1, 'x')",
        "SELECT rtreecheck('t')",
        "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 2, 'x')",
        "UPDATE sqlite_schema SET sql = ''",
        "DELETE FROM sqlite_schema",
    ] {
        let sqlstate = client.fails(text).await;
        assert!(["42501", "42883", "42P01", "42704"].contains(&sqlstate.as_str()), "{text}: {sqlstate}");
    }
    let own = "SELECT name FROM sqlite_schema WHERE name NOT GLOB '_vamos_*'";
    assert_eq!(client.rows(own).await, [["t".into()]]);
    // What guests do need is there.
    client.run("CREATE VIRTUAL TABLE f USING fts5(body)").await;
    client.run("INSERT INTO f VALUES ('the quick brown fox')").await;
    assert_eq!(
        client.rows("SELECT highlight(f, 0, '<', '>') FROM f('quick')").await,
        [["the <quick> brown fox".into()]]
    );
    client.run("CREATE VIRTUAL TABLE r USING rtree(id, a, b)").await;
    client.run("INSERT INTO r VALUES (1, 0, 2)").await;
    assert_eq!(client.rows("SELECT id FROM r WHERE a < 1").await, [[int(1)]]);
    assert_eq!(client.rows("SELECT name, type FROM pragma_table_info('t')").await, [["a".into(), "".into()]]);
    client.run("CREATE VIEW w AS SELECT row_number() OVER (ORDER BY a) AS n FROM t").await;
    client
        .run("CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET a = a + 1 WHERE rowid = new.rowid; END")
        .await;
    client.run("INSERT INTO t VALUES (1)").await;
    client.run("ALTER TABLE t RENAME COLUMN a TO z").await;
    client.run("ALTER TABLE t RENAME TO u").await;
    client.run("ANALYZE").await;
    client.run("REINDEX").await;
    assert_eq!(client.rows("SELECT z FROM u").await, [[int(2)]]);
    assert!(!client.rows("EXPLAIN QUERY PLAN SELECT * FROM u").await.is_empty());
}

#[tokio::test]
async fn d33_durability_cannot_be_weakened() {
    let host = Host::start();
    let mut client = host.session().await;
    for (set, ask, stays) in [
        ("PRAGMA synchronous = OFF", "PRAGMA synchronous", int(2)),
        ("PRAGMA journal_mode = OFF", "PRAGMA journal_mode", "wal".into()),
        ("PRAGMA journal_mode(DELETE)", "PRAGMA journal_mode", "wal".into()),
        ("PRAGMA main.journal_mode = memory", "PRAGMA journal_mode", "wal".into()),
        ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA locking_mode", "normal".into()),
        ("PRAGMA wal_autocheckpoint = 1", "PRAGMA wal_autocheckpoint", int(0)),
        ("PRAGMA cell_size_check = 0", "PRAGMA cell_size_check", int(1)),
    ] {
        client.run(set).await;
        client.run("BEGIN").await;
        client.run(set).await;
        assert_eq!(client.rows(ask).await, [[stays.clone()]], "{set}");
        client.run("COMMIT").await;
        assert_eq!(client.rows(ask).await, [[stays]], "{set}");
    }
    assert_eq!(client.rows("PRAGMA journal_mode = OFF").await, [["wal".into()]]);
    for text in
        ["PRAGMA hard_heap_limit = 1", "PRAGMA soft_heap_limit = 1", "PRAGMA ignore_check_constraints = 1"]
    {
        assert_eq!(client.fails(text).await, "42501", "{text}");
    }
    client.run("PRAGMA wal_checkpoint(TRUNCATE)").await;
    client.run("PRAGMA user_version = 7").await;
    assert_eq!(client.rows("PRAGMA user_version").await, [[int(7)]]);
}

#[tokio::test]
async fn d34_statements_that_never_end() {
    let host = Host::with(impatient(GiveUp::new(|_| {})), SqlConfig::default());
    let mut client = host.session().await;
    client.run("CREATE TABLE t AS SELECT value AS a FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]')").await;
    all_fail(
        &mut client,
        "57014",
        &[
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
            "SELECT count(*) FROM t a, t b, t c, t d, t e, t f, t g, t h",
            "INSERT INTO t SELECT a.a FROM t a, t b, t c, t d, t e, t f, t g, t h",
            "CREATE TABLE u AS SELECT a.a FROM t a, t b, t c, t d, t e, t f, t g, t h",
            "UPDATE t SET a = (SELECT count(*) FROM t a, t b, t c, t d, t e, t f, t g, t h)",
        ],
    )
    .await;
    assert_eq!(client.rows("SELECT count(*) FROM t").await, [[int(20)]]);
}

#[tokio::test]
async fn t09_twenty_statements_of_death() {
    let given_up = Arc::new(AtomicUsize::new(0));
    let counted = given_up.clone();
    let give_up = GiveUp::new(move |_| {
        counted.fetch_add(1, SeqCst);
    });
    let host = Host::with(impatient(give_up), SqlConfig::default());
    let mut client = host.session().await;
    client.run("CREATE TABLE t AS SELECT value AS a FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]')").await;
    client.run("CREATE TABLE r (a)").await;
    client.run("CREATE TRIGGER g AFTER INSERT ON r BEGIN INSERT INTO r SELECT a FROM r; END").await;
    client.run("PRAGMA recursive_triggers = ON").await;
    let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let sum = format!("SELECT 1{}", "+1".repeat(10_000));
    let unions = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(2_000));
    let pattern = format!("SELECT 'a' LIKE '{}'", "%a".repeat(25_000));
    for text in [
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n ORDER BY i DESC LIMIT 1",
        "WITH RECURSIVE n (i) AS (SELECT 'x' UNION ALL SELECT i || i FROM n) SELECT max(length(i)) FROM n",
        "SELECT count(*) FROM t a, t b, t c, t d, t e, t f, t g, t h",
        "SELECT count(DISTINCT a.a || b.a || c.a || d.a || e.a || f.a) FROM t a, t b, t c, t d, t e, t f, t g",
        "SELECT hex(zeroblob(1000000000))",
        "SELECT zeroblob(2000000000) || zeroblob(2000000000)",
        "SELECT printf('%.*c', 1000000000, 'x')",
        "SELECT printf('%1000000000d', 1)",
        "SELECT replace(hex(zeroblob(8000000)), '0', '0000000000')",
        "SELECT group_concat(hex(zeroblob(1000000))) FROM t a, t b",
        "SELECT json_group_array(hex(zeroblob(1000000))) FROM t a, t b",
        "SELECT length(randomblob(16000000)) + max(random()) FROM t a, t b, t c, t d, t e, t f",
        "SELECT quote(randomblob(16000000))",
        "INSERT INTO r VALUES (1)",
        "SELECT json_extract(replace(hex(zeroblob(100000)), '0', '['), '$')",
        "SELECT sum(a.a * b.a) OVER (ORDER BY random()) FROM t a, t b, t c, t d, t e, t f",
        &deep,
        &sum,
        &unions,
        &pattern,
    ] {
        let started = Instant::now();
        let outcome = client.try_run(text).await;
        let took = started.elapsed();
        let shown: String = text.chars().take(80).collect();
        assert!(took < Duration::from_secs(2), "{shown}: {took:?}");
        if let Err(error) = outcome {
            let known = ["57014", "54000", "53200", "53100", "22001", "22P02", "42601", "55P03"];
            assert!(known.contains(&error.sqlstate.as_str()), "{shown}: {error:?}");
        }
    }
    assert_eq!(client.rows("SELECT 1").await, [[int(1)]]);
    assert_eq!(given_up.load(SeqCst), 0, "all of them could be interrupted");
}

/// One function call is one instruction: nothing interrupts it but the end of the process.
#[tokio::test]
async fn t09_what_cannot_be_interrupted_is_given_up() {
    let given_up = Arc::new(AtomicUsize::new(0));
    let counted = given_up.clone();
    let give_up = GiveUp::new(move |_| {
        counted.fetch_add(1, SeqCst);
    });
    let host = Host::with(
        SqliteConfig {
            // Long enough to reach the call on a busy machine: between instructions the deadline would hold.
            statement_deadline: Duration::from_millis(250),
            watchdog_grace: Duration::from_millis(50),
            give_up,
            ..SqliteConfig::default()
        },
        SqlConfig::default(),
    );
    let mut client = host.session().await;
    let text = "SELECT instr(hex(zeroblob(1000000)), hex(zeroblob(?)) || 'x')";
    let sequence = client.send_execute(1, text, &[int(60_000)]).await;
    let started = Instant::now();
    while given_up.load(SeqCst) == 0 && started.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(given_up.load(SeqCst), 1);
    let _ = client.result(1, sequence).await;
}

#[tokio::test]
async fn d35_values_that_blow_up() {
    let host = Host::start();
    let mut client = host.session().await;
    for text in [
        "SELECT zeroblob(17000000)",
        "SELECT hex(zeroblob(9000000))",
        "SELECT replace(hex(zeroblob(1000000)), '0', '0123456789')",
        "SELECT group_concat(hex(zeroblob(1000000))) FROM json_each('[1,2,3,4,5,6,7,8,9,10]')",
        "SELECT json_group_array(hex(zeroblob(1000000))) FROM json_each('[1,2,3,4,5,6,7,8,9,10]')",
        "SELECT zeroblob(9000000), zeroblob(9000000)",
    ] {
        let started = Instant::now();
        let error = client.try_run(text).await.unwrap_err();
        assert!(["54000", "22001", "53200"].contains(&error.sqlstate.as_str()), "{text}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{text}");
    }
    // What is just allowed, travels.
    assert_eq!(client.rows("SELECT zeroblob(16000000)").await, [[Value::Blob(vec![0; 16_000_000])]]);
}

#[tokio::test]
async fn d36_limits_of_a_statement() {
    let host = Host::start();
    let mut client = host.session().await;
    let texts = [
        format!("SELECT 'a' LIKE '{}'", "%a".repeat(25_000)),
        format!("SELECT 'a' GLOB '{}'", "*a".repeat(25_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(2_000)),
        format!("SELECT {}1", "-".repeat(0) + &"NOT ".repeat(10_000)),
        format!("SELECT 1{}", "+1".repeat(10_000)),
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT {}1", "1,".repeat(5_000)),
        format!("SELECT '{}'", "x".repeat(2_000_000)),
    ];
    for text in &texts {
        let started = Instant::now();
        let error = client.try_run(text).await.unwrap_err();
        let shown: String = text.chars().take(40).collect();
        assert!(["54000", "42601"].contains(&error.sqlstate.as_str()), "{shown}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{shown}");
    }
}

#[tokio::test]
async fn d37_the_platforms_own_names() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    // As the platform would have made it.
    let own = vamos_sql_checksum::open(&host.path(), rusqlite::OpenFlags::default()).unwrap();
    own.execute_batch(
        "CREATE TABLE _vamos_completion (key, outcome); INSERT INTO _vamos_completion VALUES (1, 2)",
    )
    .unwrap();
    all_fail(
        &mut client,
        "42501",
        &[
            "SELECT * FROM _vamos_completion",
            "SELECT count(*) FROM \"_VAMOS_completion\"",
            "INSERT INTO _vamos_completion VALUES (3, 4)",
            "UPDATE _vamos_completion SET outcome = 0",
            "DELETE FROM _vamos_completion",
            "DROP TABLE _vamos_completion",
            "ALTER TABLE _vamos_completion ADD COLUMN x",
            "ALTER TABLE t RENAME TO _vamos_t",
            "ALTER TABLE t RENAME TO \"_Vamos_t\"",
            "CREATE TABLE _vamos_x (a)",
            "CREATE TEMP TABLE _vamos_x (a)",
            "CREATE VIEW _vamos_v AS SELECT 1",
            "CREATE INDEX _vamos_i ON t (a)",
            "CREATE INDEX i ON _vamos_completion (key)",
            "CREATE TRIGGER g AFTER INSERT ON _vamos_completion BEGIN SELECT 1; END",
            "CREATE TRIGGER _vamos_g AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE VIRTUAL TABLE _vamos_f USING fts5(a)",
            "SAVEPOINT _vamos_statement",
        ],
    )
    .await;
    // A trigger or view may be made of names; it does not work.
    client.run("CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM _vamos_completion; END").await;
    assert_eq!(client.fails("INSERT INTO t VALUES (1)").await, "42501");
    client.run("CREATE VIEW v AS SELECT * FROM _vamos_completion").await;
    assert_eq!(client.fails("SELECT * FROM v").await, "42501");
    let left: i64 = own.query_row("SELECT count(*) FROM _vamos_completion", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}

/// Functions that a schema may not call are not called by views, triggers, defaults or indexes of a
/// database that was made elsewhere.
#[tokio::test]
async fn d38_a_schema_cannot_call_what_is_only_for_statements() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    client.run("CREATE VIRTUAL TABLE f USING fts5(body)").await;
    client.run("CREATE VIEW v AS SELECT fts5_source_id() AS id").await;
    client.run("CREATE VIEW w AS SELECT sqlite_log(1, 'x') AS l").await;
    assert_eq!(client.fails("SELECT * FROM w").await, "42501");
    client.run("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT load_extension('x'); END").await;
    assert!(["42883", "42501"].contains(&client.fails("INSERT INTO t VALUES (1)").await.as_str()));
    assert_eq!(client.rows("SELECT count(*) FROM t").await, [[int(0)]]);
    // fts5vocab and rtree may not be reached through a view or trigger of an untrusted schema.
    client.run("CREATE VIRTUAL TABLE vocab USING fts5vocab(f, 'row')").await;
    client.run("CREATE VIEW x AS SELECT * FROM vocab").await;
    let direct = client.try_run("SELECT * FROM vocab").await;
    assert!(direct.is_ok(), "{direct:?}");
}

#[tokio::test]
async fn d39_values_travel_as_the_native_engine_has_them() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a)").await;
    let native = rusqlite::Connection::open_in_memory().unwrap();
    native.execute_batch("CREATE TABLE t (a)").unwrap();
    let texts: [&[u8]; 6] = [b"a\0b", b"\xff\xfe", b"\xed\xa0\x80", "ä\u{10ffff}".as_bytes(), b"", b"plain"];
    let mut block = BlockBuilder::new(1);
    for text in texts {
        block.row([ValueRef::Text(text)]);
        native
            .execute(
                "INSERT INTO t VALUES (?)",
                [rusqlite::types::ToSqlOutput::Borrowed(rusqlite::types::ValueRef::Text(text))],
            )
            .unwrap();
    }
    for real in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE, 0.1] {
        block.row([ValueRef::Real(real)]);
        native.execute("INSERT INTO t VALUES (?)", [real]).unwrap();
    }
    for integer in [i64::MIN, i64::MAX, -1, 0, 128, 32_768, 1 << 31] {
        block.row([ValueRef::Integer(integer)]);
        native.execute("INSERT INTO t VALUES (?)", [integer]).unwrap();
    }
    client.batch(1, "INSERT INTO t VALUES (?)", block, true).await.unwrap();
    let question = "SELECT typeof(a), hex(a), length(a), a > 0 FROM t ORDER BY rowid";
    let mut statement = native.prepare(question).unwrap();
    let expected = statement.query_map([], |row| {
        (0..4).map(|at| row.get::<_, rusqlite::types::Value>(at)).collect::<Result<Vec<_>, _>>()
    });
    let expected: Vec<Vec<Value>> =
        expected.unwrap().map(|row| row.unwrap().into_iter().map(value).collect()).collect();
    assert_eq!(client.rows(question).await, expected);
    let back = client.rows("SELECT a FROM t WHERE typeof(a) IN ('integer', 'real') ORDER BY rowid").await;
    assert_eq!(back[0], [Value::Real(f64::INFINITY)]);
    assert_eq!(back[5], [int(i64::MIN)]);
    assert_eq!(client.fails("SELECT abs(-9223372036854775808)").await, "22003");
    assert_eq!(
        client.rows("SELECT 9223372036854775807 + 1").await,
        [[Value::Real(9.223372036854775e18_f64.max(2_f64.powi(63)))]]
    );
}

fn value(value: rusqlite::types::Value) -> Value {
    match value {
        rusqlite::types::Value::Null => Value::Null,
        rusqlite::types::Value::Integer(i) => Value::Integer(i),
        rusqlite::types::Value::Real(r) => Value::Real(r),
        rusqlite::types::Value::Text(t) => Value::Text(t),
        rusqlite::types::Value::Blob(b) => Value::Blob(b),
    }
}

#[tokio::test]
async fn d40_a_transaction_left_alone_lets_go_of_the_lane() {
    let config =
        SqliteConfig { idle_in_transaction_max: Duration::from_millis(150), ..SqliteConfig::default() };
    let host = Host::with(config, SqlConfig::default());
    let (mut hog, mut other) = (host.session().await, host.session().await);
    hog.run("CREATE TABLE t (a)").await;
    hog.run("BEGIN IMMEDIATE").await;
    hog.run("INSERT INTO t VALUES (1)").await;
    let started = Instant::now();
    other.run("INSERT INTO t VALUES (2)").await;
    assert!(started.elapsed() >= Duration::from_millis(100) && started.elapsed() < Duration::from_secs(3));
    // Nothing of the lost transaction is carried out as if on its own.
    assert_eq!(hog.fails("INSERT INTO t VALUES (3)").await, "25P03");
    assert_eq!(hog.fails("INSERT INTO t VALUES (4)").await, "25P03");
    assert_eq!(hog.fails("COMMIT").await, "25P03");
    assert_eq!(hog.rows("SELECT a FROM t").await, [[int(2)]]);
    hog.run("BEGIN").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    hog.run("ROLLBACK").await;
    hog.run("INSERT INTO t VALUES (5)").await;
}
