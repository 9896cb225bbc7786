//! Interleaved measurements of the channel against sockets, SQLite and PostgreSQL.

fn main() {}
