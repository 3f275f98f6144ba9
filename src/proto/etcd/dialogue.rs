//! One call of etcd's API, from its first message to its status, whatever carries it.
//!
//! ```text
//!   message -> unary, watch, keepalive, ... -> Call ---> node
//!                |                                        |
//!                +--> outbox <-- messages <------------ Reply
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::convert;
use super::counts::{Counts, Tally};
use super::desk::Desk;
use super::frame::{begun, finished, framed};
use super::messages as pb;
use super::methods::{Method, Rpc};
use super::outbox::{Outbox, PLACE_BYTES, Room};
use super::status::Status;
use super::unary::{self, Answer, Outcome, parsed};
use super::watch::Watching;
use crate::api::status::RpcStatus;
use crate::api::{
    Body, Call, Fault, Header, Lane, LeaseAnswer, LeaseRequest, LockRequest, Order, RangeHead, RangePart,
    Reply, Request, SortBy, Tag,
};
use crate::base::planted;

/// Bytes that wait for their reader at which the node is told to hold the call; of events, [`Desk::events_bytes_max`].
const HOLD_BYTES: usize = 256 << 10;

/// A call that still makes requests while so much of what it was told is not taken is ended.
const UNTAKEN_BYTES_MAX: usize = 64 << 20;

/// Leases that one request to the node may renew, and those that may be owed to a call.
const RENEWED_AT_ONCE_MAX: usize = 1_024;
const RENEWALS_OWED_MAX: usize = 64 << 10;

/// Of `grpc.health.v1.HealthCheckResponse`.
const SERVICE_UNKNOWN: i32 = 3;

/// What the call is about.
enum Job {
    /// The request has not come yet.
    Expects(Method),
    /// It was asked, once. `parts`: of a range's answer, as far as it has come. `waits`: for somebody who has a lock.
    Asked {
        tag: Tag,
        answer: Answer,
        parts: Option<BytesMut>,
        waits: bool,
    },
    /// A range that is sent as it is read.
    RangeStream {
        tag: Tag,
        head: Option<(Header, RangeHead)>,
    },
    /// A copy of the state that is sent as it is read.
    Snapshot {
        tag: Tag,
    },
    KeepAlive(KeepAlive),
    Watch(Watching),
    Observe {
        tag: Tag,
    },
    /// Whether this member serves. None: a service was named that nobody knows, and it goes on to be unknown.
    Health {
        tag: Option<Tag>,
    },
    /// There is a status.
    Over,
}

#[derive(Default)]
struct KeepAlive {
    /// Read, not asked yet.
    fresh: Vec<i64>,
    /// Asked, in the order in which the answers come.
    asked: VecDeque<(Tag, Vec<i64>)>,
    owed: usize,
    /// The client has no more.
    has_ended: bool,
}

/// One party to the node, and what it is still to be sent.
pub struct Dialogue {
    lane: Lane,
    pub out: Outbox,
    /// Smaller ones were asked by another call of the same lane.
    first_tag: Tag,
    job: Job,
    /// The only message of a method that takes one has come.
    has_message: bool,
    /// It fails at once where this member knows no leader.
    pub needs_leader: bool,
    is_held: bool,
}

impl Dialogue {
    /// `rpc`: None for what is refused because there is no such method.
    pub fn new(
        rpc: Option<&'static Rpc>,
        (room, counts): (&Arc<Room>, &Arc<Counts>),
        (lane, desk): (Lane, &mut Desk),
    ) -> Dialogue {
        let method = rpc.map(|rpc| rpc.method);
        let job = match method {
            Some(Method::Watch) => Job::Watch(Watching::default()),
            Some(Method::LeaseKeepAlive) => Job::KeepAlive(KeepAlive::default()),
            Some(method) => Job::Expects(method),
            None => Job::Over,
        };
        let mut out = Outbox::new(room, rpc.map(|rpc| Tally::begin(counts, rpc)));
        if method.is_some_and(Method::takes_stream) {
            out.open();
        }
        let first_tag = desk.new_tag(lane);
        Dialogue { lane, out, first_tag, job, has_message: false, needs_leader: false, is_held: false }
    }

    /// One message of the client. What follows from several that came together is asked with
    /// [`ask_gathered`](Dialogue::ask_gathered).
    pub fn hear(&mut self, message: Bytes, desk: &mut Desk) {
        self.out.note_received();
        if let Err(status) = self.on_message(message, desk) {
            self.fail(status, desk);
        }
    }

    /// The client's only message has come, and not yet the end of what it sends.
    pub fn awaits_end(&self) -> bool {
        self.has_message
    }

