//! Guest kernels and their modules. QEMU's is the distribution's kernel for cloud machines,
//! downloaded and unpacked but not installed: the machine's own boot stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::cache::{Cache, Inputs};
use crate::process::output;

/// Names of the metapackage, Debian's first.
const CLOUD_KERNELS: &[&str] = &["linux-image-cloud-amd64", "linux-image-virtual"];

/// Path of Debian's UML kernel, and of its modules.
const UML: &str = "/usr/bin/linux.uml";
const UML_MODULES: &str = "/usr/lib/uml/modules";

/// What a guest needs, in the order of insertion. A kernel has each as a module or built in.
const PCI_MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
];
const VSOCK_MODULES: &[&str] = &["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"];

/// What a guest with a disk needs besides.
const DISK_MODULES: &[&str] = &["virtio_blk", "crc16", "mbcache", "jbd2", "crc32c_generic", "ext4"];

/// A kernel and the modules that a guest of it inserts, in order.
#[derive(Debug)]
pub struct Kernel {
    /// The image: a bzImage for QEMU, a program for UML.
    pub image: PathBuf,
    /// The modules.
    pub modules: Vec<PathBuf>,
    /// Those for a disk.
    pub disk_modules: Vec<PathBuf>,
}

/// The cloud kernel of this distribution.
///
/// # Errors
/// When no source has one, or it lacks a module.
pub fn cloud(cache: &Cache) -> Result<Kernel> {
    let (package, version) = cloud_package()?;
    let name = Inputs::new().bytes(&package).bytes(&version).name("kernel");
    let root = cache.entry(&name, |directory| {
        eprintln!("lab: downloading {package} {version} (unpacked into the cache, not installed)");
        let modules = package.replace("linux-image-", "linux-modules-");
        let mut packages = vec![package.as_str()];
        if apt::candidate(&modules).is_ok() {
            packages.push(&modules);
        }
        apt::unpack(&packages, directory)
    })?;
    let boot = root.join("boot");
    let image = fs::read_dir(&boot)
        .with_context(|| format!("listing {}", boot.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz")))
        .with_context(|| format!("{package} has no vmlinuz"))?;
    let modules = root.join("lib/modules");
    let modules = if modules.is_dir() { modules } else { root.join("usr/lib/modules") };
    let disk_modules = select(&modules, DISK_MODULES)?;
    Ok(Kernel { image, modules: select(&modules, &[PCI_MODULES, VSOCK_MODULES].concat())?, disk_modules })
}

/// The metapackage names the real one.
fn cloud_package() -> Result<(String, String)> {
    if !CLOUD_KERNELS.iter().any(|name| apt::candidate(name).is_ok()) {
        // One of them must come with the lists; which one, only the lists know.
        let _ = apt::ensure_known(&CLOUD_KERNELS[..1]);
    }
    for name in CLOUD_KERNELS {
        if let Ok(meta) = apt::candidate(name)
            && let Some(package) = meta.depends.iter().find(|depends| depends.starts_with("linux-image-"))
        {
            return Ok((package.clone(), apt::candidate(package)?.version));
        }
    }
    bail!("no package source has {}", CLOUD_KERNELS.join(" or "))
}

/// Debian's UML kernel.
///
/// # Errors
/// When it is not installed.
pub fn uml() -> Result<Kernel> {
    let modules = select(Path::new(UML_MODULES), VSOCK_MODULES).context("is user-mode-linux installed?")?;
    Ok(Kernel { image: PathBuf::from(UML), modules, disk_modules: Vec::new() })
}

/// Finds modules by name under `directory`, leaving out what is built in.
fn select(directory: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let listed = output(Command::new("find").arg(directory).args([
        "-name",
        "*.ko*",
        "-o",
        "-name",
        "modules.builtin",
    ]))?;
    let files: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
    let mut built_in = String::new();
    for list in files.iter().filter(|path| path.ends_with("modules.builtin")) {
        built_in += &fs::read_to_string(list).with_context(|| format!("reading {}", list.display()))?;
    }
    let mut modules = Vec::new();
    for name in names {
        let module = files.iter().find(|path| module_name(path) == Some(*name));
        let is_built_in = built_in.lines().any(|line| module_name(Path::new(line)) == Some(*name));
        match module {
            Some(path) => modules.push(path.clone()),
            None if is_built_in => {}
            None => bail!("the kernel under {} has no {name}", directory.display()),
        }
    }
    Ok(modules)
}

/// `virtio_ring` for `…/virtio_ring.ko.xz`.
fn module_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split_once(".ko").map(|(name, _)| name)
}

/// A module as the guest inserts it: not compressed.
///
/// # Errors
/// When it cannot be read.
pub fn module_contents(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("reading {}", path.display())),
    };
    let done = Command::new(program)
        .args(["-dc"])
        .arg(path)
        .output()
        .with_context(|| format!("running {program}: is it installed?"))?;
    anyhow::ensure!(done.status.success(), "{program} cannot read {}", path.display());
    Ok(done.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_in_order_and_built_in_ones_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["b.ko", "a.ko.xz", "unwanted.ko"] {
            fs::write(directory.path().join(file), "").unwrap();
        }
        fs::write(directory.path().join("modules.builtin"), "kernel/drivers/c.ko\n").unwrap();
        let found = select(directory.path(), &["b", "c", "a"]).unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| module_name(path)).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(select(directory.path(), &["d"]).is_err());
    }
}
