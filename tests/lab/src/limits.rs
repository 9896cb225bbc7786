//! How long the lab waits for what, and how much of it it takes.

use std::time::Duration;

/// Power-on to the guest's command channel, under emulation on a busy machine.
pub const GUEST_BOOT_MAX: Duration = Duration::from_secs(120);

/// Power-on to the guest's command channel with KVM, when KVM has yet to be proven.
pub const KVM_PROOF_MAX: Duration = Duration::from_secs(20);

/// One script in a guest, unless the caller says otherwise.
pub const GUEST_SCRIPT_MAX: Duration = Duration::from_secs(120);

/// Start of vamosd to `vamosd: ready`.
pub const HOST_START_MAX: Duration = Duration::from_secs(30);

/// SIGTERM to the end of a process, before SIGKILL.
pub const PROCESS_END_MAX: Duration = Duration::from_secs(10);

/// One call of vamosctl.
pub const CONTROL_CALL_MAX: Duration = Duration::from_secs(30);

/// Rounds of looking for processes of a dead run: each round kills all it finds.
pub const SWEEP_ROUNDS_MAX: usize = 200;

/// Standard output, and standard error, of one script in a guest.
pub const GUEST_OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Time after which a cached image that nobody uses is thrown away.
pub const CACHE_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// End of a console or log that an error message quotes.
pub const QUOTED_LINES_MAX: usize = 25;

/// One step of `cargo verify`, a build from nothing included.
pub const VERIFY_STEP_MAX: Duration = Duration::from_secs(40 * 60);

/// A measurement, its build included.
pub const BENCH_MAX: Duration = Duration::from_secs(60 * 60);

/// Rows of one COPY of the demo.
pub const COPY_ROWS_MAX: usize = 50_000;

/// Shortest pause between two faults.
pub const TORTURE_PAUSE_MIN: Duration = Duration::from_millis(300);

/// Longest such pause: the mean must let most cells live for a second, or they are slowed down as such that cannot live.
pub const TORTURE_PAUSE_MAX: Duration = Duration::from_millis(2_100);

/// Time of a torture beyond which it is a long one, for as many kills as it takes to be sure.
pub const TORTURE_LONG: Duration = Duration::from_secs(5 * 60);

/// Longest pause of a long one.
pub const TORTURE_PAUSE_MAX_LONG: Duration = Duration::from_millis(1_700);

/// Shortest time for which the disk stays full.
pub const TORTURE_FULL_MIN: Duration = Duration::from_millis(700);

/// Longest such time.
pub const TORTURE_FULL_MAX: Duration = Duration::from_millis(2_500);

/// Size of a tortured host's disk.
pub const TORTURE_DISK_BYTES: u64 = 512 << 20;

/// Longest that clients may take to end and to check, beyond their time.
pub const TORTURE_END_MAX: Duration = Duration::from_secs(180);
