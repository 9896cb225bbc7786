//! The settings every session has.

/// The version of PostgreSQL whose behaviour towards clients this front door follows.
pub const SERVER_VERSION: &str = "15.8 (VAMOS)";

/// What `version()` says.
pub const VERSION: &str = "PostgreSQL 15.8 (VAMOS, SQLite dialect)";

/// Which values a setting can have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// Any.
    Any,
    /// None but its own, ever.
    ReadOnly,
    /// Its default, in these spellings; another would be untrue.
    Only(&'static [&'static str]),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// `on` or `off`.
    Boolean,
    /// A number within these.
    Integer(i64, i64),
    /// A time.
    Milliseconds,
}

/// A built-in setting.
#[derive(Debug)]
pub(super) struct Known {
    pub name: &'static str,
    pub default: &'static str,
    pub rule: Rule,
    /// Clients are told of it at start-up and when it changes.
    pub reported: bool,
    pub about: &'static str,
}

const fn quiet(name: &'static str, default: &'static str, rule: Rule, about: &'static str) -> Known {
    Known { name, default, rule, reported: false, about }
}

const fn told(name: &'static str, default: &'static str, rule: Rule, about: &'static str) -> Known {
    Known { name, default, rule, reported: true, about }
}

/// SQLite's transactions are serializable; every lesser level asked for is thereby given.
const ISOLATION: Rule =
    Rule::Only(&["serializable", "repeatable read", "read committed", "read uncommitted"]);
const ALWAYS_OFF: Rule = Rule::Only(&["off", "false", "no", "0", "f", "n"]);
const ALWAYS_ON: Rule = Rule::Only(&["on", "true", "yes", "1", "t", "y"]);
const DATE_STYLES: Rule =
    Rule::Only(&["iso", "iso, mdy", "iso,mdy", "mdy", "iso, ymd", "iso,ymd", "iso, dmy", "iso,dmy"]);
const MESSAGES: Rule = Rule::OneOf(&[
    "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "notice", "warning", "error",
]);

impl Known {
    pub const ALL: &'static [Known] = &[
        told("DateStyle", "ISO, MDY", DATE_STYLES, "Display format for dates."),
        told("IntervalStyle", "postgres", Rule::Only(&["postgres"]), "Display format for intervals."),
        told("TimeZone", "UTC", Rule::Any, "The session's time zone; kept for clients, times are UTC."),
        told("application_name", "", Rule::Any, "Name of the application, for statistics and logs."),
        quiet("array_nulls", "on", Rule::Boolean, "Accept NULL in arrays."),
        quiet("backslash_quote", "safe_encoding", Rule::ReadOnly, "Whether \\' is a quote in strings."),
        quiet("block_size", "8192", Rule::ReadOnly, "Size of a disk block."),
        quiet("bytea_output", "hex", Rule::Only(&["hex"]), "Output format of bytea."),
        quiet("check_function_bodies", "on", Rule::Boolean, "Check function bodies at creation."),
        told(
            "client_encoding",
            "UTF8",
            Rule::Only(&["utf8", "utf-8", "unicode", "utf_8"]),
            "The client's encoding.",
        ),
        quiet("client_min_messages", "notice", MESSAGES, "Which messages are sent to the client."),
        quiet("constraint_exclusion", "partition", Rule::Any, "Use constraints in planning."),
        quiet(
            "default_table_access_method",
            "heap",
            Rule::Only(&["heap"]),
            "Table access method of new tables.",
        ),
        quiet("default_tablespace", "", Rule::Only(&[""]), "Tablespace of new tables."),
        quiet("default_toast_compression", "pglz", Rule::Any, "Compression of large values."),
        quiet("default_transaction_deferrable", "off", ALWAYS_OFF, "Deferrable status of new transactions."),
        quiet("default_transaction_isolation", "serializable", ISOLATION, "Isolation of new transactions."),
        told("default_transaction_read_only", "off", ALWAYS_OFF, "Whether new transactions only read."),
        quiet("escape_string_warning", "on", Rule::Boolean, "Warn about backslashes in strings."),
        quiet("extra_float_digits", "1", Rule::Integer(-15, 3), "Digits shown of floating-point values."),
        quiet("geqo", "on", Rule::Boolean, "Genetic query optimization."),
        quiet(
            "idle_in_transaction_session_timeout",
            "0",
            Rule::Milliseconds,
            "Longest idle time in a transaction.",
        ),
        quiet("idle_session_timeout", "0", Rule::Milliseconds, "Longest idle time of a session."),
        told("in_hot_standby", "off", Rule::ReadOnly, "Whether this is a standby."),
        told("integer_datetimes", "on", Rule::ReadOnly, "Whether datetimes are integers."),
        told("is_superuser", "off", Rule::ReadOnly, "Whether the user is a superuser."),
        quiet("jit", "off", Rule::Boolean, "Just-in-time compilation."),
        quiet("lc_collate", "C", Rule::ReadOnly, "Collation order."),
        quiet("lc_ctype", "C", Rule::ReadOnly, "Character classification."),
        quiet("lc_messages", "C", Rule::Any, "Language of messages."),
        quiet("lc_monetary", "C", Rule::Any, "Format of amounts of money."),
        quiet("lc_numeric", "C", Rule::Any, "Format of numbers."),
        quiet("lc_time", "C", Rule::Any, "Format of dates and times."),
        quiet("lock_timeout", "0", Rule::Milliseconds, "Longest wait for a lock."),
        quiet("log_statement", "none", Rule::Any, "Which statements are logged."),
        quiet("max_identifier_length", "63", Rule::ReadOnly, "Longest identifier."),
        quiet("max_index_keys", "32", Rule::ReadOnly, "Most columns of an index."),
        quiet("row_security", "on", Rule::Boolean, "Row security."),
        quiet("search_path", "\"$user\", public", Rule::Any, "Where names without a schema are looked for."),
        told("server_encoding", "UTF8", Rule::ReadOnly, "The server's encoding."),
        told("server_version", SERVER_VERSION, Rule::ReadOnly, "The server's version."),
        quiet("server_version_num", "150008", Rule::ReadOnly, "The server's version as a number."),
        told("session_authorization", "", Rule::ReadOnly, "The session's user."),
        told("standard_conforming_strings", "on", ALWAYS_ON, "Backslashes in plain strings are ordinary."),
        quiet("statement_timeout", "0", Rule::Milliseconds, "Longest time of a statement."),
        quiet("synchronize_seqscans", "on", Rule::Boolean, "Synchronized sequential scans."),
        quiet("synchronous_commit", "on", ALWAYS_ON, "Commits are durable when they are reported."),
        quiet("transaction_deferrable", "off", ALWAYS_OFF, "Whether this transaction is deferrable."),
        quiet("transaction_isolation", "serializable", ISOLATION, "This transaction's isolation."),
        quiet("transaction_read_only", "off", ALWAYS_OFF, "Whether this transaction only reads."),
        quiet("vacuum_cost_delay", "0", Rule::Any, "Pace of vacuuming."),
        quiet("work_mem", "4MB", Rule::Any, "Memory of a sort or hash table."),
        quiet("xmloption", "content", Rule::Any, "Meaning of XML values."),
    ];
}

/// The built-in setting of that lower-case name.
pub(super) fn known(name: &str) -> Option<&'static Known> {
    Known::ALL.iter().find(|known| known.name.eq_ignore_ascii_case(name))
}
