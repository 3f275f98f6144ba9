//! The client's side of a stream of watches: what it calls them, and what it is told of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::super::watchers::PROGRESS;
use super::words;
use crate::api::{Body, Call, Code, ConnId, Event, Fault, Header, Reply, Request, Tag};
use crate::base::Revision;
use crate::proto::etcd::messages as pb;

/// Watches are called by their tags.
#[derive(Default)]
pub struct Watching {
    /// Asked for, and not begun, in their order.
    creates: VecDeque<Tag>,
    /// Cancelled by the client, which is not confirmed.
    cancelled: BTreeSet<Tag>,
    /// Over: nothing more may be told of them.
    gone: BTreeSet<Tag>,
    /// What has come of a revision that comes in several messages.
    fragments: BTreeMap<Tag, (Revision, Vec<Arc<Event>>)>,
}

impl Watching {
    pub fn unconfirmed(&self) -> usize {
        self.cancelled.len()
    }

    /// The message for what a client says.
    pub fn says(&mut self, call: &Call, fragment: bool) -> Vec<u8> {
        match call {
            Call::Request { tag, request: Request::Watch(watch) } => {
                self.creates.push_back(*tag);
                words::watch(watch, tag.cast_signed(), fragment).encode_to_vec()
            }
            Call::Request { request: Request::WatchProgress, .. } => {
                let request = Some(pb::WatchUnion::Progress(pb::Empty {}));
                pb::WatchRequest { request }.encode_to_vec()
            }
            Call::Cancel { tag } => {
                if !self.gone.contains(tag) {
                    self.cancelled.insert(*tag);
                }
                let cancel = pb::WatchCancelRequest { watch_id: tag.cast_signed() };
                pb::WatchRequest { request: Some(pb::WatchUnion::Cancel(cancel)) }.encode_to_vec()
            }
            call => panic!("a stream of watches does not say {call:?}"),
        }
    }

    /// What a message tells of which watch.
    pub fn hears(&mut self, conn: ConnId, message: &Bytes) -> Result<Option<Reply>, String> {
        let told = pb::WatchResponse::decode(message.clone()).map_err(|why| why.to_string())?;
        let head = told.header.ok_or("no header")?;
        let revision = u64::try_from(head.revision).map_err(|_| "a revision below zero")?;
        let header = Header { revision, ..Header::default() };
        let reply = |tag: Tag, body: Body| Ok(Some(Reply { conn, tag, header, body, more: true }));
        let id = told.watch_id;
        if told.created {
            let tag = self.creates.pop_front().ok_or("a watch that nobody asked for begins")?;
            if told.canceled {
                self.cancelled.remove(&tag);
                self.gone.insert(tag);
                return reply(tag, Body::Fault(Fault::new(Code::Err, told.cancel_reason)));
            }
            if id != tag.cast_signed() {
                return Err(format!("watch {id} begins, and {tag} was asked for first"));
            }
            return reply(tag, Body::Watching);
        }
        if id == -1 {
            if told.canceled || !told.events.is_empty() {
                return Err(format!("of no watch: {told:?}"));
            }
            return reply(PROGRESS, Body::Progress { revision });
        }
        let tag = id.cast_unsigned();
        if self.gone.contains(&tag) || self.creates.contains(&tag) {
            return Err(format!("watch {tag} is over, or has not begun: {told:?}"));
        }
        if told.canceled {
            self.gone.insert(tag);
            self.fragments.remove(&tag);
            if self.cancelled.remove(&tag) {
                return Ok(None);
            }
            let compacted = u64::try_from(told.compact_revision).map_err(|_| "a revision below zero")?;
            let fault = if compacted > 0 {
                Fault::compacted(compacted)
            } else {
                Fault::new(Code::Err, told.cancel_reason)
            };
            return reply(tag, Body::Unwatched { fault, compacted });
        }
        if told.events.is_empty() {
            return reply(tag, Body::Progress { revision });
        }
        let (of, mut events) = self.fragments.remove(&tag).unwrap_or((revision, Vec::new()));
        if of != revision {
            return Err(format!("the rest of revision {of} is of {revision}"));
        }
        for event in told.events {
            events.push(words::event(event)?);
        }
        if told.fragment {
            self.fragments.insert(tag, (revision, events));
            return Ok(None);
        }
        reply(tag, Body::Events { revision, events })
    }
}
