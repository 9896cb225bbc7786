//! Passing one front-end's messages to the cell and the replies back.
//!
//! vhost-user is a conversation: a front-end that wants a reply waits for it. So the relay takes one message
//! at a time, and can refuse one in the front-end's face without mixing up replies.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, info, warn};
use vamos_proto::cell::{IN_HAND, Keep};

use super::custody::{self, Custody, CustodyError, TOLD, WHOLE};
use super::message::{
    self, Answer, Header, PROTOCOL_FEATURES_KNOWN, PROTOCOL_REPLY_ACK, Parsed, Refusal, Request,
};
use super::record::{Record, Recorded};
use super::socket::{Message, MessageSocket, SocketError};
use crate::limits::VHOST_USER_REPLY_MAX;
use vamos_channel::ChannelError;

/// Why a relay ended, other than by the front-end hanging up.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The VMM's side.
    #[error("front-end: {0}")]
    FrontEnd(#[source] SocketError),
    /// The cell's side.
    #[error("cell: {0}")]
    Cell(#[source] SocketError),
    /// The cell cannot be given anything to keep.
    #[error("cell: {0}")]
    Custody(#[from] ChannelError),
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
            Self::Cell(_) | Self::Custody(_) | Self::CellGone | Self::WrongReply { .. } => true,
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
    /// Messages this cell's device was sent.
    sent: u64,
    custody: Custody,
    reply_max: Duration,
}

impl Relay {
    /// A relay between two connected sockets, with nothing recorded yet.
    pub fn new(front_end: MessageSocket, cell: MessageSocket) -> Self {
        Self::of(front_end, cell, Record::default())
    }

    /// A relay that goes on where the one of a dead vamosd ended: `kept` is what that one had written down
    /// with the cell. Also whether the cell knows all of it: then [`Relay::resume`] is next, else
    /// [`Relay::succeed`] with another cell. `succeeds`: the cell was itself a successor.
    ///
    /// # Errors
    /// What was kept cannot have been, or is not all.
    pub fn adopted(
        front_end: MessageSocket,
        cell: MessageSocket,
        succeeds: bool,
        mut kept: Vec<(Keep, Vec<OwnedFd>)>,
    ) -> Result<(Self, bool), CustodyError> {
        let marked = |mark| kept.iter().any(|(keep, _)| keep.slot == mark);
        let told = !succeeds || marked(TOLD);
        if !told && !marked(WHOLE) {
            return Err(CustodyError::Part);
        }
        let mut relay = Self::of(front_end, cell, Record::default());
        // What is in hand was checked, and is again, against what had been done before it.
        kept.sort_by_key(|(keep, _)| (keep.slot == IN_HAND, keep.slot));
        for (keep, fds) in kept.into_iter().filter(|(keep, _)| keep.slot < WHOLE) {
            let (parsed, message) = custody::restored(&relay.record, &keep, fds)?;
            if keep.slot == IN_HAND {
                relay.in_hand = Some((parsed, message));
                relay.sent = keep.sent;
            } else {
                relay.record.note(&parsed, message);
            }
        }
        Ok((relay, told))
    }

    fn of(front_end: MessageSocket, cell: MessageSocket, record: Record) -> Self {
        let custody = Custody::default();
        Self { front_end, cell, record, in_hand: None, sent: 0, custody, reply_max: VHOST_USER_REPLY_MAX }
    }

    /// Has everything written down with the cell, too, for the next vamosd.
    #[must_use]
    pub fn kept_by(mut self, custody: Custody) -> Self {
        self.custody = custody;
        self
    }

    /// The front-end's socket.
    pub fn front_end(&self) -> &MessageSocket {
        &self.front_end
    }

    /// Our end of the device's socket.
    pub fn cell(&self) -> &MessageSocket {
        &self.cell
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
    pub async fn succeed(&mut self, cell: MessageSocket, custody: Custody) -> Result<(), RelayError> {
        (self.cell, self.custody, self.sent) = (cell, custody, 0);
        self.take_in_hand()?;
        for (slot, message) in self.record.replay() {
            self.custody.keep(slot, message, 0).await?;
        }
        if let Some((_, message)) = &self.in_hand {
            self.custody.keep(IN_HAND, message, 0).await?;
        }
        self.custody.mark(WHOLE).await?;
        // It answers as the last one did, and has to be asked for that: what it offers it must also have
        // offered.
        let asked = [message::GET_FEATURES, message::GET_PROTOCOL_FEATURES];
        for request in asked {
            self.ask(request).await?;
        }
        for (_, message) in self.record.replay() {
            let header = message.header.without_reply();
            let sent = self.cell.write(header, &message.body, &message.borrowed()).await;
            sent.map_err(RelayError::Cell)?;
            self.sent += 1;
        }
        // Once this is answered, all of it has been heard.
        self.ask(message::GET_FEATURES).await?;
        if let Some((_, message)) = &self.in_hand {
            self.custody.keep(IN_HAND, message, self.sent).await?;
        }
        self.custody.mark(TOLD).await?;
        self.carry().await
    }

    async fn ask(&mut self, request: u32) -> Result<(), RelayError> {
        let header = Header::request(request);
        self.cell.write(header, &[], &[]).await.map_err(RelayError::Cell)?;
        self.sent += 1;
        self.reply_of_cell(request).await?;
        self.cell.take().map_err(RelayError::Cell)
    }

    /// Goes on with what the relay of a dead vamosd had in hand. `handled` is how many messages the device has
    /// handled, counted when it had read all that was sent and its replies had been written.
    ///
    /// It may have died between any two system calls. A message is kept by the cell before it is taken from
    /// the front-end, whose socket knows how much of it is still to be taken; whether the device has had it,
    /// its count says; a reply stays in the socket to the cell until the front-end has it. One thing cannot be
    /// known: whether a reply was written, when the front-end has read everything and said nothing since. It is
    /// then taken not to have been: more time lies before its writing than between that and the note of it.
    ///
    /// # Errors
    /// [`RelayError`], as of [`Relay::run`].
    pub async fn resume(&mut self, handled: u64) -> Result<(), RelayError> {
        let before = self.sent;
        self.sent = handled;
        self.take_in_hand()?;
        if self.in_hand.is_none() {
            return self.cell.drain().map_err(RelayError::Cell);
        }
        if let Some((_, message)) = &self.in_hand {
            let passed_on = handled != before;
            info!(request = message.header.request, passed_on, "goes on with what a dead vamosd had in hand");
        }
        if handled == before { self.carry().await } else { self.conclude().await }
    }

    /// What is in hand may not have been taken from the front-end, or not to its end.
    fn take_in_hand(&self) -> Result<(), RelayError> {
        if self.in_hand.is_some() { self.front_end.take().map_err(RelayError::FrontEnd) } else { Ok(()) }
    }

    /// The message in hand was passed on: its answer, if there is one, follows.
    async fn conclude(&mut self) -> Result<(), RelayError> {
        let Some((parsed, message)) = &self.in_hand else { return Ok(()) };
        let reply = if self.replies(parsed) { Some(self.reply_to(parsed, message).await?) } else { None };
        let unread = self.front_end.has_unread().map_err(SocketError::from);
        let said = self.front_end.has_arrived().map_err(SocketError::from);
        let answered = unread.map_err(RelayError::FrontEnd)? || said.map_err(RelayError::FrontEnd)?;
        self.finish(reply, answered).await
    }

    /// Relays until the front-end hangs up. Dropping the relay closes both connections and with them every
    /// recorded descriptor.
    ///
    /// # Errors
    /// [`RelayError`] when either side breaks the conversation off.
    pub async fn run(&mut self) -> Result<(), RelayError> {
        loop {
            let message = tokio::select! {
                message = self.front_end.peek() => message.map_err(RelayError::FrontEnd)?,
                // The cell never speaks first: anything that makes its side readable here is its end.
                unasked = self.cell.peek() => return Err(end_of_cell(unasked)),
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
                let kept = self.custody.keep(IN_HAND, &message, self.sent).await;
                self.in_hand = Some((parsed, message));
                self.front_end.take().map_err(RelayError::FrontEnd)?;
                kept?;
                self.carry().await
            }
            Err(refusal) => {
                self.front_end.take().map_err(RelayError::FrontEnd)?;
                self.refuse(header, refusal).await
            }
        }
    }

    /// Passes on the message in hand, which stays there unless the cell has done its part.
    async fn carry(&mut self) -> Result<(), RelayError> {
        let Some((parsed, message)) = &self.in_hand else { return Ok(()) };
        self.cell
            .write(message.header, &message.body, &message.borrowed())
            .await
            .map_err(RelayError::Cell)?;
        self.sent += 1;
        let reply = if self.replies(parsed) { Some(self.reply_to(parsed, message).await?) } else { None };
        self.finish(reply, false).await
    }

    /// The cell has done its part of the message in hand.
    async fn finish(&mut self, reply: Option<Message>, answered: bool) -> Result<(), RelayError> {
        let Some((parsed, message)) = self.in_hand.take() else { return Ok(()) };
        let noted = self.record.note(&parsed, message);
        if let Some(reply) = &reply
            && !answered
        {
            // No reply of a vsock device carries descriptors; those of a cell gone bad end here.
            self.front_end.write(reply.header, &reply.body, &[]).await.map_err(RelayError::FrontEnd)?;
        }
        self.custody.settle(noted).await?;
        if reply.is_some() {
            self.cell.take().map_err(RelayError::Cell)?;
        }
        Ok(())
    }

    /// Whether the front-end waits for a reply of the cell.
    fn replies(&self, parsed: &Parsed) -> bool {
        let features = match parsed.request {
            Request::SetProtocolFeatures(features) => features,
            _ => self.record.protocol_features,
        };
        let acknowledges = features & PROTOCOL_REPLY_ACK != 0;
        parsed.answer == Answer::Reply
            || (parsed.answer == Answer::Acknowledgement { asked: true } && acknowledges)
    }

    /// The cell's reply, as the front-end is to have it. It stays in the cell's socket.
    async fn reply_to(&self, parsed: &Parsed, message: &Recorded) -> Result<Message, RelayError> {
        let mut reply = self.reply_of_cell(message.header.request).await?;
        if parsed.request == Request::AskProtocolFeatures
            && let Ok(offered) = <[u8; 8]>::try_from(reply.body.as_slice())
        {
            reply.body = (u64::from_ne_bytes(offered) & PROTOCOL_FEATURES_KNOWN).to_ne_bytes().to_vec();
        }
        Ok(reply)
    }

    async fn reply_of_cell(&self, asked: u32) -> Result<Message, RelayError> {
        let reply = timeout(self.reply_max, self.cell.peek()).await;
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
