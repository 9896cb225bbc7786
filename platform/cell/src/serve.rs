//! Serving: does what vamosd says on the control channel. When that ends, vamosd is dead: the cell serves on, and
//! waits for the next one to connect.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use vamos_channel::ChannelError;
use vamos_device::{Counters, Device, DeviceConfig, Polling, Roster};
use vamos_http_handover::{Edge, HttpService, Objects};
use vamos_proto::cell::{
    self, Attach, Bind, Detached, Done, Layer, Ready, SNAPSHOT_SUFFIX, Start, Stats, Unbind, from_cell,
    to_cell,
};
use vamos_proto::hello;
use vamos_proto::id::{GuestCid, VmId, VmIdError};
use vamos_sandbox::{Outcome, Report, VOLUME};
use vamos_service::{Service, VmContext};
use vamos_sqlite::{DatabaseFiles, Fence, Hold, snapshot};

use crate::Control;
use crate::accept::Ports;
use crate::apart::apart;
use crate::keepsake::Keepsake;
use crate::lease;
use crate::limits::{ACCEPT_PAUSE, ORPHAN_LOOK_EVERY, ORPHAN_LOOKS_MAX};
use crate::sql::{self, Opened, Sessions};

/// Why a cell ends early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The channel to vamosd.
    #[error(transparent)]
    Control(#[from] ChannelError),
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
    /// `None` while there is no vamosd.
    control: Option<Control>,
    start: Start,
    layers: Vec<Layer>,
    keepsake: Keepsake,
    ports: Arc<Ports>,
    counters: Arc<Counters>,
    device: DeviceConfig,
    sessions: Sessions,
    volume: PathBuf,
    fence: Fence,
    /// Who takes the streams of `http` bindings.
    edge: Edge,
    /// The databases' files, by binding.
    files: BTreeMap<String, DatabaseFiles>,
    /// They are being copied.
    held: Vec<Hold>,
    /// What takes its time.
    answers: JoinSet<from_cell::Message>,
    attachment: Option<(u64, JoinHandle<Result<(), vamos_device::DeviceError>>)>,
    /// Messages handled when the attached device began.
    messages_before: u64,
}

/// Serves the VM of `start` until vamosd asks for a drain, or until nobody needs the cell. `given` are the descriptors
/// that came with `start`.
///
/// # Errors
/// [`ServeError`]; the process should exit.
pub async fn serve(
    control: Control,
    start: Start,
    given: Vec<OwnedFd>,
    report: Report,
) -> Result<(), ServeError> {
    let vamosd = control.peer().map_err(ChannelError::from)?.uid();
    let keepsake = Keepsake::new(vamosd, given).map_err(ChannelError::from)?;
    let vm = VmContext { vm: VmId::new(&start.vm)?, generation: start.generation };
    let secret = start.session_secret.as_slice().try_into().map_err(|_| ServeError::Secret)?;
    let polling = match start.polling_us {
        0 => Polling::Off,
        microseconds => Polling::Adaptive { max: Duration::from_micros(microseconds) },
    };
    let mut cell = Cell {
        control: None,
        layers: layers(&report),
        keepsake,
        ports: Arc::new(Ports::new(vm)),
        counters: Arc::default(),
        device: DeviceConfig { cid: GuestCid(start.cid), polling },
        sessions: Sessions { generation: start.generation, secret },
        edge: Edge::new(Objects::of_volume(&volume_path(&report))),
        volume: volume_path(&report),
        fence: lease::fence(&start),
        files: BTreeMap::new(),
        held: Vec::new(),
        answers: JoinSet::new(),
        attachment: None,
        messages_before: 0,
        start,
    };
    for binding in std::mem::take(&mut cell.start.bindings) {
        if let Err(reason) = cell.bind(binding).await {
            let refused = cell::Refused { reason: reason.clone() };
            control.send(from_cell::Message::Refused(refused), &[]).await?;
            return Err(ServeError::Binding(reason));
        }
    }
    control.send(from_cell::Message::Ready(Ready { layers: cell.layers.clone() }), &[]).await?;
    cell.control = Some(control);
    cell.run().await
}

