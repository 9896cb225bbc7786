//! PostgreSQL's dialect, for a front door that speaks its wire protocol.
//!
//! [`split`] cuts what a client sent into statements and [`translate`] says what each is. Most are
//! SQLite's own SQL and are passed through; one pass over the tokens tells. Statements about the session
//! ([`set`], [`transaction`], [`copy`]) are read word by word; PostgreSQL's spellings of what SQLite can
//! say are rewritten in place ([`rewrite`]); queries about `pg_catalog` and `information_schema` are
//! parsed in full and run over SQLite's own schema tables.

mod answer;
mod catalog;
mod copy;
mod cursor;
pub mod inference;
mod known_settings;
mod literal;
mod rewrite;
mod session;
mod set;
mod settings;
mod split;
mod statement;
mod transaction;
mod types;

pub use answer::{Answer, CatalogQuery, Discard, PositionMap, Refusal, Rewritten, Translated};
pub use copy::{Copy, CopyOptions, Direction, Format, Header, Subject};
pub use known_settings::{SERVER_VERSION, VERSION};
pub use session::SessionView;
pub use settings::{Action, Reported, Scope, SettingChange, Settings};
pub use split::{Span, SplitError, split};
pub use statement::translate;
pub use transaction::{Lock, Transaction};
pub use types::PgType;
