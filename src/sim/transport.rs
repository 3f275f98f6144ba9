//! What happens on connections: dialling, greeting, pieces that arrive, ends.

use bytes::BytesMut;

use super::net::{Answer, ConnNo, Dial, Piece, QUEUE_BYTES_MAX};
use super::plan::Moment;
use super::roster::machine_of;
use super::world::{Event, World};
use crate::api::{PeerCall, command};
use crate::base::Mono;
use crate::base::time::{MS, Nanos};
use crate::node::Outbound;
use crate::proto::peer::{self, Frame, Hello};
use crate::raft::MessageBody;

/// A greeting must be answered within this, as in `net::peers`.
const HANDSHAKE: Nanos = 2_000 * MS;

/// How long a removed member is spoken to, as in `net::peers`.
const FAREWELL: Nanos = 3_000 * MS;

impl World {
    /// Dials whoever is due, for one member.
    pub(super) fn dial(&mut self, from: usize, to: usize) {
        let Dial::Waiting { until } = self.net.dial_state(from, to) else { return };
        let wanted = self.machines[from].peers.get(&to).is_some_and(|until| self.now < *until);
        if self.now < until || self.machines[from].process.is_none() || !wanted {
            return;
        }
        let conn = self.net.connect(from, to);
        self.net.set_dial(from, to, Dial::Dialled { conn, since: self.now });
        self.after(HANDSHAKE, Event::Handshake { conn });
        let (me, peer) = (self.machines[from].id, self.watch.roster.member_on(to).unwrap_or_default());
        let promise = self.machines[from].process.as_ref().map_or(0, |process| process.node.promise());
        let hello = Hello::new(super::CLUSTER, me, peer, promise);
        let mut bytes = BytesMut::new();
        peer::encode(&Frame::Hello(hello), &mut bytes);
        self.put_piece(conn, Piece::Bytes(bytes));
    }

    /// As `net::peers`: a process talks to all members that it knows of; to those that were removed only for a little
    /// while longer.
    pub(super) fn learn_peers(&mut self, member: usize) {
        let Some(process) = &self.machines[member].process else { return };
        let (life, me) = (process.life, process.node.id());
        let others = process.node.known_members().into_iter().filter(|other| other.id != me);
        let known: Vec<usize> = others.filter_map(|other| machine_of(&other)).collect();
        let until = self.now + FAREWELL;
        let mut leaving = Vec::new();
        let peers = &mut self.machines[member].peers;
        for (&to, stays) in
            peers.iter_mut().filter(|(to, stays)| **stays == Mono::NEVER && !known.contains(to))
        {
            *stays = until;
            leaving.push(to);
        }
        let new: Vec<usize> =
            known.into_iter().filter(|to| peers.insert(*to, Mono::NEVER).is_none()).collect();
        for to in leaving {
            self.after(FAREWELL, Event::Farewell { member, life, to });
        }
        for to in new {
            self.after(0, Event::Dial { from: member, to });
        }
    }

    pub(super) fn farewell(&mut self, member: usize, life: u64, to: usize) {
        let over = self.machines[member].peers.get(&to).is_some_and(|until| *until <= self.now);
        if !over || !self.lives(member, life) {
            return;
        }
        self.machines[member].peers.remove(&to);
        if let Dial::Dialled { conn, .. } | Dial::Up { conn } = self.net.dial_state(member, to) {
            self.net.set_dial(member, to, Dial::Waiting { until: self.now });
            self.put_piece(conn, Piece::End);
        }
    }

    /// A greeting that was not answered in time.
    pub(super) fn handshake_over(&mut self, conn: ConnNo) {
        let Some(held) = self.net.conns.get(&conn) else { return };
        let (from, to) = (held.from, held.to);
        if matches!(self.net.dial_state(from, to), Dial::Dialled { conn: current, .. } if current == conn) {
            self.close_dialled(conn, Answer::Reset);
        }
    }

    /// Hands a message to the connection, or answers for the member that cannot be reached.
    pub(super) fn send(&mut self, from: usize, message: &Outbound, out: &mut [BytesMut]) {
        let to = self.watch.roster.machine(message.to());
        let Dial::Up { conn } = self.net.dial_state(from, to) else {
            return self.unreachable(from, message);
        };
        if self.net.conns.get(&conn).is_none_or(|conn| conn.held_bytes > QUEUE_BYTES_MAX) {
            return self.unreachable(from, message);
        }
        let bytes = &mut out[to];
        match message {
            Outbound::Raft(message) => peer::encode_message(message, bytes),
            Outbound::Call { call, .. } => peer::encode_call(call, bytes),
        }
        self.sent_moment(from, to, message);
        if self.net.frames {
            let frame = std::mem::take(bytes);
            if !self.net.passes(from, to) {
                return;
            }
            for at in self.net.frame_arrives(conn, self.now) {
                self.at(at, Event::Arrival { conn, piece: Piece::Bytes(frame.clone()) });
            }
        }
    }

