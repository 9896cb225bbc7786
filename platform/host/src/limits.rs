//! Every limit of vamosd, unit and MAX last.

use std::time::Duration;

/// Largest body of a vhost-user message that is relayed, bytes. The largest known one is a memory table of
/// [`MEMORY_REGIONS_MAX`] regions; configuration space comes next.
pub const VHOST_USER_BODY_BYTES_MAX: usize = 4096;

/// Most regions of a memory table (vhost-user specification, "Memory region description": 8).
pub const MEMORY_REGIONS_MAX: usize = 8;

/// Queues of a vsock device: receive, transmit, event (virtio 1.3, 5.10.2).
pub const QUEUES_MAX: usize = 3;

/// Largest queue size of a split virtqueue (virtio 1.3, 2.7).
pub const QUEUE_SIZE_MAX: u32 = 32_768;

/// Largest configuration space a front-end may ask for, bytes.
pub const CONFIG_SPACE_BYTES_MAX: u32 = 256;

/// Longest a cell may take to answer a vhost-user message before its front-end is let go.
pub const VHOST_USER_REPLY_MAX: Duration = Duration::from_secs(5);

/// Longest a front-end may take between the first and the last byte of a message.
pub const VHOST_USER_MESSAGE_MAX: Duration = Duration::from_secs(5);

/// How long a front-end that connects while another is attached waits for that one to go.
pub const SECOND_FRONT_END_GRACE: Duration = Duration::from_millis(20);

/// Longest a cell may take from its start to being ready.
pub const CELL_START_MAX: Duration = Duration::from_secs(10);

/// Longest a cell of an earlier vamosd may take to hand over what it kept.
pub const CELL_ADOPT_MAX: Duration = Duration::from_secs(5);

/// Longest a cell may take to answer a question of the control plane.
pub const CELL_REPLY_MAX: Duration = Duration::from_secs(5);

/// Longest a drain may take, unless the operator says otherwise.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// Longest an upgrade waits for VMs that are between two cells before it is given up.
pub const UPGRADE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Between the answer to a request for an upgrade and the upgrade, so that the answer has left.
pub const UPGRADE_DELAY: Duration = Duration::from_millis(100);

/// Longest drain an operator may ask for.
pub const DRAIN_MAX: Duration = Duration::from_secs(600);

/// Failures in a row after which a cell is still started again at once, for its guest is running.
pub const CELL_RESTARTS_AT_ONCE_MAX: u32 = 8;
/// Pause before it is started after more: doubled at each failure, from the first to the last.
pub const CELL_BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// The longest pause.
pub const CELL_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A cell that lived this long is started again at once, whatever was before.
pub const CELL_STABLE_AFTER: Duration = Duration::from_secs(1);

/// Longest line a cell may log, bytes; the rest of it is cut.
pub const LOG_LINE_BYTES_MAX: usize = 2048;
/// Lines a cell may log at once, and per second in the long run.
pub const LOG_BURST_LINES_MAX: u32 = 200;
/// Lines a cell may log per second, sustained.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 50;

/// Largest message of the control plane, bytes.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Requests served at once on one connection of the control plane.
pub const CONTROL_STREAMS_MAX: u32 = 64;
/// Connections of the control plane served at once.
pub const CONTROL_CONNECTIONS_MAX: usize = 128;
/// Longest a request of the control plane may take; a drain's own limit is added to it.
pub const CONTROL_DEADLINE_MAX: Duration = Duration::from_secs(660);
/// Shortest interval of a stream of statistics.
pub const STATS_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Pause after a listener could not accept, for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// VMs on one host.
pub const VMS_MAX: usize = 4096;
/// Services on one host.
pub const SERVICES_MAX: usize = 1024;
/// Bindings of one VM.
pub const BINDINGS_PER_VM_MAX: usize = 256;
/// Settings of one binding's front door.
pub const DOOR_SETTINGS_MAX: usize = 16;
/// Longest setting of a front door, bytes.
pub const DOOR_SETTING_BYTES_MAX: usize = 256;

/// Largest `vamos.toml`, bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// A piece of a volume that is copied to another host, bytes.
pub const MIGRATION_PIECE_BYTES: usize = 1 << 20;

/// A volume is copied while it is written to until no more than this is left, bytes: a disk takes a few milliseconds.
pub const MIGRATION_TAIL_BYTES: u64 = 1 << 20;

/// Times that is tried; a guest that writes faster than the copy goes would never let it end.
pub const MIGRATION_ROUNDS_MAX: usize = 16;

/// Pieces that wait for whoever copies.
pub const MIGRATION_PIECES_MAX: usize = 4;

/// Largest message of a migration: a piece and what goes with it, bytes.
pub const MIGRATION_MESSAGE_BYTES_MAX: usize = (1 << 20) + (16 << 10);

/// Longest description of a migration's other side, bytes.
pub const MIGRATION_PEER_BYTES_MAX: usize = 512;

/// Longest a cell may take to copy its databases for a snapshot.
pub const SNAPSHOT_MAX: Duration = Duration::from_secs(600);

/// Snapshots of one VM.
pub const SNAPSHOTS_PER_VM_MAX: usize = 256;

/// Longest a member of etcd may take for an answer before another one is asked.
pub const ETCD_ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long a lease on a shared volume is valid from each renewal, unless the operator says otherwise: a vamosd that dies
/// has that long to be followed by another before its cells wait.
pub const LEASE_VALID: Duration = Duration::from_secs(10);

/// Renewals and claims in the time that a lease is valid.
pub const LEASE_TURNS: u32 = 4;

/// Longest record of a lease, bytes.
pub const LEASE_RECORD_BYTES_MAX: u64 = 4096;

/// Longest the edge may take from its start to being ready.
pub const EDGE_START_MAX: Duration = Duration::from_secs(10);

/// Longest the edge may take to answer a question.
pub const EDGE_REPLY_MAX: Duration = Duration::from_secs(5);

/// How long the clients of an earlier edge may take to be answered.
pub const EDGE_DRAIN_MAX: Duration = Duration::from_secs(60);

/// Routes of a host.
pub const ROUTES_MAX: usize = 10_000;

/// Targets of a route.
pub const ROUTE_TARGETS_MAX: usize = 64;

/// Certificates of a host.
pub const CERTIFICATES_MAX: usize = 1000;

/// A certificate chain or a key, bytes.
pub const CERTIFICATE_BYTES_MAX: u64 = 64 << 10;

/// Threads of the edge besides its workers: those that read files.
pub const EDGE_THREADS_BESIDES: u64 = 64;

/// Threads of the edge that serve.
pub const EDGE_WORKERS_MAX: u64 = 64;
