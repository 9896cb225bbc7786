//! Translation of front-door dialects into the engine's SQL, and the PostgreSQL catalogue over SQLite.
