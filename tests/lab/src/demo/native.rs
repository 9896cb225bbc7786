//! The same catalogue in a SQLite of the lab's own, on the host: loaded from the rows, not from the text that
//! the guest loads, and asked the same.

use anyhow::{Context, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::catalogue::{Catalogue, Field, Table};

/// The host's own copy.
pub struct Native {
    connection: Connection,
}

impl Native {
    /// Loads it.
    ///
    /// # Errors
    /// When SQLite refuses, which is a mistake in the lab.
    pub fn load(catalogue: &Catalogue) -> Result<Self> {
        let connection = Connection::open_in_memory().context("opening a database in memory")?;
        connection.execute_batch(super::SCHEMA).context("creating the tables")?;
        connection.execute_batch("BEGIN").context("beginning")?;
        for table in &catalogue.tables {
            insert(&connection, table).with_context(|| format!("loading {}", table.name))?;
        }
        connection.execute_batch("COMMIT").context("committing")?;
        connection.execute_batch(super::INDEXES).context("creating the indexes")?;
        Ok(Self { connection })
    }

    /// Answers a statement as `psql -At -F TAB` prints it.
    ///
    /// # Errors
    /// When the statement fails.
    pub fn answer(&self, sql: &str) -> Result<String> {
        let mut statement = self.connection.prepare(sql).with_context(|| format!("preparing {sql}"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([]).with_context(|| format!("running {sql}"))?;
        let mut answer = String::new();
        while let Some(row) = rows.next().context("fetching a row")? {
            for column in 0..columns {
                if column > 0 {
                    answer.push('\t');
                }
                match row.get_ref(column).context("reading a column")? {
                    ValueRef::Null => {}
                    ValueRef::Integer(value) => answer.push_str(&value.to_string()),
                    ValueRef::Real(value) => answer.push_str(&value.to_string()),
                    ValueRef::Text(text) | ValueRef::Blob(text) => {
                        answer.push_str(&String::from_utf8_lossy(text));
                    }
                }
            }
            answer.push('\n');
        }
        Ok(answer)
    }
}

fn insert(connection: &Connection, table: &Table) -> Result<()> {
    let columns = table.rows.first().map_or(0, Vec::len);
    let places = vec!["?"; columns].join(", ");
    let mut statement = connection
        .prepare(&format!("INSERT INTO {} VALUES ({places})", table.name))
        .context("preparing the insert")?;
    for row in &table.rows {
        statement.execute(params_from_iter(row)).context("inserting a row")?;
    }
    Ok(())
}

impl ToSql for Field {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Integer(value) => ToSqlOutput::from(*value),
            Self::Text(text) => ToSqlOutput::from(text.as_str()),
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
        })
    }
}
