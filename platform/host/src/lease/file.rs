//! A lease as files in the volume, `lease-EPOCH`: the highest one is in force. A claim is a link, which is made or not
//! made as one on every shared file system; after that only its holder writes to the file, a beat at each renewal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::clock::{Clock, Moment};
use super::{Claim, Held, Host, LeaseError, Renewal, failed};

const PREFIX: &str = "lease-";

/// What a lease's file says: one `name=value` a line, of the same length for as long as it is held.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    host: Host,
    beat: u64,
    released: bool,
}

impl Record {
    fn text(&self) -> String {
        let Self { host, beat, released } = self;
        let state = if *released { "released" } else { "held    " };
        format!("beat={beat:020}\nstate={state}\nhost={}\nname={}\n", host.id, host.name)
    }

    /// What cannot be read is held by nobody known: it was cut off, and is waited for as any other.
    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().trim().to_owned()
        };
        let host = Host { id: value("host"), name: value("name") };
        Self { host, beat: value("beat").parse().unwrap_or_default(), released: value("state") == "released" }
    }
}

/// What is watched of another's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched {
    epoch: u64,
    record: Record,
    since: Moment,
}

/// A lease on a volume.
#[derive(Debug, Clone)]
pub struct FileLease {
    volume: PathBuf,
    own: Host,
    clock: Clock,
    valid: Duration,
    watched: Option<Watched>,
    held: Option<(u64, u64)>,
}

impl FileLease {
    /// A lease on `volume` that is valid for `valid` from each renewal.
    pub fn new(volume: PathBuf, own: Host, clock: Clock, valid: Duration) -> Self {
        Self { volume, own, clock, valid, watched: None, held: None }
    }

    pub(super) fn valid_for(&self) -> Duration {
        self.valid
    }

    pub(super) async fn claim(&mut self) -> Result<Claim, LeaseError> {
        self.on_a_thread(Self::claim_now).await
    }

    pub(super) async fn renew(&mut self) -> Result<Renewal, LeaseError> {
        self.on_a_thread(Self::renew_now).await
    }

    pub(super) async fn release(&mut self) -> Result<(), LeaseError> {
        self.on_a_thread(Self::release_now).await
    }

