//! A host with the embedded engine behind the `sql` service, and a client that speaks frames over an
//! in-memory stream: it can be as rude as a test needs.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use vamos_proto::frame::{self, Decoder, Header};
use vamos_proto::id::VmId;
use vamos_service::{ByteStream, Service, ServiceError, VmContext};
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::message::{self, Transaction};
use vamos_sql_protocol::{BlockBuilder, Kind, Rows, Value};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{GiveUp, SqliteConfig, SqliteEngine};

/// An integer value.
pub fn int(i: i64) -> Value {
    Value::Integer(i)
}

/// Each of these texts is refused with that SQLSTATE.
pub async fn all_fail(client: &mut Client, sqlstate: &str, texts: &[&str]) {
    for text in texts {
        assert_eq!(client.fails(text).await, sqlstate, "{text}");
    }
}

/// An engine that gives statements little time.
pub fn impatient(give_up: GiveUp) -> SqliteConfig {
    SqliteConfig {
        statement_deadline: Duration::from_millis(400),
        watchdog_grace: Duration::from_secs(1),
        give_up,
        ..SqliteConfig::default()
    }
}

/// A host with one database.
pub struct Host {
    pub service: Arc<SqlService<SqliteEngine>>,
    pub volume: TempDir,
}

impl Host {
    pub fn start() -> Self {
        Self::with(SqliteConfig::default(), SqlConfig::default())
    }

    pub fn with(engine: SqliteConfig, config: SqlConfig) -> Self {
        let volume = tempfile::tempdir().unwrap();
        let engine = SqliteEngine::open(volume.path(), "catalog", engine).unwrap();
        Self { service: Arc::new(SqlService::new(engine, config)), volume }
    }

    /// A new link.
    pub fn link(&self) -> Client {
        self.narrow_link(1 << 20)
    }

    /// A new link whose stream holds so many bytes in each direction.
    pub fn narrow_link(&self, bytes: usize) -> Client {
        let (near, far) = duplex(bytes);
        let vm = Arc::new(VmContext { vm: VmId::new("web-1").unwrap(), generation: 1 });
        let served = tokio::spawn(self.service.clone().serve(ByteStream::new(far), vm));
        Client::new(near, served)
    }

    /// A session on a link of its own.
    pub async fn session(&self) -> Client {
        let mut client = self.link();
        client.open(1).await;
        client
    }

    /// Files in the volume.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.volume.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.volume.path().join("catalog.db")
    }
}

/// What a request was answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub columns: Vec<message::Column>,
    pub rows: Vec<Vec<Value>>,
    pub frames: usize,
    pub suspended: bool,
    pub changes: u64,
    pub last_insert_rowid: i64,
    pub transaction: i32,
    pub command: String,
}

pub type Outcome = Result<Answer, message::Error>;

/// A client at the other end of a link.
pub struct Client {
    pub stream: DuplexStream,
    pub served: JoinHandle<Result<(), ServiceError>>,
    input: BytesMut,
    sequences: HashMap<u32, u64>,
    seen: Vec<(Header, bytes::Bytes)>,
}

