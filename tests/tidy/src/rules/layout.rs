//! The top of the tree, the packages in it, and what each top folder's README says first.

use crate::{Tree, Violation};

/// Folders and files the root may hold, beside Markdown and dotfiles.
const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "rustfmt.toml",
    "deny.toml",
    "proto",
    "platform",
    "services",
    "sql-pv",
    "http-pv",
    "guest-agents",
    "tests",
];

/// Packages that are not members of the workspace: libFuzzer's instrumentation must not reach the others.
const APART: &[&str] = &["tests/fuzz/libfuzzer"];

/// The root holds what it should; every package is a member; each top folder says what it does not know.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    let members: Vec<String> = tree.members().into_iter().map(|member| member.folder).collect();
    let mut tops: Vec<&str> = Vec::new();
    for file in &tree.files {
        let top = file.path.split('/').next().unwrap_or(&file.path);
        if !tops.contains(&top) {
            tops.push(top);
            if !TOP.contains(&top) && !top.starts_with('.') && !top.ends_with(".md") {
                let instead = format!("one of {}, or a README beside its code", TOP.join(" "));
                violations.push(Violation::new(top, 0, "is not a top-level name", instead));
            }
        }
        if let Some(folder) = file.path.strip_suffix("/Cargo.toml")
            && !members.iter().any(|member| member == folder)
            && !APART.contains(&folder)
        {
            violations.push(Violation::new(
                &file.path,
                0,
                "is not a member",
                "list it in the root's members",
            ));
        }
    }
    for folder in tops.into_iter().filter(|top| TOP.contains(top)) {
        if !tree.files.iter().any(|file| file.path.starts_with(&format!("{folder}/"))) {
            continue;
        }
        let readme = format!("{folder}/README.md");
        if !tree.file(&readme).is_some_and(|file| says_what_it_does_not_know(&file.text)) {
            let what = "does not open with what the folder knows nothing of";
            violations.push(Violation::new(
                &readme,
                0,
                what,
                "a first paragraph like: services/ knows nothing of vsock",
            ));
        }
    }
    violations
}

/// The first paragraph after the title says that something is not known.
fn says_what_it_does_not_know(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).skip_while(|line| line.is_empty() || line.starts_with('#'));
    let first: String =
        lines.by_ref().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase();
    first.contains("know") && ["nothing", " not ", "no ", "neither"].iter().any(|not| first.contains(not))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (&str, &str) = ("Cargo.toml", "[workspace]\nmembers = [\"proto\"]");
    const README: (&str, &str) = ("proto/README.md", "# proto\n\nKnows nothing of\nservices.\n\nMore.");

    fn whats(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::new(files.iter().copied())).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tidy_tree_passes() {
        assert_eq!(
            whats(&[ROOT, README, ("proto/Cargo.toml", ""), ("NEWS.md", ""), (".ci/run", "")]),
            [""; 0]
        );
    }

    #[test]
    fn a_new_top_level_name_is_caught() {
        assert!(whats(&[ROOT, ("docs/a.md", "")])[0].starts_with("docs: is not a top-level name"));
        assert!(whats(&[ROOT, ("Makefile", "")])[0].starts_with("Makefile: is not a top-level name"));
    }

    #[test]
    fn a_package_outside_the_workspace_is_caught() {
        let found = whats(&[ROOT, README, ("proto/extra/Cargo.toml", "[package]")]);
        assert!(found[0].starts_with("proto/extra/Cargo.toml: is not a member"), "{found:?}");
    }

    #[test]
    fn a_readme_that_hides_its_ignorance_is_caught() {
        let found = whats(&[ROOT, ("proto/README.md", "# proto\n\nTypes.\n\nKnows nothing of services.")]);
        assert!(found[0].starts_with("proto/README.md: does not open"), "{found:?}");
        assert!(whats(&[ROOT, ("proto/src/lib.rs", "")])[0].starts_with("proto/README.md: does not open"));
    }
}