    /// Sends what a turn has put together.
    pub(super) fn flush(&mut self, from: usize, out: &mut [BytesMut]) {
        for (to, bytes) in out.iter_mut().enumerate() {
            if bytes.is_empty() {
                continue;
            }
            let bytes = std::mem::take(bytes);
            if let Dial::Up { conn } = self.net.dial_state(from, to) {
                self.put_piece(conn, Piece::Bytes(bytes));
            }
        }
    }

    fn sent_moment(&mut self, from: usize, to: usize, message: &Outbound) {
        self.log_message(from, to, message);
        let moment = match message {
            Outbound::Raft(message) => match &message.body {
                MessageBody::Vote { .. } => Moment::Campaign,
                MessageBody::VoteReply { granted: true } => Moment::VoteGranted,
                MessageBody::Append { entries, .. } if !entries.is_empty() => Moment::AppendSent,
                MessageBody::AppendAccepted { .. } => Moment::AppendAccepted,
                MessageBody::TimeoutNow => Moment::HandOver,
                _ => return,
            },
            Outbound::Call { call, .. } => match call {
                PeerCall::Propose { .. } => Moment::ProposeSent,
                PeerCall::ReadIndex { .. } => Moment::ReadIndexSent,
                PeerCall::SnapshotBegin { .. } => Moment::SnapshotBegins,
                PeerCall::SnapshotAck { installed: true, .. } => Moment::SnapshotInstalled,
                _ => return,
            },
        };
        self.moment(moment, from, to);
    }

    /// Elections and snapshots, in the log; entries and their answers would drown all else.
    fn log_message(&mut self, from: usize, to: usize, message: &Outbound) {
        match message {
            Outbound::Raft(message) => match &message.body {
                MessageBody::Append { .. }
                | MessageBody::AppendAccepted { .. }
                | MessageBody::AppendRejected { .. } => {}
                body => {
                    let term = message.term;
                    self.trace.line(self.now, from as u64, || format!("tells {to} in term {term}: {body:?}"));
                }
            },
            Outbound::Call { call: PeerCall::SnapshotChunk { stream, number, .. }, .. } => {
                self.trace.line(self.now, from as u64, || format!("sends {to} chunk {number} of {stream}"));
            }
            Outbound::Call { call, .. } => {
                let snapshot = matches!(
                    call,
                    PeerCall::SnapshotBegin { .. }
                        | PeerCall::SnapshotAck { .. }
                        | PeerCall::SnapshotAbort { .. }
                );
                if snapshot {
                    self.trace.line(self.now, from as u64, || format!("tells {to}: {call:?}"));
                }
            }
        }
    }

    /// As `net::peers` does: requests that would wait for their deadline are refused at once.
    fn unreachable(&mut self, from: usize, message: &Outbound) {
        let Outbound::Call { to, call } = message else { return };
        let refusal = match call {
            PeerCall::Propose { number, payloads, .. } => {
                let origins = payloads.iter().filter_map(|payload| command::origin(payload));
                let request_ids = origins.map(|origin| origin.request_id).collect();
                PeerCall::ProposeRefused { number: *number, request_ids, busy: false }
            }
            PeerCall::ReadIndex { id } => PeerCall::ReadIndexReply { id: *id, index: None },
            PeerCall::LeaseAsk { id, .. } => PeerCall::LeaseAnswer { id: *id, answer: None },
            PeerCall::SnapshotBegin { stream, .. } | PeerCall::SnapshotChunk { stream, .. } => {
                PeerCall::SnapshotAbort { stream: *stream }
            }
            _ => return,
        };
        self.count_unsent(from);
        let now = self.local(from);
        let Some(process) = &mut self.machines[from].process else { return };
        // As the event loop: that brings no turn. What waits for one must have a deadline.
        if let Err(why) = process.node.on_peer_call(*to, refusal, now) {
            self.stopped(from, &why);
        }
    }

