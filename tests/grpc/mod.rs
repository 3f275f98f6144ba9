//! gRPC without a socket: a client of HTTP/2, the adapter, and a node of one map.

mod full;
mod wire;

use bytes::{Bytes, BytesMut};
use pawl::api::{
    Alarm, AlarmChange, AlarmKind, Body, Call, Event, EventKind, Fault, KeyValue, LeaseAnswer, LeaseRequest,
    LockRequest as ApiLock, RangeHead, RangePart, Request, Status,
};
use pawl::base::time::{MS, SECOND};
use pawl::base::{Mono, Rng};
use pawl::proto::Adapter;
use pawl::proto::etcd::messages::{
    AlarmRequest, AlarmResponse, AuthStatusResponse, CampaignRequest, CampaignResponse, CompactionRequest,
    DeleteRangeRequest, DeleteRangeResponse, DowngradeRequest, Empty, HashKvRequest, HashKvResponse,
    HashResponse, HeaderOnly, HealthCheckRequest, HealthCheckResponse, LeaderKey, LeaderResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseId, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LockRequest, LockResponse, MemberId, MembersResponse,
    Named, ProclaimRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse,
    RequestOp, RequestUnion, SnapshotResponse, StatusResponse, TxnRequest, TxnResponse, WatchCancelRequest,
    WatchCreateRequest, WatchRequest, WatchResponse, WatchUnion,
};
use pawl::proto::grpc::{GrpcAdapter, Settings};
use wire::{Wire, framed, info, limits};

use crate::fuzz_bodies::fake_node::MEMBER;

const KV: &str = "/etcdserverpb.KV/";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn get(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..Default::default() }
}

fn kv(path: &str) -> String {
    format!("{KV}{path}")
}

#[test]
fn a_put_and_a_range() {
    for piece_bytes in [usize::MAX, 1, 7] {
        let mut wire = Wire::new();
        wire.piece_bytes = piece_bytes;
        let done: PutResponse = wire.unary(&kv("Put"), &put("k", "v")).unwrap();
        let header = done.header.unwrap();
        assert_eq!((header.revision, header.raft_term), (2, 2));
        assert_eq!(done.prev_kv, None);
        let again = PutRequest { prev_kv: true, ..put("k", "w") };
        let done: PutResponse = wire.unary(&kv("Put"), &again).unwrap();
        assert_eq!(done.prev_kv.unwrap().value, "v");
        let found: RangeResponse = wire.unary(&kv("Range"), &get("k")).unwrap();
        assert_eq!((found.count, found.more), (1, false));
        let kv = &found.kvs[0];
        assert_eq!((&kv.value[..], kv.create_revision, kv.mod_revision, kv.version), (&b"w"[..], 2, 3, 2));
    }
}

#[test]
fn failures_have_etcds_statuses_and_texts() {
    let mut wire = Wire::new();
    let nothing = wire.unary::<PutResponse>(&kv("Put"), &put("", "v")).unwrap_err();
    assert_eq!(nothing, (3, "etcdserver: key is not provided".into()));
    let future = RangeRequest { revision: 99, ..get("k") };
    let future = wire.unary::<RangeResponse>(&kv("Range"), &future).unwrap_err();
    assert_eq!(future, (11, "etcdserver: mvcc: required revision is a future revision".into()));
    let no_lease = PutRequest { lease: 9, ..put("k", "v") };
    let no_lease = wire.unary::<PutResponse>(&kv("Put"), &no_lease).unwrap_err();
    assert_eq!(no_lease, (5, "etcdserver: requested lease not found".into()));
    let twice: Vec<RequestOp> =
        [put("k", "1"), put("k", "2")].map(|put| RequestOp { request: Some(RequestUnion::Put(put)) }).into();
    let twice = TxnRequest { success: twice, ..Default::default() };
    let twice = wire.unary::<TxnResponse>(&kv("Txn"), &twice).unwrap_err();
    assert_eq!(twice, (3, "etcdserver: duplicate key given in txn request".into()));
    let auth = wire.unary::<Empty>("/etcdserverpb.Auth/Authenticate", &Empty {}).unwrap_err();
    assert_eq!(auth, (9, "etcdserver: authentication is not enabled".into()));
}

#[test]
fn calls_that_make_no_sense_are_ended_and_harm_no_other() {
    let mut wire = Wire::new();
    let watch = wire.open(WATCH, &[]);
    let status = |wire: &mut Wire, path: &str, bytes: &[u8]| {
        let call = wire.open(path, &[]);
        wire.send_raw(call, bytes);
        if wire.status(call).is_none() {
            wire.end(call);
        }
        wire.status(call).map(|(code, _)| code)
    };
    assert_eq!(status(&mut wire, "/etcdserverpb.KV/Nothing", &framed(b"")), Some(12));
    assert_eq!(status(&mut wire, "/", &framed(b"")), Some(12));
    assert_eq!(status(&mut wire, "/etcdserverpb.Auth/UserAdd", &framed(b"")), Some(9), "there are no users");
    assert_eq!(status(&mut wire, &kv("Put"), b""), Some(13), "no message");
    assert_eq!(status(&mut wire, &kv("Put"), b"\0\0\0\0\x09abc"), Some(13), "half a message");
    assert_eq!(status(&mut wire, &kv("Put"), &framed(b"\xff\xff\xff")), Some(13), "no protocol buffer");
    assert_eq!(status(&mut wire, &kv("Put"), b"\x01\0\0\0\0"), Some(12), "compressed");
    assert_eq!(status(&mut wire, &kv("Put"), b"\0\x7f\0\0\0"), Some(8), "too long");
    let two = [framed(b"\x0a\x01k"), framed(b"\x0a\x01k")].concat();
    assert_eq!(status(&mut wire, &kv("Range"), &two), Some(13), "two messages");
    assert_eq!(status(&mut wire, WATCH, &framed(b"\xff")), Some(13));
    // No gRPC at all.
    for (verb, kind, code) in
        [("GET", "application/grpc", 405), ("POST", "text/html", 415), ("POST", "application/grpcx", 415)]
    {
        let request = http::Request::builder().method(verb).uri("http://x/etcdserverpb.KV/Put");
        let call = wire.open_with(request.header("content-type", kind).body(()).unwrap());
        wire.spin();
        assert_eq!(wire.http(call), code);
    }
    assert!(!wire.is_closed);
    assert_eq!(wire.status(watch), None);
    let create = create(b"k", 0);
    wire.send(watch, &create);
    assert!(wire.messages::<WatchResponse>(watch)[0].created);
}

