//! What a PostgreSQL client says: bytes to messages, nothing else.
//!
//! The decoders of the `pgwire` crate read a message's fields without regard to the message's own
//! length: a short `Parse` or `Bind` panics or eats the message behind it, and a field length of -2
//! passes for NULL. Clients are not trusted here, so requests are parsed by this module, strictly: every
//! field inside its message, every byte of it used. Replies are `pgwire`'s messages (see `backend`).
//!
//! Source: PostgreSQL 15 documentation, 55.7 "Message Formats".

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::{POSTGRES_LENGTH_MAX, POSTGRES_MESSAGE_BYTES_MAX};

/// Bytes of a message's type and length.
const HEADER_BYTES: usize = 5;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend {
    /// Statements as one string.
    Query(String),
    /// Prepares a statement.
    Parse {
        /// Its name; empty: the unnamed one.
        name: String,
        /// Its text.
        text: String,
        /// Types of its parameters as far as the client knows them; 0: unknown.
        types: Vec<u32>,
    },
    /// Makes a portal of a statement and its parameters.
    Bind(Bind),
    /// Asks what a statement or portal takes and returns.
    Describe(Target, String),
    /// Runs a portal.
    Execute {
        /// Its name.
        portal: String,
        /// Most rows; 0: all.
        rows: u32,
    },
    /// Forgets a statement or portal.
    Close(Target, String),
    /// Ends a series of extended-protocol messages.
    Sync,
    /// Asks for the replies so far.
    Flush,
    /// Rows for COPY.
    CopyData(Bytes),
    /// No more rows for COPY.
    CopyDone,
    /// The client gives COPY up.
    CopyFail(String),
    /// The client leaves.
    Terminate,
    /// A call of a function by OID, which nobody uses.
    FunctionCall,
}

/// Parameters for a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Name of the portal.
    pub portal: String,
    /// Name of the statement.
    pub statement: String,
    /// None: all text; one: for all; else one each.
    pub formats: Vec<i16>,
    /// Values; `None` is NULL.
    pub parameters: Vec<Option<Bytes>>,
    /// Formats of the result's columns, as `formats`.
    pub results: Vec<i16>,
}

/// What Describe and Close are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// What is wrong with a client's bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// Where the next message starts cannot be known: the connection is lost.
    #[error("invalid message length {0}")]
    Length(i32),
    /// No message starts with this byte: the connection is lost.
    #[error("invalid frontend message type {0}")]
    Type(u8),
    /// A field announces a length that cannot be meant: the connection is lost.
    #[error("invalid length {0} of a parameter")]
    FieldLength(i32),
    /// The message's fields do not fit it; the next message can be read.
    #[error("invalid message format: {0}")]
    Malformed(&'static str),
    /// Text that is not UTF-8; the next message can be read.
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    Encoding,
    /// The message is larger than this door accepts; the next message can be read.
    #[error("message of {0} bytes exceeds the limit of {POSTGRES_MESSAGE_BYTES_MAX} bytes")]
    TooLong(usize),
}

impl FrontendError {
    /// Whether the client and this side no longer agree where a message starts.
    pub fn is_fatal(&self) -> bool {
        matches!(self, FrontendError::Length(_) | FrontendError::Type(_) | FrontendError::FieldLength(_))
    }

    /// The SQLSTATE it is reported with.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            FrontendError::Encoding => "22021",
            FrontendError::TooLong(_) => "54000",
            _ => "08P01",
        }
    }
}

/// The start of a message: its type and how many bytes of body follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's type byte.
    pub kind: u8,
    /// Bytes of its body.
    pub length: usize,
}

/// Reads a message's header off the front of `input` without removing it; `None` if more bytes are needed.
///
/// # Errors
/// Fatal ones only: an impossible length, an unknown type. Nothing has been allocated for it.
pub fn header(input: &[u8]) -> Result<Option<Header>, FrontendError> {
    let Some([kind, length @ ..]) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    if !b"QPBDECSHdcfXFp".contains(kind) {
        return Err(FrontendError::Type(*kind));
    }
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(whole) if (4..=POSTGRES_LENGTH_MAX).contains(&whole) => {
            Ok(Some(Header { kind: *kind, length: whole - 4 }))
        }
        _ => Err(FrontendError::Length(length)),
    }
}

