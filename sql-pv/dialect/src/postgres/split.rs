//! A string of statements, cut into statements.
//!
//! A semicolon ends a statement unless it is inside quotes or a comment, or in the body of a trigger
//! (or of a function written the SQL way): from `BEGIN` on, only `; END ;` ends it, which `CASE ... END`
//! cannot look like, because what precedes its `END` is never a semicolon.

use thiserror::Error;

use crate::lexer::{LexError, Lexer, Token};
use crate::limits::{QUERY_BYTES_MAX, QUERY_STATEMENTS_MAX};

/// Where a statement is in the string it came in: from its first token to its last, without the
/// semicolon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl Span {
    /// The statement.
    pub fn of(self, text: &str) -> &str {
        &text[self.start..self.end]
    }
}

/// A string that cannot be cut.
#[derive(Debug, Error)]
pub enum SplitError {
    /// It does not lex.
    #[error(transparent)]
    Lex(#[from] LexError),
    /// It is too long.
    #[error("a query string of {bytes} bytes is over the limit of {QUERY_BYTES_MAX} bytes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It has too many statements.
    #[error("a query string holds at most {QUERY_STATEMENTS_MAX} statements")]
    TooMany,
}

impl SplitError {
    /// The SQLSTATE a client is told.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            SplitError::Lex(_) => "42601",
            SplitError::TooLong { .. } | SplitError::TooMany => "54000",
        }
    }

    /// Byte of the text at which the trouble begins, if it has a place.
    pub fn position(&self) -> Option<usize> {
        match self {
            SplitError::Lex(error) => Some(error.position()),
            _ => None,
        }
    }
}

/// Cuts a string into its statements; empty ones are dropped.
pub fn split(text: &str) -> Result<Vec<Span>, SplitError> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(SplitError::TooLong { bytes: text.len() });
    }
    let mut spans = Vec::new();
    let mut statement = Progress::default();
    for token in Lexer::new(text) {
        let token = token?;
        if token.is_blank() {
            continue;
        }
        if token.is(b';') && !statement.keeps_semicolon() {
            spans.extend(statement.span.take());
            statement = Progress::default();
        } else {
            statement.take(token, text);
        }
        if spans.len() >= QUERY_STATEMENTS_MAX {
            return Err(SplitError::TooMany);
        }
    }
    spans.extend(statement.span);
    Ok(spans)
}

/// How far a statement's beginning has been read.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Head {
    /// Nothing yet, or `EXPLAIN`.
    #[default]
    Start,
    /// `CREATE` and words that may stand between it and what is created.
    Create,
    /// `CREATE TRIGGER` and the like, before its body.
    Routine,
    /// Within the body.
    Body,
    /// Any other statement.
    Other,
}

/// In a body: which of `; END` the last tokens were.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Ending {
    #[default]
    No,
    Semicolon,
    End,
}

/// A statement being read.
#[derive(Debug, Default)]
struct Progress {
    span: Option<Span>,
    head: Head,
    ending: Ending,
    after_dot: bool,
}

impl Progress {
    fn keeps_semicolon(&self) -> bool {
        self.head == Head::Body && self.ending != Ending::End
    }

    fn take(&mut self, token: Token, text: &str) {
        let start = self.span.map_or(token.start, |span| span.start);
        self.span = Some(Span { start, end: token.end });
        let one_of = |words: &[&str]| words.iter().any(|word| token.is_word(text, word));
        self.head = match self.head {
            Head::Start if one_of(&["explain", "query", "plan"]) => Head::Start,
            Head::Start if one_of(&["create"]) => Head::Create,
            Head::Create if one_of(&["temp", "temporary", "or", "replace", "constraint"]) => Head::Create,
            Head::Create if one_of(&["trigger", "function", "procedure"]) => Head::Routine,
            Head::Routine if one_of(&["begin"]) && !self.after_dot => {
                // As if a statement had just ended: `BEGIN END;` ends too.
                self.ending = Ending::Semicolon;
                Head::Body
            }
            Head::Body => {
                self.ending = match self.ending {
                    _ if token.is(b';') => Ending::Semicolon,
                    Ending::Semicolon if one_of(&["end"]) => Ending::End,
                    _ => Ending::No,
                };
                Head::Body
            }
            Head::Routine => Head::Routine,
            _ => Head::Other,
        };
        self.after_dot = token.is(b'.');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        split(text).expect("splits").into_iter().map(|span| span.of(text)).collect()
    }

    #[test]
    fn empty_statements_are_dropped() {
        assert_eq!(cut(" ;; -- x;\n select 1 ; /* ; */ ;select 2"), ["select 1", "select 2"]);
        assert!(cut("").is_empty());
        assert!(cut("-- only a comment").is_empty());
    }

    #[test]
    fn quotes_hide_semicolons() {
        let text = "select ';', E'\\';', $x$;$x$, \"a;b\", [c;d], `e;f`; select 2";
        assert_eq!(cut(text).len(), 2);
    }

    #[test]
    fn a_trigger_is_one_statement() {
        let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a WHEN new.begin > 1 BEGIN \
             UPDATE a SET b = CASE WHEN b > 1 THEN 2 ELSE 3 END; SELECT 1; END";
        let text = format!("{trigger}; SELECT 2");
        assert_eq!(cut(&text), [trigger, "SELECT 2"]);
        let postgres = "CREATE TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION f(); SELECT 2";
        assert_eq!(cut(postgres).len(), 2);
        assert_eq!(cut("create table t(x); begin; select 1; end; select 2").len(), 5);
    }

    #[test]
    fn too_much_is_an_error() {
        let many = "1;".repeat(QUERY_STATEMENTS_MAX + 1);
        assert!(matches!(split(&many), Err(SplitError::TooMany)));
        let long = " ".repeat(QUERY_BYTES_MAX + 1);
        assert!(matches!(split(&long), Err(SplitError::TooLong { .. })));
    }
}
