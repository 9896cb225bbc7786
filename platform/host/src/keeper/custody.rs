//! Writing down with the cell, for the next vamosd, what a relay does, and reading it again.
//!
//! A note is one write to a socket that the cell reads to its end: once written it is kept, even if vamosd
//! dies at the next instruction.

use std::os::fd::OwnedFd;

use vamos_proto::cell::{Keep, Settle, to_cell};

use super::message::{self, HEADER_BYTES, Header, Parsed, Refusal, Violation};
use super::record::{Noted, Record, Recorded};
use crate::cell::CellSender;
use vamos_channel::ChannelError;

/// Marks in a custody: all of a record has been kept, and a successor of the cell has been told all of it.
pub(super) const WHOLE: u32 = 1 << 16;
pub(super) const TOLD: u32 = WHOLE + 1;

/// Where notes go; nowhere by default.
#[derive(Debug, Default)]
pub struct Custody(Option<CellSender>);

/// What came back is not what was kept: the cell has gone bad.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// Not a message of vhost-user.
    #[error("what the cell kept is no vhost-user message")]
    NotAMessage,
    /// vamosd died before all of it was kept, just after another cell had.
    #[error("what the front-end said was not kept whole")]
    Part,
    /// Not one of this version.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// One that was never passed on.
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

impl Custody {
    /// With the cell at the other end of `sender`.
    pub fn of(sender: CellSender) -> Self {
        Self(Some(sender))
    }

    pub(super) async fn keep(&self, slot: u32, message: &Recorded, sent: u64) -> Result<(), ChannelError> {
        let Some(sender) = &self.0 else { return Ok(()) };
        let fds = message.borrowed();
        let keep = Keep { slot, message: message.wire(), descriptors: fds.len() as u32, sent };
        sender.send(to_cell::Message::Keep(keep), &fds).await
    }

    pub(super) async fn mark(&self, mark: u32) -> Result<(), ChannelError> {
        let Some(sender) = &self.0 else { return Ok(()) };
        sender.send(to_cell::Message::Keep(Keep { slot: mark, ..Keep::default() }), &[]).await
    }

    pub(super) async fn settle(&self, noted: Noted) -> Result<(), ChannelError> {
        let Some(sender) = &self.0 else { return Ok(()) };
        let settle = Settle { slot: noted.slot, forget: noted.forget };
        sender.send(to_cell::Message::Settle(settle), &[]).await
    }
}

/// A message as it was before it was kept. A cell is not trusted: it is checked as a front-end's is.
pub(super) fn restored(
    record: &Record,
    keep: &Keep,
    fds: Vec<OwnedFd>,
) -> Result<(Parsed, Recorded), CustodyError> {
    let (wire, body) = keep.message.split_first_chunk::<HEADER_BYTES>().ok_or(CustodyError::NotAMessage)?;
    let header = Header::decode(wire);
    if header.body_length()? != body.len() {
        return Err(CustodyError::NotAMessage);
    }
    let parsed = message::parse(header, body, fds.len())??;
    record.check(&parsed.request, &fds)?;
    Ok((parsed, Recorded { header, body: body.to_vec(), fds }))
}