/// Takes the next whole message off the front of `input`.
///
/// # Errors
/// [`FrontendError`]. After one that is not fatal the message has been taken off, except for
/// [`FrontendError::TooLong`], whose header alone has been.
pub fn next(input: &mut BytesMut) -> Result<Option<Frontend>, FrontendError> {
    let Some(header) = header(input)? else { return Ok(None) };
    if header.length > POSTGRES_MESSAGE_BYTES_MAX {
        input.advance(HEADER_BYTES);
        return Err(FrontendError::TooLong(header.length));
    }
    if input.len() < HEADER_BYTES + header.length {
        return Ok(None);
    }
    input.advance(HEADER_BYTES);
    parse(header.kind, input.split_to(header.length).freeze()).map(Some)
}

/// Whether another Execute comes before the next Sync among the messages that have arrived.
pub fn executes_again_before_sync(mut input: &[u8]) -> bool {
    while let Ok(Some(header)) = header(input) {
        match header.kind {
            b'E' => return true,
            b'S' | b'Q' => return false,
            _ => {}
        }
        let Some(rest) = input.get(HEADER_BYTES + header.length..) else { return false };
        input = rest;
    }
    false
}

/// Parses a message's body, all of it. The entry for fuzzing, with [`next`].
///
/// # Errors
/// [`FrontendError`].
pub fn parse(kind: u8, body: Bytes) -> Result<Frontend, FrontendError> {
    let mut fields = Fields(body);
    let message = match kind {
        b'Q' => Frontend::Query(fields.string()?),
        b'P' => {
            let (name, text) = (fields.string()?, fields.string()?);
            let types = fields.count(4)?;
            Frontend::Parse { name, text, types: (0..types).map(|_| fields.0.get_u32()).collect() }
        }
        b'B' => Frontend::Bind(fields.bind()?),
        b'D' => Frontend::Describe(fields.target()?, fields.string()?),
        b'C' => Frontend::Close(fields.target()?, fields.string()?),
        b'E' => {
            let portal = fields.string()?;
            // A negative number of rows means all of them, as in PostgreSQL.
            Frontend::Execute { portal, rows: u32::try_from(fields.int()?).unwrap_or(0) }
        }
        b'S' => Frontend::Sync,
        b'H' => Frontend::Flush,
        b'd' => return Ok(Frontend::CopyData(fields.0)),
        b'c' => Frontend::CopyDone,
        b'f' => Frontend::CopyFail(fields.string()?),
        b'X' => Frontend::Terminate,
        b'F' => return Ok(Frontend::FunctionCall),
        b'p' => return Err(FrontendError::Malformed("no password was asked for")),
        other => return Err(FrontendError::Type(other)),
    };
    if fields.0.has_remaining() {
        return Err(FrontendError::Malformed("bytes are left after the last field"));
    }
    Ok(message)
}

/// The unread fields of one message.
pub(super) struct Fields(pub(super) Bytes);

const CUT_OFF: FrontendError = FrontendError::Malformed("insufficient data left in message");

