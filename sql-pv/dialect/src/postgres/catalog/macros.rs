//! The few expressions that the catalogue's SQL uses everywhere, written there like functions.

use crate::lexer::{Kind, Lexer, Token};
use crate::postgres::literal::quote;
use crate::postgres::session::SessionView;
use crate::postgres::types::{AFFINITIES, DECLARED, PgType};

/// The name as PostgreSQL prints it: in quotes if it needs them.
pub(super) fn quoted_name(name: &str) -> String {
    format!(
        "(CASE WHEN {name} GLOB '*[^a-z0-9_]*' OR {name} GLOB '[0-9]*' OR {name} = '' \
         THEN '\"' || replace({name}, '\"', '\"\"') || '\"' ELSE {name} END)"
    )
}

/// The OID of the type that a declaration means, by the tables of [`PgType::of_declared`]; text for none.
fn declared_type(declared: &str) -> String {
    let upper = format!("upper({declared})");
    let base = format!("trim(substr({upper}, 1, instr({upper} || '(', '(') - 1))");
    let exact: String =
        DECLARED.iter().map(|(name, known)| format!(" WHEN '{name}' THEN {}", known.oid())).collect();
    let parts: String = AFFINITIES
        .iter()
        .map(|(part, known)| format!(" WHEN {upper} GLOB '*{part}*' THEN {}", known.oid()))
        .collect();
    let (zoned, plain) = (PgType::Timestamptz.oid(), PgType::Timestamp.oid());
    format!(
        "(CASE {base}{exact} ELSE CASE WHEN {base} GLOB 'TIMESTAMP*' THEN \
         CASE WHEN {base} GLOB 'TIMESTAMPTZ*' OR {upper} GLOB '*WITH TIME ZONE*' THEN {zoned} ELSE {plain} END\
         {parts} ELSE {} END END)",
        PgType::Text.oid()
    )
}

/// What each type has, by OID.
fn by_type(oid: &str, what: impl Fn(PgType) -> String, otherwise: &str) -> String {
    let cases: String =
        PgType::ALL.into_iter().map(|known| format!(" WHEN {} THEN {}", known.oid(), what(known))).collect();
    format!("(CASE {oid}{cases} ELSE {otherwise} END)")
}

/// The type's name as `format_type` prints it, without modifiers.
pub(super) fn type_name(oid: &str) -> String {
    by_type(
        oid,
        |known| quote(known.sql_name()),
        &format!("CASE WHEN {oid} IS NULL THEN NULL WHEN {oid} = 0 THEN '-' ELSE '???' END"),
    )
}

fn expand(name: &str, argument: &str, session: &SessionView<'_>) -> Option<String> {
    let text = match name {
        "quoted_name" => quoted_name(argument),
        "one_line" => {
            format!("replace(replace(replace({argument}, char(10), ' '), char(13), ' '), char(9), ' ')")
        }
        "declared_type" => declared_type(argument),
        "type_length" => by_type(argument, |known| known.length().to_string(), "-1"),
        "type_name" => type_name(argument),
        "type_short_name" => by_type(argument, |known| quote(known.catalog_name()), "'???'"),
        "action_code" => format!(
            "(CASE {argument} WHEN 'CASCADE' THEN 'c' WHEN 'SET NULL' THEN 'n' WHEN 'SET DEFAULT' THEN 'd' \
             WHEN 'RESTRICT' THEN 'r' ELSE 'a' END)"
        ),
        "session_user_name" => quote(session.user),
        "session_database" => quote(session.database),
        _ => return None,
    };
    Some(text)
}

/// The SQL with its macros expanded and its comments left out.
pub(super) fn expanded(sql: &str, session: &SessionView<'_>) -> String {
    let tokens: Vec<Token> = Lexer::new(sql).filter_map(Result::ok).collect();
    let mut result = String::with_capacity(sql.len() * 2);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let call = token.kind == Kind::Word && tokens.get(at).is_some_and(|next| next.is(b'('));
        if let Some(end) = call.then(|| closing(&tokens, at)).flatten() {
            let argument = expanded(&sql[tokens[at].end..tokens[end].start], session);
            if let Some(text) = expand(token.of(sql), &argument, session) {
                result.push_str(&text);
                at = end + 1;
                continue;
            }
        }
        if !matches!(token.kind, Kind::Comment { .. }) {
            result.push_str(token.of(sql));
        }
    }
    result
}

/// The index of the parenthesis that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0u32;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        if token.is(b'(') {
            depth += 1;
        } else if token.is(b')') {
            depth -= 1;
            if depth == 0 {
                return Some(index);
            }
        }
    }
    None
}
