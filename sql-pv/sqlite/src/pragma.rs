//! PRAGMA: which a guest may say, by name and by whether it has an argument.
//!
//! What would weaken durability or reach beyond the database is answered as SQLite answers a setting it
//! cannot change (with the value that stays), because object-relational mappers send such lines as a
//! habit; what could only be meant seriously is refused. The authorizer holds every statement to
//! [`passes`], so that nothing depends on the reading of a text here.

use vamos_sql_protocol::ValueRef;

use crate::connection::Settings;
use crate::text::PragmaCall;

/// What happens to one pragma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// SQLite answers; an argument is not a setting but what to look at.
    Look,
    /// SQLite answers without an argument; with one, the setting stays as it is and its value is the
    /// answer, if SQLite would give one.
    Fixed { answers: bool },
    /// SQLite answers, and changes the database if there is an argument.
    Database,
    /// The session's own setting.
    Session,
    /// Nothing happens and nothing is answered.
    Nothing,
    /// Refused with an argument, answered without.
    ReadOnly,
    /// Refused.
    Refused,
}

use Policy::{Database, Fixed, Look, Nothing, ReadOnly, Refused, Session};

/// Every pragma the bundled SQLite has.
const PRAGMAS: [(&str, Policy); 68] = [
    ("analysis_limit", Nothing),
    ("application_id", Database),
    ("auto_vacuum", Fixed { answers: false }),
    ("automatic_index", Fixed { answers: false }),
    ("busy_timeout", Fixed { answers: true }),
    ("cache_size", Fixed { answers: false }),
    ("cache_spill", Fixed { answers: false }),
    ("case_sensitive_like", Refused),
    ("cell_size_check", Fixed { answers: false }),
    ("checkpoint_fullfsync", Fixed { answers: false }),
    ("collation_list", Look),
    ("compile_options", Look),
    ("count_changes", ReadOnly),
    ("data_version", ReadOnly),
    ("database_list", Session),
    ("default_cache_size", Fixed { answers: false }),
    ("defer_foreign_keys", Database),
    ("empty_result_callbacks", ReadOnly),
    ("encoding", Fixed { answers: false }),
    ("foreign_key_check", Look),
    ("foreign_key_list", Look),
    ("foreign_keys", Session),
    ("freelist_count", ReadOnly),
    ("full_column_names", ReadOnly),
    ("fullfsync", Fixed { answers: false }),
    ("function_list", Look),
    ("hard_heap_limit", ReadOnly),
    ("ignore_check_constraints", ReadOnly),
    ("incremental_vacuum", Nothing),
    ("index_info", Look),
    ("index_list", Look),
    ("index_xinfo", Look),
    ("integrity_check", Look),
    ("journal_mode", Fixed { answers: true }),
    ("journal_size_limit", Fixed { answers: true }),
    ("legacy_alter_table", Fixed { answers: false }),
    ("locking_mode", Fixed { answers: true }),
    ("max_page_count", Fixed { answers: true }),
    ("mmap_size", Fixed { answers: true }),
    ("module_list", Look),
    ("optimize", Nothing),
    ("page_count", ReadOnly),
    ("page_size", Fixed { answers: false }),
    ("pragma_list", Look),
    ("query_only", Session),
    ("quick_check", Look),
    ("read_uncommitted", Fixed { answers: false }),
    ("recursive_triggers", Session),
    ("reverse_unordered_selects", ReadOnly),
    ("schema_version", ReadOnly),
    ("secure_delete", Fixed { answers: true }),
    ("short_column_names", ReadOnly),
    ("shrink_memory", Nothing),
    ("soft_heap_limit", ReadOnly),
    ("synchronous", Fixed { answers: false }),
    ("table_info", Look),
    ("table_list", Look),
    ("table_xinfo", Look),
    ("temp_store", Fixed { answers: false }),
    ("temp_store_directory", Refused),
    ("threads", Fixed { answers: true }),
    ("trusted_schema", ReadOnly),
    ("user_version", Database),
    ("wal_autocheckpoint", Fixed { answers: true }),
    ("wal_checkpoint", Nothing),
    ("writable_schema", ReadOnly),
    ("writable_schema_reset", Refused),
    ("write_delay", Refused),
];

fn policy(name: &str) -> Option<Policy> {
    PRAGMAS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, policy)| *policy)
}

/// Whether SQLite may be given the pragma by a guest; the authorizer's question.
pub(crate) fn passes(name: &str, has_argument: bool) -> bool {
    match policy(name) {
        Some(Look | Database) => true,
        Some(Fixed { .. } | ReadOnly) => !has_argument,
        Some(Session) => !has_argument && !name.eq_ignore_ascii_case("database_list"),
        Some(Nothing | Refused) | None => false,
    }
}

