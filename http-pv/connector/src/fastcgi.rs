//! FastCGI, as PHP-FPM speaks it: one request a connection, answered by a CGI document.
//!
//! The present library for it sends a whole body before it looks for the answer, and takes a connection that ends
//! early for the end of the answer.

mod document;
mod record;
mod script;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use vamos_http_message::Body;

use crate::limits::{
    ANSWER_HEAD_BYTES_MAX, CONNECT_WITHIN, CONNECTIONS_MAX, FASTCGI_RECORD_BYTES, FASTCGI_RECORDS_MAX,
};
use crate::pool::Unanswered;
use crate::upstream::{Address, Connected};
use record::Event;

/// A server of scripts.
#[derive(Debug)]
pub(crate) struct FastCgi {
    address: Address,
    root: PathBuf,
    index: String,
    places: Arc<Semaphore>,
}

impl FastCgi {
    pub(crate) fn new(address: Address, root: PathBuf, index: String) -> Self {
        Self { address, root, index, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Unanswered> {
        let refused = |error: io::Error| Unanswered::Refused(error);
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|error| refused(io::Error::other(error)))?;
        let connected = timeout(CONNECT_WITHIN, self.address.connect()).await;
        let stream = connected.map_err(|late| refused(late.into()))?.map_err(refused)?;
        let (head, body) = request.into_parts();
        let (mut source, mut sink) = split(stream);
        let mut wire = BytesMut::new();
        record::begin(&mut wire);
        record::parameters(&mut wire, &script::parameters(&head, &body, &self.root, &self.index));
        sink.write_all(&wire).await.map_err(refused)?;
        let sending = tokio::spawn(send(sink, body)).abort_handle();
        let mut answer =
            Reading { records: record::Records::default(), _sending: Sending(sending), _place: place };
        let broke = |error: io::Error| Unanswered::Broke(error.into());
        let mut document = BytesMut::new();
        let (response, rest) = loop {
            match answer.next(&mut source).await.map_err(broke)? {
                Event::Output(output) => document.extend_from_slice(&output),
                Event::End => return Err(broke(io::ErrorKind::UnexpectedEof.into())),
            }
            match document::head(&mut document).map_err(broke)? {
                Some(response) => break (response, document.freeze()),
                None if document.len() > ANSWER_HEAD_BYTES_MAX => {
                    return Err(broke(io::Error::other("the head of the script's answer is too long")));
                }
                None => {}
            }
        };
        // Read by a task of its own, so that the body can be polled.
        let (events, output) = mpsc::channel(FASTCGI_RECORDS_MAX);
        tokio::spawn(async move {
            loop {
                let event = answer.next(&mut source).await;
                let last = !matches!(event, Ok(Event::Output(_)));
                if events.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(response.map(|()| Body::stream(Output { first: rest, output })))
    }
}

/// The request's content, as it comes.
async fn send(mut sink: WriteHalf<Connected>, mut body: Body) -> io::Result<()> {
    let mut wire = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // One that breaks off ends the connection, which tells the script.
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        for piece in data.chunks(FASTCGI_RECORD_BYTES) {
            record::input(&mut wire, piece);
        }
        sink.write_all_buf(&mut wire).await?;
    }
    record::input(&mut wire, &[]);
    sink.write_all_buf(&mut wire).await?;
    // The sink stays open: some servers take its end for the client's.
    std::future::pending().await
}

/// The task that sends, which ends with the answer.
struct Sending(AbortHandle);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Reading {
    records: record::Records,
    _sending: Sending,
    _place: OwnedSemaphorePermit,
}

impl Reading {
    async fn next(&mut self, source: &mut ReadHalf<Connected>) -> io::Result<Event> {
        loop {
            if let Some(event) = self.records.next()? {
                return Ok(event);
            }
            if source.read_buf(&mut self.records.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A script's output after its head.
struct Output {
    first: Bytes,
    output: mpsc::Receiver<io::Result<Event>>,
}

impl http_body::Body for Output {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        Poll::Ready(match ready!(self.output.poll_recv(cx)) {
            Some(Ok(Event::Output(output))) => Some(Ok(Frame::data(output))),
            Some(Ok(Event::End)) => None,
            Some(Err(error)) => Some(Err(error)),
            // After the end.
            None => None,
        })
    }
}
