//! Types that SQLite does not tell: asks the engine for what `vamos_sql_dialect`'s inference needs to know.

use vamos_sql_client::{ClientError, Session, Statement};
use vamos_sql_dialect::postgres::PgType;
use vamos_sql_dialect::postgres::inference::{Types, Untyped};

use super::connection::Failure;

/// Finds out the types of a statement's parameters and of its columns without declared ones.
///
/// # Errors
/// The link was lost. Of a text that cannot be read, nothing is told.
pub(super) async fn types(session: &Session, text: &str, statement: &Statement) -> Result<Types, Failure> {
    let Some(untyped) = Untyped::parse(text) else { return Ok(Types::default()) };
    let mut tables = Vec::new();
    for name in untyped.tables() {
        let sql = format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
        match session.prepare(&sql).await {
            Ok(found) => {
                let columns = found.columns().iter();
                let columns =
                    columns.map(|column| (column.name.to_lowercase(), PgType::of_declared(&column.declared)));
                tables.push((name, columns.collect()));
            }
            // Not a table: then it is not one of its columns that tells a type.
            Err(ClientError::Sql(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut types = untyped.types(&tables);
    types.parameters.truncate(statement.parameters());
    if types.columns.len() != statement.columns().len() {
        types.columns.clear();
    }
    Ok(types)
}
