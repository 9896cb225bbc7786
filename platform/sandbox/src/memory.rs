//! Keeping an idle process small.
#![allow(unsafe_code)]

use crate::limits::MALLOC_ARENAS_MAX;

/// Tells glibc to use few arenas and to give freed memory back early. A host runs a process per VM, most of
/// them idle.
pub fn prefer_small() {
    // Bytes of free memory at the top of an arena beyond which it is returned to the kernel.
    const TRIM_THRESHOLD: i32 = 256 << 10;
    // SAFETY: mallopt takes two integers and only changes the allocator's own settings; no other
    // thread exists yet, which is all that it asks for.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, MALLOC_ARENAS_MAX);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
    }
}
