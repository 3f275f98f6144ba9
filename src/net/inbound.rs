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

/// Unsent bytes at which a connection is given up. What is said here is a welcome, a list of members or a refusal, once
/// each: who lets more than that pile up sends without reading.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

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
    /// It asked who the members are, and was answered. That is all that somebody without a name may ask: answers
    /// are longer than the question, and one that is repeated without reading them would fill the memory.
    answered: bool,
    /// More has arrived than was decoded: nothing is read before that is done, or a peer that sends small frames
    /// faster than they are taken would fill the memory with them.
    behind: bool,
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
        Inbound { pipe, from: None, since, answered: false, behind: false }
    }

    /// One read, if there may be something and what came before has been taken.
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        if self.pipe.is_readable() && !self.behind {
            self.pipe.read(buffer);
        }
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
        self.behind = self.take_some(cluster, me, directory, said);
        self.behind
    }

    fn take_some(
        &mut self,
        cluster: ClusterId,
        me: MemberId,
        directory: &Directory<'_>,
        said: &mut Vec<Said>,
    ) -> bool {
        for _ in 0..FRAMES_MAX {
            if self.pipe.output.len() > OUTPUT_BYTES_MAX {
                self.pipe.broken = true;
                return false;
            }
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
                (Frame::AskMembers, None) if !self.answered => {
                    self.answered = true;
                    let members = (directory.members)();
                    peer::encode(&Frame::Members { cluster, members }, &mut self.pipe.output);
                }
                (Frame::Hello(hello), None) if !self.answered => {
                    match greeting_fault(&hello, cluster, me, directory) {
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
                    }
                }
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    const CLUSTER: ClusterId = 7;
    const ME: MemberId = 1;

    /// A connection that somebody has dialled, and the other end of it.
    fn dialled() -> (Inbound, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let pipe = Pipe::new(mio::net::TcpStream::from_std(stream));
        (Inbound::new(pipe, Mono(0)), caller)
    }

    /// What is said when these frames have arrived, and whether there is more to take.
    fn hear(inbound: &mut Inbound, frames: &[Frame]) -> (Vec<Said>, bool) {
        let friend = Member {
            id: 2,
            name: "b".into(),
            peer_urls: Vec::new(),
            client_urls: Vec::new(),
            learner: false,
        };
        let members = || vec![friend.clone()];
        let directory = Directory { members: &members, removed: &[], open: false };
        for frame in frames {
            peer::encode(frame, &mut inbound.pipe.input);
        }
        let mut said = Vec::new();
        let more = inbound.take(CLUSTER, ME, &directory, &mut said);
        (said, more)
    }

    fn answers(inbound: &mut Inbound) -> Vec<Frame> {
        let mut output: BytesMut = std::mem::take(&mut inbound.pipe.output);
        std::iter::from_fn(|| peer::decode(&mut output).unwrap()).collect()
    }

    #[test]
    fn who_asks_for_the_members_is_answered_once() {
        let (mut inbound, _caller) = dialled();
        hear(&mut inbound, &[Frame::AskMembers]);
        assert!(!inbound.pipe.ended, "the answer is on its way");
        assert!(matches!(&answers(&mut inbound)[..], [Frame::Members { cluster: CLUSTER, .. }]));
        hear(&mut inbound, &[Frame::AskMembers]);
        assert!(inbound.pipe.ended);
        assert!(matches!(&answers(&mut inbound)[..], [Frame::Refused { .. }]));

        // All at once, and whatever is asked behind it.
        let hello = Frame::Hello(Hello::new(CLUSTER, 2, ME, 1));
        for second in [Frame::AskMembers, hello] {
            let (mut inbound, _caller) = dialled();
            let frames = [vec![Frame::AskMembers], vec![second; 1_000]].concat();
            let (said, more) = hear(&mut inbound, &frames);
            assert!(said.is_empty() && !more && inbound.pipe.ended && inbound.from.is_none());
            assert!(matches!(&answers(&mut inbound)[..], [Frame::Members { .. }, Frame::Refused { .. }]));
        }
    }

    #[test]
    fn who_lets_answers_pile_up_is_given_up() {
        let (mut inbound, _caller) = dialled();
        inbound.pipe.output.resize(OUTPUT_BYTES_MAX + 1, 0);
        let (said, more) = hear(&mut inbound, &[Frame::Hello(Hello::new(CLUSTER, 2, ME, 1))]);
        assert!(said.is_empty() && !more && inbound.pipe.broken);
    }

    #[test]
    fn nothing_is_read_before_what_came_is_taken() {
        use std::io::Write;
        let (mut inbound, mut caller) = dialled();
        let call = Frame::Call(PeerCall::ReadIndex { id: 3 });
        let mut frames = vec![Frame::Hello(Hello::new(CLUSTER, 2, ME, 1))];
        frames.extend(std::iter::repeat_n(call, FRAMES_MAX));
        let (said, more) = hear(&mut inbound, &frames);
        assert!(more && said.len() == FRAMES_MAX, "the greeting, and all calls but the last");
        caller.write_all(b"x").unwrap();
        let waiting = inbound.pipe.input.len();
        inbound.pipe.assume_readable();
        inbound.read(&mut [0; 64]);
        assert_eq!(inbound.pipe.input.len(), waiting);
        let (said, more) = hear(&mut inbound, &[]);
        assert!(!more && said.len() == 1);
        inbound.read(&mut [0; 64]);
        assert_eq!(&inbound.pipe.input[..], b"x");
    }
}
