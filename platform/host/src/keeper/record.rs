//! What a VM's front-end has told its device so far: the state, not a log, so that it stays small however
//! often a guest resets its driver, and a successor of the cell can be told the same.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vamos_proto::cell::IN_HAND;

use super::message::{F_PROTOCOL_FEATURES, Header, Parsed, Refusal, Region, Request};
use crate::limits::QUEUES_MAX;

/// A message as it was received: header, body and descriptors.
#[derive(Debug)]
pub struct Recorded {
    /// Its header, with the length of `body`.
    pub header: Header,
    /// Its body.
    pub body: Vec<u8>,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
}

impl Recorded {
    /// Header and body as they travel.
    pub fn wire(&self) -> Vec<u8> {
        [&self.header.encode(), self.body.as_slice()].concat()
    }

    /// The descriptors, to be sent.
    pub fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }
}

/// Places of a record, in the order in which a successor of the cell is told. 0 is
/// [`vamos_proto::cell::IN_HAND`].
const OWNER: u32 = 1;
const PROTOCOL_FEATURES: u32 = 2;
const FEATURES: u32 = 3;
const BACKEND: u32 = 4;
const MEMORY: u32 = 5;
const QUEUES: u32 = 8;
const STATUS: u32 = QUEUES + QUEUE_SLOTS * QUEUES_MAX as u32;

/// Places of one queue.
const QUEUE_SLOTS: u32 = 8;
const NUM: u32 = 0;
const BASE: u32 = 1;
const ADDR: u32 = 2;
const CALL: u32 = 3;
const ERR: u32 = 4;
const KICK: u32 = 5;
const ENABLE: u32 = 6;

const fn of_queue(queue: usize, slot: u32) -> u32 {
    QUEUES + QUEUE_SLOTS * queue as u32 + slot
}

/// What a message changed in a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Where it is kept; 0 if it need not be.
    pub slot: u32,
    /// The places it made void.
    pub forget: Vec<u32>,
}

/// The state of one front-end's device.
#[derive(Debug, Default)]
pub struct Record {
    features: u64,
    /// Protocol features negotiated; decides whether refusals are answered.
    pub protocol_features: u64,
    enabled: [bool; QUEUES_MAX],
    messages: BTreeMap<u32, Recorded>,
}

impl Record {
    /// Checks what only the state so far and the descriptors can tell, before the message is passed on.
    ///
    /// # Errors
    /// [`Refusal`]: the message is not passed on.
    pub fn check(&self, request: &Request, fds: &[OwnedFd]) -> Result<(), Refusal> {
        match request {
            Request::SetVringNum { queue, .. } if self.running(*queue) => Err(Refusal::QueueRunning(*queue)),
            Request::SetMemTable(regions) => check_files(regions, fds),
            _ => Ok(()),
        }
    }

    /// A queue runs from its kick descriptor to GET_VRING_BASE, while it is enabled; without
    /// VHOST_USER_F_PROTOCOL_FEATURES there is no enabling and it always is (vhost-user, "Ring states").
    fn running(&self, queue: usize) -> bool {
        self.messages.contains_key(&of_queue(queue, KICK))
            && (self.enabled[queue] || self.features & F_PROTOCOL_FEATURES == 0)
    }

    /// Remembers a message that was passed on, in the place of its predecessor.
    pub fn note(&mut self, parsed: &Parsed, message: Recorded) -> Noted {
        let noted = self.place(parsed);
        for slot in &noted.forget {
            self.messages.remove(slot);
        }
        if noted.slot != IN_HAND {
            self.messages.insert(noted.slot, message);
        }
        noted
    }

