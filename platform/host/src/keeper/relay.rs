//! Passing one front-end's messages to the cell and the replies back.
//!
//! vhost-user is a conversation: a front-end that wants a reply waits for it. So the relay takes one message
//! at a time, and can refuse one in the front-end's face without mixing up replies.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, warn};

use super::message::{
    self, Answer, Header, PROTOCOL_FEATURES_KNOWN, PROTOCOL_REPLY_ACK, Parsed, Refusal, Request,
};
use super::record::{Record, Recorded};
use super::socket::{Message, MessageSocket, SocketError};
use crate::limits::VHOST_USER_REPLY_MAX;

/// Why a relay ended, other than by the front-end hanging up.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The VMM's side.
    #[error("front-end: {0}")]
    FrontEnd(#[source] SocketError),
    /// The cell's side.
    #[error("cell: {0}")]
    Cell(#[source] SocketError),
    /// The cell hung up.
    #[error("cell: closed the device")]
    CellGone,
    /// The front-end asked for what cannot be answered; it would wait for ever.
    #[error("front-end: {0}, which has no error reply")]
    Unanswerable(#[source] Refusal),
    /// The cell answered something else than what was asked.
    #[error("cell: answered request {asked} with {answered}")]
    WrongReply {
        /// Number of the request.
        asked: u32,
        /// Number in the reply.
        answered: u32,
    },
}

/// One front-end's conversation with its device.
#[derive(Debug)]
pub struct Relay {
    front_end: MessageSocket,
    cell: MessageSocket,
    record: Record,
    reply_max: Duration,
}

impl Relay {
    /// A relay between two connected sockets, with nothing recorded yet.
    pub fn new(front_end: MessageSocket, cell: MessageSocket) -> Self {
        Self { front_end, cell, record: Record::default(), reply_max: VHOST_USER_REPLY_MAX }
    }

    /// What the front-end has told its device so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Relays until the front-end hangs up. Dropping the relay closes both connections and with them every
    /// recorded descriptor.
    ///
    /// # Errors
    /// [`RelayError`] when either side breaks the conversation off.
    pub async fn run(&mut self) -> Result<(), RelayError> {
        loop {
            let message = tokio::select! {
                message = self.front_end.read() => message.map_err(RelayError::FrontEnd)?,
                // The cell never speaks first: anything that makes its side readable here is its end.
                unasked = self.cell.read() => return Err(end_of_cell(unasked)),
            };
            let Some(message) = message else { return Ok(()) };
            self.take(message).await?;
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), RelayError> {
        let Message { header, body, fds } = message;
        let understood = message::parse(header, &body, fds.len())
            .map_err(|violation| RelayError::FrontEnd(violation.into()))?
            .and_then(|parsed| self.record.check(&parsed.request, &fds).map(|()| parsed));
        match understood {
            Ok(parsed) => {
                let header = Header { size: parsed.body.len() as u32, ..header };
                let message = Recorded { header, body: parsed.body.clone(), fds };
                self.pass_on(&parsed, message).await
            }
            Err(refusal) => self.refuse(header, refusal).await,
        }
    }

    async fn pass_on(&mut self, parsed: &Parsed, message: Recorded) -> Result<(), RelayError> {
        let header = message.header;
        self.cell.write(header, &message.body, &message.borrowed()).await.map_err(RelayError::Cell)?;
        self.record.note(parsed, message);
        let acknowledges = self.record.protocol_features & PROTOCOL_REPLY_ACK != 0;
        if matches!(parsed.answer, Answer::Reply)
            || (parsed.answer == Answer::Acknowledgement { asked: true } && acknowledges)
        {
            self.pass_back(header.request, &parsed.request).await?;
        }
        Ok(())
    }

    async fn pass_back(&self, asked: u32, request: &Request) -> Result<(), RelayError> {
        let reply = timeout(self.reply_max, self.cell.read()).await;
        let reply = reply.map_err(|_| RelayError::Cell(SocketError::Silent(self.reply_max)))?;
        let mut reply = reply.map_err(RelayError::Cell)?.ok_or(RelayError::CellGone)?;
        if !reply.header.replies_to(asked) {
            return Err(RelayError::WrongReply { asked, answered: reply.header.request });
        }
        if *request == Request::AskProtocolFeatures
            && let Ok(offered) = <[u8; 8]>::try_from(reply.body.as_slice())
        {
            reply.body = (u64::from_ne_bytes(offered) & PROTOCOL_FEATURES_KNOWN).to_ne_bytes().to_vec();
        }
        // No reply of a vsock device carries descriptors; those of a cell gone bad end here.
        self.front_end.write(reply.header, &reply.body, &[]).await.map_err(RelayError::FrontEnd)
    }

    async fn refuse(&self, header: Header, refusal: Refusal) -> Result<(), RelayError> {
        if message::always_answered(header.request) {
            return Err(RelayError::Unanswerable(refusal));
        }
        warn!(%refusal, "vhost-user message refused, the device goes on as it was");
        if message::waits_for_verdict(header, self.record.protocol_features) {
            let verdict = 1u64.to_ne_bytes();
            let reply = header.reply(verdict.len() as u32);
            return self.front_end.write(reply, &verdict, &[]).await.map_err(RelayError::FrontEnd);
        }
        debug!("the front-end did not ask for a verdict");
        Ok(())
    }
}

fn end_of_cell(unasked: Result<Option<Message>, SocketError>) -> RelayError {
    match unasked {
        Ok(None) => RelayError::CellGone,
        Ok(Some(message)) => RelayError::WrongReply { asked: 0, answered: message.header.request },
        Err(error) => RelayError::Cell(error),
    }
}
