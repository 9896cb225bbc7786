//! What is worth keeping between commands, outside the repository: unpacked kernels, guest images,
//! verdicts. An entry's name holds a hash of all that went into it, so an entry is never stale; it is
//! renamed into place when it is whole, so an entry that is there is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::limits::CACHE_AGE_MAX;

/// `$XDG_CACHE_HOME/vamos-lab`.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache.
    ///
    /// # Errors
    /// When there is no home directory, or the directory cannot be made.
    pub fn open() -> Result<Self> {
        let base = match std::env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
            Some(path) => PathBuf::from(path),
            None => std::env::home_dir()
                .context("neither XDG_CACHE_HOME nor HOME is set: set one of them")?
                .join(".cache"),
        };
        Self::at(base.join("vamos-lab"))
    }

    fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        Ok(Self { root })
    }

    /// The directory of an entry. When it is not there, `build` fills a new directory for it, while other
    /// commands that want an entry wait.
    ///
    /// # Errors
    /// Those of `build`, after which there is no entry.
    pub fn entry(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.root.join(name);
        if path.is_dir() {
            used(&path);
            return Ok(path);
        }
        let lock = File::create(self.root.join("lock")).context("opening the cache's lock")?;
        flock(&lock, FlockOperation::LockExclusive).context("locking the cache")?;
        if path.is_dir() {
            return Ok(path);
        }
        self.throw_away_old()?;
        let new =
            tempfile::Builder::new().prefix("new-").tempdir_in(&self.root).context("making a cache entry")?;
        build(new.path())?;
        used(new.path());
        fs::rename(new.keep(), &path).with_context(|| format!("keeping {}", path.display()))?;
        Ok(path)
    }

    /// Removes entries that nobody has used for long, and what a killed command had not finished. The caller has the lock.
    fn throw_away_old(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root).context("listing the cache")? {
            let entry = entry.context("listing the cache")?;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let Ok(age) = modified.map(|then| SystemTime::now().duration_since(then).unwrap_or_default())
            else {
                continue;
            };
            let unfinished = entry.file_name().to_string_lossy().starts_with("new-");
            if entry.path().is_dir() && (unfinished || age > CACHE_AGE_MAX) {
                fs::remove_dir_all(entry.path()).context("throwing away an old cache entry")?;
            }
        }
        Ok(())
    }
}

/// Notes that an entry is of use: the oldest are thrown away. That it cannot be noted matters to nobody.
fn used(entry: &Path) {
    let _ = File::open(entry).and_then(|directory| directory.set_modified(SystemTime::now()));
}

/// The hash of what goes into an entry.
#[derive(Debug, Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text or bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        // The length keeps "ab" + "c" and "a" + "bc" apart.
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a file's path and contents.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(self, path: &Path) -> Result<Self> {
        let contents = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(self.bytes(path.as_os_str().as_encoded_bytes()).bytes(contents))
    }

    /// Names the entry: `kind-hash`.
    #[must_use]
    pub fn name(self, kind: &str) -> String {
        let hash: String = self.0.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        format!("{kind}-{hash}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once_and_never_half() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().to_owned()).unwrap();
        let failed = cache.entry("a-1", |path| {
            fs::write(path.join("half"), "")?;
            anyhow::bail!("no disk")
        });
        assert_eq!(failed.unwrap_err().root_cause().to_string(), "no disk");
        assert!(!root.path().join("a-1").exists());
        let built = cache.entry("a-1", |path| Ok(fs::write(path.join("whole"), "")?)).unwrap();
        assert!(built.join("whole").exists());
        let again = cache.entry("a-1", |_| anyhow::bail!("built again")).unwrap();
        assert_eq!(again, built);
    }

    #[test]
    fn what_a_killed_command_left_goes() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().to_owned()).unwrap();
        fs::create_dir(root.path().join("new-x")).unwrap();
        cache.entry("a-1", |_| Ok(())).unwrap();
        assert!(!root.path().join("new-x").exists());
    }

    #[test]
    fn inputs_are_kept_apart() {
        let name = |parts: &[&str]| parts.iter().fold(Inputs::new(), |all, part| all.bytes(part)).name("k");
        assert_eq!(name(&["ab", "c"]), name(&["ab", "c"]));
        assert_ne!(name(&["ab", "c"]), name(&["a", "bc"]));
    }
}
