//! Code that can panic says why it cannot: nothing a guest, a client, a file or an operator does may
//! end a process.
//!
//! A place that is sound by construction carries a comment `// INVARIANT: why it holds`, on its line
//! or above its statement. Tests, and the packages in `tests/` that are nothing but tests, are free.

use crate::source::{Source, has_word};
use crate::{Tree, Violation};

/// What panics, and what to write.
const PANICS: &[(&str, &str)] = &[
    (".unwrap()", "`?`, a default, or a comment // INVARIANT: why it holds"),
    (".expect(", "`?`, a default, or a comment // INVARIANT: why it holds"),
    (".unwrap_err()", "a match, or a comment // INVARIANT: why it holds"),
    ("panic!", "an error, or a comment // INVARIANT: why it holds"),
    ("unreachable!", "an error, or a comment // INVARIANT: why it holds"),
];

/// Packages that hold tests only.
const TESTS_ONLY: &[&str] = &["tests/e2e", "tests/tidy", "tests/fuzz", "tests/faults"];

/// Every place of [`PANICS`] outside tests has its INVARIANT.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (file, source) in
        tree.rust().filter(|(file, _)| !TESTS_ONLY.iter().any(|tests| file.path.starts_with(tests)))
    {
        for (number, line) in source.numbered().filter(|(_, line)| !line.test) {
            for (text, instead) in PANICS.iter().filter(|(text, _)| line.code.contains(text)) {
                let whole = text.starts_with('.') || has_word(&line.code, text.trim_end_matches('!'));
                if whole && !argued(source, number) {
                    violations.push(Violation::new(
                        &file.path,
                        number,
                        format!("can panic: {text}"),
                        *instead,
                    ));
                }
            }
        }
    }
    violations
}

/// Whether the statement that line `number` is part of carries an INVARIANT comment.
fn argued(source: &Source, number: usize) -> bool {
    let says = |at: usize| source.lines[at].comment.contains("INVARIANT:");
    let mut at = number - 1;
    if says(at) {
        return true;
    }
    while at > 0
        && source.lines[at - 1].is_code()
        && !source.lines[at - 1].code.trim_end().ends_with([';', '{', '}'])
    {
        at -= 1;
    }
    while at > 0 && source.lines[at - 1].is_comment() {
        at -= 1;
        if says(at) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::new([(path, text)])).len()
    }

    #[test]
    fn an_unargued_panic_is_caught() {
        for line in ["a.unwrap();", "a.expect(\"b\");", "panic!(\"a\");", "unreachable!()"] {
            assert_eq!(count("a/src/lib.rs", line), 1, "{line}");
        }
        assert_eq!(count("a/src/lib.rs", "a.unwrap_or(1); // .unwrap()"), 0);
    }

    #[test]
    fn an_invariant_is_an_argument() {
        assert_eq!(
            count(
                "a/src/lib.rs",
                "// INVARIANT: one was pushed above.\nlet a = b\n    .pop()\n    .unwrap();"
            ),
            0
        );
        assert_eq!(count("a/src/lib.rs", "// INVARIANT: of the other.\nlet a = 1;\nb.unwrap();"), 1);
    }

    #[test]
    fn tests_are_free() {
        assert_eq!(count("a/src/lib.rs", "#[cfg(test)]\nmod tests {\n fn a() { b.unwrap() }\n}"), 0);
        assert_eq!(count("a/tests/b.rs", "fn a() { b.unwrap() }"), 0);
        assert_eq!(count("tests/lab/src/lib.rs", "fn a() { b.unwrap() }"), 1);
    }
}
