//! One stream of HTTP/2: it carries a call, from its headers to its trailers.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;

use super::frame::Inbound;
use super::send::{Sender, Sent};
use super::wake::Flag;
use crate::api::Reply;
use crate::base::Mono;
use crate::proto::etcd::{Desk, Dialogue, Status};

/// What streams take up, one or all of a connection.
#[derive(Clone, Copy, Default)]
pub struct Load {
    /// Of requests that are not complete.
    pub input_bytes: usize,
    /// Of answers that come once, and are not sent.
    pub kept_bytes: usize,
    /// Streams with something to send.
    pub unsent: usize,
}

impl Load {
    /// One of the streams takes up something else than before.
    pub fn change(&mut self, before: Load, now: Load) {
        self.input_bytes = self.input_bytes - before.input_bytes + now.input_bytes;
        self.kept_bytes = self.kept_bytes - before.kept_bytes + now.kept_bytes;
        self.unsent = self.unsent - before.unsent + now.unsent;
    }
}

pub struct Stream {
    call: Dialogue,
    recv: Option<RecvStream>,
    inbound: Inbound,
    sender: Sender,
    flag: Arc<Flag>,
    waker: Waker,
    pub deadline: Mono,
    is_gone: bool,
    is_reset: bool,
}

impl Stream {
    pub fn new(
        call: Dialogue,
        (recv, sender): (RecvStream, Sender),
        flag: Arc<Flag>,
        deadline: Mono,
    ) -> Stream {
        Stream {
            call,
            recv: Some(recv),
            inbound: Inbound::default(),
            sender,
            waker: Waker::from(Arc::clone(&flag)),
            flag,
            deadline,
            is_gone: false,
            is_reset: false,
        }
    }

    /// Nothing more happens on it.
    pub fn is_over(&self) -> bool {
        self.is_gone
    }

    /// What it takes up; no answer counts for more than so much.
    pub fn load(&self, kept_bytes_max: usize) -> Load {
        Load {
            input_bytes: self.inbound.len(),
            kept_bytes: self.call.kept_bytes().min(kept_bytes_max),
            unsent: usize::from(self.sender.has_unsent(&self.call.out)),
        }
    }

    /// Takes what has arrived and sends what can be sent.
    pub fn serve(&mut self, desk: &mut Desk) {
        self.flag.clear();
        self.receive(desk);
        self.send(desk);
    }

    fn receive(&mut self, desk: &mut Desk) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        while let Some(recv) = &mut self.recv {
            match recv.poll_data(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(bytes))) => {
                    // It is kept or dealt with here, and bounded here; a window that is never opened again would stall the
                    // stream. It fails where the stream is gone, and then nobody needs it.
                    let _ = recv.flow_control().release_capacity(bytes.len());
                    self.take(bytes, desk);
                }
                Poll::Ready(Some(Err(_))) => {
                    self.is_reset = true;
                    self.recv = None;
                }
                Poll::Ready(None) => {
                    self.recv = None;
                    self.call.on_end(desk);
                }
            }
        }
        self.call.ask_gathered(desk);
    }

    fn take(&mut self, mut bytes: Bytes, desk: &mut Desk) {
        while !self.call.out.is_ending() {
            match self.inbound.next(&mut bytes, desk.message_bytes_max()) {
                Ok(Some(message)) => self.call.hear(message, desk),
                Ok(None) => return,
                Err(status) => self.call.fail(status, desk),
            }
        }
    }

    /// Gives what can be sent to the connection, and says what follows from that.
    fn send(&mut self, desk: &mut Desk) {
        if !self.is_reset {
            let waker = self.waker.clone();
            let may_end = self.may_end();
            match self.sender.flush(&mut self.call.out, may_end, &mut Context::from_waker(&waker)) {
                Sent::Waits => {}
                Sent::Ended => self.is_gone = true,
                Sent::Reset => self.is_reset = true,
            }
        }
        if self.is_reset {
            self.call.leave(desk);
            self.is_gone = true;
        }
        // Also when it has ended: whoever has the lane next is not held.
        self.call.on_taken(desk);
    }

    /// A client that sends its message and the end of the stream one after the other is not overtaken: what it sends on a
    /// stream that has ended counts as a fault of its own to `h2`, and a connection with a thousand of these is closed.
    fn may_end(&self) -> bool {
        !self.call.awaits_end() || self.recv.is_none()
    }

    /// What the node says.
    pub fn on_reply(&mut self, reply: Reply, desk: &mut Desk) {
        self.call.on_reply(reply, desk);
    }

    /// The connection has come to have too much that waits for its client, or no longer has.
    pub fn on_fullness(&mut self, desk: &mut Desk) {
        if desk.is_full {
            self.call.hold_untold(desk);
        } else {
            self.call.on_taken(desk);
        }
    }

    /// The last word, whatever the client still has to say.
    pub fn cut_off(&mut self, status: Status, desk: &mut Desk) {
        self.call.cut_off(status, desk);
    }

    /// The member stops.
    pub fn part(&mut self, status: Status, desk: &mut Desk) {
        self.call.part(status, desk);
    }

    /// Nobody waits for what the node still has to say.
    pub fn leave(&mut self, desk: &mut Desk) {
        self.call.leave(desk);
    }
}
