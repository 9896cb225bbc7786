//! COPY with real clients: psql's \copy and the driver's copy_in and copy_out.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::error::SqlState;

use crate::host::Host;

#[tokio::test]
async fn a_large_load_is_one_transaction() {
    let host = Host::start().await;
    let client = host.driver().await;
    client
        .batch_execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, score REAL, ok BOOLEAN, raw BYTEA)")
        .await
        .unwrap();
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    futures::pin_mut!(sink);
    for chunk in 0..50u64 {
        let rows: String = (0..1000u64)
            .map(|row| {
                let id = chunk * 1000 + row;
                format!(
                    "{id}\tname \\t {id}\t{}.5\t{}\t\\\\x{:02x}\n",
                    id,
                    if id % 2 == 0 { "t" } else { "false" },
                    id % 256
                )
            })
            .collect();
        sink.send(Bytes::from(rows)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 50_000);
    let sql = "SELECT count(*), sum(id), sum(ok), max(length(raw)), typeof(min(score)), name FROM t WHERE name = 'name \t 49999' OR 1";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (50_000, 50_000 * 49_999 / 2));
    let values = host
        .rows("SELECT sum(ok), max(length(raw)), typeof(min(score)) FROM t; SELECT name FROM t WHERE id = 7;")
        .await;
    assert_eq!(values, "25000|1|real\nname \t 7\n");
}

#[tokio::test]
async fn a_load_that_fails_leaves_nothing() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL)").await.unwrap();
    for (last, sqlstate) in [
        ("7\tagain\n", SqlState::UNIQUE_VIOLATION),
        ("90000\t\\N\n", SqlState::NOT_NULL_VIOLATION),
        ("90000\n", SqlState::BAD_COPY_FILE_FORMAT),
        ("90000\ta\tb\n", SqlState::BAD_COPY_FILE_FORMAT),
    ] {
        let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
        futures::pin_mut!(sink);
        let rows: String = (0..20_000).map(|id| format!("{id}\tname\n")).collect();
        // The door may refuse before everything is sent; finishing tells why.
        let _ = sink.send(Bytes::from(rows)).await;
        let _ = sink.send(Bytes::from(last)).await;
        let error = sink.finish().await.unwrap_err();
        assert_eq!(error.code(), Some(&sqlstate), "{last}");
        let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
        assert_eq!(count, 0, "{last}");
    }
    // Within a transaction of the client's it is that which fails.
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap();
    futures::pin_mut!(sink);
    sink.send(Bytes::from("1\tagain\n")).await.unwrap();
    sink.finish().await.unwrap_err();
    let error = client.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    client.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn a_client_that_gives_up_leaves_nothing() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(id INTEGER)").await.unwrap();
    {
        let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
        futures::pin_mut!(sink);
        let rows: String = (0..20_000).map(|id| format!("{id}\n")).collect();
        sink.send(Bytes::from(rows)).await.unwrap();
        // Dropped without an end: the driver sends CopyFail.
    }
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
}

#[tokio::test]
async fn what_is_copied_out_can_be_copied_in_again() {
    let host = Host::start().await;
    let client = host.driver().await;
    client
        .batch_execute(
            "CREATE TABLE a(id INTEGER, x TEXT, y BYTEA); CREATE TABLE b(id INTEGER, x TEXT, y BYTEA)",
        )
        .await
        .unwrap();
    let texts = [
        "plain",
        "",
        "with \"quotes\", and a comma",
        "two\nlines\r\n",
        "tab\t and \\backslash",
        "\\N",
        "\\.",
        "snö",
    ];
    for (id, text) in texts.iter().enumerate() {
        let id = id as i64;
        client.execute("INSERT INTO a VALUES ($1, $2, $3)", &[&id, text, &text.as_bytes()]).await.unwrap();
    }
    client.execute("INSERT INTO a VALUES (100, NULL, NULL)", &[]).await.unwrap();
    for options in [
        "",
        "(FORMAT csv)",
        "(FORMAT csv, HEADER)",
        "(FORMAT csv, DELIMITER ';', QUOTE '''', NULL 'none')",
        "(DELIMITER '|', NULL '')",
    ] {
        let out = client.copy_out(&format!("COPY a TO STDOUT {options}")).await.unwrap();
        let chunks: Vec<Bytes> = out.try_collect().await.unwrap();
        let sink = client.copy_in(&format!("COPY b FROM STDIN {options}")).await.unwrap();
        futures::pin_mut!(sink);
        for chunk in chunks {
            sink.send(chunk).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 9, "{options}");
        let sql = "SELECT count(*) FROM (SELECT * FROM a EXCEPT SELECT * FROM b)";
        let missing: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        // With NULL '' an empty text cannot be told from NULL, in PostgreSQL neither.
        assert_eq!(missing, i64::from(options.contains("NULL ''")), "{options}");
        client.batch_execute("DELETE FROM b").await.unwrap();
    }
    let out = client
        .copy_out("COPY (SELECT id, x FROM a WHERE id < 2 ORDER BY id) TO STDOUT (FORMAT csv, HEADER)")
        .await
        .unwrap();
    let text: Vec<u8> = out.map(|chunk| chunk.unwrap()).collect::<Vec<_>>().await.concat();
    assert_eq!(String::from_utf8(text).unwrap(), "id,x\n0,plain\n1,\"\"\n");
}

#[tokio::test]
async fn psql_copies_files() {
    let host = Host::start().await;
    host.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, name VARCHAR(20));").await;
    let file = host.path().join("rows.csv");
    let rows: String = (0..5000).map(|id| format!("{id},\"name {id}\"\n")).collect();
    std::fs::write(&file, format!("id,name\n{rows}")).unwrap();
    let file = file.display();
    let out = host
        .rows(&format!(
            "\\copy t(id, name) FROM '{file}' WITH (FORMAT csv, HEADER)\nSELECT count(*), max(name) FROM t;"
        ))
        .await;
    assert_eq!(out, "COPY 5000\n5000|name 999\n");
    let out = host.rows("\\copy (SELECT * FROM t WHERE id < 2) TO STDOUT WITH CSV\n").await;
    assert_eq!(out, "0,name 0\n1,name 1\nCOPY 2\n".replace("COPY 2\n", ""));
    let out = host.rows("COPY t FROM STDIN;\n9001\tinline\n\\.\nSELECT name FROM t WHERE id = 9001;").await;
    assert_eq!(out, "COPY 1\ninline\n");
    let (ok, _, error) = host.psql(&["-v", "ON_ERROR_STOP=1"], "COPY t FROM STDIN;\n1\tagain\n\\.\n").await;
    assert!(!ok && error.contains("UNIQUE") && error.contains("CONTEXT:  COPY t"), "{error}");
    let (_, _, error) = host.psql(&[], "COPY nowhere FROM STDIN;\nCOPY t TO '/tmp/x';").await;
    assert!(error.contains("nowhere") && error.contains("COPY with a file"), "{error}");
}
