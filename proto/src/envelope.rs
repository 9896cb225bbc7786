//! What the messages of the private channels have in common.

use prost::Message;

use crate::cell::{FromCell, ToCell, from_cell, to_cell};
use crate::edge::{FromEdge, ToEdge, from_edge, to_edge};

/// Descriptors of an `Attach`: the device's socket, the roster, and the two that are kept.
const ATTACH_FDS: usize = 4;

/// One of several messages, as it is on the wire.
pub trait Envelope: Message + Default {
    /// What is in it.
    type Message;

    /// Puts a message in.
    fn seal(message: Self::Message) -> Self;

    /// Takes it out; `None` if it is of a kind that is not known here.
    fn open(self) -> Option<Self::Message>;

    /// How many descriptors such a message carries, at most.
    fn descriptors(message: &Self::Message) -> usize;
}

macro_rules! envelope {
    ($envelope:ty, $message:ty, $descriptors:expr) => {
        impl Envelope for $envelope {
            type Message = $message;

            fn seal(message: $message) -> Self {
                Self { message: Some(message) }
            }

            fn open(self) -> Option<$message> {
                self.message
            }

            fn descriptors(message: &$message) -> usize {
                let of: fn(&$message) -> usize = $descriptors;
                of(message)
            }
        }
    };
}

envelope!(ToCell, to_cell::Message, |message| match message {
    to_cell::Message::Attach(_) => ATTACH_FDS,
    to_cell::Message::Edge(_) => 1,
    to_cell::Message::Keep(keep) => keep.descriptors as usize,
    _ => 0,
});
envelope!(FromCell, from_cell::Message, |message| match message {
    from_cell::Message::Forked(_) => 1,
    from_cell::Message::Kept(_) => usize::MAX,
    _ => 0,
});
envelope!(ToEdge, to_edge::Message, |message| match message {
    to_edge::Message::Link(_) => 1,
    _ => 0,
});
envelope!(FromEdge, from_edge::Message, |message| match message {
    from_edge::Message::Forked(_) => 1,
    from_edge::Message::Kept(kept) => 1 + kept.listeners.len(),
    _ => 0,
});
