//! An unmodified psql in a QEMU guest.

use anyhow::{Result, ensure};
use vamos_e2e::{PRIVATE, SHOP, SMALL, Stage, psql, same, sqlstate};

use crate::Case;

pub const CASES: &[Case] = &[
    ("psql::statements_answer", statements_answer),
    ("psql::feels_at_home", feels_at_home),
    ("psql::describes_tables", describes_tables),
    ("psql::errors_have_a_sqlstate", errors_have_a_sqlstate),
    ("psql::transactions_hold", transactions_hold),
    ("psql::copy_goes_in_and_comes_out", copy_goes_in_and_comes_out),
    ("psql::the_tcp_door_is_open", the_tcp_door_is_open),
    ("psql::ctrl_c_cancels", ctrl_c_cancels),
    ("psql::an_unknown_database_is_refused", an_unknown_database_is_refused),
];

fn statements_answer(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(vm, SHOP, "CREATE TABLE item (id integer PRIMARY KEY, name text, price numeric)")?;
    psql(vm, SHOP, "INSERT INTO item VALUES (1, 'tea', 2.50), (2, 'Kaffee ☕', 3.75), (3, NULL, NULL)")?;
    same("rows", psql(vm, SHOP, "SELECT id, name FROM item ORDER BY id")?, "1|tea\n2|Kaffee ☕\n3|")?;
    same("a sum", psql(vm, SHOP, "SELECT count(*), sum(id) FROM item WHERE id > 1")?, "2|5")?;
    let tags = vm.run(&format!(
        "psql {SHOP} -c \"UPDATE item SET name = 'x' WHERE id > 1\" -c \"DELETE FROM item WHERE id = 3\""
    ))?;
    same("command tags", tags.trim(), "UPDATE 2\nDELETE 1")?;
    // Several statements of one query are one transaction.
    let several = vm.attempt(&format!(
        "psql {SHOP} -c \"INSERT INTO item VALUES (9, 'a', 1); INSERT INTO item VALUES (9, 'b', 1)\""
    ))?;
    ensure!(several.status != 0, "a duplicate key was accepted");
    same("rows of it", psql(vm, SHOP, "SELECT count(*) FROM item WHERE id = 9")?, "0")
}

fn feels_at_home(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    let version = psql(vm, SHOP, "SELECT version()")?;
    ensure!(version.contains("VAMOS") || version.contains("PostgreSQL"), "{version}");
    let databases = vm.run(&format!("psql {SHOP} -At -c '\\l'"))?;
    for database in [SHOP, PRIVATE, SMALL] {
        ensure!(databases.lines().any(|line| line.starts_with(&format!("{database}|"))), "{databases}");
    }
    same("SHOW", psql(vm, SHOP, "SHOW client_encoding")?, "UTF8")?;
    let set = vm
        .run(&format!("psql {SHOP} -q -At -c \"SET application_name = 'e2e'\" -c 'SHOW application_name'"))?;
    same("SET", set.trim(), "e2e")?;
    same("current_database()", psql(vm, SHOP, "SELECT current_database()")?, SHOP)
}

fn describes_tables(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(
        vm,
        SHOP,
        "CREATE TABLE crate (id bigint PRIMARY KEY, label text NOT NULL, weight double precision)",
    )?;
    psql(vm, SHOP, "CREATE INDEX crate_label ON crate (label)")?;
    let tables = vm.run(&format!("psql {SHOP} -At -c '\\dt'"))?;
    ensure!(tables.lines().any(|line| line.split('|').nth(1) == Some("crate")), "\\dt: {tables}");
    let described = vm.run(&format!("psql {SHOP} -A -c '\\d crate'"))?;
    for column in ["id|bigint", "label|text", "weight|double precision"] {
        ensure!(described.lines().any(|line| line.starts_with(column)), "\\d has no {column}:\n{described}");
    }
    ensure!(described.contains("crate_label"), "\\d names no index:\n{described}");
    Ok(())
}

