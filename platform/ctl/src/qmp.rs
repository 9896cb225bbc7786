//! QEMU's machine protocol (docs/interop/qmp-spec in QEMU), as much as it takes to unplug and plug a VM's device and
//! to have QEMU move the VM's memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

/// Longest QEMU may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest a guest may take to let go of its device. Its kernel has to be up for that.
const UNPLUG_MAX: Duration = Duration::from_secs(30);

/// Longest QEMU may take to read a guest's state from a file.
const LOAD_MAX: Duration = Duration::from_secs(600);

/// From one look at a migration to the next.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why QEMU did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The monitor's socket.
    #[error("QEMU's monitor at {}: {source}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It does not speak the protocol.
    #[error("what answers at {} is no QEMU monitor in control mode: {said}", .path.display())]
    NotQmp {
        /// Where.
        path: PathBuf,
        /// Instead.
        said: String,
    },
    /// It has an opinion.
    #[error("QEMU at {} refuses {command}: {reason}", .path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// What was asked.
        command: String,
        /// Why not.
        reason: String,
    },
    /// It takes too long.
    #[error("QEMU at {} has not {what} within {limit:?}", .path.display())]
    Slow {
        /// Where.
        path: PathBuf,
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
}

/// A path as a shell's single word.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// A session with a monitor.
#[derive(Debug)]
pub struct Qmp {
    path: PathBuf,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Came in between; not looked at yet.
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to a monitor's Unix socket.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn connect(path: &Path) -> Result<Self, QmpError> {
        let failed = |source| QmpError::Socket { path: path.to_owned(), source };
        let (reader, writer) = UnixStream::connect(path).await.map_err(failed)?.into_split();
        let mut qmp =
            Self { path: path.to_owned(), reader: BufReader::new(reader), writer, events: Vec::new() };
        let greeting = qmp.within(ANSWER_MAX, "greeted", Self::read).await?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::NotQmp { path: qmp.path, said: greeting.to_string() });
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Executes a command and returns what it returns.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        let sent = self.writer.write_all(line.as_bytes()).await;
        sent.map_err(|source| QmpError::Socket { path: self.path.clone(), source })?;
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut answer = self.within(left, "answered", Self::read).await?;
            if let Some(error) = answer.get("error") {
                let reason = error["desc"].as_str().map_or_else(|| error.to_string(), str::to_owned);
                return Err(QmpError::Refused {
                    path: self.path.clone(),
                    command: command.to_owned(),
                    reason,
                });
            }
            match answer.get_mut("return") {
                Some(value) => return Ok(value.take()),
                None => self.events.push(answer),
            }
        }
    }

    /// Waits for an event that is as wanted; those before it are forgotten.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn wait_event(
        &mut self,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let is_it = |event: &Value| event["event"] == name && wanted(&event["data"]);
        if let Some(event) = std::mem::take(&mut self.events).into_iter().find(|event| is_it(event)) {
            return Ok(event);
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.within(left, &format!("said {name}"), Self::read).await?;
            if is_it(&event) {
                return Ok(event);
            }
        }
    }

    /// What the VM is doing: `running`, `paused`, `inmigrate`, `postmigrate`, ...
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn status(&mut self) -> Result<String, QmpError> {
        let status = self.execute("query-status", json!({})).await?;
        Ok(status["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Writes the state of a guest that is stopped to a file, which is whole or not there. The guest can go on
    /// afterwards.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn save(&mut self, file: &Path) -> Result<(), QmpError> {
        let mut partial = file.as_os_str().to_owned();
        partial.push(".partial");
        let (partial, done) = (PathBuf::from(partial), quoted(file));
        let draft = quoted(&partial);
        // QEMU hears nothing of what becomes of the bytes: the file gets its name when they are on the disk.
        let command =
            format!("exec:rm -f {done}; cat >{draft} && sync {draft} && mv {draft} {done} || rm -f {draft}");
        self.migrate(&command, Some(u64::MAX >> 1)).await?;
        self.migrated().await?;
        let deadline = Instant::now() + LOAD_MAX;
        while !file.exists() {
            if !partial.exists() && !file.exists() {
                let source =
                    std::io::Error::other("the guest's state could not be written; is the disk full?");
                return Err(QmpError::Socket { path: file.to_owned(), source });
            }
            if Instant::now() >= deadline {
                let (path, what) = (self.path.clone(), "had the guest's state written".to_owned());
                return Err(QmpError::Slow { path, what, limit: LOAD_MAX });
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Has a QEMU that awaits a guest read its state from a file, and waits until it has.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn load(&mut self, file: &Path) -> Result<(), QmpError> {
        self.execute("migrate-incoming", json!({ "uri": format!("exec:cat {}", quoted(file)) })).await?;
        let deadline = Instant::now() + LOAD_MAX;
        while self.status().await? == "inmigrate" {
            if Instant::now() >= deadline {
                let (path, what) = (self.path.clone(), "read the guest's state".to_owned());
                return Err(QmpError::Slow { path, what, limit: LOAD_MAX });
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Ends QEMU, and waits until it has. One that is gone already is as good.
    ///
    /// # Errors
    /// [`QmpError`]: it lives on.
    pub async fn end(&mut self) -> Result<(), QmpError> {
        match self.execute("quit", json!({})).await {
            Ok(_) => {}
            Err(QmpError::Socket { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.within(ANSWER_MAX, "ended", async |qmp| {
            while qmp.read().await.is_ok() {}
            Ok(())
        })
        .await
    }

    /// Whether there is a device or back-end of this id below `/machine/peripheral` or `/chardevs`.
    async fn has(&mut self, parent: &str, id: &str) -> Result<bool, QmpError> {
        let listed = self.execute("qom-list", json!({ "path": parent })).await?;
        Ok(listed.as_array().into_iter().flatten().any(|entry| entry["name"] == id))
    }

    /// Has the guest let go of a device and takes it away, with its character device. Nothing to do is no error.
    ///
    /// # Errors
    /// [`QmpError`]; a guest without a kernel that runs never lets go.
    pub async fn unplug(&mut self, device: &str, chardev: &str) -> Result<(), QmpError> {
        if self.has("/machine/peripheral", device).await? {
            self.events.clear();
            self.execute("device_del", json!({ "id": device })).await?;
            // A guest that is asked and does not let go may do so later: whoever asks again waits again.
            self.wait_event("DEVICE_DELETED", |data| data["device"] == device, UNPLUG_MAX).await?;
        }
        if self.has("/chardevs", chardev).await? {
            self.execute("chardev-remove", json!({ "id": chardev })).await?;
        }
        Ok(())
    }

    /// Gives the VM a vhost-user vsock device whose back-end is at `socket`. Nothing to do is no error.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn plug(&mut self, device: &str, chardev: &str, socket: &str) -> Result<(), QmpError> {
        if self.has("/machine/peripheral", device).await? {
            return Ok(());
        }
        if self.has("/chardevs", chardev).await? {
            self.execute("chardev-remove", json!({ "id": chardev })).await?;
        }
        let address = json!({ "type": "unix", "data": { "path": socket } });
        let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        self.execute("chardev-add", json!({ "id": chardev, "backend": backend })).await?;
        let added = json!({ "driver": "vhost-user-vsock-pci", "id": device, "chardev": chardev });
        self.execute("device_add", added).await?;
        Ok(())
    }

    /// Whether it is moving the VM away at this moment.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn is_migrating(&mut self) -> Result<bool, QmpError> {
        let migration = self.execute("query-migrate", json!({})).await?;
        let ended = ["none", "completed", "failed", "cancelled"];
        Ok(migration["status"].as_str().is_some_and(|status| !ended.contains(&status)))
    }

    /// Begins to move the VM to whoever listens at `uri`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn migrate(&mut self, uri: &str, bytes_per_second: Option<u64>) -> Result<(), QmpError> {
        if let Some(bytes) = bytes_per_second {
            self.execute("migrate-set-parameters", json!({ "max-bandwidth": bytes })).await?;
        }
        self.execute("migrate", json!({ "uri": uri })).await.map(drop)
    }

    /// Waits until the VM is where it is being moved.
    ///
    /// # Errors
    /// [`QmpError`]; the VM goes on where it was.
    pub async fn migrated(&mut self) -> Result<(), QmpError> {
        loop {
            let migration = self.execute("query-migrate", json!({})).await?;
            match migration["status"].as_str().unwrap_or_default() {
                "completed" => return Ok(()),
                "failed" | "cancelled" => {
                    let reason = migration["error-desc"].as_str().unwrap_or("it does not say why").to_owned();
                    return Err(QmpError::Refused {
                        path: self.path.clone(),
                        command: "migrate".into(),
                        reason,
                    });
                }
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn within<T>(
        &mut self,
        limit: Duration,
        what: &str,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, QmpError>,
    ) -> Result<T, QmpError> {
        let path = self.path.clone();
        let done = timeout(limit, work(self)).await;
        done.unwrap_or_else(|_| Err(QmpError::Slow { path, what: what.to_owned(), limit }))
    }

    async fn read(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        let failed = |source| QmpError::Socket { path: self.path.clone(), source };
        let read = self.reader.read_line(&mut line).await.map_err(failed)?;
        if read == 0 {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let said = || QmpError::NotQmp { path: self.path.clone(), said: line.trim().to_owned() };
        serde_json::from_str(&line).map_err(|_| said())
    }
}
