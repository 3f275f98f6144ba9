//! gRPC against a node that answers at once.

use std::sync::Arc;

use bytes::BytesMut;
use pawl::api::Call;
use pawl::base::Mono;
use pawl::proto::Adapter;
use pawl::proto::etcd::messages as pb;
use pawl::proto::grpc::{GrpcAdapter, Settings};
use prost::Message;

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
    let (mut node, mut input, mut output) = (FakeNode::default(), BytesMut::new(), BytesMut::new());
    let pieces = [GREETING].into_iter().chain(frames.chunks(usize::from(pace & 0x7f) + 1));
    for (at, piece) in (1..).zip(pieces) {
        if adapter.closing() {
            break;
        }
        let mut calls = Vec::new();
        adapter.set_time(Mono(at), &mut calls, &mut output);
        input.extend_from_slice(piece);
        adapter.decode(&mut input, &mut calls, &mut output).expect("a connection that ends closes");
        assert!(input.is_empty() || adapter.stalled(), "what is not complete is kept by the adapter");
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

/// Every method that takes a message that is worth a look.
const PATHS: [&str; 25] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Leader",
    "/v3electionpb.Election/Observe",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// One call, whose method the first byte names: what follows the second byte is the client's side of its stream, in frames of
/// that length. Whatever it says, the call ends or waits for more, and all that is owed is answered.
pub fn grpc_stream(data: &[u8]) {
    let &[method, pace, ref said @ ..] = data else { return };
    let path = PATHS[usize::from(method) % PATHS.len()];
    let mut adapter = GrpcAdapter::new(server_info(1000), Arc::new(Settings::default()));
    let (mut node, mut output) = (FakeNode::default(), BytesMut::new());
    let mut input = BytesMut::from(GREETING);
    put_frame(1, 4, &headers(path), &mut input);
    for piece in said.chunks(usize::from(pace) + 1) {
        put_frame(0, 0, piece, &mut input);
    }
    put_frame(0, 1, &[], &mut input);
    let mut calls = Vec::new();
    adapter.set_time(Mono(1), &mut calls, &mut output);
    adapter.decode(&mut input, &mut calls, &mut output).expect("a connection that ends closes");
    while adapter.stalled() && !adapter.awaits_answers() {
        adapter.decode(&mut input, &mut calls, &mut output).expect("a connection that ends closes");
    }
    answer(&mut adapter, &mut node, calls, &mut output);
    assert_eq!(adapter.owed(), 0, "everything is answered");
    adapter.leave(&mut Vec::new());
    assert!(adapter.closing() && adapter.input_bytes() == 0);
}

/// Of the connection's first stream.
fn put_frame(kind: u8, flags: u8, payload: &[u8], bytes: &mut BytesMut) {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
    bytes.extend_from_slice(payload);
}

/// POST and http by their numbers, the rest in plain letters (RFC 7541 §6.2.2).
fn headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let fields: [(&[u8], &[u8]); 4] = [
        (b"\x04", path.as_bytes()),
        (b"\x01", b"x"),
        (b"\x0f\x10", b"application/grpc"),
        (b"\x00\x02te", b"trailers"),
    ];
    for (name, value) in fields {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).expect("it is short"));
        block.extend_from_slice(value);
    }
    block
}

/// The message that the first byte names: what can be read is written, and reads as the same.
pub fn grpc_messages(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    let readers = MESSAGES;
    readers[usize::from(which) % readers.len()](bytes);
}

fn there_and_back<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let again = message.encode_to_vec();
    assert_eq!(again.len(), message.encoded_len());
    assert!(M::decode(&again[..]).expect("what was written can be read") == message, "it reads as another");
}

/// All of them.
const MESSAGES: &[fn(&[u8])] = &[
    there_and_back::<pb::Member>,
    there_and_back::<pb::MemberAddRequest>,
    there_and_back::<pb::MemberAddResponse>,
    there_and_back::<pb::MemberId>,
    there_and_back::<pb::MemberUpdateRequest>,
    there_and_back::<pb::MemberListRequest>,
    there_and_back::<pb::MembersResponse>,
    there_and_back::<pb::StatusResponse>,
    there_and_back::<pb::AlarmRequest>,
    there_and_back::<pb::AlarmMember>,
    there_and_back::<pb::AlarmResponse>,
    there_and_back::<pb::AuthStatusResponse>,
    there_and_back::<pb::HealthCheckRequest>,
    there_and_back::<pb::HealthCheckResponse>,
    there_and_back::<pb::KeyValue>,
    there_and_back::<pb::RangeRequest>,
    there_and_back::<pb::RangeResponse>,
    there_and_back::<pb::RangeStreamResponse>,
    there_and_back::<pb::PutRequest>,
    there_and_back::<pb::PutResponse>,
    there_and_back::<pb::DeleteRangeRequest>,
    there_and_back::<pb::DeleteRangeResponse>,
    there_and_back::<pb::Compare>,
    there_and_back::<pb::RequestOp>,
    there_and_back::<pb::TxnRequest>,
    there_and_back::<pb::ResponseOp>,
    there_and_back::<pb::TxnResponse>,
    there_and_back::<pb::CompactionRequest>,
    there_and_back::<pb::LeaseGrantRequest>,
    there_and_back::<pb::LeaseGrantResponse>,
    there_and_back::<pb::LeaseId>,
    there_and_back::<pb::LeaseKeepAliveResponse>,
    there_and_back::<pb::LeaseTimeToLiveRequest>,
    there_and_back::<pb::LeaseTimeToLiveResponse>,
    there_and_back::<pb::LeaseLeasesResponse>,
    there_and_back::<pb::LockRequest>,
    there_and_back::<pb::LockResponse>,
    there_and_back::<pb::Named>,
    there_and_back::<pb::LeaderKey>,
    there_and_back::<pb::CampaignRequest>,
    there_and_back::<pb::CampaignResponse>,
    there_and_back::<pb::ProclaimRequest>,
    there_and_back::<pb::LeaderResponse>,
    there_and_back::<pb::ResponseHeader>,
    there_and_back::<pb::Empty>,
    there_and_back::<pb::HeaderOnly>,
    there_and_back::<pb::Event>,
    there_and_back::<pb::WatchRequest>,
    there_and_back::<pb::WatchCreateRequest>,
    there_and_back::<pb::WatchCancelRequest>,
    there_and_back::<pb::WatchResponse>,
];

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
