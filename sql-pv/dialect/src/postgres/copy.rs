//! `COPY ... FROM STDIN` and `COPY ... TO STDOUT`.

use super::answer::{Refusal, Translated};
use super::cursor::Cursor;
use super::literal::quote_name;

/// Rows that travel between a table and the client in PostgreSQL's text or CSV format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Whose rows.
    pub subject: Subject,
    /// Where to.
    pub direction: Direction,
    /// How they are written.
    pub options: CopyOptions,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A table, or some of its columns.
    Table {
        /// Its name.
        name: String,
        /// The columns, in the order of the fields; empty: all of them, in their order.
        columns: Vec<String>,
    },
    /// The rows of a query, which is still to be translated.
    Query(String),
}

/// Which way rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `FROM STDIN`.
    In,
    /// `TO STDOUT`.
    Out,
}

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// Which rules.
    pub format: Format,
    /// Between fields.
    pub delimiter: u8,
    /// What stands for NULL; in CSV only without quotes.
    pub null: String,
    /// What the first line is.
    pub header: Header,
    /// Around fields (CSV).
    pub quote: u8,
    /// Before a quote within quotes (CSV).
    pub escape: u8,
}

/// The rules of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Backslash escapes, a line a row.
    Text,
    /// Quotes, in which lines may end.
    Csv,
}

/// What the first line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// A row.
    None,
    /// Names of columns, not looked at.
    Present,
    /// Names of columns, which must be those copied (22P04 if not).
    Match,
}

impl Copy {
    /// The statement that puts one row of `columns` fields into the table. None for a query.
    pub fn insert_sql(&self, columns: usize) -> Option<String> {
        let Subject::Table { name, columns: names } = &self.subject else { return None };
        let values: Vec<String> = (1..=columns).map(|number| format!("?{number}")).collect();
        Some(format!("INSERT INTO main.{}{} VALUES ({})", quote_name(name), list(names), values.join(", ")))
    }

