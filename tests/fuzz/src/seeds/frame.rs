//! Streams of frames: every kind with a body that fills every field, and the shapes of blocks.

use bytes::{Bytes, BytesMut};
use prost::Message;
use vamos_proto::frame::{Header, SEQUENCE_MAX, encode};
use vamos_proto::hello::{Binding, Hello, KIND_HELLO, KIND_WELCOME, Welcome};
use vamos_sql_protocol::{BlockBuilder, Kind, PROTOCOL, ValueRef, message};

/// One input for each kind of frame, and some that are made to be refused.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<(String, Vec<u8>)> = Kind::ALL
        .into_iter()
        .map(|kind| (format!("{kind:?}").to_lowercase(), one(kind as u16, &body(kind))))
        .collect();
    let hello = Hello { agent_version: "0.1.0".to_owned(), protocol: 1 };
    let door = [("postgres".to_owned(), "127.0.0.1:5432".to_owned())].into();
    let binding = Binding { name: "catalog".to_owned(), kind: "sql".to_owned(), port: 1024, door, epoch: 0 };
    let welcome = Welcome { protocol: 1, vm: "web-1".to_owned(), generation: 7, bindings: vec![binding] };
    seeds.push(("hello".to_owned(), one(KIND_HELLO, &hello.encode_to_vec())));
    seeds.push(("welcome".to_owned(), one(KIND_WELCOME, &welcome.encode_to_vec())));
    seeds.push(("conversation".to_owned(), conversation()));
    let promise = Header { length: u32::MAX, session: 1, sequence: 1, kind: Kind::Execute as u16 };
    seeds.push(("length_of_4_gib".to_owned(), [&[3], &promise.encode()[..]].concat()));
    let cut_off = one(Kind::Batch as u16, &body(Kind::Batch));
    seeds.push(("body_cut_off".to_owned(), cut_off[..cut_off.len() - 5].to_vec()));
    // A message within a message, 40,000 deep: more than a decoder may follow.
    seeds.push(("nested".to_owned(), one(Kind::BatchResult as u16, &[0x1b; 40_000])));
    let lies = [&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0xa0; 64]].concat();
    let execute = message::Execute { parameters: lies.into(), ..message::Execute::default() };
    seeds.push(("block_that_lies".to_owned(), one(Kind::Execute as u16, &execute.encode_to_vec())));
    seeds
}

/// A stream of one frame, read in pieces of seven bytes.
fn one(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut stream = BytesMut::from(&[7][..]);
    encode(&mut stream, 1, SEQUENCE_MAX, kind, |out| out.extend_from_slice(body));
    stream.to_vec()
}

/// A session from Open to Close, both directions' frames in one stream.
fn conversation() -> Vec<u8> {
    let mut stream = BytesMut::from(&[64][..]);
    let kinds = [
        Kind::Open,
        Kind::Opened,
        Kind::Describe,
        Kind::Described,
        Kind::Execute,
        Kind::Result,
        Kind::Close,
        Kind::Closed,
    ];
    for (kind, sequence) in kinds.into_iter().zip(2u64..) {
        encode(&mut stream, 1, sequence / 2, kind as u16, |out| out.extend_from_slice(&body(kind)));
    }
    stream.to_vec()
}

/// A block with every tag of the format.
fn block() -> Bytes {
    let (long, huge) = ("x".repeat(200), [0x5a; 300]);
    let mut builder = BlockBuilder::new(4);
    builder.row([ValueRef::Null, ValueRef::Integer(95), ValueRef::Integer(96), ValueRef::Integer(-1)]);
    builder.row([
        ValueRef::Integer(-300),
        ValueRef::Integer(1 << 20),
        ValueRef::Integer(i64::MIN),
        ValueRef::Real(0.5),
    ]);
    builder.row([
        ValueRef::Text(b""),
        ValueRef::Text("caf\u{e9}".as_bytes()),
        ValueRef::Text(long.as_bytes()),
        ValueRef::Blob(&huge),
    ]);
    builder.row([
        ValueRef::Real(f64::NAN),
        ValueRef::Real(f64::INFINITY),
        ValueRef::Text(b"\xff\x00"),
        ValueRef::Blob(b""),
    ]);
    builder.finish()
}

