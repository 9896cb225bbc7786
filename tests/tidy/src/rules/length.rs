//! A file is something a person reads in one go.

use crate::{Tree, Violation};

/// Most lines of code in a file: neither blank nor comment only.
const FILE_CODE_LINES_MAX: usize = 500;

/// No file of more than [`FILE_CODE_LINES_MAX`] lines of code.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (file, source) in tree.rust() {
        let lines = source.lines.iter().filter(|line| line.is_code()).count();
        if lines > FILE_CODE_LINES_MAX {
            let what = format!("has {lines} lines of code, {FILE_CODE_LINES_MAX} are allowed");
            violations.push(Violation::new(
                &file.path,
                0,
                what,
                "a module per verb or state, each with its tests",
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_counts() {
        let limit = "a();\n// why\n\n".repeat(FILE_CODE_LINES_MAX);
        assert_eq!(check(&Tree::new([("a.rs", limit.as_str())])), []);
        assert_eq!(check(&Tree::new([("a.rs", limit + "b();")])).len(), 1);
    }
}
