//! A disk in memory: what a running system sees of it, and a log of all that reached it, from which
//! [`crate::replay`] tells what would be left if the power went at any point.
//!
//! It behaves as Linux does under SQLite's own `unix` VFS: a write is in the page cache until a sync of
//! its file; a file that was made or removed is so for certain only after its directory was synced,
//! which that VFS does after the first sync of a new journal or log and, if asked, after removing one.
//! It knows one directory, and nothing of SQLite's types. A directory's sync does not fail: that VFS would
//! not tell SQLite.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::content::Content;
use crate::fault::{Call, Fault, Plan, Point};
use crate::locks::{Locks, SharedMemory};

/// What a file is, whatever its name.
pub type Inode = u64;

/// The files of a disk.
pub type Image = BTreeMap<String, Content>;

/// Something that reached the disk, in the order of arrival.
#[derive(Debug, Clone)]
pub enum Op {
    /// A file was made.
    Create {
        /// Its name.
        name: String,
        /// What it is.
        inode: Inode,
    },
    /// A name was removed.
    Unlink {
        /// Which.
        name: String,
    },
    /// Bytes were written into the page cache.
    Write {
        /// Of which file.
        inode: Inode,
        /// From where on.
        at: usize,
        /// What.
        data: Box<[u8]>,
    },
    /// A file was cut.
    Truncate {
        /// Which.
        inode: Inode,
        /// To how many bytes.
        len: usize,
    },
    /// All that was written to a file before is on the disk for certain.
    Sync {
        /// Which file.
        inode: Inode,
        /// The latest writes it does not cover; 0 unless the disk lies.
        spared: usize,
    },
    /// A sync failed: some of what was written before reached the disk, and the rest never will, whatever
    /// is synced later.
    SyncFailed {
        /// Which file.
        inode: Inode,
    },
    /// All names are as they are for certain.
    SyncDirectory,
}

impl Op {
    /// Whether it leaves something to sync in the file.
    pub fn dirties(&self, file: Inode) -> bool {
        matches!(self, Op::Write { inode, .. } | Op::Truncate { inode, .. } if *inode == file)
    }
}

/// What a file is for, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The database itself.
    Database,
    /// The write-ahead log.
    Log,
    /// A rollback journal.
    Journal,
}

impl FileKind {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            name if name.ends_with("-wal") => FileKind::Log,
            name if name.ends_with("-journal") => FileKind::Journal,
            _ => FileKind::Database,
        }
    }
}

/// A way in which a disk, or what stands between it and the engine, betrays. Seeded bugs, which a
/// harness that is any good must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Says that such a file is synced, and does nothing.
    ForgetsSync(FileKind),
    /// Says that it is synced when it has only begun to: it is by the next sync.
    LateSync(FileKind),
    /// Syncs all but the last write.
    HalfSync(FileKind),
    /// Never syncs the directory.
    ForgetsDirectory,
    /// One of the engine's settings goes unheard; others are made at each connection.
    Settings {
        /// The pragma that goes unheard.
        unheard: &'static str,
        /// What is said instead.
        instead: &'static str,
    },
}

#[derive(Default)]
pub(crate) struct Files {
    pub(crate) names: BTreeMap<String, Inode>,
    pub(crate) contents: HashMap<Inode, Content>,
    pub(crate) locks: HashMap<Inode, Locks>,
    pub(crate) memory: HashMap<Inode, SharedMemory>,
    log: Vec<Op>,
    /// A sync that was promised, and the point up to which.
    late: Option<(Inode, usize)>,
    armed: Option<(Plan, u64)>,
    fired: u64,
    failed_syncs: u64,
    open: usize,
}

impl Files {
    /// Counts a call and says whether it has to fail.
    pub(crate) fn strike(&mut self, file: FileKind, call: Call) -> Option<Fault> {
        let (plan, seen) = self.armed.as_mut()?;
        let is_meant = plan.point.is_none_or(|point| point == Point { file, call });
        if !is_meant || !plan.fault.hits(call) {
            return None;
        }
        *seen += 1;
        if *seen == plan.nth || (plan.persistent && *seen > plan.nth) {
            self.fired += 1;
            return Some(plan.fault);
        }
        None
    }

