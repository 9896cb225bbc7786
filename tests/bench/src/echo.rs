//! The yardstick: two processes that pass a message back and forth over a Unix socket, with nothing
//! else in between. Both block in `read`, as the cheapest correct program would.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use vamos_bench::process::Pid;

/// Argument that makes this program the far end.
pub const ARGUMENT: &str = "--echo-on-stdin";

/// The near end, and the process at the far one.
pub struct Echo {
    socket: UnixStream,
    far: Child,
}

impl Echo {
    /// Starts the far end: this program again, with the socket as its standard input.
    ///
    /// # Errors
    /// If the socket pair or the process cannot be made.
    pub fn start() -> anyhow::Result<Self> {
        let (socket, far) = UnixStream::pair().context("make a socket pair")?;
        let program = std::env::current_exe().context("find this program")?;
        let far = Command::new(program)
            .arg(ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(far)))
            .spawn()
            .context("start the far end of the ping-pong")?;
        Ok(Self { socket, far })
    }

    /// The process at the far end.
    pub fn far(&self) -> Pid {
        Pid(self.far.id())
    }

    /// Round trips of `bytes` each way, one after the other.
    ///
    /// # Errors
    /// If the far end is gone.
    pub fn round_trips(&mut self, count: usize, bytes: usize) -> anyhow::Result<Vec<Duration>> {
        let mut message = vec![0; bytes];
        let mut trips = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            self.socket.write_all(&message).context("write to the far end")?;
            self.socket.read_exact(&mut message).context("read from the far end")?;
            trips.push(start.elapsed());
        }
        Ok(trips)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // The far end leaves at the end of its input.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.far.wait();
    }
}

/// Life of the far end: everything read is written back, until the near end hangs up.
///
/// # Errors
/// If standard input is not a socket, or breaks.
pub fn far_end() -> anyhow::Result<()> {
    let mut socket =
        UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().context("take the socket")?);
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer).context("read from the near end")? {
            0 => return Ok(()),
            read => socket.write_all(&buffer[..read]).context("write to the near end")?,
        }
    }
}
