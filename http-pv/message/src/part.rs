//! Which part of a representation answers a request: its conditions and its range (RFC 9110, sections 13 and 14).

use std::ops::Range;
use std::time::SystemTime;

use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{Method, Request};

/// What of a request decides.
#[derive(Debug, Clone)]
pub struct Asked {
    method: Method,
    fields: HeaderMap,
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Representation<'a> {
    /// Its entity tag, as in the field, weak ones with their `W/`.
    pub tag: Option<&'a str>,
    /// When it changed last.
    pub modified: Option<SystemTime>,
    /// How long it is, bytes.
    pub length: u64,
}

/// What is sent of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All, with 200.
    Whole,
    /// These bytes, with 206.
    Range(Range<u64>),
    /// Nothing: the client has it; 304.
    NotModified,
    /// Nothing: it is not what the client thinks; 412.
    PreconditionFailed,
    /// Nothing: there are no such bytes; 416.
    Unsatisfiable,
}

/// The fields that make a request conditional, or for a part.
pub const CONDITIONS: [HeaderName; 6] =
    [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

impl Asked {
    /// That of a request.
    pub fn of<B>(request: &Request<B>) -> Self {
        Self::of_head(request.method(), request.headers())
    }

    /// That of a request's method and fields.
    pub fn of_head(method: &Method, head: &HeaderMap) -> Self {
        let mut fields = HeaderMap::new();
        for name in CONDITIONS {
            for value in head.get_all(&name) {
                fields.append(name.clone(), value.clone());
            }
        }
        Self { method: method.clone(), fields }
    }

    /// Whether the answer has no content in any case.
    pub fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Which part of `there` is the answer.
    pub fn part(&self, there: &Representation<'_>) -> Part {
        let asked = self;
        let Representation { tag, modified, length } = *there;
        let strong = tag.filter(|tag| !tag.starts_with("W/"));
        let opaque = tag.map(|tag| tag.strip_prefix("W/").unwrap_or(tag));
        let field = |name: &HeaderName| asked.fields.get(name).and_then(|value| value.to_str().ok());
        // Times have whole seconds there.
        let since = |text: &str| {
            let then = httpdate::parse_http_date(text).ok()?;
            let seconds = |time: SystemTime| {
                time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).ok()
            };
            Some(seconds(modified?)? > seconds(then)?)
        };
        let lists = |name: &HeaderName, weakly: bool| {
            let mut values =
                asked.fields.get_all(name).iter().filter_map(|value| value.to_str().ok()).peekable();
            values.peek()?;
            Some(values.flat_map(|value| value.split(',')).map(str::trim).any(|item| {
                item == "*"
                    || strong == Some(item)
                    || weakly && opaque == Some(item.strip_prefix("W/").unwrap_or(item))
            }))
        };
        match lists(&IF_MATCH, false) {
            Some(false) => return Part::PreconditionFailed,
            Some(true) => {}
            None if field(&IF_UNMODIFIED_SINCE).and_then(since) == Some(true) => {
                return Part::PreconditionFailed;
            }
            None => {}
        }
        let reads = [Method::GET, Method::HEAD].contains(&asked.method);
        match lists(&IF_NONE_MATCH, true) {
            Some(true) if reads => return Part::NotModified,
            Some(true) => return Part::PreconditionFailed,
            Some(false) => {}
            None if reads && field(&IF_MODIFIED_SINCE).and_then(since) == Some(false) => {
                return Part::NotModified;
            }
            None => {}
        }
        let Some(range) = field(&RANGE).filter(|_| asked.method == Method::GET) else { return Part::Whole };
        match field(&IF_RANGE) {
            Some(given) if given.starts_with('"') && strong != Some(given) => return Part::Whole,
            Some(given) if given.starts_with("W/") => return Part::Whole,
            Some(given) if !given.starts_with('"') && since(given) != Some(false) => return Part::Whole,
            _ => {}
        }
        match ranges(range, length) {
            // Several are sent as the whole, which is allowed, and is what most of their askers deserve.
            None => Part::Whole,
            Some(None) => Part::Unsatisfiable,
            Some(Some(range)) => Part::Range(range),
        }
    }
}