    /// A piece enters a stream.
    fn put_piece(&mut self, number: ConnNo, piece: Piece) {
        let Some(conn) = self.net.conns.get_mut(&number) else { return };
        let (from, to) = (conn.from, conn.to);
        if !self.net.passes(from, to) || !self.net.conns[&number].held.is_empty() {
            let conn = self.net.conns.get_mut(&number).expect("it was just there");
            if let Piece::Bytes(bytes) = &piece {
                conn.held_bytes += bytes.len();
            }
            conn.held.push_back(piece);
            return;
        }
        let mut piece = piece;
        if let Piece::Bytes(bytes) = &mut piece
            && let Some(at) = self.net.split(from, to, bytes.len())
        {
            let head = bytes.split_to(at);
            let at = self.net.piece_arrives(number, self.now);
            self.at(at, Event::Arrival { conn: number, piece: Piece::Bytes(head) });
        }
        let at = self.net.piece_arrives(number, self.now);
        self.at(at, Event::Arrival { conn: number, piece });
    }

    /// A piece of a stream arrives at the acceptor's machine.
    pub(super) fn arrival(&mut self, number: ConnNo, piece: Piece) {
        let Some(conn) = self.net.conns.get_mut(&number) else { return };
        let (from, to) = (conn.from, conn.to);
        let life = self.machines[to].process.as_ref().map(|process| process.life);
        if self.machines[to].powerless {
            // Nobody takes it, and nobody says so. What comes when the machine is back is for nobody either.
            (conn.accepted_by, conn.greeted) = (Some(0), true);
            return;
        }
        if conn.accepted_by.is_none() && !conn.greeted {
            // A connection to nobody, or to a life that is over, is refused, also with what comes on it later.
            conn.accepted_by = life.or(Some(0));
        }
        if life.is_none() || conn.accepted_by != life {
            return self.answer_dialler(number, Answer::Reset);
        }
        let mut doomed = conn.doomed;
        match piece {
            Piece::Bytes(mut bytes) => {
                if doomed {
                    let keep = self.net.torn(from, to, bytes.len());
                    bytes.truncate(keep);
                }
                self.take_bytes(number, bytes);
            }
            Piece::End => doomed = true,
        }
        if doomed && self.net.conns.contains_key(&number) {
            // Both ends notice: this one now. What comes later on this connection is for nobody.
            self.net.conns.get_mut(&number).expect("it was just there").accepted_by = Some(0);
            self.answer_dialler(number, Answer::Reset);
            self.lost(to, from);
        }
    }

    /// Decodes what has come, and hands it to the node.
    fn take_bytes(&mut self, number: ConnNo, bytes: BytesMut) {
        let frames = self.net.frames;
        let Some(conn) = self.net.conns.get_mut(&number) else { return };
        let (from, to) = (conn.from, conn.to);
        let mut input = std::mem::take(&mut conn.input);
        if input.is_empty() {
            input = bytes;
        } else {
            input.extend_from_slice(&bytes);
        }
        loop {
            let Some(conn) = self.net.conns.get_mut(&number) else { return };
            let greeted = conn.greeted;
            let decoded = if greeted { peer::decode(&mut input) } else { peer::decode_greeting(&mut input) };
            match decoded {
                Ok(Some(Frame::Hello(hello))) if !greeted => {
                    if let Some(refusal) = self.greeting_fault(to, &hello) {
                        self.net.conns.get_mut(&number).expect("it was just there").accepted_by = Some(0);
                        return self.answer_dialler(number, refusal);
                    }
                    self.net.conns.get_mut(&number).expect("it was just there").greeted = true;
                    self.greeted(to, from, hello.promise);
                    self.answer_dialler(number, Answer::Welcome);
                }
                Ok(Some(frame)) if greeted => {
                    self.told(to, from, frame);
                    if self.machines[to].process.is_none() {
                        return;
                    }
                }
                Ok(Some(frame)) => {
                    return self.fail("N11", format!("member {to} was told {frame:?} before the greeting"));
                }
                Ok(None) => break,
                Err(fault) => {
                    return self.fail("N11", format!("member {to} cannot read what {from} sent: {fault}"));
                }
            }
        }
        if let Some(conn) = self.net.conns.get_mut(&number) {
            if frames && conn.greeted {
                input.clear();
            }
            conn.input = input;
        }
    }

    /// As `net::inbound`.
    fn greeting_fault(&self, member: usize, hello: &Hello) -> Option<Answer> {
        let node = &self.machines[member].process.as_ref()?.node;
        if hello.to != node.id() {
            return Some(Answer::Reset);
        }
        if node.removed_members().contains(&hello.from) {
            return Some(Answer::Removed);
        }
        let known = || node.known_members().iter().any(|known| known.id == hello.from);
        (!node.listens_to_strangers(self.local(member)) && !known()).then_some(Answer::Reset)
    }