    pub fn is_watch(&self) -> bool {
        matches!(self.job, Job::Watch(_))
    }

    /// What was asked is answered once, and without waiting for anybody else.
    pub fn is_answered_soon(&self) -> bool {
        matches!(self.job, Job::Asked { waits: false, .. } | Job::RangeStream { .. } | Job::Over)
    }

    fn on_message(&mut self, message: Bytes, desk: &mut Desk) -> Result<(), Status> {
        if self.out.waiting_bytes() >= UNTAKEN_BYTES_MAX {
            return Err(Status::new(RpcStatus::ResourceExhausted, "etcdserver: too many requests"));
        }
        match &mut self.job {
            Job::Expects(method) => {
                let method = *method;
                self.has_message = true;
                self.begin(method, message, desk)
            }
            Job::Watch(watching) => watching.on_message(message, (self.lane, desk), &mut self.out),
            Job::KeepAlive(renewals) => {
                let pb::LeaseId { id } = parsed(message)?;
                renewals.fresh.push(id);
                renewals.owed += 1;
                if renewals.owed > RENEWALS_OWED_MAX {
                    return Err(Status::new(RpcStatus::ResourceExhausted, "etcdserver: too many requests"));
                }
                Ok(())
            }
            Job::Asked { .. }
            | Job::RangeStream { .. }
            | Job::Snapshot { .. }
            | Job::Observe { .. }
            | Job::Health { .. }
            | Job::Over => {
                self.has_message = false;
                Err(Status::new(RpcStatus::Internal, "the method takes one message"))
            }
        }
    }

    /// The message of a method that takes one.
    fn begin(&mut self, method: Method, message: Bytes, desk: &mut Desk) -> Result<(), Status> {
        let refused = |fault: Fault| Status::of(&fault);
        if method == Method::Observe {
            let pb::Named { name } = parsed(message)?;
            let observe = Request::Lock(LockRequest::Observe { name });
            let tag = desk.ask(self.lane, observe).map_err(refused)?;
            self.out.open();
            self.job = Job::Observe { tag };
            return Ok(());
        }
        if method == Method::Snapshot {
            let tag = desk.ask(self.lane, Request::Snapshot).map_err(refused)?;
            desk.owed += 1;
            self.job = Job::Snapshot { tag };
            return Ok(());
        }
        if method == Method::HealthWatch {
            let pb::HealthCheckRequest { service } = parsed(message)?;
            let tag = if service.is_empty() {
                Some(desk.ask(self.lane, Request::WatchHealth).map_err(refused)?)
            } else {
                self.out.push(framed(&pb::HealthCheckResponse { status: SERVICE_UNKNOWN }))?;
                None
            };
            self.job = Job::Health { tag };
            return Ok(());
        }
        let (mut request, mut answer) = unary::ask(method, message)?;
        if method == Method::RangeStream {
            check_streamed(&request)?;
            let tag = desk.ask(self.lane, request).map_err(refused)?;
            desk.owed += 1;
            self.job = Job::RangeStream { tag, head: None };
            return Ok(());
        }
        if self.needs_leader {
            (request, answer) = unary::ask_if_led((request, answer));
        }
        self.ask(request, answer, desk)
    }

    fn ask(&mut self, request: Request, answer: Answer, desk: &mut Desk) -> Result<(), Status> {
        // It may take as long as somebody holds a lock, and holds up nothing meanwhile.
        let waits = matches!(request, Request::Lock(LockRequest::Acquire(_)));
        if desk.is_full && !waits && !self.is_held {
            self.hold(desk);
        } else if waits && self.is_held {
            // A lock whose lease was granted first.
            self.is_held = false;
            desk.calls.push(Call::Release { lane: self.lane });
        }
        let tag = desk.ask(self.lane, request).map_err(|fault| Status::of(&fault))?;
        desk.owed += usize::from(!waits && !self.is_held);
        self.job = Job::Asked { tag, answer, parts: None, waits };
        Ok(())
    }

    /// Nothing more has come for now.
    pub fn ask_gathered(&mut self, desk: &mut Desk) {
        let Job::KeepAlive(renewals) = &mut self.job else { return };
        while !renewals.fresh.is_empty() {
            let rest = renewals.fresh.split_off(renewals.fresh.len().min(RENEWED_AT_ONCE_MAX));
            let ids = std::mem::replace(&mut renewals.fresh, rest);
            let request = Request::Lease(LeaseRequest::KeepAlive { ids: ids.clone() });
            let tag = desk.ask(self.lane, request).expect("so many pass the gate");
            desk.owed += 1;
            renewals.asked.push_back((tag, ids));
        }
        self.end_renewals();
    }

