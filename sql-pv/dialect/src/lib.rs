//! Translation of front-door dialects into the engine's SQL, and the PostgreSQL catalogue over SQLite.
//!
//! Pure text to text: nothing here opens a database, a socket or a file, and nothing here knows of
//! wire protocols. A front door splits what its client sent into statements, asks what each one is,
//! and does what the answer says; the engine sees SQLite's SQL only.
//!
//! The rule of every translation: what SQLite accepts as it stands is left byte for byte as it is; what
//! it would not accept is translated if SQLite can say exactly the same, and refused by name if not.

mod lexer;
pub mod limits;
pub mod postgres;
