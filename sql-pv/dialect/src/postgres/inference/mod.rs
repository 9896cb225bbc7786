//! Types that SQLite does not tell: of parameters, and of result columns that are expressions.
//!
//! SQLite has no static types, but drivers that bind and read in binary must be told some before a statement
//! runs. They are read off the statement: a parameter has the type of the column it is compared with or
//! stored in, an expression that of its operator or function. What cannot be told stays unknown, which is
//! reported as text. Nothing here changes what a statement does.

mod expression;
mod function;
mod query;

use sqlparser::ast::Statement as Ast;
use sqlparser::dialect::{PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;

use super::types::PgType;
use crate::limits::{INFERENCE_TABLES_MAX, INFERENCE_TEXT_BYTES_MAX};

/// What was found out about a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Types {
    /// By position in the result. No more or fewer than the result's columns, if all tables were known.
    pub columns: Vec<Option<PgType>>,
    /// By number, from 0.
    pub parameters: Vec<Option<PgType>>,
}

/// A table, or what stands for one: the names (lower case) and types of its columns.
pub type Columns = Vec<(String, Option<PgType>)>;

/// A statement whose types are to be told.
#[derive(Debug, Clone)]
pub struct Untyped(Ast);

impl Untyped {
    /// Reads one statement, in PostgreSQL's words or SQLite's. `None`: nothing can be told of it.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > INFERENCE_TEXT_BYTES_MAX {
            return None;
        }
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, text)
            .or_else(|_| Parser::parse_sql(&SQLiteDialect {}, text));
        parsed.ok()?.into_iter().next().map(Self)
    }

    /// Names (lower case) of the tables and views whose columns it takes to tell.
    pub fn tables(&self) -> Vec<String> {
        infer(&self.0, &[]).1
    }

    /// What the statement and the columns of its tables tell.
    pub fn types(&self, tables: &[(String, Columns)]) -> Types {
        infer(&self.0, tables).0
    }
}

/// What a statement and the columns of its tables tell, and the names of tables that were not given.
fn infer(ast: &Ast, tables: &[(String, Columns)]) -> (Types, Vec<String>) {
    let mut inference = Inference { tables, ..Inference::default() };
    let columns = inference.statement(ast).into_iter().map(|(_, pg)| pg).collect();
    (Types { columns, parameters: inference.parameters }, inference.missing)
}

/// A walk over a statement.
#[derive(Default)]
struct Inference<'a> {
    tables: &'a [(String, Columns)],
    /// Common table expressions in sight.
    named: Vec<(String, Columns)>,
    /// Tables in sight by the names they have there, the innermost query last.
    scopes: Vec<Vec<(String, Columns)>>,
    parameters: Vec<Option<PgType>>,
    missing: Vec<String>,
    depth: usize,
}

