//! Measures the engine behind its service over an in-memory stream, beside bare SQLite:
//! `cargo run --release -p vamos-sqlite --example selfcheck`.
//!
//! Client and server share one thread, so a statement's figure is the processor time of both.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use vamos_proto::frame::{self, Decoder};
use vamos_proto::id::VmId;
use vamos_service::{ByteStream, Service, VmContext};
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::message::{Batch, Execute, Open};
use vamos_sql_protocol::{BlockBuilder, Kind, ValueRef};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{SqliteConfig, SqliteEngine};

type Failure = Box<dyn std::error::Error>;

const SELECTS: u64 = 200_000;
const ROWS: i64 = 500_000;
const ROWS_PER_BATCH: i64 = 1_000;

struct Client {
    stream: DuplexStream,
    input: BytesMut,
    output: BytesMut,
    sequence: u64,
}

impl Client {
    fn queue(&mut self, kind: Kind, body: &impl Message) {
        self.sequence += 1;
        frame::encode(&mut self.output, 1, self.sequence, kind as u16, |out| body.encode_raw(out));
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    async fn reply(&mut self) -> Result<(Kind, Bytes), Failure> {
        let decoder = Decoder::new(SQL_FRAME_BYTES_MAX);
        loop {
            if let Some(frame) = decoder.decode(&mut self.input)? {
                let kind = Kind::from_wire(frame.header.kind).ok_or("unknown kind")?;
                if kind == Kind::Error {
                    return Err(
                        format!("{:?}", vamos_sql_protocol::message::Error::decode(frame.body)?).into()
                    );
                }
                return Ok((kind, frame.body));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("the link ended".into());
            }
        }
    }

    async fn call(&mut self, kind: Kind, body: &impl Message) -> Result<(Kind, Bytes), Failure> {
        self.queue(kind, body);
        self.flush().await?;
        self.reply().await
    }

    async fn run(&mut self, text: &str) -> Result<(), Failure> {
        self.call(Kind::Execute, &Execute { text: Some(text.to_owned()), ..Execute::default() }).await?;
        Ok(())
    }
}

/// Processor time of the process, nanoseconds.
fn processor_time() -> Result<u64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split_whitespace().next().ok_or("empty schedstat")?.parse()?)
}

fn parameter(i: i64) -> Bytes {
    let mut block = BlockBuilder::new(1);
    block.row([ValueRef::Integer(i)]);
    block.finish()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let volume = tempfile::tempdir()?;
    let engine = Arc::new(SqliteEngine::open(volume.path(), "catalog", SqliteConfig::default())?);
    let service = Arc::new(SqlService::new(engine.clone(), SqlConfig::default()));
    let (near, far) = duplex(1 << 20);
    let vm = Arc::new(VmContext { vm: VmId::new("web-1")?, generation: 1 });
    tokio::spawn(service.serve(ByteStream::new(far), vm));
    let mut client = Client { stream: near, input: BytesMut::new(), output: BytesMut::new(), sequence: 0 };
    client.call(Kind::Open, &Open { protocol: 1, ..Open::default() }).await?;

    selects(&mut client, &engine).await?;
    let served = bulk(&mut client).await?;
    let native = native_bulk()?;
    println!("bulk: {served:.0} rows/s served, {native:.0} rows/s in-process, ratio {:.2}", served / native);
    Ok(())
}

