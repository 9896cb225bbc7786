//! Every limit of this crate, unit and MAX last.

/// Most descriptors one message can carry: the kernel's `SCM_MAX_FD`. Room for all of them is always
/// given, so that none is ever lost to truncation and each can be closed.
pub const PASSED_FDS_MAX: usize = 253;

/// Most system calls the allow-list of a confined process may name.
pub const ALLOWED_SYSCALLS_MAX: usize = 80;

/// Size of the minimal root file system, bytes: two directories and a device node.
pub const ROOT_BYTES_MAX: usize = 64 << 10;

/// Arenas glibc may create, so that an idle process stays small.
pub const MALLOC_ARENAS_MAX: i32 = 2;
