//! The host's end of a guest's command channel. The guest's end is `guest/init`.
//!
//! Host to guest, a line: `run ID SECONDS BASE64`. Guest to host: `ready` after each boot, and
//! `done ID STATUS STDOUT_BYTES STDERR_BYTES` followed by that many bytes. Scripts run side by side and end in any
//! order.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::limits::GUEST_OUTPUT_BYTES_MAX;
use crate::process::last_lines;

/// What a shell says of a script that SIGKILL ended, as `timeout` does.
const KILLED: i32 = 137;

/// Time beyond its own limit after which a script without an answer is given up.
const GRACE: Duration = Duration::from_secs(10);

/// What a script came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Output {
    /// What it printed, if it succeeded.
    ///
    /// # Errors
    /// When it did not; the message holds the end of both outputs.
    pub fn success(self) -> Result<String> {
        if self.status == 0 {
            return Ok(self.stdout);
        }
        bail!("exit status {}\n{}\n{}", self.status, last_lines(&self.stdout), last_lines(&self.stderr));
    }
}

/// A script that runs in a guest.
#[derive(Debug)]
pub struct Running {
    answer: Receiver<Output>,
    limit: Duration,
}

impl Running {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it took longer than its limit, or the guest was reset or went away.
    pub fn wait(self) -> Result<Output> {
        match self.answer.recv_timeout(self.limit + GRACE) {
            Ok(output) if output.status == KILLED => bail!(
                "killed, perhaps because it took longer than {:?}\n{}\n{}",
                self.limit,
                last_lines(&output.stdout),
                last_lines(&output.stderr)
            ),
            Ok(output) => Ok(output),
            Err(RecvTimeoutError::Timeout) => bail!("no answer within {:?}", self.limit + GRACE),
            Err(RecvTimeoutError::Disconnected) => bail!("the guest went away"),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    boots: u64,
    waiting: HashMap<u64, Sender<Output>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    booted: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's end.
#[derive(Debug)]
pub struct Control {
    writer: Mutex<(UnixStream, u64)>,
    shared: Arc<Shared>,
    successor: Successor,
}

/// The channel of the VMM that a guest moves to: read on from when the first one ends.
type Successor = Arc<Mutex<Option<UnixStream>>>;

/// What a guest says, through whatever VMM it has.
struct Chained {
    current: UnixStream,
    successor: Successor,
}

impl Read for Chained {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.current.read(into) {
                // A VMM that was killed resets it.
                Ok(0) | Err(_) => {}
                read => return read,
            }
            match self.successor.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
    }
}

impl Control {
    /// Takes the host's end of a socket pair whose other end the VMM has.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let current = stream.try_clone().context("sharing the command channel")?;
        let successor = Successor::default();
        let reader = Chained { current, successor: Arc::clone(&successor) };
        let shared = Arc::new(Shared::default());
        let answers = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("guest-control".to_owned())
            .spawn(move || {
                // It ends with the channel; who waits learns that the guest is gone.
                let _ = read_answers(reader, &answers);
                answers.lock().waiting.clear();
            })
            .context("starting the reader of the command channel")?;
        Ok(Self { writer: Mutex::new((stream, 0)), shared, successor })
    }

    /// How often the guest has come up.
    pub fn boots(&self) -> u64 {
        self.shared.lock().boots
    }

    /// Waits until the guest has come up `boots` times.
    pub fn await_boots(&self, boots: u64, limit: Duration) -> bool {
        let state = self.shared.lock();
        self.shared
            .booted
            .wait_timeout_while(state, limit, |state| state.boots < boots)
            .is_ok_and(|(state, _)| state.boots >= boots)
    }

    /// The guest is about to move to another VMM, which has the other end of `stream`.
    pub fn go_on_with(&self, stream: &UnixStream) -> Result<()> {
        let next = stream.try_clone().context("sharing the next command channel")?;
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(())
    }

    /// It has moved, or not.
    pub fn moved(&self, stream: Option<UnixStream>) {
        match stream {
            Some(stream) => self.writer.lock().unwrap_or_else(PoisonError::into_inner).0 = stream,
            None => drop(self.successor.lock().unwrap_or_else(PoisonError::into_inner).take()),
        }
    }

    /// Sends a script to the guest.
    pub fn start(&self, script: &str, limit: Duration) -> Result<Running> {
        let (sender, answer) = channel();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.1 += 1;
        let id = writer.1;
        self.shared.lock().waiting.insert(id, sender);
        let line = format!("run {id} {} {}\n", limit.as_secs().max(1), base64(script.as_bytes()));
        writer.0.write_all(line.as_bytes()).context("sending a script")?;
        Ok(Running { answer, limit })
    }
}

fn read_answers(stream: Chained, shared: &Shared) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let mut words = text.split_whitespace();
        match words.next() {
            Some("ready") => {
                let mut state = shared.lock();
                state.boots += 1;
                // Scripts of the boot before this one will never answer.
                state.waiting.clear();
                shared.booted.notify_all();
            }
            Some("done") => {
                let numbers: Vec<i64> = words.map_while(|word| word.parse().ok()).collect();
                let [id, status, stdout, stderr] = numbers[..] else { bail!("not an answer: {text}") };
                let output = Output {
                    status: i32::try_from(status)?,
                    stdout: read_text(&mut reader, stdout)?,
                    stderr: read_text(&mut reader, stderr)?,
                };
                if let Some(waiting) = shared.lock().waiting.remove(&u64::try_from(id)?) {
                    // Who asked may have given up.
                    let _ = waiting.send(output);
                }
            }
            // A serial line may carry what firmware or a terminal adds.
            _ => {}
        }
    }
}

