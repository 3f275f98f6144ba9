//! The order of one turn: collect, then act.

use bytes::Bytes;

use super::{
    APPLY_ENTRIES_MAX, Asker, AutoCompaction, CHECKPOINT_DIRTY_BYTES, DIRTY_BYTES_MAX, DIRTY_BYTES_MIN, Job,
    Node, Outbound, Output, Question, RETRY, Read,
};
use crate::api::{Body, Command, ConnId, Fault, PeerCall, Reply, Tag, Txn, command};
use crate::base::planted;
use crate::base::time::{MS, SECOND};
use crate::base::{EntryId, Error, Mono, Result};
use crate::io::Disk;
use crate::raft::{Entry, EntryKind, Ready};

/// The next turn's replies are given room for as many as this turn's, up to here.
const REPLIES_EXPECTED_MAX: usize = 1_024;

/// Election timeouts without a leader after which a member ends its watches: a cluster that is whole has another leader by
/// then.
const CUT_OFF_ELECTIONS: u64 = 3;

impl<D: Disk> Node<D> {
    /// Everything that the events since the last turn make due. `now` was read after them.
    pub fn turn(&mut self, now: Mono) -> Result<Output<D>> {
        self.now = now;
        if self.is_silent() {
            return self.silent_turn();
        }
        // The end of its hand-over is not new damage: that would begin another one, and so on for ever.
        let hands_over = self.damage.is_some() && !planted::on("node-damaged-leader-stays");
        let done = if self.damage.is_some() { self.turn_damaged(now) } else { self.turn_whole(now) };
        match done.and_then(|()| self.failure.take().map_or(Ok(()), Err)) {
            Err(damage @ Error::Corrupt(_)) if self.damage.is_none() && !hands_over => {
                self.stop_for_damage(damage, now)?;
            }
            done => done?,
        }
        Ok(self.take_output())
    }

    fn turn_whole(&mut self, now: Mono) -> Result<()> {
        if now >= self.raft.deadline() {
            self.raft.tick(now, &self.log);
        }
        let leader = self.raft.standing().leader;
        if leader == self.id {
            self.led_at = now;
        }
        self.tally.see_leader(leader);
        self.expire(now);
        self.publish();
        self.compact_by_itself();
        self.send_writes();
        self.ask_for_read_index();
        self.ask_leader_about_leases();
        self.take_readies()?;
        self.apply()?;
        self.compare_states();
        self.keep_leases()?;
        self.mind_quota();
        self.look_after_locks()?;
        // What was applied may settle writes that a former leader lost, and let Raft go on.
        self.send_writes();
        self.take_readies()?;
        self.serve_reads();
        self.serve_streams();
        self.serve_watches()?;
        self.sweep()?;
        self.give_back_room()?;
        self.answer_second();
        self.answer_movers();
        self.stream_snapshots()?;
        self.advance_repair();
        self.keep_house()?;
        self.write_log();
        Ok(())
    }

    /// A member whose state is wrong tells the others its hash and no more, finishes what its disk was given, and marks
    /// the state.
    fn silent_turn(&mut self) -> Result<Output<D>> {
        self.serve_watches()?;
        self.keep_house()?;
        self.write_log();
        self.output.messages.clear();
        self.report_in_time();
        self.answer_movers();
        let mut output = self.take_output();
        output.again = false;
        Ok(output)
    }

    /// When the next turn is due if nothing happens before.
    pub fn deadline(&self) -> Mono {
        if self.damage.is_some() {
            return self.raft.deadline().min(self.hand_over_until());
        }
        let busy = self.store.checkpoint_running() || self.snapshots.installing();
        let checkpoint = if busy { Mono::NEVER } else { self.checkpoint_due };
        if self.is_silent() {
            let disk = checkpoint.min(self.checkpoint_retry_at);
            return disk.min(self.report_deadline()).min(self.movers_deadline());
        }
        // What only a leader can bring on waits for a message from one, not for the clock.
        let is_led = self.raft.standing().leader != 0;
        let publish = if self.is_published() || !is_led { Mono::NEVER } else { self.next_publish };
        [
            self.raft.deadline(),
            self.writes.deadline().unwrap_or(Mono::NEVER),
            self.writes.held_until(),
            self.reads.deadline(self.read_patience(), is_led, |write| self.writes.is_open(write)),
            self.leases_deadline(),
            self.watches_deadline(),
            self.sweep_deadline(),
            self.move_deadline(),
            self.locks_deadline(),
            self.streams_deadline(),
            self.snapshots.deadline(),
            self.movers_deadline(),
            self.report_deadline(),
            self.auto_compaction.as_ref().map_or(Mono::NEVER, AutoCompaction::deadline),
            checkpoint,
            self.checkpoint_retry_at,
            publish,
        ]
        .into_iter()
        .min()
        .expect("the list is not empty")
    }

