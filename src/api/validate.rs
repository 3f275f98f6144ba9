//! The gate: what every mutating or reading request must satisfy before the node looks at it. Behind the
//! gate nobody checks again. The same rules answer every protocol.

use super::{Code, Fault, MemberChange, Put, Request, Span};
use crate::base::limits;

/// The settings that requests are measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `--max-request-bytes`: keys and values of one request together.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { request_bytes_max: limits::REQUEST_BYTES_DEFAULT, txn_ops_max: 128 }
    }
}

/// Checks one request.
pub fn check(request: &Request, limits: &Limits) -> Result<(), Fault> {
    match request {
        Request::Put(put) => check_put(put, limits),
        Request::Range(range) => check_span(&range.span, limits),
        Request::Delete(delete) => check_span(&delete.span, limits),
        Request::MemberAdd { peer_urls, .. } | Request::MemberUpdate { peer_urls, .. } => {
            check_peer_urls(peer_urls)
        }
        Request::MemberChange { changes } => check_changes(changes),
        Request::Exists { keys } => {
            if keys.len() > EXISTS_KEYS_MAX {
                return Err(Fault::new(Code::Err, format!("EXISTS takes {EXISTS_KEYS_MAX} keys at most")));
            }
            keys.iter().try_for_each(|key| check_key(key, limits))
        }
        Request::Compact(_)
        | Request::Status
        | Request::MemberList { .. }
        | Request::MemberRemove { .. }
        | Request::MemberPromote { .. }
        | Request::MoveLeader { .. } => Ok(()),
    }
}

/// A millisecond of work or two.
const EXISTS_KEYS_MAX: usize = 4096;

/// URLs of one member, and bytes of each: they travel in every list of members.
const PEER_URLS_MAX: usize = 16;
const PEER_URL_BYTES_MAX: usize = 1024;

/// `http://host:port`, at least one, none twice.
fn check_peer_urls(urls: &[String]) -> Result<(), Fault> {
    let sound = |url: &String| {
        let host_port = url.strip_prefix("http://").unwrap_or("");
        let port = host_port.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        let clean = !host_port.contains(|c: char| c.is_control() || c.is_whitespace() || "/,=\"".contains(c));
        clean
            && url.len() <= PEER_URL_BYTES_MAX
            && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|n| n > 0))
    };
    let repeated = urls.iter().enumerate().any(|(position, url)| urls[..position].contains(url));
    if urls.is_empty() || urls.len() > PEER_URLS_MAX || repeated || !urls.iter().all(sound) {
        return Err(Fault::new(Code::Err, "etcdserver: given member URLs are invalid"));
    }
    Ok(())
}

/// Additions, removals and promotions; none of a member that another one is about.
fn check_changes(changes: &[MemberChange]) -> Result<(), Fault> {
    if changes.len() > limits::MEMBERS_MAX {
        let most = limits::MEMBERS_MAX;
        return Err(Fault::new(Code::Err, format!("{} changes of members; {most} at most", changes.len())));
    }
    let (mut ids, mut urls) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            MemberChange::Add { peer_urls, .. } => {
                check_peer_urls(peer_urls)?;
                urls.extend(peer_urls);
            }
            MemberChange::Remove { id } | MemberChange::Promote { id } => ids.push(*id),
            _ => return Err(Fault::new(Code::Err, "members are added, removed and promoted together")),
        }
    }
    let repeated = |at: usize| urls[..at].contains(&urls[at]);
    if (0..urls.len()).any(repeated) {
        return Err(Fault::url_exists());
    }
    ids.sort_unstable();
    if changes.is_empty() || ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Fault::new(Code::Err, "each change is of another member, and there is one at least"));
    }
    Ok(())
}

fn check_put(put: &Put, limits: &Limits) -> Result<(), Fault> {
    if put.key.is_empty() {
        return Err(Fault::empty_key());
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Fault::new(Code::Err, "etcdserver: value is provided"));
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Fault::new(Code::Err, "etcdserver: lease is provided"));
    }
    check_size(put.key.len() + put.value.len(), limits)
}

