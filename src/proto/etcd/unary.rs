//! Methods that are asked once and answered once: what a message asks of the node, and what its reply is in etcd's words.

use bytes::Bytes;
use prost::Message;

use super::convert;
use super::frame::framed;
use super::messages as pb;
use super::methods::Method;
use super::status::Status;
use crate::api::status::RpcStatus;
use crate::api::{
    Acquire, Alarm, AlarmChange, AlarmKind, Body, Compare, CompareResult, Delete, Fault, Header, LeaseAnswer,
    LeaseRequest, LockRequest, Op, Put, Request, Span, Target, Txn, etcd_version,
};

/// How a reply is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Range,
    Put,
    Delete,
    Txn,
    Granted,
    TimeToLive,
    Leases,
    /// Of the Cluster service: there no header has a revision.
    Members,
    MemberAdded,
    Status,
    /// The one kind that was asked for, if any; the inner None is one that does not exist.
    Alarms(Option<Option<AlarmKind>>),
    Hash,
    HashKv,
    /// A header and nothing else.
    Header,
    /// Not even that.
    Nothing,
    Locked,
    Campaign {
        name: Bytes,
        lease: i64,
    },
    Leader,
    Proclaimed,
    Resigned,
    AuthStatus,
    Health,
    /// A lease was granted, with which this is asked.
    Then(Box<(Request, Answer)>),
    /// This member knows a leader, and so this is asked.
    IfLed(Box<(Request, Answer)>),
}

impl Answer {
    /// Nothing has been done for it.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Answer::Range
                | Answer::TimeToLive
                | Answer::Leases
                | Answer::Status
                | Answer::Hash
                | Answer::HashKv
                | Answer::Leader
                | Answer::AuthStatus
                | Answer::Health
        )
    }
}

/// What becomes of a call when its reply has come.
pub enum Outcome {
    Message(Bytes),
    End(Status),
    Ask(Request, Answer),
}

/// The TTL of the lease that etcd makes for a lock that names none.
const SESSION_TTL_S: i64 = 60;

/// Reads one message, as gRPC libraries name the failure.
pub fn parsed<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|why| Status::new(RpcStatus::Internal, format!("grpc: error unmarshalling request: {why}")))
}

/// What the node is asked.
pub fn ask(method: Method, message: Bytes) -> Result<(Request, Answer), Status> {
    let refused = |fault: Fault| Status::of(&fault);
    Ok(match method {
        Method::Range | Method::RangeStream => {
            (Request::Range(convert::range(parsed(message)?).map_err(refused)?), Answer::Range)
        }
        Method::Put => (Request::Put(convert::put(parsed(message)?)), Answer::Put),
        Method::DeleteRange => (Request::Delete(convert::delete(parsed(message)?)), Answer::Delete),
        Method::Txn => (Request::Txn(convert::txn(parsed(message)?, 1).map_err(refused)?), Answer::Txn),
        Method::Compact => (Request::Compact(convert::compact(parsed(message)?)), Answer::Header),
        Method::LeaseGrant => {
            let pb::LeaseGrantRequest { ttl, id } = parsed(message)?;
            (Request::Lease(LeaseRequest::Grant { id, ttl_s: ttl }), Answer::Granted)
        }
        Method::LeaseRevoke => {
            let pb::LeaseId { id } = parsed(message)?;
            (Request::Lease(LeaseRequest::Revoke { id }), Answer::Header)
        }
        Method::LeaseTimeToLive => {
            let pb::LeaseTimeToLiveRequest { id, keys } = parsed(message)?;
            (Request::Lease(LeaseRequest::TimeToLive { id, keys }), Answer::TimeToLive)
        }
        Method::LeaseLeases => (Request::Lease(LeaseRequest::List), Answer::Leases),
        Method::MemberAdd | Method::MemberRemove | Method::MemberUpdate => ask_cluster(method, message)?,
        Method::MemberList | Method::MemberPromote => ask_cluster(method, message)?,
        Method::Alarm => ask_alarm(parsed(message)?)?,
        Method::Status => (Request::Status, Answer::Status),
        Method::Defragment => (Request::Defrag, Answer::Nothing),
        Method::MoveLeader => {
            let pb::MoveLeaderRequest { target_id } = parsed(message)?;
            (Request::MoveLeader { to: target_id }, Answer::Nothing)
        }
        Method::Hash => (Request::Hash, Answer::Hash),
        Method::HashKv => {
            let pb::HashKvRequest { revision } = parsed(message)?;
            (Request::HashKv { revision: revision.max(0).cast_unsigned() }, Answer::HashKv)
        }
        Method::Downgrade => return Err(refused(downgrade_refusal(&parsed(message)?))),
        Method::Lock | Method::Unlock | Method::Campaign => ask_lock(method, message)?,
        Method::Proclaim | Method::Leader | Method::Resign => ask_lock(method, message)?,
        Method::AuthStatus => (Request::Status, Answer::AuthStatus),
        Method::HeaderAlone => (Request::Status, Answer::Header),
        Method::HealthCheck => {
            let pb::HealthCheckRequest { service } = parsed(message)?;
            if !service.is_empty() {
                return Err(Status::new(RpcStatus::NotFound, "unknown service"));
            }
            (Request::Status, Answer::Health)
        }
        Method::AuthOff => return Err(refused(Fault::auth_off())),
        Method::UserNotFound => return Err(refused(Fault::no_user())),
        Method::RoleNotFound => return Err(refused(Fault::no_role())),
        Method::NoRootUser => return Err(refused(Fault::no_root_user())),
        Method::Watch | Method::LeaseKeepAlive | Method::Observe | Method::Snapshot | Method::HealthWatch => {
            unreachable!("{method:?} is answered more than once")
        }
    })
}

