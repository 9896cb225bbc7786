//! The client against a peer that is told frame by frame what to do: what is written when, and what
//! becomes of requests nobody waits for.

use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use vamos_proto::frame::{self, Decoder, Frame};
use vamos_sql_client::{BlockBuilder, Client, ClientError, Session, Value, ValueRef};
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::message::{self, Transaction};

/// The service's end of a link.
struct Peer {
    stream: DuplexStream,
    input: BytesMut,
}

impl Peer {
    fn link() -> (Client, Peer) {
        let (near, far) = tokio::io::duplex(1 << 20);
        (Client::over(near), Peer { stream: far, input: BytesMut::new() })
    }

    async fn next(&mut self) -> (Kind, Frame) {
        loop {
            if let Some(frame) = Decoder::new(SQL_FRAME_BYTES_MAX).decode(&mut self.input).expect("a frame") {
                return (Kind::from_wire(frame.header.kind).expect("a kind"), frame);
            }
            let read =
                tokio::time::timeout(Duration::from_secs(5), self.stream.read_buf(&mut self.input)).await;
            assert_ne!(read.expect("a request in time").expect("a stream"), 0, "the client ended the stream");
        }
    }

    async fn expect(&mut self, kind: Kind) -> Frame {
        let (found, frame) = self.next().await;
        assert_eq!(found, kind);
        frame
    }

    async fn reply(&mut self, to: &Frame, kind: Kind, body: &impl Message) {
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, to.header.session, to.header.sequence, kind as u16, |out| {
            body.encode_raw(out)
        });
        self.stream.write_all(&wire).await.expect("the client reads");
    }

    async fn session(client: &Client, peer: &mut Peer) -> Session {
        let open = async {
            let frame = peer.expect(Kind::Open).await;
            peer.reply(
                &frame,
                Kind::Opened,
                &message::Opened { engine: "scripted".to_owned(), ..Default::default() },
            )
            .await;
        };
        tokio::join!(client.open("db", "test"), open).0.expect("a session")
    }
}

fn done(command: &str) -> message::Result {
    message::Result { command: command.to_owned(), ..Default::default() }
}

fn rows(values: &[i64]) -> bytes::Bytes {
    let mut block = BlockBuilder::new(1);
    values.iter().for_each(|value| block.row([ValueRef::Integer(*value)]));
    block.finish()
}

#[tokio::test]
async fn requests_of_many_sessions_leave_in_one_write() {
    let (client, mut peer) = Peer::link();
    let mut sessions = Vec::new();
    for _ in 0..64 {
        sessions.push(Peer::session(&client, &mut peer).await);
    }
    for _ in 0..3 {
        let asked: Vec<_> = sessions.iter().map(|session| session.execute("SELECT 1", &[])).collect();
        let answered = async {
            // The first request may leave at once; all others have queued before the second write.
            let mut requests = Vec::new();
            let mut reads = 0;
            while requests.len() < 64 {
                if let Some(frame) =
                    Decoder::new(SQL_FRAME_BYTES_MAX).decode(&mut peer.input).expect("a frame")
                {
                    requests.push(frame);
                } else {
                    reads += 1;
                    peer.input.reserve(1 << 20);
                    peer.stream.read_buf(&mut peer.input).await.expect("a stream");
                }
            }
            let mut wire = BytesMut::new();
            for request in &requests {
                let header = request.header;
                frame::encode(&mut wire, header.session, header.sequence, Kind::Result as u16, |out| {
                    done("SELECT").encode_raw(out);
                });
            }
            peer.stream.write_all(&wire).await.expect("the client reads");
            reads
        };
        let asked = async {
            let tasks = futures_join(asked).await;
            assert!(tasks.iter().all(Result::is_ok));
        };
        let reads = tokio::join!(asked, answered).1;
        assert!(reads <= 2, "{reads} reads for 64 requests");
    }
}

async fn futures_join<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) {
            return std::task::Poll::Ready(outputs.iter_mut().filter_map(Option::take).collect());
        }
        std::task::Poll::Pending
    })
    .await
}

