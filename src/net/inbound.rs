//! Connections that other members dialled: first a greeting that must be right in every word, then frames.

use log::warn;

use super::pipe::Pipe;
use crate::api::{Member, PeerCall};
use crate::base::time::Nanos;
use crate::base::{ClusterId, MemberId, Mono};
use crate::node::Message;
use crate::proto::peer::{self, Frame, Hello};

/// Frames taken from one connection in one turn: a peer that floods is not served before the others.
const FRAMES_MAX: usize = 4_096;

/// Who belongs to the cluster, as this member has applied it.
pub(super) struct Directory<'a> {
    pub(super) members: &'a dyn Fn() -> Vec<Member>,
    pub(super) removed: &'a [MemberId],
    /// Others may speak too.
    pub(super) open: bool,
}

pub(super) struct Inbound {
    pub(super) pipe: Pipe,
    /// Who speaks, once greeted.
    pub(super) from: Option<MemberId>,
    pub(super) since: Mono,
}

/// Something a member said.
pub(super) enum Said {
    /// It has just greeted.
    Hello(MemberId, Nanos),
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
        directory: &Directory<'_>,
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
                // Somebody who wants to join.
                (Frame::AskMembers, None) => {
                    let members = (directory.members)();
                    peer::encode(&Frame::Members { cluster, members }, &mut self.pipe.output);
                }
                (Frame::Hello(hello), None) => match greeting_fault(&hello, cluster, me, directory) {
                    Some(why) => {
                        self.refuse(&why);
                        return false;
                    }
                    None => {
                        self.from = Some(hello.from);
                        said.push(Said::Hello(hello.from, hello.promise));
                        // It answers on a connection of its own, and promises there.
                        let welcome = Hello::new(cluster, me, hello.from, 0);
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
    directory: &Directory<'_>,
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
    if directory.removed.contains(&hello.from) {
        return Some(peer::WHY_REMOVED.into());
    }
    if !directory.open && !(directory.members)().iter().any(|member| member.id == hello.from) {
        return Some(format!("{:x} is not a member of this cluster", hello.from));
    }
    None
}
