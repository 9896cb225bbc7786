//! A client that writes bytes, for what no driver would send.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::host::{DATABASE, Host};

/// A connection.
pub struct Raw {
    pub stream: UnixStream,
    input: BytesMut,
    /// From BackendKeyData.
    pub pid: i32,
    /// From BackendKeyData.
    pub key: i32,
}

/// A start-up packet with these parameters, without the final zero byte if it is to be malformed.
pub fn startup(parameters: &[(&str, &str)]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u32(3 << 16);
    for (name, value) in parameters {
        body.put_slice(name.as_bytes());
        body.put_u8(0);
        body.put_slice(value.as_bytes());
        body.put_u8(0);
    }
    body.put_u8(0);
    let mut packet = BytesMut::new();
    packet.put_u32(body.len() as u32 + 4);
    packet.put_slice(&body);
    packet
}

/// A message.
pub fn message(kind: u8, body: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    wire.put_u8(kind);
    wire.put_u32(body.len() as u32 + 4);
    wire.put_slice(body);
    wire
}

/// A Parse of the unnamed statement.
pub fn parse(text: &str) -> BytesMut {
    message(b'P', format!("\0{text}\0\0\0").as_bytes())
}

/// A Bind of the unnamed statement to text parameters.
pub fn bind(parameters: &[&str]) -> BytesMut {
    let mut body = BytesMut::from(&b"\0\0\0\0"[..]);
    body.put_u16(parameters.len() as u16);
    for parameter in parameters {
        body.put_u32(parameter.len() as u32);
        body.put_slice(parameter.as_bytes());
    }
    body.put_u16(0);
    message(b'B', &body)
}

/// An Execute of the unnamed portal.
pub fn execute(rows: u32) -> BytesMut {
    let mut body = BytesMut::from(&b"\0"[..]);
    body.put_u32(rows);
    message(b'E', &body)
}

impl Raw {
    /// A connection before its start-up.
    pub async fn open(host: &Host) -> Self {
        let stream = UnixStream::connect(host.path().join(".s.PGSQL.5432")).await.expect("the door is open");
        Self { stream, input: BytesMut::new(), pid: 0, key: 0 }
    }

    /// A connection ready for queries.
    pub async fn start(host: &Host) -> Self {
        let mut raw = Self::open(host).await;
        raw.send(&startup(&[("user", "tester"), ("database", DATABASE)])).await;
        let greeting = raw.until(b'Z').await;
        let mut key = greeting.iter().find(|(kind, _)| *kind == b'K').expect("a key").1.clone();
        raw.pid = key.get_i32();
        raw.key = key.get_i32();
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the door reads");
    }

    /// The next message, or `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if self.input.len() >= 5 {
                let length = u32::from_be_bytes(self.input[1..5].try_into().expect("four bytes")) as usize;
                if self.input.len() > length {
                    let kind = self.input[0];
                    self.input.advance(5);
                    return Some((kind, self.input.split_to(length - 4).freeze()));
                }
            }
            let read =
                tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.input)).await;
            match read.expect("an answer in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Messages up to one of that kind.
    pub async fn until(&mut self, last: u8) -> Vec<(u8, Bytes)> {
        let mut messages = Vec::new();
        loop {
            let Some((kind, body)) = self.next().await else {
                panic!("the connection ended after {messages:?}")
            };
            messages.push((kind, body));
            if kind == last {
                return messages;
            }
        }
    }

    /// The kinds of the messages up to one of that kind.
    pub async fn kinds(&mut self, last: u8) -> String {
        self.until(last).await.iter().map(|(kind, _)| *kind as char).collect()
    }

    /// The next message's severity and SQLSTATE; it must be an error.
    pub async fn error(&mut self) -> (String, String) {
        let (kind, body) = self.next().await.expect("an error, not the end");
        assert_eq!(kind as char, 'E', "{body:?}");
        let field = |wanted: u8| {
            let mut fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
            let found = fields.find(|field| field[0] == wanted).expect("the field");
            String::from_utf8(found[1..].to_vec()).expect("text")
        };
        (field(b'S'), field(b'C'))
    }

    /// Expects the connection to end with this error, and nothing after it.
    pub async fn dies_of(&mut self, sqlstate: &str) {
        assert_eq!(self.error().await, ("FATAL".to_owned(), sqlstate.to_owned()));
        assert_eq!(self.next().await, None, "something came after the end");
    }

    /// Expects a query to be answered: the connection is in sync.
    pub async fn answers(&mut self) {
        self.send(&message(b'Q', b"SELECT 42\0")).await;
        assert_eq!(self.kinds(b'Z').await, "TDCZ");
    }
}
