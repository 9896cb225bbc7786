//! Making the registry agree with `vamos.toml`: what the file names exists as the file says; what it named
//! before and no longer names is forgotten; what was created over gRPC is left alone. Volumes are never removed.

use std::fs;
use std::path::Path;

use super::bindings::Terms;
use super::{CertificateRow, Registry, RegistryError};
use crate::config::Config;

impl Registry {
    /// Reconciles, all or nothing.
    ///
    /// # Errors
    /// [`RegistryError`], such as a declared context id that a VM created over gRPC has.
    pub fn reconcile(&mut self, config: &Config) -> Result<(), RegistryError> {
        self.atomically(|registry| registry.apply(config))
    }

    fn apply(&mut self, config: &Config) -> Result<(), RegistryError> {
        self.forget_undeclared(config)?;
        for service in &config.services {
            self.declare_service(&service.name, service.kind)?;
        }
        for vm in &config.vms {
            self.declare_vm(&vm.name, vm.cid)?;
            self.place_volume(&vm.name, &vm.volume)?;
        }
        for binding in &config.bindings {
            let terms = Terms { door: binding.door.clone(), policy: binding.policy, quota: binding.quota };
            self.bind(&binding.vm, &binding.service, &terms, true)?;
        }
        for route in &config.routes {
            self.set_route(route, true)?;
        }
        for certificate in &config.certificates {
            let read = |path: &Path| {
                let path = path.to_owned();
                fs::read(&path).map_err(|source| RegistryError::Unreadable { path, source })
            };
            let (chain, key) = (read(&certificate.certificate)?, read(&certificate.key)?);
            self.set_certificate(&CertificateRow {
                name: certificate.name.clone(),
                chain,
                key,
                declared: true,
            })?;
        }
        Ok(())
    }

    fn forget_undeclared(&mut self, config: &Config) -> Result<(), RegistryError> {
        for row in self.routes()?.into_iter().filter(|row| row.declared) {
            let (host, prefix) = (&row.route.host, &row.route.prefix);
            if !config.routes.iter().any(|named| named.host == *host && named.prefix == *prefix) {
                self.remove_route(host, prefix)?;
            }
        }
        for row in self.certificates()?.into_iter().filter(|row| row.declared) {
            if !config.certificates.iter().any(|named| named.name == row.name) {
                self.remove_certificate(&row.name)?;
            }
        }
        for row in self.bindings(None)?.into_iter().filter(|row| row.declared) {
            if !config.bindings.iter().any(|named| named.vm == row.vm && named.service == row.service) {
                self.unbind(&row.vm, &row.service)?;
            }
        }
        for row in self.vms()?.into_iter().filter(|row| row.declared) {
            if !config.vms.iter().any(|named| named.name == row.name) {
                self.delete_vm(&row.name, false)?;
            }
        }
        for row in self.services()?.into_iter().filter(|row| row.declared) {
            let named = config.services.iter().any(|named| named.name == row.name);
            let bound = self.bindings(None)?.iter().any(|binding| binding.service == row.name);
            if !named && bound {
                // Someone bound it over gRPC: it is no longer the file's to remove.
                self.connection
                    .execute("UPDATE service SET declared = 0 WHERE name = ?", [row.name.as_str()])?;
            } else if !named {
                self.remove_service(&row.name)?;
            }
        }
        Ok(())
    }
}
