//! A disk of a host's own that can be filled: a file system in memory, and ballast.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::output;

/// Puts a file system of so many bytes at a new directory. It goes with the run.
pub fn mount(at: &Path, bytes: u64) -> Result<()> {
    fs::create_dir(at).with_context(|| format!("making {}", at.display()))?;
    let options = format!("size={bytes},mode=755");
    output(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "vamos-lab"]).arg(at)).map(|_| ())
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