fn columns() -> Vec<message::Column> {
    let column = message::Column {
        name: "id".to_owned(),
        declared: "INTEGER".to_owned(),
        table: "package".to_owned(),
        origin: "id".to_owned(),
    };
    vec![column.clone(), column]
}

fn error() -> message::Error {
    message::Error {
        sqlstate: "23505".to_owned(),
        message: "UNIQUE constraint failed: package.id".to_owned(),
        hint: "use another id".to_owned(),
        position: Some(7),
        transaction: message::Transaction::Open.into(),
        code: 1555,
    }
}

/// A body with every field of its message.
fn body(kind: Kind) -> Vec<u8> {
    let text = Some("INSERT INTO package VALUES (?1, ?2, ?3, ?4)".to_owned());
    match kind {
        Kind::Open => message::Open {
            protocol: PROTOCOL,
            database: "catalog".to_owned(),
            application: "psql".to_owned(),
        }
        .encode_to_vec(),
        Kind::Resume => message::Resume {
            protocol: PROTOCOL,
            key: 1,
            epoch: u64::MAX,
            seal: 2,
            acknowledged: 9,
            database: "catalog".to_owned(),
            application: "psql".to_owned(),
            state: vec![1; 25].into(),
        }
        .encode_to_vec(),
        Kind::Execute => message::Execute {
            statement: 1,
            text,
            parameters: block(),
            rows: 10,
            blocks: 2,
            describe: true,
            number: 3,
            acknowledged: 2,
        }
        .encode_to_vec(),
        Kind::Batch => {
            let (number, acknowledged) = (3, 2);
            message::Batch { statement: 1, text, parameters: block(), atomic: true, number, acknowledged }
                .encode_to_vec()
        }
        Kind::Fail => message::Fail { reason: "lost".to_owned() }.encode_to_vec(),
        Kind::Fetch => message::Fetch { cursor: 3, rows: 100, blocks: 4 }.encode_to_vec(),
        Kind::CloseCursor => message::CloseCursor { cursor: 3 }.encode_to_vec(),
        Kind::Describe => message::Describe { statement: 1, text }.encode_to_vec(),
        Kind::CloseStatement => message::CloseStatement { statement: 1 }.encode_to_vec(),
        Kind::Cancel => message::Cancel { sequence: 12 }.encode_to_vec(),
        Kind::Opened => message::Opened {
            protocol: PROTOCOL,
            key: 7,
            epoch: 8,
            seal: 9,
            engine: "SQLite 3.51.0".to_owned(),
            recorded: vec![4, 5],
        }
        .encode_to_vec(),
        Kind::Result => message::Result {
            columns: columns(),
            has_columns: true,
            rows: block(),
            more: true,
            suspended: true,
            changes: 4,
            last_insert_rowid: -1,
            transaction: message::Transaction::Failed.into(),
            command: "SELECT".to_owned(),
            returns_rows: true,
            state: vec![1; 25].into(),
        }
        .encode_to_vec(),
        Kind::BatchResult => message::BatchResult {
            changes: 3,
            executed: 4,
            failures: vec![message::BatchFailure { row: 2, error: Some(error()) }],
            last_insert_rowid: 4,
            transaction: message::Transaction::None.into(),
            command: "INSERT".to_owned(),
            state: vec![1; 25].into(),
        }
        .encode_to_vec(),
        Kind::Described => message::Described {
            parameters: 4,
            columns: columns(),
            returns_rows: true,
            read_only: true,
            command: "SELECT".to_owned(),
        }
        .encode_to_vec(),
        Kind::Error => error().encode_to_vec(),
        Kind::Close | Kind::Ping | Kind::Closed | Kind::Pong | Kind::TextWanted => Vec::new(),
    }
}
