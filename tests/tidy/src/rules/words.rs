//! Words that must not be in the tree: paths of one machine, hosts of one network, unfinished work.

use crate::source::has_word;
use crate::{Tree, Violation};

/// Texts no file may hold, and what to write. Spelled in two parts: this file is in the tree too.
const TEXTS: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path relative to the repository"),
    (concat!("/ro", "ot/"), "a path relative to the repository, or $HOME"),
    (concat!("/home/", "user"), "a path relative to the repository, or $HOME"),
    (concat!("[sour", "ce."), "the default registry: a mirror belongs in the developer's own configuration"),
    (
        concat!("[regis", "tries"),
        "the default registry: a mirror belongs in the developer's own configuration",
    ),
    (concat!("<<<<", "<<< "), "the merged text"),
    (concat!(">>>>", ">>> "), "the merged text"),
];

/// Attributes and macros that leave work undone.
const UNDONE: &[(&str, &str)] = &[
    ("todo!", "the code, or an error that says what is not supported"),
    ("unimplemented!", "an error that says what is not supported"),
    ("dbg!", "tracing::debug!"),
    ("#[ignore", "a test that runs, or none"),
];

/// None of [`TEXTS`] anywhere, none of [`UNDONE`] in Rust code.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            for (text, instead) in TEXTS.iter().filter(|(text, _)| line.contains(text)) {
                violations.push(Violation::new(&file.path, number + 1, format!("holds {text:?}"), *instead));
            }
        }
    }
    for (file, source) in tree.rust() {
        for (number, line) in source.numbered() {
            for (text, instead) in UNDONE.iter().filter(|(text, _)| line.code.contains(text)) {
                // `my_todo!` is another macro.
                if text.starts_with('#') || has_word(&line.code, text.trim_end_matches('!')) {
                    violations.push(Violation::new(&file.path, number, format!("holds {text}"), *instead));
                }
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> usize {
        check(&Tree::new([(path, text)])).len()
    }

    #[test]
    fn a_machine_s_own_paths_are_caught() {
        for (text, _) in TEXTS {
            assert_eq!(whats("README.md", &format!("see {text}there")), 1, "{text}");
        }
        assert_eq!(whats("README.md", "see network/there and chroot/here"), 0);
    }

    #[test]
    fn undone_work_is_caught() {
        assert_eq!(whats("a.rs", "fn a() { todo!() }"), 1);
        assert_eq!(whats("a.rs", "#[ignore = \"slow\"]\nfn a() {}"), 1);
        assert_eq!(whats("a.rs", "fn a() { dbg!(b) }"), 1);
        assert_eq!(whats("a.rs", "// todo!() is banned\nlet a = \"todo!()\"; my_todo!();"), 0);
    }
}