    pub(crate) fn create(&mut self, name: Option<&str>) -> Inode {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let inode = NEXT.fetch_add(1, Relaxed);
        self.contents.insert(inode, Content::default());
        if let Some(name) = name {
            self.names.insert(name.to_owned(), inode);
            self.log.push(Op::Create { name: name.to_owned(), inode });
        }
        inode
    }

    pub(crate) fn unlink(&mut self, name: &str) -> bool {
        let found = self.names.remove(name).is_some();
        if found {
            self.log.push(Op::Unlink { name: name.to_owned() });
        }
        found
    }

    pub(crate) fn write(&mut self, inode: Inode, at: usize, data: &[u8]) {
        if let Some(content) = self.contents.get_mut(&inode) {
            content.write(at, data);
            self.log.push(Op::Write { inode, at, data: data.into() });
        }
    }

    /// Lets something happen to what is seen.
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { name, inode } => {
                self.names.insert(name.clone(), *inode);
                self.contents.insert(*inode, Content::default());
            }
            Op::Unlink { name } => drop(self.names.remove(name)),
            Op::Write { inode, at, data } => self.contents.entry(*inode).or_default().write(*at, data),
            Op::Truncate { inode, len } => self.contents.entry(*inode).or_default().resize(*len),
            Op::Sync { .. } | Op::SyncFailed { .. } | Op::SyncDirectory => {}
        }
    }

    pub(crate) fn truncate(&mut self, inode: Inode, len: usize) {
        if let Some(content) = self.contents.get_mut(&inode) {
            content.resize(len);
            self.log.push(Op::Truncate { inode, len });
        }
    }

    pub(crate) fn sync(&mut self, inode: Inode, kind: FileKind, lie: Option<Lie>) {
        match lie {
            Some(Lie::ForgetsSync(of)) if of == kind => {}
            Some(Lie::LateSync(of)) if of == kind => {
                if let Some((earlier, at)) = self.late.replace((inode, self.log.len())) {
                    let writes = self.log[at..].iter().filter(|op| op.dirties(earlier)).count();
                    self.log.push(Op::Sync { inode: earlier, spared: writes });
                }
            }
            Some(Lie::HalfSync(of)) if of == kind => self.log.push(Op::Sync { inode, spared: 1 }),
            _ => self.log.push(Op::Sync { inode, spared: 0 }),
        }
    }

    pub(crate) fn sync_failed(&mut self, inode: Inode) {
        self.failed_syncs += 1;
        self.log.push(Op::SyncFailed { inode });
    }

    pub(crate) fn sync_directory(&mut self, lie: Option<Lie>) {
        if lie != Some(Lie::ForgetsDirectory) {
            self.log.push(Op::SyncDirectory);
        }
    }

    pub(crate) fn opened(&mut self) {
        self.open += 1;
    }
}

/// A disk. Its files are open to SQLite by the paths under [`Disk::directory`].
pub struct Disk {
    number: u64,
    lie: Option<Lie>,
    is_lying: AtomicBool,
    base: Image,
    base_names: BTreeMap<String, Inode>,
    files: Mutex<Files>,
    closed: Condvar,
}

/// All that reached a disk, and what was on it before.
#[derive(Clone)]
pub struct Recording {
    /// What was on it in the beginning.
    pub base: Image,
    /// Which files those were.
    pub names: BTreeMap<String, Inode>,
    /// What reached it since.
    pub log: Vec<Op>,
}

static DISKS: LazyLock<Mutex<HashMap<u64, Weak<Disk>>>> = LazyLock::new(Mutex::default);

/// How the directory of a disk is named, but for the number.
const DIRECTORY: &str = "/vamos-faults-";

impl Disk {
    /// An empty disk.
    pub fn empty() -> Arc<Self> {
        Self::new(Image::new(), None)
    }

