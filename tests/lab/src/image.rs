//! What a guest starts from: an initramfs of busybox, the kernel's modules, PostgreSQL's unmodified
//! clients with their libraries, and `guest/init`. Cached; what changes from run to run (the agent, data) is a
//! second archive behind it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{Cache, Inputs};
use crate::closure;
use crate::cpio::Archive;
use crate::kernel::{self, Kernel};
use crate::vm::Vmm;

const INIT: &str = include_str!("../guest/init");

/// Name of the archive in its cache entry.
const ARCHIVE: &str = "initramfs.cpio";

/// A guest to boot: a kernel and a whole initramfs without a run's own files.
#[derive(Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The cached archive.
    pub initramfs: PathBuf,
}

/// A program of the host that guests have, under the name they call it by.
struct Program {
    name: &'static str,
    path: PathBuf,
}

impl Image {
    /// The image for one of the VMMs, built if it is not in the cache.
    ///
    /// # Errors
    /// When a program or module of it is missing on the machine.
    pub fn cached(vmm: Vmm, cache: &Cache) -> Result<Self> {
        let kernel = match vmm {
            Vmm::Qemu => kernel::cloud(cache)?,
            Vmm::Uml => kernel::uml()?,
        };
        let programs = programs()?;
        let mut libraries = BTreeSet::new();
        for program in &programs {
            libraries.extend(closure::libraries(&program.path)?);
        }
        let mut inputs = Inputs::new().bytes(INIT).bytes(include_bytes!("image.rs")).file(&busybox()?)?;
        let modules = kernel.modules.iter().chain(&kernel.disk_modules);
        for file in modules.chain(programs.iter().map(|program| &program.path)).chain(&libraries) {
            inputs = inputs.file(file)?;
        }
        let entry = cache.entry(&inputs.name(vmm.name()), |directory| {
            eprintln!("lab: making the {} guest image", vmm.name());
            write(&directory.join(ARCHIVE), &kernel, &programs, &libraries)
        })?;
        Ok(Self { kernel: kernel.image, initramfs: entry.join(ARCHIVE) })
    }

    /// Writes the image with a run's own files behind it, for one boot.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn with_files(&self, files: &[(String, PathBuf)], to: &Path) -> Result<()> {
        let mut whole = File::create(to).with_context(|| format!("creating {}", to.display()))?;
        let mut base = File::open(&self.initramfs).context("opening the cached image")?;
        io::copy(&mut base, &mut whole).context("copying the cached image")?;
        let mut archive = Archive::new(BufWriter::new(whole));
        let mut made = BTreeSet::new();
        for (path, from) in files {
            directories(&mut archive, &mut made, path)?;
            archive.copy(path.trim_start_matches('/'), from)?;
        }
        archive.finish().map(|_| ())
    }
}

/// What a guest of today has. Servers of later doors join here.
fn programs() -> Result<Vec<Program>> {
    let mut programs = vec![Program { name: "psql", path: closure::postgres_program("psql")? }];
    // In the server's package, which only `cargo verify` needs.
    if let Ok(path) = closure::postgres_program("pgbench") {
        programs.push(Program { name: "pgbench", path });
    }
    Ok(programs)
}

/// The static busybox: another build of it would want libraries before there are any.
fn busybox() -> Result<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .context("finding busybox: is busybox-static installed?")
}

fn write(to: &Path, kernel: &Kernel, programs: &[Program], libraries: &BTreeSet<PathBuf>) -> Result<()> {
    let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    let mut made = BTreeSet::new();
    for path in ["/bin/", "/dev/", "/etc/", "/lib/modules/disk/", "/usr/bin/"] {
        directories(&mut archive, &mut made, path)?;
    }
    // The kernel opens it for init before devtmpfs is there.
    archive.character_device("dev/console", 5, 1)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("etc/passwd", 0o644, b"vamos:x:0:0:VAMOS:/tmp:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"vamos:x:0:\n")?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
    archive.copy("bin/busybox", &busybox()?)?;
    for (directory, modules) in [("lib/modules", &kernel.modules), ("lib/modules/disk", &kernel.disk_modules)]
    {
        for (place, module) in modules.iter().enumerate() {
            let name =
                module.file_stem().map(|name| name.to_string_lossy().replace(".ko", "")).unwrap_or_default();
            let contents = kernel::module_contents(module)?;
            archive.file(&format!("{directory}/{place:02}-{name}.ko"), 0o644, &contents)?;
        }
    }
    for program in programs {
        archive.copy(&format!("usr/bin/{}", program.name), &program.path)?;
    }
    for library in libraries {
        let path = library.to_string_lossy();
        directories(&mut archive, &mut made, &path)?;
        archive.copy(path.trim_start_matches('/'), library)?;
    }
    archive.finish()?.into_inner().context("writing the image")?.sync_all().context("writing the image")
}

/// Makes the directories above a path, once.
fn directories<W: Write>(archive: &mut Archive<W>, made: &mut BTreeSet<String>, path: &str) -> Result<()> {
    let path = path.trim_start_matches('/');
    for (end, _) in path.match_indices('/') {
        if made.insert(path[..end].to_owned()) {
            archive.directory(&path[..end])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::new(Vec::new());
        let mut made = BTreeSet::new();
        directories(&mut archive, &mut made, "/data/a/x").unwrap();
        directories(&mut archive, &mut made, "/data/y").unwrap();
        let text = String::from_utf8(archive.finish().unwrap()).unwrap();
        assert_eq!(text.matches("data\0").count(), 1);
        assert!(text.find("data\0").unwrap() < text.find("data/a\0").unwrap());
    }
}