impl Cell {
    async fn run(mut self) -> Result<(), ServeError> {
        let mut looks = 0;
        loop {
            tokio::select! {
                heard = hear(&mut self.control, &self.keepsake) => match heard {
                    Heard::Message(to_cell::Message::Drain(drain), _) => {
                        return self.drain(Duration::from_millis(drain.deadline_ms)).await;
                    }
                    Heard::Message(message, fds) => self.obey(message, fds).await,
                    Heard::Vamosd(socket) => self.welcome(socket).await,
                    Heard::Nothing if self.keepsake.is_needed() => looks = 0,
                    Heard::Nothing => {
                        looks += 1;
                        if looks >= ORPHAN_LOOKS_MAX {
                            info!("neither a vamosd nor a front-end for long: the cell ends");
                            return Ok(());
                        }
                    }
                },
                Some(Ok(answer)) = self.answers.join_next() => self.tell(answer).await,
                (attachment, error) = ended(&mut self.attachment) => {
                    self.tell(from_cell::Message::Detached(Detached { attachment, error })).await;
                }
            }
        }
    }

    /// Tells vamosd. If it cannot be told it is dead, but what it said last is still to be heard: the end of the
    /// channel comes after that.
    async fn tell(&mut self, message: from_cell::Message) {
        let Some(control) = &self.control else { return };
        if let Err(error) = control.send(message, &[]).await {
            debug!(%error, "vamosd cannot be told");
        }
    }

    /// Another vamosd has connected: it is given what its predecessor left.
    async fn welcome(&mut self, socket: UnixStream) {
        let given = async {
            let control = Control::new(socket)?;
            let (kept, fds) = self.keepsake.kept(&self.start, self.layers.clone());
            control.send(from_cell::Message::Kept(kept), &fds).await?;
            Ok::<_, ChannelError>(control)
        };
        match given.await {
            Ok(control) => self.control = Some(control),
            Err(error) => warn!(error = %chain(&error), "the next vamosd vanished too"),
        }
    }

