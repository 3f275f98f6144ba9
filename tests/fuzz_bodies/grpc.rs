//! gRPC against a node that answers at once.

use std::sync::Arc;

use bytes::BytesMut;
use pawl::api::Call;
use pawl::base::Mono;
use pawl::proto::Adapter;
use pawl::proto::grpc::{GrpcAdapter, Settings};

use super::fake_node::FakeNode;
use super::line::server_info;

/// What every connection begins with: RFC 9113 §3.4, and settings without any setting.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A full output, one frame, and what HTTP/2 says without being asked.
const OUTPUT_BYTES_MAX: usize = 400 << 10;

/// Frames behind the greeting, in pieces of the first byte's length; where its highest bit is set, nothing of the output is
/// taken. Nothing is owed when all is answered, and nothing is left when the client has gone.
pub fn grpc_frames(data: &[u8]) {
    let Some((&pace, frames)) = data.split_first() else { return };
    let settings = Settings { streams_max: 50, ..Settings::default() };
    let mut adapter = GrpcAdapter::new(server_info(1000), Arc::new(settings));
    let (mut node, mut output) = (FakeNode::default(), BytesMut::new());
    let pieces = [GREETING].into_iter().chain(frames.chunks(usize::from(pace & 0x7f) + 1));
    for (at, piece) in (1..).zip(pieces) {
        if adapter.closing() {
            break;
        }
        let mut calls = Vec::new();
        adapter.set_time(Mono(at), &mut calls, &mut output);
        let mut input = BytesMut::from(piece);
        adapter.decode(&mut input, &mut calls, &mut output).expect("a connection that ends closes");
        assert!(input.is_empty(), "what is not complete is kept by the adapter");
        answer(&mut adapter, &mut node, calls, &mut output);
        assert_eq!(adapter.owed(), 0, "everything is answered");
        assert!(output.len() < OUTPUT_BYTES_MAX, "{} bytes of output", output.len());
        if pace & 0x80 == 0 {
            output.clear();
        }
    }
    let mut calls = Vec::new();
    adapter.set_time(Mono::NEVER, &mut calls, &mut output);
    adapter.leave(&mut calls);
    assert!(adapter.closing() && adapter.input_bytes() == 0 && adapter.owed() == 0);
}

/// Until nothing more is asked.
fn answer(adapter: &mut GrpcAdapter, node: &mut FakeNode, mut calls: Vec<Call>, output: &mut BytesMut) {
    while !calls.is_empty() {
        for call in std::mem::take(&mut calls) {
            for reply in node.answer(1, call) {
                adapter.encode(reply, output);
            }
        }
        adapter.write(&mut calls, output);
    }
    adapter.write(&mut calls, output);
    assert!(calls.is_empty(), "nothing new was said");
}
