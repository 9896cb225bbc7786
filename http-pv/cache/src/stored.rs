//! An answer that is kept: whether it may be, for how long it is fresh, and for whom.
//!
//! Everything that is asked at a hit is worked out when the answer is stored. The present library for it works it out
//! from the fields each time, keeps one value of a repeated field, and changes the Date.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, EXPIRES,
    HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, PRAGMA, SET_COOKIE, VARY,
};
use http::{Method, StatusCode};

use crate::directives::{Directives, delta};
use crate::limits::{ANSWER_OVERHEAD_BYTES, HEURISTIC_MAX, HEURISTIC_SHARE, TAGS_MAX, VARY_FIELDS_MAX};

/// Tags to purge by; several names are in use for it.
const TAGS: [HeaderName; 2] =
    [HeaderName::from_static("cache-tag"), HeaderName::from_static("surrogate-key")];

/// What a request says about answers from a cache.
#[derive(Debug)]
pub(crate) struct Wishes {
    directives: Directives,
    no_cache: bool,
}

impl Wishes {
    pub(crate) fn of(fields: &HeaderMap) -> Self {
        let directives = Directives::of(fields);
        let pragma = !fields.contains_key(http::header::CACHE_CONTROL)
            && fields.get_all(PRAGMA).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"no-cache"));
        Self { no_cache: directives.has("no-cache") || pragma, directives }
    }

    pub(crate) fn only_if_cached(&self) -> bool {
        self.directives.has("only-if-cached")
    }
}

/// How good a kept answer is for a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// As it is.
    Fresh,
    /// As it is, and another is to be fetched meanwhile.
    StaleMeanwhile,
    /// As it is, though old: the client takes that.
    StaleAccepted,
    /// When its server says so.
    Validate,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) status: StatusCode,
    /// Without what is said anew each time.
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) tag: Option<String>,
    pub(crate) modified: Option<SystemTime>,
    pub(crate) tags: Vec<String>,
    /// What the request had in the fields that `Vary` names.
    varies: Vec<(HeaderName, Vec<u8>)>,
    received: SystemTime,
    /// How old it was then.
    age: Duration,
    lifetime: Duration,
    /// Never without asking.
    no_cache: bool,
    /// Never once it is stale.
    must_revalidate: bool,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    /// Somebody fetches another.
    pub(crate) renewing: AtomicBool,
}

/// The answer's head as it came, and when.
#[derive(Debug, Clone)]
pub(crate) struct Received<'a> {
    pub(crate) status: StatusCode,
    pub(crate) fields: &'a HeaderMap,
    /// When the request was sent.
    pub(crate) asked: SystemTime,
    /// When the answer came.
    pub(crate) received: SystemTime,
}

/// What makes an answer worth keeping, worked out before its content has come.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    age: Duration,
    lifetime: Duration,
    no_cache: bool,
    must_revalidate: bool,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    varies: Vec<(HeaderName, Vec<u8>)>,
}

/// Status codes that may be kept though their server says nothing of it. Others that RFC 9110 allows, such as 404, are
/// what a broken request can bring about for everybody.
const HEURISTIC: [StatusCode; 6] = [
    StatusCode::OK,
    StatusCode::NON_AUTHORITATIVE_INFORMATION,
    StatusCode::NO_CONTENT,
    StatusCode::MULTIPLE_CHOICES,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::PERMANENT_REDIRECT,
];

/// Those that say that something is wrong with this one request, whatever else they say.
const OF_THE_REQUEST: [StatusCode; 7] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::URI_TOO_LONG,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];

