//! SQLite's allocator with a counter in front: the n-th allocation can fail. It is the whole process's and
//! has to be there before SQLite is first used.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use rusqlite::ffi;

type Allocate = unsafe extern "C" fn(c_int) -> *mut c_void;
type Reallocate = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void;

/// SQLite's own allocator, as far as it can fail.
static OWN: OnceLock<(Option<Allocate>, Option<Reallocate>)> = OnceLock::new();

/// Allocations up to and with the one that fails; at 0 none does.
static LEFT: AtomicU64 = AtomicU64::new(0);
static PERSISTENT: AtomicBool = AtomicBool::new(false);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Puts the counter in front of SQLite's allocator.
///
/// # Panics
/// When SQLite has been used before.
pub fn install() {
    OWN.get_or_init(|| {
        let mut own = MaybeUninit::<ffi::sqlite3_mem_methods>::zeroed();
        // SAFETY: this option takes a pointer to the structure and fills it.
        let asked = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, own.as_mut_ptr()) };
        assert_eq!(asked, ffi::SQLITE_OK, "ask for SQLite's allocator before it is used");
        // SAFETY: SQLite has filled it, and all zeros is one of its values anyway.
        let own = unsafe { own.assume_init() };
        let counting =
            ffi::sqlite3_mem_methods { xMalloc: Some(allocate), xRealloc: Some(reallocate), ..own };
        // SAFETY: this option takes a pointer to the structure and copies it; both functions keep the
        // allocator's contract, as they call it or return null, which it may.
        let set = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, ptr::from_ref(&counting)) };
        assert_eq!(set, ffi::SQLITE_OK, "set SQLite's allocator before it is used");
        (own.xMalloc, own.xRealloc)
    });
}

/// Lets the n-th allocation from now on fail, from 1, and all after it if `persistent`.
pub fn arm(nth: u64, persistent: bool) {
    FAILED.store(0, SeqCst);
    PERSISTENT.store(persistent, SeqCst);
    LEFT.store(nth, SeqCst);
}

/// Lets no allocation fail any more; how many have.
pub fn disarm() -> u64 {
    LEFT.store(0, SeqCst);
    FAILED.load(SeqCst)
}

fn fails() -> bool {
    // Counts down to 1, fails, and goes on to 0 if no more are to fail, or stays at 1.
    let next = |left| match left {
        0 => None,
        1 if PERSISTENT.load(SeqCst) => Some(1),
        left => Some(left - 1),
    };
    let is_it = LEFT.fetch_update(SeqCst, SeqCst, next) == Ok(1);
    if is_it {
        FAILED.fetch_add(1, SeqCst);
    }
    is_it
}

unsafe extern "C" fn allocate(bytes: c_int) -> *mut c_void {
    match OWN.get().and_then(|own| own.0) {
        // SAFETY: the allocator's own function, with its caller's argument.
        Some(allocate) if !fails() => unsafe { allocate(bytes) },
        _ => ptr::null_mut(),
    }
}

unsafe extern "C" fn reallocate(old: *mut c_void, bytes: c_int) -> *mut c_void {
    match OWN.get().and_then(|own| own.1) {
        // SAFETY: the allocator's own function, with its caller's arguments; `old` came from it.
        Some(reallocate) if !fails() => unsafe { reallocate(old, bytes) },
        _ => ptr::null_mut(),
    }
}
