//! A User-mode Linux guest: another VMM, another kernel, the same device.

use anyhow::{Result, ensure};
use vamos_e2e::{GAMMA, SHOP, Stage, psql, same};

use crate::Case;

pub const CASES: &[Case] = &[
    ("uml::psql_answers", psql_answers),
    ("uml::the_agent_s_command_line_answers", the_agents_command_line_answers),
    ("uml::a_rust_client_answers", a_rust_client_answers),
    ("uml::rows_go_in_and_come_back", rows_go_in_and_come_back),
    ("uml::counters_move", counters_move),
];

fn psql_answers(stage: &Stage) -> Result<()> {
    let vm = stage.gamma()?;
    psql(vm, SHOP, "CREATE TABLE item (id integer PRIMARY KEY, name text)")?;
    psql(vm, SHOP, "INSERT INTO item VALUES (1, 'tea')")?;
    same("a row", psql(vm, SHOP, "SELECT * FROM item")?, "1|tea")
}

fn the_agents_command_line_answers(stage: &Stage) -> Result<()> {
    let vm = stage.gamma()?;
    let bindings = vm.run("vamos-agent bindings")?;
    ensure!(bindings.contains(GAMMA) && bindings.contains(SHOP), "{bindings}");
    let answer = vm.run(&format!("vamos-agent sql {SHOP} 'SELECT 40 + 2'"))?;
    ensure!(answer.contains("42"), "{answer}");
    Ok(())
}

fn a_rust_client_answers(stage: &Stage) -> Result<()> {
    for case in ["values", "prepared", "transactions"] {
        stage.gamma()?.run(&format!("guest-client {SHOP} {case}"))?;
    }
    Ok(())
}

fn rows_go_in_and_come_back(stage: &Stage) -> Result<()> {
    let vm = stage.gamma()?;
    psql(vm, SHOP, "CREATE TABLE noise (id integer PRIMARY KEY, words text)")?;
    vm.run("head -c 6291456 /dev/urandom | base64 -w 65536 >/tmp/noise")?;
    vm.run(&format!("psql {SHOP} -q -v ON_ERROR_STOP=1 -c \"\\copy noise (words) from '/tmp/noise'\""))?;
    vm.run(&format!("psql {SHOP} -At -c 'SELECT words FROM noise ORDER BY id' | cmp - /tmp/noise"))?;
    psql(vm, SHOP, "DROP TABLE noise")?;
    vm.run("rm /tmp/noise").map(|_| ())
}

fn counters_move(stage: &Stage) -> Result<()> {
    let (vm, host) = (stage.gamma()?, stage.host()?);
    let names =
        ["kicks_received", "calls_sent", "packets_received", "packets_sent", "bytes_received", "bytes_sent"];
    let read = || names.iter().map(|name| host.counter(GAMMA, name)).collect::<Result<Vec<u64>>>();
    let before = read()?;
    psql(vm, SHOP, "SELECT 1")?;
    for ((name, before), after) in names.iter().zip(before).zip(read()?) {
        ensure!(after > before, "{name} is still {after}");
    }
    same("protocol errors", host.counter(GAMMA, "protocol_errors")?, 0)
}
