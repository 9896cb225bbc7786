//! The registry's tables and the fence against files of another program or a newer version.

use rusqlite::Connection;

use super::RegistryError;

/// Marks the file as ours (`PRAGMA application_id`): "VAMO".
pub(super) const APPLICATION: i32 = 0x5641_4d4f;

/// Version 1.
pub(super) const TABLES: &str = "
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
    generation INTEGER NOT NULL
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

/// What leads from each version to the next, the first from 1 to 2. Only ever added to.
const STEPS: &[&str] = &[SECRETS, MIGRATIONS, SNAPSHOTS, VOLUMES, PUBLISHED];

/// Version of the tables after all of [`STEPS`].
const VERSION: i32 = 1 + STEPS.len() as i32;

/// `secret` seals a VM's sessions, so that another VM's are not taken for its own.
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

/// VMs that come from, or have left for, another host.
const MIGRATIONS: &str = "
CREATE TABLE migration (
    vm TEXT PRIMARY KEY REFERENCES vm (name) ON DELETE CASCADE,
    -- 'away': left for peer; 'arriving': not here yet; 'arrived': here, for whoever asks again.
    state TEXT NOT NULL,
    token BLOB NOT NULL,
    peer TEXT NOT NULL
) STRICT;
";

/// Snapshots of volumes, and what is to be made of one before the VM has another cell.
const SNAPSHOTS: &str = "
CREATE TABLE snapshot (
    vm TEXT NOT NULL REFERENCES identity (vm) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- Of the VM when it was taken.
    generation INTEGER NOT NULL,
    -- Seconds since 1970, for people.
    taken INTEGER NOT NULL,
    PRIMARY KEY (vm, name)
) STRICT;
CREATE TABLE restoration (
    vm TEXT PRIMARY KEY REFERENCES vm (name) ON DELETE CASCADE,
    source TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    FOREIGN KEY (source, snapshot) REFERENCES snapshot (vm, name)
) STRICT;
";

/// Where volumes are. Those of before are here.
const VOLUMES: &str = "
CREATE TABLE volume (
    vm TEXT PRIMARY KEY REFERENCES identity (vm) ON DELETE CASCADE,
    class TEXT NOT NULL,
    path TEXT NOT NULL
) STRICT;
INSERT INTO volume SELECT vm, 'local', '' FROM identity;
";

/// What the edge serves.
const PUBLISHED: &str = "
CREATE TABLE route (
    host TEXT NOT NULL,
    prefix TEXT NOT NULL,
    -- A Route of edge.proto.
    terms BLOB NOT NULL,
    declared INTEGER NOT NULL,
    PRIMARY KEY (host, prefix)
) STRICT;
CREATE TABLE certificate (
    name TEXT PRIMARY KEY,
    chain BLOB NOT NULL,
    key BLOB NOT NULL,
    declared INTEGER NOT NULL
) STRICT;
";

/// Brings a new or existing file to the tables of this version.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), RegistryError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction()?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let found = match (application, version) {
        (APPLICATION, found @ 1..=VERSION) => found,
        (APPLICATION, newer) => return Err(RegistryError::Version { found: newer, known: VERSION }),
        (0, 0) => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            1
        }
        _ => return Err(RegistryError::NotOurs),
    };
    for step in STEPS.iter().skip(found as usize - 1) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}
