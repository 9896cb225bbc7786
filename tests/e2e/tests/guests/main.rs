//! End-to-end tests in real guests. `cargo test -p vamos-e2e NAME` runs those whose names hold NAME.
//!
//! Cases run one after the other: they share two cores with emulated guests, and some count transitions.

mod clients;
mod demo;
mod failures;
mod isolation;
mod keeper;
mod lab;
mod migration;
mod operators;
mod psql;
mod snapshot;
mod transfer;
mod uml;
mod web;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use vamos_e2e::Stage;

/// A case: what it is called, and what it does on the stage.
type Case = (&'static str, fn(&Stage) -> Result<()>);

fn main() -> Result<ExitCode> {
    vamos_lab::enter()?;
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let stage = Arc::new(Stage::default());
    let groups = [
        lab::CASES,
        psql::CASES,
        clients::CASES,
        transfer::CASES,
        uml::CASES,
        isolation::CASES,
        operators::CASES,
        failures::CASES,
        keeper::CASES,
        migration::CASES,
        snapshot::CASES,
        web::CASES,
        demo::CASES,
    ];
    let trials = groups.into_iter().flatten().map(|(name, case)| {
        let stage = Arc::clone(&stage);
        Trial::test(*name, move || case(&stage).map_err(|error| Failed::from(format!("{error:#}"))))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // The guests end here, not at the exit.
    drop(stage);
    Ok(conclusion.exit_code())
}
