//! Guest and volume are saved as a pair, go on, and are brought back as they were.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vamos_e2e::{SHOP, Stage, psql, same};
use vamos_lab::{Disk, Guest, HostConfig};

use crate::Case;

pub const CASES: &[Case] = &[("snapshot::a_guest_and_its_volume_come_back_as_they_were", comes_back)];

const VM: &str = "keeper";

/// One psql that is connected all the time: a row, and another one when it is told to go on.
const CLIENT: &str = "(echo 'INSERT INTO kept VALUES (2);'; touch /run/inserted
      while [ ! -e /run/go ]; do sleep 0.1; done; echo 'INSERT INTO kept VALUES (3);') |
    psql -v ON_ERROR_STOP=1 -v VERBOSITY=verbose shop >/run/said 2>&1; echo \"ended $?\" >>/run/said";

const ENDED: &str =
    "touch /run/go; for try in $(seq 300); do grep -q ^ended /run/said && break; sleep 0.1; done
    cat /run/said";

fn comes_back(stage: &Stage) -> Result<()> {
    let host = stage.lab()?.host(&HostConfig::new().disk(Disk::Reflink).vm(VM).bind(VM, SHOP))?;
    let guest = Guest::qemu();
    let mut vm = host.boot(VM, &guest)?;
    psql(&vm, SHOP, "CREATE TABLE kept (id integer PRIMARY KEY)")?;
    psql(&vm, SHOP, "INSERT INTO kept VALUES (1)")?;
    let client = vm.start(CLIENT, Duration::from_secs(120))?;
    vm.run("for try in $(seq 300); do [ -e /run/inserted ] && break; sleep 0.1; done; sleep 0.5")?;
    let state = stage.lab()?.run().path().join("guest.state");
    let file = state.display().to_string();
    let monitor = vm.monitor().display().to_string();
    host.ctl(&["vm", "snapshot", VM, "one", "--qmp", &monitor, "--vm-state", &file])?;

    // Elsewhere the databases are copied, as in the tests of `platform/cell`.
    ensure!(host.log().contains("snapshot of shared blocks"), "no blocks are shared:\n{}", host.log());

    // The guest goes on, its client too.
    let said = vm.run(ENDED)?;
    ensure!(said.contains("ended 0"), "the snapshot was noticed: {said}");
    client.wait()?.success()?;
    psql(&vm, SHOP, "INSERT INTO kept VALUES (4)")?;
    same("rows", psql(&vm, SHOP, "SELECT group_concat(id) FROM kept")?, "1,2,3,4")?;
    let shown = host.ctl_json(&["vm", "snapshots", VM])?;
    same("snapshots", shown[0]["name"].as_str().unwrap_or_default(), "one")?;

    // And comes back.
    host.migrate_by(VM, &mut vm, &guest, &host, |way| {
        let old = i32::try_from(way.processes.0).ok().and_then(Pid::from_raw);
        old.map_or(Ok(()), |old| kill_process(old, Signal::KILL))?;
        let monitor = way.target_monitor().display().to_string();
        host.ctl(&["vm", "restore", VM, "one", "--qmp", &monitor, "--vm-state", &file]).map(drop)
    })?;
    // The client of before is told, once, that its session is not one of this VM any more.
    let said = vm.run(ENDED)?;
    ensure!(
        said.contains("which is fenced off") && !said.contains("ended 0"),
        "a session of before goes on: {said}"
    );
    same("rows", psql(&vm, SHOP, "SELECT group_concat(id) FROM kept")?, "1,2")?;
    psql(&vm, SHOP, "INSERT INTO kept VALUES (5)")?;
    same("rows", psql(&vm, SHOP, "SELECT count(*) FROM kept")?, "3")?;

    // Another VM of it.
    host.ctl(&["vm", "clone", VM, "twin", "--snapshot", "one"])?;
    let twin = host.boot("twin", &guest)?;
    same("rows of the clone", psql(&twin, SHOP, "SELECT group_concat(id) FROM kept")?, "1,2")?;
    ensure!(!host.log().contains("panicked"), "{}", host.log());
    drop((vm, twin));
    host.end()
}
