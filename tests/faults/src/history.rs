//! What was asked of an engine and what it answered, and what the data may therefore look like.
//!
//! Each writer has data of its own and does one thing at a time. So after a cut its data are exactly
//! what the acknowledged writes made of them, or that and all of the one write that was under way.

use std::collections::{BTreeMap, BTreeSet};

/// One writer's data.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ledger {
    /// Bytes of the payload of each row, by the row's number.
    pub rows: BTreeMap<i64, usize>,
    /// How often it has counted.
    pub count: i64,
    /// Its two accounts, which began with nothing.
    pub balances: [i64; 2],
    /// Its tables and indexes.
    pub tables: BTreeSet<String>,
}

/// What a write does to its writer's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The row of that number now has so many bytes.
    Put(i64, usize),
    /// There is no such row any more.
    Remove(i64),
    /// It has counted once more.
    Count,
    /// So much went from the first account to the second.
    Transfer(i64),
    /// There is such a table now.
    Create(String),
    /// There is no such table any more.
    Drop(String),
}

impl Ledger {
    /// The data after a write.
    #[must_use]
    pub fn after(mut self, effects: &[Effect]) -> Self {
        for effect in effects {
            match effect {
                Effect::Put(number, bytes) => drop(self.rows.insert(*number, *bytes)),
                Effect::Remove(number) => drop(self.rows.remove(number)),
                Effect::Count => self.count += 1,
                Effect::Transfer(amount) => {
                    self.balances[0] -= amount;
                    self.balances[1] += amount;
                }
                Effect::Create(name) => drop(self.tables.insert(name.clone())),
                Effect::Drop(name) => drop(self.tables.remove(name)),
            }
        }
        self
    }
}

/// What became of a write, as its writer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Acknowledged,
    /// It was not done: an error that says so.
    Refused,
    /// It may have been done: an error that leaves it open.
    Unknown,
}

/// A write.
#[derive(Debug, Clone)]
pub struct Write {
    /// How much had reached the disk when it was asked for.
    pub asked: usize,
    /// How much had reached the disk once it was answered.
    pub answered: usize,
    /// What the answer was.
    pub outcome: Outcome,
    /// What it does, all of it or none.
    pub effects: Vec<Effect>,
}

/// All writes of each writer, in their order.
pub type History = Vec<Vec<Write>>;

/// A walk along a history: what the data may look like at a point of the disk's log.
pub struct Judge<'h> {
    history: &'h History,
    next: Vec<usize>,
    possible: Vec<BTreeSet<Ledger>>,
}

/// What a writer's data were not.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// Whose.
    pub writer: usize,
    /// What was found.
    pub found: Ledger,
    /// What it could have been.
    pub possible: BTreeSet<Ledger>,
}

impl<'h> Judge<'h> {
    /// Starts with nothing written.
    pub fn new(history: &'h History) -> Self {
        let possible = vec![BTreeSet::from([Ledger::default()]); history.len()];
        Self { history, next: vec![0; history.len()], possible }
    }

    /// Goes on until so much has reached the disk.
    pub fn advance(&mut self, position: usize) {
        for (writer, writes) in self.history.iter().enumerate() {
            while let Some(write) = writes.get(self.next[writer]).filter(|write| write.answered <= position) {
                let possible = std::mem::take(&mut self.possible[writer]);
                let done = |ledger: &Ledger| ledger.clone().after(&write.effects);
                self.possible[writer] = match write.outcome {
                    Outcome::Acknowledged => possible.iter().map(done).collect(),
                    Outcome::Refused => possible,
                    Outcome::Unknown => possible.iter().map(done).chain(possible.iter().cloned()).collect(),
                };
                self.next[writer] += 1;
            }
        }
    }

    /// Holds what was found at that position against what may be.
    ///
    /// # Errors
    /// The first writer whose data cannot be so.
    pub fn judge(&self, position: usize, found: &BTreeMap<usize, Ledger>) -> Result<(), Box<Wrong>> {
        let nothing = Ledger::default();
        if let Some((writer, found)) = found.iter().find(|(writer, _)| **writer >= self.history.len()) {
            return Err(Box::new(Wrong { writer: *writer, found: found.clone(), possible: BTreeSet::new() }));
        }
        for (writer, possible) in self.possible.iter().enumerate() {
            let found = found.get(&writer).unwrap_or(&nothing);
            if possible.contains(found) {
                continue;
            }
            let under_way = self.history[writer].get(self.next[writer]);
            let under_way =
                under_way.filter(|write| write.asked <= position && write.outcome != Outcome::Refused);
            let effects = under_way.map(|write| &write.effects[..]).unwrap_or_default();
            if !possible.iter().any(|ledger| ledger.clone().after(effects) == *found) {
                let (found, possible) = (found.clone(), possible.clone());
                return Err(Box::new(Wrong { writer, found, possible }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(asked: usize, answered: usize, outcome: Outcome, effects: &[Effect]) -> Write {
        Write { asked, answered, outcome, effects: effects.to_vec() }
    }

    fn holds(position: usize, rows: &[i64]) -> bool {
        let pair = [Effect::Put(2, 20), Effect::Put(3, 30)];
        let history = vec![vec![
            write(0, 5, Outcome::Acknowledged, &[Effect::Put(1, 10)]),
            write(5, 6, Outcome::Refused, &[Effect::Put(9, 90)]),
            write(6, 10, Outcome::Acknowledged, &pair),
            write(11, 12, Outcome::Unknown, &[Effect::Remove(1)]),
        ]];
        let mut judge = Judge::new(&history);
        judge.advance(position);
        let rows = rows.iter().map(|number| (*number, *number as usize * 10)).collect();
        judge.judge(position, &BTreeMap::from([(0, Ledger { rows, ..Ledger::default() })])).is_ok()
    }

    #[test]
    fn acknowledged_is_there_and_under_way_is_whole_or_absent() {
        assert!(holds(4, &[]) && holds(4, &[1]));
        assert!(!holds(5, &[]) && holds(5, &[1]));
        assert!(!holds(7, &[1, 9]));
        assert!(holds(7, &[1]) && !holds(7, &[1, 2]) && holds(7, &[1, 2, 3]));
        assert!(!holds(10, &[1]) && holds(10, &[1, 2, 3]));
        assert!(holds(12, &[1, 2, 3]) && holds(12, &[2, 3]) && !holds(12, &[1, 2]));
    }
}