    /// A new connection replaces whatever there was of that member.
    fn greeted(&mut self, member: usize, from: usize, promise: Nanos) {
        let id = self.machines[from].id;
        if let Some(process) = &mut self.machines[member].process {
            process.node.on_peer_greeted(id, promise);
            self.turn_soon(member);
        }
    }

    /// A frame from `from` reaches the node of `member`.
    fn told(&mut self, member: usize, from: usize, frame: Frame) {
        let (now, id) = (self.local(member), self.machines[from].id);
        let Some(process) = &mut self.machines[member].process else { return };
        let done = match frame {
            Frame::Raft(message) => {
                process.node.on_message(message, now);
                Ok(())
            }
            Frame::Call(call) => process.node.on_peer_call(id, call, now),
            other => panic!("a greeting out of turn: {other:?}"),
        };
        match done {
            Ok(()) => self.turn_soon(member),
            Err(why) => self.stopped(member, &why),
        }
    }

    /// Something goes back over a connection.
    fn answer_dialler(&mut self, number: ConnNo, answer: Answer) {
        let Some(conn) = self.net.conns.get_mut(&number) else { return };
        let (from, to) = (conn.from, conn.to);
        if self.net.passes(to, from) {
            let delay = self.net.delay(to, from);
            self.after(delay, Event::Answer { conn: number, answer });
        } else {
            self.net.conns.get_mut(&number).expect("it was just there").held_answer = Some(answer);
        }
    }

    /// The dialler hears how its connection is.
    pub(super) fn close_dialled(&mut self, number: ConnNo, answer: Answer) {
        let Some(conn) = self.net.conns.get(&number) else { return };
        let (from, to) = (conn.from, conn.to);
        let state = self.net.dial_state(from, to);
        let (current, was_up) = match state {
            Dial::Dialled { conn, .. } => (conn, false),
            Dial::Up { conn } => (conn, true),
            Dial::Waiting { .. } => return,
        };
        if current != number {
            return;
        }
        if answer == Answer::Welcome {
            if !was_up {
                self.net.set_dial(from, to, Dial::Up { conn: number });
                self.trace.line(self.now, from as u64, || format!("is connected to {to}"));
            }
            return;
        }
        self.net.conns.remove(&number);
        if answer == Answer::Removed {
            self.machines[from].told_removed = true;
            self.turn_soon(from);
        }
        let again = self.net.dial_again(from, to, self.now);
        self.at(again, Event::Dial { from, to });
        if was_up {
            self.trace.line(self.now, from as u64, || format!("has lost its connection to {to}"));
            self.lost(from, to);
        }
    }

    fn lost(&mut self, member: usize, peer: usize) {
        let (now, id) = (self.local(member), self.machines[peer].id);
        if let Some(process) = &mut self.machines[member].process {
            process.node.on_peer_lost(id, now);
            self.turn_soon(member);
        }
    }

    /// A process ends, and the kernel of its machine says so to everybody; without power nobody says anything.
    pub(super) fn hang_up(&mut self, member: usize, power_lost: bool) {
        let numbers: Vec<ConnNo> = self.net.conns.keys().copied().collect();
        for number in numbers {
            let conn = self.net.conns.get_mut(&number).expect("the key was just listed");
            if conn.to == member && !power_lost {
                // From here on nobody holds that end; the dialler hears at once.
                conn.accepted_by = Some(0);
                conn.greeted = true;
                self.answer_dialler(number, Answer::Reset);
            } else if conn.to == member {
                conn.accepted_by = Some(0);
                conn.greeted = true;
            } else if conn.from == member && !power_lost {
                self.put_piece(number, Piece::End);
            } else if conn.from == member {
                // What the network card still held is gone; what was on its way arrives.
                conn.held.clear();
            }
        }
    }

    /// A link can be passed again: what was held up comes.
    pub(super) fn link_healed(&mut self, from: usize, to: usize) {
        if !self.net.passes(from, to) {
            return;
        }
        for number in self.net.between(from, to) {
            if self.net.conns[&number].held.is_empty() {
                continue;
            }
            let wait = self.net.resume_delay(from, to);
            let conn = self.net.conns.get_mut(&number).expect("the key was just listed");
            conn.arrives = conn.arrives.max(self.now + wait);
            conn.held_bytes = 0;
            let held = std::mem::take(&mut conn.held);
            for piece in held {
                self.put_piece(number, piece);
            }
        }
        for number in self.net.between(to, from) {
            let conn = self.net.conns.get_mut(&number).expect("the key was just listed");
            if let Some(answer) = conn.held_answer.take() {
                let wait = self.net.resume_delay(from, to);
                self.after(wait, Event::Answer { conn: number, answer });
            }
        }
    }
}
