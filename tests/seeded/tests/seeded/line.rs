//! Streams to a cell that break: at once when they are cut, or after so many bytes of replies, so that replies are
//! lost which the cell has sent.

use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, copy, duplex, split};
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
}

impl Line {
    pub fn new(channel: &Channel, random: Random) -> Self {
        Self { channel: channel.clone(), random: Mutex::new(random), streams: Mutex::default() }
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
            let (mut from_cell, mut to_cell) = split(self.channel.open(VsockPort::FIRST_BINDING).await?);
            let (near, outer) = duplex(WINDOW);
            let (mut from_client, mut to_client) = split(outer);
            let fuse = self.fuse();
            let carrying = tokio::spawn(async move {
                let replies = &mut (&mut from_cell).take(fuse);
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_cell) => {}
                    _ = copy(replies, &mut to_client) => {}
                }
            });
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(carrying.abort_handle());
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}
