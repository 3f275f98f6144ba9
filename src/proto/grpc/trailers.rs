//! A status in headers: a number and a text (gRPC over HTTP/2, "Responses").

use std::borrow::Cow;
use std::fmt::Write;

use http::{HeaderMap, HeaderValue};

use crate::proto::etcd::Status;

/// Adds it to the headers that end a stream.
pub fn write(status: &Status, headers: &mut HeaderMap) {
    headers.insert("grpc-status", HeaderValue::from(u16::from(status.code.number())));
    if !status.text.is_empty() {
        let text = HeaderValue::from_str(&percent_encoded(&status.text)).expect("what is left is visible");
        headers.insert("grpc-message", text);
    }
}

/// Everything but printable ASCII, and the percent sign itself, as `%XX` of its UTF-8 bytes.
fn percent_encoded(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::new();
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a text takes every text");
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Fault;

    #[test]
    fn a_status_in_trailers() {
        let mut headers = HeaderMap::new();
        write(&Status::of(&Fault::compacted(12)), &mut headers);
        assert_eq!(headers["grpc-status"], "11");
        assert_eq!(headers["grpc-message"], "etcdserver: mvcc: required revision has been compacted");
        let mut headers = HeaderMap::new();
        write(&Status::OK, &mut headers);
        assert_eq!(headers["grpc-status"], "0");
        assert!(!headers.contains_key("grpc-message"));
    }

    #[test]
    fn what_is_no_header_is_escaped() {
        assert_eq!(percent_encoded("5% of ü\n"), "5%25 of %C3%BC%0A");
        assert_eq!(percent_encoded("plain"), "plain");
    }
}
