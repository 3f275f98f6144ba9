//! The line protocol against a node that answers at once.

use std::sync::Arc;

use bytes::BytesMut;
use pawl::api::{Call, Limits, Put, Request};
use pawl::proto::Adapter;
use pawl::proto::line::{LineAdapter, ServerInfo};

use super::fake_node::{CLUSTER, FakeNode, MEMBER};

const CONN: u64 = 11;

/// A server with a small request limit, so that inputs of a few hundred bytes go beyond it.
pub fn server_info(request_bytes_max: usize) -> Arc<ServerInfo> {
    Arc::new(ServerInfo {
        cluster: CLUSTER,
        member: MEMBER,
        version: "0.1.0",
        limits: Limits { request_bytes_max, ..Limits::default() },
        config: vec![("name".into(), "default".into()), ("max-request-bytes".into(), "1572864".into())],
    })
}

/// What one connection came to.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    requests: Vec<Request>,
    output: Vec<u8>,
    /// What the connection ended with.
    fault: Option<String>,
    closing: bool,
}

fn talk<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut node = FakeNode::default();
    let mut adapter = LineAdapter::new(server_info(1000), CONN);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut outcome = Outcome::default();
    for piece in pieces {
        if outcome.fault.is_some() || outcome.closing {
            break;
        }
        input.extend_from_slice(piece);
        loop {
            let mut calls = Vec::new();
            if let Err(fault) = adapter.decode(&mut input, &mut calls, &mut output) {
                outcome.fault = Some(fault.text);
            }
            let is_owed = |call: &&Call| matches!(call, Call::Request { request, .. } if *request != Request::WatchProgress);
            assert_eq!(adapter.owed(), calls.iter().filter(is_owed).count(), "nothing was owed before");
            for call in calls {
                if let Call::Request { request, .. } = &call {
                    outcome.requests.push(request.clone());
                }
                for reply in node.answer(CONN, call) {
                    adapter.encode(reply, &mut output);
                }
            }
            outcome.output.extend_from_slice(&output.split());
            if !adapter.stalled() || outcome.fault.is_some() {
                break;
            }
        }
        assert_eq!(adapter.owed(), 0);
        assert!(input.len() <= 1000 + (64 << 10) + piece.len(), "more is held than one request");
        outcome.closing = adapter.closing();
    }
    outcome
}

/// The whole input at once: all output is well-formed, and each PUT means what its canonical form means.
pub fn line_decode(data: &[u8]) {
    let outcome = talk(std::iter::once(data));
    if !outcome.closing {
        assert_well_formed(&outcome.output);
    }
    for request in &outcome.requests {
        if let Request::Put(put) = request {
            let again = talk(std::iter::once(&canonical(put)[..]));
            assert_eq!(again.requests, std::slice::from_ref(request));
        }
    }
}

/// The first bytes say how the rest is cut; the cuts must not matter.
pub fn line_chunks(data: &[u8]) {
    let Some((cuts, data)) = data.split_first_chunk::<4>() else { return };
    let whole = talk(std::iter::once(data));
    let mut sizes = cuts.iter().cycle().map(|&size| usize::from(size) + 1);
    let mut rest = data;
    let pieces = std::iter::from_fn(|| {
        let (piece, behind) = rest.split_at_checked(sizes.next()?).unwrap_or((rest, &[]));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(talk(pieces), whole);
    assert_eq!(talk(data.chunks(1)), whole);
}

fn canonical(put: &Put) -> Vec<u8> {
    let lease = put.lease.to_string();
    let mut words: Vec<&[u8]> = vec![b"PUT", &put.key, &put.value];
    if put.lease != 0 {
        words.extend([&b"LEASE"[..], lease.as_bytes()]);
    }
    for (given, word) in
        [(put.prev_kv, &b"PREV"[..]), (put.ignore_value, b"KEEPVALUE"), (put.ignore_lease, b"KEEPLEASE")]
    {
        words.extend(given.then_some(word));
    }
    array(&words)
}

/// A request as libraries send it.
pub fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Whole RESP values and nothing behind them.
fn assert_well_formed(mut output: &[u8]) {
    let mut open: u64 = 0;
    while !output.is_empty() {
        let end = output.windows(2).position(|pair| pair == b"\r\n").expect("a line has an end");
        let (line, behind) = (&output[..end], &output[end + 2..]);
        output = behind;
        open = open.saturating_sub(1);
        let number = || std::str::from_utf8(&line[1..]).unwrap().parse::<i64>().expect("a number");
        match line[0] {
            b'+' | b'-' => assert!(!line.iter().any(u8::is_ascii_control), "{}", line.escape_ascii()),
            b':' => drop(number()),
            b'_' | b'#' => assert!(matches!(line, b"_" | b"#t" | b"#f")),
            b'*' | b'>' => open += u64::try_from(number()).unwrap(),
            b'%' => open += 2 * u64::try_from(number()).unwrap(),
            b'$' if line == b"$-1" => {}
            b'$' => {
                let bytes = usize::try_from(number()).unwrap();
                assert_eq!(&output[bytes..bytes + 2], b"\r\n");
                output = &output[bytes + 2..];
            }
            other => panic!("a value that begins with {other:#x}"),
        }
    }
    assert_eq!(open, 0, "every element of an array is there");
}