    fn end_renewals(&mut self) {
        if let Job::KeepAlive(renewals) = &self.job
            && renewals.has_ended
            && renewals.owed == 0
        {
            self.end(Status::OK);
        }
    }

    /// The client has said all it had to say.
    pub fn on_end(&mut self, desk: &mut Desk) {
        match &mut self.job {
            _ if self.out.is_ending() => {}
            Job::Expects(_) => {
                self.fail(Status::new(RpcStatus::Internal, "the stream ended before its message"), desk);
            }
            Job::KeepAlive(renewals) => renewals.has_ended = true,
            Job::Watch(_) => {
                self.leave(desk);
                self.end(Status::OK);
            }
            Job::Asked { .. }
            | Job::RangeStream { .. }
            | Job::Snapshot { .. }
            | Job::Observe { .. }
            | Job::Health { .. }
            | Job::Over => {}
        }
    }

    /// What the node says.
    pub fn on_reply(&mut self, reply: Reply, desk: &mut Desk) {
        let Reply { tag, header, body, more, .. } = reply;
        if tag < self.first_tag || self.out.is_ending() {
            return; // Nobody waits for it any more.
        }
        let done = match &mut self.job {
            Job::Asked { tag: asked, .. } if *asked == tag => self.on_answer(header, body, more, desk),
            Job::RangeStream { tag: asked, .. } if *asked == tag => self.on_part(header, body, desk),
            Job::Snapshot { tag: asked } if *asked == tag => self.on_piece(body, more, desk),
            Job::Observe { tag: asked } if *asked == tag => self.on_leader(header, body, desk),
            Job::Health { tag: asked } if *asked == Some(tag) => self.on_health(body),
            Job::KeepAlive(_) => self.on_renewed(tag, header, body, desk),
            Job::Watch(watching) => watching.on_reply(tag, header, body, desk, &mut self.out),
            _ => Ok(()),
        };
        if let Err(status) = done {
            self.fail(status, desk);
        }
        self.hold_if_full(desk);
    }

    fn on_answer(&mut self, header: Header, body: Body, more: bool, desk: &mut Desk) -> Result<(), Status> {
        if let Body::RangePart(part) = body {
            return self.on_some(&header, part, more, desk);
        }
        assert!(!more, "only ranges are answered in parts");
        let Job::Asked { answer, waits, .. } = std::mem::replace(&mut self.job, Job::Over) else {
            unreachable!("it was just seen")
        };
        desk.owed -= usize::from(!waits && !self.is_held);
        if let Body::Fault(fault) = body {
            return Err(Status::of(&fault));
        }
        let refusal = if answer.is_read() || planted::on("grpc-done-told-as-refused") {
            Fault::busy()
        } else {
            // It has happened, and only the answer has no room: not known is the truth.
            Fault::timeout()
        };
        match unary::answer(answer, &header, body) {
            Outcome::Message(message) => {
                self.out.push(message).map_err(|_| Status::of(&refusal))?;
                self.end(Status::OK);
                Ok(())
            }
            Outcome::End(status) => Err(status),
            Outcome::Ask(request, answer) => self.ask(request, answer, desk),
        }
    }

    /// Some of a range's answer, which is one message.
    fn on_some(
        &mut self,
        header: &Header,
        part: RangePart,
        more: bool,
        desk: &mut Desk,
    ) -> Result<(), Status> {
        let Job::Asked { parts, .. } = &mut self.job else { unreachable!("it was just seen") };
        let message = parts.take().unwrap_or_else(begun);
        let message = with_part(message, header, &part, &mut self.out)?;
        if more {
            *parts = Some(message);
            return Ok(());
        }
        desk.owed -= usize::from(!self.is_held);
        self.job = Job::Over;
        self.out.push_charged(finished(message));
        self.end(Status::OK);
        Ok(())
    }

    /// One part of a range, one message. What concerns the whole comes with the last, as from etcd.
    fn on_part(&mut self, header: Header, body: Body, desk: &mut Desk) -> Result<(), Status> {
        let Job::RangeStream { head: first, .. } = &mut self.job else { unreachable!("it was just seen") };
        let part = match body {
            Body::RangePart(part) => part,
            Body::Range(found) => {
                let kvs = found.kvs.len() as u64;
                let head = RangeHead { revision: found.revision, count: found.count, more: found.more, kvs };
                RangePart { head: Some(head), kvs: found.kvs, last: true }
            }
            Body::Fault(fault) => {
                desk.owed -= 1;
                self.job = Job::Over;
                return Err(Status::of(&fault));
            }
            body => panic!("a range is answered with {body:?}"),
        };
        if let Some(head) = part.head {
            *first = Some((header, head));
        }
        let mut response = pb::RangeResponse {
            kvs: part.kvs.iter().map(convert::key_value).collect(),
            ..pb::RangeResponse::default()
        };
        if part.last {
            let (header, head) = first.take().expect("the first part has the head");
            response.header = Some(convert::header(&header));
            (response.count, response.more) = (convert::signed(head.count), head.more);
        }
        self.out.push(framed(&pb::RangeStreamResponse { range_response: Some(response) }))?;
        if part.last {
            desk.owed -= 1;
            self.job = Job::Over;
            self.end(Status::OK);
        }
        Ok(())
    }

