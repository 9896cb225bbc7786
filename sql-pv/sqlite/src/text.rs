//! What kind of statement a text is, from its first words alone. This only decides where it runs; what
//! it may do is decided by the authorizer, from SQLite's own parser.

/// What a statement is, as far as its first words say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space and comments.
    Empty,
    /// BEGIN; `immediate` also for EXCLUSIVE, which is the same with a write-ahead log.
    Begin {
        immediate: bool,
    },
    Commit,
    Rollback,
    /// ROLLBACK TO.
    RollbackTo,
    Savepoint,
    Release,
    Pragma(PragmaCall),
    Vacuum,
    /// Cannot write unless it says so later (WITH).
    Read,
    /// Writes if it is anything.
    Write,
}

/// `PRAGMA [schema.]name [= value | (value)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PragmaCall {
    /// Lower case.
    pub(crate) name: String,
    /// The argument without quotes; an empty one is none.
    pub(crate) value: Option<String>,
}

/// A statement's kind and its first keyword, upper case.
pub(crate) fn classify(text: &str) -> (Kind, &'static str) {
    let mut words = Words { rest: text };
    words.skip_semicolons();
    let Some(first) = words.next() else {
        return (if words.rest.is_empty() { Kind::Empty } else { Kind::Write }, "");
    };
    let Some(command) = COMMANDS.iter().find(|command| first.eq_ignore_ascii_case(command)) else {
        return (Kind::Write, "");
    };
    let kind = match *command {
        "BEGIN" => Kind::Begin {
            immediate: words.next().is_some_and(|word| is_any(word, &["IMMEDIATE", "EXCLUSIVE"])),
        },
        "COMMIT" => Kind::Commit,
        "END" => return (Kind::Commit, "COMMIT"),
        "ROLLBACK" => rollback(words),
        "SAVEPOINT" => Kind::Savepoint,
        "RELEASE" => Kind::Release,
        "PRAGMA" => pragma(words).map_or(Kind::Read, Kind::Pragma),
        "VACUUM" if is_bare(words) => Kind::Vacuum,
        "SELECT" | "VALUES" | "WITH" | "EXPLAIN" => Kind::Read,
        _ => Kind::Write,
    };
    (kind, command)
}

/// The keyword a statement can begin with, for good; none other than those.
pub(crate) fn keyword(word: &str) -> &'static str {
    COMMANDS.iter().find(|command| **command == word).copied().unwrap_or("")
}

const COMMANDS: [&str; 23] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "WITH",
    "VALUES",
    "REPLACE",
    "BEGIN",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "PRAGMA",
    "EXPLAIN",
    "CREATE",
    "DROP",
    "ALTER",
    "ANALYZE",
    "REINDEX",
    "VACUUM",
    "ATTACH",
    "DETACH",
];

fn is_any(word: &str, of: &[&str]) -> bool {
    of.iter().any(|candidate| word.eq_ignore_ascii_case(candidate))
}

/// VACUUM [schema], and nothing more: VACUUM INTO is not one.
fn is_bare(mut words: Words<'_>) -> bool {
    words.skip_semicolons();
    words.rest.is_empty() || {
        let schema = words.name().is_some_and(|name| is_any(name, &["main"]));
        words.skip_semicolons();
        schema && words.rest.is_empty()
    }
}

/// ROLLBACK [TRANSACTION [name]] [TO [SAVEPOINT] name]
fn rollback(mut words: Words<'_>) -> Kind {
    match words.next() {
        Some(word) if is_any(word, &["TO"]) => Kind::RollbackTo,
        Some(word) if is_any(word, &["TRANSACTION"]) => {
            if words.next().is_some_and(|word| is_any(word, &["TO"])) {
                Kind::RollbackTo
            } else {
                Kind::Rollback
            }
        }
        _ => Kind::Rollback,
    }
}

fn pragma(mut words: Words<'_>) -> Option<PragmaCall> {
    let mut name = words.name()?;
    if words.eat('.') {
        name = words.name()?;
    }
    let value = if words.eat('=') {
        words.rest.trim_end_matches([';', ' ', '\t', '\n', '\r', '\x0c']).to_owned()
    } else if words.eat('(') {
        words.rest.rsplit_once(')')?.0.trim().to_owned()
    } else {
        String::new()
    };
    let value = value.trim_matches(['\'', '"', ' ', '`', '[', ']']);
    let value = (!value.is_empty()).then(|| value.to_owned());
    Some(PragmaCall { name: name.to_ascii_lowercase(), value })
}

/// Words and marks, with white space and comments skipped.
struct Words<'t> {
    rest: &'t str,
}

impl<'t> Words<'t> {
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                return;
            }
        }
    }

    fn skip_semicolons(&mut self) {
        self.skip();
        while let Some(rest) = self.rest.strip_prefix(';') {
            self.rest = rest;
            self.skip();
        }
    }

    /// The next word of letters, if one is next.
    fn next(&mut self) -> Option<&'t str> {
        self.skip();
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// The next name, quoted or not.
    fn name(&mut self) -> Option<&'t str> {
        self.skip();
        let close = match self.rest.chars().next()? {
            '"' => '"',
            '\'' => '\'',
            '`' => '`',
            '[' => ']',
            _ => return self.next(),
        };
        let (name, rest) = self.rest[1..].split_once(close)?;
        self.rest = rest;
        Some(name)
    }

    fn eat(&mut self, mark: char) -> bool {
        self.skip();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_from_the_first_words() {
        for (text, kind, command) in [
            ("", Kind::Empty, ""),
            (" ; -- nothing\n /* at all */ ;", Kind::Empty, ""),
            ("select 1", Kind::Read, "SELECT"),
            ("/* a */ with x as (select 1) insert into t select * from x", Kind::Read, "WITH"),
            ("begin", Kind::Begin { immediate: false }, "BEGIN"),
            ("BEGIN exclusive transaction;", Kind::Begin { immediate: true }, "BEGIN"),
            ("end transaction", Kind::Commit, "COMMIT"),
            ("rollback", Kind::Rollback, "ROLLBACK"),
            ("rollback transaction", Kind::Rollback, "ROLLBACK"),
            ("rollback transaction to a", Kind::RollbackTo, "ROLLBACK"),
            ("rollback to savepoint a", Kind::RollbackTo, "ROLLBACK"),
            ("insert into t values (1)", Kind::Write, "INSERT"),
            ("(select 1)", Kind::Write, ""),
            ("vacuum ;", Kind::Vacuum, "VACUUM"),
            ("vacuum main", Kind::Vacuum, "VACUUM"),
            ("vacuum into 'x'", Kind::Write, "VACUUM"),
            ("vacuum main into 'x'", Kind::Write, "VACUUM"),
        ] {
            assert_eq!(classify(text), (kind, command), "{text}");
        }
    }

    #[test]
    fn pragmas_are_taken_apart() {
        for (text, name, value) in [
            ("pragma Synchronous", "synchronous", None),
            ("PRAGMA main.journal_mode = 'OFF' ;", "journal_mode", Some("OFF")),
            ("pragma \"main\" . [table_info] ( \"t\" )", "table_info", Some("t")),
            ("pragma/**/user_version=-7", "user_version", Some("-7")),
            ("pragma foreign_keys(1);", "foreign_keys", Some("1")),
        ] {
            let call = PragmaCall { name: name.to_owned(), value: value.map(str::to_owned) };
            assert_eq!(classify(text).0, Kind::Pragma(call), "{text}");
        }
    }
}
