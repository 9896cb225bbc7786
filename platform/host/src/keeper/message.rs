//! vhost-user messages as the keeper sees them: which exist, how long they are, how many descriptors they
//! carry, whether they are answered. Pure: bytes in, a [`Request`] or the reason to refuse it out.
//!
//! Source: QEMU's `docs/interop/vhost-user.rst`, "Message specification" and "Front-end message types". A
//! message is a 12-byte header (request, flags, size: native-endian 32-bit words) and `size` bytes.
//! Only requests a vsock device needs exist here; features that would bring others are never offered.

use crate::limits::{
    CONFIG_SPACE_BYTES_MAX, MEMORY_REGIONS_MAX, QUEUE_SIZE_MAX, QUEUES_MAX, VHOST_USER_BODY_BYTES_MAX,
};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;

/// VHOST_USER_GET_FEATURES, without which nothing is offered.
pub const GET_FEATURES: u32 = 1;
/// VHOST_USER_GET_PROTOCOL_FEATURES, likewise.
pub const GET_PROTOCOL_FEATURES: u32 = 15;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0x3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// `VHOST_USER_F_PROTOCOL_FEATURES`, a bit of the virtio features.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VHOST_USER_PROTOCOL_F_REPLY_ACK`.
pub const PROTOCOL_REPLY_ACK: u64 = 1 << 3;
/// The protocol features that bring only messages the keeper knows: MQ, REPLY_ACK, BACKEND_REQ, CONFIG,
/// BACKEND_SEND_FD, RESET_DEVICE, STATUS.
pub const PROTOCOL_FEATURES_KNOWN: u64 =
    1 | PROTOCOL_REPLY_ACK | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 13 | 1 << 16;

/// Set in the payload of SET_VRING_KICK, _CALL and _ERR when no descriptor comes along.
const VRING_NO_FD: u64 = 1 << 8;
const VRING_INDEX_MASK: u64 = 0xff;

const REGION_BYTES: usize = 32;
const TABLE_HEAD_BYTES: usize = 8;
const CONFIG_HEAD_BYTES: usize = 12;

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of the request.
    pub request: u32,
    /// Version, reply and need-reply bits.
    pub flags: u32,
    /// Bytes that follow.
    pub size: u32,
}

impl Header {
    /// Reads a header; every bit pattern is one.
    pub fn decode(wire: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| u32::from_ne_bytes([wire[at], wire[at + 1], wire[at + 2], wire[at + 3]]);
        Self { request: word(0), flags: word(4), size: word(8) }
    }

    /// The header as it travels.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut wire = [0; HEADER_BYTES];
        wire[0..4].copy_from_slice(&self.request.to_ne_bytes());
        wire[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        wire[8..12].copy_from_slice(&self.size.to_ne_bytes());
        wire
    }

    /// Length of the body, once it is known to be one that may be read.
    ///
    /// # Errors
    /// [`Violation`]: the stream of messages is lost.
    pub fn body_length(self) -> Result<usize, Violation> {
        if self.flags & VERSION_MASK != VERSION {
            return Err(Violation::Version(self.flags));
        }
        let size = self.size as usize;
        if size > VHOST_USER_BODY_BYTES_MAX { Err(Violation::TooLong(self.size)) } else { Ok(size) }
    }

    /// Whether this is a reply to a request of number `request`.
    pub fn replies_to(self, request: u32) -> bool {
        self.request == request && self.flags & REPLY != 0
    }

    /// The header of a request without a body.
    pub fn request(request: u32) -> Self {
        Self { request, flags: VERSION, size: 0 }
    }

    /// The same request, its acknowledgement not asked for.
    pub fn without_reply(self) -> Self {
        Self { flags: self.flags & !NEED_REPLY, ..self }
    }

    /// The reply header to this request, with a body of `size` bytes.
    pub fn reply(self, size: u32) -> Self {
        Self { request: self.request, flags: VERSION | REPLY, size }
    }

    fn asks_for_ack(self) -> bool {
        self.flags & NEED_REPLY != 0
    }
}

/// A front-end that does not speak vhost-user: the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Another version of the protocol.
    #[error("flags {0:#x} are not of version 1 of vhost-user")]
    Version(u32),
    /// A body nobody would send.
    #[error("a message of {0} bytes, the limit is {VHOST_USER_BODY_BYTES_MAX}")]
    TooLong(u32),
    /// A reply where only requests may come.
    #[error("a reply to request {0} that nobody made")]
    UnexpectedReply(u32),
}