impl Inference<'_> {
    /// The columns of a table by name.
    fn table(&mut self, name: &str) -> Columns {
        let name = name.to_lowercase();
        let known = self.named.iter().rev().chain(self.tables).find(|(known, _)| *known == name);
        if let Some((_, columns)) = known {
            return columns.clone();
        }
        if !self.missing.contains(&name) && self.missing.len() < INFERENCE_TABLES_MAX {
            self.missing.push(name);
        }
        Columns::new()
    }

    /// The type of a column in sight, of `table` if that is given.
    fn column(&self, table: Option<&str>, name: &str) -> Option<PgType> {
        let name = name.to_lowercase();
        let tables = self.scopes.iter().rev().flatten();
        let mut tables =
            tables.filter(|(known, _)| table.is_none_or(|table| known.eq_ignore_ascii_case(table)));
        tables
            .find_map(|(_, columns)| columns.iter().find(|(known, _)| *known == name))
            .and_then(|(_, pg)| *pg)
    }

    /// Takes note of a parameter (`$1`) that stands where `wanted` belongs.
    fn parameter(&mut self, placeholder: &str, wanted: Option<PgType>) -> Option<PgType> {
        let number: usize = placeholder.trim_start_matches(['$', '?']).parse().ok()?;
        let at = number.checked_sub(1).filter(|at| *at < usize::from(u16::MAX))?;
        if self.parameters.len() <= at {
            self.parameters.resize(at + 1, None);
        }
        let known = self.parameters[at].or(wanted);
        self.parameters[at] = known;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PgType::{Bool, Float8, Int8, Text, Timestamp, Varchar};

    fn told(sql: &str) -> (Vec<Option<PgType>>, Vec<Option<PgType>>) {
        let users = [("id", Int8), ("name", Varchar), ("score", Float8), ("seen", Timestamp)];
        let orders = [("id", Int8), ("user_id", Int8), ("note", Text)];
        let columns = |columns: &[(&str, PgType)]| {
            columns.iter().map(|(name, pg)| ((*name).to_owned(), Some(*pg))).collect()
        };
        let tables = [("users".to_owned(), columns(&users)), ("orders".to_owned(), columns(&orders))];
        let (types, missing) = infer(&Untyped::parse(sql).expect(sql).0, &tables);
        assert!(missing.is_empty(), "{missing:?}");
        (types.columns, types.parameters)
    }

    #[test]
    fn parameters_have_the_type_of_what_they_meet() {
        for (sql, expected) in [
            (
                "INSERT INTO users (name, id) VALUES ($1, $2), ($3, 4)",
                vec![Some(Varchar), Some(Int8), Some(Varchar)],
            ),
            (
                "INSERT INTO users VALUES ($1, $2, $3, $4)",
                vec![Some(Int8), Some(Varchar), Some(Float8), Some(Timestamp)],
            ),
            ("INSERT INTO orders SELECT $1, id, $2 FROM users", vec![Some(Int8), Some(Text)]),
            ("UPDATE users SET score = score + $1 WHERE id = $2", vec![Some(Float8), Some(Int8)]),
            (
                "DELETE FROM users WHERE name IN ($1, $2) OR $3 < id",
                vec![Some(Varchar), Some(Varchar), Some(Int8)],
            ),
            ("SELECT 1 FROM users u JOIN orders o ON o.user_id = u.id AND o.note LIKE $1", vec![Some(Text)]),
            ("SELECT $1::bigint, CAST($2 AS text), $3", vec![Some(Int8), Some(Text), None]),
            (
                "SELECT * FROM users WHERE seen BETWEEN $1 AND $2 LIMIT $3",
                vec![Some(Timestamp), Some(Timestamp), Some(Int8)],
            ),
            (
                "INSERT INTO users (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = $3",
                vec![Some(Int8), Some(Varchar), Some(Varchar)],
            ),
            ("WITH a AS (SELECT id AS x FROM users) SELECT * FROM a WHERE x = $1", vec![Some(Int8)]),
            (
                "SELECT 1 FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE user_id = users.id AND note = $1)",
                vec![Some(Text)],
            ),
            ("SELECT coalesce(score, $1), lower($2) FROM users", vec![Some(Float8), Some(Text)]),
        ] {
            assert_eq!(told(sql).1, expected, "{sql}");
        }
    }

    #[test]
    fn expressions_have_types() {
        for (sql, expected) in [
            (
                "SELECT count(*), avg(score), max(name), sum(id) FROM users",
                vec![Some(Int8), Some(Float8), Some(Varchar), Some(Int8)],
            ),
            ("SELECT 1, 1.5, 'a', NULL, true", vec![Some(Int8), Some(Float8), Some(Text), None, Some(Bool)]),
            (
                "SELECT id + 1, id * score, id > 1, name || 'x' FROM users",
                vec![Some(Int8), Some(Float8), Some(Bool), Some(Text)],
            ),
            (
                "SELECT EXISTS (SELECT 1 FROM users), (SELECT max(id) FROM users)",
                vec![Some(Bool), Some(Int8)],
            ),
            ("SELECT CASE WHEN id > 1 THEN score ELSE 0 END FROM users", vec![Some(Float8)]),
            (
                "SELECT a.* FROM (SELECT count(*) AS n, name FROM users GROUP BY name) a",
                vec![Some(Int8), Some(Varchar)],
            ),
            (
                "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c",
                vec![Some(Int8)],
            ),
            ("INSERT INTO users (id) VALUES (1) RETURNING id, name", vec![Some(Int8), Some(Varchar)]),
            ("VALUES (1, 'a')", vec![Some(Int8), Some(Text)]),
            (
                "SELECT row_number() OVER (ORDER BY id), round(score, 1) FROM users",
                vec![Some(Int8), Some(Float8)],
            ),
        ] {
            assert_eq!(told(sql).0, expected, "{sql}");
        }
    }

    #[test]
    fn what_does_not_parse_tells_nothing() {
        assert!(Untyped::parse("SELECT (").is_none());
        assert!(Untyped::parse(&format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))).is_none());
        assert!(Untyped::parse("").is_none());
    }
}
