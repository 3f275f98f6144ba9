//! The URLs of the command line: `http://host:port` and nothing more.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One checked URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was written.
    pub text: String,
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let (scheme, host, port) = parts(text)?;
        match scheme {
            "http" => Ok(Url { text: text.into(), host: host.into(), port }),
            "https" => Err(format!("{text}: TLS is not available yet: use http://")),
            _ => Err(format!("{text}: unix sockets are not available: use http://")),
        }
    }

    /// A comma-separated list, at least one, none twice.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        let mut urls: Vec<Url> = Vec::new();
        for item in text.split(',') {
            let url = Url::parse(item)?;
            if urls.iter().any(|other| other.same_place(&url)) {
                return Err(format!("{url} is there twice"));
            }
            urls.push(url);
        }
        Ok(urls)
    }

    /// Equal up to the spelling of the loopback address.
    pub fn same_place(&self, other: &Url) -> bool {
        fn plain(host: &str) -> String {
            if host == "localhost" { "127.0.0.1".into() } else { host.to_ascii_lowercase() }
        }
        self.port == other.port && plain(&self.host) == plain(&other.host)
    }

    /// Where to listen. Names other than localhost are refused, because what a name means can change under
    /// a running server.
    pub fn listen_addresses(&self, ipv6_loopback: bool) -> Result<Vec<SocketAddr>, String> {
        if self.host == "localhost" {
            let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port);
            let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), self.port);
            // Port 0 asks for any free port: one socket, or the two would differ.
            return Ok(if ipv6_loopback && self.port != 0 { vec![v4, v6] } else { vec![v4] });
        }
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, self.port)]),
            Err(_) => Err(format!("expected an IP address or localhost in a URL to listen on, found {self}")),
        }
    }

    /// `0.0.0.0` or `[::]`: good for listening, useless as an address to tell others.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

/// Scheme, host without brackets, and port of a URL of etcd's. What a unix socket's URL says behind its
/// scheme is not looked at.
fn parts(text: &str) -> Result<(&str, &str, u16), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{text:?} has no scheme: expected http://host:port"));
    };
    match scheme {
        "http" | "https" => {}
        "unix" | "unixs" => return Ok((scheme, rest, 0)),
        _ => return Err(format!("{text}: unknown scheme {scheme:?}: expected http://host:port")),
    }
    if rest.contains(['/', '?', '#']) {
        return Err(format!("{text} must not contain a path: expected http://host:port"));
    }
    if rest.contains('@') {
        return Err(format!("{text:?} must not contain a user: expected http://host:port"));
    }
    let Some((host, port)) = rest.rsplit_once(':').filter(|(host, _)| !host.is_empty()) else {
        return Err(format!("{text} does not have the form http://host:port"));
    };
    let port =
        port.parse().map_err(|_| format!("{text}: expected a port from 0 to 65535, found {port:?}"))?;
    let host = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(Some(inner)) if inner.parse::<Ipv6Addr>().is_ok() => inner,
        Some(_) => return Err(format!("{text}: {host:?} is not an IPv6 address in brackets")),
        None if host.contains(':') => {
            return Err(format!("{text}: an IPv6 address needs brackets: http://[::1]:2379"));
        }
        None if host.contains(char::is_whitespace) => {
            return Err(format!("{text:?} does not have the form http://host:port"));
        }
        None => host,
    };
    Ok((scheme, host, port))
}

/// What was expected where `text` is no URL, of whatever scheme etcd knows.
pub fn check(text: &str) -> Result<(), String> {
    parts(text).map(|_| ()).map_err(|why| format!("URLs: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_url() {
        let url = Url::parse(" http://127.0.0.1:2379 ").unwrap();
        assert_eq!(
            (url.text.as_str(), url.host.as_str(), url.port),
            ("http://127.0.0.1:2379", "127.0.0.1", 2379)
        );
        assert_eq!(Url::parse("http://[::1]:1").unwrap().host, "::1");
        for (text, complaint) in [
            ("127.0.0.1:2379", "\"127.0.0.1:2379\" has no scheme: expected http://host:port"),
            ("", "\"\" has no scheme: expected http://host:port"),
            ("https://a:1", "https://a:1: TLS is not available yet: use http://"),
            ("ftp://a:1", "ftp://a:1: unknown scheme \"ftp\": expected http://host:port"),
            ("http://a:1/", "http://a:1/ must not contain a path: expected http://host:port"),
            ("http://a", "http://a does not have the form http://host:port"),
            ("http://:1", "http://:1 does not have the form http://host:port"),
            ("http://a:65536", "http://a:65536: expected a port from 0 to 65535, found \"65536\""),
            ("http://::1:1", "http://::1:1: an IPv6 address needs brackets: http://[::1]:2379"),
            ("http://[a]:1", "http://[a]:1: \"[a]\" is not an IPv6 address in brackets"),
        ] {
            assert_eq!(Url::parse(text), Err(complaint.into()));
        }
        assert_eq!(Url::parse_list("http://a:1,http://A:1"), Err("http://A:1 is there twice".into()));
    }

    #[test]
    fn where_to_listen() {
        let listen = |text: &str, v6| Url::parse(text).unwrap().listen_addresses(v6);
        let addresses = |texts: &[&str]| Ok(texts.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(listen("http://localhost:7", false), addresses(&["127.0.0.1:7"]));
        assert_eq!(listen("http://localhost:7", true), addresses(&["127.0.0.1:7", "[::1]:7"]));
        assert_eq!(listen("http://localhost:0", true), addresses(&["127.0.0.1:0"]));
        assert_eq!(listen("http://0.0.0.0:7", true), addresses(&["0.0.0.0:7"]));
        assert!(listen("http://example.com:7", true).unwrap_err().contains("found http://example.com:7"));
    }
}
