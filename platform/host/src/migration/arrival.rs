//! A volume that arrives, in a directory of its own until it is whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use super::departure::Piece;
use super::files;
use super::{MigrationError, failed};

/// Where a VM's volume arrives and where it belongs.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) incoming: PathBuf,
    pub(super) volume: PathBuf,
}

impl Arrival {
    /// An empty directory, whatever came before.
    pub(super) fn begin(&self) -> Result<(), MigrationError> {
        if fs::symlink_metadata(&self.volume).is_ok() {
            return Err(MigrationError::VolumeExists(self.volume.clone()));
        }
        self.discard()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.incoming)
            .map_err(failed("create", &self.incoming))
    }

    /// Removes what has come.
    pub(super) fn discard(&self) -> Result<(), MigrationError> {
        match fs::remove_dir_all(&self.incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.incoming)(error))
            }
            _ => Ok(()),
        }
    }

    /// Puts a piece in its place.
    pub(super) fn take(&self, piece: &Piece) -> Result<(), MigrationError> {
        if !files::is_ours(&piece.file) {
            return Err(MigrationError::Description(format!("{:?} is no file of a volume", piece.file)));
        }
        let path = self.incoming.join(&piece.file);
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = options.map_err(failed("open", &path))?;
        file.write_all_at(&piece.content, piece.offset).map_err(failed("write", &path))?;
        piece.length.map_or(Ok(()), |length| file.set_len(length)).map_err(failed("set the length of", path))
    }

    /// Everything that has come is on the disk.
    pub(super) fn flush(&self) -> Result<(), MigrationError> {
        for entry in fs::read_dir(&self.incoming).map_err(failed("list", &self.incoming))? {
            let path = entry.map_err(failed("list", &self.incoming))?.path();
            sync(&path)?;
        }
        sync(&self.incoming)
    }

    /// The volume is whole: it is `uid`'s, and where it belongs. May be repeated.
    pub(super) fn complete(&self, uid: u32) -> Result<(), MigrationError> {
        if fs::symlink_metadata(&self.volume).is_ok() && fs::symlink_metadata(&self.incoming).is_err() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.incoming).map_err(failed("list", &self.incoming))? {
            let path = entry.map_err(failed("list", &self.incoming))?.path();
            chown(&path, Some(uid), Some(uid)).map_err(failed("change the owner of", &path))?;
        }
        self.flush()?;
        chown(&self.incoming, Some(uid), Some(uid)).map_err(failed("change the owner of", &self.incoming))?;
        fs::rename(&self.incoming, &self.volume).map_err(failed("rename", &self.incoming))?;
        [&self.incoming, &self.volume].into_iter().filter_map(|path| path.parent()).try_for_each(sync)
    }
}

fn sync(path: &Path) -> Result<(), MigrationError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
}