/// The one range of a Range field: `None` if there is not one, `Some(None)` if it is beyond the end.
fn ranges(field: &str, length: u64) -> Option<Option<Range<u64>>> {
    let range = field.strip_prefix("bytes=")?.trim();
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let suffix = number(last)?;
        return Some((suffix > 0 && length > 0).then(|| length.saturating_sub(suffix)..length));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some((first < length).then(|| first..last.saturating_add(1).min(length)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_part_is_what_conditions_and_ranges_say() {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_500);
        let (before, after) = ("Mon, 12 Jan 1970 13:46:39 GMT", "Mon, 12 Jan 1970 13:46:40 GMT");
        let of = |method: &Method, fields: &[(&HeaderName, &str)]| {
            let mut all = HeaderMap::new();
            for (name, value) in fields {
                all.append((*name).clone(), HeaderValue::from_str(value).unwrap());
            }
            let there = Representation { tag: Some("\"v\""), modified: Some(modified), length: 100 };
            Asked { method: method.clone(), fields: all }.part(&there)
        };
        let get = |fields: &[(&HeaderName, &str)]| of(&Method::GET, fields);
        for (fields, expected) in [
            (&[][..], Part::Whole),
            (&[(&RANGE, "bytes=0-9")], Part::Range(0..10)),
            (&[(&RANGE, "bytes=90-")], Part::Range(90..100)),
            (&[(&RANGE, "bytes=-5")], Part::Range(95..100)),
            (&[(&RANGE, "bytes=-500")], Part::Range(0..100)),
            (&[(&RANGE, "bytes=0-18446744073709551615")], Part::Range(0..100)),
            (&[(&RANGE, "bytes=0-99999999999999999999999")], Part::Range(0..100)),
            (&[(&RANGE, "bytes=100-")], Part::Unsatisfiable),
            (&[(&RANGE, "bytes=-0")], Part::Unsatisfiable),
            (&[(&RANGE, "bytes=9-0")], Part::Whole),
            (&[(&RANGE, "bytes=0-1,5-6")], Part::Whole),
            (&[(&RANGE, "bytes=+1-2")], Part::Whole),
            (&[(&RANGE, "lines=0-1")], Part::Whole),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, "\"v\"")], Part::Range(0..10)),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, "\"w\"")], Part::Whole),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, "W/\"v\"")], Part::Whole),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, after)], Part::Range(0..10)),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, before)], Part::Whole),
            (&[(&IF_NONE_MATCH, "\"a\", W/\"v\"")], Part::NotModified),
            (&[(&IF_NONE_MATCH, "*")], Part::NotModified),
            (&[(&IF_NONE_MATCH, "\"a\""), (&IF_MODIFIED_SINCE, after)], Part::Whole),
            (&[(&IF_MODIFIED_SINCE, after)], Part::NotModified),
            (&[(&IF_MODIFIED_SINCE, before)], Part::Whole),
            (&[(&IF_MODIFIED_SINCE, "once")], Part::Whole),
            (&[(&IF_MATCH, "\"a\"")], Part::PreconditionFailed),
            (&[(&IF_MATCH, "W/\"v\"")], Part::PreconditionFailed),
            (&[(&IF_MATCH, "\"v\""), (&IF_UNMODIFIED_SINCE, before)], Part::Whole),
            (&[(&IF_UNMODIFIED_SINCE, before)], Part::PreconditionFailed),
            (&[(&IF_UNMODIFIED_SINCE, after)], Part::Whole),
        ] {
            assert_eq!(get(fields), expected, "{fields:?}");
        }
        assert_eq!(of(&Method::HEAD, &[(&RANGE, "bytes=0-9")]), Part::Whole);
        assert_eq!(of(&Method::POST, &[(&IF_NONE_MATCH, "*")]), Part::PreconditionFailed);
    }
}
