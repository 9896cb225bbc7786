//! Libraries that have a place: what may be used where, versions in one table, one registry.

use crate::{Tree, Violation};

/// A library, the folders that may import it, and what the others do.
struct Place {
    libraries: &'static [&'static str],
    folders: &'static [&'static str],
    instead: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        libraries: &[
            "vhost",
            "vhost-user-backend",
            "virtio-queue",
            "virtio-vsock",
            "virtio-drivers",
            "vm-memory",
        ],
        folders: &["platform/device", "guest-agents/link", "platform/host"],
        instead: "bytes that platform/device or guest-agents/link copied out of guest memory",
    },
    Place {
        libraries: &["rusqlite", "libsqlite3-sys"],
        folders: &["sql-pv/checksum", "sql-pv/sqlite", "platform/host"],
        instead: "the Engine trait of sql-pv/server",
    },
    Place {
        libraries: &["tonic", "tonic-prost", "tonic-health", "tonic-reflection"],
        folders: &["proto", "platform/host", "platform/ctl"],
        instead: "a plain Config: the control plane ends in vamosd",
    },
    Place {
        libraries: &["anyhow"],
        folders: &["platform/cell", "platform/host", "platform/ctl", "http-pv/edge", "guest-agents/agent"],
        instead: "thiserror with a #[source]: this is a library",
    },
    Place {
        libraries: &["landlock", "seccompiler"],
        folders: &["platform/sandbox"],
        instead: "platform/sandbox",
    },
    Place {
        libraries: &["libc", "nix"],
        folders: &["platform/sandbox", "platform/device", "guest-agents/link"],
        instead: "rustix",
    },
    Place {
        libraries: &["pgwire"],
        folders: &["guest-agents/agent"],
        instead: "paravirtual SQL: front doors are in the agent",
    },
    Place { libraries: &["sqlparser"], folders: &["sql-pv/dialect"], instead: "sql-pv/dialect" },
    Place { libraries: &["log", "env_logger"], folders: &[], instead: "tracing" },
    Place {
        libraries: &["lazy_static", "once_cell"],
        folders: &[],
        instead: "std::sync::LazyLock or OnceLock",
    },
];

/// Packages that do no I/O, and what would give them some.
const PURE: &[&str] = &["platform/vsock", "sql-pv/protocol", "sql-pv/dialect"];
const IO: &[&str] = &["tokio", "tokio-util", "tokio-vsock", "rustix", "libc", "futures"];

/// Where every package of the lock file comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Libraries in their places, versions in the workspace's table, lints inherited, one registry.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in tree.members() {
        let (path, test) = (&member.file.path, member.folder.starts_with("tests/"));
        let imports = [member.names("dependencies"), member.names("build-dependencies")].concat();
        for import in imports.iter().filter(|_| !test) {
            for place in PLACES.iter().filter(|place| place.libraries.contains(import)) {
                if !place.folders.contains(&member.folder.as_str()) {
                    violations.push(Violation::new(path, 0, format!("imports {import}"), place.instead));
                }
            }
            if PURE.contains(&member.folder.as_str()) && IO.contains(import) {
                let what = format!("imports {import}, and does no I/O");
                violations.push(Violation::new(
                    path,
                    0,
                    what,
                    "take and return bytes; the caller does the I/O",
                ));
            }
        }
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = member.manifest.get(table).and_then(toml::Value::as_table) else { continue };
            for (name, dependency) in table {
                if dependency.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    let what = format!("{name} has a version of its own");
                    violations.push(Violation::new(
                        path,
                        0,
                        what,
                        "a line in [workspace.dependencies] of the root",
                    ));
                }
            }
        }
        let lints = member.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            violations.push(Violation::new(path, 0, "has lints of its own", "[lints] workspace = true"));
        }
    }
    for (number, line) in
        tree.file("Cargo.lock").iter().flat_map(|file| file.text.lines().zip(1..)).map(|(l, n)| (n, l))
    {
        if line.starts_with("source = ") && !line.contains(REGISTRY) {
            violations.push(Violation::new(
                "Cargo.lock",
                number,
                format!("has a {line}"),
                "a release on crates.io",
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(folder: &str, manifest: &str) -> Vec<String> {
        let root = format!("[workspace]\nmembers = [{folder:?}]");
        let manifest = format!("[package]\nname = \"x\"\n{manifest}");
        let tree = Tree::new([("Cargo.toml".to_owned(), root), (format!("{folder}/Cargo.toml"), manifest)]);
        check(&tree).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn a_library_out_of_its_place_is_caught() {
        let manifest = "[dependencies]\nrusqlite.workspace = true\n[lints]\nworkspace = true";
        assert_eq!(planted("sql-pv/server", manifest), ["imports rusqlite"]);
        assert_eq!(planted("sql-pv/sqlite", manifest), [""; 0]);
        assert_eq!(planted("tests/bench", manifest), [""; 0]);
    }

    #[test]
    fn io_in_a_pure_package_is_caught() {
        let manifest = "[dependencies]\ntokio.workspace = true\n[lints]\nworkspace = true";
        assert_eq!(planted("platform/vsock", manifest), ["imports tokio, and does no I/O"]);
        assert_eq!(planted("platform/device", manifest), [""; 0]);
    }

    #[test]
    fn a_version_or_lints_outside_the_workspace_are_caught() {
        let manifest = "[dev-dependencies]\nbytes = \"1\"";
        assert_eq!(planted("proto", manifest), ["bytes has a version of its own", "has lints of its own"]);
    }

    #[test]
    fn another_registry_is_caught() {
        let lock = format!("source = \"{REGISTRY}\"\nsource = \"registry+https://example.org/index\"");
        assert_eq!(check(&Tree::new([("Cargo.lock", lock)]))[0].line, 2);
    }
}
