//! What the neighbour tries, and what must come of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{CATALOG, LEDGER, NEIGHBOUR, OWNER};
use crate::{Host, Vm};

/// Ports that the neighbour knocks at: far more than a host gives out.
const LAST_PORT: u32 = 3000;

/// Tries everything and prints each outcome. Whether all of it failed as it must.
pub fn check(host: &Host, owner: &Vm, neighbour: &Vm, packages: usize) -> Result<bool> {
    let other = host.ctl_json(&["vm", "show", OWNER])?;
    let volume = other["volume"].as_str().context("no volume in vamosctl vm show")?;
    let cid = other["cid"].as_u64().context("no cid in vamosctl vm show")?;
    let port = ports(host, OWNER)?.last().copied().unwrap_or_default();
    let refused = |sql: &str| -> Result<bool> {
        Ok(neighbour.attempt(&format!("psql {CATALOG} -v ON_ERROR_STOP=1 -Atc \"{sql}\""))?.status != 0)
    };
    let probe = |what: String| -> Result<String> {
        Ok(neighbour.run(&format!("guest-probe {what}"))?.trim().to_owned())
    };

    let mut held = true;
    let mut tried = |what: &str, outcome: bool| {
        println!("    {} {what}", if outcome { "held:  " } else { "BROKEN:" });
        held &= outcome;
    };

    tried("the same service shows the neighbour none of the owner's tables", {
        refused("SELECT count(*) FROM package")?
            && neighbour.run(&format!("psql {CATALOG} -Atc '\\dt'"))?.trim().is_empty()
    });
    tried("a table of the same name is another table, on both sides", {
        neighbour.run(&format!(
            "psql {CATALOG} -q -c 'CREATE TABLE package (id integer, name text)' \
             -c \"INSERT INTO package VALUES (1, 'mine')\""
        ))?;
        let mine =
            neighbour.run(&format!("psql {CATALOG} -Atc 'SELECT count(*), min(name) FROM package'"))?;
        let theirs = owner
            .run(&format!("psql {CATALOG} -Atc \"SELECT count(*), sum(name = 'mine') FROM package\""))?;
        mine.trim() == "1|mine" && theirs.trim() == format!("{packages}|0")
    });
    tried("a service that only the owner is bound to does not exist for the neighbour", {
        owner.run(&format!("psql {LEDGER} -Atc 'SELECT 1'"))?;
        let listed = neighbour.run(&format!("psql {CATALOG} -Atc '\\l'"))?;
        neighbour.attempt(&format!("psql {LEDGER} -Atc 'SELECT 1'"))?.status != 0 && !listed.contains(LEDGER)
    });
    tried("a database named as a path is no path", {
        let path = format!("../{OWNER}/{CATALOG}");
        neighbour.attempt(&format!("psql 'dbname={path}' -Atc 'SELECT 1'"))?.status != 0
    });
    tried("ATTACH of the owner's file is refused", {
        refused(&format!("ATTACH '{volume}/{CATALOG}.db' AS stolen"))?
            && refused("ATTACH ':memory:' AS other")?
    });
    tried("of the host's ports only the neighbour's own answer", {
        let expected: BTreeSet<u32> = ports(host, NEIGHBOUR)?.into_iter().chain([1]).collect();
        let answered = probe(format!("ports 0 {LAST_PORT}"))?;
        answered.lines().filter_map(|port| port.parse().ok()).collect::<BTreeSet<u32>>() == expected
    });
    tried("the owner cannot be reached by its context id, nor impersonated", {
        probe(format!("connect {cid} {port}"))? != "connected" && probe(format!("bind {cid}"))? != "bound"
    });
    Ok(held)
}

/// The vsock ports of a VM's bindings.
fn ports(host: &Host, vm: &str) -> Result<Vec<u32>> {
    let bindings = host.ctl_json(&["binding", "list", vm])?;
    let port = |binding: &Value| binding["port"].as_u64().and_then(|port| u32::try_from(port).ok());
    bindings
        .as_array()
        .and_then(|bindings| bindings.iter().map(port).collect())
        .with_context(|| format!("no ports in {bindings}"))
}