/// What `grpc.health.v1.Health` says of this member.
pub fn health(serves: bool) -> Bytes {
    framed(&pb::HealthCheckResponse { status: if serves { 1 } else { 2 } })
}

/// There is no earlier version to go back to, and so nothing that could be under way.
fn downgrade_refusal(asked: &pb::DowngradeRequest) -> Fault {
    const CANCEL: i32 = 2;
    let parts: Vec<&str> = asked.version.split('.').collect();
    let is_version = (2..=3).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u32>().is_ok());
    match asked.action {
        CANCEL => Fault::no_downgrade(),
        0 | 1 if is_version => Fault::downgrade_target(),
        0 | 1 => Fault::downgrade_format(),
        _ => Fault::unknown_method(),
    }
}

fn ask_cluster(method: Method, message: Bytes) -> Result<(Request, Answer), Status> {
    Ok(match method {
        Method::MemberAdd => {
            let pb::MemberAddRequest { peer_urls, is_learner } = parsed(message)?;
            (Request::MemberAdd { peer_urls, learner: is_learner }, Answer::MemberAdded)
        }
        Method::MemberRemove => {
            let pb::MemberId { id } = parsed(message)?;
            (Request::MemberRemove { id }, Answer::Members)
        }
        Method::MemberUpdate => {
            let pb::MemberUpdateRequest { id, peer_urls } = parsed(message)?;
            (Request::MemberUpdate { id, peer_urls }, Answer::Members)
        }
        Method::MemberPromote => {
            let pb::MemberId { id } = parsed(message)?;
            (Request::MemberPromote { id }, Answer::Members)
        }
        Method::MemberList => {
            let pb::MemberListRequest { linearizable } = parsed(message)?;
            (Request::MemberList { serializable: !linearizable }, Answer::Members)
        }
        method => unreachable!("{method:?} is of another service"),
    })
}

fn ask_alarm(asked: pb::AlarmRequest) -> Result<(Request, Answer), Status> {
    const GET: i32 = 0;
    const ACTIVATE: i32 = 1;
    const DEACTIVATE: i32 = 2;
    let kind = u8::try_from(asked.alarm).ok().and_then(AlarmKind::of_number);
    let named = kind.map(|kind| Alarm { member: asked.member_id, kind });
    // Every kind, one, or one that does not exist and so never stands.
    let is_of = |wanted: i32| Answer::Alarms((wanted != 0).then_some(kind));
    match (asked.action, named) {
        (GET, _) => Ok((Request::AlarmList, is_of(asked.alarm))),
        (ACTIVATE, Some(alarm)) => {
            Ok((Request::AlarmChange(AlarmChange::Raise(alarm)), Answer::Alarms(None)))
        }
        (DEACTIVATE, Some(alarm)) => {
            Ok((Request::AlarmChange(AlarmChange::End(alarm)), Answer::Alarms(None)))
        }
        // There is none to end.
        (DEACTIVATE, None) => Ok((Request::AlarmList, Answer::Alarms(Some(None)))),
        // As in etcd, of which any other number is the end.
        (ACTIVATE, None) if asked.alarm == 0 => Ok((Request::AlarmList, Answer::Alarms(Some(None)))),
        (ACTIVATE, None) => Err(Status::new(RpcStatus::InvalidArgument, "an alarm is NOSPACE or CORRUPT")),
        _ => Err(Status::new(
            RpcStatus::InvalidArgument,
            "an alarm is asked for with GET, ACTIVATE or DEACTIVATE",
        )),
    }
}

