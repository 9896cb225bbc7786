//! Writes the seed corpus: valid inputs of every target, and mutations of each that are likely to
//! be refused in interesting places. The same inputs every time: what it writes is committed.

use std::path::Path;

use anyhow::Context;
use vamos_fuzz::TARGETS;
use vamos_fuzz::mutation::{Random, mutate};

/// Mutations of each valid input.
const MUTANTS: usize = 2;

fn main() -> anyhow::Result<()> {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let seeds = (target.seeds)();
        let mut random = Random::new(2);
        let mut written = 0;
        for (name, input) in &seeds {
            let mut write = |name: &str, input: &[u8]| {
                let path = folder.join(name);
                written += 1;
                std::fs::write(&path, input).with_context(|| format!("write {}", path.display()))
            };
            write(name, input)?;
            for number in 1..=MUTANTS {
                let (_, other) = &seeds[random.below(seeds.len())];
                write(&format!("{name}.{number}"), &mutate(input, other, &mut random))?;
            }
        }
        println!("{written} inputs in {}", folder.display());
    }
    Ok(())
}
