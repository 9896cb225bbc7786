//! A disk with programs of the distribution, for guests that run more than busybox: made by mmdebstrap once,
//! cached, and read-only, so that any number of guests and VMMs share it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt;
use crate::cache::{Cache, Inputs};
use crate::process::output;

/// What guests have on it; what those depend on comes with them.
const PACKAGES: &[&str] = &[
    "python3",
    "python3-psycopg",
    // The servers that the edge is tried with.
    "nginx-light",
    "apache2",
    "php-fpm",
    "gunicorn",
    "python3-django",
    "nodejs",
    "tomcat10",
];

/// Nobody reads these in a guest.
const LEFT_OUT: &[&str] =
    &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Name of the image in its cache entry.
const IMAGE: &str = "debian.ext4";

/// The disk's image, made if it is not in the cache.
///
/// # Errors
/// When mmdebstrap or mke2fs fails: the message holds what it said.
pub fn cached(cache: &Cache) -> Result<PathBuf> {
    let suite = suite(&std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?)?;
    apt::ensure_known(PACKAGES)?;
    let mut inputs = Inputs::new().bytes(&suite).bytes(include_bytes!("debian.rs"));
    for package in PACKAGES {
        inputs = inputs.bytes(package).bytes(apt::candidate(package)?.version);
    }
    let entry = cache.entry(&inputs.name("debian"), |directory| {
        eprintln!("lab: making a disk of {suite} with {}", PACKAGES.join(", "));
        make(&suite, directory)
    })?;
    Ok(entry.join(IMAGE))
}

fn make(suite: &str, directory: &Path) -> Result<()> {
    let root = directory.join("root");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", &format!("--include={}", PACKAGES.join(","))]);
    command.args(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    // Java's packages link their manuals there, whether they are or not.
    command.arg("--essential-hook=mkdir -p \"$1/usr/share/man/man1\"");
    output(command.arg("--format=directory").arg(suite).arg(&root))?;
    let used = output(Command::new("du").args(["--summarize", "--block-size=1M"]).arg(&root))?;
    let used: u64 =
        used.split_whitespace().next().and_then(|mib| mib.parse().ok()).context("du of a disk")?;
    // Read-only: no journal, and no more room than what is on it takes.
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]).arg(&root);
    output(command.arg(directory.join(IMAGE)).arg(format!("{}M", used + used / 4 + 16)))?;
    std::fs::remove_dir_all(&root).context("removing what the disk was made of")
}

/// The name of the distribution's release, as its sources are called.
fn suite(release: &str) -> Result<String> {
    let named = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = named.map(|name| name.trim_matches('"').to_owned());
    name.filter(|name| !name.is_empty()).context("/etc/os-release names no release (VERSION_CODENAME)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read() {
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        assert_eq!(suite("VERSION_CODENAME=\"noble\"\n").unwrap(), "noble");
        assert!(suite("ID=arch\nVERSION_CODENAME=\n").is_err());
    }
}
