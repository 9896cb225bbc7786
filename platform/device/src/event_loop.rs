//! The ring task: waits for kicks, control messages and streams with something to say, and runs
//! passes. It lives on the same thread as the services, as one task among theirs.
//!
//! A round trip costs the thread two system calls: the one it sleeps in, and the call that
//! interrupts the guest. Kick fds are watched edge-triggered and never read. After a pass that
//! took packets the task lines up behind the services it woke, so that their answers leave
//! together, with one call; only when there is nothing left does it ask the guest for a kick.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;
use vamos_seam::{Bug, errs};
use vamos_vsock::protocol::{QUEUE_RX, QUEUE_TX, QUEUES};

use crate::DeviceError;
use crate::counters::Counters;
use crate::limits::{COMPLETION_DELAY_MILLIS, IDLE_KICKS_MAX, KICK_PAUSE_MILLIS, SPIN_SLICE_MICROS};
use crate::polling::Window;
use crate::socket::{ControlSocket, Handled};
use crate::watch::watch;

/// A ring's kick fd.
enum Kick {
    None,
    Watched(AsyncFd<OwnedFd>),
    /// Not watched for a while, because the guest kicks for nothing.
    Paused(OwnedFd),
}

/// What the task does next.
enum Turn {
    /// Looks at the ring for a while before it sleeps.
    Spin(Instant),
    /// The front-end has hung up.
    End,
}

/// See the module.
pub(crate) struct EventLoop {
    socket: ControlSocket,
    watch: AsyncFd<OwnedFd>,
    kicks: [Kick; QUEUES],
    counters: Arc<Counters>,
    window: Window,
    /// Kicks in a row that brought nothing.
    idle_kicks: u32,
    pause: Option<Pin<Box<Sleep>>>,
    /// When the guest is told, at the latest, that its packets have been taken.
    completion: Option<Pin<Box<Sleep>>>,
    /// The pass before took packets, and the services they went to have run since.
    after_services: bool,
}

impl EventLoop {
    pub(crate) fn new(
        socket: ControlSocket,
        counters: Arc<Counters>,
        window: Window,
    ) -> Result<Self, DeviceError> {
        let watch = socket.pollable().and_then(watch).map_err(DeviceError::Watch)?;
        Ok(Self {
            socket,
            watch,
            kicks: [const { Kick::None }; QUEUES],
            counters,
            window,
            idle_kicks: 0,
            pause: None,
            completion: None,
            after_services: false,
        })
    }

