//! The gate: what every mutating or reading request must satisfy before the node looks at it. Behind the
//! gate nobody checks again. The same rules answer every protocol.

use super::{Code, Fault, Put, Request, Span};
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
        Request::Status | Request::MemberList { .. } => Ok(()),
    }
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
        Span::Key(key) if key.is_empty() => Err(Fault::empty_key()),
        Span::Between(from, _) if from.is_empty() => Err(Fault::empty_key()),
        Span::Key(key) | Span::Prefix(key) | Span::From(key) => check_size(key.len(), limits),
        Span::Between(from, to) => check_size(from.len() + to.len(), limits),
    }
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
