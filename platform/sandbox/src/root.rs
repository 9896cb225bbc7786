//! A root file system with nothing in it but the volume and a source of random bytes.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};

use crate::Plan;
use crate::limits::ROOT_BYTES_MAX;

/// Where a confined process finds its volume.
pub const VOLUME: &str = "/volume";

/// Where the new root is put together: a directory every Linux has and that the process, in its own mount
/// namespace, will not see again.
const STAGE: &str = "/sys";

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Replaces the root directory. Needs an own mount namespace, which also means that nothing has to be
/// unmounted when the process dies.
pub(crate) fn replace(plan: &Plan) -> io::Result<String> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let options = format!("size={ROOT_BYTES_MAX},nr_inodes=16,mode=0755\0");
    let options = CStr::from_bytes_with_nul(options.as_bytes()).map_err(io::Error::other)?;
    mount("none", STAGE, "tmpfs", QUIET, options)?;
    let stage = Path::new(STAGE);
    bind_volume(plan, &stage.join("volume"))?;
    bind_urandom(stage)?;
    mount_remount(STAGE, MountFlags::BIND | MountFlags::RDONLY | QUIET, c"")?;
    // pivot_root(2), "pivot_root(".", ".")": the old root is stacked below the new one and unmounted.
    chdir(STAGE)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(format!("only {VOLUME} and /dev/urandom"))
}

fn bind_volume(plan: &Plan, target: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(target)?;
    mount_bind(&plan.volume, target)?;
    mount_remount(target, MountFlags::BIND | QUIET, c"")?;
    let owner = fs::metadata(target)?.uid();
    if owner != plan.uid {
        let message = format!("{} belongs to uid {owner}, not to {}", plan.volume.display(), plan.uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// SQLite seeds its random numbers from `/dev/urandom` and would otherwise fall back to the clock and a pid
/// that is always 1.
fn bind_urandom(stage: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(stage.join("dev"))?;
    let target = stage.join("dev/urandom");
    File::create(&target)?;
    mount_bind("/dev/urandom", &target)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
    Ok(mount_remount(&target, flags, c"")?)
}
