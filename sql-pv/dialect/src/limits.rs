//! Every limit of the dialects, unit and MAX last.

/// Largest string of statements a client may send at once, bytes.
pub const QUERY_BYTES_MAX: usize = 16 << 20;

/// Most statements in one such string.
pub const QUERY_STATEMENTS_MAX: usize = 65_536;

/// Largest single statement, bytes: as the wire format between guest and host has it.
pub const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// Largest statement about the catalogue, bytes. Those are parsed in full; real ones have less than 10 KiB.
pub const CATALOG_STATEMENT_BYTES_MAX: usize = 64 << 10;

/// Deepest nesting of expressions and queries in a statement that is parsed in full.
pub const CATALOG_DEPTH_MAX: usize = 64;

/// Most operators in a statement that is parsed in full: each may be a level of its tree.
pub const CATALOG_OPERATORS_MAX: usize = 1024;

/// Most settings outside the built-in ones (`name.of.an.extension`) that a session may hold.
pub const CUSTOM_SETTINGS_MAX: usize = 64;

/// Longest value of a setting, bytes.
pub const SETTING_BYTES_MAX: usize = 1024;

/// Longest statement whose types are inferred, bytes.
pub const INFERENCE_TEXT_BYTES_MAX: usize = 64 << 10;

/// Tables whose columns are asked for while types are inferred.
pub const INFERENCE_TABLES_MAX: usize = 16;

/// Deepest nesting of queries and expressions that inference looks into.
pub const INFERENCE_DEPTH_MAX: usize = 64;
