//! Which host has a VM: what each step of a migration leaves behind, before anything acts on it.

use std::fmt;

use rusqlite::params;
use vamos_proto::id::{GuestCid, VmId};

use super::vms::SessionSecret;
use super::{Registry, RegistryError, VmRow};

/// Names one migration of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

/// Whether a VM is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Custody {
    /// It is; how it came here, if it did not begin here.
    Here(Option<Token>),
    /// It is on its way here, and not served yet.
    Arriving {
        /// The migration.
        token: Token,
        /// Where from.
        from: String,
    },
    /// It is frozen here, or has left.
    Away {
        /// The migration.
        token: Token,
        /// Where to.
        to: String,
    },
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(_) => f.write_str("on this host"),
            Self::Arriving { from, .. } => write!(f, "arriving from {from}, and not served here yet"),
            Self::Away { to, .. } => write!(f, "away: it left for {to}, and is not served here"),
        }
    }
}

/// As the columns have it.
pub(super) type Raw = (Option<String>, Option<Vec<u8>>, Option<String>);

pub(super) fn checked((state, token, peer): Raw) -> Result<Custody, RegistryError> {
    let damaged = || RegistryError::Damaged { what: "migration" };
    let Some(state) = state else { return Ok(Custody::Here(None)) };
    let token = token.and_then(|token| token.try_into().ok()).map(Token).ok_or_else(damaged)?;
    let peer = peer.unwrap_or_default();
    match state.as_str() {
        "away" => Ok(Custody::Away { token, to: peer }),
        "arriving" => Ok(Custody::Arriving { token, from: peer }),
        "arrived" => Ok(Custody::Here(Some(token))),
        _ => Err(damaged()),
    }
}

impl Registry {
    /// A token that no other migration has.
    ///
    /// # Errors
    /// The database's.
    pub fn mint(&self) -> Result<Token, RegistryError> {
        Ok(Token(self.connection.query_row("SELECT randomblob(16)", [], |row| row.get(0))?))
    }

    /// Writes down where a VM is.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when there is no such VM.
    pub fn keep_custody(&mut self, vm: &VmId, custody: &Custody) -> Result<(), RegistryError> {
        self.vm(vm)?;
        let (state, token, peer) = match custody {
            Custody::Here(None) => {
                self.connection.execute("DELETE FROM migration WHERE vm = ?", [vm.as_str()])?;
                return Ok(());
            }
            Custody::Here(Some(token)) => ("arrived", token, ""),
            Custody::Arriving { token, from } => ("arriving", token, from.as_str()),
            Custody::Away { token, to } => ("away", token, to.as_str()),
        };
        self.connection.execute(
            "INSERT OR REPLACE INTO migration VALUES (?, ?, ?, ?)",
            params![vm.as_str(), state, token.0.as_slice(), peer],
        )?;
        Ok(())
    }

    /// Adds a VM that arrives, with what is known of it elsewhere. One that has left this host may come back, and one
    /// that was arriving arrives anew. It gets the context id it had, unless that is another's here.
    ///
    /// # Errors
    /// [`RegistryError::Elsewhere`] when it is on this host.
    pub fn arrive_vm(
        &mut self,
        name: &VmId,
        cid: GuestCid,
        (generation, secret): (u64, SessionSecret),
        custody: &Custody,
    ) -> Result<VmRow, RegistryError> {
        let known = self.vms()?;
        match known.iter().find(|vm| vm.name == *name).map(|vm| &vm.custody) {
            Some(now @ Custody::Here(_)) => {
                return Err(RegistryError::Elsewhere { vm: name.clone(), now: now.clone() });
            }
            Some(_) => {}
            None => {
                let free = known.iter().all(|vm| vm.cid != cid);
                self.create_vm(name, free.then_some(cid), false)?;
            }
        }
        self.connection.execute(
            "UPDATE identity SET generation = ?, secret = ? WHERE vm = ?",
            params![generation.cast_signed(), secret.0.as_slice(), name.as_str()],
        )?;
        self.keep_custody(name, custody)?;
        self.vm(name)
    }

    /// All or nothing.
    ///
    /// # Errors
    /// What `work` says.
    pub fn atomically<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        self.connection.execute_batch("SAVEPOINT atomically")?;
        let result = work(self);
        let end =
            if result.is_ok() { "RELEASE atomically" } else { "ROLLBACK TO atomically; RELEASE atomically" };
        self.connection.execute_batch(end)?;
        result
    }
}
