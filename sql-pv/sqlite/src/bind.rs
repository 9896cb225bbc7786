//! Parameters straight from a packed block into a prepared statement: no values in between.

use rusqlite::Statement;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef as Stored};
use vamos_sql_protocol::{BlockError, Rows, ValueRef};
use vamos_sql_server::SqlError;

use crate::guard::Guard;
use crate::sqlstate;

/// A value of a block as SQLite's binding takes it.
struct Parameter<'b>(ValueRef<'b>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            ValueRef::Null => Stored::Null,
            ValueRef::Integer(i) => Stored::Integer(i),
            ValueRef::Real(r) => Stored::Real(r),
            ValueRef::Text(text) => Stored::Text(text),
            ValueRef::Blob(blob) => Stored::Blob(blob),
        }))
    }
}

/// A column's value as a block takes it.
pub(crate) fn stored(value: Stored<'_>) -> ValueRef<'_> {
    match value {
        Stored::Null => ValueRef::Null,
        Stored::Integer(i) => ValueRef::Integer(i),
        Stored::Real(r) => ValueRef::Real(r),
        Stored::Text(text) => ValueRef::Text(text),
        Stored::Blob(blob) => ValueRef::Blob(blob),
    }
}

/// Binds the next row of `rows`.
pub(crate) fn row(statement: &mut Statement<'_>, rows: &mut Rows<'_>, guard: &Guard) -> Result<(), SqlError> {
    for at in 1..=rows.columns() {
        let value = rows.value().map_err(broken)?;
        statement
            .raw_bind_parameter(at, Parameter(value))
            .map_err(|error| sqlstate::from_sqlite(&error, guard))?;
    }
    Ok(())
}

/// Binds a block of at most one row: as many values as the statement takes.
pub(crate) fn single(statement: &mut Statement<'_>, block: &[u8], guard: &Guard) -> Result<(), SqlError> {
    let mut rows = Rows::new(block).map_err(broken)?;
    let given = if rows.rows() == 0 { 0 } else { rows.columns() };
    let wanted = statement.parameter_count();
    if given != wanted {
        return Err(sqlstate::parameters(given, wanted));
    }
    if given > 0 {
        row(statement, &mut rows, guard)?;
        rows.end().map_err(broken)?;
    }
    Ok(())
}

/// A block that is not one.
pub(crate) fn broken(error: BlockError) -> SqlError {
    SqlError::protocol(format!("parameters: {error}"))
}