#[test]
fn all_of_etcds_services_answer() {
    let mut wire = Wire::new();
    let status: StatusResponse = wire.unary("/etcdserverpb.Maintenance/Status", &Empty {}).unwrap();
    assert_eq!((status.version.as_str(), status.db_size), ("3.5.0+pawl.0.1.0", 20480));
    let members: MembersResponse = wire.unary("/etcdserverpb.Cluster/MemberList", &Empty {}).unwrap();
    assert_eq!((members.header.unwrap().revision, members.members[0].name.as_str()), (0, "default"));
    let granted: LeaseGrantResponse =
        wire.unary("/etcdserverpb.Lease/LeaseGrant", &LeaseGrantRequest { ttl: 60, id: 7 }).unwrap();
    assert_eq!((granted.id, granted.ttl), (7, 60));
    let asked = LeaseTimeToLiveRequest { id: 8, keys: false };
    let gone: LeaseTimeToLiveResponse = wire.unary("/etcdserverpb.Lease/LeaseTimeToLive", &asked).unwrap();
    assert_eq!((gone.id, gone.ttl, gone.granted_ttl), (8, -1, 0));
    let leases: LeaseLeasesResponse = wire.unary("/etcdserverpb.Lease/LeaseLeases", &Empty {}).unwrap();
    assert_eq!(leases.leases, [LeaseId { id: 7 }]);
    let held: LockResponse =
        wire.unary("/v3lockpb.Lock/Lock", &LockRequest { name: "l".into(), lease: 7 }).unwrap();
    assert_eq!(held.key, "l/7");
    let _: HeaderOnly = wire.unary("/v3lockpb.Lock/Unlock", &Named { name: held.key }).unwrap();
    let auth: AuthStatusResponse = wire.unary("/etcdserverpb.Auth/AuthStatus", &Empty {}).unwrap();
    assert!(!auth.enabled);
    let health: HealthCheckResponse = wire.unary("/grpc.health.v1.Health/Check", &Empty {}).unwrap();
    assert_eq!(health.status, 1);
    let alarms: AlarmResponse = wire.unary("/etcdserverpb.Maintenance/Alarm", &Empty {}).unwrap();
    assert!(alarms.alarms.is_empty());
    let _: HeaderOnly = wire.unary("/etcdserverpb.Maintenance/Defragment", &Empty {}).unwrap();
    let compacted: HeaderOnly =
        wire.unary(&kv("Compact"), &CompactionRequest { revision: 1, physical: true }).unwrap();
    assert!(compacted.header.is_some());
    let unknown = wire.unary::<Empty>("/etcdserverpb.Cluster/MemberRemove", &MemberId { id: 99 });
    assert_eq!(unknown.unwrap_err(), (5, "etcdserver: member not found".into()));
}

