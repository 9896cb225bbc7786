//! The harness proves itself: seeded bugs, each of which loses, doubles or tears what was acknowledged,
//! are each found within the cuts the real test makes. A checker that finds none of them checks nothing.

use vamos_faults::check::Finding;
use vamos_faults::disk::{FileKind, Lie};
use vamos_faults::power::{Loss, Plan, record};
use vamos_faults::workload::Bug;

/// A seeded bug must be found within so many cuts of so many recordings. The
/// rarest shows once in several hundred cuts, around a checkpoint.
const CUTS: usize = 500;
const RECORDINGS: u64 = 40;

fn loss(writers: usize, lie: Option<Lie>, bug: Option<Bug>) -> Box<Loss> {
    for seed in 0..RECORDINGS {
        let plan = Plan { seed, writers, steps: 160 / writers, lie, bug };
        let recorded = record(&plan).unwrap_or_else(|error| panic!("{lie:?}, {bug:?}, seed {seed}: {error}"));
        if let Err(loss) = recorded.cut(seed, CUTS) {
            println!("{lie:?} {bug:?}: recording {seed}: {loss}");
            return loss;
        }
    }
    panic!("nobody noticed {lie:?} {bug:?}")
}

fn lie(lie: Lie) -> Finding {
    loss(4, Some(lie), None).finding
}

fn bug(bug: Bug) -> Finding {
    loss(4, None, Some(bug)).finding
}

fn is_lost(finding: &Finding) -> bool {
    !matches!(finding, Finding::Twice { .. })
}

#[test]
fn a_log_that_is_never_synced() {
    assert!(is_lost(&lie(Lie::ForgetsSync(FileKind::Log))));
}

#[test]
fn an_acknowledgement_before_the_sync_is_done() {
    assert!(is_lost(&lie(Lie::LateSync(FileKind::Log))));
}

#[test]
fn a_sync_that_leaves_out_the_last_write() {
    assert!(is_lost(&lie(Lie::HalfSync(FileKind::Log))));
}

#[test]
fn a_checkpoint_that_does_not_sync_the_database_before_it_resets_the_log() {
    assert!(is_lost(&lie(Lie::ForgetsSync(FileKind::Database))));
}

#[test]
fn a_directory_that_is_never_synced() {
    assert!(is_lost(&lie(Lie::ForgetsDirectory)));
}

#[test]
fn synchronous_off() {
    let off = Lie::Settings { unheard: "synchronous", instead: "PRAGMA synchronous = OFF" };
    assert!(is_lost(&lie(off)));
}

#[test]
fn synchronous_normal() {
    let normal = Lie::Settings { unheard: "synchronous", instead: "PRAGMA synchronous = NORMAL" };
    assert!(is_lost(&lie(normal)));
}

/// One session: readers and a writer exclude each other without a log.
#[test]
fn pages_written_in_place_without_a_journal() {
    let none = Lie::Settings { unheard: "journal_mode", instead: "PRAGMA journal_mode = MEMORY" };
    assert!(is_lost(&loss(1, Some(none), None).finding));
}

#[test]
fn writes_acknowledged_when_they_are_asked_for() {
    assert!(matches!(bug(Bug::AcknowledgesUnasked), Finding::Wrong(_)));
}

#[test]
fn writes_sent_twice() {
    assert!(matches!(bug(Bug::SendsTwice), Finding::Twice { .. }));
}

#[test]
fn transactions_that_fall_apart() {
    assert!(matches!(bug(Bug::ForgetsBegin), Finding::Wrong(_)));
}

#[test]
fn a_rollback_that_commits() {
    assert!(matches!(bug(Bug::CommitsRollback), Finding::Wrong(_)));
}
