//! The side where a VM arrives.

use tokio::task::spawn_blocking;
use tracing::info;
use vamos_proto::id::VmId;

use super::MigrationError;
use super::arrival::Arrival;
use super::departure::Piece;
use crate::platform::{Platform, PlatformError, VmView};
use crate::registry::{BindingRow, Custody, RegistryError, Token, VmRow, Volume};

/// Whether there is anything left to do here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// It may come.
    Expected,
    /// It is here.
    Active,
}

impl Platform {
    /// Makes room for a VM. What came of it before is removed.
    ///
    /// # Errors
    /// [`PlatformError`]: the VM is here, a service of its bindings is something else here.
    pub async fn arrive(
        &self,
        vm: VmRow,
        bindings: Vec<BindingRow>,
        token: Token,
        from: String,
    ) -> Result<Arrived, PlatformError> {
        match self.row(&vm.name).await {
            Ok(VmRow { custody: Custody::Here(Some(known)), .. }) if known == token => {
                return Ok(Arrived::Active);
            }
            Ok(here @ VmRow { custody: Custody::Here(_), .. }) => {
                let now = here.custody;
                return Err(RegistryError::Elsewhere { vm: here.name, now }.into());
            }
            Ok(_) | Err(PlatformError::Registry(RegistryError::Unknown { .. })) => {}
            Err(error) => return Err(error),
        }
        match &vm.volume {
            Volume::Local => {
                let arrival = self.arrival(&vm.name);
                blocking(move || arrival.begin()).await?;
            }
            Volume::Shared(path) if !path.is_dir() => {
                return Err(MigrationError::NoVolume(path.clone()).into());
            }
            Volume::Shared(_) | Volume::Remote => {}
        }
        let custody = Custody::Arriving { token, from };
        self.registry(move |registry| {
            registry.atomically(|registry| {
                let known = (vm.generation, vm.secret);
                registry.arrive_vm(&vm.name, vm.cid, known, &custody)?;
                registry.place_volume(&vm.name, &vm.volume)?;
                registry.arrive_bindings(&vm.name, &bindings)
            })
        })
        .await?;
        Ok(Arrived::Expected)
    }

    /// Takes a piece of the volume.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn import(&self, name: &VmId, token: Token, piece: Piece) -> Result<(), PlatformError> {
        self.arriving(name, token).await?;
        let arrival = self.arrival(name);
        blocking(move || arrival.take(&piece)).await
    }

    /// Everything taken so far is on the disk.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn flush(&self, name: &VmId, token: Token) -> Result<(), PlatformError> {
        self.arriving(name, token).await?;
        if self.row(name).await?.volume != Volume::Local {
            return Ok(());
        }
        let arrival = self.arrival(name);
        blocking(move || arrival.flush()).await
    }

    /// The VM is here from now on. May be repeated.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn activate(&self, name: &VmId, token: Token) -> Result<VmView, PlatformError> {
        let row = self.row(name).await?;
        if row.custody != Custody::Here(Some(token)) {
            self.arriving(name, token).await?;
            if row.volume == Volume::Local {
                let (arrival, uid) = (self.arrival(name), row.uid);
                blocking(move || arrival.complete(uid)).await?;
            }
            self.keep_custody(name, Custody::Here(Some(token))).await?;
            info!(vm = %name, "arrived");
        }
        self.serve(name).await?;
        self.vm(name.clone()).await
    }

    /// Removes what has come of a VM, unless it is here already.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn drop_arrival(&self, name: &VmId, token: Token) -> Result<Arrived, PlatformError> {
        let row = match self.row(name).await {
            Err(PlatformError::Registry(RegistryError::Unknown { .. })) => return Ok(Arrived::Expected),
            row => row?,
        };
        match row.custody {
            Custody::Here(Some(known)) if known == token => return Ok(Arrived::Active),
            Custody::Arriving { token: known, .. } if known == token => {}
            _ => return Ok(Arrived::Expected),
        }
        let arrival = self.arrival(name);
        blocking(move || arrival.discard()).await?;
        if row.declared {
            self.keep_custody(name, Custody::Away { token, to: "another host".to_owned() }).await?;
        } else {
            let name = name.clone();
            self.registry(move |registry| registry.delete_vm(&name, true)).await?;
        }
        Ok(Arrived::Expected)
    }

    async fn arriving(&self, name: &VmId, token: Token) -> Result<(), PlatformError> {
        match self.row(name).await?.custody {
            Custody::Arriving { token: known, .. } if known == token => Ok(()),
            _ => Err(MigrationError::OtherToken(name.clone()).into()),
        }
    }

    fn arrival(&self, name: &VmId) -> Arrival {
        Arrival { incoming: self.directories().arriving(name.as_str()), volume: self.volume_of(name) }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), MigrationError> + Send + 'static,
) -> Result<(), PlatformError> {
    Ok(spawn_blocking(work).await.map_err(|_| PlatformError::Ending)??)
}
