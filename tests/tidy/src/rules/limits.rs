//! Limits live together, so that an operator can read them in one place.

use crate::{Tree, Violation};

/// A public constant named `.._MAX` is in a file called `limits.rs`.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (file, source) in tree.rust().filter(|(file, _)| !file.path.ends_with("/limits.rs")) {
        for (number, line) in source.numbered().filter(|(_, line)| !line.test) {
            let code = line.code.trim_start();
            let Some(name) = code.strip_prefix("pub const ").and_then(|rest| rest.split(':').next()) else {
                continue;
            };
            if name.ends_with("_MAX") {
                let what = format!("{name} is a limit outside limits.rs");
                violations.push(Violation::new(&file.path, number, what, "limits.rs of the package"));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_elsewhere_is_caught() {
        let line = "pub const STREAMS_MAX: usize = 4;";
        assert_eq!(
            check(&Tree::new([("a/src/mux.rs", line)]))[0].what,
            "STREAMS_MAX is a limit outside limits.rs"
        );
        assert_eq!(check(&Tree::new([("a/src/limits.rs", line)])), []);
        assert_eq!(check(&Tree::new([("a/src/mux.rs", "const STREAMS_MAX: usize = 4;")])), []);
    }
}
