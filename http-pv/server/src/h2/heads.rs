//! Heads of frames (RFC 9113, section 4.1) as they pass in a stream of bytes that is cut anywhere.

use ::h2::Reason;

/// Length of a frame's head, bytes.
pub(super) const HEAD_BYTES: usize = 9;

/// Length of what a client says first (RFC 9113, section 3.4), bytes.
pub(super) const PREFACE_BYTES: usize = 24;

/// Length of one setting, bytes.
const SETTING_BYTES: usize = 6;

/// A frame's payload that we have not agreed to be longer, bytes (RFC 9113, section 6.5.2).
pub(super) const FRAME_BYTES: u32 = 1 << 14;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITIZED: u8 = 0x20;

/// What a frame is (RFC 9113, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

impl From<u8> for Kind {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

/// The head of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the payload, bytes.
    pub(super) length: u32,
    pub(super) kind: Kind,
    flags: u8,
    stream: u32,
}

impl Head {
    pub(super) fn read([a, b, c, kind, flags, s0, s1, s2, s3]: [u8; HEAD_BYTES]) -> Self {
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: kind.into(),
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    /// A frame of content that has none, and ends none.
    pub(super) fn is_idle_data(&self) -> bool {
        self.kind == Kind::Data && self.length == 0 && self.flags & END_STREAM == 0
    }

    /// What can be told of a client's frame by its head alone.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub(super) fn check(&self) -> Result<(), Reason> {
        let fits = |right: bool| if right { Ok(()) } else { Err(Reason::FRAME_SIZE_ERROR) };
        let of_stream = |right: bool| if right { Ok(()) } else { Err(Reason::PROTOCOL_ERROR) };
        fits(self.length <= FRAME_BYTES)?;
        let padding = u32::from(self.flags & PADDED != 0);
        match self.kind {
            Kind::Data => {
                of_stream(self.stream != 0)?;
                fits(self.length >= padding)
            }
            Kind::Headers => {
                of_stream(self.stream % 2 == 1)?;
                let priority = if self.flags & PRIORITIZED != 0 { 5 } else { 0 };
                fits(self.length >= padding + priority)
            }
            Kind::Priority => {
                of_stream(self.stream != 0)?;
                fits(self.length == 5)
            }
            Kind::Reset => {
                of_stream(self.stream != 0)?;
                fits(self.length == 4)
            }
            Kind::Settings => {
                of_stream(self.stream == 0)?;
                if self.flags & ACK != 0 {
                    return fits(self.length == 0);
                }
                fits(self.length.is_multiple_of(SETTING_BYTES as u32))
            }
            // A client pushes nothing (RFC 9113, section 8.4).
            Kind::PushPromise => Err(Reason::PROTOCOL_ERROR),
            Kind::Ping => {
                of_stream(self.stream == 0)?;
                fits(self.length == 8)
            }
            Kind::GoAway => {
                of_stream(self.stream == 0)?;
                fits(self.length >= 8)
            }
            Kind::WindowUpdate => fits(self.length == 4),
            Kind::Continuation => of_stream(self.stream != 0),
            Kind::Unknown => Ok(()),
        }
    }

    /// Whether a connection may begin with it.
    pub(super) fn may_be_first(&self) -> bool {
        self.kind == Kind::Settings && self.flags & ACK == 0
    }
}

/// Follows the frames in a stream of bytes.
pub(super) struct Heads {
    /// What is left of the present frame, or of what comes before the first.
    left: usize,
    head: [u8; HEAD_BYTES],
    /// How much of `head` there is.
    have: usize,
}

impl Heads {
    /// The first frame begins after so many bytes.
    pub(super) fn after(left: usize) -> Self {
        Self { left, head: [0; HEAD_BYTES], have: 0 }
    }

    /// The next step through `bytes`, with how many of them it took; `None` at their end.
    pub(super) fn step<'a>(&mut self, bytes: &'a [u8]) -> Option<(usize, Step<'a>)> {
        if bytes.is_empty() {
            return None;
        }
        if self.left > 0 {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            return Some((taken, Step::Payload(bytes.get(..taken).unwrap_or(bytes))));
        }
        let taken = (HEAD_BYTES - self.have).min(bytes.len());
        for (to, from) in self.head.iter_mut().skip(self.have).zip(bytes) {
            *to = *from;
        }
        self.have += taken;
        if self.have < HEAD_BYTES {
            return Some((taken, Step::Part));
        }
        self.have = 0;
        let head = Head::read(self.head);
        self.left = head.length as usize;
        Some((taken, Step::Head(head)))
    }
}

/// What some bytes of the stream are.
pub(super) enum Step<'a> {
    /// Of a frame's head, which is not whole yet.
    Part,
    /// The last of this head.
    Head(Head),
    /// Of the payload.
    Payload(&'a [u8]),
}

/// Follows the settings in a frame of them.
#[derive(Default)]
pub(super) struct Settings {
    entry: [u8; SETTING_BYTES],
    have: usize,
}

impl Settings {
    /// Looks at more of the payload.
    ///
    /// # Errors
    /// One of them is none (RFC 9113, section 6.5.2; RFC 8441, section 3).
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        for byte in bytes {
            if let Some(place) = self.entry.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            if self.have < SETTING_BYTES {
                continue;
            }
            self.have = 0;
            let [i0, i1, v0, v1, v2, v3] = self.entry;
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                // ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL
                0x2 | 0x8 if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                // INITIAL_WINDOW_SIZE
                0x4 if value > (1 << 31) - 1 => return Err(Reason::FLOW_CONTROL_ERROR),
                // MAX_FRAME_SIZE
                0x5 if !(FRAME_BYTES..1 << 24).contains(&value) => return Err(Reason::PROTOCOL_ERROR),
                _ => {}
            }
        }
        Ok(())
    }
}
