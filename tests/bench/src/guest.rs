//! The client's side: a process guest attached to the VM's device, and paravirtual SQL over it.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vamos_link::{Channel, ProcessGuest};
use vamos_proto::frame::{self, Decoder};
use vamos_proto::hello::{Hello, KIND_HELLO, KIND_WELCOME, PROTOCOL, Welcome};
use vamos_proto::id::VsockPort;
use vamos_proto::limits::HELLO_BODY_BYTES_MAX;
use vamos_sql_client::{Client, Session, Statement, Value};

use crate::workload::{
    CREATE_ITEM_SQLITE, CREATE_PACKAGE, INSERT_ITEM, INSERT_PACKAGE, ITEMS, Keys, ROWS_PER_TRANSACTION,
    SELECT_ITEM, items, packages,
};
use vamos_bench::limits::REQUEST_MAX;
use vamos_bench::platform::DATABASE;

/// Batches that are on their way at once during the load.
const BATCHES_IN_FLIGHT: usize = 4;

/// A guest that is attached, with one link to the database.
pub struct Guest {
    client: Client,
}

impl Guest {
    /// Attaches to the device behind `socket`, says hello and connects to the database.
    ///
    /// # Errors
    /// If any of that fails or takes too long.
    pub async fn attach(socket: &Path) -> anyhow::Result<Self> {
        let attach = async {
            let guest = ProcessGuest::attach(socket)
                .await
                .with_context(|| format!("attach to {}", socket.display()))?;
            let channel = Channel::Process(guest);
            let port = hello(&channel).await.context("say hello")?;
            let client = Client::connect(&channel, port).await.context("connect to the database")?;
            Ok(Self { client })
        };
        tokio::time::timeout(REQUEST_MAX, attach).await.context("attach in time")?
    }

    /// One more session on the link.
    ///
    /// # Errors
    /// If the service refuses.
    pub async fn session(&self) -> anyhow::Result<Session> {
        Ok(self.client.open(DATABASE, "bench-channel").await?)
    }

    /// Round trips of SQL pings, one after the other.
    ///
    /// # Errors
    /// If the link breaks.
    pub async fn pings(&self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            self.client.ping().await?;
            times.push(start.elapsed());
        }
        Ok(times)
    }
}

/// Creates and fills the tables.
///
/// # Errors
/// If the service refuses.
pub async fn fill(session: &Session) -> anyhow::Result<()> {
    session.execute(CREATE_ITEM_SQLITE, &[]).await?;
    session.execute(CREATE_PACKAGE, &[]).await?;
    let insert = session.prepare(INSERT_ITEM).await?;
    for first in (1..=ITEMS).step_by(1_000) {
        session.batch(&insert, items(first, 1_000.min(ITEMS + 1 - first)), true).await?;
    }
    Ok(())
}

/// A session that reads rows by key.
pub struct Reader {
    session: Session,
    select: Statement,
    keys: Keys,
}

impl Reader {
    /// Prepares the SELECT.
    ///
    /// # Errors
    /// If the service refuses.
    pub async fn new(session: Session) -> anyhow::Result<Self> {
        let select = session.prepare(SELECT_ITEM).await?;
        Ok(Self { session, select, keys: Keys::default() })
    }

    /// One point SELECT, its row unpacked.
    ///
    /// # Errors
    /// If the service refuses, or there is no such row.
    pub async fn select(&mut self) -> anyhow::Result<()> {
        let outcome = self.session.run(&self.select, &[Value::Integer(self.keys.draw())]).await?;
        let rows = outcome.rows()?;
        if rows.len() != 1 || rows[0].len() != 3 {
            bail!("a point SELECT returned {rows:?}");
        }
        std::hint::black_box(rows);
        Ok(())
    }

    /// Point SELECTs, one after the other.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub async fn selects(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            self.select().await?;
            times.push(start.elapsed());
        }
        Ok(times)
    }
}

/// All of `readers` at once, until `end`; the number of SELECTs answered.
///
/// # Errors
/// The first error of any of them.
pub async fn selects_at_once(readers: &mut [Reader], end: Instant) -> anyhow::Result<u64> {
    let until = readers.iter_mut().map(|reader| async move {
        let mut answered = 0;
        while Instant::now() < end {
            reader.select().await?;
            answered += 1;
        }
        anyhow::Ok(answered)
    });
    Ok(futures::future::try_join_all(until).await?.into_iter().sum())
}

/// A session that loads rows in batches.
pub struct Loader {
    session: Session,
    insert: Statement,
    loaded: i64,
}

impl Loader {
    /// Prepares the INSERT.
    ///
    /// # Errors
    /// If the service refuses.
    pub async fn new(session: Session) -> anyhow::Result<Self> {
        let insert = session.prepare(INSERT_PACKAGE).await?;
        Ok(Self { session, insert, loaded: 0 })
    }

    /// Loads `transactions` batches of rows, one transaction each, some of them on their way at once;
    /// the time until the last is durable.
    ///
    /// # Errors
    /// If the service refuses, or a row is missing.
    pub async fn load(&mut self, transactions: i64) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut under_way = VecDeque::with_capacity(BATCHES_IN_FLIGHT);
        for _ in 0..transactions {
            if under_way.len() == BATCHES_IN_FLIGHT {
                self.end(under_way.pop_front()).await?;
            }
            under_way.push_back(self.session.send_batch(
                &self.insert,
                packages(self.loaded + 1, ROWS_PER_TRANSACTION),
                true,
            )?);
            self.loaded += ROWS_PER_TRANSACTION;
        }
        while !under_way.is_empty() {
            self.end(under_way.pop_front()).await?;
        }
        Ok(start.elapsed())
    }

    async fn end<F>(&self, batch: Option<F>) -> anyhow::Result<()>
    where
        F: Future<Output = Result<vamos_sql_client::BatchOutcome, vamos_sql_client::ClientError>>,
    {
        let Some(batch) = batch else { return Ok(()) };
        let outcome = batch.await?;
        if outcome.changes != ROWS_PER_TRANSACTION as u64 {
            bail!("a batch of {ROWS_PER_TRANSACTION} rows changed {}", outcome.changes);
        }
        Ok(())
    }
}

/// Says hello and returns the port of the database.
async fn hello(channel: &Channel) -> anyhow::Result<VsockPort> {
    let mut stream = channel.open(VsockPort::HELLO).await.context("open port 1")?;
    let mut bytes = Default::default();
    let hello = Hello { agent_version: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL };
    // INVARIANT: a BytesMut grows as needed, which is all that encoding can fail for.
    frame::encode(&mut bytes, 0, 1, KIND_HELLO, |out| prost::Message::encode(&hello, out).expect("room"));
    stream.write_all(&bytes).await.context("write")?;
    bytes.clear();
    let decoder = Decoder::new(HELLO_BODY_BYTES_MAX);
    let frame = loop {
        match decoder.decode(&mut bytes)? {
            Some(frame) => break frame,
            None if stream.read_buf(&mut bytes).await.context("read")? == 0 => {
                bail!("the cell closed port 1")
            }
            None => {}
        }
    };
    if frame.header.kind != KIND_WELCOME {
        bail!("the cell answered with kind {}", frame.header.kind);
    }
    let welcome: Welcome = prost::Message::decode(frame.body).context("read the welcome")?;
    let binding =
        welcome.bindings.iter().find(|binding| binding.name == DATABASE).context("find the binding")?;
    Ok(VsockPort(binding.port))
}
