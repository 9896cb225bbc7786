//! What a VM's front-end has told its device so far: the state, not a log, so that it stays small however
//! often a guest resets its driver, and a successor of the cell can be told the same.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
    /// The descriptors, to be sent.
    pub fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }
}

/// One queue's last settings.
#[derive(Debug, Default)]
struct Vring {
    num: Option<Recorded>,
    base: Option<Recorded>,
    addr: Option<Recorded>,
    call: Option<Recorded>,
    err: Option<Recorded>,
    kick: Option<Recorded>,
    enable: Option<Recorded>,
    enabled: bool,
}

/// The state of one front-end's device.
#[derive(Debug, Default)]
pub struct Record {
    features: u64,
    /// Protocol features negotiated; decides whether refusals are answered.
    pub protocol_features: u64,
    owner: Option<Recorded>,
    set_protocol_features: Option<Recorded>,
    set_features: Option<Recorded>,
    memory: Option<Recorded>,
    backend: Option<Recorded>,
    status: Option<Recorded>,
    vrings: [Vring; QUEUES_MAX],
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
        let vring = &self.vrings[queue];
        vring.kick.is_some() && (vring.enabled || self.features & F_PROTOCOL_FEATURES == 0)
    }

    /// Remembers a message that was passed on, in the place of its predecessor.
    pub fn note(&mut self, parsed: &Parsed, message: Recorded) {
        match parsed.request {
            Request::Ask | Request::AskProtocolFeatures | Request::SetConfig => {}
            Request::SetOwner => self.owner = Some(message),
            Request::Reset => self.vrings = Default::default(),
            Request::SetFeatures(features) => {
                self.features = features;
                self.set_features = Some(message);
            }
            Request::SetProtocolFeatures(features) => {
                self.protocol_features = features;
                self.set_protocol_features = Some(message);
            }
            Request::SetMemTable(_) => self.memory = Some(message),
            Request::SetVringNum { queue, .. } => self.vrings[queue].num = Some(message),
            Request::SetVringAddr { queue } => self.vrings[queue].addr = Some(message),
            Request::SetVringBase { queue } => self.vrings[queue].base = Some(message),
            Request::GetVringBase { queue } => {
                // Stopped: the front-end starts the queue anew, with new descriptors.
                self.vrings[queue].kick = None;
                self.vrings[queue].base = None;
            }
            Request::SetVringKick { queue } => self.vrings[queue].kick = Some(message),
            Request::SetVringCall { queue } => self.vrings[queue].call = Some(message),
            Request::SetVringErr { queue } => self.vrings[queue].err = Some(message),
            Request::SetVringEnable { queue, on } => {
                self.vrings[queue].enabled = on;
                self.vrings[queue].enable = Some(message);
            }
            Request::SetBackendReqFd => self.backend = Some(message),
            Request::SetStatus => self.status = Some(message),
        }
    }

    /// The messages that bring a successor of the cell to this state, in an order the protocol allows. The
    /// ring bases are the ones the front-end gave: a successor takes the real ones from the used rings.
    pub fn replay(&self) -> impl Iterator<Item = &Recorded> {
        let device =
            [&self.owner, &self.set_protocol_features, &self.set_features, &self.backend, &self.memory];
        let queues = self.vrings.iter().flat_map(|vring| {
            [&vring.num, &vring.base, &vring.addr, &vring.call, &vring.err, &vring.kick, &vring.enable]
        });
        device.into_iter().chain(queues).chain([&self.status]).flatten()
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
