//! What is left of a disk when the power goes at a point of its log.
//!
//! All that was synced before is there. Of what was not, anything may be: each sector of a file is as it
//! was when the page cache was last written back, which may have been never, and sectors have no order
//! among each other; a file's size is one it has had; a name is or is not there.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::content::Content;
use crate::disk::{Image, Inode, Op, Recording};
use crate::random::Random;

/// What a disk writes whole or not at all, bytes.
const SECTOR: usize = 512;

/// What the page cache writes back at a time, bytes.
const PAGE: usize = 4_096;

/// Which part of what was not synced is there after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// None.
    Nothing,
    /// All: the process died, not the machine.
    Everything,
    /// What came first, the last write of it torn between sectors.
    Prefix,
    /// Each page of the cache as at some time, independently.
    Pages,
    /// Each sector as at some time, independently.
    Sectors,
    /// What came last, without what came before.
    Latest,
}

impl Survival {
    /// All of them.
    pub const ALL: [Survival; 6] = [
        Survival::Nothing,
        Survival::Everything,
        Survival::Prefix,
        Survival::Pages,
        Survival::Sectors,
        Survival::Latest,
    ];
}

/// A walk along a disk's log.
pub struct Replay<'l> {
    log: &'l [Op],
    at: usize,
    names: BTreeMap<String, Inode>,
    durable: HashMap<Inode, Content>,
    /// Of each file, what is not synced: places in the log.
    unsynced: BTreeMap<Inode, Vec<usize>>,
    /// Names made and removed since the directory was last synced: places in the log.
    unsynced_names: Vec<usize>,
    random: Random,
}

impl<'l> Replay<'l> {
    /// Starts before the log's first entry.
    pub fn new(recording: &'l Recording, random: Random) -> Self {
        let base = |name: &String| recording.base.get(name).cloned();
        let files = recording.names.iter();
        let durable = files.filter_map(|(name, inode)| Some((*inode, base(name)?))).collect();
        Self {
            log: &recording.log,
            at: 0,
            names: recording.names.clone(),
            durable,
            unsynced: BTreeMap::new(),
            unsynced_names: Vec::new(),
            random,
        }
    }

    /// Goes on until the power goes before entry `to` of the log.
    pub fn advance(&mut self, to: usize) {
        for at in self.at..to {
            match &self.log[at] {
                Op::Create { inode, .. } => {
                    self.durable.entry(*inode).or_default();
                    self.unsynced_names.push(at);
                }
                Op::Unlink { .. } => self.unsynced_names.push(at),
                Op::Write { inode, .. } | Op::Truncate { inode, .. } => {
                    self.unsynced.entry(*inode).or_default().push(at);
                }
                Op::Sync { inode, spared } => {
                    let mut covered = self.unsynced.remove(inode).unwrap_or_default();
                    let rest = covered.split_off(covered.len().saturating_sub(*spared));
                    let base = self.durable.remove(inode).unwrap_or_default();
                    let synced = self.land(base, &covered, &Landing::all());
                    self.durable.insert(*inode, synced);
                    if !rest.is_empty() {
                        self.unsynced.insert(*inode, rest);
                    }
                }
                Op::SyncFailed { inode } => {
                    let given_up = self.unsynced.remove(inode).unwrap_or_default();
                    let base = self.durable.remove(inode).unwrap_or_default();
                    let landing = Landing::by_chunk(SECTOR, given_up.len(), self.random.clone());
                    self.random.bits();
                    let left = self.land(base, &given_up, &landing);
                    self.durable.insert(*inode, left);
                }
                Op::SyncDirectory => {
                    let changes = std::mem::take(&mut self.unsynced_names);
                    changes.into_iter().for_each(|at| apply_name(&self.log[at], &mut self.names));
                }
            }
        }
        self.at = self.at.max(to);
    }

