//! The rules of the repository, as tests.
//!
//! A rule reads the [`Tree`] and names every [`Violation`]: where it is, what is wrong, and what to
//! write instead. `tests/repository.rs` holds the rules to the tree they are in; each rule's own
//! tests plant a violation and see it caught. The few places where a rule gives way are listed, with
//! a reason each, in [`exceptions`].
//!
//! Not here: what rustc, clippy and rustfmt already check.

pub mod exceptions;
pub mod rules;
pub mod source;
pub mod tree;

use std::fmt;

pub use tree::Tree;

/// One place where the tree breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path from the root of the repository.
    pub path: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do instead.
    pub instead: String,
}

impl Violation {
    /// A violation in `line` (from 1; 0: the whole file) of `path`.
    pub fn new(path: &str, line: usize, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), instead: instead.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}; instead: {}", self.what, self.instead)
    }
}
