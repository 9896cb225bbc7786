//! THREATS 68: the power goes at any point; what was acknowledged is there, and nothing is half there.

use std::time::Instant;

use vamos_faults::power::{Plan, campaign, record};

/// Cuts of one run of the tests; `cargo torture-power` makes more, from any seed.
const CUTS: usize = 20_000;
const CUTS_EACH: usize = 500;
const SEED: u64 = 1;

#[test]
fn k68_no_cut_loses_an_acknowledged_write() {
    let started = Instant::now();
    let campaign = campaign(SEED, CUTS, CUTS_EACH, 2).unwrap_or_else(|loss| panic!("{loss}"));
    println!("seed {SEED}, {:.1} s: {campaign:?}", started.elapsed().as_secs_f64());
    assert!(campaign.cuts >= CUTS, "{campaign:?}");
    assert!(campaign.acknowledged > campaign.recordings * 100, "{campaign:?}");
}

/// A process is killed between its write and its sync; the next one shows what it recovered; the power goes.
#[test]
fn k69_what_the_next_process_shows_is_durable() {
    let plan = Plan { seed: 7, writers: 4, steps: 40, lie: None, bug: None };
    let recorded = record(&plan).unwrap_or_else(|error| panic!("{error}"));
    for at in 0..=recorded.entries() {
        if at % 7 == 0 || recorded.entries() - at < 30 {
            recorded.kill(at, at as u64).unwrap_or_else(|loss| panic!("killed at {at}: {loss}"));
        }
    }
}
