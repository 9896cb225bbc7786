//! What holds for any text whatever.

use proptest::prelude::*;
use vamos_sql_dialect::postgres::{SessionView, Settings, Translated, split, translate};

fn translated(statement: &str) -> Translated {
    let settings = Settings::new("me", []).expect("settings");
    let session =
        SessionView { database: "db", databases: &["db"], user: "me", backend_pid: 1, settings: &settings };
    translate(statement, &session)
}

/// Text that looks like SQL enough to get past the lexer.
fn sql_like() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "SELECT",
        "FROM",
        "WHERE",
        "pg_class",
        "pg_catalog.",
        "information_schema.tables",
        "c",
        ".",
        "oid",
        "::",
        "int",
        "text",
        "regclass",
        "'a'",
        "E'\\n'",
        "$1",
        "$$x$$",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "ANY",
        "ARRAY",
        "CASE",
        "WHEN",
        "THEN",
        "END",
        "LIMIT",
        "ALL",
        "OFFSET",
        "FETCH",
        "FIRST",
        "ROWS",
        "ONLY",
        "ILIKE",
        "~",
        "!~",
        "'^(a.*)$'",
        "=",
        "public",
        "DATE",
        "now",
        "CREATE",
        "TABLE",
        "TRIGGER",
        "BEGIN",
        "serial",
        "PRIMARY",
        "KEY",
        "GENERATED",
        "BY",
        "DEFAULT",
        "AS",
        "IDENTITY",
        "unnest",
        "JOIN",
        "ON",
        "LEFT",
        "UNION",
        "*",
        "count",
        "--",
        "/*",
        "*/",
        "\n",
        "\"q\"",
        "é",
        "COPY",
        "STDIN",
        "SET",
        "SHOW",
        "TO",
        "1",
    ]);
    prop::collection::vec((words, prop::bool::ANY), 0..40).prop_map(|words| {
        words.into_iter().map(|(word, blank)| format!("{word}{}", if blank { " " } else { "" })).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn splitting_covers_all_but_blanks(text in prop_oneof![any::<String>(), sql_like()]) {
        let Ok(spans) = split(&text) else { return Ok(()) };
        let mut end = 0;
        for span in &spans {
            prop_assert!(span.start >= end && span.end > span.start && span.end <= text.len());
            // What is between statements has no statements.
            prop_assert!(split(&text[end..span.start]).expect("splits").is_empty());
            // A statement is one statement.
            prop_assert_eq!(split(span.of(&text)).expect("splits").len(), 1);
            end = span.end;
        }
        prop_assert!(split(&text[end..]).expect("splits").is_empty());
    }

    #[test]
    fn translation_does_not_panic(text in prop_oneof![any::<String>(), sql_like()]) {
        for span in split(&text).unwrap_or_default() {
            if let Translated::Rewritten(rewritten) = translated(span.of(&text)) {
                for position in 0..=rewritten.sql.len() {
                    prop_assert!(rewritten.positions.original(position) <= span.of(&text).len());
                }
            }
        }
        let _ = translated(&text);
    }

    #[test]
    fn bytes_of_any_kind_are_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = split(&text);
        let _ = translated(&text);
    }

    #[test]
    fn catalog_queries_do_not_panic(text in sql_like()) {
        let _ = translated(&format!("SELECT * FROM pg_catalog.pg_class c, {text}"));
        let _ = translated(&format!("SELECT {text} FROM pg_catalog.pg_class c"));
    }

    /// What is left to SQLite once stays SQLite's: rewriting what was rewritten changes nothing.
    #[test]
    fn rewriting_ends(text in sql_like()) {
        if let Translated::Rewritten(rewritten) = translated(&text)
            && let Translated::Rewritten(again) = translated(&rewritten.sql) {
                prop_assert_eq!(again.sql, rewritten.sql);
            }
    }
}
