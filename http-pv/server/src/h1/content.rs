//! A request's body on its way from the connection to the handler.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use vamos_http_message::{Body, BodyError};

use super::chunked::{Chunked, Piece};
use super::head::Framing;
use super::input::Input;
use super::refusal::{Refusal, refused};

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// It is none.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The client is gone.
    #[error("the client went away within the body")]
    Gone,
}

/// Reads bodies off a connection.
pub(super) struct Reader {
    framing: Framing,
    chunked: Chunked,
    ended: bool,
}

impl Reader {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, chunked: Chunked::default(), ended: framing == Framing::None }
    }

    /// The next of the body, `None` at its end.
    pub(super) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        input: &mut Input<R>,
        pause_max: Duration,
    ) -> Result<Option<Frame<Bytes>>, Broken> {
        while !self.ended {
            let piece = match &mut self.framing {
                Framing::None => Piece::End(http::HeaderMap::new()),
                Framing::Chunked => self.chunked.next(&mut input.bytes)?,
                Framing::Length(left) if input.bytes.is_empty() && *left > 0 => Piece::None,
                Framing::Length(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.bytes.len());
                    *left -= taken as u64;
                    match taken {
                        0 => Piece::End(http::HeaderMap::new()),
                        taken => Piece::Data(input.bytes.split_to(taken).freeze()),
                    }
                }
            };
            match piece {
                Piece::Data(data) => {
                    self.ended = self.framing == Framing::Length(0);
                    return Ok(Some(Frame::data(data)));
                }
                Piece::End(trailers) => {
                    self.ended = true;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
                Piece::None => match timeout(pause_max, input.more()).await {
                    Ok(Ok(true)) => {}
                    Ok(_) => return Err(Broken::Gone),
                    Err(_) => {
                        return Err(
                            refused(http::StatusCode::REQUEST_TIMEOUT, "the body does not come").into()
                        );
                    }
                },
            }
        }
        Ok(None)
    }

    /// Reads and forgets the rest, if it is no more than `bytes_max`; whether it was.
    pub(super) async fn drain<R: AsyncRead + Unpin>(
        &mut self,
        input: &mut Input<R>,
        pause_max: Duration,
        bytes_max: usize,
    ) -> bool {
        let mut drained = 0;
        while drained <= bytes_max {
            match self.next(input, pause_max).await {
                Ok(Some(frame)) => drained += frame.data_ref().map_or(0, Bytes::len),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// The connection's end of a body: one piece is under way at a time.
pub(super) struct Sender {
    pieces: mpsc::Sender<Result<Option<Frame<Bytes>>, Broken>>,
    wanted: Arc<Notify>,
}

/// A body that comes over a connection, and what puts it there.
pub(super) fn pair(length: Option<u64>) -> (Sender, Body) {
    let (sender, pieces) = mpsc::channel(1);
    let wanted = Arc::new(Notify::new());
    let body = Content { pieces, wanted: Some(wanted.clone()), length, ended: false };
    (Sender { pieces: sender, wanted }, Body::stream(body))
}

impl Sender {
    /// Waits until somebody has begun to read.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until the last piece was taken; whether anybody will take more.
    pub(super) async fn ready(&self) -> bool {
        self.pieces.reserve().await.is_ok()
    }

    /// Hands over the next piece, or says that there is none.
    pub(super) async fn send(&self, piece: Result<Option<Frame<Bytes>>, Broken>) {
        // Whoever does not want it any more has dropped it.
        let _ = self.pieces.send(piece).await;
    }
}

struct Content {
    pieces: mpsc::Receiver<Result<Option<Frame<Bytes>>, Broken>>,
    /// Until it was told.
    wanted: Option<Arc<Notify>>,
    /// What is left, if it is known.
    length: Option<u64>,
    ended: bool,
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(wanted) = self.wanted.take() {
            wanted.notify_one();
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx));
        Poll::Ready(match piece {
            Some(Ok(Some(frame))) => {
                let come = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.length = self.length.map(|left| left.saturating_sub(come));
                Some(Ok(frame))
            }
            Some(Ok(None)) => {
                self.ended = true;
                None
            }
            Some(Err(broken)) => {
                self.ended = true;
                Some(Err(BodyError(broken.into())))
            }
            // Nobody has said that this was all.
            None => {
                self.ended = true;
                (self.length != Some(0)).then(|| Err(BodyError(Broken::Gone.into())))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
