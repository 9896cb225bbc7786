//! A chunked body, read byte by byte as RFC 9112, section 7.1 has it, and not otherwise.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::refusal::{Refusal, malformed, refused};
use crate::fields::TOO_LATE;
use crate::limits::{CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_LINE_BYTES_MAX, FIELDS_MAX, TRAILER_BYTES_MAX};

/// Where in the body the reader is.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A line with a chunk's size.
    #[default]
    Size,
    /// So many bytes of a chunk are to come.
    Data(u64),
    /// The end of a chunk's last line.
    AfterData,
    Trailers,
    End,
}

/// What there is.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// More has to come first.
    None,
    /// Content.
    Data(Bytes),
    /// The end, with the trailers.
    End(HeaderMap),
}

impl Chunked {
    /// The next piece of what has come.
    ///
    /// # Errors
    /// [`Refusal`]: nobody knows where the next request begins.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Piece, Refusal> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = line(input, CHUNK_LINE_BYTES_MAX)? else { return Ok(Piece::None) };
                    let size = self.size(&line)?;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(Piece::None);
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::AfterData } else { State::Data(left) };
                    return Ok(Piece::Data(input.split_to(taken).freeze()));
                }
                State::AfterData => match input.as_ref() {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::None),
                    _ => return Err(malformed("a chunk that is longer than its size")),
                },
                State::Trailers => {
                    let Some(fields) = trailers(input)? else { return Ok(Piece::None) };
                    self.state = State::End;
                    return Ok(Piece::End(fields));
                }
                State::End => return Ok(Piece::End(HeaderMap::new())),
            }
        }
    }

    fn size(&mut self, line: &[u8]) -> Result<u64, Refusal> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, rest) = line.split_at(digits);
        if size.is_empty() || size.len() > 16 {
            return Err(malformed("a chunk's size that is no number"));
        }
        // Spaces before an extension are allowed to senders of old, and to nobody else.
        if !rest.is_empty() && rest[0] != b';' {
            return Err(malformed("a chunk's size that is no number"));
        }
        if !rest.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\t') {
            return Err(malformed("a character in a chunk's extension"));
        }
        self.extensions += rest.len();
        if self.extensions > CHUNK_EXTENSIONS_BYTES_MAX {
            return Err(malformed("too many chunk extensions"));
        }
        let size = size.iter().fold(0, |size: u64, digit| size << 4 | u64::from(hex(*digit)));
        Ok(size)
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Takes a line off, without its end.
fn line(input: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, Refusal> {
    let Some(at) = input.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if input.len() > max { Err(malformed("a line of a chunk is too long")) } else { Ok(None) };
    };
    if at > max {
        return Err(malformed("a line of a chunk is too long"));
    }
    match (input[at], input.get(at + 1)) {
        (b'\r', Some(b'\n')) => {
            let line = input.split_to(at);
            input.advance(2);
            Ok(Some(line))
        }
        (b'\r', None) => Ok(None),
        _ => Err(malformed("a line that does not end with CR and LF")),
    }
}

fn trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, Refusal> {
    if input.starts_with(b"\r\n") {
        input.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    if input.iter().zip(input.iter().skip(1)).any(|(one, two)| (*one == b'\r') != (*two == b'\n'))
        || input.first() == Some(&b'\n')
    {
        return Err(malformed("a line that does not end with CR and LF"));
    }
    let Some(end) = super::head::end(input, 0) else {
        let long = input.len() > TRAILER_BYTES_MAX;
        return if long { Err(too_long()) } else { Ok(None) };
    };
    if end > TRAILER_BYTES_MAX {
        return Err(too_long());
    }
    let section = input.split_to(end);
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let Ok(httparse::Status::Complete((length, parsed))) = httparse::parse_headers(&section, &mut slots)
    else {
        return Err(malformed("trailers that are no fields"));
    };
    if length != section.len() {
        return Err(malformed("trailers that end elsewhere"));
    }
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| malformed("a trailer without a name"))?;
        if TOO_LATE.contains(&name) {
            return Err(malformed("a trailer that comes too late"));
        }
        let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed("a trailer's value"))?;
        fields.append(name, value);
    }
    Ok(Some(fields))
}

fn too_long() -> Refusal {
    refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the trailers are too long")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Content and trailers of a body that comes in pieces of `step` bytes, and what is left behind it.
    fn read(wire: &[u8], step: usize) -> Result<Option<(Vec<u8>, HeaderMap, usize)>, Refusal> {
        let (mut chunked, mut input, mut content) = (Chunked::default(), BytesMut::new(), Vec::new());
        let mut fed = 0;
        loop {
            match chunked.next(&mut input)? {
                Piece::Data(data) => content.extend_from_slice(&data),
                Piece::End(trailers) => return Ok(Some((content, trailers, input.len() + wire.len() - fed))),
                Piece::None if fed == wire.len() => return Ok(None),
                Piece::None => {
                    let next = (fed + step).min(wire.len());
                    input.extend_from_slice(&wire[fed..next]);
                    fed = next;
                }
            }
        }
    }

    #[test]
    fn what_is_a_body_is_read_whole() {
        for step in [1, 2, 7, 1000] {
            let (content, trailers, left) =
                read(b"4;a=b\r\nwiki\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET", step)
                    .unwrap()
                    .unwrap();
            assert_eq!((content.as_slice(), left), (&b"wiki0123456789"[..], 3));
            assert_eq!(trailers["x-sum"], "1");
            assert_eq!(read(b"0\r\n\r\n", step).unwrap().unwrap().0, b"");
            assert!(read(b"4\r\nwik", step).unwrap().is_none());
        }
    }

    #[test]
    fn h54_chunks_that_lie_are_refused() {
        for wire in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\rx",
            b"10000000000000000\r\n",
            b"fffffffffffffffff\r\n",
            b"1;\0\r\n",
            b"1;\x7f\r\n",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\r\r",
            b"0\r\nx",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\nHost: a\r\n\r\n",
            b"0\r\nA: b\nC: d\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\nA: b\r\n c\r\n\r\n",
            b"0\r\n\n",
        ] {
            for step in [1, 1000] {
                let got = read(wire, step);
                // Some are only a beginning; with the rest they are refused too.
                let got = if got == Ok(None) { read(&[wire, b"\r\n\r\n"].concat(), step) } else { got };
                assert!(got.is_err(), "{:?} in steps of {step}: {got:?}", String::from_utf8_lossy(wire));
            }
        }
        let bomb = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(30);
        assert!(read(bomb.as_bytes(), 100).is_err(), "extensions without end");
        assert!(read("1".repeat(300).as_bytes(), 1).is_err(), "a size without end");
        assert!(
            read(format!("0\r\n{}", "A: b\r\n".repeat(5000)).as_bytes(), 1000).is_err(),
            "trailers without end"
        );
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(wire in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b'a'), Just(b';'), Just(b':'), Just(b' '), any::<u8>()], 0..60),
            step in 1_usize..8)
        {
            let (cut, whole) = (read(&wire, step), read(&wire, 1000));
            prop_assert_eq!(cut.is_ok(), whole.is_ok());
            if let (Ok(cut), Ok(whole)) = (cut, whole) {
                prop_assert_eq!(cut, whole);
            }
        }
    }
}
