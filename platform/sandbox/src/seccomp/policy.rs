//! The system calls of a cell: one line each, with who needs it. A line nobody needs any more is to be
//! removed; `platform/cell/tests/syscalls.rs` traces a working cell and says which those are.

use libc::{
    AF_UNIX, CLONE_THREAD, F_ADD_SEALS, F_DUPFD_CLOEXEC, F_GET_SEALS, F_GETFD, F_GETFL, F_GETLK, F_SETFD,
    F_SETFL, F_SETLK, F_SETLKW, FICLONE, FIONBIO, FIONREAD, PR_SET_NAME, PROT_EXEC, TCP_NODELAY,
};

/// What the arguments must be.
#[derive(Debug)]
pub enum Arguments {
    /// Anything.
    Any,
    /// The low 32 bits of argument `index` equal one of `values`.
    OneOf {
        /// Which argument, from 0.
        index: u8,
        /// What it may be.
        values: &'static [u64],
    },
    /// The bits of argument `index` under `mask` equal `value`.
    Bits {
        /// Which argument, from 0.
        index: u8,
        /// Which bits.
        mask: u32,
        /// What they must be.
        value: u32,
    },
}

/// A call that is let through.
#[derive(Debug)]
pub struct Allowed {
    /// Its number on this architecture.
    pub number: i64,
    /// Its name.
    pub name: &'static str,
    /// What its arguments must be.
    pub arguments: Arguments,
    /// Who needs it, and for what.
    pub reason: &'static str,
}

/// A call that is answered with an error.
#[derive(Debug)]
pub struct Answered {
    /// Its number on this architecture.
    pub number: i64,
    /// Its name.
    pub name: &'static str,
    /// The error.
    pub errno: i32,
    /// Who asks, and what it does when it is refused.
    pub reason: &'static str,
}

macro_rules! allow {
    ($($number:ident $(($arguments:expr))? : $reason:literal,)*) => {
        &[$(Allowed {
            number: libc::$number,
            name: stringify!($number),
            arguments: allow!(@ $($arguments)?),
            reason: $reason,
        }),*]
    };
    (@) => { Arguments::Any };
    (@ $arguments:expr) => { $arguments };
}

const NOT_EXECUTABLE: Arguments = Arguments::Bits { index: 2, mask: PROT_EXEC as u32, value: 0 };
const A_THREAD: Arguments =
    Arguments::Bits { index: 0, mask: CLONE_THREAD as u32, value: CLONE_THREAD as u32 };
const FILE_COMMANDS: Arguments = Arguments::OneOf {
    index: 1,
    values: &[
        F_DUPFD_CLOEXEC as u64,
        F_GETFD as u64,
        F_SETFD as u64,
        F_GETFL as u64,
        F_SETFL as u64,
        F_GETLK as u64,
        F_SETLK as u64,
        F_SETLKW as u64,
        F_GET_SEALS as u64,
        F_ADD_SEALS as u64,
    ],
};
const LOCAL: Arguments = Arguments::OneOf { index: 0, values: &[AF_UNIX as u64] };
const REQUESTS: Arguments = Arguments::OneOf { index: 1, values: &[FIONBIO, FIONREAD, FICLONE] };
const THREAD_NAME: Arguments = Arguments::OneOf { index: 0, values: &[PR_SET_NAME as u64] };

const WITHOUT_DELAY: Arguments = Arguments::OneOf { index: 2, values: &[TCP_NODELAY as u64] };

/// What the edge may do besides.
pub const EDGE: &[Allowed] = allow! {
    SYS_setsockopt(WITHOUT_DELAY): "what is written to a client is written whole",
    SYS_getsockname: "tokio asks whether a socket is one of TCP",
    SYS_rename: "a file of the cache gets its name when it is whole",
    SYS_renameat: "the same, of a newer libc",
    SYS_renameat2: "the same, of a newer libc",
    SYS_mkdir: "the cache sorts its files into directories",
    SYS_rmdir: "and removes those that are not its own",
};

