//! Serving: does what vamosd says on the control channel until it closes it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use vamos_device::{Counters, Device, DeviceConfig, Polling, Roster};
use vamos_proto::cell::{
    self, Attach, Bind, Detached, Done, Layer, Ready, Start, Stats, Unbind, from_cell, to_cell,
};
use vamos_proto::hello;
use vamos_proto::id::{GuestCid, VmId, VmIdError};
use vamos_sandbox::{Outcome, Report, VOLUME};
use vamos_service::{Service, VmContext};

use crate::accept::Ports;
use crate::control::{Control, ControlError};
use crate::sql::{self, Sessions};

/// Why a cell ends early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The channel to vamosd.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The start message names no VM.
    #[error(transparent)]
    Name(#[from] VmIdError),
    /// The start message brings no secret.
    #[error("the session secret of the start message does not have 16 bytes")]
    Secret,
    /// A binding cannot be served; vamosd has been told.
    #[error("{0}")]
    Binding(String),
}

/// The cell, running.
struct Cell {
    control: Control,
    ports: Arc<Ports>,
    counters: Arc<Counters>,
    device: DeviceConfig,
    sessions: Sessions,
    volume: PathBuf,
    attachment: Option<(u64, JoinHandle<Result<(), vamos_device::DeviceError>>)>,
}

/// Serves the VM of `start` until vamosd closes the channel or asks for a drain.
///
/// # Errors
/// [`ServeError`]; the process should exit.
pub async fn serve(control: Control, start: Start, report: Report) -> Result<(), ServeError> {
    let vm = VmContext { vm: VmId::new(&start.vm)?, generation: start.generation };
    let secret = start.session_secret.try_into().map_err(|_| ServeError::Secret)?;
    let polling = match start.polling_us {
        0 => Polling::Off,
        microseconds => Polling::Adaptive { max: Duration::from_micros(microseconds) },
    };
    let mut cell = Cell {
        control,
        ports: Arc::new(Ports::new(vm)),
        counters: Arc::default(),
        device: DeviceConfig { cid: GuestCid(start.cid), polling },
        sessions: Sessions { generation: start.generation, secret },
        volume: volume_path(&report),
        attachment: None,
    };
    for binding in start.bindings {
        if let Err(reason) = cell.bind(binding).await {
            cell.control.send(from_cell::Message::Refused(cell::Refused { reason: reason.clone() })).await?;
            return Err(ServeError::Binding(reason));
        }
    }
    cell.control.send(from_cell::Message::Ready(Ready { layers: layers(&report) })).await?;
    cell.run().await
}

impl Cell {
    async fn run(mut self) -> Result<(), ServeError> {
        loop {
            tokio::select! {
                message = self.control.receive() => match message? {
                    Some((to_cell::Message::Drain(drain), _)) => {
                        return self.drain(Duration::from_millis(drain.deadline_ms)).await;
                    }
                    Some((message, fds)) => self.obey(message, fds).await?,
                    None => return Ok(()),
                },
                (attachment, error) = ended(&mut self.attachment) => {
                    self.control.send(from_cell::Message::Detached(Detached { attachment, error })).await?;
                }
            }
        }
    }

    async fn obey(&mut self, message: to_cell::Message, fds: Vec<OwnedFd>) -> Result<(), ServeError> {
        let answer = match message {
            to_cell::Message::Attach(attach) => return self.attach(attach, fds).await,
            to_cell::Message::Bind(Bind { request, binding }) => {
                let outcome = match binding {
                    Some(binding) => self.bind(binding).await,
                    None => Err("a Bind without a binding".to_owned()),
                };
                done(request, outcome)
            }
            to_cell::Message::Unbind(Unbind { request, name, purge }) => {
                done(request, self.unbind(&name, purge).await)
            }
            to_cell::Message::Stats(cell::StatsRequest { request }) => {
                from_cell::Message::Stats(Stats { request, counters: Some(self.snapshot()) })
            }
            // The first message alone starts, and `run` takes the drain.
            to_cell::Message::Start(_) | to_cell::Message::Drain(_) => return Ok(()),
        };
        Ok(self.control.send(answer).await?)
    }

    async fn attach(&mut self, attach: Attach, fds: Vec<OwnedFd>) -> Result<(), ServeError> {
        if let Some((_, previous)) = self.attachment.take() {
            previous.abort();
        }
        let attachment = attach.attachment;
        match self.device(attach.succeeds, fds) {
            Ok(device) => self.attachment = Some((attachment, tokio::spawn(device.run()))),
            Err(error) => {
                self.control.send(from_cell::Message::Detached(Detached { attachment, error })).await?;
            }
        }
        Ok(())
    }

