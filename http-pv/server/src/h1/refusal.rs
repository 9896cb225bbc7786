//! Why a request is not one.

use http::StatusCode;

/// A request that is refused; its connection is closed, for nobody knows where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Refusal {
    /// What the client is told.
    pub status: StatusCode,
    /// What was wrong.
    pub reason: &'static str,
}

/// Refused as malformed.
pub(crate) const fn malformed(reason: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, reason }
}

pub(crate) const fn refused(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}