    /// A shared file system may take its time.
    async fn on_a_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, LeaseError> + Send + 'static,
    ) -> Result<T, LeaseError> {
        let mut lease = self.clone();
        let worked = spawn_blocking(move || (work(&mut lease), lease)).await;
        let gone = |_| failed("use", &self.volume)(io::ErrorKind::Interrupted.into());
        let (result, lease) = worked.map_err(gone)?;
        *self = lease;
        result
    }

    fn claim_now(&mut self) -> Result<Claim, LeaseError> {
        // A lease of another is valid until that long after it was seen to be renewed; and half as long again.
        let patience = self.valid + self.valid / 2;
        let now = self.clock.now();
        let Some(epoch) = self.highest()? else { return self.make(1, true) };
        let record = self.read(epoch)?;
        if record.released {
            return self.make(epoch + 1, true);
        }
        if record.host.id == self.own.id {
            // Of this host before vamosd was restarted: its cell may be alive, and goes on under the same lease.
            self.held = Some((epoch, record.beat));
            return Ok(match self.renew_now()? {
                Renewal::Until(until) => Claim::Held(Held { epoch, until, clean: false }),
                Renewal::Lost => Claim::Taken { by: record.host, epoch },
            });
        }
        match &self.watched {
            Some(seen) if seen.epoch == epoch && seen.record == record => {
                if now.since(seen.since) > patience {
                    return self.make(epoch + 1, false);
                }
            }
            _ => self.watched = Some(Watched { epoch, record: record.clone(), since: now }),
        }
        Ok(Claim::Taken { by: record.host, epoch })
    }

    /// Claims an epoch nobody has claimed.
    fn make(&mut self, epoch: u64, clean: bool) -> Result<Claim, LeaseError> {
        let now = self.clock.now();
        let record = Record { host: self.own.clone(), beat: 0, released: false };
        let (draft, path) = (self.volume.join(format!(".lease-{}", self.own.id)), self.path(epoch));
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        written
            .and_then(|mut file| file.write_all(record.text().as_bytes()).and_then(|()| file.sync_all()))
            .map_err(failed("write", &draft))?;
        let made = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(failed("remove", &draft))?;
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(Claim::Taken { by: self.read(epoch)?.host, epoch });
            }
            Err(error) => return Err(failed("claim", path)(error)),
        }
        sync(&self.volume)?;
        // Who looked long ago may have claimed one that had been claimed, given back and removed meanwhile.
        if let Some(later) = self.highest()?.filter(|highest| *highest > epoch) {
            fs::remove_file(&path).map_err(failed("remove", path))?;
            return Ok(Claim::Taken { by: self.read(later)?.host, epoch: later });
        }
        self.held = Some((epoch, 0));
        self.watched = None;
        // Those before are of no use to anybody; what cannot be removed is as little in force.
        for old in self.epochs()?.into_iter().filter(|old| *old < epoch) {
            let _ = fs::remove_file(self.path(old));
        }
        Ok(Claim::Held(Held { epoch, until: now + self.valid, clean }))
    }

    fn renew_now(&mut self) -> Result<Renewal, LeaseError> {
        let now = self.clock.now();
        let Some((epoch, beat)) = self.held else { return Ok(Renewal::Lost) };
        if self.highest()? != Some(epoch) {
            self.held = None;
            return Ok(Renewal::Lost);
        }
        self.write(epoch, &Record { host: self.own.clone(), beat: beat + 1, released: false })?;
        self.held = Some((epoch, beat + 1));
        Ok(Renewal::Until(now + self.valid))
    }

    fn release_now(&mut self) -> Result<(), LeaseError> {
        let Some((epoch, beat)) = self.held.take() else { return Ok(()) };
        if self.highest()? == Some(epoch) {
            self.write(epoch, &Record { host: self.own.clone(), beat, released: true })?;
        }
        Ok(())
    }

    fn path(&self, epoch: u64) -> PathBuf {
        self.volume.join(format!("{PREFIX}{epoch}"))
    }

    fn read(&self, epoch: u64) -> Result<Record, LeaseError> {
        let path = self.path(epoch);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Record::parse(&text)),
            // Somebody has claimed a later one just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::parse("")),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    /// In place: the file is this holder's alone.
    fn write(&self, epoch: u64, record: &Record) -> Result<(), LeaseError> {
        let path = self.path(epoch);
        let file = OpenOptions::new().write(true).open(&path).map_err(failed("open", &path))?;
        let written = file.write_all_at(record.text().as_bytes(), 0).and_then(|()| file.sync_all());
        written.map_err(failed("write", path))
    }

    fn highest(&self) -> Result<Option<u64>, LeaseError> {
        Ok(self.epochs()?.into_iter().max())
    }

    fn epochs(&self) -> Result<Vec<u64>, LeaseError> {
        let entries = fs::read_dir(&self.volume).map_err(|source| LeaseError::Volume {
            path: self.volume.clone(),
            reason: format!("{source}; is it mounted on this host?"),
        })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect())
    }
}