impl Terms {
    /// On which terms the answer to a request may be kept (RFC 9111, section 3); `None`: it may not.
    pub(crate) fn of(method: &Method, request: &HeaderMap, answer: &Received<'_>) -> Option<Self> {
        let (fields, status) = (answer.fields, answer.status);
        let said = Directives::of(fields);
        let asked = Directives::of(request);
        let known = !status.is_informational()
            && ![StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
            && !OF_THE_REQUEST.contains(&status);
        let no_store = said.has("no-store") && !said.has("must-understand");
        if *method != Method::GET || !known || no_store || asked.has("no-store") || said.has("private") {
            return None;
        }
        let shared = said.has("public") || said.has("s-maxage") || said.has("must-revalidate");
        if request.contains_key(AUTHORIZATION) && !shared {
            return None;
        }
        // A session that many would share.
        if fields.contains_key(SET_COOKIE) || fields.contains_key(CONTENT_RANGE) {
            return None;
        }
        let varies = varies(fields, request)?;
        let lifetime = lifetime(&said, answer)?;
        let terms = Self {
            age: age(answer),
            lifetime,
            no_cache: said.has("no-cache"),
            must_revalidate: said.has("must-revalidate")
                || said.has("proxy-revalidate")
                || said.has("s-maxage"),
            stale_while_revalidate: said.seconds("stale-while-revalidate").unwrap_or_default(),
            stale_if_error: said.seconds("stale-if-error").unwrap_or_default(),
            varies,
        };
        let validates = fields.contains_key(ETAG) || fields.contains_key(LAST_MODIFIED);
        let ever_fresh = terms.lifetime > terms.age && !terms.no_cache;
        let ever_stale = terms.stale_while_revalidate.max(terms.stale_if_error) > Duration::ZERO;
        (ever_fresh || validates || ever_stale).then_some(terms)
    }
}

/// What `Vary` names, as the request has it; `None` if it names what nobody can compare.
fn varies(fields: &HeaderMap, request: &HeaderMap) -> Option<Vec<(HeaderName, Vec<u8>)>> {
    let mut varies = Vec::new();
    for value in fields.get_all(VARY) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // "*" is no name.
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name.as_str() != "*")?;
            if varies.iter().all(|(known, _)| *known != name) {
                let own = joined(request, &name);
                varies.push((name, own));
            }
        }
    }
    (varies.len() <= VARY_FIELDS_MAX).then_some(varies)
}

/// All values of a field as one (RFC 9110, section 5.3).
fn joined(fields: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut values: Vec<u8> = Vec::new();
    for (at, value) in fields.get_all(name).iter().enumerate() {
        if at > 0 {
            values.extend_from_slice(b", ");
        }
        values.extend_from_slice(value.as_bytes().trim_ascii());
    }
    values
}

/// How long an answer is fresh (RFC 9111, section 4.2.1); `None` if it is not to be kept at all.
fn lifetime(said: &Directives, answer: &Received<'_>) -> Option<Duration> {
    if let Some(time) = said.seconds("s-maxage").or_else(|| said.seconds("max-age")) {
        return Some(time);
    }
    let date = date_of(answer.fields, &DATE).unwrap_or(answer.received);
    let mut expires = answer.fields.get_all(EXPIRES).iter();
    if let Some(first) = expires.next() {
        // What is no date is a time long past.
        let end = first.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        return Some(end.and_then(|end| end.duration_since(date).ok()).unwrap_or_default());
    }
    let explicit = said.has("public") || said.has("no-cache") || said.has("immutable");
    if !HEURISTIC.contains(&answer.status) && !explicit {
        return None;
    }
    let since = date_of(answer.fields, &LAST_MODIFIED).and_then(|changed| date.duration_since(changed).ok());
    Some(since.map_or(Duration::ZERO, |since| (since / HEURISTIC_SHARE).min(HEURISTIC_MAX)))
}

fn date_of(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(fields.get(name)?.to_str().ok()?).ok()
}

/// How old an answer is when it comes (RFC 9111, section 4.2.3).
fn age(answer: &Received<'_>) -> Duration {
    let apparent = date_of(answer.fields, &DATE).and_then(|date| answer.received.duration_since(date).ok());
    let said = answer.fields.get(AGE).and_then(|age| age.to_str().ok());
    let said = said.and_then(|age| delta(age.split(',').next().unwrap_or_default().trim()));
    let delay = answer.received.duration_since(answer.asked).unwrap_or_default();
    // The clocks of a guest and its host differ by less than what a Date tells.
    let apparent = apparent.filter(|apparent| *apparent > Duration::from_secs(1)).unwrap_or_default();
    apparent.max(said.map_or(Duration::ZERO, |said| said + delay))
}