#[test]
fn an_election_is_won_told_and_given_up() {
    let mut wire = Wire::new();
    let grant = LeaseGrantRequest { ttl: 60, id: 0x1a };
    let _: LeaseGrantResponse = wire.unary("/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    let observer = wire.open("/v3electionpb.Election/Observe", &[]);
    wire.send(observer, &Named { name: "e".into() });
    wire.end(observer);
    let nobody = wire.unary::<LeaderResponse>("/v3electionpb.Election/Leader", &Named { name: "e".into() });
    assert_eq!(nobody.unwrap_err(), (2, "election: no leader".into()));
    let asked = CampaignRequest { name: "e".into(), lease: 0x1a, value: "one".into() };
    let won: CampaignResponse = wire.unary("/v3electionpb.Election/Campaign", &asked).unwrap();
    let leader = won.leader.unwrap();
    assert_eq!((&leader.key[..], leader.rev, leader.lease), (&b"e/1a"[..], 2, 0x1a));
    let proclaim = ProclaimRequest { leader: Some(leader.clone()), value: "two".into() };
    let _: HeaderOnly = wire.unary("/v3electionpb.Election/Proclaim", &proclaim).unwrap();
    let told: Vec<LeaderResponse> = wire.messages(observer);
    let values: Vec<_> = told.into_iter().map(|told| told.kv.unwrap().value).collect();
    assert_eq!(values, ["one", "two"]);
    let another = LeaderKey { rev: 1, ..leader.clone() };
    let proclaim = ProclaimRequest { leader: Some(another), value: "three".into() };
    let refused = wire.unary::<HeaderOnly>("/v3electionpb.Election/Proclaim", &proclaim).unwrap_err();
    assert_eq!(refused, (2, "election: not leader".into()));
    let resign = ProclaimRequest { leader: Some(leader), value: Bytes::new() };
    let _: HeaderOnly = wire.unary("/v3electionpb.Election/Resign", &resign).unwrap();
    let found: RangeResponse = wire.unary(&kv("Range"), &get("e/1a")).unwrap();
    assert_eq!(found.count, 0);
}

/// etcd makes a lease of a minute for whoever names none.
#[test]
fn a_lock_without_a_lease_is_given_one() {
    let mut wire = Wire::new();
    let held: LockResponse =
        wire.unary("/v3lockpb.Lock/Lock", &LockRequest { name: "l".into(), lease: 0 }).unwrap();
    assert_eq!(held.key, "l/112210f47de98115");
    let asked: Vec<&Call> = wire.calls.iter().collect();
    let Call::Request { request: Request::Lease(LeaseRequest::Grant { ttl_s: 60, .. }), .. } = asked[0]
    else {
        panic!("{:?}", asked[0])
    };
    let Call::Request { request: Request::Lock(ApiLock::Acquire(acquire)), .. } = asked[1] else {
        panic!("{:?}", asked[1])
    };
    assert_eq!(acquire.lease, 1_234_567_890_123_456_789);
}

fn create(key: &'static [u8], watch_id: i64) -> WatchRequest {
    let create = WatchCreateRequest { key: Bytes::from_static(key), watch_id, ..Default::default() };
    WatchRequest { request: Some(WatchUnion::Create(create)) }
}

fn cancel(watch_id: i64) -> WatchRequest {
    WatchRequest { request: Some(WatchUnion::Cancel(WatchCancelRequest { watch_id })) }
}

#[test]
fn watches_of_a_stream() {
    let mut wire = Wire::new();
    let watch = wire.open(WATCH, &[]);
    let flags = |wire: &mut Wire| {
        let told: Vec<WatchResponse> = wire.messages(watch);
        told.into_iter().map(|one| (one.watch_id, one.created, one.canceled)).collect::<Vec<_>>()
    };
    wire.send(watch, &create(b"a", 0));
    wire.send(watch, &create(b"b", 5));
    wire.send(watch, &create(b"a", 0));
    assert_eq!(flags(&mut wire), [(0, true, false), (5, true, false), (1, true, false)]);
    wire.send(watch, &create(b"b", 5));
    let refused = wire.messages::<WatchResponse>(watch).remove(0);
    assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
    assert_eq!(refused.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");

    let _: PutResponse = wire.unary(&kv("Put"), &put("a", "1")).unwrap();
    let _: PutResponse = wire.unary(&kv("Put"), &put("b", "2")).unwrap();
    let told: Vec<WatchResponse> = wire.messages(watch);
    let shown: Vec<_> = told
        .iter()
        .map(|one| {
            let event = &one.events[0];
            (one.watch_id, one.header.unwrap().revision, event.kind, &event.kv.as_ref().unwrap().value[..])
        })
        .collect();
    assert_eq!(shown, [(0, 2, 0, &b"1"[..]), (1, 2, 0, b"1"), (5, 3, 0, b"2")]);

    wire.send(watch, &cancel(0));
    wire.send(watch, &cancel(77));
    assert_eq!(flags(&mut wire), [(0, false, true)]);
    let _: DeleteRangeResponse = wire
        .unary(&kv("DeleteRange"), &DeleteRangeRequest { key: "a".into(), ..Default::default() })
        .unwrap();
    let told: Vec<WatchResponse> = wire.messages(watch);
    assert_eq!((told.len(), told[0].watch_id, told[0].events[0].kind), (1, 1, 1));

    wire.send(watch, &WatchRequest { request: Some(WatchUnion::Progress(Empty {})) });
    assert!(wire.messages::<WatchResponse>(watch).is_empty());
    for reply in wire.node.tell_progress(1) {
        wire.tell(reply.tag, 4, reply.body, false);
    }
    let told: Vec<WatchResponse> = wire.messages(watch);
    assert_eq!((told[0].watch_id, told[0].header.unwrap().revision, told[0].events.len()), (-1, 4, 0));

    // The client has no more to say.
    wire.end(watch);
    assert_eq!(wire.status(watch), Some((0, "")));
    assert!(matches!(wire.calls.last(), Some(Call::Leave { .. })));
}

#[test]
fn a_watch_that_cannot_go_on_says_so() {
    let mut wire = Wire::new();
    let watch = wire.open(WATCH, &[]);
    wire.send(watch, &create(b"a", 0));
    let (tag, _) = wire.last_request();
    let fault = Fault::compacted(9);
    wire.tell(tag, 12, Body::Unwatched { fault, compacted: 9 }, false);
    let told: Vec<WatchResponse> = wire.messages(watch);
    assert_eq!((told[1].watch_id, told[1].canceled, told[1].compact_revision), (0, true, 9));
    // The id is free again. What a member cannot do, another one can: the stream breaks, and clients go there.
    wire.send(watch, &create(b"a", 0));
    let (tag, _) = wire.last_request();
    wire.tell(tag, 12, Body::Unwatched { fault: Fault::no_leader(), compacted: 0 }, false);
    assert_eq!(wire.status(watch), Some((14, "etcdserver: no leader")));
    // A span that holds nothing.
    let watch = wire.open(WATCH, &[]);
    let empty = WatchCreateRequest { key: "b".into(), range_end: "a".into(), ..Default::default() };
    wire.send(watch, &WatchRequest { request: Some(WatchUnion::Create(empty)) });
    let told = wire.messages::<WatchResponse>(watch).remove(0);
    assert_eq!((told.watch_id, told.created, told.canceled), (-1, true, true));
    assert_eq!(told.cancel_reason, "mvcc: watcher range is empty");
}

/// To etcd, -1 is where a history begins that was never compacted.
#[test]
fn a_watch_that_is_to_begin_below_zero() {
    let mut wire = Wire::new();
    let watch = wire.open(WATCH, &[]);
    let early = |start_revision| {
        let create = WatchCreateRequest { key: "a".into(), start_revision, ..Default::default() };
        WatchRequest { request: Some(WatchUnion::Create(create)) }
    };
    let flags = |wire: &mut Wire| {
        let told: Vec<WatchResponse> = wire.messages(watch);
        let shown = |one: WatchResponse| (one.watch_id, one.created, one.canceled, one.compact_revision);
        told.into_iter().map(shown).collect::<Vec<_>>()
    };
    wire.send(watch, &early(-2));
    assert_eq!(flags(&mut wire), [(0, true, false, 0), (0, false, true, -1)]);
    wire.send(watch, &early(-1));
    assert_eq!(flags(&mut wire), [(1, true, false, 0)], "from now on");
    let _: PutResponse = wire.unary(&kv("Put"), &put("a", "1")).unwrap();
    assert_eq!(flags(&mut wire), [(1, false, false, 0)]);
    wire.send(watch, &cancel(1));
    assert_eq!(flags(&mut wire), [(1, false, true, 0)]);
}

#[test]
fn the_health_is_watched() {
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    const SERVICE_UNKNOWN: i32 = 3;
    let path = "/grpc.health.v1.Health/Watch";
    let mut wire = Wire::new();
    let known = wire.open(path, &[]);
    wire.send(known, &HealthCheckRequest { service: String::new() });
    wire.end(known);
    let told = |wire: &mut Wire, call: usize| {
        wire.messages::<HealthCheckResponse>(call).into_iter().map(|told| told.status).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut wire, known), [SERVING]);
    let (tag, request) = wire.last_request();
    assert_eq!(request, Request::WatchHealth);
    wire.tell(tag, 1, Body::Serves(false), true);
    assert_eq!(told(&mut wire, known), [NOT_SERVING]);
    let unknown = wire.open(path, &[]);
    wire.send(unknown, &HealthCheckRequest { service: "etcdserverpb.KV".into() });
    assert_eq!(told(&mut wire, unknown), [SERVICE_UNKNOWN]);
    assert_eq!((wire.status(known), wire.status(unknown)), (None, None), "they go on");
    wire.reset(known);
    assert!(matches!(wire.calls.last(), Some(Call::Leave { .. })));
    let damaged = wire.open(path, &[]);
    wire.is_silent = true;
    wire.send(damaged, &HealthCheckRequest { service: String::new() });
    wire.end(damaged);
    let (tag, _) = wire.last_request();
    wire.tell(tag, 1, Body::Fault(Fault::corrupt()), false);
    assert_eq!(wire.status(damaged), Some((15, "etcdserver: corrupt cluster")));
}

#[test]
fn alarms_are_asked_for_as_of_etcd() {
    const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
    let mut wire = Wire::new();
    let mut ask = |action, member_id, alarm| {
        let told = wire.unary::<AlarmResponse>(ALARM, &AlarmRequest { action, member_id, alarm });
        let told = told.map(|told| told.alarms.into_iter().map(|one| (one.member_id, one.alarm)).collect());
        (told.map_err(|(code, _)| code), wire.last_request().1)
    };
    let corrupt = Alarm { member: 9, kind: AlarmKind::Corrupt };
    let (raise, end) = (AlarmChange::Raise(corrupt), AlarmChange::End(corrupt));
    let stands = vec![(MEMBER, 1)];
    assert_eq!(ask(1, 9, 2), (Ok(stands.clone()), Request::AlarmChange(raise)));
    assert_eq!(ask(2, 9, 2), (Ok(stands), Request::AlarmChange(end)));
    // There is none of no kind.
    for (action, kind) in [(1, 0), (2, 0), (2, 9), (0, 9)] {
        assert_eq!(ask(action, 9, kind), (Ok(vec![]), Request::AlarmList));
    }
    for (action, kind) in [(1, 3), (1, -1), (3, 1), (-1, 0)] {
        assert_eq!(ask(action, 0, kind).0, Err(3), "etcd ends here");
    }
}

fn event(key: String, value_bytes: usize, revision: u64) -> std::sync::Arc<Event> {
    let value = vec![b'v'; value_bytes].into();
    let kv = KeyValue { key: key.into(), value, mod_revision: revision, ..KeyValue::default() };
    Event::new(EventKind::Put, kv, None)
}

#[test]
fn a_large_revision_comes_in_fragments_where_the_client_can_put_them_together() {
    for (fragment, expected) in [(false, vec![(false, 5)]), (true, vec![(true, 2), (true, 2), (false, 1)])] {
        let mut wire = Wire::new();
        wire.is_silent = true;
        let watch = wire.open(WATCH, &[]);
        let create = WatchCreateRequest { key: "k".into(), fragment, ..Default::default() };
        wire.send(watch, &WatchRequest { request: Some(WatchUnion::Create(create)) });
        let (tag, _) = wire.last_request();
        wire.tell(tag, 1, Body::Watching, true);
        wire.messages::<WatchResponse>(watch);
        let bytes = limits().request_bytes_max * 2 / 3;
        let events = (0..5).map(|n| event(format!("k{n}"), bytes, 2)).collect();
        wire.tell(tag, 2, Body::Events { revision: 2, events }, true);
        let told: Vec<WatchResponse> = wire.messages(watch);
        let shown: Vec<_> = told.iter().map(|one| (one.fragment, one.events.len())).collect();
        assert_eq!(shown, expected);
        let keys: Vec<_> =
            told.iter().flat_map(|one| &one.events).map(|one| one.kv.clone().unwrap().key).collect();
        assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
    }
}

/// Clients take half a message and a status for a failure of the transport, and not for what the status says.
#[test]
fn a_status_does_not_come_within_a_message() {
    let mut wire = Wire::with(Settings::default(), 1_000);
    wire.is_silent = true;
    let watch = wire.open(WATCH, &[]);
    wire.send(watch, &create(b"k", 0));
    let (tag, _) = wire.last_request();
    wire.tell(tag, 1, Body::Watching, true);
    wire.messages::<WatchResponse>(watch);
    wire.read(watch, false);
    for revision in 2..=4 {
        wire.tell(
            tag,
            revision,
            Body::Events { revision, events: vec![event("k".into(), 3_000, revision)] },
            true,
        );
    }
    wire.adapter.prepare_to_part(&Fault::shutdown());
    wire.spin();
    assert_eq!(wire.status(watch), None, "the rest of the message is still to come");
    wire.read(watch, true);
    let told: Vec<WatchResponse> = wire.messages(watch);
    assert_eq!(told.len(), 1, "what was not begun is not sent");
    assert_eq!(wire.half_a_message_bytes(watch), 0);
    assert_eq!(wire.status(watch).map(|(code, _)| code), Some(14));
}

#[test]
fn a_stream_that_is_not_read_is_held_alone() {
    let mut wire = Wire::new();
    let (slow, fast) = (wire.open(WATCH, &[]), wire.open(WATCH, &[]));
    wire.send(slow, &create(b"k", 0));
    let (slow_tag, _) = wire.last_request();
    wire.send(fast, &create(b"k", 0));
    let (fast_tag, _) = wire.last_request();
    wire.messages::<WatchResponse>(slow);
    wire.messages::<WatchResponse>(fast);
    wire.read(slow, false);
    let before = wire.calls.len();
    let mut revision = 1;
    while wire.calls.len() == before {
        revision += 1;
        assert!(revision < 100, "it is held before there is much");
        for tag in [slow_tag, fast_tag] {
            let events = vec![event(format!("k{revision}"), 2_500, revision)];
            wire.tell(tag, revision, Body::Events { revision, events }, true);
        }
    }
    assert!(revision > 20, "not at once");
    let lane = wire.adapter.lane_of(slow_tag);
    assert!(matches!(wire.calls[before..], [Call::Hold { lane: held }] if held == lane));
    assert_eq!(wire.messages::<WatchResponse>(fast).len() as u64, revision - 1);
    let found: RangeResponse = wire.unary(&kv("Range"), &get("k")).unwrap();
    assert_eq!(found.count, 0);
    let _: WatchResponse = wire.messages(slow).pop().unwrap_or_default();
    let before = wire.calls.len();
    wire.read(slow, true);
    assert!(matches!(wire.calls[before..], [Call::Release { lane: released }] if released == lane));
    wire.tell(slow_tag, 999, Body::Events { revision: 999, events: vec![event("k".into(), 1, 999)] }, true);
    let last: WatchResponse = wire.messages(slow).pop().unwrap();
    assert_eq!(last.header.unwrap().revision, 999);
}

#[test]
fn whoever_resets_a_stream_leaves_its_lane_and_answers_that_come_late_go_nowhere() {
    let mut wire = Wire::new();
    wire.is_silent = true;
    let call = wire.open(&kv("Put"), &[]);
    wire.send(call, &put("k", "v"));
    wire.end(call);
    let (tag, _) = wire.last_request();
    assert_eq!(wire.adapter.owed(), 1);
    wire.reset(call);
    let lane = wire.adapter.lane_of(tag);
    assert!(matches!(wire.calls.last(), Some(Call::Leave { lane: left }) if *left == lane));
    assert_eq!(wire.adapter.owed(), 0);
    // The lane is used again.
    let call = wire.open(&kv("Range"), &[]);
    wire.send(call, &get("k"));
    wire.end(call);
    let (next, _) = wire.last_request();
    assert_eq!(wire.adapter.lane_of(next), lane);
    wire.tell(tag, 2, Body::Put { revision: 2, previous: None }, false);
    assert_eq!(wire.status(call), None);
    wire.tell(next, 2, Body::Range(Default::default()), false);
    assert_eq!(wire.status(call), Some((0, "")));
}

#[test]
fn a_timeout_is_kept() {
    let mut wire = Wire::new();
    wire.is_silent = true;
    wire.set_time(Mono(10 * SECOND));
    let call = wire.open(&kv("Range"), &[("grpc-timeout", "250m")]);
    wire.send(call, &get("k"));
    wire.end(call);
    let other = wire.open(&kv("Range"), &[("grpc-timeout", "1x")]);
    wire.send(other, &get("k"));
    assert_eq!(wire.adapter.deadline(), Mono(10 * SECOND) + 250 * MS);
    wire.set_time(Mono(10 * SECOND) + 249 * MS);
    assert_eq!(wire.status(call), None);
    wire.set_time(Mono(10 * SECOND) + 250 * MS);
    assert_eq!(wire.status(call), Some((4, "context deadline exceeded")));
    assert!(matches!(wire.calls.last(), Some(Call::Leave { .. })));
    assert!(wire.adapter.deadline() > Mono(60 * SECOND));
    assert_eq!((wire.status(other), wire.adapter.owed()), (None, 1));
}

/// Whoever says `hasleader` would rather fail than wait.
#[test]
fn a_leader_is_asked_for_first_where_the_client_wants_one() {
    for (leader, status) in [(0, (14, "etcdserver: no leader")), (7, (0, ""))] {
        let mut wire = Wire::new();
        wire.is_silent = true;
        let call = wire.open(&kv("Range"), &[("hasleader", "true")]);
        wire.send(call, &get("k"));
        wire.end(call);
        let (tag, request) = wire.last_request();
        assert_eq!(request, Request::Status);
        wire.tell(tag, 1, Body::Status(Box::new(Status { leader, ..Status::default() })), false);
        if leader != 0 {
            let (tag, _) = wire.last_request();
            wire.tell(tag, 1, Body::Range(Default::default()), false);
        }
        assert_eq!(wire.status(call), Some(status));
        assert_eq!(wire.adapter.owed(), 0);
    }
}

#[test]
fn renewals_share_requests() {
    let mut wire = Wire::new();
    let _: LeaseGrantResponse =
        wire.unary("/etcdserverpb.Lease/LeaseGrant", &LeaseGrantRequest { ttl: 60, id: 7 }).unwrap();
    let call = wire.open(KEEP_ALIVE, &[]);
    wire.spin();
    let before = wire.calls.len();
    let many: Vec<u8> =
        (1..=2_500).flat_map(|id| framed(&prost::Message::encode_to_vec(&LeaseId { id }))).collect();
    wire.send_raw(call, &many);
    let asked: usize = wire.calls[before..]
        .iter()
        .map(|call| match call {
            Call::Request { request: Request::Lease(LeaseRequest::KeepAlive { ids }), .. } => ids.len(),
            call => panic!("{call:?}"),
        })
        .sum();
    assert_eq!(asked, 2_500);
    assert!(wire.calls.len() - before < 100);
    let kept: Vec<LeaseKeepAliveResponse> = wire.messages(call);
    assert_eq!(kept.len(), 2_500);
    assert!(kept.iter().enumerate().all(|(at, kept)| kept.id == at as i64 + 1));
    assert_eq!((kept[6].ttl, kept[7].ttl), (60, 0));
    wire.end(call);
    assert_eq!(wire.status(call), Some((0, "")));
}

/// Message and end come one after the other, and an answer is quick.
#[test]
fn an_end_that_comes_behind_the_answer_is_no_fault() {
    let mut wire = Wire::new();
    for _ in 0..3_000 {
        let call = wire.open(&kv("Put"), &[]);
        wire.is_stuck = true;
        wire.send(call, &put("k", "v"));
        wire.end(call);
        wire.is_stuck = false;
        wire.spin();
        assert_eq!(wire.status(call), Some((0, "")));
    }
    assert!(!wire.is_closed);
}

/// What a client sends at one moment is taken, however small its pieces.
#[test]
fn many_small_frames_are_no_flood() {
    let mut wire = Wire::new();
    let call = wire.open(KEEP_ALIVE, &[]);
    for id in 1..=5_000 {
        wire.push(call, &LeaseId { id });
    }
    wire.spin();
    assert!(!wire.is_closed);
    assert_eq!(wire.messages::<LeaseKeepAliveResponse>(call).len(), 5_000);
    // Calls that are given up at once.
    wire.is_silent = true;
    for _ in 0..500 {
        let call = wire.open(&kv("Range"), &[]);
        wire.push(call, &get("k"));
        wire.give_up(call);
    }
    wire.spin();
    assert!(!wire.is_closed);
    assert_eq!(wire.adapter.owed(), 0);
    wire.is_silent = false;
    let _: PutResponse = wire.unary(&kv("Put"), &put("k", "v")).unwrap();
}

#[test]
fn a_range_in_parts_is_one_message_and_a_streamed_one_is_several() {
    let pair = |n: u64| KeyValue { key: format!("k{n}").into(), value: "v".into(), ..KeyValue::default() };
    let parts = |wire: &mut Wire| {
        let (tag, _) = wire.last_request();
        let head = RangeHead { revision: 5, count: 9, more: true, kvs: 3 };
        let first = RangePart { head: Some(head), kvs: vec![pair(1), pair(2)], last: false };
        wire.tell(tag, 5, Body::RangePart(first), true);
        let last = RangePart { head: None, kvs: vec![pair(3)], last: true };
        wire.tell(tag, 6, Body::RangePart(last), false);
    };
    let mut wire = Wire::new();
    wire.is_silent = true;
    let call = wire.open(&kv("Range"), &[]);
    wire.send(call, &get("k"));
    wire.end(call);
    parts(&mut wire);
    let all: Vec<RangeResponse> = wire.messages(call);
    assert_eq!((all.len(), all[0].kvs.len(), all[0].count, all[0].more), (1, 3, 9, true));
    assert_eq!(wire.status(call), Some((0, "")));
    let call = wire.open(&kv("RangeStream"), &[]);
    wire.send(call, &get("k"));
    wire.end(call);
    parts(&mut wire);
    let all: Vec<RangeStreamResponse> = wire.messages(call);
    let all: Vec<RangeResponse> = all.into_iter().map(|one| one.range_response.unwrap()).collect();
    assert_eq!((all.len(), all[0].kvs.len(), all[0].count, all[1].kvs.len(), all[1].count), (2, 2, 0, 1, 9));
    assert!(all[0].header.is_none() && all[1].header.unwrap().revision == 5);
    let sorted = RangeRequest { sort_target: 3, ..get("k") };
    let refused = wire.unary::<RangeStreamResponse>(&kv("RangeStream"), &sorted);
    assert_eq!(refused.unwrap_err().0, 12);
    assert_eq!(wire.adapter.owed(), 0);
}

#[test]
fn a_range_that_breaks_off_is_an_error() {
    let mut wire = Wire::new();
    wire.is_silent = true;
    let call = wire.open(&kv("Range"), &[]);
    wire.send(call, &get("k"));
    wire.end(call);
    let (tag, _) = wire.last_request();
    let head = RangeHead { revision: 5, count: 9, more: true, kvs: 3 };
    wire.tell(tag, 5, Body::RangePart(RangePart { head: Some(head), kvs: Vec::new(), last: false }), true);
    wire.tell(tag, 5, Body::Fault(Fault::compacted(6)), false);
    assert_eq!(wire.status(call).unwrap().0, 11);
    assert_eq!(wire.adapter.owed(), 0);
}

#[test]
fn an_answer_larger_than_every_window_comes_whole() {
    let mut wire = Wire::with(Settings::default(), 1_000);
    wire.is_silent = true;
    let call = wire.open(&kv("Range"), &[]);
    wire.send(call, &get("k"));
    wire.end(call);
    let (tag, _) = wire.last_request();
    let value: Bytes = (0..3_000_000u32).map(|n| n as u8).collect::<Vec<u8>>().into();
    let found = KeyValue { key: "k".into(), value: value.clone(), ..KeyValue::default() };
    let result = pawl::api::RangeResult { revision: 1, count: 1, more: false, kvs: vec![found] };
    wire.tell(tag, 1, Body::Range(result), false);
    let all: Vec<RangeResponse> = wire.messages(call);
    assert_eq!(all[0].kvs[0].value, value);
    assert_eq!(wire.status(call), Some((0, "")));
}

#[test]
fn a_socket_that_takes_nothing_bounds_the_output() {
    let mut wire = Wire::with(Settings::default(), 8 << 20);
    wire.is_silent = true;
    let call = wire.open(&kv("Range"), &[]);
    wire.send(call, &get("k"));
    wire.end(call);
    let (tag, _) = wire.last_request();
    wire.is_stuck = true;
    let found = KeyValue { key: "k".into(), value: vec![7; 4_000_000].into(), ..KeyValue::default() };
    let result = pawl::api::RangeResult { revision: 1, count: 1, more: false, kvs: vec![found] };
    wire.tell(tag, 1, Body::Range(result), false);
    assert!(wire.output.len() < 300_000, "{}", wire.output.len());
    assert!(wire.adapter.has_unwritten());
    wire.is_stuck = false;
    wire.spin();
    assert_eq!(wire.messages::<RangeResponse>(call)[0].kvs[0].value.len(), 4_000_000);
    assert!(!wire.adapter.has_unwritten());
}

#[test]
fn a_member_that_stops_ends_every_call_and_says_which_were_heard() {
    let mut wire = Wire::new();
    let watch = wire.open(WATCH, &[]);
    wire.send(watch, &create(b"k", 0));
    wire.is_silent = true;
    let call = wire.open(&kv("Put"), &[]);
    wire.send(call, &put("k", "v"));
    wire.end(call);
    wire.adapter.give_up(&Fault::shutdown(), &mut wire.output);
    wire.spin();
    assert_eq!(wire.status(watch), Some((14, "etcdserver: server stopped")));
    assert_eq!(wire.status(call), Some((14, "etcdserver: server stopped")));
    assert!(wire.is_closed && wire.adapter.owed() == 0);
    let left = wire.calls.iter().filter(|call| matches!(call, Call::Leave { .. })).count();
    assert_eq!(left, 2);
}

/// A client that is told in time loses no call.
#[test]
fn a_member_that_is_going_to_stop_answers_what_is_on_its_way() {
    let mut wire = Wire::new();
    let watch = wire.open(WATCH, &[]);
    wire.send(watch, &create(b"k", 0));
    wire.is_silent = true;
    let call = wire.open(&kv("Range"), &[]);
    wire.send(call, &get("k"));
    wire.end(call);
    let (tag, _) = wire.last_request();
    for _ in 0..3 {
        wire.adapter.prepare_to_part(&Fault::shutdown());
        wire.spin();
    }
    assert_eq!(wire.status(watch), Some((14, "etcdserver: server stopped")));
    assert_eq!((wire.status(call), wire.is_closed), (None, false));
    wire.tell(tag, 1, Body::Range(Default::default()), false);
    assert_eq!((wire.status(call), wire.is_closed), (Some((0, "")), true));
}

#[test]
fn a_silent_client_is_asked_whether_it_is_there() {
    let settings = Settings { ping_every: 100 * SECOND, ping_patience: 10 * SECOND, ..Settings::default() };
    let mut wire = Wire::with(settings, 65_535);
    assert_eq!(wire.adapter.deadline(), Mono(100 * SECOND));
    wire.set_time(Mono(100 * SECOND));
    // It has answered.
    assert_eq!(wire.adapter.deadline(), Mono(200 * SECOND));
    wire.is_stuck = true;
    wire.set_time(Mono(200 * SECOND));
    assert_eq!(wire.adapter.deadline(), Mono(210 * SECOND));
    wire.set_time(Mono(209 * SECOND));
    assert!(!wire.is_closed);
    wire.set_time(Mono(210 * SECOND));
    assert!(wire.is_closed);
}

#[test]
fn so_many_streams_and_no_more() {
    let settings = Settings { streams_max: 3, ..Settings::default() };
    let mut wire = Wire::with(settings, 65_535);
    wire.is_silent = true;
    let calls: Vec<usize> = (0..5).map(|_| wire.open(&kv("Range"), &[])).collect();
    wire.spin();
    for &call in &calls[..3] {
        wire.send(call, &get("k"));
        wire.end(call);
    }
    assert_eq!(wire.adapter.owed(), 3);
    // The client waits with the others until there is room.
    let (tag, _) = wire.last_request();
    wire.tell(tag, 1, Body::Range(Default::default()), false);
    wire.send(calls[3], &get("k"));
    assert_eq!(wire.adapter.owed(), 3);
}

#[test]
fn a_client_that_is_gone_leaves_all_its_lanes() {
    let mut wire = Wire::new();
    wire.is_silent = true;
    for _ in 0..3 {
        let call = wire.open(&kv("Range"), &[]);
        wire.send(call, &get("k"));
        wire.end(call);
    }
    let mut calls = Vec::new();
    wire.adapter.leave(&mut calls);
    let mut lanes: Vec<_> = calls
        .iter()
        .map(|call| match call {
            Call::Leave { lane } => *lane,
            call => panic!("{call:?}"),
        })
        .collect();
    lanes.sort_unstable();
    assert_eq!(lanes, [1, 2, 3]);
    // What the node says all the same is heard by nobody.
    let (tag, _) = wire.last_request();
    wire.tell(tag, 1, Body::Lease(LeaseAnswer::List(Vec::new())), false);
}

/// Nor does it matter where the bytes were cut.
#[test]
fn so_many_frames_of_a_turn_and_no_more() {
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7];
    let hello = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..];
    let said = [hello, &ping.repeat(100)].concat();
    for cut in 1..60 {
        let mut adapter = GrpcAdapter::new(info(), Settings { frames_max: 10, ..Settings::default() }.into());
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut turns = 0;
        let pongs = |output: &BytesMut| output.windows(5).filter(|bytes| *bytes == [0, 0, 8, 6, 1]).count();
        for piece in [&said[..cut], &said[cut..]] {
            input.extend_from_slice(piece);
            loop {
                let before = pongs(&output);
                adapter.decode(&mut input, &mut Vec::new(), &mut output).unwrap();
                // Ten, and the one that had begun.
                assert!(pongs(&output) - before <= 11, "in turn {turns}, cut at {cut}");
                turns += 1;
                if !adapter.stalled() {
                    break;
                }
            }
        }
        assert!(input.is_empty() && pongs(&output) == 100, "cut at {cut}: {}", pongs(&output));
    }
}

