//! What takes more than two requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use vamos_http_cache::{Origin, Purge, Scope, fetch};
use vamos_http_message::{Body, BodyError};

use crate::{Client, Server, answer_of, clock, fields_of};

#[tokio::test]
async fn a_hit_says_how_old_it_is_and_keeps_all_fields() {
    let client = Client::new();
    let lines =
        ["cache-control: max-age=60", "date: {0}", "link: <a>", "link: <b>", "age: 5", "cache-tag: x"];
    client.will_answer(answer_of(200, &lines, "one"));
    let date = client.get(&[]).await.fields["date"].clone();
    clock::pass(10);
    let hit = client.get(&[]).await;
    assert_eq!((hit.fields["age"].to_str().unwrap(), &hit.fields["date"]), ("15", &date));
    assert_eq!(hit.fields.get_all("link").iter().count(), 2);
    assert_eq!(hit.fields["cache-status"], "vamos; hit");
    assert!(!hit.fields.contains_key("cache-tag"), "tags are between the server and the cache");
    assert_eq!(client.server.asked(), 1);
}

#[tokio::test]
async fn what_is_stale_is_validated_and_renewed() {
    let client = Client::new();
    client.will_answer(answer_of(
        200,
        &["cache-control: max-age=10", "etag: \"a\"", "x: old", "content-type: text/a"],
        "one",
    ));
    client.get(&[]).await;
    clock::pass(11);
    client.will_answer(answer_of(
        304,
        &["cache-control: max-age=60", "etag: \"a\"", "x: new", "y: more", "content-type: text/b"],
        "",
    ));
    let renewed = client.get(&["if-none-match: \"client's own\""]).await;
    assert_eq!(
        (renewed.status, renewed.body.as_str(), &renewed.fields["x"]),
        (200, "one", &HeaderValue::from_static("new"))
    );
    assert_eq!(
        (&renewed.fields["y"], &renewed.fields["content-type"]),
        (&HeaderValue::from_static("more"), &HeaderValue::from_static("text/a"))
    );
    assert_eq!(client.server.asked.lock().unwrap()[1].headers()["if-none-match"], "\"a\"");
    clock::pass(50);
    assert_eq!(client.get(&[]).await.body, "one");
    assert_eq!(client.server.asked(), 2, "it is fresh again");
    clock::pass(20);
    client.will_answer(answer_of(200, &["cache-control: max-age=60", "etag: \"b\""], "two"));
    assert_eq!(client.get(&[]).await.body, "two");
    assert_eq!(client.get(&[]).await.body, "two");
    assert_eq!(client.server.asked(), 3);
    // A 304 about something else is not believed.
    clock::pass(70);
    client.will_answer(answer_of(304, &["etag: \"z\""], ""));
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "three"));
    assert_eq!(client.get(&[]).await.body, "three");
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_from_what_is_kept() {
    let client = Client::new();
    let lines = ["cache-control: max-age=60", "etag: \"a\"", "last-modified: {-1000}"];
    client.will_answer(answer_of(200, &lines, "0123456789"));
    client.get(&[]).await;
    for (lines, status, body) in [
        (&["if-none-match: \"a\""][..], 304, ""),
        (&["if-none-match: W/\"a\""], 304, ""),
        (&["if-none-match: \"b\", \"a\""], 304, ""),
        (&["if-none-match: *"], 304, ""),
        (&["if-none-match: \"b\""], 200, "0123456789"),
        (&["if-modified-since: {-1000}"], 304, ""),
        (&["if-modified-since: {-2000}"], 200, "0123456789"),
        (&["if-none-match: \"b\"", "if-modified-since: {0}"], 200, "0123456789"),
        (&["range: bytes=2-4"], 206, "234"),
        (&["range: bytes=-3"], 206, "789"),
        (&["range: bytes=7-"], 206, "789"),
        (&["range: bytes=20-"], 416, ""),
        (&["range: bytes=2-4", "if-range: \"a\""], 206, "234"),
        (&["range: bytes=2-4", "if-range: \"b\""], 200, "0123456789"),
        (&["range: bytes=0-1,3-4"], 200, "0123456789"),
    ] {
        let got = client.get(lines).await;
        assert_eq!((got.status, got.body.as_str()), (status, body), "{lines:?}");
    }
    let head = client.ask("HEAD", "/", &[]).await;
    assert_eq!(
        (head.status, head.body.as_str(), &head.fields["content-length"]),
        (200, "", &HeaderValue::from_static("10"))
    );
    assert_eq!(client.server.asked(), 1);
    // A condition of the first client is not the server's: all is fetched, and the client told what it asked.
    let client = Client::new();
    client.will_answer(answer_of(200, &lines, "all"));
    assert_eq!(client.get(&["if-none-match: \"a\""]).await.status, 304);
    assert!(!client.server.asked.lock().unwrap()[0].headers().contains_key("if-none-match"));
    assert_eq!(client.get(&[]).await.body, "all");
    // A range of what is not kept is the server's affair.
    let client = Client::new();
    client.will_answer(answer_of(206, &["cache-control: max-age=60", "content-range: bytes 0-0/3"], "a"));
    assert_eq!(client.get(&["range: bytes=0-0"]).await.status, 206);
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "abc"));
    assert_eq!(client.get(&[]).await.body, "abc");
}

