//! A `sql` binding's service: its engine and its policy, from the operator's words.

use std::fs;
use std::io;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use vamos_proto::cell::Binding;
use vamos_service::Service;
use vamos_service::metered::Metered;
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{DatabaseFiles, Fence, GiveUp, OpenError, SqliteConfig, SqliteEngine};

/// What makes sessions this VM's.
#[derive(Clone, Copy)]
pub(crate) struct Sessions {
    /// Sessions of another generation are refused.
    pub(crate) generation: u64,
    /// Seals them.
    pub(crate) secret: [u8; 16],
}

/// A binding that can be served.
pub(crate) struct Opened {
    pub(crate) service: Arc<dyn Service>,
    /// Of its database.
    pub(crate) files: DatabaseFiles,
}

/// Opens the binding's database in the volume. Blocks.
///
/// # Errors
/// The database cannot be opened; says which and why.
pub(crate) fn open(
    volume: &Path,
    binding: &Binding,
    vm: Sessions,
    fence: Fence,
) -> Result<Opened, OpenError> {
    let config = SqliteConfig { fence, ..engine_config(binding) };
    let engine = SqliteEngine::open(volume, &binding.name, config)?;
    let files = engine.files();
    let service = Arc::new(SqlService::new(engine, service_config(binding, vm)));
    let service: Arc<dyn Service> = match binding.quota.unwrap_or_default().bytes_per_second {
        0 => service,
        bytes_per_second => Arc::new(Metered::new(service, bytes_per_second)),
    };
    Ok(Opened { service, files })
}

/// Removes the binding's database for good.
///
/// # Errors
/// A file that cannot be removed; none that is not there.
pub(crate) fn purge(volume: &Path, name: &str) -> io::Result<()> {
    for suffix in ["-shm", "-wal", ""] {
        match fs::remove_file(volume.join(format!("{name}.db{suffix}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::File::open(volume)?.sync_all()
}

fn engine_config(binding: &Binding) -> SqliteConfig {
    let policy = binding.policy.unwrap_or_default();
    let quota = binding.quota.unwrap_or_default();
    let default = SqliteConfig::default();
    SqliteConfig {
        database_bytes_max: unless_zero(quota.max_bytes, default.database_bytes_max),
        statement_deadline: milliseconds(policy.statement_timeout_ms, default.statement_deadline),
        idle_in_transaction_max: milliseconds(
            policy.idle_in_transaction_timeout_ms,
            default.idle_in_transaction_max,
        ),
        read_only: policy.read_only,
        give_up: GiveUp::new(|reason| {
            // A thread that cannot be interrupted would hold its statement, and the lane behind it, for ever,
            // and a failed fsync cannot be repeated: vamosd starts the next cell, which recovers from the log,
            // and nothing acknowledged is lost.
            tracing::error!(reason, "the cell gives itself up");
            process::abort();
        }),
        ..default
    }
}

fn service_config(binding: &Binding, vm: Sessions) -> SqlConfig {
    let quota = binding.quota.unwrap_or_default();
    let default = SqlConfig::default();
    SqlConfig {
        database: binding.name.clone(),
        sessions_max: unless_zero(quota.max_sessions as usize, default.sessions_max),
        epoch: vm.generation,
        secret: vm.secret,
        operations_per_second: Some(quota.ops_per_second).filter(|&operations| operations > 0),
        ..default
    }
}

/// A zero is the platform's default, as `policy.proto` says.
fn unless_zero<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

fn milliseconds(value: u64, default: Duration) -> Duration {
    if value == 0 { default } else { Duration::from_millis(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vamos_proto::policy::{Policy, Quota};

    #[test]
    fn the_operators_words_reach_the_engine_and_the_service() {
        let binding = Binding {
            name: "app".into(),
            policy: Some(Policy {
                read_only: true,
                statement_timeout_ms: 7,
                idle_in_transaction_timeout_ms: 0,
            }),
            quota: Some(Quota {
                max_bytes: 1 << 20,
                max_sessions: 3,
                ops_per_second: 9,
                bytes_per_second: 0,
            }),
            ..Binding::default()
        };
        let engine = engine_config(&binding);
        assert_eq!(engine.statement_deadline, Duration::from_millis(7));
        assert_eq!(engine.idle_in_transaction_max, SqliteConfig::default().idle_in_transaction_max);
        assert_eq!((engine.database_bytes_max, engine.read_only), (1 << 20, true));
        let vm = Sessions { generation: 3, secret: [5; 16] };
        let service = service_config(&binding, vm);
        assert_eq!((service.epoch, service.secret), (3, [5; 16]));
        assert_eq!((service.sessions_max, service.operations_per_second), (3, Some(9)));
        assert_eq!(service_config(&Binding::default(), vm).operations_per_second, None);
    }

    #[test]
    fn a_purge_removes_the_database_and_nothing_else() {
        let volume = tempfile::tempdir().unwrap();
        for name in ["app.db", "app.db-wal", "app2.db"] {
            fs::write(volume.path().join(name), b"x").unwrap();
        }
        purge(volume.path(), "app").unwrap();
        let left: Vec<_> = fs::read_dir(volume.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["app2.db"]);
    }
}
