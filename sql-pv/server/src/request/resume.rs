//! Resume: continues a session on a new stream. Refused by name until engines keep completion records.

use super::Step;
use crate::engine::Engine;
use crate::error::SqlError;

pub(super) fn start<E: Engine>() -> Step<E> {
    Step::Violation(SqlError::protocol("Resume on a session that is open"))
}

/// What a Resume on a new session number is told.
pub(crate) fn refusal() -> SqlError {
    SqlError::new(crate::error::sqlstate::FEATURE_NOT_SUPPORTED, "this host does not resume sessions")
        .hint("Open a new session.")
}
