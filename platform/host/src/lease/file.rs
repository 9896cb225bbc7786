//! A lease in files beside the data, for a file system that several hosts share: `lease-<epoch>`, made by
//! whoever claims the epoch. Exclusive creation is atomic on every such file system, so an epoch has one holder,
//! and the highest has the volume. A record is replaced by a rename: nobody reads half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::Watch;
use super::{Claim, Holder, LeaseError, Record, Renewal, Terms};
use crate::limits::LEASE_RECORD_BYTES_MAX;

/// See the module. Every call blocks for as long as the file system takes.
#[derive(Debug)]
pub struct FileLease {
    directory: PathBuf,
    own: Holder,
    terms: Terms,
    held: Option<Held>,
    watch: Option<Watch>,
    /// Claimed, but the holder before may have renewed just before: until then it is given its time.
    settling: Option<(u64, Duration)>,
}

/// The epoch that is ours, and what we said last.
#[derive(Debug, Clone)]
struct Held {
    epoch: u64,
    record: Record,
}

impl FileLease {
    /// The lease of the volume at `directory`, for `own`.
    pub fn new(directory: &Path, own: Holder, terms: Terms) -> Self {
        let directory = directory.to_path_buf();
        Self { directory, own, terms, held: None, watch: None, settling: None }
    }

    /// Tries to have the lease; `now` is [`since_boot`](super::since_boot). Others' is to be tried again, soon and often:
    /// their beats are only seen when they are looked at.
    ///
    /// # Errors
    /// [`LeaseError`]; nothing is known then, and it may be tried again.
    pub fn claim(&mut self, now: Duration) -> Result<Claim, LeaseError> {
        let Some(highest) = self.highest()? else {
            return self.make(1, true, now);
        };
        let record = self.read(highest)?;
        self.settling = self.settling.filter(|(epoch, _)| *epoch == highest);
        match record {
            // Claimed after a silence and not renewed since: the claim may have been too early, which its maker,
            // perhaps a vamosd before this one, did not live to see.
            Some(record)
                if record.holder == self.own
                    && !record.released
                    && !record.after_release
                    && record.beat == 0 =>
            {
                let (_, until) = *self.settling.get_or_insert((highest, now + self.terms.patience()));
                if now <= until {
                    return Ok(Claim::Others { epoch: highest - 1, holder: None });
                }
                self.held = Some(Held { epoch: highest, record });
                Ok(Claim::Ours { epoch: highest, after_release: false })
            }
            Some(record) if record.holder == self.own && !record.released => {
                let after_release = record.after_release;
                self.held = Some(Held { epoch: highest, record });
                Ok(Claim::Ours { epoch: highest, after_release })
            }
            Some(record) if record.released => self.make(highest + 1, true, now),
            record => {
                let unchanged = Watch::look(&mut self.watch, highest, record.as_ref(), now);
                if unchanged <= self.terms.patience() {
                    return Ok(Claim::Others { epoch: highest, holder: record.map(|record| record.holder) });
                }
                let claim = self.make(highest + 1, false, now)?;
                if matches!(claim, Claim::Ours { .. }) && self.read(highest)? != record {
                    // It lives, and may have looked for a higher epoch just before there was one.
                    self.held = None;
                    return Ok(Claim::Others { epoch: highest, holder: record.map(|record| record.holder) });
                }
                Ok(claim)
            }
        }
    }

    /// Says that the holder lives, and whether it still is the holder.
    ///
    /// # Errors
    /// [`LeaseError`]: the lease is valid for as long as it was, no longer.
    pub fn renew(&mut self) -> Result<Renewal, LeaseError> {
        let Some(held) = &mut self.held else { return Ok(Renewal::Lost) };
        // Another one at every attempt: a taker that has seen this one, of a renewal that then failed, must see the
        // next one, too.
        held.record.beat += 1;
        let held = held.clone();
        // The beat first: see the module above.
        self.write(held.epoch, &held.record)?;
        if self.highest()? != Some(held.epoch) {
            self.held = None;
            return Ok(Renewal::Lost);
        }
        Ok(Renewal::Valid)
    }

    /// Gives the lease up. The cell must have ended: the next holder takes its files as they are.
    ///
    /// # Errors
    /// [`LeaseError`]: others will have to wait.
    pub fn release(&mut self) -> Result<(), LeaseError> {
        let Some(mut held) = self.held.take() else { return Ok(()) };
        held.record.released = true;
        self.write(held.epoch, &held.record)
    }

    /// Removes what is known of epochs before the last one. Once their data is gone nobody asks.
    pub fn forget_old(&self) {
        let Some(held) = &self.held else { return };
        for epoch in self.epochs().unwrap_or_default().into_iter().filter(|epoch| epoch + 1 < held.epoch) {
            // One that stays harms nobody.
            let _ = fs::remove_file(self.path(epoch));
        }
    }

    fn make(&mut self, epoch: u64, after_release: bool, now: Duration) -> Result<Claim, LeaseError> {
        let path = self.path(epoch);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Watch::look(&mut self.watch, epoch, None, now);
                return Ok(Claim::Others { epoch, holder: self.read(epoch)?.map(|record| record.holder) });
            }
            Err(source) => return Err(LeaseError::Io { action: "claim", path, source }),
        }
        let record = Record { holder: self.own.clone(), beat: 0, released: false, after_release };
        self.write(epoch, &record)?;
        self.watch = None;
        self.held = Some(Held { epoch, record });
        Ok(Claim::Ours { epoch, after_release })
    }

    fn path(&self, epoch: u64) -> PathBuf {
        self.directory.join(format!("lease-{epoch}"))
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> LeaseError {
        let path = self.directory.clone();
        move |source| LeaseError::Io { action, path: path.clone(), source }
    }

    fn epochs(&self) -> Result<Vec<u64>, LeaseError> {
        let failed = self.failed("list");
        let mut epochs = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            let epoch: Option<u64> = name.to_str().and_then(|name| name.strip_prefix("lease-")?.parse().ok());
            epochs.extend(epoch);
        }
        Ok(epochs)
    }

    fn highest(&self) -> Result<Option<u64>, LeaseError> {
        Ok(self.epochs()?.into_iter().max())
    }

    /// `None`: its maker has not said anything yet, or nothing that can be understood.
    fn read(&self, epoch: u64) -> Result<Option<Record>, LeaseError> {
        let path = self.path(epoch);
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(LEASE_RECORD_BYTES_MAX).read_to_end(&mut text)) {
            Ok(_) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LeaseError::Io { action: "read", path, source }),
        }
    }

    fn write(&self, epoch: u64, record: &Record) -> Result<(), LeaseError> {
        let path = self.path(epoch);
        let next = self.directory.join(format!("next-lease-{epoch}"));
        let text = serde_json::to_vec(record).map_err(io::Error::other);
        let written = text.and_then(|text| {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            File::open(&self.directory)?.sync_all()
        });
        written.map_err(|source| LeaseError::Io { action: "write", path, source })
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
