//! A request's body on its way from its stream to the handler. The client may send more as this is read.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::RecvStream;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use vamos_http_message::BodyError;

use super::request::check_trailers;
use crate::h1::refusal::{Refusal, refused};

/// What the body has to tell to whoever answers.
pub(super) enum News {
    /// Somebody has begun to read.
    Wanted,
    /// It is none.
    Broken(Refusal),
}

/// The client's end of a stream.
pub(super) struct Content {
    stream: RecvStream,
    /// What is left, if it is known.
    length: Option<u64>,
    /// Longest without any of it, if there is such a limit.
    pause_max: Option<Duration>,
    /// Runs while nothing comes.
    pause: Option<Pin<Box<Sleep>>>,
    news: mpsc::Sender<News>,
    begun: bool,
    ended: bool,
}

impl Content {
    /// The body that comes on `stream`, and where it tells its news.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        pause_max: Option<Duration>,
    ) -> (Self, mpsc::Receiver<News>) {
        let (news, heard) = mpsc::channel(2);
        (Self { stream, length, pause_max, pause: None, news, begun: false, ended: false }, heard)
    }

    fn broken(&mut self, refusal: Refusal) -> BodyError {
        // Nobody listens once it is answered.
        let _ = self.news.try_send(News::Broken(refusal));
        BodyError(refusal.into())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What is handed over is off our hands; only a stream that is gone cannot be told.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.length = self.length.map(|left| left.saturating_sub(data.len() as u64));
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError(error.into())))),
                None => break,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(None) => None,
            Ok(Some(fields)) => match check_trailers(&fields) {
                Ok(()) => Some(Ok(Frame::trailers(fields))),
                Err(refusal) => Some(Err(self.broken(refusal))),
            },
            Err(error) => Some(Err(BodyError(error.into()))),
        })
    }
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.begun {
            self.begun = true;
            let _ = self.news.try_send(News::Wanted);
        }
        if let Poll::Ready(piece) = self.poll_piece(cx) {
            self.pause = None;
            self.ended = !matches!(&piece, Some(Ok(frame)) if frame.is_data());
            return Poll::Ready(piece);
        }
        let Some(pause_max) = self.pause_max else { return Poll::Pending };
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause_max)));
        ready!(pause.as_mut().poll(cx));
        self.ended = true;
        let late = refused(StatusCode::REQUEST_TIMEOUT, "the body does not come");
        Poll::Ready(Some(Err(self.broken(late))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
