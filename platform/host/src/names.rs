//! Names an operator gives, checked once where they come in.

use std::fmt;

/// Name of a service, and of the database that clients connect to: 1 to 63 of `a-z 0-9 _ -`, starting
/// with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

/// A text that is not a name, or not a kind, of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a name.
    #[error("{0:?} is not a service name: use 1 to 63 of a-z, 0-9, '_' and '-', starting with a letter")]
    Name(String),
    /// Not a snapshot's name.
    #[error(
        "{0:?} is not a snapshot's name: use 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-', starting with a letter or digit"
    )]
    Snapshot(String),
    /// Not a kind.
    #[error("{0:?} is not a kind of service: this build has \"sql\" and \"http\"")]
    Kind(String),
}

impl ServiceName {
    /// Checks `name` and makes it one.
    ///
    /// # Errors
    /// [`NameError::Name`].
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        if starts_well && name.len() <= 63 && name.chars().all(allowed) {
            Ok(Self(name))
        } else {
            Err(NameError::Name(name))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a snapshot, which the VM's own snapshot has, too: 1 to 63 of `a-z A-Z 0-9 . _ -`, starting with a letter or
/// digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// Checks `name` and makes it one.
    ///
    /// # Errors
    /// [`NameError::Snapshot`].
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && name.len() <= 63 && name.chars().all(allowed) {
            Ok(Self(name))
        } else {
            Err(NameError::Snapshot(name))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// SQL, executed by an engine in the cell.
    Sql,
    /// HTTP, served by the guest behind the edge.
    Http,
}

impl ServiceKind {
    /// Reads a kind's name.
    ///
    /// # Errors
    /// [`NameError::Kind`].
    pub fn new(kind: &str) -> Result<Self, NameError> {
        match kind {
            "sql" => Ok(Self::Sql),
            "http" => Ok(Self::Http),
            other => Err(NameError::Kind(other.into())),
        }
    }

    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Http => "http",
        }
    }
}
