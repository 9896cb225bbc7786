//! What an operator does, rightly or wrongly.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use vamos_e2e::{ALPHA, SHOP, SMALL, Stage, psql, same, sqlstate};
use vamos_lab::{Guest, HostConfig};

use crate::Case;

pub const CASES: &[Case] = &[
    ("operator::bindings_appear_and_go_while_the_guest_runs", bindings_come_and_go),
    ("operator::a_quota_is_a_full_disk", a_quota_is_a_full_disk),
    ("operator::a_second_front_end_is_refused", a_second_front_end_is_refused),
    ("operator::vamos_toml_s_mistakes_are_all_named", mistakes_are_all_named),
    ("operator::an_unreadable_volume_breaks_its_vm_alone", an_unreadable_volume),
    ("operator::doctor_examines_the_host", doctor_examines_the_host),
];

fn bindings_come_and_go(stage: &Stage) -> Result<()> {
    let (vm, host) = (stage.alpha()?, stage.host()?);
    host.ctl(&["service", "register", "later"])?;
    host.ctl(&["binding", "bind", ALPHA, "later"])?;
    let eventually = |script: &str| {
        vm.run(&format!("for try in $(seq 50); do {script} && exit 0; sleep 0.1; done; exit 1"))
    };
    eventually("psql later -At -c 'SELECT 1'").context("the new binding")?;
    host.ctl(&["binding", "unbind", ALPHA, "later"])?;
    eventually("! psql later -At -c 'SELECT 1'").context("the binding that is gone")?;
    host.ctl(&["service", "remove", "later"])?;
    same("the others", psql(vm, SHOP, "SELECT 1")?, "1")
}

fn a_quota_is_a_full_disk(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(vm, SMALL, "CREATE TABLE ballast (id integer PRIMARY KEY, bytes blob)")?;
    psql(vm, SMALL, "INSERT INTO ballast VALUES (1, randomblob(1000000))")?;
    same("too much", sqlstate(vm, SMALL, "INSERT INTO ballast VALUES (2, randomblob(1500000))")?, "53100")?;
    same("what was there", psql(vm, SMALL, "SELECT id, length(bytes) FROM ballast")?, "1|1000000")?;
    psql(vm, SMALL, "DELETE FROM ballast")?;
    psql(vm, SMALL, "INSERT INTO ballast VALUES (3, randomblob(1000000))")?;
    same("the neighbouring database", psql(vm, SHOP, "SELECT 1")?, "1")
}

fn a_second_front_end_is_refused(stage: &Stage) -> Result<()> {
    let (vm, host) = (stage.alpha()?, stage.host()?);
    let second = host.boot_bare(ALPHA, &Guest::qemu().memory(192));
    ensure!(second.is_err(), "two front-ends drive one device");
    let log = host.log();
    ensure!(log.contains("front-end"), "vamosd says nothing of it:\n{log}");
    same("the first", psql(vm, SHOP, "SELECT 1")?, "1")
}

fn mistakes_are_all_named(stage: &Stage) -> Result<()> {
    let lab = stage.lab()?;
    let directory = lab.run().directory("mistakes")?;
    let path = directory.join("vamos.toml");
    let text = format!(
        "state_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\nstat_dir = \"typo\"\n\
         [[vm]]\nname = \"a\"\ncid = 7\n[[vm]]\nname = \"a\"\ncid = 7\ncolour = \"red\"\n\
         [[binding]]\nvm = \"b\"\nservice = \"c\"\n",
        directory.display()
    );
    fs::write(&path, text)?;
    let mut vamosd = Command::new(&lab.artifacts().vamosd);
    let output = vamosd.arg("--config").arg(&path).output().context("running vamosd")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "vamosd serves with mistakes");
    for word in [
        "stat_dir",
        "colour",
        "vm a is declared twice",
        "cid 7 is declared twice",
        "[[vm]] b",
        "[[service]] c",
    ] {
        ensure!(said.contains(word), "no word of {word}:\n{said}");
    }
    ensure!(!said.contains("panicked") && !directory.join("state").exists(), "it has begun:\n{said}");
    Ok(())
}

fn an_unreadable_volume(stage: &Stage) -> Result<()> {
    let host =
        stage.lab()?.host(&HostConfig::new().vm("well").vm("ill").bind("well", SHOP).bind("ill", SHOP))?;
    let shown = host.ctl_json(&["vm", "show", "ill"])?;
    let database =
        std::path::Path::new(shown["volume"].as_str().context("no volume")?).join(format!("{SHOP}.db"));
    fs::write(&database, "this is no database, and long enough to be looked at as one. ".repeat(100))?;
    let ill = host.boot("ill", &stage.equip(Guest::qemu().memory(256))?)?;
    let refused = ill.attempt(&format!("psql {SHOP} -c 'SELECT count(*) FROM sqlite_master'"))?;
    ensure!(
        refused.status != 0 && refused.stderr.contains("ERROR") || refused.stderr.contains("FATAL"),
        "{refused:?}"
    );
    drop(ill);
    let well = host.boot("well", &stage.equip(Guest::qemu().memory(256))?)?;
    same("the other VM", psql(&well, SHOP, "SELECT 1")?, "1")?;
    ensure!(!host.log().contains("panicked"), "{}", host.log());
    let content = fs::read(&database)?;
    ensure!(content.starts_with(b"this is no database"), "the file was changed");
    host.end()
}

fn doctor_examines_the_host(stage: &Stage) -> Result<()> {
    let host = stage.host()?;
    let checks = host.ctl_json(&["doctor"])?;
    let names: Vec<&str> = checks
        .as_array()
        .or_else(|| checks["checks"].as_array())
        .context("no checks")?
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    ensure!(names.len() >= 5, "doctor checks {names:?} only");
    Ok(())
}