fn errors_have_a_sqlstate(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(vm, SHOP, "CREATE TABLE once (id integer PRIMARY KEY, name text NOT NULL)")?;
    psql(vm, SHOP, "INSERT INTO once VALUES (1, 'a')")?;
    for (sql, expected) in [
        ("SELEKT 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT missing FROM once", "42703"),
        ("INSERT INTO once VALUES (1, 'b')", "23505"),
        ("INSERT INTO once VALUES (2, NULL)", "23502"),
        ("CREATE TABLE once (id integer)", "42P07"),
    ] {
        same(sql, sqlstate(vm, SHOP, sql)?, expected)?;
    }
    Ok(())
}

fn transactions_hold(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(vm, SHOP, "CREATE TABLE account (id integer PRIMARY KEY, cents integer)")?;
    let script = "BEGIN; INSERT INTO account VALUES (1, 100); SAVEPOINT s; INSERT INTO account VALUES (2, 200);\n\
                  ROLLBACK TO s; COMMIT;\nBEGIN; DELETE FROM account; ROLLBACK;\n";
    vm.run(&format!("printf %s '{script}' | psql {SHOP} -q -v ON_ERROR_STOP=1"))?;
    same("what is left", psql(vm, SHOP, "SELECT id, cents FROM account")?, "1|100")?;
    // A client that goes away in a transaction leaves nothing, and nobody waits for it.
    vm.run(&format!(
        "(printf 'BEGIN; DELETE FROM account;\\n'; sleep 1) | psql {SHOP} -q & sleep 0.5; kill -9 $! || true; wait"
    ))?;
    psql(vm, SHOP, "INSERT INTO account VALUES (3, 300)")?;
    same("after it", psql(vm, SHOP, "SELECT count(*) FROM account")?, "2")
}

fn copy_goes_in_and_comes_out(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(vm, SHOP, "CREATE TABLE line (id integer PRIMARY KEY, words text)")?;
    vm.run("awk 'BEGIN { for (i = 1; i <= 20000; i++) print i \"\\t\" (i % 7 ? \"line \" i : \"\\\\N\") }' >/tmp/in.tsv")?;
    let tag = vm.run(&format!("psql {SHOP} -c \"\\copy line from '/tmp/in.tsv'\""))?;
    same("the tag", tag.trim(), "COPY 20000")?;
    same("nulls", psql(vm, SHOP, "SELECT count(*) FROM line WHERE words IS NULL")?, "2857")?;
    vm.run(&format!(
        "psql {SHOP} -At -F '\t' -P 'null=\\N' -c 'SELECT * FROM line ORDER BY id' >/tmp/out.tsv"
    ))?;
    vm.run("cmp /tmp/in.tsv /tmp/out.tsv")?;
    // CSV, and a mistake in the last row undoes all.
    let csv = "100001,\"a, \"\"b\"\"\"\n100002,\n1,again\n";
    let failed = vm.attempt(&format!("printf '%s' '{csv}' | psql {SHOP} -c '\\copy line from stdin csv'"))?;
    ensure!(failed.status != 0 && failed.stderr.contains("line"), "{}", failed.stderr);
    same("rows", psql(vm, SHOP, "SELECT count(*) FROM line")?, "20000")?;
    vm.run("rm -f /tmp/in.tsv /tmp/out.tsv").map(|_| ())
}

fn the_tcp_door_is_open(stage: &Stage) -> Result<()> {
    let answer = stage.alpha()?.run(&format!("psql -h 127.0.0.1 -p 5432 {SHOP} -At -c 'SELECT 6 * 7'"))?;
    same("over TCP", answer.trim(), "42")
}

fn ctrl_c_cancels(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let output = vm.attempt(&format!(
        "psql {SHOP} -v VERBOSITY=sqlstate -c '{endless}' & sleep 1; kill -INT $!; wait $!"
    ))?;
    ensure!(output.stderr.contains("57014"), "{output:?}");
    same("afterwards", psql(vm, SHOP, "SELECT 1")?, "1")
}

fn an_unknown_database_is_refused(stage: &Stage) -> Result<()> {
    let output = stage.alpha()?.attempt("psql nowhere -c 'SELECT 1'")?;
    ensure!(output.status != 0 && output.stderr.contains("nowhere"), "{output:?}");
    Ok(())
}
