//! What members ask of each other beside Raft: the forwarding that lets every member serve everything, and
//! the stream of a snapshot. Raft's own messages are `raft::Message`; `proto::peer` frames both.

use bytes::Bytes;

use super::{Fault, LeaseTime, LeaseWant, Member};
use crate::base::{EntryId, Index, Term};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerCall {
    /// To the leader of `term`: propose these payloads, in this order, in that term or not at all. Each begins with
    /// the asker's [`super::Origin`], by which the asker knows the entry again when it applies it. Because of the
    /// term the asker can settle a lost call: once an entry of a later term is applied, it never happened.
    /// `number` rises with every call over one connection: a call that arrives twice is taken once.
    Propose { term: Term, number: u64, payloads: Vec<Bytes> },
    /// From a member that is not the leader (any more): what call `number` brought was not and will not be proposed.
    /// It says nothing of another call that brought the same: a member that stood still for a while refuses
    /// what the asker has long since sent to the next leader.
    ProposeRefused { number: u64, request_ids: Vec<u64>, busy: bool },
    /// From the leader: this write was not and will not be proposed, for this reason.
    ProposeFailed { number: u64, request_id: u64, fault: Fault },
    /// To the leader: as of now, which index must be applied before a linearizable read may be served?
    /// `id` is never used twice by one member, also not across its restarts.
    ReadIndex { id: u64 },
    /// None: not the leader, or leadership could not be confirmed; ask again with a new id.
    ReadIndexReply { id: u64, index: Option<Index> },
    /// To the leader: begin the time of these leases anew, or tell it. `id` as in [`PeerCall::ReadIndex`].
    LeaseAsk { id: u64, wants: Vec<LeaseWant> },
    /// What became of each, in the same order (None: there is no such lease), and up to which index that was known. None:
    /// as in [`PeerCall::ReadIndexReply`].
    LeaseAnswer { id: u64, answer: Option<(Index, Vec<Option<LeaseTime>>)> },
    /// Behind entry `index` the sender's state has this hash: equal at all members, or one of them is wrong.
    /// `wrong`: the sender knows that it is the one.
    StateHash { index: Index, hash: u64, wrong: bool },
    /// The sender will stream its state as of `at`. `stream` is unique per attempt.
    SnapshotBegin { stream: u64, at: EntryId },
    /// Chunk `number` (from 0) of the stream; the bytes say themselves where the stream ends.
    SnapshotChunk { stream: u64, number: u64, bytes: Bytes },
    /// The receiver has taken everything below chunk `next`; `installed` when the state is durable and in use.
    SnapshotAck { stream: u64, next: u64, installed: bool },
    /// Either side gives the stream up; the sender may begin another one.
    SnapshotAbort { stream: u64 },
    /// From a candidate, and from a leader that hears nothing: everybody that it knows of, itself included. Who is
    /// asked may lag so far behind that it knows no way to answer.
    Introduce { members: Vec<Member> },
}
