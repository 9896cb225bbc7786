//! What the edge serves: routes and certificates.

use prost::Message;
use rusqlite::params;
use vamos_proto::edge::Route;

use super::{Registry, RegistryError};
use crate::limits::{CERTIFICATES_MAX, ROUTES_MAX};

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRow {
    /// The route.
    pub route: Route,
    /// Whether `vamos.toml` names it.
    pub declared: bool,
}

/// One certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Its name for operators.
    pub name: String,
    /// Its chain, PEM.
    pub chain: Vec<u8>,
    /// Its key, PEM.
    pub key: Vec<u8>,
    /// Whether `vamos.toml` names it.
    pub declared: bool,
}

impl std::fmt::Debug for CertificateRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRow").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Registry {
    /// Every route, by host and prefix.
    ///
    /// # Errors
    /// The database's.
    pub fn routes(&self) -> Result<Vec<RouteRow>, RegistryError> {
        let sql = "SELECT terms, declared FROM route ORDER BY host, prefix";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (terms, declared) = row?;
            let route = Route::decode(&*terms).map_err(|_| RegistryError::Damaged { what: "route" })?;
            Ok(RouteRow { route, declared })
        })
        .collect()
    }

    /// Adds a route, or changes the one of its host and prefix.
    ///
    /// # Errors
    /// [`RegistryError::Full`].
    pub fn set_route(&mut self, route: &Route, declared: bool) -> Result<(), RegistryError> {
        self.connection.execute(
            "INSERT INTO route VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET terms = excluded.terms, declared = excluded.declared",
            params![route.host, route.prefix, route.encode_to_vec(), declared],
        )?;
        self.no_more_than("route", "routes", ROUTES_MAX)
    }

    /// Removes a route.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn remove_route(&mut self, host: &str, prefix: &str) -> Result<(), RegistryError> {
        let sql = "DELETE FROM route WHERE host = ? AND prefix = ?";
        match self.connection.execute(sql, [host, prefix])? {
            0 => Err(RegistryError::Unknown { kind: "route", name: format!("{host}{prefix}") }),
            _ => Ok(()),
        }
    }

    /// Every certificate, by name.
    ///
    /// # Errors
    /// The database's.
    pub fn certificates(&self) -> Result<Vec<CertificateRow>, RegistryError> {
        let mut statement =
            self.connection.prepare("SELECT name, chain, key, declared FROM certificate ORDER BY name")?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok(CertificateRow {
                name: row.get(0)?,
                chain: row.get(1)?,
                key: row.get(2)?,
                declared: row.get(3)?,
            })
        };
        Ok(statement.query_map([], row)?.collect::<Result<_, _>>()?)
    }

    /// Adds a certificate, or replaces the one of its name.
    ///
    /// # Errors
    /// [`RegistryError::Full`].
    pub fn set_certificate(&mut self, row: &CertificateRow) -> Result<(), RegistryError> {
        self.connection.execute(
            "INSERT INTO certificate VALUES (?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET chain = excluded.chain, key = excluded.key, declared = excluded.declared",
            params![row.name, row.chain, row.key, row.declared],
        )?;
        self.no_more_than("certificate", "certificates", CERTIFICATES_MAX)
    }

    /// Removes a certificate.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn remove_certificate(&mut self, name: &str) -> Result<(), RegistryError> {
        match self.connection.execute("DELETE FROM certificate WHERE name = ?", [name])? {
            0 => Err(RegistryError::Unknown { kind: "certificate", name: name.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Makes these all there is.
    ///
    /// # Errors
    /// The database's.
    pub fn publish_only(
        &mut self,
        routes: &[RouteRow],
        certificates: &[CertificateRow],
    ) -> Result<(), RegistryError> {
        self.connection.execute_batch("DELETE FROM route; DELETE FROM certificate")?;
        routes.iter().try_for_each(|row| self.set_route(&row.route, row.declared))?;
        certificates.iter().try_for_each(|row| self.set_certificate(row))
    }

    /// Checked afterwards: what is too much is rolled back with the transaction it is part of.
    fn no_more_than(&self, table: &str, what: &'static str, limit: usize) -> Result<(), RegistryError> {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
        if usize::try_from(count).is_ok_and(|count| count > limit) {
            Err(RegistryError::Full { what, limit })
        } else {
            Ok(())
        }
    }
}