/// What the engine does with a guest's PRAGMA.
#[derive(Debug, PartialEq)]
pub(crate) enum Course {
    /// Lets SQLite answer this text.
    Run,
    /// Lets SQLite answer the pragma without its argument.
    RunAs(String),
    /// Runs as a write.
    Write,
    /// Answers with these columns and this row, if any.
    Answer(Vec<&'static str>, Option<Vec<ValueRef<'static>>>),
    /// Refuses it.
    Refuse(String),
}

/// Decides; a session's own setting is changed here. `open` says that a transaction is.
pub(crate) fn decide(call: &PragmaCall, settings: &mut Settings, open: bool) -> Course {
    let name = call.name.as_str();
    match (policy(name), call.value.as_deref()) {
        // SQLite ignores what it does not know, and so do those who ask.
        (None, _) | (Some(Nothing), _) => Course::Answer(Vec::new(), None),
        (Some(Refused), _) | (Some(ReadOnly), Some(_)) => Course::Refuse(format!("PRAGMA {name}")),
        (Some(Database), Some(_)) => Course::Write,
        (Some(Fixed { answers: true }), Some(_)) => Course::RunAs(format!("PRAGMA {name}")),
        (Some(Fixed { answers: false }), Some(_)) => Course::Answer(Vec::new(), None),
        (Some(Session), value) => session(name, value, settings, open),
        (Some(Look | Fixed { .. } | Database | ReadOnly), _) => Course::Run,
    }
}

fn session(name: &str, value: Option<&str>, settings: &mut Settings, open: bool) -> Course {
    let (setting, title) = match name {
        "foreign_keys" => (&mut settings.foreign_keys, "foreign_keys"),
        "recursive_triggers" => (&mut settings.recursive_triggers, "recursive_triggers"),
        "query_only" if settings.read_only => {
            return match value {
                Some(value) if !is_on(value) => {
                    Course::Refuse("PRAGMA query_only: the binding is read-only".to_owned())
                }
                Some(_) => Course::Answer(Vec::new(), None),
                None => Course::Answer(vec!["query_only"], Some(vec![ValueRef::Integer(1)])),
            };
        }
        "query_only" => (&mut settings.query_only, "query_only"),
        _ => {
            let main = [ValueRef::Integer(0), ValueRef::Text(b"main"), ValueRef::Text(b"")];
            return Course::Answer(vec!["seq", "name", "file"], Some(main.to_vec()));
        }
    };
    let Some(value) = value else {
        return Course::Answer(vec![title], Some(vec![ValueRef::Integer(i64::from(*setting))]));
    };
    // As in SQLite: within a transaction the foreign keys stay as they are.
    if !(open && title == "foreign_keys") {
        *setting = is_on(value);
    }
    Course::Answer(Vec::new(), None)
}

/// SQLite's booleans (sqlite3GetBoolean).
fn is_on(value: &str) -> bool {
    match value.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" => true,
        number => number.parse::<i64>().is_ok_and(|number| number != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, value: Option<&str>) -> PragmaCall {
        PragmaCall { name: name.to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn durability_cannot_be_talked_away() {
        for name in ["synchronous", "journal_mode", "locking_mode", "wal_autocheckpoint", "mmap_size"] {
            assert!(!passes(name, true), "{name}");
            let course = decide(&call(name, Some("OFF")), &mut Settings::default(), false);
            assert!(!matches!(course, Course::Run | Course::Write | Course::Refuse(_)), "{name}: {course:?}");
        }
    }

    #[test]
    fn a_session_changes_only_its_own_settings() {
        let mut settings = Settings::default();
        decide(&call("foreign_keys", Some("off")), &mut settings, true);
        assert!(settings.foreign_keys, "not within a transaction");
        decide(&call("foreign_keys", Some("off")), &mut settings, false);
        assert!(!settings.foreign_keys);
        let answer = decide(&call("foreign_keys", None), &mut settings, false);
        assert_eq!(answer, Course::Answer(vec!["foreign_keys"], Some(vec![ValueRef::Integer(0)])));
    }

    #[test]
    fn t07_every_pragma_has_been_judged() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        let mut statement = db.prepare("SELECT name FROM pragma_pragma_list").unwrap();
        let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let unknown: Vec<_> = names.map(Result::unwrap).filter(|name| policy(name).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(!passes("a_pragma_of_tomorrow", false));
    }
}
