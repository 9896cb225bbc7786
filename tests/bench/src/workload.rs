//! What is run, the same for every variant: a table of items read by key, and a table that is loaded.

use vamos_sql_protocol::{BlockBuilder, ValueRef};

/// Rows of the table that is read.
pub const ITEMS: i64 = 10_000;

/// Rows of one transaction of the load, in every variant: what fills one block, as in the agent's COPY.
pub const ROWS_PER_TRANSACTION: i64 = 750;

/// Table that is read by key (SQLite's words; PostgreSQL understands them too).
pub const CREATE_ITEM: &str = "CREATE TABLE item (id BIGINT PRIMARY KEY, name TEXT NOT NULL, price DOUBLE PRECISION NOT NULL, stock BIGINT NOT NULL)";
/// The same for SQLite, where this spelling makes the key the row's own number.
pub const CREATE_ITEM_SQLITE: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL NOT NULL, stock INTEGER NOT NULL)";
/// Fills it.
pub const INSERT_ITEM: &str = "INSERT INTO item (id, name, price, stock) VALUES ($1, $2, $3, $4)";
/// The point SELECT, prepared once.
pub const SELECT_ITEM: &str = "SELECT name, price, stock FROM item WHERE id = $1";

/// Table that is loaded.
pub const CREATE_PACKAGE: &str = "CREATE TABLE package (id INTEGER PRIMARY KEY, name TEXT NOT NULL, \
     version TEXT NOT NULL, size INTEGER NOT NULL, summary TEXT NOT NULL)";
/// One row of the load.
pub const INSERT_PACKAGE: &str =
    "INSERT INTO package (id, name, version, size, summary) VALUES ($1, $2, $3, $4, $5)";

/// A row of `item`.
pub struct Item {
    /// Key, from 1 to [`ITEMS`].
    pub id: i64,
    /// Some text.
    pub name: String,
    /// Some number.
    pub price: f64,
    /// Some number.
    pub stock: i64,
}

impl Item {
    /// The row with that key.
    pub fn new(id: i64) -> Self {
        Self { id, name: format!("item number {id}"), price: id as f64 * 0.25, stock: id * 7 % 1_000 }
    }
}

/// A row of `package`.
pub struct Package {
    /// Key.
    pub id: i64,
    /// About as long as a package's name.
    pub name: String,
    /// About as long as a version.
    pub version: String,
    /// Some number.
    pub size: i64,
    /// About as long as a summary.
    pub summary: String,
}

impl Package {
    /// The row with that key.
    pub fn new(id: i64) -> Self {
        Self {
            id,
            name: format!("libexample{id}-dev"),
            version: format!("{}.{}-{}", id % 9, id % 31, id % 5),
            size: id * 7_919 % 9_000_000,
            summary: format!("development files of an example, part {id} of many"),
        }
    }
}

/// Rows of `package` from `first`, as a block of parameters.
pub fn packages(first: i64, rows: i64) -> BlockBuilder {
    let mut block = BlockBuilder::new(5);
    for row in (first..first + rows).map(Package::new) {
        block.row([
            ValueRef::Integer(row.id),
            ValueRef::Text(row.name.as_bytes()),
            ValueRef::Text(row.version.as_bytes()),
            ValueRef::Integer(row.size),
            ValueRef::Text(row.summary.as_bytes()),
        ]);
    }
    block
}

/// Rows of `item` from `first`, as a block of parameters.
pub fn items(first: i64, rows: i64) -> BlockBuilder {
    let mut block = BlockBuilder::new(4);
    for row in (first..first + rows).map(Item::new) {
        block.row([
            ValueRef::Integer(row.id),
            ValueRef::Text(row.name.as_bytes()),
            ValueRef::Real(row.price),
            ValueRef::Integer(row.stock),
        ]);
    }
    block
}

/// Keys in an order that is the same in every run and touches the whole table.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    drawn: i64,
}

impl Keys {
    /// The next key.
    pub fn draw(&mut self) -> i64 {
        // A step without a factor in common with the number of rows visits each of them once.
        self.drawn = (self.drawn + 3_847) % ITEMS;
        self.drawn + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vamos_sql_protocol::limits::SQL_BLOCK_BYTES;

    #[test]
    fn a_transaction_is_one_full_block() {
        let bytes = packages(1_000_000, ROWS_PER_TRANSACTION).len() as f64 / SQL_BLOCK_BYTES as f64;
        assert!((0.9..1.1).contains(&bytes), "{bytes} blocks");
    }

    #[test]
    fn keys_visit_every_row() {
        let mut keys = Keys::default();
        let mut seen: Vec<i64> = (0..ITEMS).map(|_| keys.draw()).collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(1..=ITEMS));
    }
}
