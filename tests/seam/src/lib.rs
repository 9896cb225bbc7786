//! Seams: where tests may make the product err (a [`Bug`]) or fail and die (a [`Point`]), by name.
//!
//! Without the feature `armed` every question is a constant "no", which the compiler removes with all that hangs on
//! it. The feature is asked for by `tests/seeded` alone, in an invocation of cargo of its own, and every shipped
//! binary that stands on a crate with seams asserts at compile time that it has not got it ([`ARMED`]).
//!
//! Knows nothing of what errs or dies, and decides nothing about when: that is in the orders a test gives.

#[cfg(feature = "armed")]
mod armed;
mod names;

#[cfg(feature = "armed")]
pub use armed::{errs, fails, obey, plant};
pub use names::{Bug, Point};

/// Whether this build has what is here.
pub const ARMED: bool = cfg!(feature = "armed");

/// Whether the code that asks is to err.
#[cfg(not(feature = "armed"))]
#[must_use]
#[inline(always)]
pub const fn errs(_bug: Bug) -> bool {
    false
}

/// Passes a point: whether the code that asks is to fail there. The process may die here instead.
#[cfg(not(feature = "armed"))]
#[must_use]
#[inline(always)]
pub const fn fails(_point: Point) -> bool {
    false
}
