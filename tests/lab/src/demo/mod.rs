//! `cargo demo`: the platform's main job on real input. An unmodified psql in a VM loads the machine's
//! Debian package catalogue through the PostgreSQL front door and asks questions of it; the host
//! computes the same answers from its own copy. An unmodified nginx and a small application in the VM are published by
//! the host's edge. A second VM proves that it sees nothing of the first.

mod catalogue;
mod isolation;
mod native;
mod questions;
mod site;
mod workload;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::figures::{Figure, Figures};
use crate::limits::COPY_ROWS_MAX;
use crate::setup::{Needs, prepare};
use crate::{Guest, Host, HostConfig, Lab, Vm};
use catalogue::Catalogue;
use native::Native;
use questions::QUESTIONS;
use workload::Workload;

const SCHEMA: &str = include_str!("schema.sql");
const INDEXES: &str = include_str!("indexes.sql");

/// The VM that has the data, and its neighbour.
const OWNER: &str = "web-1";
const NEIGHBOUR: &str = "web-2";

/// The service both are bound to, and one that only the owner is.
const CATALOG: &str = "catalog";
const LEDGER: &str = "ledger";

/// What can be asked of the demo.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Write the figures there.
    pub json: Option<PathBuf>,
    /// Take only that many packages of the catalogue.
    pub packages: Option<usize>,
}

