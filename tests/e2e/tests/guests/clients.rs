//! Clients other than psql: a Rust application with tokio-postgres, pgbench with many connections, and the
//! agent's own command line.

use anyhow::{Context, Result, ensure};
use vamos_e2e::{ALPHA, SHOP, Stage, psql, same};

use crate::Case;

pub const CASES: &[Case] = &[
    ("client::values_survive_the_binary_protocol", |stage| client(stage, "values")),
    ("client::prepared_statements_know_their_types", |stage| client(stage, "prepared")),
    ("client::pipelined_queries_answer_in_order", |stage| client(stage, "pipelined")),
    ("client::portals_fetch_in_portions", |stage| client(stage, "portals")),
    ("client::transactions_are_isolated", |stage| client(stage, "transactions")),
    ("client::errors_are_the_same_in_both_protocols", |stage| client(stage, "errors")),
    ("client::a_statement_is_cancelled", |stage| client(stage, "cancel")),
    ("client::copy_streams_rows", |stage| client(stage, "copy")),
    ("client::concurrent_clients_share_transitions", concurrent_clients_share_transitions),
    ("client::the_agent_s_command_line_answers", the_agents_command_line_answers),
];

/// Connections at once.
const CLIENTS: u64 = 64;

/// Statements of each.
const STATEMENTS: u64 = 50;

/// Most transitions a statement may cost when 64 clients are busy at once in an emulated guest. Alone, a
/// statement costs two.
const SHARED_TRANSITIONS_MAX: f64 = 0.5;

fn client(stage: &Stage, case: &str) -> Result<()> {
    stage.alpha()?.run(&format!("guest-client {SHOP} {case}")).map(|_| ())
}

fn concurrent_clients_share_transitions(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(vm, SHOP, "CREATE TABLE point (id integer PRIMARY KEY, name text)")?;
    psql(
        vm,
        SHOP,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         INSERT INTO point SELECT i, 'name ' || i FROM n",
    )?;
    vm.run(
        "printf '%s\\n' '\\set id random(1, 1000)' 'SELECT name FROM point WHERE id = :id;' >/tmp/point.sql",
    )?;
    let host = stage.host()?;
    let before = host.transitions(ALPHA)?;
    let said = vm.run(&format!(
        "pgbench --no-vacuum --protocol prepared --client {CLIENTS} --transactions {STATEMENTS} \
         --file /tmp/point.sql {SHOP} 2>&1"
    ))?;
    let transitions = host.transitions(ALPHA)?.since(before);
    let statements = CLIENTS * STATEMENTS;
    ensure!(said.contains(&format!("{statements}/{statements}")), "pgbench says:\n{said}");
    let each = transitions as f64 / statements as f64;
    println!("{transitions} transitions for {statements} statements of {CLIENTS} clients: {each:.3} each");
    ensure!(each <= SHARED_TRANSITIONS_MAX, "{each} transitions a statement");
    Ok(())
}

fn the_agents_command_line_answers(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    let answer = vm.run(&format!("vamos-agent sql {SHOP} 'SELECT 40 + 2 AS answer'"))?;
    ensure!(answer.contains("answer") && answer.contains("42"), "{answer}");
    let failed = vm.attempt(&format!("vamos-agent sql {SHOP} 'SELECT * FROM nowhere'"))?;
    ensure!(failed.status != 0 && failed.stderr.contains("nowhere"), "{failed:?}");
    let shell = vm.run(&format!("printf 'SELECT 1 AS a;\\nSELECT 2 AS b;\\n' | vamos-agent shell {SHOP}"))?;
    let numbers: Vec<&str> = shell.lines().map(str::trim).filter(|line| ["1", "2"].contains(line)).collect();
    same("the shell's answers", numbers.join(" "), "1 2")?;
    let bindings = vm.run("vamos-agent bindings")?;
    bindings.lines().find(|line| line.starts_with(SHOP)).context(bindings.clone()).map(|_| ())
}
