//! Packets between the rings and the table of streams: one *pass* drains what the guest has sent,
//! lets new streams be accepted, writes what is to go to the guest, and notifies once.
//!
//! Knows nothing of the event loop and of vhost-user; it is what a fuzzer drives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vamos_proto::id::{GuestCid, VsockPort};
use vamos_seam::{Bug, errs};
use vamos_service::ByteStream;
use vamos_vsock::protocol::{HEADER_BYTES, QUEUE_RX, QUEUE_TX, QUEUES};
use vamos_vsock::{Mux, MuxConfig, MuxCounters, Received, StreamId, Transmitted};

use crate::Acceptor;
use crate::audit::Audit;
use crate::chain::{Chain, Direction};
use crate::counters::Counters;
use crate::limits::{BATCH_BYTES_MAX, BATCH_PACKETS_MAX, COMPLETION_RING_DIVISOR};
use crate::memory::GuestTable;
use crate::ring::{Popped, Ring, RingError};
use crate::roster::Roster;
use crate::stream::DeviceStream;

/// The streams of one device, shared by the ring task and the streams' owners. All run on one
/// thread; the lock is for the compiler and never contended.
#[derive(Debug)]
pub(crate) struct Streams(Mutex<Mux>);

impl Streams {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Mux> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Packets taken from the guest: services may have something to say, so pass again after them.
    pub(crate) received: usize,
    /// Packets given to the guest.
    pub(crate) sent: usize,
}

/// Rings, guest memory and streams of one device.
pub(crate) struct Transport {
    pub(crate) table: GuestTable,
    pub(crate) rings: [Ring; QUEUES],
    pub(crate) streams: Arc<Streams>,
    acceptor: Arc<dyn Acceptor>,
    counters: Arc<Counters>,
    audit: Audit,
    counted: MuxCounters,
    chain: Chain,
    requests: Vec<(StreamId, VsockPort)>,
    /// Packets of the guest taken since it was last told so.
    untold_packets: usize,
    /// The guest wants to be told.
    owes_completion: bool,
    roster: Option<Roster>,
    /// A predecessor may have died before it interrupted the guest.
    owes_call: bool,
}

impl Transport {
    pub(crate) fn new(
        cid: GuestCid,
        acceptor: Arc<dyn Acceptor>,
        counters: Arc<Counters>,
    ) -> Result<Self, RingError> {
        Ok(Self {
            table: GuestTable::default(),
            rings: [
                Ring::new(Direction::ToGuest)?,
                Ring::new(Direction::FromGuest)?,
                // The event queue: its buffers are for TRANSPORT_RESET, which a backend of QEMU cannot send.
                Ring::new(Direction::ToGuest)?,
            ],
            streams: Arc::new(Streams(Mutex::new(Mux::new(MuxConfig::new(GuestCid::HOST, cid))))),
            acceptor,
            counters,
            audit: Audit::new(cid),
            counted: MuxCounters::default(),
            chain: Chain::default(),
            requests: Vec::new(),
            untold_packets: 0,
            owes_completion: false,
            roster: None,
            owes_call: false,
        })
    }

    /// Keeps `roster` from now on; as a successor, goes on where its last keeper was killed.
    pub(crate) fn keep(&mut self, roster: Roster, succeeds: bool) {
        if succeeds {
            if !errs(Bug::ResetsNothing) {
                self.streams.lock().disown(roster.inherited());
            }
            if !errs(Bug::RingFromBase) {
                self.rings.iter_mut().for_each(Ring::follow_used);
            }
            self.owes_call = !errs(Bug::KicksMissed);
        }
        self.roster = Some(roster);
    }

    /// One pass. After one that received nothing the guest has been asked to kick.
    pub(crate) fn pass(&mut self, kicked: bool) -> Pass {
        let mut done = Pass::default();
        self.streams.lock().carrier_is_at_work();
        loop {
            let received = self.drain();
            self.admit_requests();
            done.received += received;
            done.sent += self.fill();
            self.call_for_packets();
            self.note_completions(received);
            if received > 0 || !self.settle() {
                break;
            }
        }
        if done.received > 0 && !kicked {
            Counters::add(&self.counters.kicks_suppressed, 1);
        }
        if self.owes_call && self.rings[QUEUE_RX].runs() && self.rings[QUEUE_TX].runs() {
            self.owes_call = false;
            for queue in [QUEUE_RX, QUEUE_TX] {
                self.rings[queue].call();
                Counters::add(&self.counters.calls_sent, 1);
            }
        }
        self.publish();
        done
    }

    /// Whether the guest has sent something that no pass has seen.
    pub(crate) fn has_input(&self) -> bool {
        self.rings[QUEUE_TX].has_available(&self.table.memory)
    }

