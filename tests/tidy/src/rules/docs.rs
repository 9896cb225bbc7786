//! Every file says first what it is.

use crate::{Tree, Violation};

/// The first line of every Rust file is a `//!` line that says something.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (file, source) in tree.rust() {
        let first = source
            .lines
            .iter()
            .find(|line| !line.code.trim().starts_with("#!") && !line.comment.is_empty() || line.is_code());
        let said = first
            .and_then(|line| line.comment.strip_prefix("//!"))
            .is_some_and(|text| !text.trim().is_empty());
        if !said {
            violations.push(Violation::new(
                &file.path,
                1,
                "does not begin with //!",
                "//! what it is, what it is not",
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_first_word_is_caught() {
        let tree = Tree::new([
            ("good.rs", "//! The door.\nfn a() {}"),
            ("empty.rs", ""),
            ("late.rs", "use a;\n//! The door.\nfn a() {}"),
            ("silent.rs", "//!\nfn a() {}"),
            ("comment.rs", "// The door.\nfn a() {}"),
        ]);
        let caught: Vec<String> = check(&tree).into_iter().map(|violation| violation.path).collect();
        assert_eq!(caught, ["comment.rs", "empty.rs", "late.rs", "silent.rs"]);
    }
}
