//! Every limit of the cache, unit and MAX last.

use std::time::Duration;

/// Largest answer that is kept, bytes.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Share of a target's room that one answer may take: one in so many.
pub const ANSWER_SHARE_MAX: u64 = 4;

/// Answers to one URL that differ by what `Vary` names.
pub const VARIANTS_MAX: usize = 16;

/// Fields that `Vary` may name.
pub const VARY_FIELDS_MAX: usize = 16;

/// What an answer takes besides its content and its fields, bytes: what they are kept in, and its place in the table.
pub const ANSWER_OVERHEAD_BYTES: u64 = 512;

/// Tags of one answer.
pub const TAGS_MAX: usize = 64;

/// Answers a target is expected to have, for the size of its table: one for so many bytes of room.
pub const EXPECTED_ANSWER_BYTES: u64 = 8 << 10;

/// URLs of a target that are known not to be kept: their requests are not lined up.
pub const PASSED_MAX: usize = 10_000;

/// How long that is remembered.
pub const PASSED_FOR: Duration = Duration::from_secs(2);

/// Longest a request waits for the one that is under way for the same URL.
pub const FLIGHT_WAIT_MAX: Duration = Duration::from_secs(30);

/// Longest that an answer is taken to be fresh of which its server says nothing: a day.
pub const HEURISTIC_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Of the time since it was changed, the share an answer is taken to be fresh for: one in so many.
pub const HEURISTIC_SHARE: u32 = 10;

/// The longest time that is told from longer ones: what RFC 9111, section 1.2.2, has in the place of larger numbers.
pub const DELTA_SECONDS_MAX: u64 = 1 << 31;