fn ask_lock(method: Method, message: Bytes) -> Result<(Request, Answer), Status> {
    Ok(match method {
        Method::Lock => {
            let pb::LockRequest { name, lease } = parsed(message)?;
            let acquire = Acquire { name, lease, ..Acquire::default() };
            with_lease(acquire, Answer::Locked)
        }
        Method::Campaign => {
            let pb::CampaignRequest { name, lease, value } = parsed(message)?;
            let answer = Answer::Campaign { name: name.clone(), lease };
            with_lease(Acquire { name, value, lease, campaign: true, ..Acquire::default() }, answer)
        }
        // Whatever key that is.
        Method::Unlock => {
            let pb::UnlockRequest { key } = parsed(message)?;
            (Request::Delete(Delete { span: Span::Key(key), prev_kv: false }), Answer::Header)
        }
        Method::Leader => {
            let pb::Named { name } = parsed(message)?;
            (Request::Lock(LockRequest::Leader { name }), Answer::Leader)
        }
        Method::Proclaim => {
            let (leader, value) = led(message)?;
            let put = Put { key: leader.key.clone(), value, lease: leader.lease, ..Put::default() };
            (while_it_leads(&leader, Op::Put(put)), Answer::Proclaimed)
        }
        Method::Resign => {
            let (leader, _) = led(message)?;
            let delete = Delete { span: Span::Key(leader.key.clone()), prev_kv: false };
            (while_it_leads(&leader, Op::Delete(delete)), Answer::Resigned)
        }
        method => unreachable!("{method:?} is of another service"),
    })
}

/// The same for whoever would rather fail at once than wait for a leader (`hasleader`).
pub fn ask_if_led((request, answer): (Request, Answer)) -> (Request, Answer) {
    (Request::Status, Answer::IfLed(Box::new((request, answer))))
}

/// Without a lease, one is made that nobody renews.
fn with_lease(acquire: Acquire, answer: Answer) -> (Request, Answer) {
    let has_lease = acquire.lease != 0;
    let lock = Request::Lock(LockRequest::Acquire(acquire));
    if has_lease {
        return (lock, answer);
    }
    let grant = LeaseRequest::Grant { id: 0, ttl_s: SESSION_TTL_S };
    (Request::Lease(grant), Answer::Then(Box::new((lock, answer))))
}

fn led(message: Bytes) -> Result<(pb::LeaderKey, Bytes), Status> {
    let pb::ProclaimRequest { leader, value } = parsed(message)?;
    let missing = || Status::new(RpcStatus::Unknown, "\"leader\" field must be provided");
    Ok((leader.ok_or_else(missing)?, value))
}

/// The key must be the one with which it was elected.
fn while_it_leads(leader: &pb::LeaderKey, op: Op) -> Request {
    let is_its_own = Compare {
        span: Span::Key(leader.key.clone()),
        target: Target::Create(leader.rev),
        result: CompareResult::Equal,
    };
    Request::Txn(Txn { compares: vec![is_its_own], success: vec![op], failure: Vec::new() })
}

