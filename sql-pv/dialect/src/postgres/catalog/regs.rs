//! `regclass` and its kin: OIDs that are written and printed as names.

use sqlparser::ast::Expr;

use super::macros::{quoted_name, type_name};
use super::tree::string_value;
use crate::lexer::{Kind, Lexer};
use crate::postgres::literal::{quote, unquote_name};
use crate::postgres::types::PgType;

/// What the OID is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reg {
    Class,
    Type,
    Namespace,
    Role,
    /// Functions and operators: there are none, and the OID is printed.
    Other,
}

impl Reg {
    /// The kind that a type's name means.
    pub fn by_name(name: &str) -> Option<Reg> {
        Some(match name {
            "regclass" => Reg::Class,
            "regtype" => Reg::Type,
            "regnamespace" => Reg::Namespace,
            "regrole" => Reg::Role,
            "regproc" | "regprocedure" | "regoper" | "regoperator" | "regconfig" | "regdictionary" => {
                Reg::Other
            }
            _ => return None,
        })
    }
}

/// The last part of a name in text: `public."My Table"` is `My Table`.
fn plain_name(name: &str) -> String {
    let last = Lexer::new(name).filter_map(Result::ok).filter(|token| !token.is_blank()).last();
    match last {
        Some(token) if token.kind == Kind::QuotedName => unquote_name(token.of(name)),
        Some(token) => token.of(name).to_ascii_lowercase(),
        None => String::new(),
    }
}

/// The OID of the relation with that name.
pub(super) fn relation_oid(name: &str) -> String {
    format!(
        "(SELECT oid FROM pg_class WHERE relname = {} ORDER BY oid DESC LIMIT 1)",
        quote(&plain_name(name))
    )
}

/// The OID that a value cast to such a type has.
pub(super) fn to_oid(reg: Reg, value: &Expr) -> String {
    let text = string_value(value);
    if text.as_deref().is_some_and(|text| text.parse::<u32>().is_ok()) {
        return format!("CAST({value} AS INTEGER)");
    }
    match (reg, text) {
        (Reg::Class, Some(name)) => relation_oid(&name),
        // A parameter may be either.
        (Reg::Class, None) if is_parameter(value) => {
            format!(
                "(SELECT oid FROM pg_class WHERE oid = {value} OR relname = {value} ORDER BY oid DESC LIMIT 1)"
            )
        }
        (Reg::Type, Some(name)) => {
            let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
            PgType::by_name(name.trim_matches('"')).map_or("NULL".to_owned(), |known| known.oid().to_string())
        }
        (Reg::Type, None) if is_parameter(value) => {
            format!(
                "(SELECT oid FROM pg_type WHERE oid = {value} OR typname = {value} OR {} = {value})",
                type_name("oid")
            )
        }
        (Reg::Namespace, Some(name)) => {
            format!("(SELECT oid FROM pg_namespace WHERE nspname = {})", quote(&plain_name(&name)))
        }
        (Reg::Role, Some(name)) => {
            format!("(SELECT oid FROM pg_roles WHERE rolname = {})", quote(&plain_name(&name)))
        }
        _ => format!("({value})"),
    }
}

fn is_parameter(value: &Expr) -> bool {
    value.to_string().starts_with('?')
}

/// The name that such an OID is printed as.
///
/// The columns that are looked up have names of their own, so that the OID's expression, which may be a plain
/// `oid`, keeps its meaning inside.
pub(super) fn to_name(reg: Reg, oid: &str) -> String {
    let lookup = |name: &str, relation: &str| {
        format!(
            "(SELECT coalesce(max(vamos_name), CAST({oid} AS TEXT)) FROM \
             (SELECT oid AS vamos_oid, {name} AS vamos_name FROM {relation}) WHERE vamos_oid = {oid})"
        )
    };
    match reg {
        Reg::Class => lookup(&quoted_name("relname"), "pg_class"),
        Reg::Type => type_name(oid),
        Reg::Namespace => lookup("nspname", "pg_namespace"),
        Reg::Role => lookup("rolname", "pg_roles"),
        Reg::Other => format!("CAST({oid} AS TEXT)"),
    }
}