    async fn obey(&mut self, message: to_cell::Message, fds: Vec<OwnedFd>) {
        let answer = match message {
            to_cell::Message::Attach(attach) => return self.attach(attach, fds).await,
            to_cell::Message::Keep(keep) => return self.keepsake.keep(keep, fds),
            to_cell::Message::Settle(settle) => return self.keepsake.settle(&settle),
            to_cell::Message::Release(_) => return self.keepsake.release(),
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
                let messages = self.counters.snapshot().control_messages.wrapping_sub(self.messages_before);
                from_cell::Message::Stats(Stats { request, counters: Some(self.counted()), messages })
            }
            to_cell::Message::Hold(cell::Hold { request, release }) => {
                done(request, if release { self.release() } else { self.hold().await })
            }
            to_cell::Message::Lease(cell::Lease { until }) => return self.fence.renew(until),
            to_cell::Message::Edge(_) => return self.link_edge(fds),
            to_cell::Message::Snapshot(cell::Snapshot { request }) => return self.copy_all(request),
            // The first message alone starts, and `run` takes the drain.
            to_cell::Message::Start(_) | to_cell::Message::Drain(_) => return,
        };
        self.tell(answer).await;
    }

    async fn attach(&mut self, attach: Attach, fds: Vec<OwnedFd>) {
        if let Some((_, previous)) = self.attachment.take() {
            previous.abort();
        }
        let attachment = attach.attachment;
        self.messages_before = self.counters.snapshot().control_messages;
        match self.device(&attach, fds) {
            Ok(device) => self.attachment = Some((attachment, tokio::spawn(device.run()))),
            Err(error) => self.tell(from_cell::Message::Detached(Detached { attachment, error })).await,
        }
    }

    fn device(&mut self, attach: &Attach, fds: Vec<OwnedFd>) -> Result<Device, String> {
        let Ok([socket, roster, front_end, other_end]) = <[OwnedFd; 4]>::try_from(fds) else {
            return Err("an Attach without its four descriptors".to_owned());
        };
        let kept = roster.try_clone().map_err(|error| chain(&error))?;
        self.keepsake.attach(*attach, [front_end, other_end, kept]);
        let device = Device::new(socket.into(), self.device, self.ports.clone(), self.counters.clone());
        let roster = Roster::new(roster).map_err(|error| chain(&error))?;
        Ok(device.map_err(|error| chain(&error))?.keeping(roster, attach.succeeds))
    }

    async fn bind(&mut self, binding: cell::Binding) -> Result<(), String> {
        let announced = hello::Binding {
            name: binding.name.clone(),
            kind: binding.kind.clone(),
            port: binding.port,
            door: binding.door.clone(),
            epoch: 0,
        };
        // The old engine must let go of its files before the new one opens them.
        self.ports.unbind(&binding.name);
        self.files.remove(&binding.name);
        self.start.bindings.retain(|other| other.name != binding.name);
        let service = self.service(&binding).await?;
        self.start.bindings.push(binding);
        self.ports.bind(announced, service);
        Ok(())
    }

    /// What is to answer on the binding's port.
    async fn service(&mut self, binding: &cell::Binding) -> Result<Arc<dyn Service>, String> {
        match binding.kind.as_str() {
            "sql" => {
                let (volume, sessions, wanted) = (self.volume.clone(), self.sessions, binding.clone());
                let fence = self.fence.clone();
                let open =
                    move || sql::open(&volume, &wanted, sessions, fence).map_err(|error| chain(&error));
                let Opened { service, files } = apart(open).await?;
                self.files.insert(binding.name.clone(), files);
                Ok(service)
            }
            "http" => Ok(Arc::new(HttpService::new(binding.name.clone(), self.edge.clone()))),
            other => Err(format!("this cell has no service of kind {other:?}")),
        }
    }

    fn link_edge(&self, fds: Vec<OwnedFd>) {
        match fds.into_iter().next().map(|socket| self.edge.link(socket)) {
            // What the last edge has of the guest's streams it has until it has drained.
            Some(Ok(())) => self.ports.renew("http"),
            Some(Err(error)) => warn!(%error, "the edge cannot be linked"),
            None => {}
        }
    }

    async fn unbind(&mut self, name: &str, purge: bool) -> Result<(), String> {
        if !self.ports.unbind(name) {
            return Err(format!("{name} is not bound here"));
        }
        let had_files = self.files.remove(name).is_some();
        self.start.bindings.retain(|binding| binding.name != name);
        if !purge || !had_files {
            return Ok(());
        }
        let (volume, name) = (self.volume.clone(), name.to_owned());
        apart(move || sql::purge(&volume, &name).map_err(|error| chain(&error))).await
    }

    /// Keeps the databases' files fit for being copied.
    async fn hold(&mut self) -> Result<(), String> {
        self.held.clear();
        for files in self.files.values() {
            let files = files.clone();
            self.held.push(apart(move || files.hold().map_err(|error| chain(&error))).await?);
        }
        Ok(())
    }

    /// Copies all databases at one instant, and answers when that is done: others are heard meanwhile.
    fn copy_all(&mut self, request: u64) {
        let copy = |(name, files): (&String, &DatabaseFiles)| {
            (files.clone(), self.volume.join(format!("{name}{SNAPSHOT_SUFFIX}")))
        };
        let databases: Vec<_> = self.files.iter().map(copy).collect();
        let work = apart(move || snapshot(&databases).map_err(|error| chain(&error)));
        self.answers.spawn(async move { done(request, work.await) });
    }

    fn release(&mut self) -> Result<(), String> {
        self.held.clear();
        Ok(())
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

    fn counted(&self) -> cell::Counters {
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

/// What there is to react to.
enum Heard {
    /// vamosd says something.
    Message(to_cell::Message, Vec<OwnedFd>),
    /// There was none, and here is one.
    Vamosd(UnixStream),
    /// There was none for a while.
    Nothing,
}

/// Waits for vamosd's next message, or for the next vamosd. Safe to drop and call again, the while aside.
async fn hear(control: &mut Option<Control>, keepsake: &Keepsake) -> Heard {
    loop {
        if let Some(channel) = control {
            match channel.receive().await {
                Ok(Some((message, fds))) => return Heard::Message(message, fds),
                Ok(None) => lost(control, &"its end of the channel is closed"),
                Err(error) => lost(control, &error),
            }
        }
        match timeout(ORPHAN_LOOK_EVERY, keepsake.next_vamosd()).await {
            Ok(Ok(socket)) => return Heard::Vamosd(socket),
            Ok(Err(error)) => {
                warn!(%error, "cannot accept the next vamosd now");
                sleep(ACCEPT_PAUSE).await;
            }
            Err(_) => return Heard::Nothing,
        }
    }
}

fn lost(control: &mut Option<Control>, reason: &dyn std::fmt::Display) {
    warn!(%reason, "vamosd is gone: the cell serves on until the next one comes");
    *control = None;
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
