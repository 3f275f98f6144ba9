//! From an outbox to `h2`. Only as much is given to `h2` as its window allows, because what `h2` is given it keeps, without
//! bound.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};

use super::trailers;
use crate::proto::etcd::{Outbox, Status};

/// The sending side of a stream.
pub enum Sender {
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

impl Sender {
    /// Something is to be sent that was not.
    pub fn has_unsent(&self, out: &Outbox) -> bool {
        !matches!(self, Sender::Over) && !out.is_empty()
    }

    /// Gives `h2` what it takes. `may_end`: the status, too.
    pub fn flush(&mut self, out: &mut Outbox, may_end: bool, cx: &mut Context<'_>) -> Sent {
        if out.has_begun() {
            self.open();
        }
        let sent = self.flush_queue(out, may_end, cx);
        if sent != Sent::Waits {
            *self = Sender::Over;
        }
        sent
    }

    /// Headers leave.
    fn open(&mut self) {
        if let Sender::Unanswered(respond) = self {
            *self = match respond.send_response(head(), false) {
                Ok(send) => Sender::Open(send),
                Err(_) => Sender::Over,
            };
        }
    }

    fn flush_queue(&mut self, out: &mut Outbox, may_end: bool, cx: &mut Context<'_>) -> Sent {
        match self {
            Sender::Over => Sent::Reset,
            Sender::Unanswered(respond) => match out.status() {
                Some(status) if may_end => end_at_once(respond, status),
                _ if respond.poll_reset(cx).is_ready() => Sent::Reset,
                _ => Sent::Waits,
            },
            Sender::Open(send) => {
                while let Some(bytes) = out.first().map(Bytes::len) {
                    send.reserve_capacity(bytes.min(PIECE_BYTES));
                    let mut window = send.capacity();
                    if window == 0 {
                        window = match send.poll_capacity(cx) {
                            Poll::Ready(Some(Ok(bytes))) => bytes,
                            Poll::Ready(_) => return Sent::Reset,
                            Poll::Pending => return Sent::Waits,
                        };
                    }
                    if send.send_data(out.take(window), false).is_err() {
                        return Sent::Reset;
                    }
                }
                match out.status() {
                    Some(status) if may_end => {
                        let mut headers = HeaderMap::new();
                        trailers::write(status, &mut headers);
                        send.send_trailers(headers).map_or(Sent::Reset, |()| Sent::Ended)
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
    trailers::write(status, response.headers_mut());
    respond.send_response(response, true).map_or(Sent::Reset, |_| Sent::Ended)
}
