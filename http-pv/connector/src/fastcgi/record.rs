//! Records of FastCGI 1.0: a head of eight bytes, and up to 64 KiB.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const BEGIN: u8 = 1;
const END: u8 = 3;
const PARAMETERS: u8 = 4;
const INPUT: u8 = 5;
const OUTPUT: u8 = 6;
const ERRORS: u8 = 7;

const HEAD_BYTES: usize = 8;

/// The only request of its connection.
const REQUEST: u16 = 1;

/// The role of a server that answers requests.
const RESPONDER: u16 = 1;

/// Begins a request whose connection ends with it.
pub(super) fn begin(wire: &mut BytesMut) {
    head(wire, BEGIN, 8);
    wire.put_u16(RESPONDER);
    wire.put_bytes(0, 6);
}

/// The request's parameters, all of them.
pub(super) fn parameters(wire: &mut BytesMut, parameters: &[(String, Vec<u8>)]) {
    let mut pairs = BytesMut::new();
    for (name, value) in parameters {
        for length in [name.len(), value.len()] {
            match u8::try_from(length) {
                Ok(length @ ..=127) => pairs.put_u8(length),
                _ => pairs.put_u32(1 << 31 | u32::try_from(length).unwrap_or(u32::MAX)),
            }
        }
        pairs.put_slice(name.as_bytes());
        pairs.put_slice(value);
    }
    for piece in pairs.chunks(usize::from(u16::MAX)) {
        record(wire, PARAMETERS, piece);
    }
    record(wire, PARAMETERS, &[]);
}

/// A piece of the request's content; an empty one is its end.
pub(super) fn input(wire: &mut BytesMut, piece: &[u8]) {
    record(wire, INPUT, piece);
}

fn record(wire: &mut BytesMut, kind: u8, content: &[u8]) {
    head(wire, kind, content.len() as u16);
    wire.put_slice(content);
}

fn head(wire: &mut BytesMut, kind: u8, length: u16) {
    wire.put_slice(&[VERSION, kind]);
    wire.put_u16(REQUEST);
    wire.put_u16(length);
    wire.put_u16(0);
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Some of its answer.
    Output(Bytes),
    /// The answer is whole.
    End,
}

/// What has come of a server's records.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) input: BytesMut,
}

impl Records {
    /// The next event, if it has come as a whole.
    ///
    /// # Errors
    /// What came is not FastCGI, or the server says that it cannot answer.
    pub(super) fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            let Some(head) = self.input.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
            let [version, kind, _, request, high, low, padding, _] = *head;
            if version != VERSION {
                return Err(io::Error::other("what the server sends is not FastCGI"));
            }
            let length = usize::from(u16::from_be_bytes([high, low]));
            let end = HEAD_BYTES + length + usize::from(padding);
            if self.input.len() < end {
                self.input.reserve(end - self.input.len());
                return Ok(None);
            }
            let mut record = self.input.split_to(end);
            record.advance(HEAD_BYTES);
            record.truncate(length);
            match kind {
                OUTPUT if length > 0 => return Ok(Some(Event::Output(record.freeze()))),
                ERRORS if length > 0 => {
                    tracing::warn!(said = %String::from_utf8_lossy(&record).escape_debug(), "a script complains");
                }
                END if u16::from(request) == REQUEST => {
                    return match record.get(4) {
                        Some(0) => Ok(Some(Event::End)),
                        status => Err(io::Error::other(format!("the server refuses: status {status:?}"))),
                    };
                }
                // Ends of parts, and what a newer server may have to say.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_however_they_are_cut() {
        let mut wire = BytesMut::new();
        record(&mut wire, OUTPUT, b"some");
        record(&mut wire, ERRORS, b"note");
        wire.put_slice(&[VERSION, OUTPUT, 0, 1, 0, 2, 3, 0]);
        wire.put_slice(b"ok...");
        record(&mut wire, OUTPUT, b"");
        record(&mut wire, END, &[0; 8]);
        for step in [1, 3, wire.len()] {
            let mut records = Records::default();
            let mut events = Vec::new();
            for piece in wire.chunks(step) {
                records.input.extend_from_slice(piece);
                while let Some(event) = records.next().unwrap() {
                    events.push(event);
                }
            }
            let expected = [Event::Output("some".into()), Event::Output("ok".into()), Event::End];
            assert_eq!(events, expected, "in steps of {step}");
        }
        let mut overloaded = Records::default();
        record(&mut overloaded.input, END, &[0, 0, 0, 0, 2, 0, 0, 0]);
        assert!(overloaded.next().is_err());
        let mut garbage = Records { input: BytesMut::from("HTTP/1.1 400 Bad Request") };
        assert!(garbage.next().is_err());
    }
}
