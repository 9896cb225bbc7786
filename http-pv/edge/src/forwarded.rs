//! What a guest's server is told about the client: by the edge alone, never by the client.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

/// Fields that say something about a hop before, or about a request other than the one they are in. From outside they
/// are removed, whoever they are of.
const CLAIMS: [HeaderName; 12] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-host"),
];

/// Says who the client is, under which host it asked and whether over TLS; removes what it said of that itself.
pub fn set(fields: &mut HeaderMap, client: SocketAddr, host: &str, tls: bool) {
    for name in CLAIMS {
        fields.remove(name);
    }
    let scheme = if tls { "https" } else { "http" };
    let address = client.ip().to_canonical();
    let node = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let mut say = |name: HeaderName, value: String| {
        // A host that was let in is made of visible characters.
        if let Ok(value) = HeaderValue::try_from(value) {
            fields.insert(name, value);
        }
    };
    say(FORWARDED, format!("for={node};host=\"{host}\";proto={scheme}"));
    say(HeaderName::from_static("x-forwarded-for"), address.to_string());
    say(HeaderName::from_static("x-forwarded-host"), host.to_owned());
    say(HeaderName::from_static("x-forwarded-proto"), scheme.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h58_what_a_client_claims_is_replaced() {
        let mut fields = HeaderMap::new();
        for name in CLAIMS {
            fields.append(name.clone(), HeaderValue::from_static("evil"));
            fields.append(name, HeaderValue::from_static("more evil"));
        }
        set(&mut fields, "[::ffff:192.0.2.7]:5000".parse().unwrap(), "example.org:8443", true);
        let said: Vec<_> =
            fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = [
            ("forwarded", "for=192.0.2.7;host=\"example.org:8443\";proto=https"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "example.org:8443"),
            ("x-forwarded-proto", "https"),
        ];
        assert!(expected.iter().all(|pair| said.contains(pair)), "{said:?}");
        assert_eq!(said.len(), expected.len());
        set(&mut fields, "[2001:db8::1]:5000".parse().unwrap(), "a", false);
        assert_eq!(fields[FORWARDED], "for=\"[2001:db8::1]\";host=\"a\";proto=http");
    }
}
