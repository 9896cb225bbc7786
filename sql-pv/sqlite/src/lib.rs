//! The embedded engine: SQLite with authorizer, limits and group commit.
