//! Where VMs' volumes are.

use std::path::PathBuf;

use rusqlite::params;
use vamos_proto::id::VmId;

use super::{Registry, RegistryError};

/// Where a VM's durable data is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Volume {
    /// In a directory of this host, which is shipped when the VM moves.
    #[default]
    Local,
    /// In a directory that is the same on every host that may run the VM, under a lease.
    Shared(PathBuf),
    /// On servers that services speak to; nothing is in the volume.
    Remote,
}

impl Volume {
    /// Reads a class and its path.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(class: &str, path: &str) -> Result<Self, String> {
        let path = PathBuf::from(path);
        match class {
            "" | "local" | "remote" if !path.as_os_str().is_empty() => {
                Err(format!("a path, {}, is only given for a volume of class \"shared\"", path.display()))
            }
            "" | "local" => Ok(Self::Local),
            "remote" => Ok(Self::Remote),
            "shared" if !path.is_absolute() => Err(format!(
                "a volume of class \"shared\" needs an absolute path that is the same on every host, not {:?}",
                path.display().to_string()
            )),
            "shared" => Ok(Self::Shared(path)),
            other => Err(format!("{other:?} is no class of volume: use \"local\", \"shared\" or \"remote\"")),
        }
    }

    /// Its class's name.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Shared(_) => "shared",
            Self::Remote => "remote",
        }
    }

    /// Its path, if it has one of its own.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Shared(path) => Some(path),
            Self::Local | Self::Remote => None,
        }
    }
}

/// As the columns have it; no row is a local volume.
pub(super) fn checked((class, path): (Option<String>, Option<String>)) -> Result<Volume, RegistryError> {
    Volume::new(&class.unwrap_or_default(), &path.unwrap_or_default())
        .map_err(|_| RegistryError::Damaged { what: "volume" })
}

impl Registry {
    /// Where a VM's volume is to be. One that is somewhere already stays there.
    ///
    /// # Errors
    /// [`RegistryError::VolumeElsewhere`], [`RegistryError::Unknown`].
    pub fn place_volume(&mut self, vm: &VmId, volume: &Volume) -> Result<(), RegistryError> {
        let placed = self.connection.query_row(
            "SELECT count(*) > 0 FROM volume WHERE vm = ?",
            [vm.as_str()],
            |row| row.get::<_, bool>(0),
        )?;
        let known = self.vm(vm)?.volume;
        if known == *volume && placed {
            return Ok(());
        }
        if placed {
            return Err(RegistryError::VolumeElsewhere { vm: vm.clone(), known, wanted: volume.clone() });
        }
        let path = volume.path().map(|path| path.display().to_string()).unwrap_or_default();
        self.connection
            .execute("INSERT INTO volume VALUES (?, ?, ?)", params![vm.as_str(), volume.class(), path])?;
        Ok(())
    }
}
