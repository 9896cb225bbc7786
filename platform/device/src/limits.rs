//! Every limit of a device's rings and control socket, unit and MAX last. Those of streams are in
//! `vamos_vsock::limits`.

/// Largest virtqueue a driver may choose, entries: virtio allows 32,768, Linux asks for 128 to 1,024.
pub const QUEUE_ENTRIES_MAX: u16 = 1024;

/// Most descriptors in one chain: Linux uses at most 19 (a header and a fragmented payload).
pub const CHAIN_DESCRIPTORS_MAX: usize = 64;

/// Most packets taken from a ring before services get the thread.
pub const BATCH_PACKETS_MAX: usize = 256;

/// Most bytes taken from a ring before services get the thread, bytes.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Most bytes of guest memory that one device maps, bytes.
pub const GUEST_MEMORY_BYTES_MAX: u64 = 4 << 40;

/// Largest message of the control socket, bytes, its header not included (the `vhost` crate's).
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 4096;

/// Most file descriptors with one message: what a memory table of the `vhost` crate may have.
pub const CONTROL_MESSAGE_FDS_MAX: usize = 32;

/// Longest time a guest's own packets stay taken without an interrupt that says so, milliseconds. Nobody
/// waits for it but a driver whose ring is full, and that one is told earlier; see the next.
pub const COMPLETION_DELAY_MILLIS: u64 = 5;

/// Packets taken for which the guest is told at once: the ring's size divided by this. A driver without
/// indirect descriptors needs two entries a packet, so a quarter comes well before its ring is full.
pub const COMPLETION_RING_DIVISOR: u16 = 4;

/// Kicks in a row that found nothing to do before the device stops listening for a while.
pub const IDLE_KICKS_MAX: u32 = 16;

/// How long it then does not listen, milliseconds; it looks at the rings when the time is over.
pub const KICK_PAUSE_MILLIS: u64 = 10;

/// Time the ring thread may spin before it lets services and timers run, microseconds.
pub const SPIN_SLICE_MICROS: u64 = 5;

/// Hosts with fewer CPUs than this are never polled on: the spinning thread would take the one CPU
/// that the guest needs to say anything.
pub const POLLING_CPUS_MIN: usize = 2;
