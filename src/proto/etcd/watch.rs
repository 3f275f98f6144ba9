//! A Watch stream: several watches, begun and ended by messages, told of in messages that carry the watch's id.
//!
//! The stream is one party to the node, so what the node promises of a connection's watches holds for it: progress that is
//! asked for is told when all watches of *this* stream have been told everything, and a stream that is not read is held alone.
//!
//! The revision in the header is the one up to which the watch was told: clients go on behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::convert;
use super::desk::{Desk, lane_of};
use super::frame::{begun, finished, framed};
use super::messages as pb;
use super::outbox::Outbox;
use super::status::Status;
use super::unary::parsed;
use crate::api::event::FORM_PROTOBUF;
use crate::api::status::RpcStatus;
use crate::api::{Body, Call, Event, Fault, Header, Lane, Request, Tag};
use crate::base::{Revision, planted};

/// In answers that concern no watch, or one that did not begin.
const NO_WATCH: i64 = -1;

#[derive(Debug)]
struct Watcher {
    id: i64,
    /// A large revision may come in several messages.
    fragments: bool,
    /// The client was told that it has begun.
    has_begun: bool,
    /// The client wants it to end, before it was told so.
    is_cancelled: bool,
    /// It is to begin at a revision below zero: what was asked for, while it is looked up where the history begins.
    early: Option<pb::WatchCreateRequest>,
}

/// The watches of one stream.
#[derive(Debug, Default)]
pub struct Watching {
    by_tag: BTreeMap<Tag, Watcher>,
    by_id: BTreeMap<i64, Tag>,
    next_id: i64,
    /// The node was asked for progress, and what it will say answers all who ask meanwhile.
    progress: Option<Tag>,
}

impl Watching {
    /// What the client says. An error ends the stream.
    pub fn on_message(
        &mut self,
        message: Bytes,
        (lane, desk): (Lane, &mut Desk),
        out: &mut Outbox,
    ) -> Result<(), Status> {
        match parsed::<pb::WatchRequest>(message)?.request {
            Some(pb::WatchUnion::Create(asked)) => self.create(&asked, (lane, desk), out),
            Some(pb::WatchUnion::Cancel(pb::WatchCancelRequest { watch_id })) => {
                self.cancel(watch_id, desk, out)
            }
            Some(pb::WatchUnion::Progress(_)) => {
                if self.progress.is_none() {
                    let tag = desk.new_tag(lane);
                    desk.calls.push(Call::Request { tag, request: Request::WatchProgress });
                    self.progress = Some(tag);
                }
                Ok(())
            }
            // As etcd does.
            None => Ok(()),
        }
    }

    fn create(
        &mut self,
        asked: &pb::WatchCreateRequest,
        (lane, desk): (Lane, &mut Desk),
        out: &mut Outbox,
    ) -> Result<(), Status> {
        let id = match asked.watch_id {
            0 => self.any_id(),
            id if self.by_id.contains_key(&id) => {
                let reason = "mvcc: duplicate watch ID provided on the WatchStream";
                return refuse(reason, &desk.header, out);
            }
            id => id,
        };
        let early = (asked.start_revision < 0).then(|| asked.clone());
        let request = if early.is_some() { Request::Status } else { Request::Watch(convert::watch(asked)) };
        match desk.ask(lane, request) {
            Ok(tag) => {
                let watcher =
                    Watcher { id, fragments: asked.fragment, has_begun: false, is_cancelled: false, early };
                self.by_id.insert(id, tag);
                self.by_tag.insert(tag, watcher);
                Ok(())
            }
            Err(fault) => refuse(fault.etcd_text(), &desk.header, out),
        }
    }

    fn any_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn cancel(&mut self, id: i64, desk: &mut Desk, out: &mut Outbox) -> Result<(), Status> {
        let Some(tag) = self.by_id.remove(&id) else { return Ok(()) };
        desk.calls.push(Call::Cancel { tag });
        let watcher = self.by_tag.get_mut(&tag).expect("it has an id");
        if !watcher.has_begun {
            watcher.is_cancelled = !planted::on("grpc-cancelled-watch-is-not-confirmed");
            return Ok(());
        }
        self.by_tag.remove(&tag);
        say_cancelled(id, &desk.header, out)
    }

    /// What the node says. An error ends the stream.
    pub fn on_reply(
        &mut self,
        tag: Tag,
        header: Header,
        body: Body,
        desk: &mut Desk,
        out: &mut Outbox,
    ) -> Result<(), Status> {
        if self.progress == Some(tag) {
            self.progress = None;
            return match body {
                Body::Progress { revision } => say_progress(NO_WATCH, revision, header, out),
                Body::Fault(fault) => Err(Status::of(&fault)),
                body => panic!("a question about progress is answered with {body:?}"),
            };
        }
        // It may have been cancelled meanwhile.
        let Some(watcher) = self.by_tag.get_mut(&tag) else { return Ok(()) };
        let id = watcher.id;
        match body {
            Body::Status(status) => self.begin_early(tag, &header, status.compact_revision, desk, out),
            Body::Watching => {
                let begun = pb::WatchResponse { created: true, ..told_of(id, &header) };
                out.push(framed(&begun))?;
                watcher.has_begun = true;
                if watcher.is_cancelled {
                    self.by_tag.remove(&tag);
                    say_cancelled(id, &header, out)?;
                }
                Ok(())
            }
            Body::Events { revision, events } => {
                let bytes_max = if watcher.fragments { desk.message_bytes_max() } else { usize::MAX };
                say_events((id, revision), header, &events, bytes_max, out)
            }
            Body::Progress { revision } => say_progress(id, revision, header, out),
            Body::Unwatched { fault, compacted } => {
                self.forget(tag);
                // Where it can go on elsewhere, clients do so by themselves when the stream breaks.
                if compacted == 0 && is_of_this_member(&fault) {
                    return Err(Status::of(&fault));
                }
                let over = pb::WatchResponse {
                    canceled: true,
                    compact_revision: convert::signed(compacted),
                    cancel_reason: if compacted == 0 { fault.etcd_text().to_string() } else { String::new() },
                    ..told_of(id, &header)
                };
                out.push(framed(&over))
            }
            Body::Fault(fault) => {
                self.forget(tag);
                if is_of_this_member(&fault) {
                    return Err(Status::of(&fault));
                }
                refuse(fault.etcd_text(), &header, out)
            }
            body => panic!("the node tells of a watch with {body:?}"),
        }
    }

