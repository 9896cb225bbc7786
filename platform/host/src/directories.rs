//! The state and run directories: made or checked at start, and locked against a second vamosd.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The kernel says so.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others could change what is in it.
    #[error("{} is not safe: {reason}", .path.display())]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Another vamosd uses it.
    #[error("{} is used by another vamosd{holder}; stop that one, or give this one a directory of its own", .path.display())]
    InUse {
        /// Which.
        path: PathBuf,
        /// The other's process, if it is known.
        holder: String,
    },
}

/// The directories of one vamosd, locked for as long as this lives.
#[derive(Debug)]
pub struct Directories {
    state: PathBuf,
    run: PathBuf,
    _locks: [File; 2],
}

impl Directories {
    /// Makes what is missing, checks what is there and locks both. The sockets of VMs that a killed predecessor
    /// left are not touched: its cells may live, and wait at them.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn prepare(state: &Path, run: &Path) -> Result<Self, DirectoryError> {
        for directory in [state, run] {
            make(directory)?;
            check_ancestors(directory)?;
        }
        let locks = [lock(state)?, lock(run)?];
        make(&state.join("volumes"))?;
        make(&state.join("arriving"))?;
        make(&state.join("snapshots"))?;
        make(&run.join("vms"))?;
        Ok(Self { state: state.into(), run: run.into(), _locks: locks })
    }

    /// The registry's file.
    pub fn registry(&self) -> PathBuf {
        self.state.join("registry.db")
    }

    /// The durable directory of a VM.
    pub fn volume(&self, vm: &str) -> PathBuf {
        self.state.join("volumes").join(vm)
    }

    /// Where the directory of a VM that comes from another host is put together.
    pub fn arriving(&self, vm: &str) -> PathBuf {
        self.state.join("arriving").join(vm)
    }

    /// Where the snapshots of a VM's volume are.
    pub fn snapshots(&self, vm: &str) -> PathBuf {
        self.state.join("snapshots").join(vm)
    }

    /// What the edge keeps on disk.
    pub fn edge(&self) -> PathBuf {
        self.state.join("edge")
    }

    /// Where the edge writes who was answered what, unless it is told otherwise.
    pub fn access_log(&self) -> PathBuf {
        self.state.join("access.log")
    }

    /// Where the edge waits for the next vamosd.
    pub fn edge_rendezvous(&self) -> PathBuf {
        self.run.join("edge.sock")
    }

    /// The control plane's socket.
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// The socket of a VM's device; its directory is made.
    ///
    /// # Errors
    /// As `mkdir(2)`.
    pub fn vm_socket(&self, vm: &str) -> io::Result<PathBuf> {
        let directory = self.run.join("vms").join(vm);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(directory.join("vhost.sock"))
    }

    /// Where a VM's cell waits for the next vamosd.
    pub fn rendezvous(&self, vm: &str) -> PathBuf {
        self.run.join("vms").join(vm).join("cell.sock")
    }

    /// Removes a VM's directory below the run directory.
    pub fn remove_vm_run(&self, vm: &str) {
        // What cannot be removed now is removed at the next start.
        let _ = fs::remove_dir_all(self.run.join("vms").join(vm));
    }

    /// A name for this vamosd's control groups that no other one has: the state directory's identity.
    pub fn instance(&self) -> io::Result<String> {
        let metadata = fs::metadata(&self.state)?;
        Ok(format!("vamos-{:x}-{:x}", metadata.dev(), metadata.ino()))
    }

    /// Names of the VMs that have a directory below the run directory.
    pub fn vm_runs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.run.join("vms")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    move |source| DirectoryError::Io { action, path: path.into(), source }
}

/// Makes a directory only its owner can enter, or checks that the one there belongs to us and nobody else
/// can write to it.
fn make(path: &Path) -> Result<(), DirectoryError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
    let metadata = fs::metadata(path).map_err(failed("look up", path))?;
    let own = rustix::process::geteuid().as_raw();
    let unsafe_because = |reason| Err(DirectoryError::Unsafe { path: path.into(), reason });
    if metadata.uid() != own {
        return unsafe_because(format!("it belongs to uid {}; run: chown {own} on it", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return unsafe_because(format!("its mode {mode:04o} lets others write to it; run: chmod 700 on it"));
    }
    Ok(())
}

/// A directory above that others can write to lets them put another one in the place of ours; the sticky bit
/// (as on /tmp) prevents that.
fn check_ancestors(path: &Path) -> Result<(), DirectoryError> {
    for above in path.ancestors().skip(1) {
        let metadata = fs::metadata(above).map_err(failed("look up", above))?;
        if metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0 {
            let reason = format!("others can write to {} above it; run: chmod go-w on that", above.display());
            return Err(DirectoryError::Unsafe { path: path.into(), reason });
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let holder = if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
            return Err(DirectoryError::InUse { path: directory.into(), holder });
        }
        Err(error) => return Err(failed("lock", &path)(error.into())),
    }
    // For whoever is refused; the lock itself does not depend on it.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn t25_two_daemons_cannot_share_a_directory() {
        let keep = tempfile::tempdir().unwrap();
        let (state, run) = (keep.path().join("state"), keep.path().join("run"));
        let first = Directories::prepare(&state, &run).unwrap();
        let refused = Directories::prepare(&state, &keep.path().join("other")).unwrap_err();
        let own = format!("(pid {})", std::process::id());
        assert!(refused.to_string().contains(&own), "{refused}");
        assert!(matches!(
            Directories::prepare(&keep.path().join("other-state"), &run),
            Err(DirectoryError::InUse { .. })
        ));
        drop(first);
        Directories::prepare(&state, &run).unwrap();
    }

    #[test]
    fn t25_a_directory_others_can_write_to_is_refused() {
        let keep = tempfile::tempdir().unwrap();
        let (state, run) = (keep.path().join("state"), keep.path().join("run"));
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Directories::prepare(&state, &run).unwrap_err();
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        let above = keep.path().join("open");
        fs::create_dir(&above).unwrap();
        fs::set_permissions(&above, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Directories::prepare(&above.join("state"), &run).unwrap_err();
        assert!(refused.to_string().contains("chmod go-w"), "{refused}");
    }

    #[test]
    fn sockets_of_a_killed_predecessor_stay_for_its_cells_sake() {
        let keep = tempfile::tempdir().unwrap();
        let (state, run) = (keep.path().join("state"), keep.path().join("run"));
        let first = Directories::prepare(&state, &run).unwrap();
        let socket = first.vm_socket("web-1").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        drop(first);
        let next = Directories::prepare(&state, &run).unwrap();
        assert!(socket.exists());
        assert_eq!(next.vm_runs(), ["web-1"]);
        next.remove_vm_run("web-1");
        assert!(next.vm_runs().is_empty());
    }
}