fn read_text(reader: &mut impl Read, length: i64) -> Result<String> {
    let length = usize::try_from(length).context("a negative length")?;
    ensure!(length <= GUEST_OUTPUT_BYTES_MAX, "a script printed {length} bytes");
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).context("reading a script's output")?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = ALPHABET[bits >> (18 - 6 * place) & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest's end in a thread: answers what `answer` makes of each line.
    fn guest(answer: impl Fn(&str) -> String + Send + 'static) -> Control {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            writer.write_all(b"noise\nready\n").unwrap();
            for line in BufReader::new(theirs).lines() {
                writer.write_all(answer(&line.unwrap()).as_bytes()).unwrap();
            }
        });
        let control = Control::new(ours).unwrap();
        assert!(control.await_boots(1, Duration::from_secs(10)));
        control
    }

    #[test]
    fn base64_is_the_standard_s() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn answers_find_who_asked_in_any_order() {
        let held = Mutex::new(None::<String>);
        let control = guest(move |line| {
            let id = line.split(' ').nth(1).unwrap().to_owned();
            let mut held = held.lock().unwrap();
            // The second script ends first.
            match held.take() {
                Some(first) => format!(
                    "done {id} 0 2 0
b
done {first} 3 1 1
ae"
                ),
                None => {
                    *held = Some(id);
                    String::new()
                }
            }
        });
        let first = control.start("one", Duration::from_secs(10)).unwrap();
        let second = control.start("two", Duration::from_secs(10)).unwrap();
        assert_eq!(second.wait().unwrap().success().unwrap(), "b\n");
        let first = first.wait().unwrap();
        assert_eq!(first, Output { status: 3, stdout: "a".into(), stderr: "e".into() });
        assert!(first.success().is_err());
    }

    #[test]
    fn a_reset_ends_what_runs() {
        let control = guest(|_| "ready\n".to_owned());
        let running = control.start("sleep 1000", Duration::from_secs(1000)).unwrap();
        assert_eq!(running.wait().unwrap_err().to_string(), "the guest went away");
        assert_eq!(control.boots(), 2);
    }
}
