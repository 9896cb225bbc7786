//! The files of a volume, as vamosd may touch them: a cell could have put anything in their place, so nothing is
//! followed and nothing but regular files is opened.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

/// What a database's file and its log end with.
pub(crate) const DATABASE: &str = ".db";
pub(crate) const LOG: &str = ".db-wal";

/// The databases in a volume, by name.
pub(crate) fn databases(volume: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(volume)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(DATABASE)) && regular(&path)?.is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The log of a database.
pub(crate) fn log_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// Opens a regular file for reading; `None` when there is none.
pub(crate) fn regular(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        // A symbolic link is no file of ours.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let is_regular = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile;
    Ok(is_regular.then(|| file.into()))
}

/// Whether a name can be that of a database or its log.
pub(super) fn is_ours(name: &str) -> bool {
    let stem = name.strip_suffix(LOG).or_else(|| name.strip_suffix(DATABASE));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.') && stem.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_plain_file_of_a_database_is_touched() {
        let volume = tempfile::tempdir().unwrap();
        let at = |name: &str| volume.path().join(name);
        fs::write(at("app.db"), "x").unwrap();
        fs::write(at("notes.txt"), "x").unwrap();
        fs::create_dir(at("dir.db")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("link.db")).unwrap();
        assert_eq!(databases(volume.path()).unwrap(), [at("app.db")]);
        assert!(regular(&at("link.db")).unwrap().is_none() && regular(&at("none")).unwrap().is_none());
        for name in ["../x.db", "a/b.db", ".db", ".x.db", "x.db-shm", "x", "x\0.db"] {
            assert!(!is_ours(name), "{name}");
        }
        assert!(is_ours("app.db") && is_ours("app-2.db-wal"));
    }
}
