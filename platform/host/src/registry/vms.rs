//! VMs: name, context id, and the identity of the cell that serves them.

use std::fmt;

use rusqlite::{OptionalExtension, Row, params};
use vamos_proto::id::{GuestCid, VmId};

use super::custody::{self, Custody};
use super::volumes::{self, Volume};
use super::{Registry, RegistryError};
use crate::limits::VMS_MAX;

/// What a VM's sessions are sealed with; the same as long as its volume lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionSecret(pub [u8; 16]);

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret")
    }
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRow {
    /// Its name.
    pub name: VmId,
    /// Its context id.
    pub cid: GuestCid,
    /// Changes when it is cloned or restored.
    pub generation: u64,
    /// What seals its sessions.
    pub secret: SessionSecret,
    /// Its cell's uid and gid.
    pub uid: u32,
    /// Whether `vamos.toml` names it.
    pub declared: bool,
    /// Whether it is on this host.
    pub custody: Custody,
    /// Where its durable data is.
    pub volume: Volume,
}

const COLUMNS: &str =
    "SELECT vm.name, cid, generation, secret, uid, declared, state, token, peer, class, path
    FROM vm JOIN identity ON identity.vm = vm.name LEFT JOIN migration ON migration.vm = vm.name
    LEFT JOIN volume ON volume.vm = vm.name";

impl Registry {
    /// Every VM, by name.
    ///
    /// # Errors
    /// The database's.
    pub fn vms(&self) -> Result<Vec<VmRow>, RegistryError> {
        let mut statement = self.connection.prepare(&format!("{COLUMNS} ORDER BY vm.name"))?;
        let rows = statement.query_map([], raw)?;
        rows.map(|row| checked(row?)).collect()
    }

    /// The VM called `name`.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when there is none.
    pub fn vm(&self, name: &VmId) -> Result<VmRow, RegistryError> {
        let mut statement = self.connection.prepare(&format!("{COLUMNS} WHERE vm.name = ?"))?;
        let row = statement.query_row([name.as_str()], raw).optional()?;
        checked(row.ok_or_else(|| RegistryError::Unknown { kind: "VM", name: name.to_string() })?)
    }

    /// Adds a VM. Without a `cid` it gets the lowest free one. Its uid is the one its volume had before, if
    /// there was a VM of this name.
    ///
    /// # Errors
    /// [`RegistryError`] when name or context id are taken, or nothing is left to give.
    pub fn create_vm(
        &mut self,
        name: &VmId,
        cid: Option<GuestCid>,
        declared: bool,
    ) -> Result<VmRow, RegistryError> {
        let vms = self.vms()?;
        if vms.len() >= VMS_MAX {
            return Err(RegistryError::Full { what: "VMs", limit: VMS_MAX });
        }
        if vms.iter().any(|vm| vm.name == *name) {
            return Err(RegistryError::Exists { kind: "VM", name: name.to_string() });
        }
        let cid = match cid {
            Some(cid) => cid,
            None => lowest_free(&vms),
        };
        check_cid(cid, name, &vms)?;
        let uid = self.identity_of(name)?;
        let transaction = self.connection.savepoint()?;
        transaction.execute(
            "INSERT INTO identity VALUES (?, ?, 1, randomblob(16)) ON CONFLICT DO NOTHING",
            params![name.as_str(), uid],
        )?;
        transaction
            .execute("INSERT INTO vm VALUES (?, ?, ?)", params![name.as_str(), stored(cid), declared])?;
        transaction.commit()?;
        self.vm(name)
    }

    /// Forgets a VM and its bindings; with `purge` also whose its volume was, which must be gone by then.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when there is none.
    pub fn delete_vm(&mut self, name: &VmId, purge: bool) -> Result<(), RegistryError> {
        let transaction = self.connection.savepoint()?;
        if transaction.execute("DELETE FROM vm WHERE name = ?", [name.as_str()])? == 0 {
            return Err(RegistryError::Unknown { kind: "VM", name: name.to_string() });
        }
        if purge {
            transaction.execute("DELETE FROM identity WHERE vm = ?", [name.as_str()])?;
        }
        Ok(transaction.commit()?)
    }

    pub(super) fn declare_vm(&mut self, name: &VmId, cid: Option<GuestCid>) -> Result<(), RegistryError> {
        let vms = self.vms()?;
        let Some(known) = vms.iter().find(|vm| vm.name == *name) else {
            return self.create_vm(name, cid, true).map(drop);
        };
        let cid = cid.unwrap_or(known.cid);
        check_cid(cid, name, &vms)?;
        self.connection.execute(
            "UPDATE vm SET cid = ?, declared = 1 WHERE name = ?",
            params![stored(cid), name.as_str()],
        )?;
        Ok(())
    }

    fn identity_of(&self, name: &VmId) -> Result<u32, RegistryError> {
        let known =
            self.connection
                .query_row("SELECT uid FROM identity WHERE vm = ?", [name.as_str()], |row| row.get(0));
        if let Some(uid) = known.optional()? {
            return Ok(uid);
        }
        let mut statement = self.connection.prepare("SELECT uid FROM identity")?;
        let taken: Vec<u32> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let range = self.uids.first..self.uids.first.saturating_add(self.uids.count);
        let full = RegistryError::Full { what: "cell identities", limit: self.uids.count as usize };
        range.into_iter().find(|uid| !taken.contains(uid)).ok_or(full)
    }
}

fn lowest_free(vms: &[VmRow]) -> GuestCid {
    let mut cid = GuestCid::FIRST;
    while vms.iter().any(|vm| vm.cid == cid) {
        cid = GuestCid(cid.0 + 1);
    }
    cid
}

fn check_cid(cid: GuestCid, name: &VmId, vms: &[VmRow]) -> Result<(), RegistryError> {
    if cid < GuestCid::FIRST || cid.0 >= u64::from(u32::MAX) {
        return Err(RegistryError::CidReserved(cid));
    }
    match vms.iter().find(|vm| vm.cid == cid && vm.name != *name) {
        Some(holder) => Err(RegistryError::CidTaken { cid, holder: holder.name.clone() }),
        None => Ok(()),
    }
}

/// Context ids have 32 bits, so the column's 63 hold them.
fn stored(cid: GuestCid) -> i64 {
    cid.0 as i64
}

type Raw = (String, i64, i64, Vec<u8>, u32, bool, custody::Raw, (Option<String>, Option<String>));

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    let custody = (row.get(6)?, row.get(7)?, row.get(8)?);
    let volume = (row.get(9)?, row.get(10)?);
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, custody, volume))
}

fn checked(
    (name, cid, generation, secret, uid, declared, custody, volume): Raw,
) -> Result<VmRow, RegistryError> {
    let name = VmId::new(name).map_err(|_| RegistryError::Damaged { what: "VM name" })?;
    let unsigned = |number: i64, what| u64::try_from(number).map_err(|_| RegistryError::Damaged { what });
    let (cid, generation) = (GuestCid(unsigned(cid, "cid")?), unsigned(generation, "generation")?);
    let secret = secret.try_into().map_err(|_| RegistryError::Damaged { what: "session secret" })?;
    let (custody, volume) = (custody::checked(custody)?, volumes::checked(volume)?);
    Ok(VmRow { name, cid, generation, secret: SessionSecret(secret), uid, declared, custody, volume })
}
