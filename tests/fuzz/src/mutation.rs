//! Mutations of inputs, by a seed: enough to leave the paths that valid inputs take. Depth is
//! `cargo fuzz`'s business; this finds what is shallow, in every run of the tests.

/// A source of numbers that a seed determines (xorshift64*).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// Numbers at which programs tend to change their mind.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    3,
    4,
    15,
    16,
    0x7f,
    0x80,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Longest input a mutation makes, bytes.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// `input` with a few changes; `other` lends parts of itself.
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        change(&mut bytes, other, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let length = bytes.len();
    let (from, to) = range(length, random);
    match random.below(9) {
        0 if length > 0 => bytes[from.min(length - 1)] ^= 1 << random.below(8),
        1 if length > 0 => bytes[from.min(length - 1)] = random.below(256) as u8,
        2 => drop(bytes.drain(from..to)),
        3 => bytes.truncate(from),
        4 => {
            let copy = bytes[from..to].to_vec();
            bytes.splice(from..from, copy);
        }
        5 => {
            let (start, end) = range(other.len(), random);
            bytes.splice(from..to, other[start..end].iter().copied());
        }
        6 => {
            let noise: Vec<u8> = (0..random.below(16)).map(|_| random.below(256) as u8).collect();
            bytes.splice(from..from, noise);
        }
        // A number in place of another, in each size and order.
        7 | 8 => {
            let edge = EDGES[random.below(EDGES.len())].wrapping_add(random.below(3) as u64).wrapping_sub(1);
            let size = 1 << random.below(4);
            let mut number = edge.to_le_bytes()[..size].to_vec();
            if random.below(2) == 0 {
                number.reverse();
            }
            bytes.splice(from..(from + size).min(length), number);
        }
        _ => bytes.push(random.below(256) as u8),
    }
}

/// A range within `length`, mostly short.
fn range(length: usize, random: &mut Random) -> (usize, usize) {
    let from = random.below(length + 1);
    let longest = if random.below(4) == 0 { length } else { 8 };
    (from, (from + random.below(longest + 1)).min(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_every_mutation() {
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| mutate(b"some input", b"another", &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn mutations_differ_and_stay_bounded() {
        let mut random = Random::new(1);
        let mutants: Vec<Vec<u8>> = (0..1_000).map(|_| mutate(&[0; 100], &[1; 100], &mut random)).collect();
        let changed = mutants.iter().filter(|mutant| mutant.as_slice() != [0; 100]).count();
        assert!(changed > 900, "{changed} of 1000 are changed");
        assert!(mutants.iter().all(|mutant| mutant.len() <= INPUT_BYTES_MAX));
        assert!(mutate(&[], &[], &mut random).len() < 100);
    }
}
