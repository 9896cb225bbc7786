//! Types of parameters and of undeclared columns.
use super::connection::Failure;
use vamos_sql_client::{Session, Statement};
use vamos_sql_dialect::postgres::PgType;
/// Types.
#[derive(Default)]
pub(super) struct Types {
    pub(super) columns: Vec<Option<PgType>>,
    pub(super) parameters: Vec<Option<PgType>>,
}
/// Types.
pub(super) async fn types(_session: &Session, _text: &str, _statement: &Statement) -> Result<Types, Failure> {
    Ok(Types::default())
}
