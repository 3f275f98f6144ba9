//! The JSON gateway against a node that answers at once: whatever is posted is answered or refused, within bounds.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use pawl::base::Mono;
use pawl::proto::Adapter;
use pawl::proto::etcd::methods::RPCS;
use pawl::proto::http::{Allowed, Gateway, HttpAdapter, Scope, Site};

use super::fake_node::FakeNode;
use super::line::server_info;

/// One answer that is whole, and what comes beside it.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// The first byte says which method, the second how the body is cut; the rest is the body, posted twice on one connection.
pub fn gateway_requests(data: &[u8]) {
    let [method, cut, body @ ..] = data else { return };
    let paths: Vec<&str> = RPCS.iter().flat_map(|rpc| rpc.paths).copied().collect();
    let path = paths[usize::from(*method) % paths.len()];
    let mut site = Site::new(Allowed::All, Allowed::All);
    site.gateway = Some(Gateway { info: server_info(1000), room: Arc::default(), counts: Arc::default() });
    let mut adapter = HttpAdapter::new(Rc::new(site), Scope::Clients);
    let (mut node, mut input, mut output) = (FakeNode::default(), BytesMut::new(), BytesMut::new());
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let once = [head.as_bytes(), body].concat();
    let wire = [&once[..], &once].concat();
    for (at, piece) in (1..).zip(wire.chunks(usize::from(*cut).max(1) * 8)) {
        if adapter.closing() {
            break;
        }
        input.extend_from_slice(piece);
        loop {
            let mut calls = Vec::new();
            adapter.set_time(Mono(at), &mut calls, &mut output);
            let refused = adapter.decode(&mut input, &mut calls, &mut output).is_err();
            while !calls.is_empty() {
                for call in std::mem::take(&mut calls) {
                    for reply in node.answer(1, call) {
                        adapter.encode(reply, &mut output);
                    }
                }
                adapter.write(&mut calls, &mut output);
            }
            assert_eq!(adapter.owed(), 0, "everything is answered");
            assert!(output.len() < OUTPUT_BYTES_MAX, "{} bytes of output", output.len());
            assert!(output.is_empty() || output.starts_with(b"HTTP/1.1 ") || adapter.waits() || at > 1);
            output.clear();
            if refused || adapter.closing() || adapter.waits() || !adapter.stalled() {
                break;
            }
        }
    }
    adapter.leave(&mut Vec::new());
    assert!(!adapter.waits() && adapter.owed() == 0);
}
