//! What one stream still has to send: messages in their order, then the status. Only as much is given to `h2` as its window
//! allows, because what `h2` is given it keeps, without bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};

use super::status::Status;
use crate::api::status::RpcStatus;
use crate::base::planted;

/// Bytes of answers that wait for their readers, on all connections together.
#[derive(Debug)]
pub struct Room(AtomicUsize);

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

enum Sender {
    /// No headers are out: a status can still be all of the answer.
    Unanswered(SendResponse<Bytes>),
    Open(SendStream<Bytes>),
    /// Nothing more can be sent.
    Over,
}

/// How far sending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It goes on when the stream is woken, or has more to say.
    Waits,
    /// The status is out.
    Ended,
    /// The client has reset the stream.
    Reset,
}

pub struct Outbound {
    sender: Sender,
    queue: VecDeque<Bytes>,
    /// Some of the first one has been sent.
    is_begun: bool,
    /// Taken of the room: what is queued, and what is being made.
    charged: usize,
    room: Arc<Room>,
    end: Option<Status>,
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.room.give(self.charged);
    }
}

impl Outbound {
    pub fn new(respond: SendResponse<Bytes>, room: &Arc<Room>) -> Outbound {
        Outbound {
            sender: Sender::Unanswered(respond),
            queue: VecDeque::new(),
            is_begun: false,
            charged: 0,
            room: Arc::clone(room),
            end: None,
        }
    }

    /// So much more is going to be queued. Without room for it nothing is taken.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Status> {
        if !self.room.take(bytes) {
            return Err(Status::new(RpcStatus::ResourceExhausted, "etcdserver: too many requests"));
        }
        self.charged += bytes;
        Ok(())
    }

    /// What the room was taken for.
    pub fn push_charged(&mut self, messages: Bytes) {
        self.queue.push_back(messages);
    }

    /// Messages, each in its frame.
    pub fn push(&mut self, messages: Bytes) -> Result<(), Status> {
        self.charge(messages.len())?;
        self.push_charged(messages);
        Ok(())
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
        let rest: usize = self.queue.iter().map(Bytes::len).sum();
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

    /// Something is to be sent that was not.
    pub fn has_unsent(&self) -> bool {
        !matches!(self.sender, Sender::Over) && (!self.queue.is_empty() || self.end.is_some())
    }

    /// Headers leave before there is a message: clients of a stream wait for them.
    pub fn open(&mut self) {
        if let Sender::Unanswered(respond) = &mut self.sender {
            self.sender = match respond.send_response(head(), false) {
                Ok(send) => Sender::Open(send),
                Err(_) => Sender::Over,
            };
        }
    }

    /// Gives `h2` what it takes. `may_end`: the status, too.
    pub fn flush(&mut self, may_end: bool, cx: &mut Context<'_>) -> Sent {
        if !self.queue.is_empty() {
            self.open();
        }
        let sent = self.flush_queue(may_end, cx);
        if sent != Sent::Waits {
            self.sender = Sender::Over;
        }
        sent
    }

    fn flush_queue(&mut self, may_end: bool, cx: &mut Context<'_>) -> Sent {
        match &mut self.sender {
            Sender::Over => Sent::Reset,
            Sender::Unanswered(respond) => match &self.end {
                Some(status) if may_end => end_at_once(respond, status),
                _ if respond.poll_reset(cx).is_ready() => Sent::Reset,
                _ => Sent::Waits,
            },
            Sender::Open(send) => {
                while let Some(front) = self.queue.front_mut() {
                    send.reserve_capacity(front.len().min(PIECE_BYTES));
                    let mut window = send.capacity();
                    if window == 0 {
                        window = match send.poll_capacity(cx) {
                            Poll::Ready(Some(Ok(bytes))) => bytes,
                            Poll::Ready(_) => return Sent::Reset,
                            Poll::Pending => return Sent::Waits,
                        };
                    }
                    let piece = front.split_to(window.min(front.len()));
                    self.is_begun = !front.is_empty();
                    if front.is_empty() {
                        self.queue.pop_front();
                    }
                    self.charged -= piece.len();
                    self.room.give(piece.len());
                    if send.send_data(piece, false).is_err() {
                        return Sent::Reset;
                    }
                }
                match &self.end {
                    Some(status) if may_end => {
                        let mut trailers = HeaderMap::new();
                        status.write(&mut trailers);
                        send.send_trailers(trailers).map_or(Sent::Reset, |()| Sent::Ended)
                    }
                    _ if send.poll_reset(cx).is_ready() => Sent::Reset,
                    _ => Sent::Waits,
                }
            }
        }
    }
}

/// Asked of the window at a time: a large answer does not take all of the connection's at once.
const PIECE_BYTES: usize = 64 << 10;

fn head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A status that comes without any message travels in the headers ("Trailers-Only").
fn end_at_once(respond: &mut SendResponse<Bytes>, status: &Status) -> Sent {
    let mut response = head();
    status.write(response.headers_mut());
    respond.send_response(response, true).map_or(Sent::Reset, |_| Sent::Ended)
}
