//! THREATS 66 and 67: every call to the disk fails, one after the other, once and for good.

use std::time::Instant;

use vamos_faults::disk::FileKind;
use vamos_faults::fault::{Call, Fault, Plan, Point};
use vamos_faults::script::{Before, SCRIPTS, Script, prepare};
use vamos_faults::workload::Step;

/// What all runs came to.
#[derive(Debug, Default)]
struct Total {
    runs: usize,
    failed: usize,
    gave_up: bool,
}

/// For n from 1 on: the n-th call that can fail so does, until a script runs through without.
fn every_call(fault: Fault, persistent: bool, clear: &[&str]) -> Total {
    let started = Instant::now();
    let mut total = Total::default();
    for script in SCRIPTS {
        let prepared = prepare(script);
        for nth in 1.. {
            let mut fired = 0;
            let run = prepared.run(
                |disk| disk.arm(Plan { fault, point: None, nth, persistent }),
                |disk| fired = disk.disarm(),
                |error| clear.contains(&&*error.sqlstate),
            );
            let run = run.unwrap_or_else(|what| {
                panic!("{}, {fault:?} at call {nth}, persistent: {persistent}: {what}", script.name)
            });
            if fired == 0 {
                assert!(run.failed.is_empty() && !run.gave_up, "{}: nothing failed", script.name);
                break;
            }
            total.runs += 1;
            total.failed += run.failed.len();
            total.gave_up |= run.gave_up;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{fault:?}, persistent: {persistent}: {total:?}, {seconds:.1} s");
    total
}

#[test]
fn k66_a_disk_that_is_full_for_a_moment() {
    let total = every_call(Fault::Full, false, &["53100", "58030", "25P02"]);
    assert!(total.runs > 100 && total.failed > 100, "{total:?}");
}

#[test]
fn k66_a_disk_that_stays_full_until_space_returns() {
    let total = every_call(Fault::Full, true, &["53100", "58030", "25P02"]);
    assert!(total.runs > 100 && total.failed > 100, "{total:?}");
}

#[test]
fn k67_a_call_that_fails_once() {
    let total = every_call(Fault::Io, false, &["58030", "25P02"]);
    assert!(total.runs > 1_000 && total.failed > 500 && total.gave_up, "{total:?}");
}

#[test]
fn k67_calls_that_fail_from_then_on() {
    let total = every_call(Fault::Io, true, &["58030", "25P02"]);
    assert!(total.runs > 1_000 && total.failed > 500 && total.gave_up, "{total:?}");
}

#[test]
fn k67_reads_that_end_early() {
    let total = every_call(Fault::ShortRead, false, &["58030", "25P02"]);
    assert!(total.runs > 300 && total.failed > 100, "{total:?}");
}

/// Long enough that the engine checkpoints after its first write.
const CHECKPOINTS: Script = Script {
    name: "large write",
    before: Before::Killed,
    steps: &[Step::Insert(4_300_000), Step::Count, Step::Transaction(1, 100)],
};

/// The same without a log in the beginning.
const FIRST_LOG: Script = Script { before: Before::Closed, ..CHECKPOINTS };

/// Fails the n-th call at a point, and gives the SQLSTATEs of the failed steps; "up" if the engine gave up.
fn at_point(script: Script, file: FileKind, call: Call, fault: Fault, nth: u64) -> Vec<String> {
    let plan = Plan { fault, point: Some(Point { file, call }), nth, persistent: false };
    let mut fired = 0;
    let clear = ["53100", "58030"];
    let run = prepare(script).run(
        |disk| disk.arm(plan),
        |disk| fired = disk.disarm(),
        |error| clear.contains(&&*error.sqlstate),
    );
    let mut run = run.unwrap_or_else(|what| panic!("{}, {plan:?}: {what}", script.name));
    assert_eq!(fired, 1, "{}, {plan:?}: not reached", script.name);
    if run.gave_up {
        run.failed.push("up".to_owned());
    }
    run.failed
}

/// The crash points of a commit and of a checkpoint, by name: which file, which call.
#[test]
fn k67_points_by_name() {
    use FileKind::{Database, Log};
    let insert = SCRIPTS[0];
    for (script, file, call, fault, nth, told) in [
        // The log as the process before left it cannot be synced: the database is not opened.
        (insert, Log, Call::Sync, Fault::Io, 1, &[""][..]),
        (insert, Database, Call::Sync, Fault::Io, 1, &[""]),
        (insert, Database, Call::Write, Fault::Io, 1, &[""]),
        // A full disk can be read, and written as far as the log goes.
        (insert, Database, Call::Write, Fault::Full, 1, &[]),
        // A commit: no acknowledgement, and no other after it.
        (insert, Log, Call::Sync, Fault::Io, 2, &["58030", "57P01", "57P01", "up"]),
        (insert, Log, Call::Sync, Fault::Io, 3, &["58030", "57P01", "up"]),
        (insert, Log, Call::Sync, Fault::Io, 4, &["58030", "up"]),
        (insert, Log, Call::Write, Fault::Full, 2, &["53100"]),
        // A new log: it cannot be made; its header is synced before anything else is.
        (FIRST_LOG, Log, Call::Create, Fault::Io, 1, &[""]),
        (FIRST_LOG, Log, Call::Sync, Fault::Io, 1, &["58030", "57P01", "57P01", "up"]),
        // The checkpoint after the first write, which was acknowledged and stays so: the log, the database.
        (FIRST_LOG, Database, Call::Write, Fault::Io, 1, &[]),
        (FIRST_LOG, Database, Call::Write, Fault::Full, 500, &[]),
    ] {
        let found = at_point(script, file, call, fault, nth);
        assert_eq!(found, told, "{}: {file:?} {call:?}, {fault:?} at {nth}", script.name);
    }
    // Whether the step after the checkpoint finds the engine given up already, or is lost with it, is a race.
    for (script, file, nth) in [(FIRST_LOG, Log, 3), (FIRST_LOG, Database, 1), (CHECKPOINTS, Database, 2)] {
        let found = at_point(script, file, Call::Sync, Fault::Io, nth);
        assert_eq!(
            (found.len(), found.last()),
            (3, Some(&"up".to_owned())),
            "{file:?} sync {nth}: {found:?}"
        );
        assert!(
            !found.iter().any(|sqlstate| sqlstate == "58030"),
            "nobody is told of a sync that was not theirs: {found:?}"
        );
    }
}
