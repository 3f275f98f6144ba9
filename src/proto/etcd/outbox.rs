//! What one call still has to send: messages in their order, then the status. Whoever carries it takes as much as its client
//! takes; what waits is charged to a room that all calls share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::counts::Tally;
use super::status::Status;
use crate::api::status::RpcStatus;
use crate::base::planted;

/// What a message costs that waits, beside its bytes: its place in the queue, and what the allocator and the count of who
/// shares it take. A small event would otherwise take up three times what it is charged for.
pub const PLACE_BYTES: usize = 128;

/// Bytes of answers that wait for their readers, on all connections together.
#[derive(Debug)]
pub struct Room(AtomicUsize);

/// What all connections together may have waiting for readers.
const ROOM_BYTES: usize = 1 << 30;

impl Default for Room {
    fn default() -> Room {
        Room::new(ROOM_BYTES)
    }
}

impl Room {
    pub fn new(bytes: usize) -> Room {
        Room(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Each message in its frame ([`super::frame`]).
pub struct Outbox {
    queue: VecDeque<Bytes>,
    /// Clients of a call that goes on wait for its beginning, before there is a message.
    is_open: bool,
    /// Some of the first one has been sent.
    is_begun: bool,
    /// Taken of the room: what is queued, and what is being made.
    charged: usize,
    room: Arc<Room>,
    end: Option<Status>,
    /// Of a method that is known.
    tally: Option<Tally>,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.room.give(self.charged);
        if let Some(tally) = &self.tally {
            tally.end(self.end.as_ref().map(|status| status.code));
        }
    }
}

impl Outbox {
    pub fn new(room: &Arc<Room>, tally: Option<Tally>) -> Outbox {
        Outbox {
            queue: VecDeque::new(),
            is_open: false,
            is_begun: false,
            charged: 0,
            room: Arc::clone(room),
            end: None,
            tally,
        }
    }

    /// So much more is going to be queued, for each message [`PLACE_BYTES`] of it. Without room for it nothing is taken.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Status> {
        if !self.room.take(bytes) {
            return Err(Status::new(RpcStatus::ResourceExhausted, "etcdserver: too many requests"));
        }
        self.charged += bytes;
        Ok(())
    }

    /// A message that the room was taken for.
    pub fn push_charged(&mut self, message: Bytes) {
        self.queue_up(message, 1);
    }

    /// A message in its frame.
    pub fn push(&mut self, message: Bytes) -> Result<(), Status> {
        self.push_several(message, 1)
    }

    /// So many messages, each in its frame.
    pub fn push_several(&mut self, messages: Bytes, count: usize) -> Result<(), Status> {
        self.charge(messages.len() + PLACE_BYTES)?;
        self.queue_up(messages, count);
        Ok(())
    }

    fn queue_up(&mut self, messages: Bytes, count: usize) {
        self.queue.push_back(messages);
        if let Some(tally) = &self.tally {
            tally.sent(count);
        }
    }

    /// A message has come.
    pub fn note_received(&self) {
        if let Some(tally) = &self.tally {
            tally.received();
        }
    }

    /// The call will be answered with messages, whatever the status.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// Nothing follows but the status.
    pub fn end(&mut self, status: Status) {
        if self.end.is_none() {
            self.end = Some(status);
        }
    }

    /// What waits is not sent any more: the status comes next. But for the rest of what is half sent: a client that finds a
    /// status in the middle of a message takes both for broken, and reports a failure of its own.
    pub fn cut(&mut self, status: Status) {
        let kept = usize::from(self.is_begun && !planted::on("grpc-status-within-a-message"));
        self.queue.truncate(kept);
        let rest: usize = self.queue.iter().map(|message| message.len() + PLACE_BYTES).sum();
        self.room.give(self.charged - rest);
        self.charged = rest;
        self.end = Some(status);
    }

    pub fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    pub fn waiting_bytes(&self) -> usize {
        self.charged
    }

    // ---- For whoever carries it

    /// There is an answer, and not only a status.
    pub fn has_begun(&self) -> bool {
        self.is_open || !self.queue.is_empty()
    }

    /// The first one, or what is left of it.
    pub fn first(&self) -> Option<&Bytes> {
        self.queue.front()
    }

    /// So much of the first one, at most, leaves.
    pub fn take(&mut self, bytes_max: usize) -> Bytes {
        let Some(front) = self.queue.front_mut() else { return Bytes::new() };
        let piece = front.split_to(bytes_max.min(front.len()));
        self.is_begun = !front.is_empty();
        let mut given = piece.len();
        if front.is_empty() {
            self.queue.pop_front();
            given += PLACE_BYTES;
        }
        self.charged -= given;
        self.room.give(given);
        piece
    }

    /// The last word, once it is said.
    pub fn status(&self) -> Option<&Status> {
        self.end.as_ref()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.end.is_none()
    }
}
