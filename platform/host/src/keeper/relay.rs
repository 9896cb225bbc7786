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

impl RelayError {
    /// Whether the cell is to blame: the front-end can be given another.
    pub fn is_of_cell(&self) -> bool {
        match self {
            Self::Cell(_) | Self::CellGone | Self::WrongReply { .. } => true,
            Self::FrontEnd(_) | Self::Unanswerable(_) => false,
        }
    }
}

/// One front-end's conversation with its device.
#[derive(Debug)]
pub struct Relay {
    front_end: MessageSocket,
    cell: MessageSocket,
    record: Record,
    /// The message whose effect the cell has not confirmed.
    in_hand: Option<(Parsed, Recorded)>,
    reply_max: Duration,
}

impl Relay {
    /// A relay between two connected sockets, with nothing recorded yet.
    pub fn new(front_end: MessageSocket, cell: MessageSocket) -> Self {
        Self { front_end, cell, record: Record::default(), in_hand: None, reply_max: VHOST_USER_REPLY_MAX }
    }

    /// What the front-end has told its device so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether the front-end has hung up, which is noticed by itself only while a cell serves it.
    pub fn is_abandoned(&self) -> bool {
        self.front_end.has_hung_up()
    }

    /// Tells another cell at the other end of `cell` everything the last one was told, so that it serves the
    /// running guest, and passes on what the last one did not confirm. Then [`Relay::run`] goes on.
    ///
    /// # Errors
    /// [`RelayError`]; with one of the cell's the relay can be given yet another.
    pub async fn succeed(&mut self, cell: MessageSocket) -> Result<(), RelayError> {
        self.cell = cell;
        // It answers as the last one did, and has to be asked for that: what it offers it must also have
        // offered.
        let asked = [message::GET_FEATURES, message::GET_PROTOCOL_FEATURES];
        for request in asked {
            self.ask(request).await?;
        }
        for message in self.record.replay() {
            let header = message.header.without_reply();
            let sent = self.cell.write(header, &message.body, &message.borrowed()).await;
            sent.map_err(RelayError::Cell)?;
        }
        // Once this is answered, all of it has been heard.
        self.ask(message::GET_FEATURES).await?;
        self.carry().await
    }

    async fn ask(&self, request: u32) -> Result<(), RelayError> {
        let header = Header::request(request);
        self.cell.write(header, &[], &[]).await.map_err(RelayError::Cell)?;
        self.reply_of_cell(request).await.map(drop)
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
                self.in_hand = Some((parsed, message));
                self.carry().await
            }
            Err(refusal) => self.refuse(header, refusal).await,
        }
    }

    /// Passes on the message in hand, which stays there unless the cell has done its part.
    async fn carry(&mut self) -> Result<(), RelayError> {
        let Some((parsed, message)) = &self.in_hand else { return Ok(()) };
        let reply = self.pass_on(parsed, message).await?;
        if let Some((parsed, message)) = self.in_hand.take() {
            self.record.note(&parsed, message);
        }
        let Some(reply) = reply else { return Ok(()) };
        // No reply of a vsock device carries descriptors; those of a cell gone bad end here.
        self.front_end.write(reply.header, &reply.body, &[]).await.map_err(RelayError::FrontEnd)
    }

    /// Has the cell do what the message asks: its reply, if the front-end waits for one.
    async fn pass_on(&self, parsed: &Parsed, message: &Recorded) -> Result<Option<Message>, RelayError> {
        let asked = message.header.request;
        self.cell
            .write(message.header, &message.body, &message.borrowed())
            .await
            .map_err(RelayError::Cell)?;
        let features = match parsed.request {
            Request::SetProtocolFeatures(features) => features,
            _ => self.record.protocol_features,
        };
        let acknowledges = features & PROTOCOL_REPLY_ACK != 0;
        let replies = parsed.answer == Answer::Reply
            || (parsed.answer == Answer::Acknowledgement { asked: true } && acknowledges);
        if !replies {
            return Ok(None);
        }
        let mut reply = self.reply_of_cell(asked).await?;
        if parsed.request == Request::AskProtocolFeatures
            && let Ok(offered) = <[u8; 8]>::try_from(reply.body.as_slice())
        {
            reply.body = (u64::from_ne_bytes(offered) & PROTOCOL_FEATURES_KNOWN).to_ne_bytes().to_vec();
        }
        Ok(Some(reply))
    }

    async fn reply_of_cell(&self, asked: u32) -> Result<Message, RelayError> {
        let reply = timeout(self.reply_max, self.cell.read()).await;
        let reply = reply.map_err(|_| RelayError::Cell(SocketError::Silent(self.reply_max)))?;
        let reply = reply.map_err(RelayError::Cell)?.ok_or(RelayError::CellGone)?;
        if !reply.header.replies_to(asked) {
            return Err(RelayError::WrongReply { asked, answered: reply.header.request });
        }
        Ok(reply)
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