/// Tells a reply that is no fault. A body that does not fit is a broken promise of the node.
pub fn answer(answer: Answer, header: &Header, body: Body) -> Outcome {
    let head = convert::header(header);
    let message = match (answer, body) {
        (Answer::Range, Body::Range(found)) => framed(&convert::range_response(head, &found)),
        (Answer::Put, Body::Put { previous, .. }) => framed(&convert::put_response(head, previous)),
        (Answer::Delete, Body::Delete { deleted, previous, .. }) => {
            framed(&convert::delete_response(head, deleted, &previous))
        }
        (Answer::Txn, Body::Txn(result)) => framed(&convert::txn_response(head, result)),
        (
            Answer::Header,
            Body::Compacted { .. }
            | Body::Delete { .. }
            | Body::Status(_)
            | Body::Lease(LeaseAnswer::Revoked { .. }),
        )
        | (Answer::Resigned, Body::Txn(_)) => framed(&pb::HeaderOnly { header: Some(head) }),
        (Answer::Nothing, Body::Defragmented | Body::LeaderMoved) => framed(&pb::HeaderOnly { header: None }),
        (Answer::Hash, Body::Hash(hash)) => framed(&pb::HashResponse { header: Some(head), hash }),
        (Answer::HashKv, Body::HashKv { hash, revision, compact_revision }) => {
            // As etcd tells it where there was no compaction.
            let compact_revision = if compact_revision == 0 { -1 } else { convert::signed(compact_revision) };
            let hash_revision = convert::signed(revision);
            framed(&pb::HashKvResponse { header: Some(head), hash, compact_revision, hash_revision })
        }
        (Answer::Granted | Answer::TimeToLive | Answer::Leases, Body::Lease(told)) => lease(head, told),
        (Answer::Members, Body::Members(all)) => {
            let members = all.iter().map(convert::member).collect();
            framed(&pb::MembersResponse { header: Some(of_cluster(head)), members })
        }
        (Answer::MemberAdded, Body::MemberAdded { member, members }) => framed(&pb::MemberAddResponse {
            header: Some(of_cluster(head)),
            member: Some(convert::member(&member)),
            members: members.iter().map(convert::member).collect(),
        }),
        (Answer::Status, Body::Status(status)) => framed(&pb::StatusResponse {
            header: Some(head),
            version: etcd_version(&status.version),
            db_size: convert::signed(status.db_size),
            leader: status.leader,
            raft_index: status.commit_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors: status.errors,
            db_size_in_use: convert::signed(status.db_size_in_use),
            is_learner: status.learner,
        }),
        (Answer::Alarms(wanted), Body::Alarms(alarms)) => {
            let is_wanted = |alarm: &&Alarm| wanted.is_none_or(|kind| kind == Some(alarm.kind));
            let told = |alarm: &Alarm| pb::AlarmMember {
                member_id: alarm.member,
                alarm: alarm.kind.number().into(),
            };
            let alarms = alarms.iter().filter(is_wanted).map(told).collect();
            framed(&pb::AlarmResponse { header: Some(head), alarms })
        }
        (Answer::AuthStatus, Body::Status(_)) => {
            framed(&pb::AuthStatusResponse { header: Some(head), enabled: false, auth_revision: 1 })
        }
        (Answer::Health, Body::Status(status)) => health(status.leader != 0),
        (Answer::IfLed(next), Body::Status(status)) => {
            if status.leader == 0 {
                return Outcome::End(Status::of(&Fault::no_leader()));
            }
            return Outcome::Ask(next.0, next.1);
        }
        (asked, body) => return answer_lock(asked, head, body),
    };
    Outcome::Message(message)
}

fn of_cluster(head: pb::ResponseHeader) -> pb::ResponseHeader {
    pb::ResponseHeader { revision: 0, ..head }
}

fn lease(head: pb::ResponseHeader, told: LeaseAnswer) -> Bytes {
    let header = Some(head);
    match told {
        LeaseAnswer::Granted { id, ttl_s } => {
            let ttl = convert::signed(ttl_s);
            framed(&pb::LeaseGrantResponse { header, id, ttl, error: String::new() })
        }
        LeaseAnswer::TimeToLive { id, time, keys } => {
            let (ttl, granted_ttl) = time
                .map_or((-1, 0), |time| (convert::signed(time.remaining_s), convert::signed(time.granted_s)));
            framed(&pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys })
        }
        LeaseAnswer::List(ids) => {
            let leases = ids.into_iter().map(|id| pb::LeaseId { id }).collect();
            framed(&pb::LeaseLeasesResponse { header, leases })
        }
        told => panic!("a question about a lease is answered with {told:?}"),
    }
}

fn answer_lock(asked: Answer, head: pb::ResponseHeader, body: Body) -> Outcome {
    let header = Some(head);
    Outcome::Message(match (asked, body) {
        (Answer::Locked, Body::Acquired { key, .. }) => framed(&pb::LockResponse { header, key }),
        (Answer::Campaign { name, lease }, Body::Acquired { key, revision }) => {
            let leader = pb::LeaderKey { name, key, rev: convert::signed(revision), lease };
            framed(&pb::CampaignResponse { header, leader: Some(leader) })
        }
        (Answer::Leader, Body::Range(found)) => match found.kvs.first() {
            Some(kv) => framed(&pb::LeaderResponse { header, kv: Some(convert::key_value(kv)) }),
            None => return Outcome::End(Status::new(RpcStatus::Unknown, "election: no leader")),
        },
        (Answer::Proclaimed, Body::Txn(result)) => {
            if !result.succeeded {
                return Outcome::End(Status::of(&Fault::another_leads()));
            }
            framed(&pb::HeaderOnly { header })
        }
        (Answer::Then(next), Body::Lease(LeaseAnswer::Granted { id, .. })) => {
            let (mut request, mut answer) = *next;
            if let Request::Lock(LockRequest::Acquire(acquire)) = &mut request {
                acquire.lease = id;
            }
            if let Answer::Campaign { lease, .. } = &mut answer {
                *lease = id;
            }
            return Outcome::Ask(request, answer);
        }
        (asked, body) => panic!("the node answers {asked:?} with {body:?}: a reply answers what was asked"),
    })
}
