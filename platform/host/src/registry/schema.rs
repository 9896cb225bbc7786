//! The registry's tables and the fence against files of another program or a newer version.

use rusqlite::Connection;

use super::RegistryError;

/// Marks the file as ours (`PRAGMA application_id`): "VAMO".
const APPLICATION: i32 = 0x5641_4d4f;

/// Version of the tables below; raised with each change, together with a migration.
const VERSION: i32 = 2;

const TABLES: &str = "
CREATE TABLE service (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    declared INTEGER NOT NULL
) STRICT;
CREATE TABLE vm (
    name TEXT PRIMARY KEY,
    cid INTEGER NOT NULL UNIQUE,
    declared INTEGER NOT NULL
) STRICT;
-- Whose files a volume's are. Outlives the VM, as its volume does.
CREATE TABLE identity (
    vm TEXT PRIMARY KEY,
    uid INTEGER NOT NULL UNIQUE,
    generation INTEGER NOT NULL,
    -- Seals its sessions, so that another VM's are not taken for its own.
    secret BLOB NOT NULL
) STRICT;
CREATE TABLE binding (
    vm TEXT NOT NULL REFERENCES vm (name) ON DELETE CASCADE,
    service TEXT NOT NULL REFERENCES service (name),
    port INTEGER NOT NULL,
    declared INTEGER NOT NULL,
    door TEXT NOT NULL,
    policy BLOB NOT NULL,
    quota BLOB NOT NULL,
    PRIMARY KEY (vm, service),
    UNIQUE (vm, port)
) STRICT;
";

/// From version 1.
const SECRETS: &str = "
CREATE TABLE identity_2 (
    vm TEXT PRIMARY KEY,
    uid INTEGER NOT NULL UNIQUE,
    generation INTEGER NOT NULL,
    secret BLOB NOT NULL
) STRICT;
INSERT INTO identity_2 SELECT vm, uid, generation, randomblob(16) FROM identity;
DROP TABLE identity;
ALTER TABLE identity_2 RENAME TO identity;
";

/// Brings a new or existing file to the tables of this version.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), RegistryError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction()?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    match (application, version) {
        (APPLICATION, VERSION) => return Ok(()),
        (APPLICATION, 1) => {
            transaction.execute_batch(SECRETS)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            return Ok(transaction.commit()?);
        }
        (APPLICATION, newer) => return Err(RegistryError::Version { found: newer, known: VERSION }),
        (0, 0) => {}
        _ => return Err(RegistryError::NotOurs),
    }
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}
