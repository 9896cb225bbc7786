//! The PostgreSQL door with unmodified clients in front of it and the real service and engine behind it.

mod copy;
mod drivers;
mod host;
mod psql;
mod raw;
mod threats;
mod transactions;
