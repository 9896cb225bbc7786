//! What some fields may be, in every version of HTTP.

use http::HeaderName;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, TE, TRAILER,
    TRANSFER_ENCODING,
};

/// Fields that are not heard at the end: they say where a message ends, where it goes or who may send it.
pub(crate) const TOO_LATE: [HeaderName; 9] = [
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    HOST,
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CONTENT_RANGE,
    TE,
    TRAILER,
];

/// Whether `value` can be the name of a protocol, with its version perhaps (RFC 9110, section 7.8).
pub(crate) fn is_protocol(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._/+".contains(byte))
}
