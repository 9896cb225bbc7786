//! Snapshots of volumes, and which VM's volume is to be made from one.

use rusqlite::{OptionalExtension, params};
use vamos_proto::id::VmId;

use super::{Registry, RegistryError, VmRow};
use crate::limits::SNAPSHOTS_PER_VM_MAX;
use crate::names::SnapshotName;

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Whose.
    pub vm: VmId,
    /// Its name.
    pub name: SnapshotName,
    /// The VM's generation when it was taken.
    pub generation: u64,
    /// When, in seconds since 1970.
    pub taken: u64,
}

/// What a VM's volume is to be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// Whose snapshot.
    pub source: VmId,
    /// Which.
    pub snapshot: SnapshotName,
}

impl Registry {
    /// A VM's snapshots, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub fn snapshots(&self, vm: &VmId) -> Result<Vec<SnapshotRow>, RegistryError> {
        let sql = "SELECT name, generation, taken FROM snapshot WHERE vm = ? ORDER BY taken, name";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([vm.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        let checked = rows.map(|row| {
            let (name, generation, taken) = row?;
            let name =
                SnapshotName::new(name).map_err(|_| RegistryError::Damaged { what: "snapshot's name" })?;
            let (generation, taken) = (generation.cast_unsigned(), taken.cast_unsigned());
            Ok(SnapshotRow { vm: vm.clone(), name, generation, taken })
        });
        checked.collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when there is none.
    pub fn snapshot(&self, vm: &VmId, name: &SnapshotName) -> Result<SnapshotRow, RegistryError> {
        let unknown = || RegistryError::Unknown { kind: "snapshot", name: format!("{name} of VM {vm}") };
        self.snapshots(vm)?.into_iter().find(|row| row.name == *name).ok_or_else(unknown)
    }

    /// Whether another snapshot can be taken under this name.
    ///
    /// # Errors
    /// [`RegistryError::Exists`], [`RegistryError::Full`].
    pub fn may_take(&self, vm: &VmId, name: &SnapshotName) -> Result<(), RegistryError> {
        let taken = self.snapshots(vm)?;
        if taken.iter().any(|row| row.name == *name) {
            return Err(RegistryError::Exists { kind: "snapshot", name: format!("{name} of VM {vm}") });
        }
        if taken.len() >= SNAPSHOTS_PER_VM_MAX {
            return Err(RegistryError::Full { what: "snapshots of this VM", limit: SNAPSHOTS_PER_VM_MAX });
        }
        Ok(())
    }

    /// Notes a snapshot that is whole.
    ///
    /// # Errors
    /// As [`Registry::may_take`].
    pub fn add_snapshot(&mut self, row: &SnapshotRow) -> Result<(), RegistryError> {
        self.may_take(&row.vm, &row.name)?;
        let (generation, taken) = (row.generation.cast_signed(), row.taken.cast_signed());
        self.connection.execute(
            "INSERT INTO snapshot VALUES (?, ?, ?, ?)",
            params![row.vm.as_str(), row.name.as_str(), generation, taken],
        )?;
        Ok(())
    }

    /// Forgets a snapshot; its files are removed next.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Wanted`].
    pub fn remove_snapshot(&mut self, vm: &VmId, name: &SnapshotName) -> Result<(), RegistryError> {
        self.snapshot(vm, name)?;
        let wanted = self.connection.query_row(
            "SELECT count(*) > 0 FROM restoration WHERE source = ? AND snapshot = ?",
            [vm.as_str(), name.as_str()],
            |row| row.get(0),
        )?;
        if wanted {
            return Err(RegistryError::Wanted { vm: vm.clone(), snapshot: name.clone() });
        }
        self.connection
            .execute("DELETE FROM snapshot WHERE vm = ? AND name = ?", [vm.as_str(), name.as_str()])?;
        Ok(())
    }

    /// From now on the VM is another one: its volume is to be made from a snapshot before it has another cell, and
    /// sessions of before are refused.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn begin_restoration(&mut self, vm: &VmId, from: &Restoration) -> Result<VmRow, RegistryError> {
        self.snapshot(&from.source, &from.snapshot)?;
        self.atomically(|registry| {
            registry.connection.execute(
                "INSERT OR REPLACE INTO restoration VALUES (?, ?, ?)",
                [vm.as_str(), from.source.as_str(), from.snapshot.as_str()],
            )?;
            registry
                .connection
                .execute("UPDATE identity SET generation = generation + 1 WHERE vm = ?", [vm.as_str()])?;
            registry.vm(vm)
        })
    }

    /// What the VM's volume is still to be made from.
    ///
    /// # Errors
    /// The database's.
    pub fn restoration(&self, vm: &VmId) -> Result<Option<Restoration>, RegistryError> {
        let sql = "SELECT source, snapshot FROM restoration WHERE vm = ?";
        let row = self
            .connection
            .query_row(sql, [vm.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        let Some((source, snapshot)) = row.optional()? else { return Ok(None) };
        let source = VmId::new(source).map_err(|_| RegistryError::Damaged { what: "VM name" })?;
        let snapshot =
            SnapshotName::new(snapshot).map_err(|_| RegistryError::Damaged { what: "snapshot's name" })?;
        Ok(Some(Restoration { source, snapshot }))
    }

    /// The volume has been made.
    ///
    /// # Errors
    /// The database's.
    pub fn end_restoration(&mut self, vm: &VmId) -> Result<(), RegistryError> {
        self.connection.execute("DELETE FROM restoration WHERE vm = ?", [vm.as_str()])?;
        Ok(())
    }

    /// Adds a VM whose volume is to be made from a snapshot, with the bindings of the snapshot's VM.
    ///
    /// # Errors
    /// As [`Registry::create_vm`].
    pub fn clone_vm(&mut self, new: &VmId, from: &Restoration) -> Result<VmRow, RegistryError> {
        self.snapshot(&from.source, &from.snapshot)?;
        let bindings = self.bindings(Some(&from.source))?;
        self.atomically(|registry| {
            registry.create_vm(new, None, false)?;
            registry.arrive_bindings(new, &bindings)?;
            registry.begin_restoration(new, from)
        })
    }
}
