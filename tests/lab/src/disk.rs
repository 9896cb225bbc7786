//! Disks of a host's own: a file system in memory that can be filled, with ballast, and one that shares blocks.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::output;

/// What a host's state is on. It goes with the run; takes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// So many bytes of memory.
    Small(u64),
    /// A btrfs, which can share blocks between files.
    Reflink,
}

/// Size of a disk that shares blocks: about the least that btrfs takes.
const REFLINK_BYTES: u64 = 256 << 20;

/// Puts a disk at a new directory.
pub fn mount(at: &Path, disk: Disk) -> Result<()> {
    fs::create_dir(at).with_context(|| format!("making {}", at.display()))?;
    let mut command = Command::new("mount");
    match disk {
        Disk::Small(bytes) => {
            command.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=755"), "vamos-lab"]);
        }
        Disk::Reflink => {
            let image = at.with_extension("btrfs");
            let file = File::create(&image).with_context(|| format!("making {}", image.display()))?;
            file.set_len(REFLINK_BYTES).context("sizing a disk")?;
            output(Command::new("mkfs.btrfs").arg("--quiet").arg(&image))?;
            command.args(["-o", "loop"]).arg(&image);
        }
    }
    output(command.arg(at)).map(|_| ())
}

/// Takes away every file system under a directory, the last one first, whoever still uses it.
pub fn unmount_below(directory: &Path) -> Result<()> {
    let mounted = fs::read_to_string("/proc/self/mountinfo").context("listing file systems")?;
    for at in below(&mounted, directory).into_iter().rev() {
        output(Command::new("umount").arg("--lazy").arg(at))?;
    }
    Ok(())
}

/// The places of the file systems under a directory, as proc(5) lists them.
fn below<'a>(mounted: &'a str, directory: &Path) -> Vec<&'a Path> {
    let places = mounted.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    places.filter(|place| place.starts_with(directory)).collect()
}

/// All the room that there was. Dropped, it is there again.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    /// Takes all the room of the file system that `directory` is on.
    pub fn fill(directory: &Path) -> Result<Self> {
        let path = directory.join("ballast");
        let mut file = File::create(&path).context("making ballast")?;
        let ballast = Self(path);
        for size in [1 << 20, 4096] {
            let bytes = vec![1; size];
            loop {
                match file.write(&bytes) {
                    // What is left is for the smaller piece.
                    Ok(written) if written < size => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("writing ballast"),
                }
            }
        }
        ensure!(file.metadata().context("weighing ballast")?.len() > 0, "the disk was full before");
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("lab: remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_below_a_directory_are_found() {
        let mounted = "22 1 0:5 / / rw - ext4 /dev/vda rw\n\
                       30 22 0:40 / /tmp/run-1/state rw shared:9 - tmpfs x rw\n\
                       31 22 0:41 / /tmp/run-12/state rw - tmpfs x rw\n";
        assert_eq!(below(mounted, Path::new("/tmp/run-1")), [Path::new("/tmp/run-1/state")]);
    }
}
