//! Every target over its whole corpus, and over mutations of it that no two runs share.
//!
//! The seed comes from the clock; a failure prints it, and `VAMOS_FUZZ_SEED=<seed>` repeats the run. The
//! input that failed is left in `artifacts/`, ready to become a part of the corpus.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vamos_fuzz::mutation::{Random, mutate};
use vamos_fuzz::{TARGETS, Target};

/// Mutations of each target, whichever ends first.
const MUTANTS_MAX: usize = 100_000;
const MUTATING_MAX: Duration = Duration::from_secs(6);

/// No input may take longer.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);

/// Nor may all of them together ever need more memory, bytes.
const MEMORY_MAX: u64 = 512 << 20;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder("corpus").join(target.name);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("an input"))).collect()
}

/// Runs one input; a failure is told with everything needed to repeat it.
fn run(target: &Target, input: &[u8], origin: &str) {
    let start = Instant::now();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let artifact = folder("artifacts").join(format!("{}-{}", target.name, input.len()));
        let kept =
            std::fs::create_dir_all(folder("artifacts")).and_then(|()| std::fs::write(&artifact, input));
        let said = panic.downcast_ref::<String>().cloned();
        let said =
            said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        panic!("{}, {origin}: {said}; the input is {} ({kept:?})", target.name, artifact.display());
    }
    let elapsed = start.elapsed();
    assert!(elapsed < INPUT_TIME_MAX, "{}, {origin}: took {elapsed:?}", target.name);
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    let corpus = corpus(target);
    assert!(corpus.len() >= 20, "the corpus of {name} has {} inputs: run write-fuzz-corpus", corpus.len());
    for (path, input) in &corpus {
        run(target, input, &path.display().to_string());
    }
    let seed = match std::env::var("VAMOS_FUZZ_SEED") {
        Ok(seed) => seed.parse().expect("VAMOS_FUZZ_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64),
    };
    let (mut random, start) = (Random::new(seed), Instant::now());
    for number in 0..MUTANTS_MAX {
        if start.elapsed() > MUTATING_MAX {
            break;
        }
        let (_, input) = &corpus[random.below(corpus.len())];
        let (_, other) = &corpus[random.below(corpus.len())];
        run(
            target,
            &mutate(input, other, &mut random),
            &format!("mutation {number} of VAMOS_FUZZ_SEED={seed}"),
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("own status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak * 1024 < MEMORY_MAX, "{name}: needed {peak} KiB at its peak; VAMOS_FUZZ_SEED={seed}");
}

/// A test a target, so that a report names it.
macro_rules! replays {
    ($($target:ident),* $(,)?) => {
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
        $(#[test] fn $target() { replay(stringify!($target)); })*
    };
}

replays! {
    frame,
    postgres_message,
    ring_and_packet,
    vhost_user_message,
}

#[test]
fn every_target_is_replayed() {
    let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(targets, REPLAYED);
}

#[test]
fn every_seed_is_in_the_corpus() {
    for target in TARGETS {
        for (name, input) in (target.seeds)() {
            let path = folder("corpus").join(target.name).join(&name);
            let kept = std::fs::read(&path).unwrap_or_default();
            assert!(kept == input, "{} is not what write-fuzz-corpus writes: run it", path.display());
        }
    }
}