    fn take_output(&mut self) -> Output<D> {
        self.tell_health();
        let stalled = self.damage.is_some() || self.snapshots.installing() || self.waits_for_checkpoint();
        let serves = self.damage.is_none() && !self.snapshots.installing();
        let asked = self.reads.has_ready() || self.streams.has_turns(self.now);
        let again = (serves && (asked || self.watches.has_work(self.store.revision())))
            || self.raft.has_ready()
            || self.has_chunks_to_send()
            || (!self.committed.is_empty() && !stalled);
        let empty = Output {
            // As many as now: a list that grows from nothing is moved several times.
            replies: Vec::with_capacity(self.output.replies.len().min(REPLIES_EXPECTED_MAX)),
            messages: Vec::new(),
            batches: Vec::new(),
            jobs: Vec::new(),
            members_changed: false,
            again: false,
        };
        self.streams.renew_budget(self.has_writes_under_way());
        let mut output = std::mem::replace(&mut self.output, empty);
        output.again = again;
        output
    }

    /// Answers what has waited until its deadline. A write that may have happened is told from one that did not.
    pub(super) fn expire(&mut self, now: Mono) {
        while let Some((write, perhaps)) = self.writes.expired(now) {
            let fault = if perhaps && !planted::on("node-unknown-told-as-refused") {
                Fault::timeout()
            } else {
                Fault::no_leader()
            };
            let body = Body::Fault(fault);
            self.note_write(&write, &body);
            self.answer_write(write.asker, body);
        }
        self.reads.give_up_attempts(self.now - self.read_patience());
        for read in self.reads.expired(now) {
            self.tally.counts.read_indexes_failed += u64::from(!read.question.is_serializable());
            if let Question::Lock(id) = read.question {
                self.end_waiter(id, Body::Fault(Fault::timeout()));
            } else if read.question.is_serializable() {
                self.answer_read(read);
            } else if read.question.may_have_happened() {
                self.fail(read.conn, read.tag, Fault::timeout());
            } else {
                self.fail(read.conn, read.tag, Fault::no_leader());
            }
        }
    }

    /// How long an attempt at a read index may stay unanswered.
    fn read_patience(&self) -> u64 {
        (self.config.election_timeout / 2).max(50 * MS)
    }

    /// A member tells the cluster its name and client URLs, until it sees them applied.
    fn publish(&mut self) {
        if self.is_published() || self.now < self.next_publish || self.raft.standing().leader == 0 {
            return;
        }
        self.next_publish = self.now + 5 * SECOND;
        let command = Command::Publish {
            member: self.id,
            name: self.config.name.clone(),
            client_urls: self.config.client_urls.clone(),
        };
        self.write(Asker::Member, &command, self.now + 5 * SECOND);
    }

    fn is_published(&self) -> bool {
        self.store.members().iter().any(|member| {
            member.id == self.id
                && member.name == self.config.name
                && member.client_urls == self.config.client_urls
        })
    }

    /// Writes go to the leader: this member's own core, or over the wire.
    fn send_writes(&mut self) {
        if self.writes.all_sent() {
            return;
        }
        let standing = self.raft.standing();
        if !self.writes.may_send(standing.term, self.now) {
            return;
        }
        if standing.leader == 0 || (self.leads() && self.raft.transferring()) {
            return;
        }
        if self.leads() && self.log_is_full() {
            for id in self.writes.take_unsent() {
                self.end_write(id, Body::Fault(Fault::no_space()));
            }
            return;
        }
        while self.writes.may_send(standing.term, self.now) {
            let number = self.proposal_number + 1;
            let payloads = self.writes.send_in(standing.term, number);
            if payloads.is_empty() {
                return;
            }
            self.proposal_number = number;
            if standing.leader != self.id {
                let call = PeerCall::Propose { term: standing.term, number, payloads };
                self.output.messages.push(Outbound::Call { to: standing.leader, call });
            } else {
                let refused = self.propose_here(payloads);
                self.take_refusals(number, refused);
            }
        }
    }