impl Stored {
    pub(crate) fn new(terms: Terms, answer: &Received<'_>, body: Bytes) -> Self {
        let mut fields = answer.fields.clone();
        fields.remove(AGE);
        fields.remove(CONTENT_LENGTH);
        let tags = tags(&mut fields);
        Self {
            status: answer.status,
            tag: fields.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned),
            modified: date_of(&fields, &LAST_MODIFIED),
            fields,
            body,
            tags,
            varies: terms.varies,
            received: answer.received,
            age: terms.age,
            lifetime: terms.lifetime,
            no_cache: terms.no_cache,
            must_revalidate: terms.must_revalidate,
            stale_while_revalidate: terms.stale_while_revalidate,
            stale_if_error: terms.stale_if_error,
            renewing: AtomicBool::new(false),
        }
    }

    /// The same answer, of which its server has said that it still is (RFC 9111, section 3.2). `None`: the news are not
    /// about this one, or it may not be kept any longer.
    pub(crate) fn renewed(&self, method: &Method, request: &HeaderMap, news: &Received<'_>) -> Option<Self> {
        let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
        let new_tag = news.fields.get(ETAG).and_then(|tag| tag.to_str().ok());
        if new_tag.is_some_and(|new| self.tag.as_deref().is_none_or(|old| opaque(old) != opaque(new))) {
            return None;
        }
        let mut fields = self.fields.clone();
        let kept = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_TYPE, CONTENT_RANGE, ETAG, AGE];
        for name in news.fields.keys().filter(|name| !kept.contains(name)) {
            fields.remove(name);
            for value in news.fields.get_all(name) {
                fields.append(name.clone(), value.clone());
            }
        }
        let mut whole = fields.clone();
        if let Some(age) = news.fields.get(AGE) {
            whole.insert(AGE, age.clone());
        }
        let answer = Received { status: self.status, fields: &whole, ..news.clone() };
        let terms = Terms::of(method, request, &answer)?;
        let mut renewed = Self::new(terms, &answer, self.body.clone());
        if renewed.tags.is_empty() {
            renewed.tags.clone_from(&self.tags);
        }
        Some(renewed)
    }

    /// Whether it is the answer to such a request.
    pub(crate) fn answers(&self, request: &HeaderMap) -> bool {
        self.varies.iter().all(|(name, value)| joined(request, name) == *value)
    }

    /// Whether another answer is in the place of this one.
    pub(crate) fn is_replaced_by(&self, other: &Self) -> bool {
        // What varies otherwise than before says that the old rule is void.
        let names = |stored: &Self| stored.varies.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        names(self) != names(other) || self.varies == other.varies
    }

    pub(crate) fn age(&self, now: SystemTime) -> Duration {
        self.age + now.duration_since(self.received).unwrap_or_default()
    }

    pub(crate) fn usable(&self, wishes: &Wishes, now: SystemTime) -> Use {
        let age = self.age(now);
        let asked = &wishes.directives;
        let too_old = asked.seconds("max-age").is_some_and(|most| age > most);
        if self.no_cache || wishes.no_cache || too_old {
            return Use::Validate;
        }
        if age < self.lifetime {
            let left = self.lifetime - age;
            let enough = asked.seconds("min-fresh").is_none_or(|least| left >= least);
            return if enough { Use::Fresh } else { Use::Validate };
        }
        if self.must_revalidate || asked.has("min-fresh") {
            return Use::Validate;
        }
        let late = age - self.lifetime;
        if asked.seconds_or_any("max-stale").is_some_and(|most| late <= most) {
            return Use::StaleAccepted;
        }
        if late < self.stale_while_revalidate { Use::StaleMeanwhile } else { Use::Validate }
    }

    /// Whether it may be sent because its server fails (RFC 5861, section 4).
    pub(crate) fn is_good_in_need(&self, wishes: &Wishes, now: SystemTime) -> bool {
        let late = self.age(now).saturating_sub(self.lifetime);
        let asked = wishes.directives.seconds("stale-if-error").unwrap_or_default();
        !self.must_revalidate && !self.no_cache && late < self.stale_if_error.max(asked)
    }

    /// The fields that ask its server whether it still is what it was.
    pub(crate) fn conditions(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut conditions = Vec::new();
        if let Some(tag) = self.fields.get(ETAG) {
            conditions.push((http::header::IF_NONE_MATCH, tag.clone()));
        }
        if let Some(changed) = self.fields.get(LAST_MODIFIED) {
            conditions.push((http::header::IF_MODIFIED_SINCE, changed.clone()));
        }
        conditions
    }

    /// What it takes, bytes.
    pub(crate) fn weight(&self) -> u64 {
        let fields: usize =
            self.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        let varies: usize = self.varies.iter().map(|(_, value)| value.len() + 64).sum();
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 24).sum();
        (self.body.len() + fields + varies + tags) as u64 + ANSWER_OVERHEAD_BYTES
    }
}

/// Takes the tags out: they are between the server and the cache.
fn tags(fields: &mut HeaderMap) -> Vec<String> {
    let mut tags = Vec::new();
    for name in TAGS {
        for value in fields.get_all(&name) {
            let text = value.to_str().unwrap_or_default();
            tags.extend(text.split([',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_owned));
        }
        fields.remove(name);
    }
    tags.truncate(TAGS_MAX);
    tags
}
