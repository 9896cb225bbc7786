//! Who may import whom: the arrows of `ARCHITECTURE.md`, read from the members' manifests.
//!
//! Only `[dependencies]` and `[build-dependencies]` count: a test may stand on anything.

use crate::{Tree, Violation};

/// A package and what of ours it may import.
struct Arrows {
    package: &'static str,
    folder: &'static str,
    imports: &'static [&'static str],
}

const fn arrows(package: &'static str, folder: &'static str, imports: &'static [&'static str]) -> Arrows {
    Arrows { package, folder, imports }
}

/// Every package outside `tests/`. A package that is not here has no place yet: give it one.
const LAYERS: &[Arrows] = &[
    arrows("vamos-proto", "proto", &[]),
    // The channel. `vsock` is pure; only `device` knows rings, only `link` knows the guest's side.
    arrows("vamos-vsock", "platform/vsock", &["vamos-proto"]),
    arrows("vamos-device", "platform/device", &["vamos-proto", "vamos-vsock", "vamos-service", "vamos-seam"]),
    arrows("vamos-link", "guest-agents/link", &["vamos-proto", "vamos-vsock"]),
    // Services know a stream and a VM, nothing of the channel.
    arrows("vamos-service", "services/service", &["vamos-proto"]),
    // Paravirtual SQL. `server` knows no engine; engines know no stream.
    arrows("vamos-sql-protocol", "sql-pv/protocol", &["vamos-proto"]),
    arrows("vamos-sql-dialect", "sql-pv/dialect", &[]),
    arrows(
        "vamos-sql-client",
        "sql-pv/client",
        &["vamos-proto", "vamos-link", "vamos-sql-protocol", "vamos-seam"],
    ),
    arrows(
        "vamos-sql-server",
        "sql-pv/server",
        &["vamos-proto", "vamos-service", "vamos-sql-protocol", "vamos-seam"],
    ),
    arrows("vamos-sql-checksum", "sql-pv/checksum", &[]),
    arrows(
        "vamos-sqlite",
        "sql-pv/sqlite",
        &["vamos-sql-protocol", "vamos-sql-server", "vamos-sql-checksum", "vamos-seam"],
    ),
    // Paravirtual HTTP.
    arrows("vamos-http-message", "http-pv/message", &[]),
    arrows("vamos-http-handover", "http-pv/handover", &["vamos-proto", "vamos-sandbox", "vamos-service"]),
    arrows("vamos-http-cache", "http-pv/cache", &["vamos-http-message"]),
    arrows("vamos-http-connector", "http-pv/connector", &["vamos-http-message"]),
    arrows("vamos-http-server", "http-pv/server", &["vamos-http-message"]),
    arrows(
        "vamos-edge",
        "http-pv/edge",
        &[
            "vamos-proto",
            "vamos-sandbox",
            "vamos-channel",
            "vamos-http-message",
            "vamos-http-server",
            "vamos-http-cache",
            "vamos-http-handover",
        ],
    ),
    // The composition roots and the host. `host` imports no service and no device.
    arrows("vamos-sandbox", "platform/sandbox", &[]),
    arrows("vamos-channel", "platform/channel", &["vamos-proto", "vamos-sandbox"]),
    arrows(
        "vamos-cell",
        "platform/cell",
        &[
            "vamos-proto",
            "vamos-device",
            "vamos-channel",
            "vamos-sandbox",
            "vamos-service",
            "vamos-sql-server",
            "vamos-sqlite",
            "vamos-http-handover",
            "vamos-seam",
        ],
    ),
    arrows("vamos-host", "platform/host", &["vamos-proto", "vamos-sandbox", "vamos-channel"]),
    arrows("vamos-ctl", "platform/ctl", &["vamos-proto"]),
    arrows(
        "vamos-agent",
        "guest-agents/agent",
        &[
            "vamos-proto",
            "vamos-link",
            "vamos-http-connector",
            "vamos-sql-client",
            "vamos-sql-dialect",
            "vamos-sql-protocol",
            "vamos-seam",
        ],
    ),
];

/// Every import of ours must be an arrow of [`LAYERS`].
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in tree.members() {
        let path = &member.file.path;
        if member.folder.starts_with("tests/") {
            continue;
        }
        let Some(layer) = LAYERS.iter().find(|layer| layer.package == member.name()) else {
            let what = format!("{:?} is in no layer", member.name());
            violations.push(Violation::new(
                path,
                0,
                what,
                "draw its arrows in tests/tidy and ARCHITECTURE.md",
            ));
            continue;
        };
        if layer.folder != member.folder {
            violations.push(Violation::new(path, 0, format!("{} is elsewhere", layer.package), layer.folder));
        }
        let imports = [member.names("dependencies"), member.names("build-dependencies")].concat();
        for import in imports.into_iter().filter(|name| name.starts_with("vamos")) {
            if !layer.imports.contains(&import) {
                let what = format!("{} imports {import}", layer.package);
                let instead = match layer.imports {
                    [] => "nothing of ours: pass it plain values".to_owned(),
                    imports => format!("import only {}, or pass it plain values", imports.join(", ")),
                };
                violations.push(Violation::new(path, 0, what, instead));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(folder: &str, name: &str, manifest: &str) -> Vec<Violation> {
        let root = format!("[workspace]\nmembers = [{folder:?}]");
        let manifest = format!("[package]\nname = {name:?}\n{manifest}");
        check(&Tree::new([("Cargo.toml".to_owned(), root), (format!("{folder}/Cargo.toml"), manifest)]))
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_caught() {
        let import = "[dependencies]\nvamos-sqlite.workspace = true";
        let violations = planted("sql-pv/server", "vamos-sql-server", import);
        assert_eq!(violations[0].what, "vamos-sql-server imports vamos-sqlite");
        let import = "[build-dependencies]\nvamos-device = { path = \"x\" }";
        assert_eq!(planted("platform/host", "vamos-host", import)[0].what, "vamos-host imports vamos-device");
    }

    #[test]
    fn tests_may_stand_on_anything() {
        let import = "[dev-dependencies]\nvamos-sqlite.workspace = true";
        assert_eq!(planted("sql-pv/server", "vamos-sql-server", import), []);
        let import = "[dependencies]\nvamos-sqlite.workspace = true";
        assert_eq!(planted("tests/bench", "vamos-bench", import), []);
    }

    #[test]
    fn a_package_without_a_layer_or_out_of_its_folder_is_caught() {
        assert_eq!(planted("platform/extra", "vamos-extra", "").len(), 1);
        assert_eq!(planted("platform/sql", "vamos-sql-server", "").len(), 1);
    }

    #[test]
    fn no_two_layers_import_each_other() {
        for layer in LAYERS {
            // The seams import nothing, and are nothing in what is shipped.
            for import in layer.imports.iter().filter(|import| **import != "vamos-seam") {
                let other = LAYERS.iter().find(|other| other.package == *import);
                assert!(other.is_some_and(|other| !other.imports.contains(&layer.package)), "{import}");
            }
        }
    }
}
