//! The date, as it is written in an answer (RFC 9110, section 6.6.1).

use std::cell::RefCell;
use std::time::SystemTime;

thread_local! {
    /// The date as it is written, and the second it is of.
    static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Shows the present one.
pub(crate) fn now<T>(show: impl FnOnce(&str) -> T) -> T {
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    NOW.with_borrow_mut(|(of, text)| {
        if *of != second {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        show(text)
    })
}
