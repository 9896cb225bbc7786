//! Bindings: which VM may use which service, on which port, and how.

use std::collections::BTreeMap;

use prost::Message;
use rusqlite::{Row, params};
use vamos_proto::id::{VmId, VsockPort};
use vamos_proto::policy::{Policy, Quota};

use super::{Registry, RegistryError, Volume};
use crate::limits::BINDINGS_PER_VM_MAX;
use crate::names::{ServiceKind, ServiceName};

/// One binding.
#[derive(Debug, Clone, PartialEq)]
pub struct BindingRow {
    /// Which VM.
    pub vm: VmId,
    /// Which service.
    pub service: ServiceName,
    /// The service's kind.
    pub kind: ServiceKind,
    /// The vsock port it answers on.
    pub port: VsockPort,
    /// Settings of the front door in the guest.
    pub door: BTreeMap<String, String>,
    /// What is allowed.
    pub policy: Policy,
    /// How much.
    pub quota: Quota,
    /// Whether `vamos.toml` names it.
    pub declared: bool,
}

/// What an operator says of a binding.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Terms {
    /// Settings of the front door in the guest.
    pub door: BTreeMap<String, String>,
    /// What is allowed.
    pub policy: Policy,
    /// How much.
    pub quota: Quota,
}

const COLUMNS: &str = "SELECT vm, service, kind, port, door, policy, quota, binding.declared
    FROM binding JOIN service ON service.name = binding.service";

impl Registry {
    /// Every binding, or those of one VM; by VM and port.
    ///
    /// # Errors
    /// The database's.
    pub fn bindings(&self, vm: Option<&VmId>) -> Result<Vec<BindingRow>, RegistryError> {
        let sql = format!("{COLUMNS} WHERE ?1 IS NULL OR vm = ?1 ORDER BY vm, port");
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map([vm.map(VmId::as_str)], raw)?;
        rows.map(|row| checked(row?)).collect()
    }

    /// Binds a service to a VM, or changes the terms; the port stays what it was.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Full`].
    pub fn bind(
        &mut self,
        vm: &VmId,
        service: &ServiceName,
        terms: &Terms,
        declared: bool,
    ) -> Result<BindingRow, RegistryError> {
        self.bind_on(None, vm, service, terms, declared)
    }

    /// Binds what a VM that arrives brings along, and nothing else: on the ports its agent knows, with services of
    /// these names registered if they are not.
    ///
    /// # Errors
    /// [`RegistryError::OtherKind`] when a service's name means something else here.
    pub fn arrive_bindings(&mut self, vm: &VmId, brought: &[BindingRow]) -> Result<(), RegistryError> {
        for bound in self.bindings(Some(vm))? {
            self.unbind(vm, &bound.service)?;
        }
        for binding in brought {
            let BindingRow { service, kind, port, door, policy, quota, .. } = binding;
            match self.service(service) {
                Err(RegistryError::Unknown { .. }) => drop(self.register_service(service, *kind, false)?),
                Err(error) => return Err(error),
                Ok(known) if known.kind == *kind => {}
                Ok(known) => {
                    let kind = known.kind.as_str().into();
                    return Err(RegistryError::OtherKind { service: service.clone(), kind });
                }
            }
            let terms = Terms { door: door.clone(), policy: *policy, quota: *quota };
            self.bind_on(Some(*port), vm, service, &terms, false)?;
        }
        Ok(())
    }

    fn bind_on(
        &mut self,
        port: Option<VsockPort>,
        vm: &VmId,
        service: &ServiceName,
        terms: &Terms,
        declared: bool,
    ) -> Result<BindingRow, RegistryError> {
        let kind = self.service(service)?.kind;
        if self.vm(vm)?.volume == Volume::Remote && kind == ServiceKind::Sql {
            return Err(RegistryError::NothingInVolume { vm: vm.clone(), service: service.clone() });
        }
        let bound = self.bindings(Some(vm))?;
        let known = bound.iter().find(|binding| binding.service == *service);
        if known.is_none() && bound.len() >= BINDINGS_PER_VM_MAX {
            return Err(RegistryError::Full { what: "bindings of this VM", limit: BINDINGS_PER_VM_MAX });
        }
        let port = known.map(|binding| binding.port).or(port).unwrap_or_else(|| lowest_free(&bound));
        let declared = declared || known.is_some_and(|binding| binding.declared);
        let door = serde_json::to_string(&terms.door).map_err(|_| RegistryError::Damaged { what: "door" })?;
        self.connection.execute(
            "INSERT OR REPLACE INTO binding VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                vm.as_str(),
                service.as_str(),
                port.0,
                declared,
                door,
                terms.policy.encode_to_vec(),
                terms.quota.encode_to_vec()
            ],
        )?;
        self.binding(vm, service)
    }

    /// Ends a binding. Its data stays in the volume.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when there is none.
    pub fn unbind(&mut self, vm: &VmId, service: &ServiceName) -> Result<(), RegistryError> {
        let gone = self
            .connection
            .execute("DELETE FROM binding WHERE vm = ? AND service = ?", [vm.as_str(), service.as_str()])?;
        if gone == 0 { Err(unknown(vm, service)) } else { Ok(()) }
    }

    fn binding(&self, vm: &VmId, service: &ServiceName) -> Result<BindingRow, RegistryError> {
        let bound = self.bindings(Some(vm))?;
        bound.into_iter().find(|binding| binding.service == *service).ok_or_else(|| unknown(vm, service))
    }
}

fn unknown(vm: &VmId, service: &ServiceName) -> RegistryError {
    RegistryError::Unknown { kind: "binding", name: format!("of {vm} to {service}") }
}

fn lowest_free(bound: &[BindingRow]) -> VsockPort {
    let mut port = VsockPort::FIRST_BINDING;
    while bound.iter().any(|binding| binding.port == port) {
        port = VsockPort(port.0 + 1);
    }
    port
}

type Raw = (String, String, String, u32, String, Vec<u8>, Vec<u8>, bool);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
    ))
}

fn checked(
    (vm, service, kind, port, door, policy, quota, declared): Raw,
) -> Result<BindingRow, RegistryError> {
    let damaged = |what| move || RegistryError::Damaged { what };
    Ok(BindingRow {
        vm: VmId::new(vm).ok().ok_or_else(damaged("VM name"))?,
        service: ServiceName::new(service).ok().ok_or_else(damaged("service name"))?,
        kind: ServiceKind::new(&kind).ok().ok_or_else(damaged("kind of service"))?,
        port: VsockPort(port),
        door: serde_json::from_str(&door).ok().ok_or_else(damaged("door"))?,
        policy: Policy::decode(policy.as_slice()).ok().ok_or_else(damaged("policy"))?,
        quota: Quota::decode(quota.as_slice()).ok().ok_or_else(damaged("quota"))?,
        declared,
    })
}
