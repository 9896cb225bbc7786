//! A process of a run: marked, in a group of its own, dead when dropped. Also commands that end by
//! themselves, with a limit and their output.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::limits::{PROCESS_END_MAX, QUOTED_LINES_MAX};
use crate::run::{RUN_VARIABLE, RunDir};

/// A process that runs until it is told to end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` as part of `run`. `name` is for messages.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, run: &RunDir) -> Result<Self> {
        let child = command
            .env(RUN_VARIABLE, run.path())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", shown(&command)))?;
        Ok(Self { name: name.to_owned(), child, status: None })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            // Looked at but not reaped, it keeps its number, and so its group's, from being another's.
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let ended = waitid(WaitId::Pid(self.pid()?), look)
                .with_context(|| format!("asking for the end of {}", self.name))?;
            if ended.is_some() {
                self.kill();
            }
        }
        Ok(self.status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                bail!("{} has not ended within {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// SIGTERM, then SIGKILL to the whole group when that takes too long.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let ended = self.wait(PROCESS_END_MAX);
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    /// SIGKILL to the whole group, now.
    pub fn kill(&mut self) {
        if self.status.is_some() {
            return;
        }
        // The group outlives its leader: UML's threads do not end with it.
        if let Ok(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.status = self.child.wait().ok();
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} has no process id", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end with nothing on standard input and returns its standard output.
///
/// # Errors
/// When it fails; the message holds the end of its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("running {}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed with {}:\n{}", shown(command), output.status, last_lines(&said));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} does not print UTF-8", shown(command)))
}

/// As [`output`], for a command that may hang.
///
/// # Errors
/// When it fails or has not ended in time; then it is killed.
pub fn output_within(limit: Duration, command: &mut Command) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {}", shown(command)))?;
    let said = drain(child.stdout.take());
    let complained = drain(child.stderr.take());
    let until = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().context("asking for its end")? {
            break status;
        }
        if Instant::now() >= until {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{} has not ended within {limit:?}", shown(command));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let said = said.join().unwrap_or_default();
    let complained = complained.join().unwrap_or_default();
    if !status.success() {
        bail!("{} failed with {status}:\n{}", shown(command), last_lines(&complained));
    }
    Ok(said)
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A command as a person would type it.
#[must_use]
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The end of a log.
#[must_use]
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES_MAX)..].join("\n")
}

/// The end of a log file; empty when there is none.
#[must_use]
pub fn last_lines_of(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => format!("({}: {error})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts without a run: its mark does not matter here.
    fn start(script: &str) -> Process {
        let child = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
        Process { name: "sh".to_owned(), child, status: None }
    }

    #[test]
    fn a_group_ends_with_its_leader() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let mut process = start(&format!("sleep 600 & echo $! >{}; exit 3", pid.display()));
        assert_eq!(process.wait(Duration::from_secs(10)).unwrap().code(), Some(3));
        let left = std::fs::read_to_string(pid).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(format!("/proc/{}/stat", left.trim()))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            assert!(Instant::now() < until, "the background process lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn an_end_is_reported_again() {
        let mut process = start("exit 7");
        assert_eq!(process.wait(Duration::from_secs(10)).unwrap().code(), Some(7));
        assert_eq!(process.end().unwrap().code(), Some(7));
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let error = output_within(Duration::from_millis(100), Command::new("sleep").arg("600")).unwrap_err();
        assert!(error.to_string().contains("has not ended"), "{error}");
        let said = output_within(Duration::from_secs(10), Command::new("echo").arg("x")).unwrap();
        assert_eq!(said, "x\n");
    }
}
