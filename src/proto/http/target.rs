//! What a request is about: the path and the query of its target (RFC 9112 §3.2), and host names.

use super::head::{Method, Refusal, refuse};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Decoded. `*` is all of the server.
    pub(super) path: String,
    /// Names and values of the query, decoded, in their order.
    query: Vec<(String, String)>,
}

impl Target {
    /// The target, and the authority where it names one.
    pub(super) fn parse(target: &str, method: Method) -> Result<(Target, Option<String>), Refusal> {
        if target == "*" && method == Method::Options {
            return Ok((Target { path: "*".into(), query: Vec::new() }, None));
        }
        let (authority, rest) = match absolute(target) {
            Some((authority, rest)) => (Some(authority.to_string()), rest),
            None => (None, target),
        };
        let path_is_given = rest.starts_with('/') || (authority.is_some() && !rest.starts_with('#'));
        if !path_is_given || rest.contains('#') {
            return Err(refuse(400, "the target is not a path"));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if path.is_empty() { "/" } else { path };
        let path = decode(path, false).ok_or(refuse(400, "the target has a bad escape"))?;
        Ok((Target { path, query: pairs(query) }, authority))
    }

    /// All values of a name, in their order.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }
}

/// What follows the scheme: authority and path. RFC 9112 §3.2.2: a server must take these, too.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    Some(rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())))
}

/// A pair that cannot be decoded is passed over, as Go's servers do it.
fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((decode(name, true)?, decode(value, true)?))
    };
    query.split('&').filter(|part| !part.is_empty()).filter_map(pair).collect()
}

/// Percent-decoding (RFC 3986 §2.1); in a query a plus is a space. None for half an escape, and for what is no UTF-8.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        match first {
            b'%' => {
                let [high, low, behind @ ..] = rest else { return None };
                bytes.push(hex(*high)? << 4 | hex(*low)?);
                rest = behind;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    Some((digit as char).to_digit(16)? as u8)
}

/// The name without a port: of `[::1]:2379` and `::1` the address.
pub(super) fn host_name(host: &str) -> Result<String, Refusal> {
    let refusal = refuse(400, "the Host is not a host");
    let name = match host.strip_prefix('[') {
        Some(inner) => {
            let (address, behind) = inner.split_once(']').ok_or(refusal)?;
            if !behind.is_empty() && !is_port(behind) {
                return Err(refusal);
            }
            address
        }
        None => match host.split_once(':') {
            // An address without brackets names no port.
            Some((_, port)) if port.contains(':') => host,
            Some((name, _)) if is_port(&host[name.len()..]) => name,
            Some(_) => return Err(refusal),
            None => host,
        },
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~%:!$&'()*+;=".contains(c);
    match name.chars().all(is_part) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(refusal),
    }
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(String, String)>;

    fn parse(target: &str) -> Option<(String, Pairs, Option<String>)> {
        let (target, authority) = Target::parse(target, Method::Get).ok()?;
        Some((target.path, target.query, authority))
    }

    #[test]
    fn paths_and_queries() {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let of = |path: &str, list: &[(&str, &str)]| Some((path.to_string(), pairs(list), None));
        assert_eq!(parse("/health"), of("/health", &[]));
        assert_eq!(parse("/a%2fb%20c"), of("/a/b c", &[]));
        assert_eq!(
            parse("/x?a=1&b&a=2&&c=d=e"),
            of("/x", &[("a", "1"), ("b", ""), ("a", "2"), ("c", "d=e")])
        );
        assert_eq!(parse("/x?a+b=%2B&bad=%zz&%c3%a4=1"), of("/x", &[("a b", "+"), ("ä", "1")]));
        assert_eq!(parse("/x?"), of("/x", &[]));
        for bad in ["", "x", "?a", "/%", "/%1", "/%ff", "/#a", "*", "host:80", "ftp://h/x", "http://h#a"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_whole_url_is_a_target_too() {
        let authority = |target: &str| parse(target).map(|(path, _, authority)| (path, authority.unwrap()));
        assert_eq!(authority("http://h:1/x"), Some(("/x".into(), "h:1".into())));
        assert_eq!(authority("HTTPS://h?a=b"), Some(("/".into(), "h".into())));
        assert_eq!(authority("http://h"), Some(("/".into(), "h".into())));
    }

    #[test]
    fn everything_is_asked_of_the_whole_server() {
        assert_eq!(Target::parse("*", Method::Options).map(|(target, _)| target.path), Ok("*".into()));
    }

    #[test]
    fn hosts_lose_their_port() {
        for (host, name) in [
            ("localhost:2379", "localhost"),
            ("LOCALHOST", "localhost"),
            ("[::1]:2379", "::1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("h:", "h"),
            ("", ""),
        ] {
            assert_eq!(host_name(host).as_deref(), Ok(name), "{host}");
        }
        for bad in ["a b", "a/b", "u@h", "h:x", "[::1", "[::1]x", "a,b", "a\u{e4}"] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }
}