impl Fields {
    /// A string ended by a zero byte.
    pub(super) fn string(&mut self) -> Result<String, FrontendError> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let end = end.ok_or(FrontendError::Malformed("a string has no end"))?;
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(bytes.into()).map_err(|_| FrontendError::Encoding)
    }

    fn int(&mut self) -> Result<i32, FrontendError> {
        self.0.try_get_i32().map_err(|_| CUT_OFF)
    }

    /// A count of elements of `size` bytes each, all of which are there.
    fn count(&mut self, size: usize) -> Result<usize, FrontendError> {
        let count = usize::from(self.0.try_get_u16().map_err(|_| CUT_OFF)?);
        if count * size > self.0.remaining() { Err(CUT_OFF) } else { Ok(count) }
    }

    fn formats(&mut self) -> Result<Vec<i16>, FrontendError> {
        let count = self.count(2)?;
        Ok((0..count).map(|_| self.0.get_i16()).collect())
    }

    fn target(&mut self) -> Result<Target, FrontendError> {
        match self.0.try_get_u8() {
            Ok(b'S') => Ok(Target::Statement),
            Ok(b'P') => Ok(Target::Portal),
            _ => Err(FrontendError::Malformed("neither a statement nor a portal is meant")),
        }
    }

    fn bind(&mut self) -> Result<Bind, FrontendError> {
        let (portal, statement) = (self.string()?, self.string()?);
        let formats = self.formats()?;
        // Each parameter has at least its own length.
        let count = self.count(4)?;
        let mut parameters = Vec::with_capacity(count);
        for _ in 0..count {
            parameters.push(match self.int()? {
                -1 => None,
                length @ 0.. if length as usize > self.0.remaining() => return Err(CUT_OFF),
                length @ 0.. => Some(self.0.split_to(length as usize)),
                length => return Err(FrontendError::FieldLength(length)),
            });
        }
        Ok(Bind { portal, statement, formats, parameters, results: self.formats()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> BytesMut {
        let mut wire = BytesMut::new();
        wire.put_u8(kind);
        wire.put_i32(body.len() as i32 + 4);
        wire.put_slice(body);
        wire
    }

    fn one(kind: u8, body: &[u8]) -> Result<Option<Frontend>, FrontendError> {
        next(&mut message(kind, body))
    }

    #[test]
    fn messages_are_read() {
        assert_eq!(one(b'Q', b"SELECT 1\0"), Ok(Some(Frontend::Query("SELECT 1".to_owned()))));
        let parse = one(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17").unwrap().unwrap();
        let expected =
            Frontend::Parse { name: "s".to_owned(), text: "SELECT $1".to_owned(), types: vec![23] };
        assert_eq!(parse, expected);
        let bind =
            one(b'B', b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\x01").unwrap().unwrap();
        let Frontend::Bind(bind) = bind else { panic!("{bind:?}") };
        assert_eq!(bind.parameters, [Some(Bytes::from_static(b"ab")), None]);
        assert_eq!((bind.formats, bind.results), (vec![1], vec![1]));
        assert_eq!(
            one(b'E', b"\0\xff\xff\xff\xff").unwrap(),
            Some(Frontend::Execute { portal: String::new(), rows: 0 })
        );
    }

    #[test]
    fn a_field_never_reaches_into_the_next_message() {
        let mut wire = message(b'P', b"s\0SELECT 1\0\0\x01");
        wire.unsplit(message(b'S', b""));
        assert_eq!(next(&mut wire), Err(CUT_OFF));
        assert_eq!(next(&mut wire), Ok(Some(Frontend::Sync)));
    }

    #[test]
    fn every_byte_of_a_message_is_used() {
        for (kind, body) in [(b'S', &b"x"[..]), (b'Q', b"a\0b\0"), (b'E', b"\0\0\0\0\0\0")] {
            assert!(matches!(one(kind, body), Err(FrontendError::Malformed(_))), "{kind}");
        }
    }

    #[test]
    fn executes_before_a_sync_are_seen() {
        let mut wire = message(b'D', b"P\0");
        wire.unsplit(message(b'S', b""));
        wire.unsplit(message(b'E', b"\0\0\0\0\0"));
        assert!(!executes_again_before_sync(&wire));
        assert!(executes_again_before_sync(&wire[message(b'D', b"P\0").len() + 5..]));
        assert!(!executes_again_before_sync(b""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = next(&mut input) {}
        }

        #[test]
        fn any_body_is_read_or_refused(kind in proptest::sample::select(b"QPBDECSHdcfXFp".to_vec()),
                                       body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut wire = message(kind, &body);
            let _ = next(&mut wire);
            prop_assert!(wire.is_empty());
        }
    }
}
