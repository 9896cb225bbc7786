//! Replacements in a text, and where its places have gone.

use std::cmp::Reverse;

use crate::postgres::answer::{PositionMap, Rewritten, Translated};
use crate::postgres::types::PgType;

/// Replacements in a text, none within another.
#[derive(Default)]
pub(super) struct Edits {
    /// (first byte, byte after the last, what takes their place).
    edits: Vec<(usize, usize, String)>,
    /// Types that casts give to parameters.
    pub parameters: Vec<(u32, PgType)>,
}

impl Edits {
    pub fn replace(&mut self, start: usize, end: usize, with: impl Into<String>) {
        self.edits.push((start, end, with.into()));
    }

    /// Puts text before a token; what was put there earlier comes to stand after it.
    pub fn before(&mut self, at: usize, what: impl Into<String>) {
        self.edits.push((at, at, what.into()));
    }

    /// The text with its replacements.
    pub fn finish(mut self, text: &str) -> Translated {
        if self.edits.is_empty() {
            return Translated::PassThrough;
        }
        // Openings put before one token by casts around casts: the outermost was put there last.
        self.edits.reverse();
        // Of two replacements of one token the longer has taken the other in.
        self.edits.sort_by_key(|edit| (edit.0, edit.0 != edit.1, Reverse(edit.1)));
        let mut sql = String::with_capacity(text.len() + 16 * self.edits.len());
        let mut positions = PositionMap::default();
        let mut copied = 0;
        for (start, end, with) in self.edits {
            if start < copied {
                // Within what an earlier edit replaced as a whole.
                continue;
            }
            sql.push_str(&text[copied..start]);
            positions.steps.push((sql.len(), start));
            sql.push_str(&with);
            positions.steps.push((sql.len(), end));
            copied = end;
        }
        sql.push_str(&text[copied..]);
        self.parameters.sort_by_key(|parameter| parameter.0);
        self.parameters.dedup_by_key(|parameter| parameter.0);
        Translated::Rewritten(Rewritten { sql, positions, parameters: self.parameters, tag: None })
    }
}