    fn device(&self, succeeds: bool, fds: Vec<OwnedFd>) -> Result<Device, String> {
        let Ok([socket, roster]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err("an Attach without a socket and a roster".to_owned());
        };
        let device = Device::new(socket.into(), self.device, self.ports.clone(), self.counters.clone());
        let roster = Roster::new(roster).map_err(|error| chain(&error))?;
        Ok(device.map_err(|error| chain(&error))?.keeping(roster, succeeds))
    }

    async fn bind(&mut self, binding: cell::Binding) -> Result<(), String> {
        let announced = hello::Binding {
            name: binding.name.clone(),
            kind: binding.kind.clone(),
            port: binding.port,
            door: binding.door.clone(),
        };
        // The old engine must let go of its files before the new one opens them.
        self.ports.unbind(&binding.name);
        let (volume, sessions) = (self.volume.clone(), self.sessions);
        let opened = spawn_blocking(move || open(&volume, &binding, sessions)).await;
        let service = opened.map_err(|panicked| panicked.to_string())??;
        self.ports.bind(announced, service);
        Ok(())
    }

    async fn unbind(&mut self, name: &str, purge: bool) -> Result<(), String> {
        if !self.ports.unbind(name) {
            return Err(format!("{name} is not bound here"));
        }
        if !purge {
            return Ok(());
        }
        let (volume, name) = (self.volume.clone(), name.to_owned());
        let purged = spawn_blocking(move || sql::purge(&volume, &name)).await;
        purged.map_err(|panicked| panicked.to_string())?.map_err(|error| chain(&error))
    }

    /// Takes no new streams, lets the open ones finish for as long as `deadline`, and returns.
    async fn drain(mut self, deadline: Duration) -> Result<(), ServeError> {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        self.ports.close();
        let end = Instant::now() + deadline;
        while self.counters.snapshot().streams_open > 0 && Instant::now() < end {
            sleep(LOOK_EVERY).await;
        }
        if let Some((_, device)) = self.attachment.take() {
            device.abort();
        }
        Ok(())
    }

    fn snapshot(&self) -> cell::Counters {
        let now = self.counters.snapshot();
        cell::Counters {
            kicks_received: now.kicks_received,
            calls_sent: now.calls_sent,
            kicks_suppressed: now.kicks_suppressed,
            calls_suppressed: now.calls_suppressed,
            packets_received: now.packets_received,
            packets_sent: now.packets_sent,
            bytes_received: now.bytes_received,
            bytes_sent: now.bytes_sent,
            streams_opened: now.streams_opened,
            streams_reset: now.streams_reset,
            streams_open: now.streams_open,
            protocol_errors: now.protocol_errors,
        }
    }
}

/// Ends when the attached device has; never without one. Safe to drop and call again.
async fn ended(
    attachment: &mut Option<(u64, JoinHandle<Result<(), vamos_device::DeviceError>>)>,
) -> (u64, String) {
    let Some((number, device)) = attachment else { return std::future::pending().await };
    let number = *number;
    let error = match device.await {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => chain(&error),
        Err(panicked) => panicked.to_string(),
    };
    *attachment = None;
    (number, error)
}

fn open(volume: &Path, binding: &cell::Binding, sessions: Sessions) -> Result<Arc<dyn Service>, String> {
    match binding.kind.as_str() {
        "sql" => sql::open(volume, binding, sessions).map_err(|error| chain(&error)),
        other => Err(format!("this cell has no service of kind {other:?}")),
    }
}

/// Where the volume is: in a root of its own, unless that wall is missing.
fn volume_path(report: &Report) -> PathBuf {
    let in_own_root = report.missing().all(|(layer, _)| layer != vamos_sandbox::Layer::Root);
    if in_own_root { PathBuf::from(VOLUME) } else { PathBuf::from(".") }
}

fn layers(report: &Report) -> Vec<Layer> {
    let layer = |(layer, outcome): &(vamos_sandbox::Layer, Outcome)| match outcome {
        Outcome::Applied(detail) => {
            Layer { name: layer.name().to_owned(), applied: true, detail: detail.clone() }
        }
        Outcome::Missing(reason) => {
            Layer { name: layer.name().to_owned(), applied: false, detail: reason.clone() }
        }
    };
    report.0.iter().map(layer).collect()
}

fn done(request: u64, outcome: Result<(), String>) -> from_cell::Message {
    from_cell::Message::Done(Done { request, error: outcome.err().unwrap_or_default() })
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
