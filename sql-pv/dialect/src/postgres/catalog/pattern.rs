//! Regular expressions and LIKE patterns that GLOB can say.
//!
//! GLOB is the pattern operator of SQLite that knows case, as PostgreSQL's `~` and LIKE do; it has `*`, `?` and
//! character classes. psql's own patterns (`\d book*` asks for `^(book.*)$`) all are of that kind.

/// The GLOB patterns of which one must match where this regular expression matches; None if GLOB cannot say it.
pub(super) fn from_regex(regex: &str) -> Option<Vec<String>> {
    let (inner, anchored) = match regex.strip_prefix("^(").and_then(|rest| rest.strip_suffix(")$")) {
        // The group around everything, if it is one group.
        Some(inner) if is_balanced(inner) => (inner, true),
        _ => (regex, false),
    };
    alternatives(inner).into_iter().map(|alternative| branch(alternative, anchored)).collect()
}

/// Whether no group that was opened before `text` is closed in it.
fn is_balanced(text: &str) -> bool {
    let mut depth = 0i32;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

/// The text between bars that are neither escaped nor in a class; groups are refused later.
fn alternatives(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut in_class, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '|' if !in_class => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn branch(regex: &str, anchored: bool) -> Option<String> {
    let (regex, starts) = match regex.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (regex, anchored),
    };
    let (regex, ends) = match regex.strip_suffix('$') {
        Some(rest) if !rest.ends_with('\\') => (rest, true),
        _ => (regex, anchored),
    };
    let mut glob = String::from(if starts { "" } else { "*" });
    let mut chars = regex.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '.' if chars.next_if_eq(&'*').is_some() => glob.push('*'),
            '.' if chars.next_if_eq(&'+').is_some() => glob.push_str("?*"),
            '.' => glob.push('?'),
            '[' => class(&mut chars, &mut glob)?,
            '\\' => match chars.next()? {
                escaped if escaped.is_ascii_alphanumeric() => return None,
                escaped => literal(escaped, &mut glob),
            },
            '(' | ')' | '{' | '}' | '^' | '$' | '|' | '*' | '+' | '?' => return None,
            other => literal(other, &mut glob),
        }
        if matches!(chars.peek(), Some('*' | '+' | '?' | '{')) {
            return None;
        }
    }
    if !ends {
        glob.push('*');
    }
    Some(glob)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, glob: &mut String) -> Option<()> {
    glob.push('[');
    let mut first = true;
    for c in chars.by_ref() {
        match c {
            ']' if !first => {
                glob.push(']');
                return Some(());
            }
            // Classes by name, and what the two would read differently.
            '[' | '\\' | ']' => return None,
            other => glob.push(other),
        }
        first = c == '^' && first;
    }
    None
}

fn literal(c: char, glob: &mut String) {
    match c {
        '*' | '?' | '[' => glob.extend(['[', c, ']']),
        other => glob.push(other),
    }
}

/// The GLOB pattern that matches what this LIKE pattern does; None if its escape ends it.
pub(super) fn from_like(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut glob = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => literal(chars.next()?, &mut glob),
            '%' => glob.push('*'),
            '_' => glob.push('?'),
            other => literal(other, &mut glob),
        }
    }
    Some(glob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psqls_patterns_are_globs() {
        for (regex, globs) in [
            ("^(book)$", &["book"][..]),
            ("^(bo.*)$", &["bo*"]),
            ("^(b..k)$", &["b??k"]),
            ("^(a|b.*)$", &["a", "b*"]),
            ("^(my\\$table\\*)$", &["my$table[*]"]),
            ("^pg_", &["pg_*"]),
            ("^pg_toast", &["pg_toast*"]),
            ("oo", &["*oo*"]),
            ("^[a-c].*k$", &["[a-c]*k"]),
            ("^([^a]b)$", &["[^a]b"]),
            ("^a|b$", &["a*", "*b"]),
        ] {
            assert_eq!(
                from_regex(regex).as_deref(),
                Some(globs.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>().as_slice()),
                "{regex}"
            );
        }
        for regex in ["^(a+)$", "a{2}", "^(a(b|c))$", "\\d", "[[:alpha:]]", "a?", "^((a)|(b))$", "x*"] {
            assert_eq!(from_regex(regex), None, "{regex}");
        }
    }

    #[test]
    fn like_patterns_are_globs() {
        assert_eq!(from_like("pg\\_%", Some('\\')).as_deref(), Some("pg_*"));
        assert_eq!(from_like("a_[%*", Some('/')).as_deref(), Some("a?[[]*[*]"));
        assert_eq!(from_like("a\\", Some('\\')), None);
    }
}