    /// One piece of a snapshot, one message.
    fn on_piece(&mut self, body: Body, more: bool, desk: &mut Desk) -> Result<(), Status> {
        if !more {
            desk.owed -= 1;
            self.job = Job::Over;
        }
        match body {
            Body::SnapshotPart { bytes, remaining_bytes } => {
                self.out.push(framed(&pb::SnapshotResponse {
                    header: None,
                    remaining_bytes,
                    blob: bytes,
                }))?;
            }
            Body::Fault(fault) => return Err(Status::of(&fault)),
            body => panic!("a snapshot is answered with {body:?}"),
        }
        if !more {
            self.end(Status::OK);
        }
        Ok(())
    }

    fn on_leader(&mut self, header: Header, body: Body, _: &mut Desk) -> Result<(), Status> {
        let (revision, leader) = match body {
            Body::Observing { leader: None, .. } => return Ok(()),
            Body::Observing { revision, leader: Some(leader) } | Body::Leads { revision, leader } => {
                (revision, leader)
            }
            Body::Unwatched { fault, .. } | Body::Fault(fault) => return Err(Status::of(&fault)),
            body => panic!("who observes an election is told {body:?}"),
        };
        let header = Some(convert::header(&Header { revision, ..header }));
        self.out.push(framed(&pb::LeaderResponse { header, kv: Some(convert::key_value(&leader)) }))
    }

    fn on_health(&mut self, body: Body) -> Result<(), Status> {
        match body {
            Body::Serves(serves) => self.out.push(unary::health(serves)),
            Body::Fault(fault) => Err(Status::of(&fault)),
            body => panic!("who watches the health is told {body:?}"),
        }
    }

    fn on_renewed(&mut self, tag: Tag, header: Header, body: Body, desk: &mut Desk) -> Result<(), Status> {
        let Job::KeepAlive(renewals) = &mut self.job else { unreachable!("it was just seen") };
        let Some(at) = renewals.asked.iter().position(|(asked, _)| *asked == tag) else { return Ok(()) };
        let (_, ids) = renewals.asked.remove(at).expect("it was just found");
        desk.owed -= 1;
        renewals.owed -= ids.len();
        let ttls = match body {
            Body::Lease(LeaseAnswer::Kept(ttls)) => ttls,
            Body::Fault(fault) => return Err(Status::of(&fault)),
            body => panic!("a renewal is answered with {body:?}"),
        };
        let (header, count) = (Some(convert::header(&header)), ids.len());
        let mut messages = BytesMut::new();
        for (id, ttl_s) in ids.into_iter().zip(ttls) {
            let kept = pb::LeaseKeepAliveResponse { header, id, ttl: convert::signed(ttl_s) };
            messages.extend_from_slice(&framed(&kept));
        }
        self.out.push_several(messages.freeze(), count)?;
        self.end_renewals();
        Ok(())
    }

    // ---- Sending and ending

    /// Some of the outbox was taken, or of all outboxes of the connection.
    pub fn on_taken(&mut self, desk: &mut Desk) {
        let has_room = match self.job {
            Job::Asked { .. } => !desk.is_full,
            _ => self.out.waiting_bytes() < self.hold_bytes(desk) / 2,
        };
        if self.is_held && has_room && !planted::on("grpc-held-stream-is-never-released") {
            self.is_held = false;
            desk.owed += usize::from(matches!(self.job, Job::Asked { .. }));
            desk.calls.push(Call::Release { lane: self.lane });
        }
    }

    /// The client does not take what it asked for. What it was told nothing of waits: another answer of that kind would only wait
    /// elsewhere. An answer that has come in part goes on, or none would ever be whole.
    pub fn hold_untold(&mut self, desk: &mut Desk) {
        let is_untold = match &self.job {
            Job::Asked { parts, waits: false, .. } => {
                parts.is_none() || planted::on("grpc-answer-is-held-half-way")
            }
            _ => false,
        };
        if is_untold && !self.is_held {
            desk.owed -= 1;
            self.hold(desk);
        }
    }

