//! The rules, one file each.

pub mod armed;
pub mod dependencies;
pub mod docs;
pub mod layers;
pub mod layout;
pub mod length;
pub mod limits;
pub mod names;
pub mod panics;
pub mod threats;
pub mod unsafe_code;
pub mod words;

use crate::{Tree, Violation};

/// What a rule is: it names every violation in a tree.
pub type Rule = fn(&Tree) -> Vec<Violation>;

/// Every rule, by the name that [`crate::exceptions`] uses.
pub const RULES: &[(&str, Rule)] = &[
    ("layers", layers::check),
    ("dependencies", dependencies::check),
    ("layout", layout::check),
    ("length", length::check),
    ("docs", docs::check),
    ("unsafe", unsafe_code::check),
    ("names", names::check),
    ("words", words::check),
    ("limits", limits::check),
    ("panics", panics::check),
    ("threats", threats::check),
    ("armed", armed::check),
];
