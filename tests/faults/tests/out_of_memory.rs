//! THREATS 71: every allocation of SQLite's fails, one after the other. The allocator is the process's, so
//! this is one test in a process of its own.

use std::time::Instant;

use vamos_faults::memory;
use vamos_faults::script::{SCRIPTS, prepare};

#[test]
fn k71_every_allocation_fails_and_nothing_is_lost() {
    memory::install();
    every_allocation(false);
    every_allocation(true);
}

/// For n from 1 on: the n-th allocation fails, or all from it on, until a script runs through without.
fn every_allocation(persistent: bool) {
    let started = Instant::now();
    let (mut runs, mut failed, mut gave_up) = (0, 0, 0);
    for script in SCRIPTS {
        let prepared = prepare(script);
        for nth in 1.. {
            let mut fired = 0;
            let run = prepared.run(
                |_| memory::arm(nth, persistent),
                |_| fired = memory::disarm(),
                |error| ["53200", "25P02"].contains(&&*error.sqlstate),
            );
            let run = run.unwrap_or_else(|what| {
                panic!("{}, allocation {nth}, persistent: {persistent}: {what}", script.name)
            });
            if fired == 0 {
                assert!(run.failed.is_empty() && !run.gave_up, "{}: nothing failed", script.name);
                break;
            }
            runs += 1;
            failed += run.failed.len();
            gave_up += usize::from(run.gave_up);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "persistent: {persistent}: {runs} runs, {failed} failed steps, {gave_up} given up, {seconds:.1} s"
    );
    assert!(runs > 1_000 && failed > 500);
}
