//! The Cache-Control field (RFC 9111, section 5.2).

use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

use crate::limits::DELTA_SECONDS_MAX;

/// Its directives, by their names in lower case. Of one that is repeated the first holds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Directives(Vec<(String, Option<String>)>);

impl Directives {
    pub(crate) fn of(fields: &HeaderMap) -> Self {
        let mut all: Vec<(String, Option<String>)> = Vec::new();
        for value in fields.get_all(CACHE_CONTROL) {
            let Ok(text) = value.to_str() else { continue };
            for item in items(text) {
                let (name, value) = match item.split_once('=') {
                    Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
                    None => (item.trim(), None),
                };
                let name = name.to_ascii_lowercase();
                if !name.is_empty() && all.iter().all(|(known, _)| *known != name) {
                    all.push((name, value));
                }
            }
        }
        Self(all)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn value(&self, name: &str) -> Option<Option<&str>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_deref())
    }

    /// A time of whole seconds; one that is none is none at all: what it is said of is stale.
    pub(crate) fn seconds(&self, name: &str) -> Option<Duration> {
        Some(delta(self.value(name)?.unwrap_or_default()).unwrap_or_default())
    }

    /// The same of a directive that may stand alone, and means any time then.
    pub(crate) fn seconds_or_any(&self, name: &str) -> Option<Duration> {
        match self.value(name)? {
            None => Some(Duration::MAX),
            Some(text) => Some(delta(text).unwrap_or_default()),
        }
    }
}

/// Whole seconds, as many as there can be.
pub(crate) fn delta(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(text.parse().unwrap_or(DELTA_SECONDS_MAX).min(DELTA_SECONDS_MAX)))
}

/// What stands between commas that are not quoted.
fn items(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ',' && !quoted
    })
}

fn unquoted(text: &str) -> String {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => inner.replace('\\', ""),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[&str]) -> Directives {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        Directives::of(&fields)
    }

    #[test]
    fn directives_are_told_apart() {
        let all = of(&["Max-Age=\"60\", private=\"a, b\" ,x", "max-age=5, no-cache"]);
        assert_eq!(all.seconds("max-age"), Some(Duration::from_secs(60)), "the first holds");
        assert!(all.has("private") && all.has("x") && all.has("no-cache") && !all.has("b"));
        assert_eq!(of(&["max-age=-1"]).seconds("max-age"), Some(Duration::ZERO));
        assert_eq!(of(&["max-age"]).seconds("max-age"), Some(Duration::ZERO));
        assert_eq!(of(&["max-age=1.5"]).seconds("max-age"), Some(Duration::ZERO));
        let longest = Some(Duration::from_secs(DELTA_SECONDS_MAX));
        assert_eq!(of(&["max-age=99999999999999999999"]).seconds("max-age"), longest);
        assert_eq!(of(&["max-stale"]).seconds_or_any("max-stale"), Some(Duration::MAX));
        assert_eq!(of(&[]).seconds("max-age"), None);
    }
}
