//! An evil cell: a process that has entered the sandbox and is wholly the attacker's tries to get out.
//!
//! Every attempt runs twice, each time in a fresh process: behind all walls, and with seccomp left out, where
//! the other walls must hold alone unless the attempt is marked as seccomp's own. A third list holds what a cell
//! must still be able to do. Threat 21; run as root, because that is who starts cells.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio, exit};
use std::thread;

use libc::{c_char, c_long};
use rustix::process::{WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};
use vamos_sandbox::{Enforcement, Entered, Layer, Plan, Profile, ResourceLimits, enter};

const UID: u32 = 70_001;

/// Who has to stop an attempt.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// More than one wall: it must fail without seccomp too.
    Any,
    /// Only the list of system calls; harmless to others, but nothing a cell needs.
    Seccomp,
}

type Attempt = (&'static str, By, fn() -> io::Result<()>);

fn call(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> io::Result<usize> {
    // SAFETY: the pointers among the arguments come from live strings or are null; an attempt that
    // wrecks this process has failed, and the process exists for nothing else.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, 0usize) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn done(result: io::Result<usize>) -> io::Result<()> {
    result.map(drop)
}

fn text(text: &'static [u8]) -> usize {
    text.as_ptr() as usize
}

fn opens(path: &str) -> io::Result<()> {
    File::open(path).map(drop)
}

fn writes(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(b"evil")
}

/// What a pid outside could be: any process but this one.
const OUTSIDE: usize = 2;

const EXECUTABLE: usize = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as usize;
const PRIVATE: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;

#[rustfmt::skip]
const ATTEMPTS: &[Attempt] = &[
    // Files outside the volume.
    ("open /etc/passwd", By::Any, || opens("/etc/passwd")),
    ("open /etc/shadow above the volume", By::Any, || opens("/volume/../etc/shadow")),
    ("open /proc/self/status", By::Any, || opens("/proc/self/status")),
    ("open /proc/1/root", By::Any, || opens("/proc/1/root/etc/passwd")),
    ("open /sys", By::Any, || opens("/sys/kernel")),
    ("open /dev/kvm", By::Any, || opens("/dev/kvm")),
    ("open /dev/vda", By::Any, || opens("/dev/vda")),
    ("list /", By::Any, || fs::read_dir("/").map(drop)),
    ("write /evil", By::Any, || writes("/evil")),
    ("write /dev/evil", By::Any, || writes("/dev/evil")),
    ("write /dev/urandom", By::Any, || writes("/dev/urandom")),
    ("write above the volume", By::Any, || writes("/volume/../evil")),
    // Things in the volume that are not files.
    ("mkdir", By::Any, || fs::create_dir("/volume/directory")),
    ("symlink", By::Any, || std::os::unix::fs::symlink("/etc", "/volume/link")),
    ("mknod of a disk", By::Any, || done(call(libc::SYS_mknod, text(b"/volume/disk\0"), (libc::S_IFBLK | 0o666) as usize, 0xfe00, 0, 0))),
    ("mkfifo", By::Any, || done(call(libc::SYS_mknod, text(b"/volume/fifo\0"), (libc::S_IFIFO | 0o666) as usize, 0, 0, 0))),
    ("hard link of the volume's own file", By::Seccomp, || { writes("/volume/a")?; fs::hard_link("/volume/a", "/volume/b") }),
    ("give a file to root", By::Any, || { writes("/volume/a")?; chown("/volume/a", Some(0), Some(0)) }),
    ("run a program of the volume", By::Any, || {
        fs::write("/volume/program", b"#!/bin/true\n")?;
        let program = CString::new("/volume/program")?;
        let arguments = [program.as_ptr(), std::ptr::null::<c_char>()];
        done(call(libc::SYS_execve, program.as_ptr() as usize, arguments.as_ptr() as usize, 0, 0, 0))
    }),
    ("run a shell", By::Any, || done(call(libc::SYS_execve, text(b"/bin/sh\0"), 0, 0, 0, 0))),
    ("open by handle", By::Any, || done(call(libc::SYS_open_by_handle_at, libc::AT_FDCWD as usize, text(&[0; 64]), 0, 0, 0))),
    // Mounts and roots.
    ("mount tmpfs", By::Any, || done(call(libc::SYS_mount, text(b"none\0"), text(b"/volume\0"), text(b"tmpfs\0"), 0, 0))),
    ("remount writable", By::Any, || done(call(libc::SYS_mount, 0, text(b"/\0"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize, 0))),
    ("unmount the volume", By::Any, || done(call(libc::SYS_umount2, text(b"/volume\0"), libc::MNT_DETACH as usize, 0, 0, 0))),
    ("open_tree", By::Any, || done(call(libc::SYS_open_tree, libc::AT_FDCWD as usize, text(b"/\0"), 1, 0, 0))),
    ("fsopen", By::Any, || done(call(libc::SYS_fsopen, text(b"tmpfs\0"), 0, 0, 0, 0))),
    ("chroot", By::Any, || done(call(libc::SYS_chroot, text(b"/volume\0"), 0, 0, 0, 0))),
    ("pivot_root", By::Any, || done(call(libc::SYS_pivot_root, text(b"/volume\0"), text(b"/volume\0"), 0, 0, 0))),
    // Namespaces and processes.
    ("unshare a network", By::Any, || done(call(libc::SYS_unshare, libc::CLONE_NEWNET as usize, 0, 0, 0, 0))),
    ("unshare a user namespace", By::Seccomp, || done(call(libc::SYS_unshare, libc::CLONE_NEWUSER as usize, 0, 0, 0, 0))),
    ("clone a user namespace", By::Seccomp, || child(libc::CLONE_NEWUSER as usize | libc::SIGCHLD as usize)),
    ("fork", By::Seccomp, || child(libc::SIGCHLD as usize)),
    ("setns", By::Any, || done(call(libc::SYS_setns, 0, 0, 0, 0, 0))),
    ("kill everyone", By::Any, || done(call(libc::SYS_kill, usize::MAX, libc::SIGKILL as usize, 0, 0, 0))),
    ("kill vamosd", By::Any, || done(call(libc::SYS_kill, OUTSIDE, libc::SIGKILL as usize, 0, 0, 0))),
    ("signal a thread outside", By::Any, || done(call(libc::SYS_tgkill, OUTSIDE, OUTSIDE, libc::SIGKILL as usize, 0, 0))),
    ("ptrace a process outside", By::Any, || done(call(libc::SYS_ptrace, libc::PTRACE_ATTACH as usize, OUTSIDE, 0, 0, 0))),
    ("be traced", By::Seccomp, || done(call(libc::SYS_ptrace, libc::PTRACE_TRACEME as usize, 0, 0, 0, 0))),
    ("read another's memory", By::Any, || {
        let mut buffer = [0u8; 16];
        let piece = [buffer.as_mut_ptr() as usize, buffer.len()];
        done(call(libc::SYS_process_vm_readv, OUTSIDE, piece.as_ptr() as usize, 1, piece.as_ptr() as usize, 1))
    }),
    ("pidfd of a process outside", By::Any, || done(call(libc::SYS_pidfd_open, OUTSIDE, 0, 0, 0, 0))),
    // The network.
    ("reach the metadata address", By::Any, || std::net::TcpStream::connect("169.254.169.254:80").map(drop)),
    ("reach loopback", By::Any, || std::net::TcpStream::connect("127.0.0.1:22").map(drop)),
    ("send UDP", By::Any, || std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", "8.8.8.8:53").map(drop)),
    ("listen on TCP", By::Any, || std::net::TcpListener::bind("127.0.0.1:0").map(drop)),
    ("raw socket", By::Any, || done(call(libc::SYS_socket, libc::AF_INET as usize, libc::SOCK_RAW as usize, libc::IPPROTO_ICMP as usize, 0, 0))),
    ("packet socket", By::Any, || done(call(libc::SYS_socket, libc::AF_PACKET as usize, libc::SOCK_RAW as usize, 0x0300, 0, 0))),
    ("connect to vamosd's socket", By::Any, || std::os::unix::net::UnixStream::connect("/run/vamos/control.sock").map(drop)),
    ("bind a socket in the volume", By::Any, || std::os::unix::net::UnixListener::bind("/volume/socket").map(drop)),
    ("netlink socket", By::Seccomp, || done(call(libc::SYS_socket, libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0, 0, 0))),
    ("vsock socket", By::Seccomp, || done(call(libc::SYS_socket, libc::AF_VSOCK as usize, libc::SOCK_STREAM as usize, 0, 0, 0))),
    // Kernel surface.
    ("bpf", By::Any, || done(call(libc::SYS_bpf, 5, text(&[0; 128]), 128, 0, 0))),
    ("perf_event_open", By::Any, || done(call(libc::SYS_perf_event_open, text(&[0; 128]), usize::MAX, 0, usize::MAX, 0))),
    ("io_uring", By::Seccomp, || { let mut parameters = [0u64; 15]; done(call(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr() as usize, 0, 0, 0)) }),
    ("clone3", By::Seccomp, || { let arguments = [libc::CLONE_NEWUSER as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0]; child3(&arguments) }),
    ("userfaultfd", By::Any, || done(call(libc::SYS_userfaultfd, 0, 0, 0, 0, 0))),
    ("keyctl", By::Seccomp, || done(call(libc::SYS_keyctl, 0, usize::MAX - 2, 1, 0, 0))),
    ("add_key", By::Seccomp, || done(call(libc::SYS_add_key, text(b"user\0"), text(b"evil\0"), text(b"x"), 1, usize::MAX - 1))),
    ("init_module", By::Any, || done(call(libc::SYS_init_module, text(&[0; 16]), 16, text(b"\0"), 0, 0))),
    ("kexec", By::Any, || done(call(libc::SYS_kexec_load, 0, 0, 0, 0, 0))),
    ("reboot", By::Any, || done(call(libc::SYS_reboot, 0xfee1_dead, 672_274_793, 0x0123_4567, 0, 0))),
    ("swapon", By::Any, || done(call(libc::SYS_swapon, text(b"/volume/a\0"), 0, 0, 0, 0))),
    ("syslog", By::Any, || done(call(libc::SYS_syslog, 3, 0, 0, 0, 0))),
    ("acct", By::Any, || done(call(libc::SYS_acct, text(b"/volume/a\0"), 0, 0, 0, 0))),
    ("sethostname", By::Any, || done(call(libc::SYS_sethostname, text(b"evil"), 4, 0, 0, 0))),
    ("set the clock", By::Any, || done(call(libc::SYS_clock_settime, 0, text(&[0; 16]), 0, 0, 0))),
    ("iopl", By::Any, || done(call(libc::SYS_iopl, 3, 0, 0, 0, 0))),
    ("fanotify", By::Any, || done(call(libc::SYS_fanotify_init, 0, 0, 0, 0, 0))),
    ("memfd", By::Seccomp, || done(call(libc::SYS_memfd_create, text(b"evil\0"), 0, 0, 0, 0))),
    ("executable memory", By::Seccomp, || done(call(libc::SYS_mmap, 0, 4096, EXECUTABLE, PRIVATE, usize::MAX))),
    // Privileges.
    ("setuid 0", By::Any, || done(call(libc::SYS_setuid, 0, 0, 0, 0, 0))),
    ("setgid 0", By::Any, || done(call(libc::SYS_setgid, 0, 0, 0, 0, 0))),
    ("setgroups", By::Any, || done(call(libc::SYS_setgroups, 1, text(&[0; 8]), 0, 0, 0))),
    ("become another cell", By::Any, || done(call(libc::SYS_setresuid, UID as usize + 1, UID as usize + 1, UID as usize + 1, 0, 0))),
    ("raise the descriptor limit", By::Any, || raise(libc::RLIMIT_NOFILE as usize)),
    ("raise the file size limit", By::Any, || raise(libc::RLIMIT_FSIZE as usize)),
    ("allow core dumps", By::Any, || raise(libc::RLIMIT_CORE as usize)),
    ("be nicer to oneself", By::Any, || done(call(libc::SYS_setpriority, 0, 0, -20_isize as usize, 0, 0))),
    ("real-time priority", By::Any, || done(call(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO as usize, text(&[1, 0, 0, 0]), 0, 0))),
    ("lock memory", By::Any, || done(call(libc::SYS_mlockall, 1, 0, 0, 0, 0))),
    ("drop no_new_privs", By::Any, || done(call(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as usize, 0, 0, 0, 0))),
    ("raise an ambient capability", By::Any, || done(call(libc::SYS_prctl, libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_RAISE as usize, 21, 0, 0))),
];

fn raise(resource: usize) -> io::Result<()> {
    let unlimited = [libc::RLIM_INFINITY; 2];
    done(call(libc::SYS_setrlimit, resource, unlimited.as_ptr() as usize, 0, 0, 0))
}

/// A child that ends at once: that it came to be is the success.
fn child(flags: usize) -> io::Result<()> {
    match call(libc::SYS_clone, flags, 0, 0, 0, 0)? {
        0 => exit(0),
        _ => Ok(()),
    }
}

fn child3(arguments: &[u64; 8]) -> io::Result<()> {
    match call(libc::SYS_clone3, arguments.as_ptr() as usize, size_of_val(arguments), 0, 0, 0)? {
        0 => exit(0),
        _ => Ok(()),
    }
}

/// Something that a cell must be able to do.
type Need = (&'static str, fn() -> io::Result<()>);

#[rustfmt::skip]
const NEEDS: &[Need] = &[
    ("make, write, sync, shrink and remove a file", || {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open("/volume/file")?;
        file.write_all(&[7; 8192])?;
        file.sync_data()?;
        file.set_len(100)?;
        fs::remove_file("/volume/file")
    }),
    ("make a directory entry durable", || {
        writes("/volume/durable")?;
        File::open("/volume")?.sync_all()
    }),
    ("share a file's memory", || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open("/volume/shm")?;
        file.set_len(32_768)?;
        let (access, shared) = ((libc::PROT_READ | libc::PROT_WRITE) as usize, libc::MAP_SHARED as usize);
        // SAFETY: a fresh mapping at an address of the kernel's choice; the descriptor is open.
        let address = unsafe { libc::syscall(libc::SYS_mmap, 0, 32_768, access, shared, file.as_raw_fd(), 0) };
        if address < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }),
    ("lock a file", || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open("/volume/lock")?;
        let lock = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 1, l_pid: 0 };
        done(call(libc::SYS_fcntl, file.as_raw_fd() as usize, libc::F_SETLK as usize, &raw const lock as usize, 0, 0))
    }),
    ("start threads", || {
        let threads: Vec<_> = (0..8).map(|n| thread::Builder::new().name(format!("worker-{n}")).spawn(move || n)).collect::<Result<_, _>>()?;
        threads.into_iter().try_for_each(|thread| thread.join().map(drop).map_err(|_| io::Error::other("panicked")))
    }),
    ("read random bytes", || { let mut bytes = [0; 16]; File::open("/dev/urandom")?.read_exact(&mut bytes) }),
    ("be told that io_uring is not for it", || match call(libc::SYS_io_uring_setup, 8, text(&[0; 128]), 0, 0, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        other => Err(io::Error::other(format!("{other:?}"))),
    }),
    ("be told that a file is too large", || {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open("/volume/large")?;
        match file.set_len(2 << 20) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(()),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }),
];

/// Runs in the process that is to be confined: enters, tries, and says by its exit code how that went.
fn confined(name: &str, volume: &str, without: &[Layer]) -> ExitCode {
    let plan = Plan {
        volume: volume.into(),
        uid: UID,
        gid: UID,
        enforcement: Enforcement::Strict,
        limits: ResourceLimits { open_files: 64, threads: 64, file_bytes: 1 << 20 },
        profile: Profile::Cell,
        without: without.to_vec(),
    };
    match enter(&plan) {
        Ok(Entered::Parent(_)) => return ExitCode::SUCCESS,
        Ok(Entered::Confined(_)) => {}
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::from(NOT_CONFINED);
        }
    }
    let attempts = ATTEMPTS.iter().map(|(name, _, attempt)| (*name, *attempt)).chain(NEEDS.iter().copied());
    let attempt = attempts.into_iter().find(|(known, _)| *known == name);
    match attempt.map(|(_, attempt)| attempt()) {
        Some(Ok(())) => ExitCode::from(SUCCEEDED),
        Some(Err(error)) => ExitCode::from(error.raw_os_error().map_or(FAILED, |_| REFUSED)),
        None => ExitCode::from(NOT_CONFINED),
    }
}

/// Harmless attempts that must succeed where there are no walls: else the test would prove nothing.
const CONTROLS: &[&str] = &[
    "open /etc/passwd",
    "open /proc/self/status",
    "list /",
    "unshare a network",
    "fork",
    "listen on TCP",
    "netlink socket",
    "memfd",
    "executable memory",
    "setgroups",
];

const SUCCEEDED: u8 = 40;
const REFUSED: u8 = 41;
const FAILED: u8 = 42;
const NOT_CONFINED: u8 = 43;

/// What became of one attempt.
#[derive(Debug, PartialEq)]
enum Outcome {
    Succeeded,
    Stopped(String),
    Broken(String),
}

fn attempt(name: &str, without: &[Layer]) -> Outcome {
    let volume = tempfile::tempdir().expect("a directory for the volume");
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    chown(volume.path(), Some(UID), Some(UID)).expect("chown");
    let mut first = Command::new(std::env::current_exe().expect("own path"))
        .env("EVIL_ATTEMPT", name)
        .env("EVIL_VOLUME", volume.path())
        .env("EVIL_WITHOUT", without.iter().map(|layer| layer.name()).collect::<Vec<_>>().join(","))
        .stdin(Stdio::null())
        .spawn()
        .expect("start the evil cell");
    let first = first.wait().expect("wait for the first process");
    if !first.success() {
        return Outcome::Broken(format!("did not fork: {first}"));
    }
    let Some(status) = confined_status() else { return Outcome::Broken("lost".into()) };
    check_volume(volume.path());
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) if signal == libc::SIGSYS => Outcome::Stopped("killed".into()),
        (Some(code), _) if code == i32::from(SUCCEEDED) => Outcome::Succeeded,
        (Some(code), _) if code == i32::from(REFUSED) => Outcome::Stopped("refused".into()),
        (Some(code), _) if code == i32::from(FAILED) => Outcome::Stopped("failed".into()),
        other => Outcome::Broken(format!("{other:?}")),
    }
}