    /// A disk with these files, all of them durable.
    pub fn new(image: Image, lie: Option<Lie>) -> Arc<Self> {
        let mut files = Files::default();
        for (name, content) in &image {
            let inode = files.create(Some(name));
            files.contents.insert(inode, content.clone());
        }
        files.log.clear();
        let names = files.names.clone();
        Self::assemble(image, names, files, lie)
    }

    /// The disk of a recording after its process was killed at a point of the log: all that had reached it is
    /// seen, and what was not synced still is not.
    pub fn killed(recording: &Recording, at: usize) -> Arc<Self> {
        let Recording { base, names, log } = recording;
        let mut files = Files { names: names.clone(), ..Files::default() };
        for (name, inode) in names {
            files.contents.insert(*inode, base.get(name).cloned().unwrap_or_default());
        }
        log[..at].iter().for_each(|op| files.apply(op));
        files.log = log[..at].to_vec();
        Self::assemble(base.clone(), names.clone(), files, None)
    }

    fn assemble(
        base: Image,
        base_names: BTreeMap<String, Inode>,
        files: Files,
        lie: Option<Lie>,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Relaxed);
        // Connections and names are made once; the rest begins when it is told to.
        let lies_at_once = matches!(lie, Some(Lie::Settings { .. } | Lie::ForgetsDirectory));
        let disk = Arc::new(Self {
            number,
            lie,
            is_lying: AtomicBool::new(lies_at_once),
            base,
            base_names,
            files: Mutex::new(files),
            closed: Condvar::new(),
        });
        lock(&DISKS).insert(number, Arc::downgrade(&disk));
        disk
    }

    /// The disk a path is on, and the file's name there.
    pub(crate) fn of_path(path: &str) -> Option<(Arc<Self>, &str)> {
        let (number, name) = path.strip_prefix(DIRECTORY)?.split_once('/')?;
        let disk = lock(&DISKS).get(&number.parse().ok()?)?.upgrade()?;
        Some((disk, name))
    }

    /// The directory its files are in, for SQLite.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(format!("{DIRECTORY}{}", self.number))
    }

    /// What a running system sees on it now.
    pub fn image(&self) -> Image {
        let files = self.files();
        let content = |inode: &Inode| files.contents.get(inode).cloned().unwrap_or_default();
        files.names.iter().map(|(name, inode)| (name.clone(), content(inode))).collect()
    }

    /// How much has reached it: a point at which the power may go.
    pub fn position(&self) -> usize {
        self.files().log.len()
    }

    /// All that has reached it; the disk's own memory of it ends.
    pub fn recording(&self) -> Recording {
        let log = std::mem::take(&mut self.files().log);
        Recording { base: self.base.clone(), names: self.base_names.clone(), log }
    }

    /// Lets a call fail from now on as planned.
    pub fn arm(&self, plan: Plan) {
        let mut files = self.files();
        files.armed = Some((plan, 0));
        files.fired = 0;
    }

    /// Lets no call fail any more; how many have.
    pub fn disarm(&self) -> u64 {
        let mut files = self.files();
        files.armed = None;
        std::mem::take(&mut files.fired)
    }

    /// Syncs that have failed so far.
    pub fn failed_syncs(&self) -> u64 {
        self.files().failed_syncs
    }

    /// Waits until nobody has a file open: an engine's threads close theirs in their own time.
    ///
    /// # Errors
    /// How many are still open after `patience`.
    pub fn wait_closed(&self, patience: Duration) -> Result<(), usize> {
        let until = Instant::now() + patience;
        let mut files = self.files();
        while files.open > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(files.open);
            }
            files = self.closed.wait_timeout(files, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// From now on it lies, if it is one that does.
    pub fn begin_to_lie(&self) {
        self.is_lying.store(true, Relaxed);
    }

    pub(crate) fn lie(&self) -> Option<Lie> {
        self.lie.filter(|_| self.is_lying.load(Relaxed))
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Files> {
        lock(&self.files)
    }

    /// A file was closed; one without a name is gone with it.
    pub(crate) fn closed(&self, inode: Inode, has_name: bool) {
        let mut files = self.files();
        files.open -= 1;
        if !has_name {
            files.contents.remove(&inode);
        }
        drop(files);
        self.closed.notify_all();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&DISKS).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