    /// To etcd a history that was never compacted begins at -1: there a watch begins with what comes, and one that is to begin
    /// before is told, as any that comes too late, that it is over.
    fn begin_early(
        &mut self,
        tag: Tag,
        header: &Header,
        compact_revision: Revision,
        desk: &mut Desk,
        out: &mut Outbox,
    ) -> Result<(), Status> {
        let Watcher { id, is_cancelled, early, .. } = self.by_tag.get_mut(&tag).expect("it was just seen");
        let (id, is_cancelled) = (*id, *is_cancelled);
        let early = early.take().expect("nobody else asks for the status");
        let compact_revision = if compact_revision == 0 { -1 } else { convert::signed(compact_revision) };
        if early.start_revision >= compact_revision && !is_cancelled {
            let from_now = pb::WatchCreateRequest { start_revision: 0, ..early };
            let watch = desk.ask(lane_of(tag), Request::Watch(convert::watch(&from_now)));
            let watcher = self.by_tag.remove(&tag).expect("it was just seen");
            return match watch {
                Ok(watch) => {
                    self.by_id.insert(id, watch);
                    self.by_tag.insert(watch, watcher);
                    Ok(())
                }
                Err(fault) => {
                    self.by_id.remove(&id);
                    refuse(fault.etcd_text(), header, out)
                }
            };
        }
        self.forget(tag);
        out.push(framed(&pb::WatchResponse { created: true, ..told_of(id, header) }))?;
        if is_cancelled {
            return say_cancelled(id, header, out);
        }
        // Nor does etcd name a revision here.
        let header = Header { revision: 0, ..*header };
        let over = pb::WatchResponse { canceled: true, compact_revision, ..told_of(id, &header) };
        out.push(framed(&over))
    }

    fn forget(&mut self, tag: Tag) {
        if let Some(watcher) = self.by_tag.remove(&tag)
            && self.by_id.get(&watcher.id) == Some(&tag)
        {
            self.by_id.remove(&watcher.id);
        }
    }
}

/// Another member could do it.
fn is_of_this_member(fault: &Fault) -> bool {
    matches!(fault.status(), RpcStatus::Unavailable | RpcStatus::DataLoss)
}

fn told_of(watch_id: i64, header: &Header) -> pb::WatchResponse {
    pb::WatchResponse { header: Some(convert::header(header)), watch_id, ..pb::WatchResponse::default() }
}

/// A watch that does not begin.
fn refuse(reason: &str, header: &Header, out: &mut Outbox) -> Result<(), Status> {
    let refused = pb::WatchResponse {
        created: true,
        canceled: true,
        cancel_reason: reason.to_string(),
        ..told_of(NO_WATCH, header)
    };
    out.push(framed(&refused))
}

fn say_cancelled(id: i64, header: &Header, out: &mut Outbox) -> Result<(), Status> {
    out.push(framed(&pb::WatchResponse { canceled: true, ..told_of(id, header) }))
}

fn say_progress(id: i64, revision: Revision, header: Header, out: &mut Outbox) -> Result<(), Status> {
    out.push(framed(&told_of(id, &Header { revision, ..header })))
}

/// All of a revision in one message; or in several, if the client can put them together and it is longer than this.
fn say_events(
    (id, revision): (i64, Revision),
    header: Header,
    events: &[Arc<Event>],
    bytes_max: usize,
    out: &mut Outbox,
) -> Result<(), Status> {
    let mut head = told_of(id, &Header { revision, ..header });
    let mut rest = events;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|event| {
            bytes += encoded(event).len();
            bytes <= bytes_max
        });
        // One that is too long for itself goes alone.
        let count = fits.count().max(1);
        let (now, later) = rest.split_at(count);
        head.fragment = !later.is_empty();
        let mut message = begun();
        head.encode(&mut message).expect("the buffer grows");
        now.iter().for_each(|event| put_event(event, &mut message));
        if later.is_empty() || !planted::on("grpc-first-fragment-is-lost") {
            out.push(finished(message))?;
        }
        rest = later;
    }
    Ok(())
}

fn put_event(event: &Event, message: &mut BytesMut) {
    let bytes = encoded(event);
    message.reserve(bytes.len() + 8);
    encode_key(pb::WATCH_RESPONSE_EVENTS, WireType::LengthDelimited, message);
    encode_varint(bytes.len() as u64, message);
    message.extend_from_slice(bytes);
}

fn encoded(event: &Event) -> &Bytes {
    event.encoded.get(FORM_PROTOBUF, || convert::event(event).encode_to_vec().into())
}