/// Runs the demo.
///
/// # Errors
/// When anything fails, an answer differs, or isolation does not hold.
pub fn run(options: &Options) -> Result<()> {
    prepare(Needs::Demo)?;
    let lab = Lab::open()?;
    let probe = lab.artifacts().guest("guest-probe");

    let start = Instant::now();
    let say = |what: &str| println!("[{:5.1} s] {what}", start.elapsed().as_secs_f64());
    let mut catalogue = Catalogue::of_this_machine()?;
    if let Some(packages) = options.packages {
        catalogue.truncate(packages);
    }
    let packages = catalogue.table("package")?.rows.len();
    say(&format!("apt knows {packages} packages: {} rows in four tables", catalogue.rows()));
    let workload = Workload::write(&catalogue, &lab.run().directory("data")?)?;

    let host = lab.host(&host_config())?;
    say("vamosd is up");
    let owner = host.boot(
        OWNER,
        &workload.carry(Guest::qemu().memory(1024).with_debian()).file("/usr/bin/guest-probe", &probe),
    )?;
    let neighbour = host.boot(NEIGHBOUR, &Guest::qemu().memory(256).file("/usr/bin/guest-probe", &probe))?;
    say(&format!(
        "{OWNER} and {NEIGHBOUR} have booted (in {:.1} s and {:.1} s), their agents' doors are open",
        owner.boot_time().as_secs_f64(),
        neighbour.boot_time().as_secs_f64()
    ));

    let mut figures = Figures::default();
    load(&host, &owner, &workload, &mut figures, &say)?;

    say("the host loads and indexes its own copy");
    let native = Native::load(&catalogue)?;
    let mut identical = ask(&owner, &workload, &native, &say)?;
    identical &= look_up(&host, &owner, &workload, &native, &mut figures, &say)?;
    say(&format!("{OWNER} publishes a site: nginx, and an application that reads the catalogue"));
    let visited = site::visit(&host, &owner, &native, &mut figures, &say)?;
    figures.add("site_right", Figure::one(truth(visited), "1"));
    figures.add("answers_identical", Figure::one(truth(identical), "1"));

    say(&format!("{NEIGHBOUR} tries to see what is {OWNER}'s"));
    let held = isolation::check(&host, &owner, &neighbour, packages)?;
    figures.add("isolation_held", Figure::one(truth(held), "1"));

    if let Some(path) = &options.json {
        figures.write(path)?;
    }
    ensure!(identical, "an answer of the guest is not the host's");
    ensure!(visited, "a page of the site is not what it should be");
    ensure!(held, "isolation does not hold");
    drop((owner, neighbour));
    host.end()?;
    println!("demo: ok {} in {:.0} s", figures.line(), start.elapsed().as_secs_f64());
    Ok(())
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn host_config() -> HostConfig {
    // Indexes of several 100,000 rows take longer than a statement of a web page may.
    let patient = "policy = { statement_timeout_ms = 60000 }";
    let config = HostConfig::new()
        .vm(OWNER)
        .vm(NEIGHBOUR)
        .bind_with(OWNER, CATALOG, patient)
        .bind_with(NEIGHBOUR, CATALOG, patient)
        .bind(OWNER, LEDGER);
    site::published(config)
}

/// Loads the catalogue, a `\copy` a batch.
fn load(host: &Host, vm: &Vm, workload: &Workload, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<()> {
    vm.run(&workload.create())?;
    let before = host.transitions(OWNER)?;
    let (mut rows, mut seconds, mut speeds) = (0, 0.0, Vec::new());
    for batch in workload.batches() {
        let took = workload.copy(vm, batch)?;
        rows += batch.rows;
        seconds += took;
        let speed = batch.rows as f64 / took;
        // A handful of rows measures the start of the statement.
        if batch.rows >= COPY_ROWS_MAX / 2 {
            speeds.push(speed);
        }
        say(&format!("COPY {:<10} {:>6} rows in {took:5.2} s, {speed:>6.0} rows/s", batch.table, batch.rows));
    }
    let transitions = host.transitions(OWNER)?.since(before);
    let speed = rows as f64 / seconds;
    let per_row = transitions as f64 / rows as f64;
    say(&format!(
        "{rows} rows in {seconds:.1} s: {speed:.0} rows/s; {transitions} transitions, {per_row:.4} a row"
    ));
    let range = Figure::of(&speeds, "rows/s").unwrap_or_else(|| Figure::one(speed, "rows/s"));
    figures.add("rows_per_second", Figure { median: speed, ..range });
    figures.add("transitions_per_row", Figure::one(per_row, "1/row"));
    vm.run(&workload.index())?;
    say("indexes created");
    Ok(())
}

/// Asks the questions in the guest and on the host and prints the answers.
fn ask(vm: &Vm, workload: &Workload, native: &Native, say: &dyn Fn(&str)) -> Result<bool> {
    let answers = workload.ask(vm)?;
    let mut identical = answers.len() == QUESTIONS.len();
    for (question, answer) in QUESTIONS.iter().zip(&answers) {
        let expected = native.answer(question.sql)?;
        let same = *answer == expected && !answer.is_empty();
        identical &= same;
        println!("\n{}  [{}]", question.title, if same { "the host says the same" } else { "DIFFERS" });
        print_rows(answer);
        if !same {
            println!("  the host says:");
            print_rows(&expected);
        }
    }
    println!();
    say(&format!("{} questions answered, identical on the host: {identical}", answers.len()));
    Ok(identical)
}

fn print_rows(answer: &str) {
    for row in answer.lines() {
        println!("    {}", row.replace('\t', "  ·  "));
    }
}

/// Looks packages up one by one, as an application does.
fn look_up(
    host: &Host,
    vm: &Vm,
    workload: &Workload,
    native: &Native,
    figures: &mut Figures,
    say: &dyn Fn(&str),
) -> Result<bool> {
    let before = host.transitions(OWNER)?;
    let answer = workload.look_up(vm)?;
    let transitions = host.transitions(OWNER)?.since(before);
    let mut expected = String::new();
    for statement in &workload.lookups {
        expected += &native.answer(statement)?;
    }
    let identical = answer == expected;
    let statements = workload.lookups.len();
    let per_statement = transitions as f64 / statements as f64;
    figures.add("transitions_per_statement", Figure::one(per_statement, "1/statement"));
    say(&format!(
        "{statements} packages looked up one by one, identical on the host: {identical}; \
         {per_statement:.2} transitions a statement"
    ));
    Ok(identical)
}