pub(super) fn sync(path: &Path) -> Result<(), LeaseError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    const VALID: Duration = Duration::from_secs(10);

    struct Hosts {
        keep: tempfile::TempDir,
        now: Arc<AtomicU64>,
    }

    impl Hosts {
        fn new() -> Self {
            Self { keep: tempfile::tempdir().unwrap(), now: Arc::new(AtomicU64::new(1)) }
        }

        fn host(&self, id: &str) -> FileLease {
            let own = Host { id: id.into(), name: format!("host-{id}") };
            FileLease::new(self.keep.path().into(), own, Clock::Told(self.now.clone()), VALID)
        }

        fn pass(&self, seconds: u64) {
            self.now.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
        }
    }

    fn epoch(claim: &Claim) -> Option<(u64, bool)> {
        match claim {
            Claim::Held(held) => Some((held.epoch, held.clean)),
            Claim::Taken { .. } => None,
        }
    }

    #[test]
    fn one_holds_it_and_the_others_know_who() {
        let hosts = Hosts::new();
        let (mut a, mut b) = (hosts.host("a"), hosts.host("b"));
        assert_eq!(epoch(&a.claim_now().unwrap()), Some((1, true)));
        for _ in 0..20 {
            hosts.pass(3);
            assert!(matches!(a.renew_now().unwrap(), Renewal::Until(_)));
            let Claim::Taken { by, epoch } = b.claim_now().unwrap() else { panic!("two hold it") };
            assert_eq!((by.name.as_str(), epoch), ("host-a", 1));
        }
        a.release_now().unwrap();
        assert_eq!(epoch(&b.claim_now().unwrap()), Some((2, true)));
        assert_eq!(a.renew_now().unwrap(), Renewal::Lost);
    }

    #[test]
    fn k70_one_that_is_not_renewed_is_taken_over_only_when_it_is_valid_no_more() {
        let hosts = Hosts::new();
        let (mut a, mut b) = (hosts.host("a"), hosts.host("b"));
        let Claim::Held(held) = a.claim_now().unwrap() else { panic!() };
        // The first look starts the wait, however long ago the last beat was.
        hosts.pass(3600);
        assert_eq!(epoch(&b.claim_now().unwrap()), None);
        hosts.pass(15);
        assert_eq!(epoch(&b.claim_now().unwrap()), None);
        hosts.pass(1);
        assert_eq!(epoch(&b.claim_now().unwrap()), Some((2, false)));
        assert!(hosts.now.load(Ordering::SeqCst) > held.until.0);
        assert_eq!(a.renew_now().unwrap(), Renewal::Lost);
    }

    #[test]
    fn k70_a_clock_that_stands_still_takes_nothing_over() {
        let hosts = Hosts::new();
        let (mut a, mut b) = (hosts.host("a"), hosts.host("b"));
        a.claim_now().unwrap();
        for _ in 0..1000 {
            assert_eq!(epoch(&b.claim_now().unwrap()), None);
        }
        assert!(matches!(a.renew_now().unwrap(), Renewal::Until(_)));
    }

    #[test]
    fn a_host_that_is_restarted_goes_on_with_its_own() {
        let hosts = Hosts::new();
        hosts.host("a").claim_now().unwrap();
        assert_eq!(epoch(&hosts.host("a").claim_now().unwrap()), Some((1, false)));
        hosts.pass(100);
        assert_eq!(epoch(&hosts.host("a").claim_now().unwrap()), Some((1, false)));
    }

    #[test]
    fn of_many_who_claim_at_once_one_wins() {
        let hosts = Hosts::new();
        for round in 1..=20_u64 {
            let claims: Vec<_> = std::thread::scope(|scope| {
                let claiming: Vec<_> = (0..4)
                    .map(|number| {
                        let mut host = hosts.host(&format!("h{number}"));
                        scope.spawn(move || (host.claim_now().unwrap(), host))
                    })
                    .collect();
                claiming.into_iter().map(|claim| claim.join().unwrap()).collect()
            });
            let mut holders: Vec<_> =
                claims.into_iter().filter(|(claim, _)| epoch(claim).is_some()).collect();
            assert_eq!(holders.len(), 1, "in round {round}");
            holders[0].1.release_now().unwrap();
        }
    }

    #[test]
    fn a_lease_that_was_cut_off_is_waited_for() {
        let hosts = Hosts::new();
        fs::write(hosts.keep.path().join("lease-7"), b"").unwrap();
        let mut b = hosts.host("b");
        assert_eq!(epoch(&b.claim_now().unwrap()), None);
        hosts.pass(16);
        assert_eq!(epoch(&b.claim_now().unwrap()), Some((8, false)));
    }
}