    /// What is on the disk if the power goes now.
    pub fn cut(&mut self, survival: Survival) -> Image {
        let mut names = self.names.clone();
        let mut all: Vec<usize> = self.unsynced.values().flatten().copied().collect();
        all.sort_unstable();
        // The point in time up to which, or from which on, things are there.
        let point = if all.is_empty() { 0 } else { all[self.random.below(all.len())] };
        for &at in &self.unsynced_names {
            let there = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Prefix => at < point,
                Survival::Latest => at >= point,
                Survival::Pages | Survival::Sectors => self.random.chance(50),
            };
            if there {
                apply_name(&self.log[at], &mut names);
            }
        }
        let mut image = Image::new();
        for (name, inode) in names {
            let base = self.durable.get(&inode).cloned().unwrap_or_default();
            let unsynced = self.unsynced.get(&inode).map(Vec::as_slice).unwrap_or_default();
            let before_point = unsynced.partition_point(|at| *at < point);
            let random = Random::new(self.random.bits());
            let landing = match survival {
                Survival::Nothing => Landing::none(),
                Survival::Everything => Landing::all(),
                Survival::Prefix => Landing::torn_at(before_point, random),
                Survival::Pages => Landing::by_chunk(PAGE, unsynced.len(), random),
                Survival::Sectors => Landing::by_chunk(SECTOR, unsynced.len(), random),
                Survival::Latest => Landing::latest(self.sectors(&unsynced[before_point..])),
            };
            image.insert(name, self.land(base, unsynced, &landing));
        }
        image
    }

    /// The sectors that some writes touch.
    fn sectors(&self, writes: &[usize]) -> HashSet<usize> {
        let touched = writes.iter().flat_map(|at| match &self.log[*at] {
            Op::Write { at, data, .. } => at / SECTOR..(at + data.len()).div_ceil(SECTOR),
            _ => 0..0,
        });
        touched.collect()
    }

    /// A file after some of its writes have landed on it.
    fn land(&self, mut content: Content, writes: &[usize], landing: &Landing) -> Content {
        let mut len = content.len();
        for (place, at) in writes.iter().enumerate() {
            let is_past = landing.size > place;
            match &self.log[*at] {
                Op::Write { at, data, .. } => {
                    landing.each_landed(place, *at, data, |at, data| content.write(at, data));
                    if is_past {
                        len = len.max(at + data.len());
                    }
                }
                Op::Truncate { len: to, .. } if is_past => {
                    content.resize((*to).min(content.len()));
                    len = *to;
                }
                _ => {}
            }
        }
        content.resize(len);
        content
    }
}

fn apply_name(op: &Op, names: &mut BTreeMap<String, Inode>) {
    match op {
        Op::Create { name, inode } => drop(names.insert(name.clone(), *inode)),
        Op::Unlink { name } => drop(names.remove(name)),
        _ => {}
    }
}

/// How far the sectors of one file have come: a sector has the writes before its own point, of those
/// that touch it.
struct Landing {
    reach: Reach,
    /// The file's size is as after so many writes.
    size: usize,
}

enum Reach {
    None,
    All,
    /// Before the point all, at the point some sectors, by chance.
    Torn(usize, u64),
    /// Each chunk of so many bytes has a point of its own below so many, by chance.
    Chunks(usize, usize, u64),
    /// These sectors have everything.
    Sectors(HashSet<usize>),
}

impl Landing {
    fn none() -> Self {
        Self { reach: Reach::None, size: 0 }
    }

    fn all() -> Self {
        Self { reach: Reach::All, size: usize::MAX }
    }

    fn torn_at(point: usize, mut random: Random) -> Self {
        let size = if random.chance(50) { point + 1 } else { point };
        Self { reach: Reach::Torn(point, random.bits()), size }
    }

    fn by_chunk(bytes: usize, writes: usize, mut random: Random) -> Self {
        let size = random.below(writes + 1);
        Self { reach: Reach::Chunks(bytes, writes, random.bits()), size }
    }

    fn latest(sectors: HashSet<usize>) -> Self {
        Self { reach: Reach::Sectors(sectors), size: usize::MAX }
    }

    fn has(&self, place: usize, sector: usize) -> bool {
        // A choice that depends on nothing but the seed and where it is.
        let choice = |salt: u64, at: usize| Random::new(salt ^ (at as u64) << 20);
        match &self.reach {
            Reach::None => false,
            Reach::All => true,
            Reach::Torn(point, salt) => {
                place < *point || (place == *point && choice(*salt, sector).chance(50))
            }
            Reach::Chunks(bytes, writes, salt) => {
                let mut choice = choice(*salt, sector * SECTOR / bytes);
                // Half of them have been written back completely, or there would hardly be a whole frame.
                choice.chance(50) || place < choice.below(writes + 1)
            }
            Reach::Sectors(sectors) => sectors.contains(&sector),
        }
    }

