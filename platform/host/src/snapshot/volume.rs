//! Making a volume of a snapshot, before the VM has a cell. May be interrupted anywhere and done again.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::shelf::sync;
use super::{SnapshotError, failed};
use crate::migration::files::{DATABASE, databases};
use crate::registry::RegistryError;

/// Notes that the volume is made.
type Done = Arc<dyn Fn() -> Result<(), RegistryError> + Send + Sync>;

/// What is to be done before the VM has another cell.
#[derive(Clone)]
pub struct Remaking {
    /// The snapshot's files.
    pub(crate) from: PathBuf,
    /// The volume.
    pub(crate) volume: PathBuf,
    /// Whose it is.
    pub(crate) uid: u32,
    /// Notes that it is done.
    pub(crate) done: Done,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum RemakingError {
    /// A file.
    #[error(transparent)]
    File(#[from] SnapshotError),
    /// It was done, and is done again, for it could not be noted.
    #[error("note that the volume is made of its snapshot")]
    Registry(#[from] RegistryError),
}

impl Remaking {
    /// The volume is the snapshot, and nothing else. Blocks.
    ///
    /// # Errors
    /// [`RemakingError`]; the volume is of no use until it has been done.
    pub fn run(&self) -> Result<(), RemakingError> {
        self.volume()?;
        Ok((self.done)()?)
    }

    fn volume(&self) -> Result<(), SnapshotError> {
        let Self { from, volume, uid, .. } = self;
        match DirBuilder::new().mode(0o700).create(volume) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create", volume)(error));
            }
            _ => chown(volume, Some(*uid), Some(*uid)).map_err(failed("change the owner of", volume))?,
        }
        let copies = databases(from).map_err(failed("list", from))?;
        // First all that takes long or may fail for want of room; the old databases are whole until then.
        for copy in &copies {
            self.copy(copy)?;
        }
        for entry in fs::read_dir(volume).map_err(failed("list", volume))? {
            let path = entry.map_err(failed("list", volume))?.path();
            if copies.iter().all(|copy| self.places(copy).0 != path) {
                remove(&path)?;
            }
        }
        for copy in &copies {
            let (new, place) = self.places(copy);
            fs::rename(&new, &place).map_err(failed("rename", new))?;
        }
        sync(volume)?;
        volume.parent().map_or(Ok(()), sync)
    }

    fn copy(&self, copy: &Path) -> Result<(), SnapshotError> {
        let (new, _) = self.places(copy);
        remove(&new)?;
        // A cell of before may have left anything: what is there is not opened.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
        let mut file = opened.map_err(failed("create", &new))?;
        let mut source = File::open(copy).map_err(failed("open", copy))?;
        // Shares the blocks where the file system can.
        io::copy(&mut source, &mut file).map_err(failed("write", &new))?;
        fchown(&file, Some(self.uid), Some(self.uid)).map_err(failed("change the owner of", &new))?;
        file.sync_all().map_err(failed("sync", &new))
    }

    /// Where a database is put first, and where it belongs.
    fn places(&self, copy: &Path) -> (PathBuf, PathBuf) {
        let name = copy.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.strip_suffix(DATABASE).unwrap_or(&name);
        (self.volume.join(format!("{stem}{NEW}")), self.volume.join(format!("{stem}{DATABASE}")))
    }
}

/// What the name of a database ends with before it is in its place.
const NEW: &str = ".db.new";

fn remove(path: &Path) -> Result<(), SnapshotError> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

impl fmt::Debug for Remaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remaking")
            .field("from", &self.from)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}
