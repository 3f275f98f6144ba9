//! The part of URLs that matters for dialling.

use std::net::SocketAddr;

/// `host:port` of an `http://host:port` URL.
pub(super) fn host_port(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://")?;
    let host = rest.split('/').next()?;
    host.rsplit_once(':').map(|_| host)
}

/// The address of a `host:port` that needs no name service.
pub(super) fn literal(host_port: &str) -> Option<SocketAddr> {
    if let Some(port) = host_port.strip_prefix("localhost:") {
        return format!("127.0.0.1:{port}").parse().ok();
    }
    host_port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        assert_eq!(host_port("http://10.0.0.1:2380"), Some("10.0.0.1:2380"));
        assert_eq!(host_port("http://[::1]:2380/"), Some("[::1]:2380"));
        assert_eq!(host_port("http://name"), None);
        assert_eq!(host_port("ftp://a:1"), None);
        assert_eq!(literal("localhost:1"), Some(SocketAddr::from(([127, 0, 0, 1], 1))));
        assert_eq!(literal("[::1]:1"), Some("[::1]:1".parse().unwrap()));
        assert_eq!(literal("example:1"), None);
    }
}
