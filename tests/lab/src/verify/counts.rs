//! How many checks passed and failed, from what cargo's test runners print.

use std::fmt;
use std::ops::AddAssign;

/// Checks that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that passed.
    pub passed: usize,
    /// Those that failed.
    pub failed: usize,
}

impl Counts {
    /// Of one check.
    #[must_use]
    pub fn of(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed) }
    }

    /// Of a line of output, if it is a runner's closing line: `test result: ok. 3 passed; 0 failed; …`.
    #[must_use]
    pub fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |what: &str| {
            counts.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self { passed: number("passed")?, failed: number("failed")? })
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padded as a whole, for columns.
        formatter.pad(&format!("{} passed, {} failed", self.passed, self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closing_line_is_counted() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1s";
        assert_eq!(Counts::of_line(line), Some(Counts { passed: 12, failed: 3 }));
        let line = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Counts::of_line(line), Some(Counts::default()));
        assert_eq!(Counts::of_line("test a::b ... ok"), None);
    }

    #[test]
    fn counts_are_printed_as_the_last_line_must_be() {
        assert_eq!(Counts { passed: 4, failed: 0 }.to_string(), "4 passed, 0 failed");
        assert_eq!(format!("{:<20}|", Counts::default()), "0 passed, 0 failed  |");
    }
}