/// A flood whose answers nobody reads is not read, either, and goes on when they are.
#[test]
fn who_does_not_read_is_not_read() {
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7];
    let count = 50_000;
    let hello = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..];
    let mut input = BytesMut::from(&[hello, &ping.repeat(count)].concat()[..]);
    let mut adapter = GrpcAdapter::new(info(), Default::default());
    let (mut calls, mut output, mut answered_bytes) = (Vec::new(), BytesMut::new(), 0);
    let mut fills = 0;
    while !input.is_empty() || adapter.stalled() {
        let left = input.len();
        adapter.decode(&mut input, &mut calls, &mut output).unwrap();
        if adapter.awaits_answers() {
            adapter.write(&mut calls, &mut output);
            assert!(adapter.awaits_answers(), "nothing moves until there is room");
            assert!(output.len() < 300 << 10, "{} bytes of output", output.len());
            fills += 1;
            answered_bytes += std::mem::take(&mut output).len();
            adapter.write(&mut calls, &mut output);
            assert!(!adapter.awaits_answers());
        } else {
            assert!(input.len() < left || !adapter.stalled(), "it goes on");
        }
    }
    answered_bytes += output.len();
    assert!(fills > 2 && answered_bytes >= count * ping.len(), "{fills} times full, {answered_bytes} bytes");
}