#[tokio::test]
async fn a_forgotten_statement_gets_its_text_again() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    let describe = async {
        let frame = peer.expect(Kind::Describe).await;
        let asked = message::Describe::decode(frame.body.clone()).unwrap();
        assert_eq!(asked.text.as_deref(), Some("SELECT ?1"));
        peer.reply(&frame, Kind::Described, &message::Described { parameters: 1, ..Default::default() })
            .await;
        asked.statement
    };
    let (statement, id) = tokio::join!(session.prepare("SELECT ?1"), describe);
    let statement = statement.unwrap();
    let serve = async {
        let frame = peer.expect(Kind::Execute).await;
        let execute = message::Execute::decode(frame.body.clone()).unwrap();
        assert_eq!((execute.statement, execute.text), (id, None));
        peer.reply(&frame, Kind::TextWanted, &message::Close {}).await;
        let frame = peer.expect(Kind::Execute).await;
        let execute = message::Execute::decode(frame.body.clone()).unwrap();
        assert_eq!((execute.statement, execute.text.as_deref()), (id, Some("SELECT ?1")));
        let result = message::Result { rows: rows(&[7]), ..done("SELECT") };
        peer.reply(&frame, Kind::Result, &result).await;
    };
    let parameters = [Value::Integer(7)];
    let (outcome, ()) = tokio::join!(session.run(&statement, &parameters), serve);
    assert_eq!(outcome.unwrap().rows().unwrap(), [[Value::Integer(7)]]);
}

#[tokio::test]
async fn rows_are_fetched_as_they_are_wanted() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    let mut cursor = session.execute_cursor("SELECT x", &[], 3, 1).await.unwrap();
    let execute = peer.expect(Kind::Execute).await;
    let part = |values: &[i64], suspended| message::Result { rows: rows(values), suspended, ..done("") };
    peer.reply(&execute, Kind::Result, &part(&[1, 2], true)).await;
    assert!(cursor.next_block().await.unwrap().is_some());
    // The window is used up, the rows asked for are not: one more is fetched.
    let serve = async {
        let frame = peer.expect(Kind::Fetch).await;
        let fetch = message::Fetch::decode(frame.body.clone()).unwrap();
        assert_eq!((fetch.cursor, fetch.rows, fetch.blocks), (execute.header.sequence, 1, 1));
        peer.reply(&frame, Kind::Result, &part(&[3], true)).await;
    };
    let (block, ()) = tokio::join!(cursor.next_block(), serve);
    assert!(block.unwrap().is_some());
    assert!(cursor.next_block().await.unwrap().is_none());
    assert!(cursor.is_suspended());
    // Dropping it closes it, together with the next request.
    drop(cursor);
    let _asked = session.execute_cursor("SELECT y", &[], 0, 1).await.unwrap();
    let close = peer.expect(Kind::CloseCursor).await;
    assert_eq!(message::CloseCursor::decode(close.body).unwrap().cursor, execute.header.sequence);
    peer.expect(Kind::Execute).await;
}

#[tokio::test]
async fn a_cursor_nobody_waits_for_is_closed_when_it_opens() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    drop(session.execute_cursor("SELECT x", &[], 1, 1).await.unwrap());
    let execute = peer.expect(Kind::Execute).await;
    peer.reply(&execute, Kind::Result, &message::Result { suspended: true, rows: rows(&[1]), ..done("") })
        .await;
    let close = peer.expect(Kind::CloseCursor).await;
    assert_eq!(message::CloseCursor::decode(close.body).unwrap().cursor, execute.header.sequence);
}

#[tokio::test]
async fn a_dropped_session_is_interrupted_and_closed_and_its_number_used_again() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    let cursor = session.execute_cursor("SELECT slow", &[], 0, 1).await.unwrap();
    let execute = peer.expect(Kind::Execute).await;
    drop(session);
    let cancel = peer.expect(Kind::Cancel).await;
    assert_eq!(message::Cancel::decode(cancel.body).unwrap().sequence, execute.header.sequence);
    let close = peer.expect(Kind::Close).await;
    peer.reply(&close, Kind::Closed, &message::Close {}).await;
    let pong = async {
        let frame = peer.expect(Kind::Ping).await;
        peer.reply(&frame, Kind::Pong, &message::Close {}).await;
    };
    tokio::join!(client.ping(), pong).0.unwrap();
    let other = client.open("db", "test");
    let serve = async {
        let open = peer.expect(Kind::Open).await;
        assert_eq!((open.header.session, open.header.sequence), (execute.header.session, 1));
        peer.reply(&open, Kind::Opened, &message::Opened::default()).await;
    };
    assert!(tokio::join!(other, serve).0.is_ok());
    drop(cursor);
}

