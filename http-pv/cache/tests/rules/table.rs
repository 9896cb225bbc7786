//! One answer and two requests: whether the second is for the server.

use crate::{Client, answer_of, clock};

/// What happens between two requests, and what the second is like.
struct Case {
    name: &'static str,
    /// Of the first request.
    first: &'static [&'static str],
    status: u16,
    /// What the server answers it with.
    answer: &'static [&'static str],
    /// Seconds until the second.
    after: u64,
    second: &'static [&'static str],
    /// Whether the server is asked again.
    again: bool,
}

const fn case(
    name: &'static str,
    first: &'static [&'static str],
    status: u16,
    answer: &'static [&'static str],
    after: u64,
    second: &'static [&'static str],
    again: bool,
) -> Case {
    Case { name, first, status, answer, after, second, again }
}

const FRESH: bool = false;
const ASKS: bool = true;

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Freshness (section 4.2).
    case("max-age", &[], 200, &["cache-control: max-age=60"], 59, &[], FRESH),
    case("max-age is over", &[], 200, &["cache-control: max-age=60"], 60, &[], ASKS),
    case("max-age of 0", &[], 200, &["cache-control: max-age=0"], 0, &[], ASKS),
    case("max-age in capitals", &[], 200, &["cache-control: MAX-AGE=60"], 1, &[], FRESH),
    case("max-age quoted", &[], 200, &["cache-control: max-age=\"60\""], 1, &[], FRESH),
    case("max-age that is negative", &[], 200, &["cache-control: max-age=-60"], 0, &[], ASKS),
    case("max-age that is no number", &[], 200, &["cache-control: max-age=x"], 0, &[], ASKS),
    case("max-age that is a fraction", &[], 200, &["cache-control: max-age=60.5"], 0, &[], ASKS),
    case("max-age beyond 2^31", &[], 200, &["cache-control: max-age=99999999999999"], 1000, &[], FRESH),
    case("max-age twice, the first holds", &[], 200, &["cache-control: max-age=1, max-age=60"], 30, &[], ASKS),
    case("max-age in a second line", &[], 200, &["cache-control: x", "cache-control: max-age=60"], 1, &[], FRESH),
    case("max-age among unknown directives", &[], 200, &["cache-control: foo, max-age=60, bar=\"a,max-age=0\""], 1, &[], FRESH),
    case("a directive that ends like max-age", &[], 200, &["cache-control: x-max-age=60"], 0, &[], ASKS),
    case("s-maxage before max-age", &[], 200, &["cache-control: max-age=1, s-maxage=60"], 30, &[], FRESH),
    case("s-maxage of 0 before max-age", &[], 200, &["cache-control: max-age=60, s-maxage=0"], 0, &[], ASKS),
    case("max-age before Expires", &[], 200, &["cache-control: max-age=60", "expires: {-10}"], 1, &[], FRESH),
    case("max-age of 0 before Expires", &[], 200, &["cache-control: max-age=0", "expires: {60}"], 0, &[], ASKS),
    case("Expires", &[], 200, &["date: {0}", "expires: {60}"], 59, &[], FRESH),
    case("Expires is over", &[], 200, &["date: {0}", "expires: {60}"], 60, &[], ASKS),
    case("Expires without a Date", &[], 200, &["expires: {60}"], 59, &[], FRESH),
    case("Expires that is 0", &[], 200, &["expires: 0"], 0, &[], ASKS),
    case("Expires that is no date", &[], 200, &["expires: tomorrow"], 0, &[], ASKS),
    case("Expires in the old format", &[], 200, &["expires: Saturday, 01-Jan-50 00:00:00 GMT"], 0, &[], FRESH),
    case("Expires relative to an old Date", &[], 200, &["date: {-100}", "expires: {-50}"], 0, &[], ASKS),
    case("Age counts", &[], 200, &["cache-control: max-age=60", "age: 50"], 11, &[], ASKS),
    case("Age counts, but not too much", &[], 200, &["cache-control: max-age=60", "age: 50"], 9, &[], FRESH),
    case("Age of nonsense", &[], 200, &["cache-control: max-age=60", "age: x"], 30, &[], FRESH),
    case("Age beyond 2^31", &[], 200, &["cache-control: max-age=60", "age: 99999999999999"], 0, &[], ASKS),
    case("an old Date is age", &[], 200, &["cache-control: max-age=60", "date: {-100}"], 0, &[], ASKS),
    case("a Date in the future is none", &[], 200, &["cache-control: max-age=60", "date: {100}"], 59, &[], FRESH),
    case("a heuristic of a tenth", &[], 200, &["date: {0}", "last-modified: {-1000}"], 99, &[], FRESH),
    case("a heuristic that is over", &[], 200, &["date: {0}", "last-modified: {-1000}"], 101, &[], ASKS),
    case("a heuristic of a day at most", &[], 200, &["date: {0}", "last-modified: {-999999999}"], 86_401, &[], ASKS),
    case("nothing said", &[], 200, &[], 0, &[], ASKS),
    // What may be kept (section 3).
    case("no-store", &[], 200, &["cache-control: no-store, max-age=60"], 0, &[], ASKS),
    case("no-store in capitals", &[], 200, &["cache-control: No-Store, max-age=60"], 0, &[], ASKS),
    case("private", &[], 200, &["cache-control: private, max-age=60"], 0, &[], ASKS),
    case("private with fields", &[], 200, &["cache-control: private=\"x\", max-age=60"], 0, &[], ASKS),
    case("no-cache without a validator", &[], 200, &["cache-control: no-cache, max-age=60"], 0, &[], ASKS),
    case("must-understand", &[], 200, &["cache-control: no-store, must-understand, max-age=60"], 0, &[], FRESH),
    case("the client says no-store", &["cache-control: no-store"], 200, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("the client is authorized", &["authorization: x"], 200, &["cache-control: max-age=60"], 0, &["authorization: x"], ASKS),
    case("authorized and public", &["authorization: x"], 200, &["cache-control: public, max-age=60"], 0, &["authorization: x"], FRESH),
    case("authorized and s-maxage", &["authorization: x"], 200, &["cache-control: s-maxage=60"], 0, &["authorization: y"], FRESH),
    case("authorized and must-revalidate", &["authorization: x"], 200, &["cache-control: must-revalidate, max-age=60"], 0, &[], FRESH),
    case("a cookie is set", &[], 200, &["cache-control: public, max-age=60", "set-cookie: a=b"], 0, &[], ASKS),
    case("a Pragma of the answer means nothing", &[], 200, &["cache-control: max-age=60", "pragma: no-cache"], 1, &[], FRESH),
    case("206 is not kept", &[], 206, &["cache-control: max-age=60", "content-range: bytes 0-1/2"], 0, &[], ASKS),
    case("200 with Content-Range is not kept", &[], 200, &["cache-control: max-age=60", "content-range: bytes 0-1/2"], 0, &[], ASKS),
    case("204", &[], 204, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("301 with a lifetime", &[], 301, &["cache-control: max-age=60", "location: /x"], 1, &[], FRESH),
    case("302 without a lifetime", &[], 302, &["location: /x", "date: {0}", "last-modified: {-1000}"], 0, &[], ASKS),
    case("302 with a lifetime", &[], 302, &["location: /x", "cache-control: max-age=60"], 1, &[], FRESH),
    case("404 without a lifetime", &[], 404, &["date: {0}", "last-modified: {-1000}"], 0, &[], ASKS),
    case("404 with a lifetime", &[], 404, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("410 with a lifetime", &[], 410, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("500 without a lifetime", &[], 500, &["date: {0}", "last-modified: {-1000}"], 0, &[], ASKS),
    case("503 with a lifetime", &[], 503, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("a status nobody knows, with a lifetime", &[], 299, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("a status nobody knows, without", &[], 299, &["date: {0}", "last-modified: {-1000}"], 0, &[], ASKS),
    // Vary (section 4.1).
    case("Vary, the same", &["accept: a"], 200, &["cache-control: max-age=60", "vary: accept"], 1, &["accept: a"], FRESH),
    case("Vary, another", &["accept: a"], 200, &["cache-control: max-age=60", "vary: accept"], 1, &["accept: b"], ASKS),
    case("Vary, there and not", &["accept: a"], 200, &["cache-control: max-age=60", "vary: accept"], 1, &[], ASKS),
    case("Vary, not and there", &[], 200, &["cache-control: max-age=60", "vary: accept"], 1, &["accept: a"], ASKS),
    case("Vary, neither", &[], 200, &["cache-control: max-age=60", "vary: accept"], 1, &[], FRESH),
    case("Vary in capitals", &["accept: a"], 200, &["cache-control: max-age=60", "vary: ACCEPT"], 1, &["accept: a"], FRESH),
    case("Vary on two, one differs", &["a: 1", "b: 1"], 200, &["cache-control: max-age=60", "vary: a, b"], 1, &["a: 1", "b: 2"], ASKS),
    case("Vary on two lines", &["a: 1", "b: 1"], 200, &["cache-control: max-age=60", "vary: a", "vary: b"], 1, &["a: 1", "b: 2"], ASKS),
    case("Vary on a field of two lines", &["a: 1", "a: 2"], 200, &["cache-control: max-age=60", "vary: a"], 1, &["a: 1, 2"], FRESH),
    case("Vary on a field whose second line differs", &["a: 1", "a: 2"], 200, &["cache-control: max-age=60", "vary: a"], 1, &["a: 1", "a: 3"], ASKS),
    case("Vary: *", &[], 200, &["cache-control: max-age=60", "vary: *"], 0, &[], ASKS),
    case("Vary: * in a list", &[], 200, &["cache-control: max-age=60", "vary: accept, *"], 0, &[], ASKS),
    case("another field than Vary names", &["b: 1"], 200, &["cache-control: max-age=60", "vary: a"], 1, &["b: 2"], FRESH),
    // What a client wishes (section 5.2.1).
    case("the client says no-cache", &[], 200, &["cache-control: max-age=60"], 1, &["cache-control: no-cache"], ASKS),
    case("the client says Pragma: no-cache", &[], 200, &["cache-control: max-age=60"], 1, &["pragma: no-cache"], ASKS),
    case("Pragma beside Cache-Control", &[], 200, &["cache-control: max-age=60"], 1, &["pragma: no-cache", "cache-control: max-age=60"], FRESH),
    case("the client says max-age=0", &[], 200, &["cache-control: max-age=60"], 1, &["cache-control: max-age=0"], ASKS),
    case("the client takes what is younger", &[], 200, &["cache-control: max-age=60"], 10, &["cache-control: max-age=10"], FRESH),
    case("the client's max-age is less than the age", &[], 200, &["cache-control: max-age=60"], 11, &["cache-control: max-age=10"], ASKS),
    case("min-fresh that is left", &[], 200, &["cache-control: max-age=60"], 10, &["cache-control: min-fresh=50"], FRESH),
    case("min-fresh that is not left", &[], 200, &["cache-control: max-age=60"], 11, &["cache-control: min-fresh=50"], ASKS),
    case("max-stale", &[], 200, &["cache-control: max-age=60", "etag: \"a\""], 70, &["cache-control: max-stale"], FRESH),
    case("max-stale that suffices", &[], 200, &["cache-control: max-age=60"], 70, &["cache-control: max-stale=10"], FRESH),
    case("max-stale that does not", &[], 200, &["cache-control: max-age=60"], 71, &["cache-control: max-stale=10"], ASKS),
    case("max-stale against must-revalidate", &[], 200, &["cache-control: max-age=60, must-revalidate"], 61, &["cache-control: max-stale"], ASKS),
    case("max-stale against proxy-revalidate", &[], 200, &["cache-control: max-age=60, proxy-revalidate"], 61, &["cache-control: max-stale"], ASKS),
    case("max-stale against s-maxage", &[], 200, &["cache-control: s-maxage=60"], 61, &["cache-control: max-stale"], ASKS),
    case("max-stale against no-cache", &[], 200, &["cache-control: no-cache, max-age=60", "etag: \"a\""], 61, &["cache-control: max-stale"], ASKS),
    case("proxy-revalidate while fresh", &[], 200, &["cache-control: max-age=60, proxy-revalidate"], 1, &[], FRESH),
    case("must-revalidate while fresh", &[], 200, &["cache-control: max-age=60, must-revalidate"], 1, &[], FRESH),
    // Poison: what one client sends must not be what others get (threat rows 17 and 58).
    case("400 is of the request", &["x: bad"], 400, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("401 is of the request", &[], 401, &["cache-control: public, max-age=60"], 0, &[], ASKS),
    case("408 is of the request", &[], 408, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("413 is of the request", &[], 413, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("414 is of the request", &[], 414, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("429 is of the request", &[], 429, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("431 is of the request", &["x: long"], 431, &["cache-control: public, max-age=60"], 0, &[], ASKS),
    case("a session of many", &["cookie: a=1"], 200, &["cache-control: max-age=60", "set-cookie: a=2", "vary: cookie"], 0, &["cookie: a=1"], ASKS),
];

#[tokio::test]
async fn h58_a_server_is_asked_when_the_rules_say_so() {
    let mut wrong = Vec::new();
    for case in CASES {
        let client = Client::new();
        client.will_answer(answer_of(case.status, case.answer, "one"));
        client.will_answer(answer_of(200, &[], "two"));
        let first = client.get(case.first).await;
        assert_eq!(first.status, case.status, "{}", case.name);
        clock::pass(case.after);
        let second = client.get(case.second).await;
        let asked = client.server.asked() == 2;
        let expected = if case.again { "two" } else { "one" };
        if asked != case.again || (second.body != expected && case.status != 204) {
            wrong.push(format!("{}: asked again: {asked}, got {:?}", case.name, second.body));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}
