//! The disks of [`crate::disk`] as SQLite's default VFS: the engine opens its files on them without
//! knowing. This is the C side only: pointers become references here, and nowhere else.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::slice;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::ffi;

use crate::disk::{Disk, Lie};
use crate::locks::Level;
use crate::open_file::{self, Code, OpenFile};
use crate::random::Random;

/// SQLite's file object: its own header, and ours behind it.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    open: *mut OpenFile,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

thread_local! {
    /// Settings are being made that are the disk's, not the engine's.
    static SETTLING: Cell<bool> = const { Cell::new(false) };
}

/// Makes the disks reachable for every connection of this process that is opened from now on.
///
/// # Panics
/// When SQLite refuses, which it does only when it cannot be initialised.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let vfs = Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<File>() as c_int,
            mxPathname: 512,
            pNext: ptr::null_mut(),
            zName: c"vamos-faults".as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: None,
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        });
        // SAFETY: the object is leaked, so it outlives SQLite's use of it, and every method in it has the
        // signature and the contract of <https://sqlite.org/c3ref/vfs.html>.
        let registered = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(vfs), 1) };
        assert_eq!(registered, ffi::SQLITE_OK, "register the VFS");
        // SAFETY: the entry point has the signature SQLite calls it with, which its declaration hides.
        let added = unsafe { ffi::sqlite3_auto_extension(Some(settings)) };
        assert_eq!(added, ffi::SQLITE_OK, "have settings made at each connection");
    });
}

fn code(outcome: Result<(), Code>) -> c_int {
    outcome.err().unwrap_or(ffi::SQLITE_OK)
}

/// The open file behind SQLite's pointer.
///
/// # Safety
/// `file` was opened by [`open`] and not yet closed, and no other reference to it is alive: SQLite uses
/// one file object from one thread at a time.
unsafe fn opened<'f>(file: *mut ffi::sqlite3_file) -> &'f mut OpenFile {
    // SAFETY: by this function's contract, `open` is the box that `open()` leaked into it.
    unsafe { &mut *(*file.cast::<File>()).open }
}

