//! The table: each bug, and the story that must find it.

use std::time::Duration;

use vamos_seam::Bug;

use crate::stage::{PATIENCE, Stage};
use crate::{Finding, alone, bank, impostor, loss, resumed};

/// Runs in which a bug must be found.
const RUNS: u64 = 12;

/// What hangs for so long hangs for ever. Only where a bug is planted: without one, [`PATIENCE`] decides.
pub const HANGS: Duration = Duration::from_secs(10);

async fn banked(bug: Option<Bug>, seed: u64) -> Result<(), Finding> {
    let stage = Stage::with(bug).await;
    let outcome = bank::run(&stage, seed, if bug.is_some() { HANGS } else { PATIENCE }).await;
    stage.end().await;
    outcome
}

async fn found_by_the_bank(bug: Bug) {
    let _alone = alone().await;
    for seed in 1..=RUNS {
        let Err(finding) = banked(Some(bug), seed).await else { continue };
        println!("{}: seed {seed}: {finding}", bug.name());
        // Nothing is wrong with the harness itself.
        banked(None, seed).await.unwrap_or_else(|finding| panic!("without a bug, seed {seed}: {finding}"));
        return;
    }
    panic!("nobody noticed {} in {RUNS} runs", bug.name());
}

macro_rules! found_by_the_bank {
    ($($test:ident: $bug:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            found_by_the_bank(Bug::$bug).await;
        })*
    };
}

found_by_the_bank! {
    requests_acknowledged_before_they_are_answered: AcknowledgesAhead,
    outcomes_that_are_not_recorded: RecordsNothing,
    a_record_outside_its_data_s_transaction: RecordApart,
    records_collected_too_early: CollectsEarly,
    an_acknowledgement_before_the_commit: AcknowledgesUncommitted,
    two_lives_of_one_session: TenureUnawaited,
    settings_that_are_forgotten: SettingsForgotten,
    writes_that_are_repeated_as_new_ones: RepeatsAnew,
    rings_that_begin_at_their_base: RingFromBase,
    kicks_that_are_missed: KicksMissed,
}

macro_rules! found_by_a_story {
    ($($test:ident: $bug:ident by $teller:ident::$story:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let _alone = alone().await;
            for bug in [Some(Bug::$bug), None] {
                let mut stage = Some(Stage::with(bug).await);
                let outcome = $teller::$story(&mut stage).await;
                stage.unwrap().end().await;
                match (bug, outcome) {
                    (Some(bug), Err(finding)) => println!("{}: {finding}", bug.name()),
                    (None, Ok(())) => {}
                    (bug, outcome) => panic!("{bug:?}: {outcome:?}"),
                }
            }
        })*
    };
}

found_by_a_story! {
    a_repeated_request_that_is_not_compared: DigestUnchecked by impostor::another_request,
    an_acknowledged_request_that_runs_again: AcknowledgedRunsAgain by impostor::acknowledged_request,
    a_seal_that_is_not_checked: SealUnchecked by impostor::forged_session,
    a_generation_that_is_not_fenced: GenerationUnfenced by impostor::session_of_another_generation,
    streams_that_are_not_reset: ResetsNothing by loss::of_a_request,
    a_transaction_that_is_replayed_after_its_commit: ReplaysCommitted by loss::of_a_commit,
    replies_of_a_replay_that_are_not_compared: ReplayUncompared by resumed::to_what_it_has_read,
    a_replay_without_its_rollback_to_a_savepoint: SavepointUnreplayed by resumed::with_its_savepoints,
    a_commit_sent_before_earlier_answers: CommitUnsettled by resumed::to_all_it_has_sent,
    a_last_rowid_that_is_forgotten: HistoryForgotten by resumed::with_its_history,
}
