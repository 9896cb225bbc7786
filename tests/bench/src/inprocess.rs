//! The same statements with SQLite in this very process: no channel at all, the least they can cost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::Connection;

use crate::workload::{
    CREATE_ITEM_SQLITE, CREATE_PACKAGE, INSERT_ITEM, INSERT_PACKAGE, ITEMS, Item, Keys, Package,
    ROWS_PER_TRANSACTION, SELECT_ITEM,
};

/// A database of our own, as durable as the service's.
pub struct InProcess {
    connection: Connection,
    keys: Keys,
    loaded: i64,
}

impl InProcess {
    /// Makes and fills the database at `path`.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path).context("open the in-process database")?;
        connection.pragma_update(None, "journal_mode", "wal").context("set journal_mode")?;
        connection.pragma_update(None, "synchronous", "full").context("set synchronous")?;
        connection
            .execute_batch(&format!("{CREATE_ITEM_SQLITE}; {CREATE_PACKAGE}; BEGIN"))
            .context("create tables")?;
        {
            let mut insert = connection.prepare(INSERT_ITEM).context("prepare")?;
            for item in (1..=ITEMS).map(Item::new) {
                insert.execute((item.id, item.name, item.price, item.stock)).context("fill item")?;
            }
        }
        connection.execute_batch("COMMIT").context("commit")?;
        Ok(Self { connection, keys: Keys::default(), loaded: 0 })
    }

    /// Point SELECTs, one after the other.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn selects(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut select = self.connection.prepare_cached(SELECT_ITEM).context("prepare")?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, start) = (self.keys.draw(), Instant::now());
            let row: (String, f64, i64) = select
                .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .context("select")?;
            std::hint::black_box(row);
            times.push(start.elapsed());
        }
        Ok(times)
    }

    /// Loads `transactions` transactions of rows; the time it took.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn load(&mut self, transactions: i64) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for _ in 0..transactions {
            let transaction = self.connection.transaction().context("begin")?;
            {
                let mut insert = transaction.prepare_cached(INSERT_PACKAGE).context("prepare")?;
                for row in (self.loaded + 1..=self.loaded + ROWS_PER_TRANSACTION).map(Package::new) {
                    insert
                        .execute((row.id, row.name, row.version, row.size, row.summary))
                        .context("load a row")?;
                }
            }
            transaction.commit().context("commit")?;
            self.loaded += ROWS_PER_TRANSACTION;
        }
        Ok(start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yardstick_does_what_it_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut sqlite = InProcess::new(&directory.path().join("a.db")).expect("a database");
        assert_eq!(sqlite.selects(3).expect("selects").len(), 3);
        sqlite.load(2).expect("a load");
        sqlite.load(1).expect("a load");
        let rows: i64 =
            sqlite.connection.query_row("SELECT count(*) FROM package", [], |row| row.get(0)).expect("rows");
        assert_eq!(rows, 3 * ROWS_PER_TRANSACTION);
        let durable: i64 =
            sqlite.connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).expect("pragma");
        assert_eq!(durable, 2, "FULL");
    }
}
