//! QEMU's machine protocol, as much as a reset button needs. `docs/interop/qmp-spec` in QEMU.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Time QEMU may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A session with a QEMU.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    greeted: bool,
}

impl Qmp {
    /// Takes the host's end of a socket pair whose other end QEMU has. QEMU greets when it gets round to it.
    pub fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE)).context("limiting QEMU's time")?;
        Ok(Self { reader: BufReader::new(stream), greeted: false })
    }

    /// Executes a command without arguments.
    pub fn execute(&mut self, command: &str) -> Result<Value> {
        if !self.greeted {
            let greeting = self.read()?;
            ensure!(greeting.get("QMP").is_some(), "QEMU greets with {greeting}");
            self.call("qmp_capabilities")?;
            self.greeted = true;
        }
        self.call(command)
    }

    fn call(&mut self, command: &str) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command }));
        self.reader.get_mut().write_all(line.as_bytes()).with_context(|| format!("sending {command}"))?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // An event.
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).context("waiting for QEMU's answer")?;
        ensure!(read > 0, "QEMU is gone");
        serde_json::from_str(&line).with_context(|| format!("not QMP: {line}"))
    }
}
