//! Clients of HTTP/2 that cost more than they bring: what they may, and how they end.

mod wire;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use vamos_http_server::limits::{
    Limits, OVERHEAD_FRAMES_MAX, RESETS_MAX, SETTINGS_COST, STREAMS_MAX, UNSEEN_RESETS_MAX,
};
use wire::*;

/// Says `one` again and again, `pause` between, until the connection ends; after how often, and why.
async fn until_it_ends(
    client: &mut Client,
    mut one: impl FnMut(u32) -> Vec<u8>,
    times: u32,
) -> (u32, Option<u32>) {
    for said in 0..times {
        client.say(&one(said)).await;
        // What has been said so far is looked at.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let mut reason = None;
        while let Some(Some(came)) = futures::FutureExt::now_or_never(client.hear()) {
            if came.kind == GOAWAY {
                reason = Some(came.number(4));
            }
        }
        if reason.is_some() || client.serving.is_finished() {
            return (said, reason);
        }
    }
    (times, None)
}

/// The connection ends at about `most` of `one`, with ENHANCE_YOUR_CALM.
async fn calms(first: &[u8], one: impl FnMut(u32) -> Vec<u8>, most: u32) {
    let mut client = Client::begun().await;
    client.say(first).await;
    let (said, reason) = until_it_ends(&mut client, one, most * 2 + 200).await;
    assert_eq!(reason, Some(CALM), "after {said}");
    assert!(said <= most + most / 10 + 2, "only after {said}, not {most}");
    drop(client.io);
    client.serving.await.unwrap();
    assert_eq!(client.echo.busy.load(Relaxed), 0, "what nobody waits for is dropped");
}

#[tokio::test]
async fn h59_requests_that_are_taken_back_at_once_end_the_connection() {
    let reset = |stream| frame(RST, 0, stream, &CANCEL.to_be_bytes());
    // Each is begun, then taken back.
    let each = |at: u32| [get(at * 2 + 1, "/hang"), reset(at * 2 + 1)].concat();
    calms(&[], each, RESETS_MAX).await;
    // Taken back before they were looked at, many at once.
    let many = (0..=UNSEEN_RESETS_MAX as u32).flat_map(each).collect::<Vec<_>>();
    let mut client = Client::begun().await;
    client.say(&many).await;
    assert_eq!(client.ending().await, Some(CALM));
    // Some do no harm.
    let some = (0..40).flat_map(each).collect::<Vec<_>>();
    let mut client = Client::begun().await;
    client.say(&[some, get(81, "/")].concat()).await;
    assert_eq!(client.hear_of(HEADERS).await.status(), 200);
}

#[tokio::test]
async fn h59_a_server_made_to_take_requests_back_ends_the_connection() {
    // Each is a right request, and then something that ends it: no more window, more window than there can be.
    let each = |at: u32| {
        let stream = at * 2 + 1;
        let more = (1_u32 << 31) - 1;
        [get(stream, "/hang"), frame(WINDOW, 0, stream, &more.to_be_bytes())].concat()
    };
    let mut client = Client::begun().await;
    let (said, reason) = until_it_ends(&mut client, each, 1000).await;
    assert_eq!(reason, Some(CALM), "after {said}");
    assert!(said <= 300, "{said}");
}

#[tokio::test]
async fn h59_no_more_requests_run_than_agreed() {
    let mut client = Client::begun().await;
    let all = (0..STREAMS_MAX + 50).flat_map(|at| get(at * 2 + 1, "/hang")).collect::<Vec<_>>();
    client.say(&all).await;
    for _ in 0..50 {
        let reset = client.hear_of(RST).await;
        assert_eq!(reset.number(0), REFUSED);
    }
    assert_eq!(client.echo.busy.load(Relaxed), STREAMS_MAX as usize);
    drop(client.io);
    client.serving.await.unwrap();
    assert_eq!(client.echo.busy.load(Relaxed), 0);
}

#[tokio::test]
async fn h60_frames_that_bring_nothing_end_the_connection() {
    let ping = |_| frame(PING, 0, 0, b"12345678");
    calms(&[], ping, OVERHEAD_FRAMES_MAX).await;
    calms(&[], |_| frame(PING, ACK, 0, b"12345678"), OVERHEAD_FRAMES_MAX).await;
    calms(&[], |_| frame(SETTINGS, 0, 0, &[]), OVERHEAD_FRAMES_MAX / SETTINGS_COST).await;
    calms(&[], |at| setting(4, at), OVERHEAD_FRAMES_MAX / SETTINGS_COST).await;
    calms(&[], |at| frame(PRIORITY, 0, at * 2 + 1, &[0; 5]), OVERHEAD_FRAMES_MAX).await;
    calms(&[], |_| frame(0xfe, 0, 0, b"nothing"), OVERHEAD_FRAMES_MAX).await;
    calms(&[], |_| frame(WINDOW, 0, 0, &1_u32.to_be_bytes()), OVERHEAD_FRAMES_MAX).await;
    calms(&get(1, "/hang"), |_| frame(WINDOW, 0, 1, &1_u32.to_be_bytes()), OVERHEAD_FRAMES_MAX).await;
    calms(&post(1, "/hang", &[]), |_| frame(DATA, 0, 1, &[]), OVERHEAD_FRAMES_MAX).await;
    calms(&post(1, "/hang", &[]), |_| frame(DATA, PADDED, 1, &[0]), OVERHEAD_FRAMES_MAX).await;
    // Content of one byte each that nobody reads costs more than it is.
    calms(&post(1, "/hang", &[]), |_| frame(DATA, 0, 1, b"x"), OVERHEAD_FRAMES_MAX * 2).await;
}

