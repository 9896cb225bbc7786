//! Objects of the volume: regular files below its `objects`, opened without ever leaving it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use vamos_proto::edge::Object;

use crate::limits::OBJECT_NAME_BYTES_MAX;

/// Where the objects of a volume are.
#[derive(Debug, Clone)]
pub struct Objects(PathBuf);

impl Objects {
    /// Those of the volume at `volume`.
    pub fn of_volume(volume: &Path) -> Self {
        Self(volume.join("objects"))
    }
}

/// Opens the object called `name` ("bucket/key"). No part of the name is followed if it is a link, and none may be
/// empty, `.` or `..`. Blocks.
///
/// # Errors
/// There is no such object, or it is not a file.
pub fn open(objects: &Objects, name: &str) -> io::Result<(Object, OwnedFd)> {
    let refused = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    if name.len() > OBJECT_NAME_BYTES_MAX || name.contains('\0') {
        return Err(refused("not a name of an object"));
    }
    let mut at: OwnedFd =
        openat(CWD, &objects.0, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut parts = name.trim_start_matches('/').split('/').peekable();
    while let Some(part) = parts.next() {
        if matches!(part, "" | "." | "..") {
            return Err(refused("not a name of an object"));
        }
        let kind = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
        at = openat(
            at.as_fd(),
            part,
            kind | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
    }
    let file = File::from(at);
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(refused("not an object but a directory"));
    }
    Ok((described(&about), file.into()))
}

fn described(about: &fs::Metadata) -> Object {
    let modified_ns =
        u64::try_from(about.mtime()).unwrap_or_default() * 1_000_000_000 + about.mtime_nsec() as u64;
    let version = format!("{:x}-{:x}-{modified_ns:x}", about.ino(), about.len());
    Object { request: 0, error: String::new(), bytes: about.len(), modified_ns, version }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_below_are_objects() {
        let volume = tempfile::tempdir().unwrap();
        let objects = Objects::of_volume(volume.path());
        assert!(open(&objects, "a/b").is_err());
        fs::create_dir_all(volume.path().join("objects/a")).unwrap();
        fs::write(volume.path().join("objects/a/b"), "content").unwrap();
        fs::write(volume.path().join("shop.db"), "secret").unwrap();
        symlink("../shop.db", volume.path().join("objects/link")).unwrap();
        symlink("..", volume.path().join("objects/up")).unwrap();
        let (about, file) = open(&objects, "/a/b").unwrap();
        assert_eq!(about.bytes, 7);
        let mut content = String::new();
        File::from(file).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        for name in [
            "",
            "a",
            "a/",
            "a/c",
            "a//b",
            "./a/b",
            "../shop.db",
            "a/../../shop.db",
            "link",
            "up/shop.db",
            "a/b/c",
            "\0",
        ] {
            assert!(open(&objects, name).is_err(), "{name:?}");
        }
        let before = about.version;
        fs::write(volume.path().join("objects/a/b"), "content of another length").unwrap();
        assert_ne!(open(&objects, "a/b").unwrap().0.version, before);
    }
}