#[tokio::test]
async fn stale_answers_are_sent_while_another_is_fetched_or_none_is_to_be_had() {
    let client = Client::new();
    client.will_answer(answer_of(200, &["cache-control: max-age=10, stale-while-revalidate=30"], "one"));
    client.get(&[]).await;
    clock::pass(20);
    client.will_answer(answer_of(200, &["cache-control: max-age=10"], "two"));
    assert_eq!(client.get(&[]).await.body, "one");
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.get(&[]).await.body, "two");
    assert_eq!(client.server.asked(), 2);

    let client = Client::new();
    client.will_answer(answer_of(200, &["cache-control: max-age=10, stale-while-revalidate=30"], "one"));
    client.get(&[]).await;
    clock::pass(41);
    client.will_answer(answer_of(200, &["cache-control: max-age=10"], "two"));
    assert_eq!(client.get(&[]).await.body, "two", "too late for that");

    for (directives, status, after, expected) in [
        ("max-age=10, stale-if-error=60", 503, 20, "one"),
        ("max-age=10, stale-if-error=60", 500, 20, "one"),
        ("max-age=10, stale-if-error=60", 404, 20, "failed"),
        ("max-age=10, stale-if-error=60", 503, 71, "failed"),
        ("max-age=10, stale-if-error=60, must-revalidate", 503, 20, "failed"),
        ("max-age=10", 503, 20, "failed"),
    ] {
        let client = Client::new();
        client.will_answer(answer_of(200, &[&format!("cache-control: {directives}"), "etag: \"a\""], "one"));
        client.get(&[]).await;
        clock::pass(after);
        client.will_answer(answer_of(status, &[], "failed"));
        assert_eq!(client.get(&[]).await.body, expected, "{directives} {status} after {after}");
    }
}

#[tokio::test]
async fn what_changes_something_voids_what_was_kept() {
    for (method, status, more, void) in [
        ("POST", 200, None, true),
        ("PUT", 204, None, true),
        ("DELETE", 200, None, true),
        ("PATCH", 302, None, true),
        ("UNKNOWN", 200, None, true),
        ("POST", 404, None, false),
        ("POST", 500, None, false),
        ("OPTIONS", 200, None, false),
        ("POST", 201, Some("location: /"), true),
    ] {
        let client = Client::new();
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], "one"));
        client.get(&[]).await;
        let lines: Vec<&str> = more.into_iter().collect();
        client.will_answer(answer_of(status, &lines, ""));
        client.ask(method, if more.is_some() { "/other" } else { "/" }, &[]).await;
        client.will_answer(answer_of(200, &[], "two"));
        let expected = if void { "two" } else { "one" };
        assert_eq!(client.get(&[]).await.body, expected, "{method} {status}");
    }
    let client = Client::new();
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "one"));
    client.get(&[]).await;
    client.will_answer(answer_of(
        201,
        &["location: http://other.example/", "content-location: //other.example/"],
        "",
    ));
    client.ask("POST", "/x", &[]).await;
    assert_eq!(client.get(&[]).await.body, "one", "of another origin nobody voids anything");
}

#[tokio::test]
async fn tags_and_urls_are_purged_and_tenants_share_nothing() {
    let client = Client::new();
    for (path, tags) in [("/a", "cache-tag: one, two"), ("/b", "surrogate-key: two three"), ("/c", "x: two")]
    {
        client.will_answer(answer_of(200, &["cache-control: max-age=60", tags], "kept"));
        client.ask("GET", path, &[]).await;
    }
    assert_eq!(client.scope.stats().objects, 3);
    assert_eq!(client.scope.purge(Purge::Tag("one")), 1);
    assert_eq!(client.scope.purge(Purge::Tag("two")), 1);
    assert_eq!(client.scope.purge(Purge::Url("http://example.org/none")), 0);
    assert_eq!(client.scope.purge(Purge::Url("http://example.org/c")), 1);
    assert_eq!(client.scope.stats().objects, 0);
    // The same URL of another tenant is another answer.
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "mine"));
    client.get(&[]).await;
    let other = Client::new();
    other.will_answer(answer_of(200, &["cache-control: max-age=60"], "yours"));
    assert_eq!(other.get(&[]).await.body, "yours");
    assert_eq!(client.get(&[]).await.body, "mine");
}

#[tokio::test]
async fn only_if_cached_asks_nobody() {
    let client = Client::new();
    assert_eq!(client.get(&["cache-control: only-if-cached"]).await.status, 504);
    assert_eq!(client.server.asked(), 0);
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "one"));
    client.get(&[]).await;
    assert_eq!(client.get(&["cache-control: only-if-cached"]).await.body, "one");
}

