//! One command's lab: its run directory, the binaries, the images. Hosts are started from it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::accelerator::Accelerator;
use crate::artifacts::Artifacts;
use crate::cache::Cache;
use crate::debian;
use crate::host::{Host, HostConfig};
use crate::image::Image;
use crate::run::RunDir;
use crate::vm::Vmm;

/// A lab. A clone is the same lab; with the last of them everything that it started ends.
#[derive(Debug, Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    run: RunDir,
    artifacts: Artifacts,
    cache: Cache,
    images: Mutex<HashMap<Vmm, Arc<Image>>>,
    debian: Mutex<Option<PathBuf>>,
    accelerator: Mutex<Option<Accelerator>>,
}

impl Lab {
    /// Builds the binaries and makes a run directory. What the machine needs is [`crate::setup`]'s.
    ///
    /// # Errors
    /// When the build fails or the directory cannot be made.
    pub fn open() -> Result<Self> {
        let run = RunDir::create()?;
        let artifacts = Artifacts::build(&run)?;
        let inner = Inner {
            run,
            artifacts,
            cache: Cache::open()?,
            images: Mutex::default(),
            debian: Mutex::default(),
            accelerator: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts a vamosd.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn host(&self, config: &HostConfig) -> Result<Host> {
        Host::start(self, config)
    }

    /// The run's directory.
    #[must_use]
    pub fn run(&self) -> &RunDir {
        &self.inner.run
    }

    /// The binaries under test.
    #[must_use]
    pub fn artifacts(&self) -> &Artifacts {
        &self.inner.artifacts
    }

    /// The guest image for a VMM.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn image(&self, vmm: Vmm) -> Result<Arc<Image>> {
        let mut images = self.inner.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = images.get(&vmm) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(Image::cached(vmm, &self.inner.cache)?);
        images.insert(vmm, Arc::clone(&image));
        Ok(image)
    }

    /// The disk of the distribution's programs.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn debian(&self) -> Result<PathBuf> {
        let mut known = self.inner.debian.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = &*known {
            return Ok(disk.clone());
        }
        Ok(known.insert(debian::cached(&self.inner.cache)?).clone())
    }

    /// How QEMU runs guests here. Says so once when it emulates.
    ///
    /// # Errors
    /// When QEMU cannot be run at all.
    pub fn accelerator(&self) -> Result<Accelerator> {
        let mut known = self.inner.accelerator.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(accelerator) = &*known {
            return Ok(accelerator.clone());
        }
        let image = self.image(Vmm::Qemu)?;
        let accelerator = Accelerator::proven(&self.inner.cache, &image, &self.inner.run)?;
        if let Accelerator::Tcg(against) = &accelerator {
            eprintln!("lab: QEMU emulates the guests' processor (TCG): KVM is not proven here: {against}");
        }
        Ok(known.insert(accelerator).clone())
    }
}