    /// Takes packets from the guest: how many.
    fn drain(&mut self) -> usize {
        let (memory, ring) = (&self.table.memory, &mut self.rings[QUEUE_TX]);
        let mut mux = self.streams.lock();
        ring.disarm(memory);
        let (mut packets, mut bytes) = (0, 0);
        while packets < BATCH_PACKETS_MAX && bytes < BATCH_BYTES_MAX && mux.accepts_packets() {
            match ring.pop(memory, &mut self.chain) {
                Popped::Empty => break,
                Popped::Broken => {
                    self.counters.ring_error();
                    self.audit.ring("transmit ring broken");
                    break;
                }
                Popped::Rejected(error) => {
                    self.counters.ring_error();
                    self.audit.chain(error);
                }
                Popped::Chain => {
                    if let Ok(header) = self.chain.read_header(memory) {
                        match mux.receive(&header, self.chain.payload(memory)) {
                            Received::Taken => {}
                            Received::Request(id, port) => {
                                self.requests.push((id, port));
                                // Before the guest can know that it was asked.
                                if let Some(roster) = &mut self.roster {
                                    roster.update(&mux);
                                }
                            }
                            Received::Rejected(violation) => self.audit.packet(violation),
                        }
                        bytes += header.len as usize;
                    }
                    ring.push_used(memory, self.chain.head, 0);
                }
            }
            packets += 1;
        }
        packets
    }

    /// Asks the acceptor about the streams requested in this pass, without holding the streams.
    fn admit_requests(&mut self) {
        for (id, port) in self.requests.drain(..) {
            let stream = ByteStream::new(DeviceStream::new(Arc::clone(&self.streams), id));
            // A refused stream is dropped by the acceptor, which is what refuses it.
            if self.acceptor.accept(port, stream) {
                self.streams.lock().accept(id);
            }
        }
    }

    /// Gives packets to the guest, as long as there are packets and buffers: how many.
    fn fill(&mut self) -> usize {
        let (memory, ring) = (&self.table.memory, &mut self.rings[QUEUE_RX]);
        let mut mux = self.streams.lock();
        let mut packets = 0;
        while packets < BATCH_PACKETS_MAX && mux.has_departures() {
            match ring.pop(memory, &mut self.chain) {
                Popped::Empty => break,
                Popped::Broken => {
                    self.counters.ring_error();
                    self.audit.ring("receive ring broken");
                    break;
                }
                Popped::Rejected(error) => {
                    self.counters.ring_error();
                    self.audit.chain(error);
                }
                Popped::Chain => {
                    let chain = &self.chain;
                    let outcome = mux.transmit(chain.room(), |header, payload| {
                        chain.write(memory, header, payload).is_ok()
                    });
                    let used = match outcome {
                        Transmitted::Packet(payload) => HEADER_BYTES + payload,
                        Transmitted::NoRoom | Transmitted::Refused => {
                            self.counters.ring_error();
                            0
                        }
                    };
                    ring.push_used(memory, chain.head, used as u32);
                }
            }
            packets += 1;
        }
        packets
    }

    /// Tells the guest of packets for it.
    fn call_for_packets(&mut self) {
        match self.rings[QUEUE_RX].wants_call(&self.table.memory) {
            Some(true) => {
                self.rings[QUEUE_RX].call();
                Counters::add(&self.counters.calls_sent, 1);
            }
            Some(false) => Counters::add(&self.counters.calls_suppressed, 1),
            None => {}
        }
    }

    /// Tells the guest that its own packets have been taken: only when there are many. Linux asks for this
    /// interrupt after every packet, and does no more in it than free the packet's memory.
    fn note_completions(&mut self, received: usize) {
        self.untold_packets += received;
        match self.rings[QUEUE_TX].wants_call(&self.table.memory) {
            Some(true) => self.owes_completion = true,
            Some(false) => Counters::add(&self.counters.calls_suppressed, 1),
            None => {}
        }
        if self.untold_packets >= usize::from(self.rings[QUEUE_TX].size() / COMPLETION_RING_DIVISOR) {
            self.call_for_completions();
        }
    }

    /// Whether [`Transport::call_for_completions`] is owed, if not at once.
    pub(crate) fn owes_completion(&self) -> bool {
        self.owes_completion
    }

    /// Tells the guest that its packets have been taken, if it wants to know.
    pub(crate) fn call_for_completions(&mut self) {
        self.untold_packets = 0;
        if std::mem::take(&mut self.owes_completion) {
            self.rings[QUEUE_TX].call();
            Counters::add(&self.counters.calls_sent, 1);
        }
    }

    /// Asks the guest for the kicks that are needed to go on; true if one of them is no longer needed.
    fn settle(&mut self) -> bool {
        let memory = &self.table.memory;
        let (accepts, departures) = {
            let mut mux = self.streams.lock();
            (mux.accepts_packets(), mux.has_departures())
        };
        let input = accepts && self.rings[QUEUE_TX].arm(memory);
        let output = departures && self.rings[QUEUE_RX].arm(memory);
        input || output
    }

    /// Ends every stream: the guest has begun anew, or is gone.
    pub(crate) fn lose_guest(&mut self) {
        self.streams.lock().lose_peer();
        self.publish();
    }

    fn publish(&mut self) {
        let mux = self.streams.lock();
        let now = mux.counters();
        self.counters.advance(&self.counted, &now, mux.streams_open());
        if let Some(roster) = &mut self.roster {
            roster.update(&mux);
        }
        self.counted = now;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}
