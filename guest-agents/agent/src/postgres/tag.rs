//! Command tags: what `CommandComplete` says a statement did.

use vamos_sql_client::Summary;

/// The tag of a statement the engine ran. `text` is the client's, `rows` how many rows were sent.
pub fn command_tag(text: &str, summary: &Summary, rows: u64) -> String {
    let mut words = Words { text };
    let first = words.next().unwrap_or_default();
    let verb = match first.as_str() {
        "WITH" => main_verb(text),
        "EXPLAIN" => return "EXPLAIN".to_owned(),
        _ => first,
    };
    match verb.as_str() {
        "INSERT" | "REPLACE" => format!("INSERT 0 {}", summary.changes),
        "UPDATE" | "DELETE" => format!("{verb} {}", summary.changes),
        "SELECT" | "VALUES" | "WITH" => format!("SELECT {rows}"),
        "CREATE" | "DROP" | "ALTER" => format!("{verb} {}", object(words)),
        _ if summary.returns_rows => format!("SELECT {rows}"),
        _ => verb,
    }
}

/// The verb behind `WITH ...`: the first one outside parentheses and quotes.
fn main_verb(text: &str) -> String {
    const VERBS: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "VALUES"];
    let (mut depth, mut quote, mut word) = (0i32, None, String::new());
    for c in text.chars().chain([' ']) {
        if let Some(open) = quote {
            quote = Some(open).filter(|open| *open != c);
            continue;
        }
        if c.is_alphanumeric() || c == '_' {
            word.push(c.to_ascii_uppercase());
            continue;
        }
        if depth == 0 && VERBS.contains(&word.as_str()) {
            return word;
        }
        word.clear();
        match c {
            '\'' | '"' | '`' => quote = Some(c),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    "SELECT".to_owned()
}

/// The kind of object after CREATE, DROP or ALTER.
fn object(words: Words<'_>) -> String {
    const BETWEEN: [&str; 7] = ["OR", "REPLACE", "TEMP", "TEMPORARY", "UNIQUE", "VIRTUAL", "UNLOGGED"];
    let mut words = words.skip_while(|word| BETWEEN.contains(&word.as_str()));
    words.next().unwrap_or_default()
}

/// The words at the start of a statement, upper case, without comments.
struct Words<'a> {
    text: &'a str,
}

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            self.text = self.text.trim_start();
            if let Some(comment) = self.text.strip_prefix("--") {
                self.text = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.text.strip_prefix("/*") {
                self.text = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let end = self.text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        (!word.is_empty()).then(|| word.to_ascii_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_postgresqls() {
        let summary = Summary { changes: 3, returns_rows: false, ..Summary::default() };
        let rows = Summary { returns_rows: true, ..Summary::default() };
        for (text, summary, expected) in [
            ("insert into t values (1)", &summary, "INSERT 0 3"),
            ("/* x */ -- y\n update t set a = 1", &summary, "UPDATE 3"),
            ("WITH a AS (SELECT 1) DELETE FROM t", &summary, "DELETE 3"),
            ("WITH a AS (INSERT) SELECT ')' FROM t", &rows, "SELECT 2"),
            ("CREATE TEMP TABLE t(a)", &summary, "CREATE TABLE"),
            ("create unique index i on t(a)", &summary, "CREATE INDEX"),
            ("DROP VIEW v", &summary, "DROP VIEW"),
            ("PRAGMA table_info(t)", &rows, "SELECT 2"),
            ("VACUUM", &summary, "VACUUM"),
            ("values (1), (2)", &rows, "SELECT 2"),
        ] {
            assert_eq!(command_tag(text, summary, 2), expected, "{text}");
        }
    }
}
