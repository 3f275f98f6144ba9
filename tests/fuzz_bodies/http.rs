//! HTTP/1.1 against a node that answers at once: a connection comes to the same however its bytes are cut, and what it is
//! sent is well-formed.

use std::rc::Rc;

use bytes::BytesMut;
use pawl::proto::Adapter;
use pawl::proto::http::{Allowed, EXCHANGES_MAX, HttpAdapter, Scope, Site};

use super::fake_node::FakeNode;

const CONN: u64 = 11;

/// The first byte says how to cut; the rest is what a client sends.
pub fn http_requests(data: &[u8]) {
    let Some((&cut, wire)) = data.split_first() else { return };
    let (at_once, in_pieces) = (talk(std::iter::once(wire)), talk(wire.chunks(usize::from(cut).max(1))));
    // Only who waits for that word is sent it.
    assert_eq!(without_continue(&in_pieces), without_continue(&at_once), "the cut changes what comes of it");
    check_answers(&at_once.0);
    check_answers(&in_pieces.0);
}

fn without_continue((sent, ended): &(Vec<u8>, bool)) -> (String, bool) {
    let text = String::from_utf8_lossy(sent).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    // A page of metrics counts what was answered before it was asked for.
    let counts = |line: &&str| line.starts_with("etcd_server_health") || line.starts_with("Content-Length");
    (text.split_inclusive('\n').filter(|line| !counts(line)).collect(), *ended)
}

/// What was sent, and whether the connection ends.
fn talk<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let hosts = Allowed::from_list(["x", "localhost"].into_iter());
    let site = Rc::new(Site::new(hosts, Allowed::from_list(["http://a"].into_iter())));
    let mut adapter = HttpAdapter::new(site, Scope::Clients);
    let mut node = FakeNode::default();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let (mut sent, mut ended) = (Vec::new(), false);
    for piece in pieces {
        if ended {
            break;
        }
        input.extend_from_slice(piece);
        loop {
            let mut calls = Vec::new();
            ended |= adapter.decode(&mut input, &mut calls, &mut output).is_err() | adapter.closing();
            while !calls.is_empty() {
                assert!(adapter.owed() <= 3 * EXCHANGES_MAX, "so many requests are under way and no more");
                for call in std::mem::take(&mut calls) {
                    for reply in node.answer(CONN, call) {
                        adapter.encode(reply, &mut output);
                    }
                }
                adapter.write(&mut calls, &mut output);
            }
            assert_eq!((adapter.owed(), adapter.kept_bytes()), (0, 0), "all is answered");
            sent.extend_from_slice(&output.split());
            if !adapter.stalled() || ended {
                break;
            }
        }
    }
    (sent, ended)
}

/// Answers one behind the other, each with the length that it says. The bodies of answers to HEAD are not there, so
/// what follows the head may also be the next answer.
fn check_answers(mut rest: &[u8]) {
    while !rest.is_empty() {
        assert!(
            rest.starts_with(b"HTTP/1.1 "),
            "no answer begins with {}",
            rest[..rest.len().min(40)].escape_ascii()
        );
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a head has an end") + 4;
        let head = std::str::from_utf8(&rest[..end]).expect("heads are text");
        rest = &rest[end..];
        let Some((_, length)) = head.split_once("Content-Length: ") else {
            assert!(head.starts_with("HTTP/1.1 100 "), "{head}");
            continue;
        };
        let length: usize =
            length.split("\r\n").next().and_then(|digits| digits.parse().ok()).expect("a length");
        if !rest.starts_with(b"HTTP/1.1 ") && !rest.is_empty() {
            assert!(rest.len() >= length, "{head}");
            rest = &rest[length..];
        }
    }
}
