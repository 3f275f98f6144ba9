//! Host names become addresses within a time. The library's resolver has no bound of its own: it may take half
//! a minute where a name server is away.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::url::Url;
use crate::base::time::{Mono, Nanos, SECOND};
use crate::io::Clock;
use crate::io::os::OsClock;

/// The first address of an endpoint, `host:port` with or without `http://` and a slash behind it; or why there is none.
pub fn address(endpoint: &str, deadline: Mono) -> std::result::Result<SocketAddr, String> {
    let text = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let url = Url::parse(text.strip_suffix('/').unwrap_or(&text))?;
    let found = lookup(&url.host, deadline).map_err(|e| format!("{endpoint}: {e}"))?;
    Ok(SocketAddr::new(found[0], url.port))
}

/// The addresses of `host`, at least one. Past `deadline` the question is left to a thread that ends by itself.
pub fn lookup(host: &str, deadline: Mono) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let (answer, answered) = mpsc::channel();
    let name = host.to_owned();
    std::thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().map(|all| all.map(|address| address.ip()).collect());
        // Nobody listens any more when the answer is late.
        let _ = answer.send(found);
    });
    let left = Duration::from_nanos(deadline.since(OsClock.now()));
    match answered.recv_timeout(left) {
        Ok(Ok(found)) if Vec::is_empty(&found) => Err(Error::other("the name has no address")),
        Ok(found) => found,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(ErrorKind::TimedOut.into()),
    }
}

/// The same, asked again every second for `patience` in all: where servers start together with the name service
/// that knows them, a name may be a moment late. `notice` is told of the first failure.
pub fn lookup_patiently(
    host: &str,
    patience: Nanos,
    notice: &mut dyn FnMut(&str),
) -> std::result::Result<Vec<IpAddr>, String> {
    let deadline = OsClock.now() + patience;
    let seconds = patience / SECOND;
    let mut told = false;
    loop {
        let error = match lookup(host, deadline) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if OsClock.now() + SECOND >= deadline {
            return Err(format!("cannot resolve {host:?} within {seconds}s: {error}"));
        }
        if !told {
            notice(&format!("cannot resolve {host:?} yet ({error}): trying for {seconds}s"));
            told = true;
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing has been started yet that could do something else meanwhile"
)]
fn pause() {
    std::thread::sleep(Duration::from_nanos(SECOND));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_nobody_and_names_end_in_time() {
        let now = OsClock.now();
        assert_eq!(lookup("10.0.0.1", now).unwrap(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(lookup("::1", now).unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        // No time left: whatever a name server would say is not waited for.
        assert_eq!(lookup("name.invalid", now).unwrap_err().kind(), ErrorKind::TimedOut);
        let mut told = Vec::new();
        let refusal =
            lookup_patiently("name.invalid", 0, &mut |line| told.push(line.to_owned())).unwrap_err();
        assert!(refusal.starts_with("cannot resolve \"name.invalid\" within 0s: "), "{refusal}");
        assert!(told.is_empty(), "{told:?}");
    }
}