async fn selects(client: &mut Client, engine: &SqliteEngine) -> Result<(), Failure> {
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)").await?;
    client.run("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO t SELECT i, 'value ' || i FROM n").await?;
    let mut execute = Execute {
        statement: 1,
        text: Some("SELECT a, b FROM t WHERE a = ?".to_owned()),
        ..Execute::default()
    };
    for i in 0..10 {
        execute.parameters = parameter(i);
        client.call(Kind::Execute, &execute).await?;
    }
    execute.text = None;
    for depth in [1, 64] {
        let (inline, cpu, started) = (engine.activity().inline, processor_time()?, Instant::now());
        for at in 0..SELECTS / depth {
            for i in 0..depth {
                execute.parameters = parameter(((at * depth + i) % 10_000) as i64);
                client.queue(Kind::Execute, &execute);
            }
            client.flush().await?;
            for _ in 0..depth {
                client.reply().await?;
            }
        }
        let each = |total: u64| total as f64 / SELECTS as f64 / 1_000.0;
        let (cpu, wall) = (each(processor_time()? - cpu), each(started.elapsed().as_nanos() as u64));
        let inline = engine.activity().inline - inline;
        println!(
            "point SELECT, {depth} at a time: {wall:.2} us, {cpu:.2} us of processor time, {inline} of {SELECTS} inline"
        );
    }
    let native = rusqlite_selects()?;
    println!("point SELECT, bare SQLite in memory of this process: {native:.2} us");
    Ok(())
}

fn rusqlite_selects() -> Result<f64, Failure> {
    let volume = tempfile::tempdir()?;
    let db = rusqlite::Connection::open(volume.path().join("native.db"))?;
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO t SELECT i, 'value ' || i FROM n")?;
    let mut statement = db.prepare("SELECT a, b FROM t WHERE a = ?")?;
    let started = Instant::now();
    for i in 0..SELECTS {
        statement
            .query_row([(i % 10_000) as i64], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1).ok())))
            .or_else(|error| {
                if error == rusqlite::Error::QueryReturnedNoRows { Ok((0, None)) } else { Err(error) }
            })?;
    }
    Ok(started.elapsed().as_nanos() as f64 / SELECTS as f64 / 1_000.0)
}

const BULK_TABLE: &str = "CREATE TABLE bulk (id INTEGER PRIMARY KEY, name TEXT, size INTEGER, section TEXT)";
const BULK_INSERT: &str = "INSERT INTO bulk (name, size, section) VALUES (?, ?, ?)";

async fn bulk(client: &mut Client) -> Result<f64, Failure> {
    client.run(BULK_TABLE).await?;
    let started = Instant::now();
    let mut batch =
        Batch { statement: 2, text: Some(BULK_INSERT.to_owned()), atomic: true, ..Batch::default() };
    let mut under_way = 0;
    for at in 0..ROWS / ROWS_PER_BATCH {
        let mut block = BlockBuilder::new(3);
        for i in 0..ROWS_PER_BATCH {
            let name = format!("package-{}", at * ROWS_PER_BATCH + i);
            block.row([
                ValueRef::Text(name.as_bytes()),
                ValueRef::Integer(i * 1_000),
                ValueRef::Text(b"libs"),
            ]);
        }
        batch.parameters = block.finish();
        client.queue(Kind::Batch, &batch);
        client.flush().await?;
        batch.text = None;
        under_way += 1;
        // One more is on its way while one is being written, as a loader does.
        if under_way > 1 {
            client.reply().await?;
            under_way -= 1;
        }
    }
    client.reply().await?;
    Ok(ROWS as f64 / started.elapsed().as_secs_f64())
}

fn native_bulk() -> Result<f64, Failure> {
    let volume = tempfile::tempdir()?;
    let db = rusqlite::Connection::open(volume.path().join("native.db"))?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    db.execute_batch(BULK_TABLE)?;
    let started = Instant::now();
    let mut statement = db.prepare(BULK_INSERT)?;
    for at in 0..ROWS / ROWS_PER_BATCH {
        let transaction = db.unchecked_transaction()?;
        for i in 0..ROWS_PER_BATCH {
            let name = format!("package-{}", at * ROWS_PER_BATCH + i);
            statement.execute(rusqlite::params![name, i * 1_000, "libs"])?;
        }
        transaction.commit()?;
    }
    Ok(ROWS as f64 / started.elapsed().as_secs_f64())
}