fn in_pieces(pieces: Vec<Result<&'static str, &'static str>>, lines: &[&str]) -> Response<Body> {
    let frames = pieces.into_iter().map(|piece| {
        piece.map(|text| Frame::data(Bytes::from(text))).map_err(|error| BodyError(error.into()))
    });
    let mut response = Response::new(Body::stream(StreamBody::new(stream::iter(frames.collect::<Vec<_>>()))));
    *response.headers_mut() = fields_of(lines);
    response
}

#[tokio::test]
async fn what_breaks_off_is_not_kept() {
    for lines in [&["cache-control: max-age=60", "content-length: 6"][..], &["cache-control: max-age=60"]] {
        let client = Client::new();
        client.will_answer(in_pieces(vec![Ok("abc"), Err("gone")], lines));
        assert_eq!(client.get(&[]).await.body, "broken");
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], "whole"));
        assert_eq!(client.get(&[]).await.body, "whole", "{lines:?}");
    }
    // Shorter than it was said to be.
    let client = Client::new();
    client.will_answer(in_pieces(vec![Ok("abc")], &["cache-control: max-age=60", "content-length: 6"]));
    assert_eq!(client.get(&[]).await.body, "broken");
    assert_eq!(client.scope.stats().objects, 0);
    // Of unknown length, and whole.
    let client = Client::new();
    client.will_answer(in_pieces(vec![Ok("abc"), Ok("def")], &["cache-control: max-age=60"]));
    assert_eq!(client.get(&[]).await.body, "abcdef");
    assert_eq!(client.get(&[]).await.body, "abcdef");
    assert_eq!(client.server.asked(), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_for_the_server() {
    let client = Client::new();
    let (release, released) = tokio::sync::watch::channel(false);
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let origin: Origin = Arc::new(move |_| {
        let (mut released, counted) = (released.clone(), counted.clone());
        Box::pin(async move {
            counted.fetch_add(1, Relaxed);
            released.wait_for(|released| *released).await.unwrap();
            in_pieces(vec![Ok("abc"), Ok("def")], &["cache-control: max-age=60", "content-length: 6"])
        })
    });
    let all: Vec<_> = (0..50)
        .map(|_| {
            let (scope, origin) = (client.scope.clone(), origin.clone());
            tokio::spawn(async move {
                let request = Request::get("http://example.org/").body(Body::Empty).unwrap();
                let response = fetch(&scope, clock::now, request, &origin).await;
                response.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    // One of them goes away, whoever it is: nobody else suffers.
    tokio::task::yield_now().await;
    release.send_replace(true);
    for one in all {
        assert_eq!(one.await.unwrap(), "abcdef");
    }
    assert_eq!(asked.load(Relaxed), 1);
    let stats = client.scope.stats();
    assert_eq!((stats.hits, stats.misses, stats.objects), (49, 1, 1));
}

#[tokio::test]
async fn a_leader_that_goes_away_leaves_the_answer_to_the_others() {
    let client = Client::new();
    client.will_answer(in_pieces(
        vec![Ok("abc"), Ok("def")],
        &["cache-control: max-age=60", "content-length: 6"],
    ));
    let request = Request::get("http://example.org/").body(Body::Empty).unwrap();
    let response = fetch(&client.scope, clock::now, request, &client.server.origin()).await;
    drop(response);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.get(&[]).await.body, "abcdef");
    assert_eq!(client.server.asked(), 1);
}

#[tokio::test]
async fn room_is_never_exceeded() {
    let client = Client { scope: Scope::new(100_000), server: Server::default() };
    let content: &'static str = "x".repeat(10_000).leak();
    for number in 0..200 {
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], content));
        client.ask("GET", &format!("/{number}"), &[]).await;
        assert!(client.scope.stats().bytes <= 100_000, "{:?}", client.scope.stats());
    }
    assert!(client.scope.stats().objects >= 5, "{:?}", client.scope.stats());
    let large: &'static str = "x".repeat(50_000).leak();
    for _ in 0..2 {
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], large));
        assert_eq!(client.ask("GET", "/large", &[]).await.body.len(), 50_000);
    }
    let nothing = Client { scope: Scope::new(0), server: Server::default() };
    assert!(!nothing.scope.keeps());
}

#[tokio::test]
async fn a_host_has_one_spelling_and_schemes_are_apart() {
    let client = Client::new();
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "one"));
    client.get(&[]).await;
    for same in ["http://EXAMPLE.org/", "http://example.org:80/", "http://example.org./"] {
        assert_eq!(client.ask("GET", same, &[]).await.body, "one", "{same}");
    }
    for (other, body) in [
        ("https://example.org/", "two"),
        ("http://example.org:81/", "three"),
        ("http://example.org/?", "four"),
    ] {
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], body));
        assert_eq!(client.ask("GET", other, &[]).await.body, body);
    }
    assert_eq!(client.scope.purge(Purge::Url("http://Example.ORG:80")), 1);
    assert_eq!(client.scope.stats().objects, 3);
}
