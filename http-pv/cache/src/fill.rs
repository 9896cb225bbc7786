//! An answer on its way into the cache: one reads it from its server, any number from here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use vamos_http_message::{Body, BodyError};

/// What has come of it.
#[derive(Debug, Default)]
struct State {
    pieces: Vec<Bytes>,
    /// Whether it is whole, once that is known.
    end: Option<bool>,
    waiting: Vec<Waker>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Fill {
    length: u64,
    state: Mutex<State>,
}

impl Fill {
    pub(crate) fn new(length: u64) -> Arc<Self> {
        Arc::new(Self { length, state: Mutex::default() })
    }

    /// Reads all of `body`; `None` if it breaks, or is not as long as it was said to be.
    pub(crate) async fn read(&self, mut body: Body) -> Option<Bytes> {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            length += data.len() as u64;
            if length > self.length {
                break;
            }
            self.change(|state| state.pieces.push(data));
        }
        let whole = length == self.length;
        self.change(|state| state.end = Some(whole));
        whole.then(|| {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match &state.pieces[..] {
                [only] => only.clone(),
                pieces => {
                    let mut all = BytesMut::with_capacity(self.length as usize);
                    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                    all.freeze()
                }
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// From its beginning.
    pub(crate) fn body(self: &Arc<Self>) -> Body {
        if self.length == 0 {
            return Body::Empty;
        }
        Body::stream(Reading { fill: self.clone(), next: 0, left: self.length })
    }
}

struct Reading {
    fill: Arc<Fill>,
    next: usize,
    left: u64,
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut state = this.fill.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = state.pieces.get(this.next) {
            this.next += 1;
            this.left -= piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        match state.end {
            Some(true) => Poll::Ready(None),
            Some(false) => Poll::Ready(Some(Err(BodyError("the server's answer broke off".into())))),
            None => {
                state.waiting.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
