//! The task that carries packets between the rings and the streams: one pass per wake-up, one kick
//! at most per pass, and none that the device has not asked for.
//!
//! Streams are woken first and written to the ring after they have run, so that what many of them
//! have to say leaves with one kick; interrupts are asked for only when there is nothing left.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_vsock::protocol::{HEADER_BYTES, QUEUE_RX, QUEUE_TX};
use vamos_vsock::{
    Header, Mux, MuxConfig, Payload, PayloadError, Received, StreamError, StreamId, Transmitted,
};
use vhost::vhost_user::Frontend;
use vmm_sys_util::eventfd::EventFd;

use super::front_end::AttachedDevice;
use super::memory::SharedMemory;
use super::ring::{BUFFER_BYTES, BadUsed, DriverRing};
use super::watch::watch;
use crate::limits::{BATCH_PACKETS_MAX, PACKET_PAYLOAD_BYTES_MAX, RING_ENTRIES};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        struct Counts {
            $($name: AtomicU64,)*
        }

        /// What a process guest has counted since it attached.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct LinkCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            fn snapshot(&self) -> LinkCounters {
                LinkCounters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Notifications sent to the device.
    kicks_sent,
    /// Batches for which the device wanted none.
    kicks_suppressed,
    /// Interrupts received: those that came while the guest was awake anyway count as one.
    calls_received,
    /// Packets sent.
    packets_sent,
    /// Packets received.
    packets_received,
}

impl LinkCounters {
    /// Notifications in both directions.
    pub fn transitions(&self) -> u64 {
        self.kicks_sent + self.calls_received
    }
}

/// What the carrier and the streams' owners share.
#[derive(Debug)]
pub(crate) struct Shared {
    cid: GuestCid,
    streams: Mutex<Streams>,
    counts: Counts,
}

#[derive(Debug)]
pub(crate) struct Streams {
    mux: Mux,
    /// The device is gone: no stream can be opened any more.
    gone: bool,
}

/// The table of streams, locked.
pub(crate) struct Locked<'a>(MutexGuard<'a, Streams>);

impl std::ops::Deref for Locked<'_> {
    type Target = Mux;

    fn deref(&self) -> &Mux {
        &self.0.mux
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Mux {
        &mut self.0.mux
    }
}

impl Shared {
    pub(crate) fn streams(&self) -> Locked<'_> {
        Locked(self.streams.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn connect(&self, port: VsockPort) -> Result<StreamId, StreamError> {
        let mut streams = self.streams();
        if streams.0.gone { Err(StreamError::Reset) } else { streams.connect(port) }
    }

    pub(crate) fn counters(&self) -> LinkCounters {
        self.counts.snapshot()
    }

    pub(crate) fn cid(&self) -> GuestCid {
        self.cid
    }

    fn lose_device(&self) {
        let mut streams = self.streams();
        streams.0.gone = true;
        streams.lose_peer();
    }
}

fn count(counter: &AtomicU64, amount: u64) {
    // The carrier alone counts.
    counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

/// See the module.
struct Carrier {
    memory: SharedMemory,
    rx: DriverRing,
    tx: DriverRing,
    kicks: [EventFd; 2],
    call: AsyncFd<EventFd>,
    control: AsyncFd<UnixStream>,
    shared: Arc<Shared>,
    /// Keeps the conversation open: closing it is how a guest detaches.
    _front_end: Frontend,
}

/// Starts carrying for `device`, on the current runtime.
pub(crate) fn start(device: AttachedDevice) -> io::Result<(Arc<Shared>, AbortHandle)> {
    let shared = Arc::new(Shared {
        cid: device.cid,
        streams: Mutex::new(Streams {
            mux: Mux::new(MuxConfig::new(device.cid, GuestCid::HOST)),
            gone: false,
        }),
        counts: Counts::default(),
    });
    let AttachedDevice { memory, layouts, kicks, call, control, front_end, .. } = device;
    let mut rx = DriverRing::new(layouts[QUEUE_RX], true);
    let tx = DriverRing::new(layouts[QUEUE_TX], false);
    while let Some(slot) = rx.take_slot() {
        rx.offer(&memory, slot, BUFFER_BYTES);
    }
    rx.expose(&memory);
    tx.ask_for_no_call(&memory);
    let (call, control) = (watch(call)?, watch(control)?);
    let carrier =
        Carrier { memory, rx, tx, kicks, call, control, shared: Arc::clone(&shared), _front_end: front_end };
    let task = tokio::spawn(carrier.run());
    Ok((shared, task.abort_handle()))
}

impl Carrier {
    async fn run(mut self) {
        let why = poll_fn(|cx| self.poll_turn(cx)).await;
        tracing::debug!(why, "detached");
        self.shared.lose_device();
    }

    /// Ready with the reason when there is nothing to carry to any more.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        while let Poll::Ready(ready) = self.control.poll_read_ready(cx) {
            let Ok(mut ready) = ready else { return Poll::Ready("the runtime ended") };
            if ready.ready().is_read_closed() {
                return Poll::Ready("the device hung up");
            }
            ready.clear_ready();
        }
        while let Poll::Ready(ready) = self.call.poll_read_ready(cx) {
            let Ok(mut ready) = ready else { return Poll::Ready("the runtime ended") };
            // Watched edge-triggered: there is no need to read it.
            ready.clear_ready();
            count(&self.shared.counts.calls_received, 1);
        }
        match self.pass(cx) {
            Ok(()) => Poll::Pending,
            Err(BadUsed) => Poll::Ready("the device returned a buffer it did not have"),
        }
    }

