//! What tests can make err is not what is shipped: one package may arm the seams, and binaries refuse to be armed.

use crate::{Tree, Violation};

/// The seams, and the package that arms them.
const FOLDERS: &[&str] = &["tests/seam", "tests/seeded"];

/// Shipped binaries that stand on crates with seams.
const BINARIES: &[&str] = &["platform/cell/src/main.rs", "guest-agents/agent/src/main.rs"];

/// What each of them says. It does not compile with the feature.
const REFUSAL: &str = "const _: () = assert!(!vamos_seam::ARMED";

/// The feature is named in [`FOLDERS`] only, is no default, and every one of [`BINARIES`] refuses it.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in tree.members() {
        if member.file.text.contains("armed") && !FOLDERS.contains(&member.folder.as_str()) {
            violations.push(Violation::new(
                &member.file.path,
                0,
                "arms the seams, or could",
                "a test of tests/seeded",
            ));
        }
    }
    for path in BINARIES {
        if !tree.file(path).is_some_and(|file| file.text.contains(REFUSAL)) {
            violations.push(Violation::new(path, 0, "could be armed", REFUSAL));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(cell: &str, manifest: &str) -> Tree {
        Tree::new([
            ("Cargo.toml", "[workspace]\nmembers = [\"platform/cell\"]\n"),
            ("platform/cell/Cargo.toml", manifest),
            ("platform/cell/src/main.rs", cell),
            ("guest-agents/agent/src/main.rs", &format!("{REFUSAL}, \"\");")),
        ])
    }

    #[test]
    fn whoever_could_be_armed_is_named() {
        let refuses = format!("{REFUSAL}, \"\");");
        assert_eq!(check(&tree(&refuses, "[package]\nname = \"vamos-cell\"\n")).len(), 0);
        assert_eq!(check(&tree("fn main() {}", "[package]\nname = \"vamos-cell\"\n")).len(), 1);
        let armed = "[dependencies]\nvamos-seam = { workspace = true, features = [\"armed\"] }\n";
        assert_eq!(check(&tree(&refuses, armed)).len(), 1);
    }
}
