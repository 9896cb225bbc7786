//! Services: a name and a kind.

use rusqlite::{OptionalExtension, params};

use super::{Registry, RegistryError};
use crate::limits::SERVICES_MAX;
use crate::names::{ServiceKind, ServiceName};

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    /// Its name.
    pub name: ServiceName,
    /// Its kind.
    pub kind: ServiceKind,
    /// Whether `vamos.toml` names it.
    pub declared: bool,
}

impl Registry {
    /// Every service, by name.
    ///
    /// # Errors
    /// The database's.
    pub fn services(&self) -> Result<Vec<ServiceRow>, RegistryError> {
        let mut statement =
            self.connection.prepare("SELECT name, kind, declared FROM service ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.map(|row| checked(row?)).collect()
    }

    /// The service called `name`.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when there is none.
    pub fn service(&self, name: &ServiceName) -> Result<ServiceRow, RegistryError> {
        let unknown = || RegistryError::Unknown { kind: "service", name: name.to_string() };
        self.services()?.into_iter().find(|service| service.name == *name).ok_or_else(unknown)
    }

    /// Adds a service.
    ///
    /// # Errors
    /// [`RegistryError::Exists`], [`RegistryError::Full`].
    pub fn register_service(
        &mut self,
        name: &ServiceName,
        kind: ServiceKind,
        declared: bool,
    ) -> Result<ServiceRow, RegistryError> {
        let services = self.services()?;
        if services.len() >= SERVICES_MAX {
            return Err(RegistryError::Full { what: "services", limit: SERVICES_MAX });
        }
        if services.iter().any(|service| service.name == *name) {
            return Err(RegistryError::Exists { kind: "service", name: name.to_string() });
        }
        self.connection.execute(
            "INSERT INTO service VALUES (?, ?, ?)",
            params![name.as_str(), kind.as_str(), declared],
        )?;
        Ok(ServiceRow { name: name.clone(), kind, declared })
    }

    /// Removes a service that no VM is bound to.
    ///
    /// # Errors
    /// [`RegistryError::InUse`], [`RegistryError::Unknown`].
    pub fn remove_service(&mut self, name: &ServiceName) -> Result<(), RegistryError> {
        self.service(name)?;
        let bound: Vec<_> =
            self.bindings(None)?.into_iter().filter(|binding| binding.service == *name).collect();
        if !bound.is_empty() {
            let vms = bound.into_iter().map(|binding| binding.vm.to_string()).collect();
            return Err(RegistryError::InUse { service: name.clone(), vms });
        }
        self.connection.execute("DELETE FROM service WHERE name = ?", [name.as_str()])?;
        Ok(())
    }

    pub(super) fn declare_service(
        &mut self,
        name: &ServiceName,
        kind: ServiceKind,
    ) -> Result<(), RegistryError> {
        let known: Option<String> = self
            .connection
            .query_row("SELECT kind FROM service WHERE name = ?", [name.as_str()], |row| row.get(0))
            .optional()?;
        match known {
            None => self.register_service(name, kind, true).map(drop),
            Some(other) if other != kind.as_str() => {
                Err(RegistryError::OtherKind { service: name.clone(), kind: other })
            }
            Some(_) => {
                self.connection.execute("UPDATE service SET declared = 1 WHERE name = ?", [name.as_str()])?;
                Ok(())
            }
        }
    }
}

fn checked((name, kind, declared): (String, String, bool)) -> Result<ServiceRow, RegistryError> {
    let name = ServiceName::new(name).map_err(|_| RegistryError::Damaged { what: "service name" })?;
    let kind = ServiceKind::new(&kind).map_err(|_| RegistryError::Damaged { what: "kind of service" })?;
    Ok(ServiceRow { name, kind, declared })
}
