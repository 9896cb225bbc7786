//! Names are the field's own terms; a ban names its replacement.

use crate::source::words;
use crate::{Tree, Violation};

/// Names of files, folders and modules that say nothing, and what to say.
const VAGUE: &[(&str, &str)] = &[
    ("util", "the name of what it works on"),
    ("utils", "the name of what it works on"),
    ("core", "the name of the part"),
    ("manager", "what it does: keeper, spawner, registry"),
    ("helper", "the name of what it works on"),
    ("helpers", "the name of what it works on"),
    ("common", "the name of what is shared"),
    ("misc", "the name of what it works on"),
];

/// Ends of type names that say nothing.
const VAGUE_TYPES: &[(&str, &str)] = &[
    ("Manager", "what it does: Keeper, Spawner, Registry"),
    ("Helper", "the name of what it works on"),
    ("Utils", "the name of what it works on"),
    ("Util", "the name of what it works on"),
];

/// No vague names of files and types, no `get_` of ours.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in &tree.files {
        for part in file.path.split('/') {
            let stem = part.split('.').next().unwrap_or(part);
            let said = stem.split(['-', '_']).find_map(|word| VAGUE.iter().find(|(vague, _)| *vague == word));
            if let Some((vague, instead)) = said {
                violations.push(Violation::new(&file.path, 0, format!("is named {vague:?}"), *instead));
            }
        }
    }
    for (file, source) in tree.rust() {
        for (number, line) in source.numbered() {
            let found: Vec<&str> = words(&line.code).collect();
            for pair in found.windows(2) {
                let (keyword, name) = (pair[0], pair[1]);
                let instead = match keyword {
                    "mod" => VAGUE.iter().find(|(vague, _)| *vague == name).map(|(_, instead)| *instead),
                    "struct" | "enum" | "trait" | "type" => VAGUE_TYPES
                        .iter()
                        .find(|(vague, _)| name.ends_with(vague))
                        .map(|(_, instead)| *instead),
                    "fn" if name.starts_with("get_") && !line.foreign => {
                        Some("the noun alone, or the verb that is meant")
                    }
                    "fn" if name.ends_with("_helper") => Some("what it does"),
                    _ => None,
                };
                if let Some(instead) = instead {
                    let what = format!("has {keyword} {name}");
                    violations.push(Violation::new(&file.path, number, what, instead));
                }
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&Tree::new([(path, text)])).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn vague_files_and_folders_are_caught() {
        assert_eq!(whats("platform/core/src/lib.rs", ""), ["is named \"core\""]);
        assert_eq!(whats("proto/src/wire_utils.rs", ""), ["is named \"utils\""]);
        assert_eq!(whats("proto/src/scores.rs", ""), [""; 0]);
    }

    #[test]
    fn vague_modules_types_and_functions_are_caught() {
        assert_eq!(whats("a.rs", "pub mod utils {"), ["has mod utils"]);
        assert_eq!(whats("a.rs", "pub struct SessionManager<T> {"), ["has struct SessionManager"]);
        assert_eq!(whats("a.rs", "pub async fn get_rows(&self) {"), ["has fn get_rows"]);
        assert_eq!(whats("a.rs", "fn read_helper() {"), ["has fn read_helper"]);
        assert_eq!(whats("a.rs", "fn target_rows() {} // fn get_rows"), [""; 0]);
    }

    #[test]
    fn a_trait_of_others_may_name_its_methods() {
        assert_eq!(whats("a.rs", "impl VhostUserBackend for Device {\n fn get_config() {}\n}"), [""; 0]);
    }
}
