//! What RFC 9113 says that a server must do, rule by rule, each with frames that call for it.

mod wire;

use wire::*;

/// What must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The connection ends, with this reason.
    GoAway(u32),
    /// The stream ends, with this reason; the connection goes on.
    Reset(u32),
    /// An answer; the connection goes on.
    Status(u16),
    /// The connection goes on, and so do its streams.
    Fine,
}
use Then::{Fine, GoAway, Reset, Status};

/// What follows `said`, until all that is expected of it has come, or the connection ends.
async fn follows(said: &[u8], expected: Then) -> Vec<Then> {
    let mut client = Client::begun().await;
    let ping = frame(PING, 0, 0, b"the last");
    client.say(&[said, &ping].concat()).await;
    let (mut seen, mut answered) = (Vec::new(), false);
    let gathering = async {
        while let Some(came) = client.hear().await {
            match came.kind {
                GOAWAY => seen.push(GoAway(came.number(4))),
                RST => seen.push(Reset(came.number(0))),
                HEADERS => seen.push(Status(came.status())),
                PING if came.payload == b"the last" => answered = true,
                _ => {}
            }
            let ended = matches!(expected, GoAway(_));
            if answered && !ended && (expected == Fine || seen.contains(&expected)) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(3), gathering).await;
    if answered {
        seen.push(Fine);
    }
    seen
}

/// Every rule of `table` holds: section, what it says, frames, and what follows.
async fn hold(table: Vec<(&str, &str, Vec<u8>, Then)>) {
    let mut broken = Vec::new();
    for (section, says, said, then) in table {
        let seen = follows(&said, then).await;
        let goes_on = seen.contains(&Fine);
        let ends = seen.iter().any(|seen| matches!(seen, GoAway(_)));
        let resets = seen.iter().any(|seen| matches!(seen, Reset(reason) if *reason != NO_ERROR));
        let holds = match then {
            GoAway(_) => seen.contains(&then),
            Reset(_) => seen.contains(&then) && goes_on && !ends,
            Status(_) => seen.contains(&then) && goes_on && !ends && !resets,
            Fine => goes_on && !ends && !resets,
        };
        if !holds {
            broken.push(format!("{section} {says}: expected {then:?}, got {seen:?}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW, 0, stream, &more.to_be_bytes())
}

fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

#[tokio::test]
async fn connections_begin_as_section_3_says() {
    for (says, wire, reason) in [
        ("3.4 another preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), None),
        ("3.4 no settings first", [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat(), Some(PROTOCOL)),
        ("3.4 a request first", [PREFACE, &get(1, "/")].concat(), Some(PROTOCOL)),
        ("3.4 an acknowledgement first", [PREFACE, &frame(SETTINGS, ACK, 0, &[])].concat(), Some(PROTOCOL)),
    ] {
        let mut client = Client::new(Default::default());
        client.say(&wire).await;
        if reason.is_none() {
            // Not HTTP/2, so an answer in HTTP/1.1.
            let mut answer = vec![0; 12];
            tokio::io::AsyncReadExt::read_exact(&mut client.io, &mut answer).await.unwrap();
            assert_eq!(answer, b"HTTP/1.1 505", "{says}");
        } else {
            assert_eq!(client.ending().await, reason, "{says}");
        }
        assert!(client.echo.asked.lock().unwrap().is_empty());
    }
    // Our settings come first, and theirs are acknowledged (sections 3.4 and 6.5.3).
    let mut client = Client::new(Default::default());
    client.say(&[PREFACE, &setting(4, 70_000)].concat()).await;
    let first = client.hear().await.unwrap();
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    assert_eq!(client.hear_of(SETTINGS).await.flags, ACK);
}

#[tokio::test]
async fn frames_are_as_section_4_says() {
    let split = request("GET", "/", &[]);
    let begun = frame(HEADERS, END_STREAM, 1, &split[..10]);
    let rest = |kind, stream| frame(kind, END_HEADERS, stream, &split[10..]);
    let reserved =
        [&frame(HEADERS, END_HEADERS | END_STREAM, 1 | 1 << 31, &request("GET", "/", &[]))[..]].concat();
    hold(vec![
        ("4.1", "a frame of unknown type is ignored", frame(0xfe, 0xff, 7, b"what"), Fine),
        ("4.1", "a flag that means nothing is ignored", frame(PING, 0xfe, 0, &[7; 8]), Fine),
        ("4.1", "the reserved bit is ignored", reserved, Status(200)),
        (
            "4.2",
            "DATA that is too large",
            [post(1, "/", &[]), data(1, 1, &[0; 16_385])].concat(),
            GoAway(FRAME_SIZE),
        ),
        ("4.2", "the largest DATA", [post(1, "/", &[]), data(1, 1, &[0; 16_384])].concat(), Status(200)),
        ("4.2", "HEADERS that are too large", frame(HEADERS, 5, 1, &[0; 16_385]), GoAway(FRAME_SIZE)),
        ("4.2", "an unknown frame that is too large", frame(0xfe, 0, 0, &[0; 16_385]), GoAway(FRAME_SIZE)),
        // COMPRESSION_ERROR is what the section asks for; `h2` says no more than that it is an error.
        ("4.3", "fields that cannot be decoded", frame(HEADERS, 5, 1, &[0x80]), GoAway(PROTOCOL)),
        (
            "4.3",
            "a table larger than agreed",
            frame(HEADERS, 5, 1, &[0x3f, 0xff, 0xff, 0x03]),
            GoAway(PROTOCOL),
        ),
        (
            "4.3",
            "PRIORITY within fields",
            [begun.clone(), frame(PRIORITY, 0, 3, &[0; 5])].concat(),
            GoAway(PROTOCOL),
        ),
        ("4.3", "other fields within fields", [begun.clone(), get(3, "/")].concat(), GoAway(PROTOCOL)),
        (
            "5.5",
            "an unknown frame within fields",
            [begun.clone(), frame(0xfe, 0, 1, &[])].concat(),
            GoAway(PROTOCOL),
        ),
        ("6.10", "fields go on", [begun.clone(), rest(CONTINUATION, 1)].concat(), Status(200)),
        ("6.10", "fields go on elsewhere", [begun.clone(), rest(CONTINUATION, 3)].concat(), GoAway(PROTOCOL)),
        (
            "6.10",
            "CONTINUATION of no stream",
            [begun.clone(), rest(CONTINUATION, 0)].concat(),
            GoAway(PROTOCOL),
        ),
        (
            "6.10",
            "CONTINUATION of what ended",
            [get(1, "/hang"), rest(CONTINUATION, 1)].concat(),
            GoAway(PROTOCOL),
        ),
        ("6.10", "DATA within fields", [begun, data(1, 0, b"x")].concat(), GoAway(PROTOCOL)),
    ])
    .await;
}

#[tokio::test]
async fn streams_are_as_section_5_says() {
    let ended = || get(1, "/hang");
    let reset = || [ended(), frame(RST, 0, 1, &CANCEL.to_be_bytes())].concat();
    let itself = [&[0, 0, 0, 1, 9][..], &request("GET", "/", &[])].concat();
    hold(vec![
        ("5.1", "DATA on an idle stream", data(1, 0, b"x"), GoAway(PROTOCOL)),
        ("5.1", "RST_STREAM on an idle stream", frame(RST, 0, 1, &[0, 0, 0, 8]), GoAway(PROTOCOL)),
        ("5.1", "WINDOW_UPDATE on an idle stream", window(1, 1), GoAway(PROTOCOL)),
        ("5.1", "CONTINUATION on an idle stream", frame(CONTINUATION, 4, 1, &[]), GoAway(PROTOCOL)),
        ("5.1", "PRIORITY on an idle stream", frame(PRIORITY, 0, 9, &[0; 5]), Fine),
        // STREAM_CLOSED is what the section asks for; `h2` says no more than that it is an error, and ends more.
        ("5.1", "DATA after the end", [ended(), data(1, 0, b"x")].concat(), GoAway(PROTOCOL)),
        ("5.1", "HEADERS after the end", [ended(), get(1, "/")].concat(), GoAway(PROTOCOL)),
        ("5.1", "WINDOW_UPDATE after the end", [ended(), window(1, 1)].concat(), Fine),
        ("5.1", "PRIORITY after the end", [ended(), frame(PRIORITY, 0, 1, &[0; 5])].concat(), Fine),
        ("5.1", "DATA after RST_STREAM", [reset(), data(1, 0, b"x")].concat(), Reset(STREAM_CLOSED)),
        ("5.1", "HEADERS after RST_STREAM", [reset(), get(1, "/")].concat(), GoAway(PROTOCOL)),
        ("5.1", "WINDOW_UPDATE after RST_STREAM", [reset(), window(1, 1)].concat(), Fine),
        ("5.1.1", "a stream of the server's", get(2, "/"), GoAway(PROTOCOL)),
        ("5.1.1", "a stream below one before", [get(5, "/hang"), get(3, "/")].concat(), GoAway(PROTOCOL)),
        (
            "5.1.2",
            "more streams than agreed",
            (0..129).flat_map(|stream| get(stream * 2 + 1, "/hang")).collect(),
            Reset(REFUSED),
        ),
        (
            "5.3.1",
            "a stream that depends on itself",
            frame(HEADERS, END_HEADERS | END_STREAM | PRIORITIZED, 1, &itself),
            Reset(PROTOCOL),
        ),
    ])
    .await;
}

#[tokio::test]
async fn each_frame_is_as_section_6_says() {
    let body = |flags, payload: &[u8]| [post(1, "/", &[]), data(1, flags, payload)].concat();
    let fields = request("GET", "/", &[]);
    let padded = [&[3, 0, 0, 0, 0, 9][..], &fields, &[0; 3]].concat();
    hold(vec![
        ("6.1", "DATA of no stream", data(0, 0, b"x"), GoAway(PROTOCOL)),
        ("6.1", "padding as long as the payload", body(END_STREAM | PADDED, &[2, 0]), GoAway(PROTOCOL)),
        ("6.1", "padding without its length", body(END_STREAM | PADDED, &[]), GoAway(FRAME_SIZE)),
        ("6.1", "padding", body(END_STREAM | PADDED, &[2, b'x', 0, 0]), Status(200)),
        ("6.2", "HEADERS of no stream", frame(HEADERS, 5, 0, &fields), GoAway(PROTOCOL)),
        (
            "6.2",
            "padding longer than the fields",
            frame(HEADERS, 5 | PADDED, 1, &[200, 0x82]),
            GoAway(PROTOCOL),
        ),
        ("6.2", "a priority that is cut", frame(HEADERS, 5 | PRIORITIZED, 1, &[0; 4]), GoAway(FRAME_SIZE)),
        ("6.2", "padding and priority", frame(HEADERS, 5 | PADDED | PRIORITIZED, 1, &padded), Status(200)),
        ("6.3", "PRIORITY of no stream", frame(PRIORITY, 0, 0, &[0; 5]), GoAway(PROTOCOL)),
        ("6.3", "PRIORITY of four bytes", frame(PRIORITY, 0, 1, &[0; 4]), GoAway(FRAME_SIZE)),
        ("6.4", "RST_STREAM of no stream", frame(RST, 0, 0, &[0; 4]), GoAway(PROTOCOL)),
        (
            "6.4",
            "RST_STREAM of three bytes",
            [get(1, "/hang"), frame(RST, 0, 1, &[0; 3])].concat(),
            GoAway(FRAME_SIZE),
        ),
        ("6.5", "an acknowledgement of something", frame(SETTINGS, ACK, 0, &[0; 6]), GoAway(FRAME_SIZE)),
        ("6.5", "an acknowledgement of nothing", frame(SETTINGS, ACK, 0, &[]), GoAway(PROTOCOL)),
        ("6.5", "SETTINGS of a stream", frame(SETTINGS, 0, 1, &[]), GoAway(PROTOCOL)),
        ("6.5", "half a setting", frame(SETTINGS, 0, 0, &[0; 9]), GoAway(FRAME_SIZE)),
        ("6.5.2", "ENABLE_PUSH 2", setting(2, 2), GoAway(PROTOCOL)),
        ("6.5.2", "INITIAL_WINDOW_SIZE 2^31", setting(4, 1 << 31), GoAway(FLOW_CONTROL)),
        ("6.5.2", "MAX_FRAME_SIZE 2^14 - 1", setting(5, (1 << 14) - 1), GoAway(PROTOCOL)),
        ("6.5.2", "MAX_FRAME_SIZE 2^24", setting(5, 1 << 24), GoAway(PROTOCOL)),
        ("6.5.2", "MAX_FRAME_SIZE 2^24 - 1", setting(5, (1 << 24) - 1), Fine),
        ("6.5.2", "a setting that means nothing", setting(0xff, 7), Fine),
        ("8441 3", "ENABLE_CONNECT_PROTOCOL 2", setting(8, 2), GoAway(PROTOCOL)),
        (
            "6.6",
            "PUSH_PROMISE",
            [get(1, "/hang"), frame(PUSH, 4, 1, &[0, 0, 0, 2])].concat(),
            GoAway(PROTOCOL),
        ),
        ("6.7", "PING of a stream", frame(PING, 0, 1, &[0; 8]), GoAway(PROTOCOL)),
        ("6.7", "PING of six bytes", frame(PING, 0, 0, &[0; 6]), GoAway(FRAME_SIZE)),
        ("6.7", "an answer to no PING", frame(PING, ACK, 0, &[0; 8]), Fine),
        ("6.8", "GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), GoAway(PROTOCOL)),
        ("6.8", "GOAWAY of seven bytes", frame(GOAWAY, 0, 0, &[0; 7]), GoAway(FRAME_SIZE)),
        (
            "6.8",
            "what was asked before GOAWAY",
            [get(1, "/"), frame(GOAWAY, 0, 0, &[0; 8])].concat(),
            Status(200),
        ),
        ("6.9", "no more on the connection", window(0, 0), GoAway(PROTOCOL)),
        ("6.9", "no more on a stream", [get(1, "/hang"), window(1, 0)].concat(), GoAway(PROTOCOL)),
        ("6.9", "WINDOW_UPDATE of three bytes", frame(WINDOW, 0, 0, &[0; 3]), GoAway(FRAME_SIZE)),
        ("6.9.1", "too much on the connection", window(0, (1 << 31) - 1), GoAway(FLOW_CONTROL)),
        (
            "6.9.1",
            "too much on a stream",
            [get(1, "/hang"), window(1, (1 << 31) - 1)].concat(),
            Reset(FLOW_CONTROL),
        ),
        (
            "6.9.2",
            "too much on a stream by a setting",
            [get(1, "/hang"), window(1, 1 << 16), setting(4, (1 << 31) - 1)].concat(),
            GoAway(FLOW_CONTROL),
        ),
    ])
    .await;
}

#[tokio::test]
async fn requests_are_as_section_8_says() {
    let with = |name, value| frame(HEADERS, 5, 1, &request("GET", "/", &[(name, value)]));
    let but = |name: &str| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        head(&fields.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>())
    };
    let length = |said, flags: u8, data: &[&[u8]]| {
        let mut wire = post(1, "/", &[("content-length", said)]);
        for (at, piece) in data.iter().enumerate() {
            let last = if at + 1 == data.len() { flags } else { 0 };
            wire.extend(frame(DATA, last, 1, piece));
        }
        wire
    };
    let trailers = |flags, fields: &[(&str, &str)]| {
        [post(1, "/", &[]), data(1, 0, b"x"), frame(HEADERS, flags, 1, &block(fields))].concat()
    };
    let late = [(":method", "GET"), (":scheme", "http"), ("x", "y"), (":path", "/"), (":authority", "a")];
    hold(vec![
        ("8.1", "trailers", trailers(5, &[("x-sum", "1")]), Status(200)),
        ("8.1", "trailers that end nothing", trailers(4, &[("x-sum", "1")]), Reset(PROTOCOL)),
        // It should be refused; `h2` forgets it, so nobody behind us can take it for anything.
        ("8.1", "a pseudo-field in trailers", trailers(5, &[(":path", "/")]), Status(200)),
        ("8.1", "a length in trailers", trailers(5, &[("content-length", "1")]), Reset(PROTOCOL)),
        ("8.2.2", "a connection's field in trailers", trailers(5, &[("connection", "x")]), Reset(PROTOCOL)),
        ("8.1.1", "less than the length", length("4", 1, &[b"abc"]), Reset(PROTOCOL)),
        ("8.1.1", "more than the length", length("2", 1, &[b"abc"]), Reset(PROTOCOL)),
        ("8.1.1", "less than the length, in pieces", length("9", 1, &[b"abc", b"def"]), Reset(PROTOCOL)),
        ("8.1.1", "the length", length("6", 1, &[b"abc", b"def"]), Status(200)),
        (
            "8.1.1",
            "a length, and nothing",
            frame(HEADERS, 5, 1, &request("POST", "/", &[("content-length", "3")])),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1",
            "two lengths",
            frame(HEADERS, 4, 1, &request("POST", "/", &[("content-length", "3"), ("content-length", "4")])),
            Reset(PROTOCOL),
        ),
        ("8.1.1", "a length that is no number", with("content-length", "+0"), Reset(PROTOCOL)),
        // What cannot be a field at all is an error of the whole connection to `h2`, which a server may choose (5.4.1).
        ("8.2.1", "a name with capitals", with("X-Large", "y"), GoAway(PROTOCOL)),
        ("8.2.1", "a name with a space", with("x y", "z"), GoAway(PROTOCOL)),
        ("8.2.1", "a name with a colon within", with("x:y", "z"), GoAway(PROTOCOL)),
        ("8.2.1", "no name", with("", "z"), GoAway(PROTOCOL)),
        ("8.2.1", "a NUL in a value", with("x", "a\0b"), GoAway(PROTOCOL)),
        ("8.2.1", "a line's end in a value", with("x", "a\r\nb: c"), GoAway(PROTOCOL)),
        ("8.2.1", "a value that begins with a space", with("x", " y"), Reset(PROTOCOL)),
        ("8.2.1", "a value that ends with a tab", with("x", "y\t"), Reset(PROTOCOL)),
        ("8.2.2", "connection", with("connection", "keep-alive"), Reset(PROTOCOL)),
        ("8.2.2", "keep-alive", with("keep-alive", "1"), Reset(PROTOCOL)),
        ("8.2.2", "proxy-connection", with("proxy-connection", "close"), Reset(PROTOCOL)),
        ("8.2.2", "transfer-encoding", with("transfer-encoding", "chunked"), Reset(PROTOCOL)),
        ("8.2.2", "upgrade", with("upgrade", "websocket"), Reset(PROTOCOL)),
        ("8.2.2", "te: gzip", with("te", "gzip"), Reset(PROTOCOL)),
        ("8.2.2", "te: trailers", with("te", "trailers"), Status(200)),
        ("8.3", "a pseudo-field that is none", with(":test", "x"), GoAway(PROTOCOL)),
        ("8.3", "an answer's pseudo-field", with(":status", "200"), Reset(PROTOCOL)),
        ("8.3", "a pseudo-field after a field", head(&late), Reset(PROTOCOL)),
        ("8.3.1", "no method", but(":method"), Reset(PROTOCOL)),
        ("8.3.1", "no scheme", but(":scheme"), Reset(PROTOCOL)),
        ("8.3.1", "no path", but(":path"), Reset(PROTOCOL)),
        ("8.3.1", "no authority", but(":authority"), Reset(PROTOCOL)),
        ("8.3.1", "two methods", with(":method", "GET"), Reset(PROTOCOL)),
        ("8.3.1", "two schemes", with(":scheme", "http"), Reset(PROTOCOL)),
        ("8.3.1", "two paths", with(":path", "/"), Reset(PROTOCOL)),
        ("8.3.1", "two authorities", with(":authority", "a"), Reset(PROTOCOL)),
        ("8.3.1", "an empty path", frame(HEADERS, 5, 1, &request("GET", "", &[])), Reset(PROTOCOL)),
        (
            "8.3.1",
            "a path that is a URI",
            frame(HEADERS, 5, 1, &request("GET", "http://a/", &[])),
            Reset(PROTOCOL),
        ),
        ("8.3.1", "a path that goes up", frame(HEADERS, 5, 1, &request("GET", "/a/../b", &[])), Status(400)),
        ("8.3.1", "* of something else", frame(HEADERS, 5, 1, &request("GET", "*", &[])), Status(400)),
        ("8.3.1", "* of OPTIONS", frame(HEADERS, 5, 1, &request("OPTIONS", "*", &[])), Status(200)),
        ("8.3.1", "a Host that agrees", with("host", "A"), Status(200)),
        ("8.3.1", "a Host that does not", with("host", "b"), Reset(PROTOCOL)),
        (
            "8.3.1",
            "two Hosts",
            frame(HEADERS, 5, 1, &request("GET", "/", &[("host", "a"), ("host", "a")])),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1",
            "a Host alone",
            head(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")]),
            Status(200),
        ),
        (
            "8.3.1",
            "somebody's name in the authority",
            head(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")]),
            Status(400),
        ),
        (
            "8.3.1",
            "another scheme",
            head(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")]),
            Status(400),
        ),
        ("8.5", "CONNECT", head(&[(":method", "CONNECT"), (":authority", "a:443")]), Status(501)),
        ("8.5", "CONNECT with a path", frame(HEADERS, 5, 1, &request("CONNECT", "/", &[])), Reset(PROTOCOL)),
        ("8441 4", "a protocol of a GET", with(":protocol", "websocket"), Reset(PROTOCOL)),
        (
            "8441 4",
            "a protocol without a path",
            head(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "a"),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "8441 4",
            "a protocol that is none",
            frame(HEADERS, 4, 1, &request("CONNECT", "/", &[(":protocol", "a b")])),
            Reset(PROTOCOL),
        ),
    ])
    .await;
}