    /// Calls `landed` with the parts of a write that have landed, joined where they touch.
    fn each_landed<'d>(
        &self,
        place: usize,
        at: usize,
        data: &'d [u8],
        mut landed: impl FnMut(usize, &'d [u8]),
    ) {
        if matches!(self.reach, Reach::All) {
            return landed(at, data);
        }
        let end = at + data.len();
        let mut from = at;
        while from < end {
            let sector_end = ((from / SECTOR + 1) * SECTOR).min(end);
            if self.has(place, from / SECTOR) {
                landed(from, &data[from - at..sector_end - at]);
            }
            from = sector_end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: usize, byte: u8, len: usize) -> Op {
        Op::Write { inode: 1, at, data: vec![byte; len].into() }
    }

    fn bytes(content: &Content) -> Vec<u8> {
        let mut bytes = vec![0; content.len()];
        content.read(0, &mut bytes);
        bytes
    }

    fn recording(more: &[Op]) -> Recording {
        let mut log = vec![
            Op::Create { name: "a".to_owned(), inode: 1 },
            write(0, 1, 2_048),
            Op::Sync { inode: 1, spared: 0 },
            Op::SyncDirectory,
            write(0, 2, 2_048),
            write(2_048, 3, 100),
        ];
        log.extend_from_slice(more);
        Recording { base: Image::new(), names: BTreeMap::new(), log }
    }

    fn cut(at: usize, survival: Survival, seed: u64) -> Image {
        let recording = recording(&[]);
        let mut replay = Replay::new(&recording, Random::new(seed));
        replay.advance(at);
        replay.cut(survival)
    }

    #[test]
    fn what_was_synced_is_there_and_the_rest_may_be() {
        assert_eq!(bytes(&cut(6, Survival::Nothing, 1)["a"]), [1; 2_048]);
        let mut everything = vec![2; 2_048];
        everything.extend([3; 100]);
        assert_eq!(bytes(&cut(6, Survival::Everything, 1)["a"]), everything);
    }

    #[test]
    fn a_name_is_lost_with_its_directory() {
        assert!(cut(3, Survival::Nothing, 1).is_empty());
        assert_eq!(cut(3, Survival::Everything, 1).len(), 1);
        assert_eq!(cut(4, Survival::Nothing, 1).len(), 1);
    }

    #[test]
    fn writes_tear_between_sectors_and_never_within() {
        let mut seen = HashSet::new();
        for seed in 0..200 {
            for survival in [Survival::Prefix, Survival::Pages, Survival::Sectors, Survival::Latest] {
                let content = bytes(&cut(6, survival, seed)["a"]);
                let sectors: Vec<u8> = content.chunks(SECTOR).map(|sector| sector[0]).collect();
                for (sector, first) in content.chunks(SECTOR).zip(&sectors) {
                    assert!(sector.iter().all(|byte| byte == first), "{survival:?} tore a sector");
                }
                seen.insert(sectors);
            }
        }
        assert!(seen.contains(&vec![1, 1, 1, 1]) && seen.contains(&vec![2, 2, 2, 2, 3]));
        assert!(seen.iter().any(|sectors| sectors[..4].contains(&1) && sectors[..4].contains(&2)), "torn");
        assert!(seen.contains(&vec![1, 1, 1, 1, 3]), "the later write without the earlier");
    }

    #[test]
    fn what_a_failed_sync_dropped_no_later_one_brings_back() {
        let recording = recording(&[Op::SyncFailed { inode: 1 }, Op::Sync { inode: 1, spared: 0 }]);
        let lost = (0..50).filter(|seed| {
            let mut replay = Replay::new(&recording, Random::new(*seed));
            replay.advance(recording.log.len());
            let content = bytes(&replay.cut(Survival::Everything)["a"]);
            content[..2_048].contains(&1)
        });
        assert!(lost.count() > 10);
    }
}