/// The disk and the name there that a path of SQLite's means.
///
/// # Safety
/// `path` is a C string that lives as long as what is returned.
unsafe fn place<'p>(path: *const c_char) -> Result<(Arc<Disk>, &'p str), Code> {
    // SAFETY: by this function's contract.
    let path = unsafe { CStr::from_ptr(path) };
    path.to_str().ok().and_then(Disk::of_path).ok_or(ffi::SQLITE_CANTOPEN)
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite gives room for `szOsFile` bytes; without methods it will not close what is not open.
    unsafe { (*file).base.pMethods = ptr::null() };
    let opened = if path.is_null() {
        OpenFile::open(&Disk::empty(), None, true)
    } else {
        // SAFETY: a path that is not null is a C string for the time of the call.
        unsafe { place(path) }
            .and_then(|(disk, name)| OpenFile::open(&disk, Some(name), flags & ffi::SQLITE_OPEN_CREATE != 0))
    };
    match opened {
        Err(code) => code,
        Ok(open) => {
            // SAFETY: as above; the box is given back in `close`.
            unsafe {
                (*file).open = Box::into_raw(Box::new(open));
                (*file).base.pMethods = &METHODS;
            }
            if !out_flags.is_null() {
                // SAFETY: SQLite's own variable, when it gives one.
                unsafe { *out_flags = flags };
            }
            ffi::SQLITE_OK
        }
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes once what `open` gave it, and uses it no more.
    drop(unsafe { Box::from_raw((*file.cast::<File>()).open) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives room for `n` bytes, which nobody else uses meanwhile, in an open file's call.
    let (open, into) = unsafe { (opened(file), slice::from_raw_parts_mut(into.cast::<u8>(), n as usize)) };
    code(open.read(at as usize, into))
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, data: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives `n` bytes that do not change during the call, for an open file.
    let (open, data) = unsafe { (opened(file), slice::from_raw_parts(data.cast::<u8>(), n as usize)) };
    code(open.write(at as usize, data))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: the file is open (SQLite truncates no other).
    code(unsafe { opened(file) }.truncate(len as usize))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: the file is open (SQLite syncs no other).
    code(unsafe { opened(file) }.sync())
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: the file is open (SQLite asks for no other's size).
    match unsafe { opened(file) }.size() {
        Err(code) => code,
        Ok(len) => {
            // SAFETY: the variable SQLite wants the size in.
            unsafe { *size = len as i64 };
            ffi::SQLITE_OK
        }
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open (SQLite locks no other).
    code(unsafe { opened(file) }.lock(Level::from_code(level)))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open (SQLite unlocks no other).
    unsafe { opened(file) }.unlock(Level::from_code(level));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    // SAFETY: the file is open, and the variable is the one SQLite wants the answer in.
    unsafe { *reserved = c_int::from(opened(file).is_reserved()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    if op != ffi::SQLITE_FCNTL_PRAGMA {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: for this operation the argument is an array of three strings; the second is the pragma's
    // name (<https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>).
    let name = unsafe { CStr::from_ptr(*argument.cast::<*const c_char>().add(1)) };
    // SAFETY: the file is open (SQLite controls no other).
    let ignored =
        !SETTLING.get() && unsafe { opened(file) }.ignores(&name.to_string_lossy().to_ascii_lowercase());
    if ignored { ffi::SQLITE_OK } else { ffi::SQLITE_NOTFOUND }
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4_096
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    // What the `unix` VFS says of any disk; a cut that tears keeps to it, as its sectors are whole.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    number: c_int,
    _size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: the file is open (SQLite maps memory over no other).
    let (region, code) = match unsafe { opened(file) }.map_memory(number as usize, extend != 0) {
        Ok(region) => (region, ffi::SQLITE_OK),
        Err(code) => (None, code),
    };
    // The disk keeps the region until the last connection has unmapped it.
    let pointer = region.map_or(ptr::null(), |region| region.as_ptr());
    // SAFETY: the variable SQLite wants the address in.
    unsafe { *out = pointer.cast_mut().cast() };
    code
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: the file is open (SQLite locks memory over no other).
    let open = unsafe { opened(file) };
    let bits = (((1_u16 << n) - 1) << first) as u8;
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        open.unlock_memory(bits);
        return ffi::SQLITE_OK;
    }
    code(open.lock_memory(bits, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0))
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: the file is open (SQLite unmaps memory over no other).
    unsafe { opened(file) }.unmap_memory();
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    // SAFETY: the path of a file to be deleted is a C string for the time of the call.
    let place = unsafe { place(path) };
    code(place.and_then(|(disk, name)| open_file::delete(&disk, name, sync & 1 != 0)))
}

unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the path of a file to be looked for is a C string for the time of the call.
    let found = unsafe { place(path) }.and_then(|(disk, name)| open_file::exists(&disk, name));
    // SAFETY: the variable SQLite wants to know in whether the file is there.
    unsafe { *out = c_int::from(found == Ok(true)) };
    code(found.map(drop))
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the path to be completed is a C string for the time of the call.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if bytes.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has room for `room` bytes, which are enough, and is not the path itself.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, n: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite gives room for `n` bytes to be filled with chance.
    let out = unsafe { slice::from_raw_parts_mut(out.cast::<u8>(), n as usize) };
    let mut random = Random::new(now().subsec_nanos().into());
    out.iter_mut().for_each(|byte| *byte = random.bits() as u8);
    n
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    thread::sleep(Duration::from_micros(microseconds as u64));
    microseconds
}

unsafe extern "C" fn last_error(_vfs: *mut ffi::sqlite3_vfs, _n: c_int, _out: *mut c_char) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    /// Milliseconds of the Julian day at the start of 1970.
    const EPOCH: i64 = 210_866_760_000_000;
    // SAFETY: the variable SQLite wants the time in.
    unsafe { *out = EPOCH + now().as_millis() as i64 };
    ffi::SQLITE_OK
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Called by SQLite at each new connection: makes the settings a lying disk wants.
unsafe extern "C" fn settings(
    db: *mut ffi::sqlite3,
    _error: *mut *mut c_char,
    _api: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the connection is open; its file's name is a C string as long as it is, or null.
    let place = unsafe {
        let path = ffi::sqlite3_db_filename(db, c"main".as_ptr());
        if path.is_null() { Err(ffi::SQLITE_OK) } else { place(path) }
    };
    let Ok((disk, _)) = place else { return ffi::SQLITE_OK };
    let Some(Lie::Settings { instead, .. }) = disk.lie() else { return ffi::SQLITE_OK };
    let Ok(text) = CString::new(instead) else { return ffi::SQLITE_MISUSE };
    SETTLING.set(true);
    // SAFETY: the connection is open, the text a C string; neither rows nor the error's text are wanted.
    let code = unsafe { ffi::sqlite3_exec(db, text.as_ptr(), None, ptr::null_mut(), ptr::null_mut()) };
    SETTLING.set(false);
    code
}