fn check_span(span: &Span, limits: &Limits) -> Result<(), Fault> {
    match span {
        Span::Key(key) => check_key(key, limits),
        Span::Between(from, _) if from.is_empty() => Err(Fault::empty_key()),
        Span::Prefix(key) | Span::From(key) => check_size(key.len(), limits),
        Span::Between(from, to) => check_size(from.len() + to.len(), limits),
    }
}

fn check_key(key: &[u8], limits: &Limits) -> Result<(), Fault> {
    if key.is_empty() { Err(Fault::empty_key()) } else { check_size(key.len(), limits) }
}

fn check_size(bytes: usize, limits: &Limits) -> Result<(), Fault> {
    if bytes > limits.request_bytes_max { Err(Fault::too_large()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Delete, Range};
    use super::*;
    use bytes::Bytes;

    #[test]
    fn peer_urls_are_places_to_dial() {
        let add = |urls: &[&str]| {
            let peer_urls = urls.iter().map(|url| url.to_string()).collect();
            check(&Request::MemberAdd { peer_urls, learner: true }, &Limits::default()).is_ok()
        };
        assert!(add(&["http://127.0.0.1:2380"]) && add(&["http://[::1]:1", "http://n1.example:2380"]));
        for bad in
            ["", "127.0.0.1:2380", "http://a", "http://:1", "http://a:0", "http://a:1/x", "http://a b:1"]
        {
            assert!(!add(&[bad]), "{bad}");
        }
        assert!(!add(&[]) && !add(&["http://a:1", "http://a:1"]));
    }

    #[test]
    fn each_of_several_changes_is_of_another_member() {
        let add = |url: &str| MemberChange::Add { id: 0, peer_urls: vec![url.into()], learner: true };
        let remove = |id| MemberChange::Remove { id };
        let code = |changes: Vec<MemberChange>| {
            check(&Request::MemberChange { changes }, &Limits::default()).map_err(|fault| fault.code)
        };
        assert_eq!(code(vec![MemberChange::Promote { id: 4 }, remove(3), add("http://a:1")]), Ok(()));
        assert_eq!(code(vec![add("http://a:1"), add("http://b:1")]), Ok(()));
        assert_eq!(code((1..=32).map(remove).collect()), Ok(()));
        assert_eq!(code((1..=33).map(remove).collect()), Err(Code::Err));
        assert_eq!(code(vec![]), Err(Code::Err));
        assert_eq!(code(vec![MemberChange::Promote { id: 4 }, remove(4)]), Err(Code::Err));
        assert_eq!(code(vec![add("http://a:1"), add("http://a:1")]), Err(Code::MemberExists));
        assert_eq!(code(vec![add("a:1")]), Err(Code::Err));
        assert_eq!(code(vec![MemberChange::Alone { id: 1 }]), Err(Code::Err));
    }

    #[test]
    fn the_gate() {
        let limits = Limits { request_bytes_max: 10, ..Limits::default() };
        let put = |key: &'static str, value: &'static str| {
            Request::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
        };
        assert_eq!(check(&put("k", "123456789"), &limits), Ok(()));
        assert_eq!(check(&put("k", "1234567890"), &limits), Err(Fault::too_large()));
        assert_eq!(check(&put("", "v"), &limits), Err(Fault::empty_key()));
        let everything = Span::Prefix(Bytes::new());
        assert_eq!(check(&Request::Range(Range::new(everything.clone())), &limits), Ok(()));
        assert_eq!(check(&Request::Delete(Delete { span: everything, prev_kv: false }), &limits), Ok(()));
        let keep = Put { key: "k".into(), value: "v".into(), ignore_value: true, ..Put::default() };
        assert_eq!(check(&Request::Put(keep), &limits).unwrap_err().text, "etcdserver: value is provided");
    }
}
