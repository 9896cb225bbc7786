//! Where a snapshot's files are kept: whole, or not there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use vamos_proto::cell::SNAPSHOT_SUFFIX;

use super::{SnapshotError, failed};
use crate::migration::files::{DATABASE, regular};
use crate::names::ServiceName;

/// The place of one snapshot.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    all: PathBuf,
    partial: PathBuf,
    whole: PathBuf,
}

impl Shelf {
    /// `all` is where the VM's snapshots are.
    pub(super) fn new(all: PathBuf, name: &str) -> Self {
        // No name begins with a dot.
        Self { partial: all.join(format!(".{name}")), whole: all.join(name), all }
    }

    /// Takes the copies that the cell has made beside its databases. The cell is not trusted: what it has put there is
    /// taken away from it, and is a regular file or refused.
    pub(super) fn take(&self, volume: &Path, databases: &[ServiceName]) -> Result<(), SnapshotError> {
        self.clear()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.partial)
            .map_err(failed("create", &self.partial))?;
        for name in databases {
            let (copy, kept) = (
                volume.join(format!("{name}{SNAPSHOT_SUFFIX}")),
                self.partial.join(format!("{name}{DATABASE}")),
            );
            fs::rename(&copy, &kept).map_err(failed("take", &copy))?;
            let file = regular(&kept).map_err(failed("open", &kept))?;
            let file = file.ok_or_else(|| SnapshotError::NoCopy(kept.clone()))?;
            if file.metadata().map_err(failed("look up", &kept))?.nlink() != 1 {
                return Err(SnapshotError::NoCopy(kept));
            }
            chown(&kept, Some(0), Some(0)).or_else(unprivileged).map_err(failed("own", &kept))?;
            file.sync_all().map_err(failed("sync", &kept))?;
        }
        sync(&self.partial)?;
        fs::rename(&self.partial, &self.whole).map_err(failed("rename", &self.partial))?;
        // The VM's directory may be new, too.
        sync(&self.all)?;
        self.all.parent().map_or(Ok(()), sync)
    }

    /// Removes what is there.
    pub(super) fn clear(&self) -> Result<(), SnapshotError> {
        for path in [&self.partial, &self.whole] {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Removes copies that nobody has taken: they may hold the last room there is.
pub(super) fn leave_nothing(volume: &Path, databases: &[ServiceName]) {
    for name in databases {
        // What stays is replaced by the next one.
        let _ = fs::remove_file(volume.join(format!("{name}{SNAPSHOT_SUFFIX}")));
    }
}

/// Without root there is one user, who owns it already.
fn unprivileged(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::PermissionDenied { Ok(()) } else { Err(error) }
}

pub(super) fn sync(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn shelf(keep: &Path) -> (Shelf, PathBuf) {
        let volume = keep.join("volume");
        fs::create_dir_all(&volume).unwrap();
        (Shelf::new(keep.join("snapshots"), "one"), volume)
    }

    #[test]
    fn what_is_taken_is_whole_and_nothing_else_is_there() {
        let keep = tempfile::tempdir().unwrap();
        let (shelf, volume) = shelf(keep.path());
        fs::write(volume.join("app.db.snapshot"), b"copy").unwrap();
        shelf.take(&volume, &[ServiceName::new("app").unwrap()]).unwrap();
        assert_eq!(fs::read(keep.path().join("snapshots/one/app.db")).unwrap(), b"copy");
        assert!(!volume.join("app.db.snapshot").exists() && !keep.path().join("snapshots/.one").exists());
        shelf.clear().unwrap();
        assert!(!keep.path().join("snapshots/one").exists());
    }

    #[test]
    fn what_a_cell_gone_bad_has_put_there_is_refused() {
        let keep = tempfile::tempdir().unwrap();
        let (shelf, volume) = shelf(keep.path());
        let copy = volume.join("app.db.snapshot");
        let secret = keep.path().join("secret");
        fs::write(&secret, b"of the host").unwrap();
        let plants: [&dyn Fn(); 3] =
            [&|| symlink(&secret, &copy).unwrap(), &|| fs::hard_link(&secret, &copy).unwrap(), &|| {
                fs::create_dir(&copy).unwrap()
            }];
        for plant in plants {
            plant();
            let refused = shelf.take(&volume, &[ServiceName::new("app").unwrap()]).unwrap_err();
            assert!(refused.to_string().contains("is no copy of a database"), "{refused}");
            assert!(!keep.path().join("snapshots/one").exists());
        }
        let missing = shelf.take(&volume, &[ServiceName::new("app").unwrap()]).unwrap_err();
        assert!(missing.to_string().contains("take "), "{missing}");
        assert_eq!(fs::read(&secret).unwrap(), b"of the host");
    }
}
