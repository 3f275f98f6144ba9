//! Connections that other members dialled: first a greeting that must be right in every word, then frames.

use log::warn;

use super::pipe::Pipe;
use crate::api::PeerCall;
use crate::base::{ClusterId, MemberId, Mono};
use crate::node::Message;
use crate::proto::peer::{self, Frame, Hello};

/// Frames taken from one connection in one turn: a peer that floods is not served before the others.
const FRAMES_MAX: usize = 4_096;

pub(super) struct Inbound {
    pub(super) pipe: Pipe,
    /// Who speaks, once greeted.
    pub(super) from: Option<MemberId>,
    pub(super) since: Mono,
}

/// Something a member said.
pub(super) enum Said {
    /// It has just greeted.
    Hello(MemberId),
    Message(Message),
    Call(MemberId, PeerCall),
}

impl Inbound {
    pub(super) fn new(pipe: Pipe, since: Mono) -> Inbound {
        Inbound { pipe, from: None, since }
    }

    /// Decodes what has arrived. True if there may be more at once. A connection that says something wrong
    /// is told so and closed.
    pub(super) fn take(
        &mut self,
        cluster: ClusterId,
        me: MemberId,
        knows: impl Fn(MemberId) -> bool,
        said: &mut Vec<Said>,
    ) -> bool {
        for _ in 0..FRAMES_MAX {
            let decoded = match self.from {
                Some(_) => peer::decode(&mut self.pipe.input),
                None => peer::decode_greeting(&mut self.pipe.input),
            };
            let frame = match decoded {
                Ok(Some(frame)) => frame,
                Ok(None) => return false,
                Err(fault) => {
                    self.refuse(&fault.text);
                    return false;
                }
            };
            match (frame, self.from) {
                (Frame::Hello(hello), None) => match greeting_fault(&hello, cluster, me, &knows) {
                    Some(why) => {
                        self.refuse(&why);
                        return false;
                    }
                    None => {
                        self.from = Some(hello.from);
                        said.push(Said::Hello(hello.from));
                        let welcome = Hello::new(cluster, me, hello.from);
                        peer::encode(&Frame::Welcome(welcome), &mut self.pipe.output);
                    }
                },
                (Frame::Raft(message), Some(from)) if message.from == from && message.to == me => {
                    said.push(Said::Message(message));
                }
                (Frame::Call(call), Some(from)) => said.push(Said::Call(from, call)),
                _ => {
                    self.refuse("a frame out of turn, or in another member's name");
                    return false;
                }
            }
        }
        true
    }

    fn refuse(&mut self, why: &str) {
        let address = self.pipe.stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
        warn!("refusing the peer connection from {address}: {why}");
        peer::encode(&Frame::Refused { why: why.to_string() }, &mut self.pipe.output);
        self.pipe.ended = true;
    }
}

/// What is wrong with a greeting.
fn greeting_fault(
    hello: &Hello,
    cluster: ClusterId,
    me: MemberId,
    knows: &impl Fn(MemberId) -> bool,
) -> Option<String> {
    if hello.version != peer::VERSION {
        return Some(format!(
            "peer protocol version {}; this member speaks {}",
            hello.version,
            peer::VERSION
        ));
    }
    if hello.cluster != cluster {
        return Some(format!("cluster {:x}; this member belongs to cluster {cluster:x}", hello.cluster));
    }
    if hello.to != me {
        return Some(format!("you look for member {:x}; this is member {me:x}", hello.to));
    }
    if !knows(hello.from) {
        return Some(format!("{:x} is not a member of this cluster", hello.from));
    }
    None
}