    fn pass(&mut self, cx: &mut Context<'_>) -> Result<(), BadUsed> {
        self.shared.streams().carrier_is_at_work();
        let mut starved;
        loop {
            let received = self.receive()?;
            starved = self.transmit()?;
            self.kick_if_wanted();
            if received > 0 {
                // Once more behind the tasks that were just woken.
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let memory = &self.memory;
            let more = self.rx.ask_for_call(memory, 1);
            // With no free slot, wait for half of them: a wake-up for each would be a waste.
            let freed = starved && self.tx.ask_for_call(memory, self.tx.lent_slots().div_ceil(2));
            if !starved {
                self.tx.ask_for_no_call(memory);
            }
            if !more && !freed {
                break;
            }
        }
        let mut streams = self.shared.streams();
        streams.wake_when_departing(cx.waker());
        if !starved && streams.has_departures() {
            // Another thread had something to send after the pass had looked and before it could be
            // told whom to wake.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Takes packets from the device and gives their buffers back: how many.
    fn receive(&mut self) -> Result<usize, BadUsed> {
        let memory = &self.memory;
        let mut packets = 0;
        if !self.rx.has_used(memory) {
            return Ok(0);
        }
        let mut mux = self.shared.streams();
        while packets < BATCH_PACKETS_MAX {
            let Some((slot, bytes)) = self.rx.pop_used(memory)? else { break };
            let buffer = self.rx.buffer(slot);
            if let Some(room) = bytes.checked_sub(HEADER_BYTES) {
                let header = Header::decode(&memory.read(buffer));
                let payload = BufferPayload { memory, offset: buffer + HEADER_BYTES, room };
                match mux.receive(&header, payload) {
                    Received::Taken => {}
                    // Streams are opened by guests only.
                    Received::Request(id, _) => mux.close(id),
                    Received::Rejected(violation) => tracing::warn!(%violation, "bad packet from the device"),
                }
            }
            self.rx.offer(memory, slot, BUFFER_BYTES);
            packets += 1;
        }
        drop(mux);
        self.rx.expose(memory);
        count(&self.shared.counts.packets_received, packets as u64);
        Ok(packets)
    }

    /// Gives packets to the device: whether some are left for want of buffers.
    fn transmit(&mut self) -> Result<bool, BadUsed> {
        let memory = &self.memory;
        let mut mux = self.shared.streams();
        let mut packets = 0;
        let starved = loop {
            if !mux.has_departures() {
                break false;
            }
            if self.tx.lent_slots() == RING_ENTRIES || packets == 0 {
                self.tx.reclaim(memory)?;
            }
            let Some(slot) = self.tx.take_slot() else { break true };
            let buffer = self.tx.buffer(slot);
            let outcome = mux.transmit(PACKET_PAYLOAD_BYTES_MAX, |header, payload| {
                memory.write(buffer, &header.encode());
                memory.write(buffer + HEADER_BYTES, payload);
                true
            });
            let Transmitted::Packet(payload) = outcome else {
                self.tx.put_back(slot);
                break false;
            };
            self.tx.offer(memory, slot, HEADER_BYTES + payload);
            packets += 1;
        };
        drop(mux);
        if packets > 0 {
            self.tx.expose(memory);
            count(&self.shared.counts.packets_sent, packets);
        }
        Ok(starved)
    }

    fn kick_if_wanted(&mut self) {
        for (queue, ring) in [(QUEUE_TX, &mut self.tx), (QUEUE_RX, &mut self.rx)] {
            match ring.wants_kick(&self.memory) {
                Some(true) => {
                    count(&self.shared.counts.kicks_sent, 1);
                    // Full means that the device has not looked yet: it will.
                    let _ = self.kicks[queue].write(1);
                }
                Some(false) => count(&self.shared.counts.kicks_suppressed, 1),
                None => {}
            }
        }
    }
}

/// A packet's payload in a receive buffer.
struct BufferPayload<'a> {
    memory: &'a SharedMemory,
    offset: usize,
    room: usize,
}

impl Payload for BufferPayload<'_> {
    fn append_to(self, out: &mut BytesMut, len: usize) -> Result<(), PayloadError> {
        if len > self.room {
            return Err(PayloadError);
        }
        self.memory.append_to(self.offset, len, out);
        Ok(())
    }
}
