//! The C side: a VFS (<https://sqlite.org/vfs.html>) that stands on another. Pointers become references here, and nowhere
//! else; what is done with pages is [`crate::file`]'s.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{self, ErrorKind};
use std::ptr;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Error, Result, ffi};

use crate::file::{Below, File, Kind};
use crate::scheme::Known;

/// SQLite's file object: its own header, what we keep, and behind it the file object of the VFS below.
#[repr(C)]
struct Opened {
    base: ffi::sqlite3_file,
    file: *mut File,
}

const _: () = assert!(size_of::<Opened>().is_multiple_of(8), "the file object behind it is aligned for C");

/// The VFSes that have one of ours standing on them, and its name.
static SHIMS: Mutex<Vec<(usize, &'static CStr)>> = Mutex::new(Vec::new());

static METHODS: ffi::sqlite3_io_methods = methods(2);
/// For a VFS that shares no memory.
static METHODS_WITHOUT_MEMORY: ffi::sqlite3_io_methods = methods(1);

const fn methods(version: c_int) -> ffi::sqlite3_io_methods {
    ffi::sqlite3_io_methods {
        iVersion: version,
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
        // What is mapped is not read, and not looked at.
        xFetch: None,
        xUnfetch: None,
    }
}

/// The name of the VFS of ours that stands on the default one. It is made if need be.
pub(crate) fn over_default() -> Result<&'static CStr> {
    // SAFETY: without a name it gives the default VFS, which SQLite keeps, or null.
    let below = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    // SAFETY: what is registered stays readable until it is unregistered, which nobody here does.
    let Some(base) = (unsafe { below.as_ref() }).filter(|base| base.iVersion >= 2) else {
        return Err(Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_MISUSE),
            Some("there is no VFS of version 2 that checksums could stand on".to_owned()),
        ));
    };
    let mut shims = SHIMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, name)) = shims.iter().find(|(known, _)| *known == below as usize) {
        return Ok(name);
    }
    // SAFETY: a registered VFS has a name, a C string that lives as long as it does.
    let base_name = unsafe { CStr::from_ptr(base.zName) };
    let name = CString::new([b"vamos-checksum-", base_name.to_bytes()].concat()).map_err(Error::NulError)?;
    let name: &'static CStr = Box::leak(name.into_boxed_c_str());
    let vfs = Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<Opened>() as c_int + base.szOsFile,
        mxPathname: base.mxPathname,
        pNext: ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: below.cast(),
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
    // SAFETY: the object is leaked, so it outlives SQLite's use of it; its methods keep the contract of
    // <https://sqlite.org/c3ref/vfs.html> if those of the VFS below do.
    match unsafe { ffi::sqlite3_vfs_register(Box::into_raw(vfs), 0) } {
        ffi::SQLITE_OK => {
            shims.push((below as usize, name));
            Ok(name)
        }
        code => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// How many bytes of each page a connection's database reserves; for one that is still empty it can be chosen.
pub(crate) fn reserve(db: &Connection, bytes: Option<usize>) -> Result<usize> {
    let mut reserved = bytes.map_or(-1, |bytes| bytes as c_int);
    // SAFETY: the connection is open and used by nobody else meanwhile; for this operation the argument is an int, which
    // is read and written (<https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>).
    let code = unsafe {
        ffi::sqlite3_file_control(
            db.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut reserved).cast(),
        )
    };
    match code {
        ffi::SQLITE_OK => Ok(usize::try_from(reserved).unwrap_or_default()),
        code => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// The file object of the VFS below.
fn below(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    file.cast::<Opened>().wrapping_add(1).cast()
}

/// Calls a method of the file below, if it has it.
macro_rules! below {
    ($file:expr, $method:ident ( $($argument:expr),* ), else $missing:expr) => {{
        let file = below($file);
        // SAFETY: SQLite calls methods of open files only, so the one below is open and has methods; they get what SQLite
        // gave for the same method, with the file that is theirs.
        unsafe {
            match (*(*file).pMethods).$method {
                Some(method) => method(file, $($argument),*),
                None => $missing,
            }
        }
    }};
}

/// Calls a method of the VFS below, if it has it.
macro_rules! vfs_below {
    ($vfs:expr, $method:ident ( $($argument:expr),* ), else $missing:expr) => {{
        // SAFETY: `pAppData` is the VFS that ours was registered over; its methods get what SQLite gave for the same
        // method, with the VFS that is theirs.
        unsafe {
            let vfs = (*$vfs).pAppData.cast::<ffi::sqlite3_vfs>();
            match (*vfs).$method {
                Some(method) => method(vfs, $($argument),*),
                None => $missing,
            }
        }
    }};
}

/// What we keep for an open file.
///
/// # Safety
/// `file` was opened by [`open`] as one of ours and is not closed, and no other reference to it is alive: SQLite uses one
/// file object from one thread at a time.
unsafe fn opened<'f>(file: *mut ffi::sqlite3_file) -> &'f mut File {
    // SAFETY: by this function's contract, `file` is the box that `open` leaked into it.
    unsafe { &mut *(*file.cast::<Opened>()).file }
}

/// A file below, whose object stands behind ours.
struct Raw(*mut ffi::sqlite3_file);

impl Below for Raw {
    fn read(&mut self, into: &mut [u8], at: u64) -> c_int {
        let (bytes, room) = (into.len() as c_int, into.as_mut_ptr().cast());
        below!(self.0, xRead(room, bytes, at as i64), else ffi::SQLITE_IOERR_READ)
    }

    fn write(&mut self, data: &[u8], at: u64) -> c_int {
        let (bytes, data) = (data.len() as c_int, data.as_ptr().cast());
        match below!(self.0, xWrite(data, bytes, at as i64), else ffi::SQLITE_IOERR_WRITE) {
            // SQLite knows a disk that is full, and not a file that may not become larger.
            ffi::SQLITE_IOERR_WRITE if self.failed_with() == ErrorKind::FileTooLarge => ffi::SQLITE_FULL,
            code => code,
        }
    }
}

impl Raw {
    /// What the operating system said of the last call that failed.
    fn failed_with(&self) -> ErrorKind {
        let mut errno: c_int = 0;
        let out = ptr::from_mut(&mut errno).cast::<c_void>();
        below!(self.0, xFileControl(ffi::SQLITE_FCNTL_LAST_ERRNO, out), else ffi::SQLITE_NOTFOUND);
        io::Error::from_raw_os_error(errno).kind()
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let kind = match flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) {
        ffi::SQLITE_OPEN_MAIN_DB if !path.is_null() => Kind::Database,
        ffi::SQLITE_OPEN_WAL if !path.is_null() => Kind::Log,
        // The VFS below has all of the room to itself, and SQLite calls it directly.
        _ => return vfs_below!(vfs, xOpen(path, file, flags, out_flags), else ffi::SQLITE_CANTOPEN),
    };
    let inner = below(file);
    // SAFETY: there is room for both file objects (`szOsFile`); without methods neither is closed if it is not opened.
    unsafe {
        (*file).pMethods = ptr::null();
        (*inner).pMethods = ptr::null();
    }
    let code = vfs_below!(vfs, xOpen(path, inner, flags, out_flags), else ffi::SQLITE_CANTOPEN);
    // SAFETY: the VFS below has set the methods if there is something to be closed, also when it failed.
    let Some(methods) = (unsafe { (*inner).pMethods.as_ref() }) else { return code };
    if code != ffi::SQLITE_OK {
        below!(file, xClose(), else ffi::SQLITE_OK);
        return code;
    }
    let (known, path) = match kind {
        Kind::Database => (Arc::<Known>::default(), path),
        // SAFETY: the name is that of a log, as SQLite gave it, which it finds the database's own by; its pager has the
        // database open with this VFS for longer than the log.
        Kind::Log => unsafe {
            let database = ffi::sqlite3_database_file_object(path);
            (opened(database).known().clone(), ffi::sqlite3_filename_database(path))
        },
    };
    // SAFETY: the database's name is a C string as long as its connection is open.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    let kept = Box::new(File::new(kind, known, &path));
    // SAFETY: the room is for this object; the box is given back in `close`.
    unsafe {
        (*file.cast::<Opened>()).file = Box::into_raw(kept);
        (*file).pMethods = if methods.iVersion >= 2 { &METHODS } else { &METHODS_WITHOUT_MEMORY };
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = below!(file, xClose(), else ffi::SQLITE_OK);
    // SAFETY: SQLite closes once what `open` gave it, and uses it no more, whatever the code.
    drop(unsafe { Box::from_raw((*file.cast::<Opened>()).file) });
    code
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives room for `n` bytes, which nobody else uses meanwhile, in an open file's call.
    let (open, into) = unsafe { (opened(file), slice::from_raw_parts_mut(into.cast::<u8>(), n as usize)) };
    open.read(&mut Raw(file), into, at as u64)
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, data: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives `n` bytes that do not change during the call, for an open file.
    let (open, data) = unsafe { (opened(file), slice::from_raw_parts(data.cast::<u8>(), n as usize)) };
    open.write(&mut Raw(file), data, at as u64)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: i64) -> c_int {
    below!(file, xTruncate(bytes), else ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    below!(file, xSync(flags), else ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, bytes: *mut i64) -> c_int {
    below!(file, xFileSize(bytes), else ffi::SQLITE_IOERR_FSTAT)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    below!(file, xLock(level), else ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    below!(file, xUnlock(level), else ffi::SQLITE_IOERR_UNLOCK)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    below!(file, xCheckReservedLock(reserved), else ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    below!(file, xFileControl(op, argument), else ffi::SQLITE_NOTFOUND)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    below!(file, xSectorSize(), else 0)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // A part of a page cannot be looked at: without this, SQLite reads long values past its pages.
    below!(file, xDeviceCharacteristics(), else 0) & !ffi::SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    number: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    below!(file, xShmMap(number, bytes, extend, out), else ffi::SQLITE_IOERR_SHMMAP)
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, n: c_int, flags: c_int) -> c_int {
    below!(file, xShmLock(first, n, flags), else ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    below!(file, xShmBarrier(), else ());
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    below!(file, xShmUnmap(delete), else ffi::SQLITE_OK)
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    vfs_below!(vfs, xDelete(path, sync), else ffi::SQLITE_IOERR_DELETE)
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    vfs_below!(vfs, xAccess(path, flags, out), else ffi::SQLITE_IOERR_ACCESS)
}

unsafe extern "C" fn full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    vfs_below!(vfs, xFullPathname(path, room, out), else ffi::SQLITE_CANTOPEN)
}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, n: c_int, out: *mut c_char) -> c_int {
    vfs_below!(vfs, xRandomness(n, out), else 0)
}

unsafe extern "C" fn sleep(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    vfs_below!(vfs, xSleep(microseconds), else 0)
}

unsafe extern "C" fn last_error(vfs: *mut ffi::sqlite3_vfs, n: c_int, out: *mut c_char) -> c_int {
    vfs_below!(vfs, xGetLastError(n, out), else ffi::SQLITE_OK)
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    vfs_below!(vfs, xCurrentTimeInt64(out), else ffi::SQLITE_ERROR)
}