/// Bytes of all kinds behind the preface: the connection ends or goes on, and nothing else happens.
#[test]
fn nonsense_never_panics() {
    let mut rng = Rng::new(7);
    for round in 0..2_000 {
        let mut adapter = GrpcAdapter::new(info(), Default::default());
        let mut input = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]);
        for _ in 0..rng.below(12) {
            let length = rng.below(40) as usize;
            let kind = rng.below(11) as u8;
            let flags = (rng.below(256) & rng.below(256)) as u8;
            let stream = if rng.one_in(4) { 0 } else { 2 * rng.below(4) as u8 + 1 };
            input.extend_from_slice(&[0, 0, length as u8, kind, flags, 0, 0, 0, stream]);
            input.extend((0..length).map(|_| (rng.below(256) & rng.below(256)) as u8));
        }
        let (mut calls, mut output) = (Vec::new(), BytesMut::new());
        while !input.is_empty() && !adapter.closing() {
            let mut piece = input.split_to((1 + rng.below(60) as usize).min(input.len()));
            adapter.decode(&mut piece, &mut calls, &mut output).unwrap();
            adapter.write(&mut calls, &mut output);
        }
        assert!(output.len() < 10_000, "round {round}");
        adapter.leave(&mut calls);
    }
}

#[test]
fn what_maintenance_answers() {
    const MAINTENANCE: &str = "/etcdserverpb.Maintenance/";
    let mut wire = Wire::new();
    let path = |method: &str| format!("{MAINTENANCE}{method}");
    let hash: HashResponse = wire.unary(&path("Hash"), &Empty {}).unwrap();
    assert_eq!((hash.header.unwrap().revision, hash.hash), (1, 7));
    let hash: HashKvResponse = wire.unary(&path("HashKV"), &HashKvRequest { revision: 0 }).unwrap();
    assert_eq!((hash.hash, hash.hash_revision), (9, 1));
    assert_eq!(hash.compact_revision, -1, "as etcd tells it where there was no compaction");
    let future = wire.unary::<HashKvResponse>(&path("HashKV"), &HashKvRequest { revision: 2 });
    assert_eq!(future.unwrap_err().0, 11);
    let piece: SnapshotResponse = wire.unary(&path("Snapshot"), &Empty {}).unwrap();
    assert_eq!((piece.header, piece.remaining_bytes, piece.blob.len()), (None, 0, 32));
    let done: HeaderOnly = wire.unary(&path("Defragment"), &Empty {}).unwrap();
    assert_eq!(done.header, None);
    for (action, version, code, text) in [
        (0, "3.4.0", 3, "etcdserver: invalid downgrade target version"),
        (1, "3.4", 3, "etcdserver: invalid downgrade target version"),
        (0, "three", 3, "etcdserver: wrong downgrade target version format"),
        (2, "", 9, "etcdserver: no inflight downgrade job"),
        (3, "3.4.0", 2, "etcdserver: unknown method"),
    ] {
        let asked = DowngradeRequest { action, version: version.into() };
        let refused = wire.unary::<HeaderOnly>(&path("Downgrade"), &asked).unwrap_err();
        assert_eq!((refused.0, &refused.1[..]), (code, text));
    }
}