#[tokio::test]
async fn a_session_opened_for_nobody_is_closed() {
    let (client, mut peer) = Peer::link();
    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.open("db", "test").await.map(drop) }
    });
    let open = peer.expect(Kind::Open).await;
    opening.abort();
    assert!(opening.await.unwrap_err().is_cancelled());
    peer.reply(&open, Kind::Opened, &message::Opened::default()).await;
    assert_eq!(peer.expect(Kind::Close).await.header.session, open.header.session);
}

#[tokio::test]
async fn a_lost_link_fails_every_waiting_request() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    let asked = session.execute("SELECT 1", &[]);
    let lose = async {
        peer.expect(Kind::Execute).await;
        drop(peer);
    };
    let (outcome, ()) = tokio::join!(asked, lose);
    let error = outcome.unwrap_err();
    assert!(error.is_link_lost() && error.sqlstate() == "08006", "{error}");
    assert!(client.ping().await.unwrap_err().is_link_lost());
    assert!(session.execute("SELECT 1", &[]).await.unwrap_err().is_link_lost());
    tokio::time::timeout(Duration::from_secs(5), client.ended()).await.expect("the end is told");
}

#[tokio::test]
async fn bytes_that_are_no_frame_lose_the_link() {
    let (client, mut peer) = Peer::link();
    let asked = client.ping();
    let serve = async {
        peer.expect(Kind::Ping).await;
        peer.stream.write_all(&[0xff; 64]).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(asked, serve);
    let ClientError::LinkLost(loss) = outcome.unwrap_err() else { panic!("the link lives") };
    let cause = std::error::Error::source(&*loss).expect("a cause").to_string();
    assert!(cause.contains("announces"), "{cause}");
}

#[tokio::test]
async fn an_error_leaves_the_session_usable() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    let serve = async {
        let frame = peer.expect(Kind::Execute).await;
        let mut error =
            message::Error { sqlstate: "42601".to_owned(), position: Some(3), ..Default::default() };
        error.set_transaction(Transaction::Open);
        peer.reply(&frame, Kind::Error, &error).await;
        let frame = peer.expect(Kind::Execute).await;
        peer.reply(&frame, Kind::Result, &done("COMMIT")).await;
    };
    let ask = async {
        let Err(ClientError::Sql(error)) = session.execute("SELEC", &[]).await else { panic!("no error") };
        assert_eq!(
            (error.sqlstate.as_str(), error.position, error.transaction),
            ("42601", Some(3), Transaction::Open)
        );
        assert_eq!(session.execute("COMMIT", &[]).await.unwrap().command, "COMMIT");
    };
    tokio::join!(ask, serve);
}

#[tokio::test]
async fn a_request_over_the_limit_is_not_sent() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    let blob = Value::Blob(vec![0; SQL_FRAME_BYTES_MAX + 1]);
    let error = session.execute("SELECT ?1", &[blob]).await.unwrap_err();
    assert_eq!(error.sqlstate(), "54000");
    let ping = async {
        let frame = peer.expect(Kind::Ping).await;
        peer.reply(&frame, Kind::Pong, &message::Close {}).await;
    };
    assert!(tokio::join!(client.ping(), ping).0.is_ok());
}

#[tokio::test]
async fn a_full_queue_makes_senders_wait() {
    let (client, mut peer) = Peer::link();
    let session = Peer::session(&client, &mut peer).await;
    let blob = [Value::Blob(vec![7; 900 << 10])];
    // The peer's pipe takes one of them; two more fill the queue, a fourth has to wait for room.
    let mut asked = Vec::new();
    for sql in ["a", "b", "c"] {
        asked.push(session.execute_cursor(sql, &blob, 0, 1).await.unwrap());
    }
    let fourth = session.execute_cursor("d", &blob, 0, 1);
    tokio::pin!(fourth);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut fourth).await;
    assert!(early.is_err(), "nothing held the fourth request back");
    let read = async {
        for _ in 0..4 {
            peer.expect(Kind::Execute).await;
        }
    };
    assert!(tokio::join!(fourth, read).0.is_ok());
}
