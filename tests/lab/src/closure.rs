//! A program and the libraries it loads, for a guest that has no distribution.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::output;

/// The files that a dynamically linked program needs besides itself: its libraries and its loader, by
/// the paths under which the loader looks for them.
///
/// # Errors
/// When one is missing on this machine.
pub fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let listed = output(Command::new("ldd").arg(program))?;
    let found = parse(&listed);
    for library in &found {
        ensure!(library.exists(), "{} needs {}", program.display(), library.display());
    }
    ensure!(!listed.contains("not found"), "{} lacks libraries:\n{listed}", program.display());
    Ok(found)
}

fn parse(listed: &str) -> BTreeSet<PathBuf> {
    listed
        .lines()
        .filter_map(|line| line.split_once("=>").map_or(Some(line), |(_, path)| Some(path)))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// The newest `name` of the PostgreSQL installations of this machine: the real program, not the wrapper
/// that Debian puts before it.
///
/// # Errors
/// When there is none.
pub fn postgres_program(name: &str) -> Result<PathBuf> {
    let root = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(root).with_context(|| format!("listing {}", root.display()))?;
    versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
            let program = path.join("bin").join(name);
            program.exists().then_some((version, program))
        })
        .max()
        .map(|(_, program)| program)
        .with_context(|| format!("no PostgreSQL installation under {} has {name}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_vdso_is_not() {
        let listed = "\tlinux-vdso.so.1 (0x00007fa435702000)\n\
                      \tlibpq.so.5 => /lib/x86_64-linux-gnu/libpq.so.5 (0x00007fa4355db000)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007fa435704000)\n";
        let found: Vec<_> = parse(listed).into_iter().collect();
        assert_eq!(
            found,
            [Path::new("/lib/x86_64-linux-gnu/libpq.so.5"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
    }

    #[test]
    fn this_test_has_a_closure() {
        let found = libraries(&std::env::current_exe().unwrap()).unwrap();
        assert!(found.iter().any(|path| path.to_string_lossy().contains("libc.so")), "{found:?}");
    }
}
