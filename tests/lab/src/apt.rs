//! Debian and Ubuntu packages: what is there, what a command needs, and how it gets it. Installing
//! needs root; without it the lab prints the one command that does it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::output;

/// Whether the package is installed.
///
/// # Errors
/// When there is no dpkg: the lab knows Debian and Ubuntu only.
pub fn installed(package: &str) -> Result<bool> {
    let status = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .context("running dpkg-query: the lab needs Debian or Ubuntu")?;
    Ok(status.status.success() && status.stdout == b"installed")
}

/// Installs what is missing of `packages`, saying so first.
///
/// # Errors
/// When this is not root and something is missing, or apt fails.
pub fn install(packages: &[&str]) -> Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        if !installed(package)? {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing packages. Run this once, then try again:\n\n    \
             sudo sh -c 'apt-get update && apt-get install --yes --no-install-recommends {list}'\n"
        );
    }
    eprintln!("lab: installing with apt: {list}");
    ensure_known(&missing)?;
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--quiet", "--yes", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", "install"])
        .args(&missing);
    // Lists of last month name files that are gone: one update mends it.
    output(&mut command).or_else(|_| update().and_then(|()| output(&mut command))).map(|_| ())
}

/// Refreshes apt's lists if one of the packages is not in them.
///
/// # Errors
/// When refreshing fails, or a package is in none of the sources.
pub fn ensure_known(packages: &[&str]) -> Result<()> {
    if packages.iter().all(|package| candidate(package).is_ok()) {
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "apt's lists know not all of {}. Run this once, then try again:\n\n    sudo apt-get update\n",
        packages.join(" ")
    );
    update()?;
    packages.iter().try_for_each(|package| candidate(package).map(|_| ()))
}

fn update() -> Result<()> {
    eprintln!("lab: refreshing apt's lists");
    output(Command::new("apt-get").args(["--quiet", "update"])).map(|_| ())
}

/// A package as the sources have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Version that apt would install.
    pub version: String,
    /// Names it depends on, the first alternative of each.
    pub depends: Vec<String>,
}

/// What apt would install for a name.
///
/// # Errors
/// When no source has it.
pub fn candidate(package: &str) -> Result<Candidate> {
    let shown = output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    parse_candidate(&shown).with_context(|| format!("apt has no candidate for {package}"))
}

fn parse_candidate(shown: &str) -> Option<Candidate> {
    let field = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let version = field("Version")?.to_owned();
    let depends = field("Depends")
        .unwrap_or_default()
        .split(',')
        .filter_map(|dependency| dependency.split(['|', '(', ':']).next())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    Some(Candidate { version, depends })
}

/// Downloads packages and unpacks them into `directory`: nothing is installed, no script runs.
///
/// # Errors
/// When apt or dpkg-deb fails.
pub fn unpack(packages: &[&str], directory: &Path) -> Result<()> {
    let download = tempfile::tempdir().context("making a directory for downloads")?;
    let mut command = Command::new("apt-get");
    // Root's directory is not readable for apt's own user.
    command
        .current_dir(download.path())
        .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
        .args(packages);
    output(&mut command)
        .or_else(|error| {
            if !rustix::process::geteuid().is_root() {
                return Err(error.context("downloading packages (try: sudo apt-get update)"));
            }
            update().and_then(|()| output(&mut command))
        })
        .context("downloading packages")?;
    for package in std::fs::read_dir(download.path()).context("listing downloads")? {
        let package = package.context("listing downloads")?.path();
        output(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(directory))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_read() {
        let shown =
            "Package: k\nVersion: 6.1.192-2\nDepends: linux-image-6.1.0 (= 6.1.192-2), a | b, c:any\n";
        let candidate = parse_candidate(shown).unwrap();
        assert_eq!(candidate.version, "6.1.192-2");
        assert_eq!(candidate.depends, ["linux-image-6.1.0", "a", "c"]);
        assert_eq!(parse_candidate("Package: virtual\n"), None);
    }
}