    /// The query for the copied rows, of no row if `rows` is false: what has to be asked before `FROM STDIN`
    /// to learn how many fields a row has. For [`Subject::Query`] it is still to be translated.
    pub fn select_sql(&self, rows: bool) -> String {
        match &self.subject {
            Subject::Query(query) => query.clone(),
            Subject::Table { name, columns } => {
                let names: Vec<String> = columns.iter().map(|column| quote_name(column)).collect();
                let names = if names.is_empty() { "*".to_owned() } else { names.join(", ") };
                let limit = if rows { "" } else { " LIMIT 0" };
                format!("SELECT {names} FROM main.{}{limit}", quote_name(name))
            }
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = names.iter().map(|name| quote_name(name)).collect();
    format!(" ({})", quoted.join(", "))
}

/// Reads what follows `COPY`.
pub(super) fn parse(text: &str, cursor: &mut Cursor<'_>) -> Result<Translated, Refusal> {
    if cursor.word("binary") {
        return Err(binary());
    }
    let subject = if cursor.symbol(b'(') { query(text, cursor)? } else { table(cursor)? };
    let direction = match cursor.one_of(&["from", "to"]) {
        Some("from") => Direction::In,
        Some(_) => Direction::Out,
        None => return Err(cursor.syntax_error()),
    };
    if matches!((&subject, direction), (Subject::Query(_), Direction::In)) {
        return Err(cursor.syntax_error());
    }
    if cursor.one_of(&["stdin", "stdout"]).is_none() {
        if cursor.is("program") {
            return Err(
                Refusal::unsupported("COPY with a program").hint("psql's \\copy runs it at the client.")
            );
        }
        cursor.string().ok_or_else(|| cursor.syntax_error())?;
        let hint = "Use STDIN or STDOUT; psql's \\copy reads and writes the client's files.";
        return Err(Refusal::unsupported("COPY with a file of the server").hint(hint));
    }
    let options = options(cursor)?.finish(direction)?;
    if cursor.is("where") {
        return Err(Refusal::unsupported("COPY FROM ... WHERE"));
    }
    cursor.expect_end()?;
    Ok(Translated::Copy(Copy { subject, direction, options }))
}

fn binary() -> Refusal {
    Refusal::unsupported("COPY in binary format").hint("Use the text or csv format.")
}

fn query(text: &str, cursor: &mut Cursor<'_>) -> Result<Subject, Refusal> {
    let start = cursor.peek().ok_or_else(|| cursor.syntax_error())?.start;
    let mut depth = 1u32;
    while let Some(token) = cursor.next() {
        if token.is(b'(') {
            depth += 1;
        } else if token.is(b')') {
            depth -= 1;
            if depth == 0 {
                return Ok(Subject::Query(text[start..token.start].trim().to_owned()));
            }
        }
    }
    Err(cursor.syntax_error())
}

fn table(cursor: &mut Cursor<'_>) -> Result<Subject, Refusal> {
    let mut name = cursor.name().ok_or_else(|| cursor.syntax_error())?;
    if cursor.symbol(b'.') {
        if !matches!(name.as_str(), "public" | "main") {
            return Err(Refusal::new("3F000", format!("schema \"{name}\" does not exist")));
        }
        name = cursor.name().ok_or_else(|| cursor.syntax_error())?;
    }
    let mut columns = Vec::new();
    if cursor.symbol(b'(') {
        columns = names(cursor)?;
    }
    Ok(Subject::Table { name, columns })
}

/// Names up to the closing parenthesis.
fn names(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    loop {
        names.push(cursor.name().ok_or_else(|| cursor.syntax_error())?);
        if cursor.symbol(b')') {
            return Ok(names);
        }
        if !cursor.symbol(b',') {
            return Err(cursor.syntax_error());
        }
    }
}

/// Options as they are given.
#[derive(Default)]
struct Given {
    csv: bool,
    delimiter: Option<u8>,
    null: Option<String>,
    header: Option<Header>,
    quote: Option<u8>,
    escape: Option<u8>,
}

fn options(cursor: &mut Cursor<'_>) -> Result<Given, Refusal> {
    cursor.word("with");
    let mut given = Given::default();
    if cursor.symbol(b'(') {
        loop {
            option(cursor, &mut given, true)?;
            if cursor.symbol(b')') {
                return Ok(given);
            }
            if !cursor.symbol(b',') {
                return Err(cursor.syntax_error());
            }
        }
    }
    // The spelling of before PostgreSQL 9.0.
    while !cursor.at_end() && !cursor.is("where") {
        option(cursor, &mut given, false)?;
    }
    Ok(given)
}

/// Reads one option; `listed` is the spelling in parentheses.
fn option(cursor: &mut Cursor<'_>, given: &mut Given, listed: bool) -> Result<(), Refusal> {
    if listed && cursor.word("format") {
        let format = cursor.string().or_else(|| cursor.name()).ok_or_else(|| cursor.syntax_error())?;
        match format.as_str() {
            "text" => given.csv = false,
            "csv" => given.csv = true,
            "binary" => return Err(binary()),
            _ => return Err(Refusal::new("22023", format!("COPY format \"{format}\" not recognized"))),
        }
        return Ok(());
    }
    if !listed && cursor.word("csv") {
        given.csv = true;
        return Ok(());
    }
    if !listed && cursor.is("binary") {
        return Err(binary());
    }
    if cursor.word("freeze") {
        boolean(cursor, listed)?;
        return Ok(());
    }
    if cursor.word("header") {
        given.header = Some(if listed && cursor.word("match") {
            Header::Match
        } else if boolean(cursor, listed)? {
            Header::Present
        } else {
            Header::None
        });
        return Ok(());
    }
    if let Some(option) = cursor.one_of(&["delimiter", "delimiters", "null", "quote", "escape", "encoding"]) {
        if !listed {
            cursor.word("as");
        }
        let value = cursor.string().ok_or_else(|| cursor.syntax_error())?;
        match option {
            "null" if value.contains(['\r', '\n']) => {
                let message = "COPY null representation cannot use newline or carriage return";
                return Err(Refusal::new("22023", message));
            }
            "null" => given.null = Some(value),
            "encoding" if matches!(value.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode") => {}
            "encoding" => return Err(Refusal::unsupported(format!("COPY in the encoding \"{value}\""))),
            "quote" => given.quote = Some(one_byte("quote", &value)?),
            "escape" => given.escape = Some(one_byte("escape", &value)?),
            _ => given.delimiter = Some(one_byte("delimiter", &value)?),
        }
        return Ok(());
    }
    for force in ["force_quote", "force_not_null", "force_null", "force"] {
        if cursor.is(force) {
            return Err(Refusal::unsupported(format!("COPY with {}", force.to_ascii_uppercase())));
        }
    }
    Err(cursor.syntax_error())
}

fn boolean(cursor: &mut Cursor<'_>, listed: bool) -> Result<bool, Refusal> {
    if !listed || cursor.word("true") || cursor.word("on") {
        return Ok(true);
    }
    if cursor.word("false") || cursor.word("off") {
        return Ok(false);
    }
    if let Some(value) = cursor.string() {
        return Ok(matches!(value.as_str(), "true" | "on" | "1"));
    }
    // Without a value an option is on.
    let next = cursor.peek();
    if next.is_some_and(|token| token.is(b',') || token.is(b')')) {
        return Ok(true);
    }
    Err(cursor.syntax_error())
}

fn one_byte(option: &str, value: &str) -> Result<u8, Refusal> {
    match value.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(Refusal::unsupported(format!("COPY {option} of other than a single one-byte character"))),
    }
}

impl Given {
    /// PostgreSQL's rules of what goes together.
    fn finish(self, direction: Direction) -> Result<CopyOptions, Refusal> {
        let invalid = |message: &str| Err(Refusal::new("22023", message));
        let format = if self.csv { Format::Csv } else { Format::Text };
        let delimiter = self.delimiter.unwrap_or(if self.csv { b',' } else { b'\t' });
        let null = self.null.unwrap_or_else(|| if self.csv { String::new() } else { "\\N".to_owned() });
        let quote = self.quote.unwrap_or(b'"');
        if !self.csv && (self.quote.is_some() || self.escape.is_some()) {
            return Err(Refusal::unsupported("COPY quote or escape outside of the csv format"));
        }
        if matches!(delimiter, b'\n' | b'\r') {
            return invalid("COPY delimiter cannot be newline or carriage return");
        }
        if !self.csv && (delimiter.is_ascii_alphanumeric() || matches!(delimiter, b'\\' | b'.')) {
            return invalid("COPY delimiter cannot be a letter, a digit, a dot or a backslash");
        }
        if self.csv && delimiter == quote {
            return invalid("COPY delimiter and quote must be different");
        }
        if null.as_bytes().contains(&delimiter) || (self.csv && null.as_bytes().contains(&quote)) {
            return invalid("COPY delimiter and quote must not appear in the NULL specification");
        }
        let header = self.header.unwrap_or(Header::None);
        if header == Header::Match && direction == Direction::Out {
            return invalid("cannot use \"match\" with HEADER in COPY TO");
        }
        Ok(CopyOptions { format, delimiter, null, header, quote, escape: self.escape.unwrap_or(quote) })
    }
}