impl Client {
    pub fn new(stream: DuplexStream, served: JoinHandle<Result<(), ServiceError>>) -> Self {
        Self { stream, served, input: BytesMut::new(), sequences: HashMap::new(), seen: Vec::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a frame exactly as told.
    pub async fn send_raw(&mut self, session: u32, sequence: u64, kind: u16, body: &[u8]) {
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, session, sequence, kind, |out| out.put_slice(body));
        self.write(&wire).await;
    }

    /// Sends the next request of a session.
    pub async fn send(&mut self, session: u32, kind: Kind, body: &impl Message) -> u64 {
        let next = self.sequences.entry(session).or_insert(0);
        *next += 1;
        let sequence = *next;
        self.send_raw(session, sequence, kind as u16, &body.encode_to_vec()).await;
        sequence
    }

    /// The next frame, whoever it is for; `None` at the end of the stream.
    pub async fn next_frame(&mut self) -> Option<(Header, bytes::Bytes)> {
        let decoder = Decoder::new(SQL_FRAME_BYTES_MAX);
        loop {
            if let Some(frame) = decoder.decode(&mut self.input).unwrap() {
                return Some((frame.header, frame.body));
            }
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.input));
            if read.await.expect("a reply within 20 s").unwrap() == 0 {
                return None;
            }
        }
    }

    /// The next frame of that request.
    pub async fn reply(&mut self, session: u32, sequence: u64) -> (Kind, bytes::Bytes) {
        let is_it = |header: &Header| header.session == session && header.sequence == sequence;
        if let Some(at) = self.seen.iter().position(|(header, _)| is_it(header)) {
            let (header, body) = self.seen.remove(at);
            return (Kind::from_wire(header.kind).unwrap(), body);
        }
        loop {
            let (header, body) = self.next_frame().await.expect("a reply before the end of the stream");
            if is_it(&header) {
                return (Kind::from_wire(header.kind).unwrap(), body);
            }
            self.seen.push((header, body));
        }
    }

    pub async fn error(&mut self, session: u32, sequence: u64) -> message::Error {
        let (kind, body) = self.reply(session, sequence).await;
        assert_eq!(kind, Kind::Error, "{body:?}");
        message::Error::decode(body).unwrap()
    }

    pub async fn open(&mut self, session: u32) -> message::Opened {
        let open =
            message::Open { protocol: 1, database: "catalog".to_owned(), application: "test".to_owned() };
        let sequence = self.send(session, Kind::Open, &open).await;
        let (kind, body) = self.reply(session, sequence).await;
        assert_eq!(kind, Kind::Opened);
        message::Opened::decode(body).unwrap()
    }

    /// All of a result, or the part that came without asking.
    pub async fn result(&mut self, session: u32, sequence: u64) -> Outcome {
        let mut answer = Answer::default();
        loop {
            let (kind, body) = self.reply(session, sequence).await;
            if kind == Kind::Error {
                return Err(message::Error::decode(body).unwrap());
            }
            assert_eq!(kind, Kind::Result);
            let result = message::Result::decode(body).unwrap();
            answer.frames += 1;
            if result.has_columns {
                answer.columns = result.columns;
            }
            let mut rows = Rows::new(&result.rows).unwrap();
            for _ in 0..rows.rows() {
                answer.rows.push((0..rows.columns()).map(|_| rows.value().unwrap().to_owned()).collect());
            }
            rows.end().unwrap();
            if !result.more {
                answer.suspended = result.suspended;
                answer.changes = result.changes;
                answer.last_insert_rowid = result.last_insert_rowid;
                answer.transaction = result.transaction;
                answer.command = result.command;
                return Ok(answer);
            }
        }
    }

    /// Sends an Execute with as many blocks as it takes.
    pub async fn send_execute(&mut self, session: u32, text: &str, values: &[Value]) -> u64 {
        let execute = execute(text, values);
        self.send(session, Kind::Execute, &execute).await
    }

    pub async fn try_with(&mut self, session: u32, text: &str, values: &[Value]) -> Outcome {
        let sequence = self.send_execute(session, text, values).await;
        self.result(session, sequence).await
    }

    /// Runs a statement on session 1.
    pub async fn try_run(&mut self, text: &str) -> Outcome {
        self.try_with(1, text, &[]).await
    }

    pub async fn run(&mut self, text: &str) -> Answer {
        self.try_run(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    pub async fn rows(&mut self, text: &str) -> Vec<Vec<Value>> {
        self.run(text).await.rows
    }

    /// SQLSTATE of a statement that must fail.
    pub async fn fails(&mut self, text: &str) -> String {
        match self.try_run(text).await {
            Ok(answer) => panic!("{text} succeeded: {answer:?}"),
            Err(error) => error.sqlstate,
        }
    }

    pub async fn batch(
        &mut self,
        session: u32,
        text: &str,
        rows: BlockBuilder,
        atomic: bool,
    ) -> Result<message::BatchResult, message::Error> {
        let mut rows = rows;
        let batch = message::Batch {
            text: Some(text.to_owned()),
            parameters: rows.finish(),
            atomic,
            ..Default::default()
        };
        let sequence = self.send(session, Kind::Batch, &batch).await;
        let (kind, body) = self.reply(session, sequence).await;
        match kind {
            Kind::BatchResult => Ok(message::BatchResult::decode(body).unwrap()),
            _ => Err(message::Error::decode(body).unwrap()),
        }
    }

    /// Cancels a request of a session.
    pub async fn cancel(&mut self, session: u32, sequence: u64) {
        self.send_raw(session, 0, Kind::Cancel as u16, &message::Cancel { sequence }.encode_to_vec()).await;
    }

    /// The link's end as the operator sees it.
    pub async fn end(self) -> Result<(), ServiceError> {
        drop(self.stream);
        tokio::time::timeout(Duration::from_secs(10), self.served).await.expect("the link ends").unwrap()
    }
}

pub fn execute(text: &str, values: &[Value]) -> message::Execute {
    let mut block = BlockBuilder::new(values.len());
    let parameters = if values.is_empty() {
        bytes::Bytes::new()
    } else {
        block.row(values.iter().map(Value::as_ref));
        block.finish()
    };
    message::Execute { text: Some(text.to_owned()), parameters, blocks: u32::MAX, ..Default::default() }
}

pub fn is_open(answer: &Answer) -> bool {
    answer.transaction == Transaction::Open as i32
}

/// A Resume of a session that was opened before.
pub fn resume(opened: &message::Opened, database: &str, acknowledged: u64, state: &[u8]) -> message::Resume {
    message::Resume {
        protocol: 1,
        key: opened.key,
        epoch: opened.epoch,
        seal: opened.seal,
        acknowledged,
        database: database.to_owned(),
        application: "test".to_owned(),
        state: state.to_vec().into(),
    }
}