/// How the confined process ended. It has become this one's child, and so has what it may have forked, which
/// ends with 0.
fn confined_status() -> Option<WaitStatus> {
    let mut confined = None;
    while let Ok(Some((_, status))) = wait(WaitOptions::empty()) {
        if status.exit_status() != Some(0) {
            confined = Some(status);
        }
    }
    confined
}

/// Nothing but files may be left in a volume.
fn check_volume(volume: &Path) {
    for entry in fs::read_dir(volume).expect("list the volume").flatten() {
        let kind = entry.file_type().expect("file type");
        assert!(kind.is_file(), "{} is left in the volume: {kind:?}", entry.path().display());
    }
}

fn main() -> ExitCode {
    if let (Ok(name), Ok(volume)) = (std::env::var("EVIL_ATTEMPT"), std::env::var("EVIL_VOLUME")) {
        let left_out = std::env::var("EVIL_WITHOUT").unwrap_or_default();
        let without: Vec<_> = Layer::ALL
            .into_iter()
            .filter(|layer| left_out.split(',').any(|name| name == layer.name()))
            .collect();
        return confined(&name, &volume, &without);
    }
    if !rustix::process::geteuid().is_root() {
        println!("evil: not root, so no cell can be confined here; nothing was tried");
        return ExitCode::SUCCESS;
    }
    set_child_subreaper(Some(getpid())).expect("become the reaper");
    let mut wrong = Vec::new();
    for (name, by, _) in ATTEMPTS {
        let behind_all = attempt(name, &[]);
        if !matches!(behind_all, Outcome::Stopped(_)) {
            wrong.push(format!("{name}: {behind_all:?}"));
        }
        if *by == By::Any {
            let behind_the_others = attempt(name, &[Layer::Seccomp]);
            if !matches!(behind_the_others, Outcome::Stopped(_)) {
                wrong.push(format!("{name}, without seccomp: {behind_the_others:?}"));
            }
        }
    }
    for name in CONTROLS {
        let outcome = attempt(name, &Layer::ALL);
        if outcome != Outcome::Succeeded {
            wrong.push(format!("{name}, without any wall: {outcome:?}"));
        }
    }
    for (name, _) in NEEDS {
        let outcome = attempt(name, &[]);
        if outcome != Outcome::Succeeded {
            wrong.push(format!("a cell cannot {name}: {outcome:?}"));
        }
    }
    for wrong in &wrong {
        println!("evil: {wrong}");
    }
    println!(
        "evil: {} attempts, {} things a cell needs, {} surprises",
        ATTEMPTS.len(),
        NEEDS.len(),
        wrong.len()
    );
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
