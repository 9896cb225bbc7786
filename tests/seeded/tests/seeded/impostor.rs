//! Sessions that are not what they say, frame by frame: each must be refused.

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vamos_link::Channel;
use vamos_proto::frame::{Decoder, encode};
use vamos_proto::id::VsockPort;
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::{Kind, PROTOCOL, message};

use crate::Finding;
use crate::stage::{DATABASE, PATIENCE, Stage};

/// A link on which every frame is said by hand, on behalf of session 1.
struct Raw {
    stream: vamos_link::Stream,
    input: BytesMut,
}

impl Raw {
    async fn open(channel: &Channel) -> Self {
        let stream = channel.open(VsockPort::FIRST_BINDING).await.unwrap();
        Self { stream, input: BytesMut::new() }
    }

    /// Asks, and gives the reply's kind and body.
    async fn ask(&mut self, sequence: u64, kind: Kind, body: &impl Message) -> (u16, Bytes) {
        let mut out = BytesMut::new();
        encode(&mut out, 1, sequence, kind as u16, |out| body.encode_raw(out));
        self.stream.write_all(&out).await.unwrap();
        let decoder = Decoder::new(SQL_FRAME_BYTES_MAX);
        loop {
            if let Some(frame) = decoder.decode(&mut self.input).unwrap() {
                return (frame.header.kind, frame.body);
            }
            let read = self.stream.read_buf(&mut self.input);
            assert!(timeout(PATIENCE, read).await.unwrap().unwrap() > 0, "the link has ended");
        }
    }

    async fn run(&mut self, sequence: u64, number: u64, acknowledged: u64, text: &str) -> Result<(), String> {
        let text = Some(text.to_owned());
        let body = message::Execute { number, acknowledged, text, blocks: 1, ..message::Execute::default() };
        match self.ask(sequence, Kind::Execute, &body).await {
            (kind, _) if kind == Kind::Result as u16 => Ok(()),
            (_, body) => {
                Err(message::Error::decode(body).map_or_else(|error| error.to_string(), |e| e.message))
            }
        }
    }
}

fn resume(opened: &message::Opened, acknowledged: u64) -> message::Resume {
    message::Resume {
        protocol: PROTOCOL,
        key: opened.key,
        epoch: opened.epoch,
        seal: opened.seal,
        acknowledged,
        database: DATABASE.to_owned(),
        ..message::Resume::default()
    }
}

/// Requests 2 to 4 of a session: a table and a row each.
async fn written(channel: &Channel) -> message::Opened {
    let mut raw = Raw::open(channel).await;
    let open =
        message::Open { protocol: PROTOCOL, database: DATABASE.to_owned(), ..message::Open::default() };
    let (kind, body) = raw.ask(1, Kind::Open, &open).await;
    assert_eq!(kind, Kind::Opened as u16);
    raw.run(2, 0, 0, "CREATE TABLE t (x)").await.unwrap();
    raw.run(3, 0, 0, "INSERT INTO t VALUES (1)").await.unwrap();
    raw.run(4, 0, 3, "INSERT INTO t VALUES (2)").await.unwrap();
    message::Opened::decode(body).unwrap()
}

async fn goes_on(raw: &mut Raw, resume: &message::Resume) -> bool {
    raw.ask(9, Kind::Resume, resume).await.0 == Kind::Opened as u16
}

/// Another request under a number that is recorded, as of a guest that was rolled back.
pub async fn another_request(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let channel = stage.as_ref().unwrap().attach().await;
    let opened = written(&channel).await;
    let mut raw = Raw::open(&channel).await;
    assert!(goes_on(&mut raw, &resume(&opened, 3)).await);
    match raw.run(10, 4, 3, "INSERT INTO t VALUES (3)").await {
        Ok(()) => Err("a request got the outcome of another one, and was not done".to_owned()),
        Err(_) => Ok(()),
    }
}

/// A request that was done, and acknowledged since.
pub async fn acknowledged_request(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let channel = stage.as_ref().unwrap().attach().await;
    let opened = written(&channel).await;
    let mut raw = Raw::open(&channel).await;
    assert!(goes_on(&mut raw, &resume(&opened, 2)).await);
    match raw.run(10, 3, 2, "INSERT INTO t VALUES (1)").await {
        Ok(()) => Err("a request was done a second time".to_owned()),
        Err(_) => Ok(()),
    }
}

/// A session that this host has not sealed.
pub async fn forged_session(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let channel = stage.as_ref().unwrap().attach().await;
    let opened = written(&channel).await;
    let mut raw = Raw::open(&channel).await;
    let forged = message::Resume { seal: opened.seal ^ 1, ..resume(&opened, 4) };
    if goes_on(&mut raw, &forged).await {
        return Err("a session went on that the host has not sealed".to_owned());
    }
    Ok(())
}

/// A session of before the VM was restored.
pub async fn session_of_another_generation(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let before = stage.take().unwrap();
    let channel = before.attach().await;
    let opened = written(&channel).await;
    drop(channel);
    let after = stage.insert(before.restore().await);
    let mut raw = Raw::open(&after.attach().await).await;
    if goes_on(&mut raw, &resume(&opened, 4)).await {
        return Err("a session of another generation went on".to_owned());
    }
    Ok(())
}