#[tokio::test]
async fn h60_a_client_that_is_answered_may_say_more() {
    let mut client = Client::begun().await;
    // As many pings and window updates as would be a flood, but each beside an answer.
    for at in 0..OVERHEAD_FRAMES_MAX {
        let update = frame(WINDOW, 0, 0, &8_u32.to_be_bytes());
        client.say(&[get(at * 2 + 1, "/x"), update, frame(PING, 0, 0, &[1; 8])].concat()).await;
        client.hear_of(DATA).await;
    }
    assert_eq!(client.echo.asked.lock().unwrap().len(), OVERHEAD_FRAMES_MAX as usize);
}

#[tokio::test]
async fn h60_fields_without_end_end_the_connection() {
    let begun = frame(HEADERS, 0, 1, &block(&[(":method", "GET")]));
    // Empty ones, small ones and large ones.
    for piece in [vec![], block(&[("a", "b")]), block(&[("a", &"b".repeat(16_000))])] {
        let mut client = Client::begun().await;
        client.say(&begun).await;
        let more = |_| frame(CONTINUATION, 0, 1, &piece);
        let (said, reason) = until_it_ends(&mut client, more, 100).await;
        assert_eq!(reason, Some(CALM), "after {said} of {} bytes", piece.len());
        assert!(said <= 10, "{said}");
        assert!(client.echo.asked.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn h60_large_fields_are_refused_and_bombs_end_the_connection() {
    // More than is taken, as one request, in two frames.
    let fields = request(
        "GET",
        "/",
        &[("a", &"b".repeat(15_000)), ("c", &"d".repeat(15_000)), ("e", &"f".repeat(5_000))],
    );
    let (one, rest) = fields.split_at(16_000);
    let (two, three) = rest.split_at(16_000);
    let wire = [
        frame(HEADERS, END_STREAM, 1, one),
        frame(CONTINUATION, 0, 1, two),
        frame(CONTINUATION, END_HEADERS, 1, three),
    ];
    let mut client = Client::begun().await;
    client.say(&wire.concat()).await;
    assert_eq!(client.hear_of(HEADERS).await.status(), 431);
    assert!(client.echo.asked.lock().unwrap().is_empty());
    // A small block that stands for a large one: an entry of the table, named again and again.
    let entry = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'b'; 4000]].concat();
    let bomb = [request("GET", "/", &[]), entry, vec![0xbe; 12_000]].concat();
    let mut client = Client::begun().await;
    client.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
    assert_eq!(client.ending().await, Some(CALM));
    assert!(client.echo.asked.lock().unwrap().is_empty());
    // Many small fields.
    let many = request("GET", "/", &[("a", "b"); 101]);
    let mut client = Client::begun().await;
    client.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &many)).await;
    assert_eq!(client.hear_of(HEADERS).await.status(), 431);
    assert_eq!(client.echo.refused.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn h60_who_takes_nothing_is_let_go() {
    // No window at all: the stream ends.
    let mut client = Client::new(Limits::default());
    client.say(&[PREFACE, &setting(4, 0), &get(1, "/full?100000")].concat()).await;
    assert_eq!(client.hear_of(HEADERS).await.status(), 200);
    let reset = client.hear_of(RST).await;
    assert_eq!((reset.stream, reset.number(0)), (1, CANCEL));
    // A window, but the connection is not read: it ends.
    let mut client = Client::sized(Limits::default(), 1000);
    client.begin().await;
    client.say(&get(1, "/full?60000")).await;
    let before = tokio::time::Instant::now();
    client.serving.await.unwrap();
    assert!(before.elapsed() <= Limits::default().write_pause_max + Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn h60_who_says_nothing_is_let_go() {
    let limits = Limits::default();
    // Not even a whole preface.
    let mut client = Client::new(limits);
    client.say(&PREFACE[..10]).await;
    let before = tokio::time::Instant::now();
    client.serving.await.unwrap();
    assert!(before.elapsed() <= limits.head_within * 2 + Duration::from_secs(5));
    // Half a request's fields.
    let mut client = Client::begun().await;
    client.say(&frame(HEADERS, 0, 1, &[])).await;
    assert_eq!(client.ending().await, Some(NO_ERROR));
    assert!(client.echo.asked.lock().unwrap().is_empty());
    // A body that does not come.
    let mut client = Client::begun().await;
    client.say(&post(1, "/", &[("content-length", "3")])).await;
    assert_eq!(client.hear_of(HEADERS).await.status(), 408);
    // Pings are no requests.
    let mut client = Client::begun().await;
    let before = tokio::time::Instant::now();
    let mut left = false;
    while !left {
        tokio::time::sleep(Duration::from_secs(5)).await;
        client.say(&frame(PING, 0, 0, &[0; 8])).await;
        while let Some(Some(came)) = futures::FutureExt::now_or_never(client.hear()) {
            left |= came.kind == GOAWAY;
        }
        assert!(before.elapsed() < limits.idle_max * 2);
    }
    drop(client.io);
    client.serving.await.unwrap();
}
