//! `frame`: the frame decoder, every SQL body, and the packed blocks within.
//!
//! An input's first byte chooses how its rest is cut into reads. What must hold: the same frames come
//! out however the bytes were cut; a body that is a message stays the same message when it is written
//! and read again; a block that can be read to its end stays the same block.

use bytes::BytesMut;
use prost::Message;
use vamos_proto::frame::{Decoder, Frame, FrameError, HEADER_BYTES};
use vamos_proto::hello::{Hello, Welcome};
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::{BlockBuilder, Kind, Rows, ValueRef, message};

/// Reads `input` as a stream of frames.
pub fn run(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    assert_eq!(whole, frames(stream, usize::from(*cut).max(1)), "the cut of the reads must not matter");
    for frame in &whole.0 {
        assert!(frame.body.len() <= SQL_FRAME_BYTES_MAX);
        assert_eq!(frame.body.len(), frame.header.length as usize);
        if let Some(kind) = Kind::from_wire(frame.header.kind) {
            body(kind, &frame.body);
        }
        round_trip::<Hello>(&frame.body);
        round_trip::<Welcome>(&frame.body);
    }
}

/// The frames of `stream`, read in pieces of `cut` bytes, and how it ended.
fn frames(stream: &[u8], cut: usize) -> (Vec<Frame>, Option<FrameError>) {
    let (decoder, mut input, mut frames) = (Decoder::new(SQL_FRAME_BYTES_MAX), BytesMut::new(), Vec::new());
    for piece in stream.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    let taken: usize = frames.iter().map(|frame| HEADER_BYTES + frame.body.len()).sum();
    assert_eq!(taken + input.len(), stream.len(), "every byte is in a frame or waits");
    (frames, None)
}

/// Reads a body as the message its kind says.
fn body(kind: Kind, body: &[u8]) {
    match kind {
        Kind::Open => drop(round_trip::<message::Open>(body)),
        Kind::Resume => drop(round_trip::<message::Resume>(body)),
        Kind::Execute => {
            if let Some(execute) = round_trip::<message::Execute>(body) {
                block(&execute.parameters);
            }
        }
        Kind::Batch => {
            if let Some(batch) = round_trip::<message::Batch>(body) {
                block(&batch.parameters);
            }
        }
        Kind::Fetch => drop(round_trip::<message::Fetch>(body)),
        Kind::Fail => drop(round_trip::<message::Fail>(body)),
        Kind::CloseCursor => drop(round_trip::<message::CloseCursor>(body)),
        Kind::Describe => drop(round_trip::<message::Describe>(body)),
        Kind::CloseStatement => drop(round_trip::<message::CloseStatement>(body)),
        Kind::Cancel => drop(round_trip::<message::Cancel>(body)),
        Kind::Close => drop(round_trip::<message::Close>(body)),
        Kind::Opened => drop(round_trip::<message::Opened>(body)),
        Kind::Result => {
            if let Some(result) = round_trip::<message::Result>(body) {
                block(&result.rows);
            }
        }
        Kind::BatchResult => drop(round_trip::<message::BatchResult>(body)),
        Kind::Described => drop(round_trip::<message::Described>(body)),
        Kind::Error => drop(round_trip::<message::Error>(body)),
        Kind::Ping | Kind::Pong | Kind::Closed | Kind::TextWanted => {}
    }
}

/// Reads a message; if it is one, it must survive being written and read again.
fn round_trip<M: Message + Default + PartialEq>(body: &[u8]) -> Option<M> {
    let read = M::decode(body).ok()?;
    let again = M::decode(read.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == read), "a message must survive being written");
    Some(read)
}

/// Reads a block; if it can be read to its end, it must survive being packed again.
fn block(bytes: &[u8]) {
    let Ok(mut rows) = Rows::new(bytes) else { return };
    let values = u64::from(rows.rows()) * rows.columns() as u64;
    assert!(values <= bytes.len() as u64, "a block cannot have more values than bytes");
    let mut builder = BlockBuilder::new(rows.columns());
    for _ in 0..rows.rows() {
        for _ in 0..rows.columns() {
            let Ok(value) = rows.value() else { return };
            builder.push(value);
        }
        builder.end_row();
    }
    if rows.end().is_err() || bytes.is_empty() {
        return;
    }
    let packed = builder.finish();
    assert!(packed.len() <= bytes.len(), "our own packing is the shortest");
    let mut again = Rows::new(&packed).expect("a block of our own");
    let mut first = Rows::new(bytes).expect("read before");
    assert_eq!((again.rows(), again.columns()), (first.rows(), first.columns()));
    for _ in 0..values {
        let (a, b) = (again.value().expect("a value of our own"), first.value().expect("read before"));
        assert!(same(a, b), "{a:?} was {b:?}");
    }
}

/// Equality to the bit: NaN is itself.
fn same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}
