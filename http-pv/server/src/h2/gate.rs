//! What comes from the client passes here before the `h2` crate sees it, and what goes to it after.
//!
//! Here a client's frames are counted: each kind of frame that makes us work and brings nothing has a budget, which time
//! and our own answers fill up again. A frame that is refused, and what is behind it, is never seen by `h2`; [`Verdict`]
//! says why.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::heads::{Head, Heads, Kind, PREFACE_BYTES, Settings, Step};
use crate::limits::{
    OVERHEAD_FRAMES_MAX, OVERHEAD_FRAMES_PER_ANSWER, OVERHEAD_FRAMES_PER_SECOND, RESETS_MAX,
    RESETS_PER_SECOND, SETTINGS_COST,
};

/// Why the connection has to end, once it has to.
#[derive(Clone)]
pub(super) struct Verdict(Arc<AtomicU32>);

impl Verdict {
    /// No code of an error.
    const NONE: u32 = u32::MAX;

    pub(super) fn reason(&self) -> Option<Reason> {
        let code = self.0.load(Relaxed);
        (code != Self::NONE).then(|| code.into())
    }

    fn pass(&self, reason: Reason) {
        self.0.store(reason.into(), Relaxed);
    }
}

impl Default for Verdict {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(Self::NONE)))
    }
}

/// So many, and so many more a second.
struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Instant,
}

impl Budget {
    fn new(most: u32, per_second: u32) -> Self {
        Self { left: most, most, per_second, filled: Instant::now() }
    }

    /// Whether there was enough.
    fn spend(&mut self, cost: u32) -> bool {
        if self.left < cost {
            let millis = u64::try_from(self.filled.elapsed().as_millis()).unwrap_or(u64::MAX);
            let earned = millis.saturating_mul(self.per_second.into()) / 1000;
            if earned > 0 {
                self.filled = Instant::now();
                self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
            }
        }
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.most);
    }
}

/// A connection's bytes, under guard.
pub(super) struct Gate<IO> {
    io: IO,
    verdict: Verdict,
    inward: Heads,
    outward: Heads,
    /// Of the frame that comes, if it is one of settings.
    settings: Option<Settings>,
    begun: bool,
    overhead: Budget,
    resets: Budget,
    write_pause_max: Duration,
    /// Runs while the client takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<IO> Gate<IO> {
    /// Of a connection on which nothing has come yet, not even the preface.
    pub(super) fn new(io: IO, verdict: Verdict, write_pause_max: Duration) -> Self {
        Self {
            io,
            verdict,
            inward: Heads::after(PREFACE_BYTES),
            outward: Heads::after(0),
            settings: None,
            begun: false,
            overhead: Budget::new(OVERHEAD_FRAMES_MAX, OVERHEAD_FRAMES_PER_SECOND),
            resets: Budget::new(RESETS_MAX, RESETS_PER_SECOND),
            write_pause_max,
            stuck: None,
        }
    }

    /// How many of `bytes` may pass, all of them unless there is a verdict.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while let Some((taken, step)) = self.inward.step(bytes.get(passed..).unwrap_or_default()) {
            let judged = match step {
                Step::Part => Ok(()),
                Step::Payload(payload) => {
                    self.settings.as_mut().map_or(Ok(()), |settings| settings.check(payload))
                }
                Step::Head(head) => {
                    self.settings = (head.kind == Kind::Settings).then(Settings::default);
                    self.admit(&head)
                }
            };
            if let Err(reason) = judged {
                self.verdict.pass(reason);
                // At least the last byte of the head, or of the payload, is kept back: nobody sees the frame.
                return passed;
            }
            passed += taken;
        }
        passed
    }

    fn admit(&mut self, head: &Head) -> Result<(), Reason> {
        if !self.begun && !head.may_be_first() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.begun = true;
        head.check()?;
        let afforded = match head.kind {
            Kind::Data if !head.is_idle_data() => true,
            Kind::Headers => true,
            Kind::Reset => self.resets.spend(1),
            Kind::Settings => self.overhead.spend(SETTINGS_COST),
            _ => self.overhead.spend(1),
        };
        if afforded { Ok(()) } else { Err(Reason::ENHANCE_YOUR_CALM) }
    }

    /// Looks at what has gone: each part of an answer is a reason for a few frames of the client's.
    fn gone(&mut self, mut bytes: &[u8]) {
        while let Some((taken, step)) = self.outward.step(bytes) {
            if let Step::Head(head) = step
                && matches!(head.kind, Kind::Data | Kind::Headers)
            {
                self.overhead.earn(OVERHEAD_FRAMES_PER_ANSWER);
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Ends what is written once nothing of it was taken for too long.
    fn paced<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let pause = self.write_pause_max;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        stuck.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gate<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever polls looks at the verdict then.
        if self.verdict.reason().is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        let come = buffer.filled().get(before..).unwrap_or_default();
        let passed = self.judge(come);
        if passed == 0 && !come.is_empty() {
            buffer.set_filled(before);
            return Poll::Pending;
        }
        buffer.set_filled(before + passed);
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gate<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = written {
            self.gone(bytes.get(..length).unwrap_or(bytes));
        }
        self.paced(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        if let Poll::Ready(Ok(mut length)) = written {
            for piece in pieces {
                let part = length.min(piece.len());
                self.gone(piece.get(..part).unwrap_or(piece));
                length -= part;
            }
        }
        self.paced(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.paced(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.paced(cx, shut)
    }
}
