//! THREATS 66 and 67: every call to the disk fails, one after the other, once and for good.

use std::time::Instant;

use vamos_faults::fault::{Fault, Plan};
use vamos_faults::script::{Run, SCRIPTS, prepare};

/// For n from 1 on: the n-th call that can fail so does, until a script runs through without.
fn every_call(fault: Fault, persistent: bool, clear: &[&str]) -> (u64, Run) {
    let started = Instant::now();
    let mut total = (0, Run::default());
    for script in SCRIPTS {
        let prepared = prepare(script);
        for nth in 1.. {
            let mut fired = 0;
            let run = prepared.run(
                |disk| disk.arm(Plan { fault, nth, persistent }),
                |disk| fired = disk.disarm(),
                |error| clear.contains(&error.sqlstate),
            );
            let run = run.unwrap_or_else(|what| {
                panic!("{}, {fault:?} at call {nth}, persistent: {persistent}: {what}", script.name)
            });
            if fired == 0 {
                assert_eq!((run.failed, run.gave_up), (0, false), "{}: nothing failed", script.name);
                break;
            }
            total.0 += 1;
            total.1.failed += run.failed;
            total.1.gave_up |= run.gave_up;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{fault:?}, persistent: {persistent}: {} runs, {} failed steps, {seconds:.1} s",
        total.0, total.1.failed
    );
    total
}

#[test]
fn k66_a_disk_that_is_full_for_a_moment() {
    let (runs, total) = every_call(Fault::Full, false, &["53100", "58030", "25P02"]);
    assert!(runs > 100 && total.failed > 100, "{total:?}");
}

#[test]
fn k66_a_disk_that_stays_full_until_space_returns() {
    let (runs, total) = every_call(Fault::Full, true, &["53100", "58030", "25P02"]);
    assert!(runs > 100 && total.failed > 100, "{total:?}");
}

#[test]
fn k67_a_call_that_fails_once() {
    let (runs, total) = every_call(Fault::Io, false, &["58030", "25P02"]);
    assert!(runs > 1_000 && total.failed > 500 && total.gave_up, "{total:?}");
}

#[test]
fn k67_calls_that_fail_from_then_on() {
    let (runs, total) = every_call(Fault::Io, true, &["58030", "25P02"]);
    assert!(runs > 1_000 && total.failed > 500 && total.gave_up, "{total:?}");
}

#[test]
fn k67_reads_that_end_early() {
    let (runs, total) = every_call(Fault::ShortRead, false, &["58030", "25P02"]);
    assert!(runs > 300 && total.failed > 100, "{total:?}");
}
