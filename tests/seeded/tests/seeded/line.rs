//! Streams to a cell that break: at once when they are cut, or after so many bytes of replies, so that replies are
//! lost which the cell has sent. Replies can be held up, too.

use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, duplex, split};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use vamos_link::Channel;
use vamos_proto::id::VsockPort;
use vamos_sql_client::{Dial, Dialing, Duplex};

use crate::random::Random;

/// Bytes of replies that a stream lets through: at least, and at most.
const FUSE: (u64, u64) = (400, 24_000);

const WINDOW: usize = 256 << 10;

pub struct Line {
    channel: Channel,
    random: Mutex<Random>,
    streams: Mutex<Vec<AbortHandle>>,
    held: watch::Sender<bool>,
}

impl Line {
    pub fn new(channel: &Channel, random: Random) -> Self {
        let (channel, random, held) = (channel.clone(), Mutex::new(random), watch::Sender::new(false));
        Self { channel, random, streams: Mutex::default(), held }
    }

    /// From here on no reply arrives, and no stream is opened; or those held up do, whose stream has not been cut.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Every stream is lost.
    pub fn cut(&self) {
        self.streams.lock().unwrap().drain(..).for_each(|stream| stream.abort());
    }

    fn fuse(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).below(FUSE.1 - FUSE.0) + FUSE.0
    }
}

impl Dial for Line {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async move {
            pass(&mut self.held.subscribe()).await;
            let (mut from_cell, mut to_cell) = split(self.channel.open(VsockPort::FIRST_BINDING).await?);
            let (near, outer) = duplex(WINDOW);
            let (mut from_client, mut to_client) = split(outer);
            let (fuse, held) = (self.fuse(), self.held.subscribe());
            let carrying = tokio::spawn(async move {
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_cell) => {}
                    _ = carry((&mut from_cell).take(fuse), &mut to_client, held) => {}
                }
            });
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(carrying.abort_handle());
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

/// To the end of what is read; while it is held, nothing arrives.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    mut held: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; WINDOW];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        pass(&mut held).await;
        to.write_all(bytes.get(..read).unwrap_or_default()).await?;
    }
}

async fn pass(held: &mut watch::Receiver<bool>) {
    // Who holds it up is there as long as the streams are.
    let _ = held.wait_for(|held| !held).await;
}
