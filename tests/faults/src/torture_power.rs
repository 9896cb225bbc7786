//! `cargo torture-power`: as many cuts as there is time for. The tests make 20,000 from one seed.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use vamos_faults::power::campaign;

/// Cuts the power under recorded workloads until told otherwise, and checks what is left.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long, minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Of the first workload; the next ones count up from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cuts of each workload.
    #[arg(long, default_value_t = 1_000)]
    cuts_each: usize,
}

/// Workloads between two lines of progress.
const ROUND: usize = 20;

fn main() -> ExitCode {
    let Arguments { minutes, mut seed, cuts_each } = Arguments::parse();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (started, mut cuts, mut acknowledged) = (Instant::now(), 0, 0);
    while started.elapsed() < Duration::from_secs(minutes * 60) {
        match campaign(seed, ROUND * cuts_each, cuts_each, threads) {
            Ok(round) => {
                cuts += round.cuts;
                acknowledged += round.acknowledged;
                let seconds = started.elapsed().as_secs();
                println!(
                    "{seconds} s: seed {seed}, {cuts} cuts, {acknowledged} writes acknowledged, none lost"
                );
            }
            Err(loss) => {
                eprintln!("LOST: {loss}");
                return ExitCode::FAILURE;
            }
        }
        seed = seed.wrapping_add(ROUND as u64);
    }
    ExitCode::SUCCESS
}