    pub(super) fn ask_for_read_index(&mut self) {
        let leader = self.raft.standing().leader;
        if leader == 0 {
            return;
        }
        while let Some(id) = self.reads.ask(self.now) {
            if leader != self.id {
                self.output.messages.push(Outbound::Call { to: leader, call: PeerCall::ReadIndex { id } });
            } else if self.raft.read_index(id, self.now).is_err() {
                self.reads.answered(id, None, self.now + RETRY);
            }
        }
    }

    /// Takes all that Raft wants done.
    pub(super) fn take_readies(&mut self) -> Result<()> {
        self.release_held();
        while let Some(ready) = self.raft.ready(&self.log) {
            self.take_ready(ready)?;
        }
        Ok(())
    }

    fn take_ready(&mut self, ready: Ready) -> Result<()> {
        let Ready { number, hard_state, entries, messages_now, messages_after, committed, reads, snapshots } =
            ready;
        self.introduce_to(messages_now.iter().chain(&messages_after));
        self.output.messages.extend(messages_now.into_iter().map(Outbound::Raft));
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Membership) {
            if self.leads() || !planted::on("node-follower-expects-nobody") {
                self.expect_member(entry)?;
            }
        }
        if hard_state.is_some() || !entries.is_empty() {
            self.hard_state = hard_state.unwrap_or(self.hard_state);
            self.batch_number += 1;
            self.waiting_batches.push(self.log.append(self.batch_number, hard_state, entries));
            self.unconfirmed.push_back((self.batch_number, number));
        }
        if !messages_after.is_empty() {
            self.held.push_back((self.batch_number, messages_after));
        }
        self.release_held();
        self.committed.extend(committed);
        for read in reads {
            match self.reads.take_remote(read.id) {
                Some((to, id)) => {
                    let call = PeerCall::ReadIndexReply { id, index: read.index };
                    self.output.messages.push(Outbound::Call { to, call });
                }
                None if self.lease_question_confirmed(read.id, read.index) => {}
                None => self.reads.answered(read.id, read.index, self.now + RETRY),
            }
        }
        for (peer, at_least) in snapshots {
            self.begin_snapshot(peer, at_least);
        }
        Ok(())
    }

    /// Claims of durability leave once they are true.
    pub(super) fn release_held(&mut self) {
        while self.held.front().is_some_and(|(number, _)| {
            *number <= self.durable_number || planted::on("node-claims-leave-early")
        }) {
            let (_, messages) = self.held.pop_front().expect("the front was just seen");
            self.output.messages.extend(messages.into_iter().map(Outbound::Raft));
        }
    }

    /// Applies committed entries in order, as many as a turn should.
    fn apply(&mut self) -> Result<()> {
        if self.snapshots.installing() {
            return Ok(()); // The store is about to be replaced by a later state.
        }
        for _ in 0..APPLY_ENTRIES_MAX {
            if self.waits_for_checkpoint() {
                break;
            }
            let Some(entry) = self.committed.pop_front() else { break };
            if entry.id.index <= self.store.applied().index {
                continue; // An installed snapshot covers it.
            }
            self.apply_entry(entry)?;
            self.remember_state();
        }
        self.raft.applied(self.store.applied().index);
        self.log.drop_held(self.store.applied().index + 1);
        Ok(())
    }

    /// A disk that is slower than the writers would let changed pages fill the memory: what is committed waits until
    /// the checkpoint under way has got on, and behind it all that is bounded in Raft and in front of it. Writers are
    /// slowed to the pace of the disk from the start; to be stopped at the end, for as long as a checkpoint takes, would
    /// come to the same on average, and be one put's delay in a hundred.
    pub(super) fn waits_for_checkpoint(&self) -> bool {
        let Some(share) = self.store.checkpoint_share() else { return false };
        // One that waits for room on the disk does not get on.
        let share = if self.checkpoint_retry_at == Mono::NEVER { share } else { 1.0 };
        let opened_bytes = (DIRTY_BYTES_MAX - DIRTY_BYTES_MIN) as f64 * share;
        self.store.dirty_bytes() >= DIRTY_BYTES_MIN + opened_bytes as u64
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<()> {
        self.checkpoint_some_time();
        self.entries_since_checkpoint += 1;
        let id = entry.id;
        if entry.kind == EntryKind::Membership {
            self.apply_membership(&entry)?;
            self.settle_term(id);
            return Ok(());
        }
        let payload = entry.payload;
        if payload.is_empty() {
            self.store.apply(id, None)?;
        } else {
            #[cfg_attr(not(feature = "sim"), expect(unused_mut))]
            let (origin, mut command) = command::decode(payload)
                .map_err(|why| Error::Refused(format!("entry {id} cannot be applied: {}", why.0)))?;
            #[cfg(feature = "sim")]
            self.misapply(id.index, &mut command);
            if origin.member == self.id {
                self.answer_before(origin.request_id);
            }
            let body = self.store.apply(id, Some(&command))?;
            self.tally.counts.note_applied(&command, &body);
            self.note_lease_command(&command, &body)?;
            self.locks.waiters.touch(&command);
            if origin.member == self.id {
                match (&command, body) {
                    (Command::Compact(compact), Body::Compacted { revision }) if compact.physical => {
                        self.await_sweep(origin.request_id, revision);
                    }
                    (_, body) => self.end_write(origin.request_id, body),
                }
            }
        }
        self.settle_term(id);
        Ok(())
    }

    /// The first entry of a term settles what became of writes that were sent before.
    fn settle_term(&mut self, id: EntryId) {
        if id.term > self.applied_term {
            self.applied_term = id.term;
            self.writes.settle(id.term);
        }
    }

    fn serve_reads(&mut self) {
        // Those that nobody waits for any more count, too: they are passed over here, and until then the next turn is due at once.
        let owes = self.reads.has_ready() && !planted::on("node-spins-for-who-has-gone");
        if (self.reads.waiting() == 0 && !owes) || self.snapshots.installing() {
            return;
        }
        self.reads.find_ready(self.store.applied().index, |id| self.writes.is_open(id));
        while let Some(read) = self.reads.next_ready() {
            self.answer_read(read);
        }
    }

    /// Tells watchers what was applied, and those behind what was applied before. Where this member must not answer,
    /// watches end: others know how to go on with them.
    pub(super) fn serve_watches(&mut self) -> Result<()> {
        if self.watches.is_empty() || self.snapshots.installing() {
            return Ok(());
        }
        let cut_off = self.now >= self.cut_off_at();
        let (header, refusal) = (self.header(), self.refusal(false).or(cut_off.then(Fault::no_leader)));
        let Node { watches, store, output, now, tally, .. } = self;
        let mut out = |conn, tag, body, more| {
            if let Body::Events { events, .. } = &body {
                tally.counts.events += events.len() as u64;
            }
            output.replies.push(Reply { conn, tag, header, body, more });
        };
        if let Some(fault) = refusal {
            if planted::on("watch-of-who-left-is-silent") {
                return Ok(());
            }
            watches.end_all(&fault, &mut out);
            return Ok(());
        }
        watches.feed(store, *now, &mut out)
    }

    /// When watchers are told something though nothing happens: not while a snapshot takes the place of what they watch.
    fn watches_deadline(&self) -> Mono {
        if self.watches.is_empty() || self.snapshots.installing() {
            return Mono::NEVER;
        }
        self.watches.deadline().min(self.cut_off_at())
    }

    /// When watches end because nobody leads this member any more: the others may be far ahead, or may have removed it
    /// without its having heard of that, and who watches here would never know.
    pub(super) fn cut_off_at(&self) -> Mono {
        if self.leads() || planted::on("watch-goes-on-without-a-leader") {
            return Mono::NEVER;
        }
        self.led_at + CUT_OFF_ELECTIONS * self.config.election_timeout
    }

    /// What came before a write is answered before it is applied, or not at all: later the answer would be wrong.
    fn answer_before(&mut self, write: u64) {
        for read in self.reads.before_write(write, |id| self.writes.is_open(id)) {
            self.answer_read(read);
        }
    }

    fn answer_read(&mut self, read: Read) {
        match read.question {
            Question::Range(range) => self.answer_range(read.conn, read.tag, &range),
            Question::Exists(keys) => self.answer_exists(read.conn, read.tag, &keys),
            Question::Txn(txn) => self.answer_txn(read.conn, read.tag, &txn),
            Question::Members => self.answer_members(read.conn, read.tag),
            Question::Lease(question) => self.answer_lease(read.conn, read.tag, &question),
            Question::Whole(whole) => self.answer_whole(read.conn, read.tag, whole),
            Question::Alarms => self.answer_alarms(read.conn, read.tag),
            Question::Observe(name) => self.observe(read.conn, read.tag, &name),
            Question::Lock(id) => {
                if let Err(damage) = self.confirm_lock(id) {
                    self.end_waiter(id, Body::Fault(Fault::corrupt()));
                    self.failure = Some(damage);
                }
            }
        }
    }

    pub(super) fn answer_exists(&mut self, conn: ConnId, tag: Tag, keys: &[Bytes]) {
        match self.store.exists(keys) {
            Ok(found) => self.reply(conn, tag, Body::Exists(found)),
            Err(damage) => self.fail_for_damage(conn, tag, damage),
        }
    }

    pub(super) fn answer_txn(&mut self, conn: ConnId, tag: Tag, txn: &Txn) {
        match self.store.read_txn(txn) {
            Ok(Ok(result)) => self.reply(conn, tag, Body::Txn(result)),
            Ok(Err(fault)) => self.fail(conn, tag, fault),
            Err(damage) => self.fail_for_damage(conn, tag, damage),
        }
    }

    /// The client learns that this member cannot answer; the member stops with the details.
    pub(super) fn fail_for_damage(&mut self, conn: ConnId, tag: Tag, damage: Error) {
        self.fail(conn, tag, Fault::corrupt());
        self.failure = Some(damage);
    }

    pub(super) fn answer_members(&mut self, conn: ConnId, tag: Tag) {
        let members = self.members().to_vec();
        self.reply(conn, tag, Body::Members(members));
    }

    /// Checkpoints, release of the log's head, chores.
    fn keep_house(&mut self) -> Result<()> {
        let due = self.now >= self.checkpoint_due
            || self.store.dirty_bytes() >= CHECKPOINT_DIRTY_BYTES
            || self.entries_since_checkpoint >= self.config.checkpoint_entries;
        if due && !self.store.checkpoint_running() && !self.snapshots.installing() {
            self.checkpoint_due = Mono::NEVER;
            self.entries_since_checkpoint = 0;
            match self.store.begin_checkpoint()? {
                Some(checkpoint) => self.output.jobs.push(Job::Checkpoint(checkpoint)),
                None => self.checkpoint_over(false),
            }
        }
        if self.now >= self.checkpoint_retry_at {
            self.checkpoint_retry_at = Mono::NEVER;
            self.output.jobs.push(Job::Checkpoint(self.store.retry_checkpoint()));
        }
        if self.promise.as_ref().is_some_and(|(from, _)| self.now >= *from) {
            let (_, record) = self.promise.take().expect("it was just seen");
            self.output.jobs.push(Job::Promise(record));
        }
        let catchup = self.store.applied().index.saturating_sub(self.config.catchup_entries);
        let sent = self.snapshots.oldest_sent().unwrap_or(catchup);
        let settled = if planted::on("node-log-released-before-the-tree") {
            self.store.applied().index
        } else {
            self.store.durable_applied()
        };
        self.log.release(settled.min(catchup).min(sent) + 1);
        if self.now >= self.chores_at {
            self.output.jobs.extend(self.log.chores().into_iter().map(Job::Chore));
        }
        Ok(())
    }

    /// While one batch syncs, the next one gathers: that is all there is to group commit. On a disk that may
    /// be full, what needs a new segment waits until one is ready: a write that finds no room ends the member.
    pub(super) fn write_log(&mut self) {
        if self.log_writer_busy || self.waiting_batches.is_empty() {
            return;
        }
        let mut count = self.waiting_batches.len();
        if !self.disk_empty {
            count = self.log.room_for(&mut self.waiting_batches);
        }
        let rest = self.waiting_batches.split_off(count);
        self.output.batches = std::mem::replace(&mut self.waiting_batches, rest);
        self.log_writer_busy = count > 0;
    }
}