    pub(crate) async fn run(mut self) -> Result<(), DeviceError> {
        loop {
            match poll_fn(|cx| self.poll_turn(cx)).await? {
                Turn::End => return Ok(()),
                Turn::Spin(until) => self.spin(until).await,
            }
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, DeviceError>> {
        let handled = self.poll_control(cx)?;
        if handled == Handled::HungUp {
            self.socket.control().transport.lose_guest();
            return Poll::Ready(Ok(Turn::End));
        }
        let kicked = self.poll_kicks(cx);
        if errs(Bug::KicksMissed) && !kicked && handled != Handled::Messages(0) {
            return Poll::Pending;
        }
        let completions_are_due = poll_timer(&mut self.completion, cx);
        let mut control = self.socket.control();
        let transport = &mut control.transport;
        let pass = transport.pass(kicked);
        if completions_are_due {
            transport.call_for_completions();
        } else if transport.owes_completion() && self.completion.is_none() {
            self.completion = Some(timer(COMPLETION_DELAY_MILLIS, cx));
        }
        if pass.received > 0 || pass.sent > 0 || std::mem::take(&mut self.after_services) {
            self.idle_kicks = 0;
        } else if kicked {
            self.idle_kicks += 1;
        }
        if pass.received > 0 {
            if !self.window.is_off() {
                self.window.work(Instant::now());
            }
            self.after_services = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        transport.streams.lock().wake_when_departing(cx.waker());
        drop(control);
        if self.idle_kicks >= IDLE_KICKS_MAX {
            self.begin_pause(cx);
        }
        if self.window.is_off() {
            return Poll::Pending;
        }
        match self.window.dry(Instant::now()) {
            Some(until) => Poll::Ready(Ok(Turn::Spin(until))),
            None => Poll::Pending,
        }
    }

    /// Looks at the transmit ring until `until`, letting everything else on the thread run in
    /// between, and stops as soon as there is something to do.
    async fn spin(&mut self, until: Instant) {
        loop {
            let slice = Instant::now() + Duration::from_micros(SPIN_SLICE_MICROS);
            loop {
                if self.socket.control().transport.has_input() {
                    return;
                }
                let now = Instant::now();
                if now >= until {
                    self.window.missed();
                    return;
                }
                if now >= slice {
                    break;
                }
                // Whoever else could run on this CPU goes first: a look must not cost a guest its turn.
                std::thread::yield_now();
            }
            tokio::task::yield_now().await;
            if self.socket.control().transport.streams.lock().has_departures() {
                return;
            }
        }
    }

    fn poll_control(&mut self, cx: &mut Context<'_>) -> Result<Handled, DeviceError> {
        let mut handled = Handled::Messages(0);
        while let Poll::Ready(ready) = self.watch.poll_read_ready(cx) {
            let mut ready = ready.map_err(DeviceError::Watch)?;
            let closed = ready.ready().is_read_closed();
            ready.clear_ready();
            handled = self.socket.handle_available(closed)?;
            if handled == Handled::HungUp {
                break;
            }
            self.take_new_kicks()?;
        }
        Ok(handled)
    }

    fn take_new_kicks(&mut self) -> Result<(), DeviceError> {
        let mut control = self.socket.control();
        for (ring, kick) in control.transport.rings.iter_mut().zip(&mut self.kicks) {
            match ring.take_new_kick() {
                None => {}
                Some(None) => *kick = Kick::None,
                Some(Some(fd)) => *kick = watch_kick(fd)?,
            }
        }
        Ok(())
    }

    /// Whether a guest has kicked since the last turn.
    fn poll_kicks(&mut self, cx: &mut Context<'_>) -> bool {
        let mut kicked = self.poll_pause(cx);
        for queue in [QUEUE_TX, QUEUE_RX] {
            let Kick::Watched(fd) = &self.kicks[queue] else { continue };
            while let Poll::Ready(Ok(mut ready)) = fd.poll_read_ready(cx) {
                ready.clear_ready();
                kicked = true;
                Counters::add(&self.counters.kicks_received, 1);
            }
        }
        kicked
    }

    /// Stops listening to a guest that kicks for nothing: its kicks then cost it, not us.
    fn begin_pause(&mut self, cx: &mut Context<'_>) {
        self.idle_kicks = 0;
        for kick in &mut self.kicks {
            if let Kick::Watched(fd) = std::mem::replace(kick, Kick::None) {
                *kick = Kick::Paused(fd.into_inner());
            }
        }
        self.pause = Some(timer(KICK_PAUSE_MILLIS, cx));
    }

    /// Ends the pause when its time is over; true if it did, because kicks may have been missed.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> bool {
        if !poll_timer(&mut self.pause, cx) {
            return false;
        }
        for kick in &mut self.kicks {
            if let Kick::Paused(fd) = std::mem::replace(kick, Kick::None) {
                match watch_kick(fd) {
                    Ok(watched) => *kick = watched,
                    Err(error) => tracing::error!(%error, "listen to a guest's kicks again"),
                }
            }
        }
        true
    }
}

/// A timer that wakes the task after so many milliseconds.
fn timer(millis: u64, cx: &mut Context<'_>) -> Pin<Box<Sleep>> {
    let mut timer = Box::pin(tokio::time::sleep(Duration::from_millis(millis)));
    // Polled once, or it would not wake anybody.
    let _ = timer.as_mut().poll(cx);
    timer
}

/// Whether `timer` has just run out; it is gone then.
fn poll_timer(timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    let out = timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
    if out {
        *timer = None;
    }
    out
}

/// Watches a kick fd from now on. What it has counted so far is taken away: the rings are looked
/// at anyway when a ring starts and when a pause ends.
fn watch_kick(fd: OwnedFd) -> Result<Kick, DeviceError> {
    if let Ok(flags) = rustix::fs::fcntl_getfl(&fd) {
        let _ = rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK);
    }
    let _ = rustix::io::read(&fd, &mut [0; 8]);
    watch(fd).map(Kick::Watched).map_err(DeviceError::Watch)
}
