//! The real psql: what people type first.

use crate::host::Host;

const SCHEMA: &str = "
CREATE TABLE customer(id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL, born DATE);
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer(id), total NUMERIC(10,2) DEFAULT 0);
CREATE INDEX orders_by_customer ON orders(customer_id);
CREATE VIEW rich AS SELECT name FROM customer;
INSERT INTO customer VALUES (1, 'Ada', '1815-12-10'), (2, 'Grace', '1906-12-09');
INSERT INTO orders VALUES (1, 1, 12.5), (2, 1, 7), (3, 2, 1);
";

#[tokio::test]
async fn statements_and_tags() {
    let host = Host::start().await;
    let out = host.rows(SCHEMA).await;
    assert_eq!(out, "CREATE TABLE\nCREATE TABLE\nCREATE INDEX\nCREATE VIEW\nINSERT 0 2\nINSERT 0 3\n");
    let out = host.rows("UPDATE orders SET total = total + 1 WHERE customer_id = 1; DELETE FROM orders WHERE id = 3; DROP VIEW rich;").await;
    assert_eq!(out, "UPDATE 2\nDELETE 1\nDROP VIEW\n");
    let sql = "SELECT c.name, sum(o.total) FROM customer c LEFT JOIN orders o ON o.customer_id = c.id GROUP BY c.name ORDER BY 1;";
    assert_eq!(host.rows(sql).await, "Ada|21.5\nGrace|\n");
}

#[tokio::test]
async fn tables_are_listed_and_described() {
    let host = Host::start().await;
    host.rows(SCHEMA).await;
    let (ok, out, error) = host
        .psql(&[], "\\dt\n\\d\n\\d orders\n\\d customer\n\\di\n\\dv\n\\l\n\\dn\n\\du\n\\df nothing\n")
        .await;
    assert!(ok && error.is_empty(), "{error}\n{out}");
    for expected in [
        "public | customer | table",
        "public | orders   | table",
        "public | rich     | view",
        "Table \"public.orders\"",
        "customer_id",
        "character varying(40)",
        "numeric(10,2)",
        "not null",
        "\"orders_by_customer\"",
        "FOREIGN KEY",
        "shop",
    ] {
        assert!(out.contains(expected), "{expected:?} is missing in\n{out}");
    }
}

#[tokio::test]
async fn conversations() {
    let host = Host::start().await;
    let (ok, out, error) = host
        .psql(&["-At"], "\\conninfo\n\\timing on\nSELECT 1;\n\\timing off\n\\encoding\n\\echo :DBNAME\n")
        .await;
    assert!(ok && error.is_empty(), "{error}");
    assert!(out.contains("You are connected to database \"shop\" as user \"tester\""), "{out}");
    assert!(out.contains("Time:") && out.contains("UTF8") && out.contains("shop"), "{out}");
    let out = host.rows("SELECT version() LIKE 'PostgreSQL %', current_database(), current_user; SHOW server_encoding; SET application_name = 'x'; SHOW application_name;").await;
    assert_eq!(
        out,
        "t|shop|tester\nUTF8\nSET\nx\n".replace("t|", if out.starts_with('1') { "1|" } else { "t|" })
    );
    let (_, out, error) = host.psql(&[], "SELECT * FROM nowhere;\nSELECT 1 AS still_here;\n").await;
    assert!(
        error.contains("ERROR:  ") && error.contains("nowhere") && out.contains("still_here"),
        "{error}{out}"
    );
    let (_, _, error) = host.psql(&[], "SELECT 1,\n  wrong_name;\n").await;
    assert!(error.contains("LINE 2:   wrong_name;") && error.contains("          ^"), "{error}");
}

#[tokio::test]
async fn types_print_as_in_postgresql() {
    let host = Host::start().await;
    host.rows("CREATE TABLE t(b BOOLEAN, r REAL, x BYTEA, s TEXT); INSERT INTO t VALUES (1, 0.1, x'00ff', NULL), (0, 1e20, x'', '');").await;
    let out = host.rows("\\pset null (null)\nSELECT * FROM t;").await;
    assert_eq!(out, "Null display is \"(null)\".\nt|0.1|\\x00ff|(null)\nf|1e+20|\\x|\n");
}

#[tokio::test]
async fn variables_of_psql() {
    let host = Host::start().await;
    host.rows(SCHEMA).await;
    let out = host.rows("\\set who Ada\nSELECT id FROM customer WHERE name = :'who';\n").await;
    assert_eq!(out, "1\n");
    let out = host.rows("SELECT name FROM customer WHERE id = 2 \\gset row_\n\\echo :row_name\n").await;
    assert_eq!(out, "Grace\n");
    let out = host.rows("SELECT id, name, count(*) AS n FROM customer \\gdesc\n").await;
    assert_eq!(out, "id|bigint\nname|character varying(40)\nn|bigint\n");
}

#[tokio::test]
async fn transactions_show_in_the_prompt() {
    let host = Host::start().await;
    let script = "\\set PROMPT1 '%x>'\nBEGIN;\nSELECT nonsense;\nSELECT 1;\nROLLBACK;\n\\echo done\n";
    let (_, out, error) = host.psql(&[], script).await;
    assert!(out.contains("ROLLBACK") && out.contains("done"), "{out}");
    assert!(error.contains("current transaction is aborted"), "{error}");
}
