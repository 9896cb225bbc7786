//! Two tenants on one host.

use anyhow::{Context, Result, ensure};
use vamos_e2e::{ALPHA, BETA, GAMMA, PRIVATE, SHOP, Stage, psql, same, sqlstate};

use crate::Case;

pub const CASES: &[Case] = &[
    ("isolation::one_service_is_two_databases", one_service_is_two_databases),
    ("isolation::a_binding_of_another_vm_does_not_exist", a_binding_of_another_vm_does_not_exist),
    ("isolation::no_file_of_the_host_can_be_named", no_file_of_the_host_can_be_named),
    ("isolation::no_sibling_can_be_reached_or_impersonated", no_sibling_can_be_reached_or_impersonated),
    ("isolation::cells_are_confined", cells_are_confined),
];

fn one_service_is_two_databases(stage: &Stage) -> Result<()> {
    let (alpha, beta) = (stage.alpha()?, stage.beta()?);
    psql(alpha, SHOP, "CREATE TABLE secret (word text)")?;
    psql(alpha, SHOP, "INSERT INTO secret VALUES ('alpha s')")?;
    same("beta's view", sqlstate(beta, SHOP, "SELECT * FROM secret")?, "42P01")?;
    psql(beta, SHOP, "CREATE TABLE secret (word text)")?;
    psql(beta, SHOP, "INSERT INTO secret VALUES ('beta s')")?;
    same("alpha's rows", psql(alpha, SHOP, "SELECT * FROM secret")?, "alpha s")?;
    same("beta's rows", psql(beta, SHOP, "SELECT * FROM secret")?, "beta s")
}

fn a_binding_of_another_vm_does_not_exist(stage: &Stage) -> Result<()> {
    let (alpha, beta) = (stage.alpha()?, stage.beta()?);
    same("alpha's own", psql(alpha, PRIVATE, "SELECT 1")?, "1")?;
    let refused = beta.attempt(&format!("psql {PRIVATE} -c 'SELECT 1'"))?;
    ensure!(refused.status != 0, "beta has opened {PRIVATE}");
    // Below the agent, where a guest does as it likes: only hello and its own binding answer.
    let answered = beta.run("guest-probe ports 0 2100")?;
    let bound = stage.host()?.ctl_json(&["binding", "list", BETA])?;
    let port = bound[0]["port"].as_u64().context("no port")?;
    same("open ports", answered.split_whitespace().collect::<Vec<_>>().join(" "), format!("1 {port}"))
}

fn no_file_of_the_host_can_be_named(stage: &Stage) -> Result<()> {
    let beta = stage.beta()?;
    let other = stage.host()?.ctl_json(&["vm", "show", ALPHA])?;
    let volume = other["volume"].as_str().context("no volume")?;
    for sql in [
        format!("ATTACH '{volume}/{SHOP}.db' AS stolen"),
        "ATTACH '/etc/passwd' AS stolen".to_owned(),
        "VACUUM INTO '/tmp/copy.db'".to_owned(),
        "SELECT load_extension('/lib/x86_64-linux-gnu/libc.so.6')".to_owned(),
        "SELECT readfile('/etc/passwd')".to_owned(),
    ] {
        let state = sqlstate(beta, SHOP, &sql)?;
        ensure!(["42501", "42883", "0A000"].contains(&state.as_str()), "{sql}: {state}");
    }
    let path = beta.attempt(&format!("psql 'dbname=../{ALPHA}/{SHOP}' -c 'SELECT 1'"))?;
    ensure!(path.status != 0, "a database named as a path was opened");
    Ok(())
}

fn no_sibling_can_be_reached_or_impersonated(stage: &Stage) -> Result<()> {
    stage.alpha()?;
    let beta = stage.beta()?;
    let other = stage.host()?.ctl_json(&["vm", "show", ALPHA])?;
    let cid = other["cid"].as_u64().context("no cid")?;
    for (cid, port) in [(cid, 1), (cid, 5432), (1, 1)] {
        let answer = beta.run(&format!("guest-probe connect {cid} {port}"))?;
        ensure!(answer.trim() != "connected", "context id {cid}, port {port} answers");
    }
    let answer = beta.run(&format!("guest-probe bind {cid}"))?;
    ensure!(answer.trim() != "bound", "beta calls itself {cid}");
    same("beta afterwards", psql(beta, SHOP, "SELECT 1")?, "1")
}

fn cells_are_confined(stage: &Stage) -> Result<()> {
    stage.alpha()?;
    stage.gamma()?;
    let host = stage.host()?;
    let mut uids = Vec::new();
    for vm in [ALPHA, GAMMA] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.cell_process(vm)?))?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
                .unwrap_or_default()
                .to_owned()
        };
        same("CapEff", field("CapEff:"), "0000000000000000")?;
        same("NoNewPrivs", field("NoNewPrivs:"), "1")?;
        same("Seccomp", field("Seccomp:"), "2")?;
        uids.push(field("Uid:"));
    }
    // Without root they share the operator's.
    if rustix::process::geteuid().is_root() {
        ensure!(uids[0] != uids[1] && !uids.iter().any(|uid| uid.starts_with("0\t")), "uids {uids:?}");
    }
    Ok(())
}