/// A request that is not passed on. The device stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No device of ours has it.
    #[error("request {0} is not one a vsock device has")]
    Unknown(u32),
    /// Not the length this request has.
    #[error("{name} has {size} bytes")]
    Size {
        /// The request.
        name: &'static str,
        /// Its body's length.
        size: usize,
    },
    /// Not as many descriptors as this request carries.
    #[error("{name} came with {fds} descriptors instead of {expected}")]
    Descriptors {
        /// The request.
        name: &'static str,
        /// How many came.
        fds: usize,
        /// How many belong to it.
        expected: usize,
    },
    /// A queue the device does not have.
    #[error("{name} names queue {index} of {QUEUES_MAX}")]
    Queue {
        /// The request.
        name: &'static str,
        /// The queue.
        index: u64,
    },
    /// Not a size a split queue can have.
    #[error("{0} is not a queue size: a power of two up to {QUEUE_SIZE_MAX}")]
    QueueSize(u32),
    /// The queue is in use.
    #[error("queue {0} is running, its size cannot change")]
    QueueRunning(usize),
    /// A memory table without regions, or with too many.
    #[error("a memory table of {0} regions, 1 to {MEMORY_REGIONS_MAX} are possible")]
    Regions(u32),
    /// A region that is empty, wraps around or shares addresses with another.
    #[error("memory region {0} is empty, wraps around or overlaps another")]
    Region(usize),
    /// The file behind a region is shorter than the region.
    #[error("memory region {0} is larger than its file")]
    RegionFile(usize),
    /// A request for configuration space beyond its end.
    #[error("configuration space of {0} bytes")]
    ConfigSpace(u32),
    /// Features that were never offered.
    #[error("protocol features {0:#x} were not offered")]
    Features(u64),
}

/// What the front-end expects to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing, or an acknowledgement if it asked for one and REPLY_ACK was negotiated.
    Acknowledgement {
        /// The need-reply bit.
        asked: bool,
    },
    /// A reply with a body, always.
    Reply,
}

/// One region of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// Where it starts in its file.
    pub offset: u64,
}

/// A request the keeper understands and will pass on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// GET_FEATURES, GET_QUEUE_NUM, GET_CONFIG, GET_STATUS: asks, changes nothing.
    Ask,
    /// GET_PROTOCOL_FEATURES: the reply is cut down to [`PROTOCOL_FEATURES_KNOWN`].
    AskProtocolFeatures,
    /// SET_OWNER.
    SetOwner,
    /// RESET_OWNER, RESET_DEVICE.
    Reset,
    /// SET_FEATURES.
    SetFeatures(u64),
    /// SET_PROTOCOL_FEATURES.
    SetProtocolFeatures(u64),
    /// SET_MEM_TABLE; one descriptor a region.
    SetMemTable(Vec<Region>),
    /// SET_VRING_NUM.
    SetVringNum {
        /// Which queue.
        queue: usize,
        /// Its size, entries.
        size: u32,
    },
    /// SET_VRING_ADDR.
    SetVringAddr {
        /// Which queue.
        queue: usize,
    },
    /// SET_VRING_BASE.
    SetVringBase {
        /// Which queue.
        queue: usize,
    },
    /// GET_VRING_BASE: stops the queue.
    GetVringBase {
        /// Which queue.
        queue: usize,
    },
    /// SET_VRING_KICK; a descriptor unless the front-end polls.
    SetVringKick {
        /// Which queue.
        queue: usize,
    },
    /// SET_VRING_CALL.
    SetVringCall {
        /// Which queue.
        queue: usize,
    },
    /// SET_VRING_ERR.
    SetVringErr {
        /// Which queue.
        queue: usize,
    },
    /// SET_VRING_ENABLE.
    SetVringEnable {
        /// Which queue.
        queue: usize,
        /// On or off.
        on: bool,
    },
    /// SET_BACKEND_REQ_FD; one descriptor.
    SetBackendReqFd,
    /// SET_CONFIG.
    SetConfig,
    /// SET_STATUS.
    SetStatus,
}

/// A request with what surrounds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What is asked.
    pub request: Request,
    /// What the front-end waits for.
    pub answer: Answer,
    /// The body to pass on: the front-end's, without what the request's own count does not cover.
    pub body: Vec<u8>,
}

