//! Every limit of this crate, unit and MAX last.

/// Largest message on a link, bytes: a name and some numbers.
pub const LINK_MESSAGE_BYTES_MAX: usize = 4096;

/// Largest name of an object, bytes.
pub const OBJECT_NAME_BYTES_MAX: usize = 1024;

/// What is read from a stream at once, bytes.
pub const COPY_BYTES: usize = 64 << 10;

/// Streams of one binding that are handed over at once; an agent keeps a few.
pub const STREAMS_MAX: usize = 64;