    fn hold(&mut self, desk: &mut Desk) {
        self.is_held = true;
        desk.calls.push(Call::Hold { lane: self.lane });
    }

    fn hold_bytes(&self, desk: &Desk) -> usize {
        let tells_events = matches!(self.job, Job::Watch(_) | Job::Observe { .. });
        if tells_events { desk.events_bytes_max } else { HOLD_BYTES }
    }

    /// What it is told is sent as it comes.
    fn goes_on(&self) -> bool {
        matches!(
            self.job,
            Job::Watch(_)
                | Job::KeepAlive(_)
                | Job::Observe { .. }
                | Job::RangeStream { .. }
                | Job::Snapshot { .. }
        )
    }

    fn hold_if_full(&mut self, desk: &mut Desk) {
        if self.goes_on() && !self.is_held && self.out.waiting_bytes() >= self.hold_bytes(desk) {
            self.hold(desk);
        }
    }

    /// Bytes of an answer that comes once and is whole, as far as it is not taken.
    pub fn kept_bytes(&self) -> usize {
        let is_whole = !self.goes_on() && !matches!(self.job, Job::Asked { .. });
        if is_whole { self.out.waiting_bytes() } else { 0 }
    }

    /// The last word, behind all that waits.
    fn end(&mut self, status: Status) {
        self.out.end(status);
    }

    /// The last word, at once.
    pub fn fail(&mut self, status: Status, desk: &mut Desk) {
        if !self.out.is_ending() {
            self.leave(desk);
            self.out.cut(status);
        }
    }

    /// The same, whatever the client still has to say.
    pub fn cut_off(&mut self, status: Status, desk: &mut Desk) {
        self.has_message = false;
        self.fail(status, desk);
    }

    /// The member stops: a call that goes on can go on elsewhere, and one that is answered once is answered.
    pub fn part(&mut self, status: Status, desk: &mut Desk) {
        let goes_on =
            matches!(self.job, Job::Watch(_) | Job::KeepAlive(_) | Job::Observe { .. } | Job::Health { .. });
        if goes_on {
            self.fail(status, desk);
        }
    }

    /// Nobody waits for what the node still has to say.
    pub fn leave(&mut self, desk: &mut Desk) {
        let was_held = std::mem::replace(&mut self.is_held, false);
        let owed = match std::mem::replace(&mut self.job, Job::Over) {
            Job::Expects(_) | Job::Over if !was_held => return,
            Job::Expects(_) | Job::Over => 0,
            Job::Asked { waits: false, .. } => usize::from(!was_held),
            Job::RangeStream { .. } | Job::Snapshot { .. } => 1,
            Job::Asked { waits: true, .. } | Job::Watch(_) | Job::Observe { .. } | Job::Health { .. } => 0,
            Job::KeepAlive(renewals) => renewals.asked.len(),
        };
        desk.owed -= owed;
        desk.calls.push(Call::Leave { lane: self.lane });
    }
}

/// What cannot be told piece by piece.
fn check_streamed(request: &Request) -> Result<(), Status> {
    let Request::Range(range) = request else { unreachable!("it asks for a range") };
    let is_sorted = range.sort_by != SortBy::Key || range.order != Order::Ascending;
    let is_filtered =
        [range.min_mod, range.max_mod, range.min_create, range.max_create].iter().any(|&bound| bound != 0);
    if is_sorted || is_filtered {
        let text = "a range that is streamed is neither sorted nor filtered by revisions";
        return Err(Status::new(RpcStatus::Unimplemented, text));
    }
    Ok(())
}

/// Adds a part to a range's message.
fn with_part(
    mut message: BytesMut,
    header: &Header,
    part: &RangePart,
    out: &mut Outbox,
) -> Result<BytesMut, Status> {
    // The message's place, and what is in front of it, is charged with the head.
    let (before, place) = if part.head.is_some() { (0, PLACE_BYTES) } else { (message.len(), 0) };
    if let Some(head) = part.head {
        let begins = pb::RangeResponse {
            header: Some(convert::header(header)),
            kvs: Vec::new(),
            more: head.more,
            count: convert::signed(head.count),
        };
        begins.encode(&mut message).expect("the buffer grows");
    }
    for kv in &part.kvs {
        let kv = convert::key_value(kv);
        message.reserve(kv.encoded_len() + 16);
        encode_key(pb::RANGE_RESPONSE_KVS, WireType::LengthDelimited, &mut message);
        encode_varint(kv.encoded_len() as u64, &mut message);
        kv.encode(&mut message).expect("the buffer grows");
    }
    out.charge(message.len() - before + place)?;
    Ok(message)
}