/// Understands one whole message. `fds` is the number of descriptors that came with it.
///
/// # Errors
/// The outer one ends the connection, the inner one refuses this message only.
pub fn parse(header: Header, body: &[u8], fds: usize) -> Result<Result<Parsed, Refusal>, Violation> {
    if header.flags & REPLY != 0 {
        return Err(Violation::UnexpectedReply(header.request));
    }
    Ok(Fields { body, fds }.request(header))
}

/// Whether a front-end always waits for a reply to this request, so that it cannot be refused quietly.
pub fn always_answered(request: u32) -> bool {
    matches!(request, 1 | 11 | 15 | 17 | 24 | 40)
}

/// Whether the front-end of a refused message waits for a verdict, given what was negotiated.
pub fn waits_for_verdict(header: Header, protocol_features: u64) -> bool {
    header.asks_for_ack() && protocol_features & PROTOCOL_REPLY_ACK != 0
}

struct Fields<'a> {
    body: &'a [u8],
    fds: usize,
}

impl Fields<'_> {
    fn request(&self, header: Header) -> Result<Parsed, Refusal> {
        let acknowledged = Answer::Acknowledgement { asked: header.asks_for_ack() };
        let (request, answer) = match header.request {
            1 | 17 | 40 => (self.empty("GET_FEATURES")?, Answer::Reply),
            15 => (self.empty("GET_PROTOCOL_FEATURES").map(|_| Request::AskProtocolFeatures)?, Answer::Reply),
            24 => (self.config("GET_CONFIG", Request::Ask)?, Answer::Reply),
            11 => (Request::GetVringBase { queue: self.state("GET_VRING_BASE")?.0 }, Answer::Reply),
            2 => (Request::SetFeatures(self.number("SET_FEATURES", 0)?), acknowledged),
            3 => (self.empty("SET_OWNER").map(|_| Request::SetOwner)?, acknowledged),
            4 | 34 => (self.empty("RESET_DEVICE").map(|_| Request::Reset)?, acknowledged),
            5 => return self.memory_table(acknowledged),
            8 => (self.vring_num()?, acknowledged),
            9 => (Request::SetVringAddr { queue: self.address()? }, acknowledged),
            10 => (Request::SetVringBase { queue: self.state("SET_VRING_BASE")?.0 }, acknowledged),
            12 => (Request::SetVringKick { queue: self.vring_fd("SET_VRING_KICK")? }, acknowledged),
            13 => (Request::SetVringCall { queue: self.vring_fd("SET_VRING_CALL")? }, acknowledged),
            14 => (Request::SetVringErr { queue: self.vring_fd("SET_VRING_ERR")? }, acknowledged),
            16 => (self.protocol_features()?, acknowledged),
            18 => {
                let (queue, value) = self.state("SET_VRING_ENABLE")?;
                (Request::SetVringEnable { queue, on: value != 0 }, acknowledged)
            }
            21 => (self.exact("SET_BACKEND_REQ_FD", 0, 1).map(|()| Request::SetBackendReqFd)?, acknowledged),
            25 => (self.config("SET_CONFIG", Request::SetConfig)?, acknowledged),
            39 => (self.number("SET_STATUS", 0).map(|_| Request::SetStatus)?, acknowledged),
            unknown => return Err(Refusal::Unknown(unknown)),
        };
        Ok(Parsed { request, answer, body: self.body.to_vec() })
    }

    fn exact(&self, name: &'static str, size: usize, fds: usize) -> Result<(), Refusal> {
        if self.body.len() != size {
            return Err(Refusal::Size { name, size: self.body.len() });
        }
        self.descriptors(name, fds)
    }

    fn descriptors(&self, name: &'static str, expected: usize) -> Result<(), Refusal> {
        if self.fds == expected {
            Ok(())
        } else {
            Err(Refusal::Descriptors { name, fds: self.fds, expected })
        }
    }

    fn empty(&self, name: &'static str) -> Result<Request, Refusal> {
        self.exact(name, 0, 0).map(|()| Request::Ask)
    }

    fn number(&self, name: &'static str, fds: usize) -> Result<u64, Refusal> {
        self.exact(name, 8, fds)?;
        Ok(self.u64_at(0))
    }

    /// `u32 index, u32 value`.
    fn state(&self, name: &'static str) -> Result<(usize, u32), Refusal> {
        self.exact(name, 8, 0)?;
        Ok((queue(name, u64::from(self.u32_at(0)))?, self.u32_at(4)))
    }

    fn vring_num(&self) -> Result<Request, Refusal> {
        let (queue, size) = self.state("SET_VRING_NUM")?;
        if !size.is_power_of_two() || size > QUEUE_SIZE_MAX {
            return Err(Refusal::QueueSize(size));
        }
        Ok(Request::SetVringNum { queue, size })
    }

    /// `u32 index, u32 flags, u64 descriptor, u64 used, u64 available, u64 log`.
    fn address(&self) -> Result<usize, Refusal> {
        self.exact("SET_VRING_ADDR", 40, 0)?;
        queue("SET_VRING_ADDR", u64::from(self.u32_at(0)))
    }

    fn vring_fd(&self, name: &'static str) -> Result<usize, Refusal> {
        if self.body.len() != 8 {
            return Err(Refusal::Size { name, size: self.body.len() });
        }
        let value = self.u64_at(0);
        self.descriptors(name, usize::from(value & VRING_NO_FD == 0))?;
        queue(name, value & VRING_INDEX_MASK)
    }

    fn protocol_features(&self) -> Result<Request, Refusal> {
        let features = self.number("SET_PROTOCOL_FEATURES", 0)?;
        if features & !PROTOCOL_FEATURES_KNOWN != 0 {
            return Err(Refusal::Features(features));
        }
        Ok(Request::SetProtocolFeatures(features))
    }

    /// `u32 offset, u32 size, u32 flags, size bytes`.
    fn config(&self, name: &'static str, request: Request) -> Result<Request, Refusal> {
        if self.body.len() < CONFIG_HEAD_BYTES {
            return Err(Refusal::Size { name, size: self.body.len() });
        }
        let (offset, size) = (self.u32_at(0), self.u32_at(4));
        if offset.checked_add(size).is_none_or(|end| end > CONFIG_SPACE_BYTES_MAX) {
            return Err(Refusal::ConfigSpace(size));
        }
        self.exact(name, CONFIG_HEAD_BYTES + size as usize, 0)?;
        Ok(request)
    }

    /// `u32 count, u32 padding`, then a region each: `u64 guest, u64 size, u64 user, u64 offset`.
    ///
    /// User-mode Linux sends slots its own count does not cover: they are cut off here, because a
    /// backend may take the length for what it says.
    fn memory_table(&self, answer: Answer) -> Result<Parsed, Refusal> {
        let name = "SET_MEM_TABLE";
        if self.body.len() < TABLE_HEAD_BYTES {
            return Err(Refusal::Size { name, size: self.body.len() });
        }
        let announced = self.u32_at(0);
        let count = announced as usize;
        if !(1..=MEMORY_REGIONS_MAX).contains(&count) {
            return Err(Refusal::Regions(announced));
        }
        let length = TABLE_HEAD_BYTES + count * REGION_BYTES;
        let Some(body) = self.body.get(..length) else {
            return Err(Refusal::Size { name, size: self.body.len() });
        };
        self.descriptors(name, count)?;
        let regions: Vec<_> = (0..count)
            .map(|slot| {
                let at = TABLE_HEAD_BYTES + slot * REGION_BYTES;
                Region { guest: self.u64_at(at), size: self.u64_at(at + 8), offset: self.u64_at(at + 24) }
            })
            .collect();
        check_regions(&regions)?;
        Ok(Parsed { request: Request::SetMemTable(regions), answer, body: body.to_vec() })
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.body[at..at + 4]);
        u32::from_ne_bytes(word)
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.body[at..at + 8]);
        u64::from_ne_bytes(word)
    }
}

fn queue(name: &'static str, index: u64) -> Result<usize, Refusal> {
    match usize::try_from(index) {
        Ok(queue) if queue < QUEUES_MAX => Ok(queue),
        _ => Err(Refusal::Queue { name, index }),
    }
}

fn check_regions(regions: &[Region]) -> Result<(), Refusal> {
    for (slot, region) in regions.iter().enumerate() {
        let fits = region.guest.checked_add(region.size).is_some()
            && region.offset.checked_add(region.size).is_some();
        // Only sums of regions already known to fit are made.
        let apart = |other: &Region| {
            region.guest + region.size <= other.guest || other.guest + other.size <= region.guest
        };
        if region.size == 0 || !fits || !regions[..slot].iter().all(apart) {
            return Err(Refusal::Region(slot));
        }
    }
    Ok(())
}