    fn place(&mut self, parsed: &Parsed) -> Noted {
        let at = |slot| Noted { slot, forget: Vec::new() };
        match parsed.request {
            Request::Ask | Request::AskProtocolFeatures | Request::SetConfig => Noted::default(),
            Request::SetOwner => at(OWNER),
            Request::Reset => {
                self.enabled = Default::default();
                Noted { slot: IN_HAND, forget: (QUEUES..STATUS).collect() }
            }
            Request::SetFeatures(features) => {
                self.features = features;
                at(FEATURES)
            }
            Request::SetProtocolFeatures(features) => {
                self.protocol_features = features;
                at(PROTOCOL_FEATURES)
            }
            Request::SetMemTable(_) => at(MEMORY),
            Request::SetVringNum { queue, .. } => at(of_queue(queue, NUM)),
            Request::SetVringAddr { queue } => at(of_queue(queue, ADDR)),
            Request::SetVringBase { queue } => at(of_queue(queue, BASE)),
            // Stopped: the front-end starts the queue anew, with new descriptors.
            Request::GetVringBase { queue } => {
                Noted { slot: IN_HAND, forget: vec![of_queue(queue, KICK), of_queue(queue, BASE)] }
            }
            Request::SetVringKick { queue } => at(of_queue(queue, KICK)),
            Request::SetVringCall { queue } => at(of_queue(queue, CALL)),
            Request::SetVringErr { queue } => at(of_queue(queue, ERR)),
            Request::SetVringEnable { queue, on } => {
                self.enabled[queue] = on;
                at(of_queue(queue, ENABLE))
            }
            Request::SetBackendReqFd => at(BACKEND),
            Request::SetStatus => at(STATUS),
        }
    }

    /// The messages, with their places, that bring a successor of the cell to this state, in an order the
    /// protocol allows. The ring bases are the ones the front-end gave: a successor takes the real ones from the
    /// used rings.
    pub fn replay(&self) -> impl Iterator<Item = (u32, &Recorded)> {
        self.messages.iter().map(|(slot, message)| (*slot, message))
    }
}

/// Every region must lie within its file: beyond the end, an access is a bus error.
fn check_files(regions: &[Region], fds: &[OwnedFd]) -> Result<(), Refusal> {
    for (slot, (region, fd)) in regions.iter().zip(fds).enumerate() {
        let length = rustix::fs::fstat(fd).map(|stat| u64::try_from(stat.st_size).unwrap_or(0)).unwrap_or(0);
        if region.offset.checked_add(region.size).is_none_or(|end| end > length) {
            return Err(Refusal::RegionFile(slot));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::*;
    use std::fs::File;

    fn take(record: &mut Record, request: u32, body: &[u8], fds: usize) -> Result<(), Refusal> {
        let header = Header { request, flags: 1, size: body.len() as u32 };
        let parsed = message::parse(header, body, fds).unwrap()?;
        let fds: Vec<OwnedFd> = (0..fds).map(|_| File::open("/dev/null").unwrap().into()).collect();
        record.check(&parsed.request, &fds)?;
        let body = parsed.body.clone();
        record.note(&parsed, Recorded { header, body, fds });
        Ok(())
    }

    fn pair(index: u32, value: u32) -> Vec<u8> {
        [index.to_ne_bytes(), value.to_ne_bytes()].concat()
    }

    #[test]
    fn a10_a_running_queue_keeps_its_size() {
        let mut record = Record::default();
        take(&mut record, 2, &F_PROTOCOL_FEATURES.to_ne_bytes(), 0).unwrap();
        take(&mut record, 8, &pair(0, 256), 0).unwrap();
        take(&mut record, 12, &0u64.to_ne_bytes(), 1).unwrap();
        take(&mut record, 8, &pair(0, 128), 0).expect("kicked but not enabled: not running");
        take(&mut record, 18, &pair(0, 1), 0).unwrap();
        assert_eq!(take(&mut record, 8, &pair(0, 64), 0), Err(Refusal::QueueRunning(0)));
        take(&mut record, 8, &pair(1, 64), 0).expect("the other queue is not running");
        take(&mut record, 11, &pair(0, 0), 0).unwrap();
        take(&mut record, 8, &pair(0, 64), 0).expect("stopped");
    }

    #[test]
    fn the_record_does_not_grow_with_time() {
        let mut record = Record::default();
        for _ in 0..1000 {
            for queue in 0..QUEUES_MAX as u32 {
                take(&mut record, 8, &pair(queue, 256), 0).unwrap();
                take(&mut record, 12, &u64::from(queue).to_ne_bytes(), 1).unwrap();
                take(&mut record, 13, &u64::from(queue).to_ne_bytes(), 1).unwrap();
                take(&mut record, 18, &pair(queue, 1), 0).unwrap();
                take(&mut record, 11, &pair(queue, 0), 0).unwrap();
                take(&mut record, 18, &pair(queue, 0), 0).unwrap();
            }
        }
        assert_eq!(record.replay().count(), 3 * QUEUES_MAX, "size, call and enable of each queue");
    }
}
