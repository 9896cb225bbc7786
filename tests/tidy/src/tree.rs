//! The repository's files, read once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::source::Source;

/// Folders that hold nothing of ours: build products and git's own.
const SKIPPED: [&str; 3] = ["target", ".git", "artifacts"];

/// A file of the repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// Contents; empty if they are not text.
    pub text: String,
    /// Rust source, for `.rs` files.
    pub source: Option<Source>,
}

impl File {
    /// The folder of the file's package: the part of the path before `src/`, `tests/`, `examples/` or `build.rs`.
    pub fn package(&self) -> &str {
        let ends = ["/src/", "/tests/", "/examples/", "/build.rs"].map(|end| self.path.rfind(end));
        ends.into_iter().flatten().next().map_or("", |end| &self.path[..end])
    }
}

/// The files of a repository, or of a planted one in a rule's test.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The files, by path.
    pub files: Vec<File>,
}

impl Tree {
    /// The repository this crate is in.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub fn of_this_repository() -> anyhow::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.ancestors().nth(2).context("find the root of the repository")?;
        let mut paths = Vec::new();
        walk(root, &mut paths).with_context(|| format!("list {}", root.display()))?;
        let mut files = Vec::new();
        for path in paths {
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let relative = path.strip_prefix(root).context("a path below the root")?;
            files.push((
                relative.to_string_lossy().into_owned(),
                String::from_utf8(bytes).unwrap_or_default(),
            ));
        }
        Ok(Self::new(files))
    }

    /// A tree of these paths and contents.
    pub fn new<P: Into<String>, T: Into<String>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let mut files: Vec<File> =
            files.into_iter().map(|(path, text)| file(path.into(), text.into())).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        mark_test_files(&mut files);
        Self { files }
    }

    /// Rust files with their source.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter_map(|file| Some((file, file.source.as_ref()?)))
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Manifests of the workspace's packages, parsed; a package that is not a member is left out.
    pub fn members(&self) -> Vec<Member<'_>> {
        let Some(root) = self.file("Cargo.toml").and_then(|file| file.text.parse::<toml::Table>().ok())
        else {
            return Vec::new();
        };
        let members = root.get("workspace").and_then(|w| w.get("members")).and_then(toml::Value::as_array);
        let folders = members.into_iter().flatten().filter_map(toml::Value::as_str);
        let manifest = |folder: &str| {
            let file = self.file(&format!("{folder}/Cargo.toml"))?;
            Some(Member { folder: folder.to_owned(), file, manifest: file.text.parse().ok()? })
        };
        folders.filter_map(manifest).collect()
    }
}

/// A package of the workspace.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its folder.
    pub folder: String,
    /// Its manifest as a file.
    pub file: &'a File,
    /// Its manifest, parsed.
    pub manifest: toml::Table,
}

impl Member<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.manifest.get("package").and_then(|p| p.get("name")).and_then(toml::Value::as_str).unwrap_or("")
    }

    /// Names of what a table of its manifest (`dependencies`, `build-dependencies`, ..) lists.
    pub fn names(&self, table: &str) -> Vec<&str> {
        let table = self.manifest.get(table).and_then(toml::Value::as_table);
        table.map(|table| table.keys().map(String::as_str).collect()).unwrap_or_default()
    }
}

fn file(path: String, text: String) -> File {
    let source = path.ends_with(".rs").then(|| {
        let mut source = Source::new(&text);
        if is_test_path(&path) {
            source.become_test();
        }
        source
    });
    File { path, text, source }
}

/// Integration tests, benches and examples of a package: `<package>/tests/` and so on. The top folder
/// `tests/` itself holds packages.
fn is_test_path(path: &str) -> bool {
    let inner = path.strip_prefix("tests/").unwrap_or(path);
    inner.split('/').any(|part| ["tests", "benches", "examples"].contains(&part))
}

/// A module declared `#[cfg(test)] mod x;` makes a test of every file of it.
fn mark_test_files(files: &mut [File]) {
    let mut modules: HashSet<String> = HashSet::new();
    for file in files.iter() {
        let Some(source) = &file.source else { continue };
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let inside = match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            other => format!("{folder}/{}", other.trim_end_matches(".rs")),
        };
        modules.extend(source.test_modules().into_iter().map(|module| format!("{inside}/{module}")));
    }
    for file in files {
        let belongs = |module: &String| {
            file.path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        if modules.iter().any(belongs)
            && let Some(source) = &mut file.source
        {
            source.become_test();
        }
    }
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            paths.push(entry.path());
        } else if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            walk(&entry.path(), paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_module_in_its_own_file_is_test_code() {
        let tree = Tree::new([
            ("a/src/lib.rs", "mod one;\n#[cfg(test)]\nmod story;"),
            ("a/src/one.rs", "fn x() {}"),
            ("a/src/story.rs", "fn y() {}"),
            ("a/src/story/part.rs", "fn z() {}"),
            ("tests/lab/src/lib.rs", "fn w() {}"),
            ("tests/lab/tests/boot.rs", "fn v() {}"),
        ]);
        let test: Vec<bool> = tree.rust().map(|(_, source)| source.lines[0].test).collect();
        assert_eq!(test, [false, false, true, true, false, true]);
    }

    #[test]
    fn files_know_their_package() {
        for (path, package) in [
            ("platform/vsock/src/a/b.rs", "platform/vsock"),
            ("tests/lab/tests/boot.rs", "tests/lab"),
            ("proto/build.rs", "proto"),
            ("platform/device/examples/ping.rs", "platform/device"),
            ("README.md", ""),
        ] {
            assert_eq!(file(path.to_owned(), String::new()).package(), package, "{path}");
        }
    }

    #[test]
    fn members_are_read_from_the_workspace() {
        let tree = Tree::new([
            ("Cargo.toml", "[workspace]\nmembers = [\"a\"]"),
            ("a/Cargo.toml", "[package]\nname = \"x\"\n[dependencies]\nb = \"1\"\nc = \"1\""),
        ]);
        let members = tree.members();
        assert_eq!((members[0].name(), members[0].names("dependencies")), ("x", vec!["b", "c"]));
    }
}
