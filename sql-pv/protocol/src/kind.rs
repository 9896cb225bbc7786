//! Kinds of frames. Requests are below 128, replies above; the body of each is the message of the
//! same name.

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// Start a session.
    Open = 1,
    /// Continue a session on a new stream.
    Resume = 2,
    /// Run one statement.
    Execute = 3,
    /// Run one statement once per row of parameters.
    Batch = 4,
    /// More rows of an open cursor.
    Fetch = 5,
    /// Close an open cursor.
    CloseCursor = 6,
    /// What a statement takes and returns.
    Describe = 7,
    /// Forget a statement id.
    CloseStatement = 8,
    /// Interrupt a request; unanswered.
    Cancel = 9,
    /// End the session.
    Close = 10,
    /// Nothing but a round trip; empty body, session 0 allowed.
    Ping = 11,
    /// The transaction cannot be continued: roll it back and say so until ROLLBACK.
    Fail = 12,
    /// Reply to Open and Resume.
    Opened = 129,
    /// Reply to Execute and Fetch.
    Result = 130,
    /// Reply to Batch.
    BatchResult = 131,
    /// Reply to Describe.
    Described = 132,
    /// Reply to CloseCursor, CloseStatement, Fail and Close; empty body.
    Closed = 133,
    /// Reply to Ping; empty body.
    Pong = 134,
    /// Reply to any request that failed.
    Error = 135,
    /// The statement id is unknown here: send the request again with its text. Empty body.
    TextWanted = 136,
}

impl Kind {
    /// Every kind, in the order of the wire values.
    pub const ALL: [Kind; 20] = [
        Kind::Open,
        Kind::Resume,
        Kind::Execute,
        Kind::Batch,
        Kind::Fetch,
        Kind::CloseCursor,
        Kind::Describe,
        Kind::CloseStatement,
        Kind::Cancel,
        Kind::Close,
        Kind::Ping,
        Kind::Fail,
        Kind::Opened,
        Kind::Result,
        Kind::BatchResult,
        Kind::Described,
        Kind::Closed,
        Kind::Pong,
        Kind::Error,
        Kind::TextWanted,
    ];

    /// The kind with that wire value, if there is one.
    pub fn from_wire(value: u16) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_values_are_distinct_and_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_wire(kind as u16), Some(kind));
        }
        assert_eq!(Kind::from_wire(0), None);
        assert_eq!(Kind::from_wire(u16::MAX), None);
    }
}