/// The list.
pub const ALLOWED: &[Allowed] = allow! {
    // The device and the control channel.
    SYS_recvmsg: "vhost-user and control messages with their descriptors",
    SYS_sendmsg: "vhost-user and control replies",
    SYS_accept4: "the next vamosd connects when one has vanished",
    SYS_recvfrom: "std reads a Unix stream with recv",
    SYS_sendto: "std writes a Unix stream with send",
    SYS_shutdown: "ending the device's socket wakes its reader",
    SYS_socketpair(LOCAL): "tokio's signal driver, which comes with its reactor; connects to nothing but itself",
    SYS_getsockopt: "mio asks a socket for its pending error",
    SYS_read: "kick eventfds, database files, the runtime's own wake-ups",
    SYS_write: "call eventfds and pipes, log lines, the runtime's own wake-ups",
    SYS_writev: "std writes log lines in pieces",
    SYS_readv: "tokio reads a stream into several buffers",
    SYS_close: "every descriptor that is given back",
    SYS_eventfd2: "mio's waker and the device's exit events",
    SYS_epoll_create1: "the runtime's reactor",
    SYS_epoll_ctl: "the runtime's reactor",
    SYS_epoll_wait: "the runtime's reactor",
    SYS_poll: "std waits for one descriptor with a limit",
    SYS_ppoll: "the device asks whether a reply fits its socket",
    SYS_fcntl(FILE_COMMANDS): "SQLite's file locks; mio duplicates descriptors; memfd seals are checked",
    SYS_ioctl(REQUESTS): "std makes a socket non-blocking; the device asks how much of a message has come; a snapshot shares blocks",
    SYS_fstat: "sizes of guest memory files and databases",
    // SQLite's files.
    SYS_openat: "SQLite opens databases, logs and their directory",
    SYS_newfstatat: "SQLite and std look whether a file exists",
    SYS_stat: "SQLite built against an older glibc looks whether a file exists",
    SYS_lstat: "SQLite resolves a path without following links",
    SYS_statx: "std looks up a file's metadata",
    SYS_access: "SQLite looks for a hot journal",
    SYS_readlink: "SQLite resolves a path",
    SYS_getcwd: "SQLite makes a path absolute",
    SYS_lseek: "SQLite and std find a file's end",
    SYS_pread64: "SQLite reads pages",
    SYS_pwrite64: "SQLite writes pages and log frames",
    SYS_fsync: "SQLite makes the directory entry durable",
    SYS_fdatasync: "SQLite makes commits durable",
    SYS_ftruncate: "SQLite sizes the log and its index",
    SYS_fallocate: "SQLite reserves room for the log's index",
    SYS_unlink: "SQLite removes its log and journal",
    SYS_fchmod: "SQLite gives its log the database's mode",
    SYS_geteuid: "SQLite asks whether it could change a file's owner",
    SYS_getdents64: "std lists the volume to remove an unbound database",
    // Memory.
    SYS_mmap(NOT_EXECUTABLE): "guest memory, the log's index, thread stacks, the allocator",
    SYS_mprotect(NOT_EXECUTABLE): "thread stacks and the allocator; never executable",
    SYS_munmap: "guest memory, thread stacks, the allocator",
    SYS_mremap: "the allocator grows large blocks, SQLite the log's index",
    SYS_madvise: "the allocator gives pages back, glibc frees stacks",
    SYS_brk: "the allocator's main arena",
    // Threads and time.
    SYS_clone(A_THREAD): "workers; threads only, never a process or a namespace",
    SYS_set_robust_list: "glibc starts a thread",
    SYS_rseq: "glibc starts a thread",
    SYS_prctl(THREAD_NAME): "std names a thread",
    SYS_sigaltstack: "std guards a thread's stack",
    SYS_rt_sigprocmask: "glibc starts and ends threads with signals blocked",
    SYS_rt_sigaction: "std resets a handler before it aborts",
    SYS_rt_sigreturn: "returning from std's stack-overflow handler",
    SYS_futex: "locks and parked workers",
    SYS_sched_yield: "spinning briefly for a lock",
    SYS_sched_getaffinity: "glibc sizes a thread's stack, std counts processors",
    SYS_clock_gettime: "clocks, where the vDSO cannot answer",
    SYS_clock_nanosleep: "SQLite's busy handler and std's sleep",
    SYS_restart_syscall: "the kernel resumes an interrupted sleep",
    SYS_getrandom: "hash seeds and session epochs",
    SYS_getpid: "SQLite and abort ask for it",
    SYS_gettid: "abort signals its own thread",
    SYS_tgkill: "abort signals its own thread; the pid namespace holds no other process",
    SYS_exit: "a thread ends",
    SYS_exit_group: "the process ends",
};

/// Calls that are answered.
pub const ANSWERED: &[Answered] = &[
    Answered {
        number: libc::SYS_clone3,
        name: "SYS_clone3",
        errno: libc::ENOSYS,
        reason: "glibc then uses clone, whose flags a filter can see",
    },
    Answered {
        number: libc::SYS_io_uring_setup,
        name: "SYS_io_uring_setup",
        errno: libc::EPERM,
        reason: "a filter cannot see what a ring does; callers fall back to ordinary calls",
    },
];
