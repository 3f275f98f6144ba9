//! Locks and elections, in clusters of one and of three whose messages and clocks are the test's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::*;
use crate::api::{
    Acquire, Code, Delete, KeyValue, LeaseAnswer, LeaseRequest, LockRequest, Put, Range, Span, lock,
};
use crate::base::{LeaseId, Revision};
use crate::io::sim::SimDisk;

struct Machine {
    opened: Opened<SimDisk>,
    unwritten: Vec<Batch>,
    inbox: VecDeque<(MemberId, Outbound)>,
    answers: BTreeMap<Tag, Body>,
    /// Of those that are answered again and again.
    told: BTreeMap<Tag, Vec<Body>>,
    /// Checkpoints wait here for the test to run them, if they do.
    checkpoints: Option<Vec<Job<SimDisk>>>,
}

/// Members, and one clock for all of them. Messages arrive at once, unless they are cut.
pub(super) struct Cluster {
    machines: BTreeMap<MemberId, Machine>,
    now: Mono,
    next_tag: Tag,
    /// What these send is lost, and what is sent to those.
    mute: BTreeSet<MemberId>,
    deaf: BTreeSet<MemberId>,
}

fn config(id: MemberId) -> Config {
    let (name, client_urls) = (format!("n{id}"), vec![format!("http://127.0.0.1:{id}")]);
    Config { name, client_urls, ..lease_tests::config() }
}

impl Cluster {
    pub(super) fn new(count: MemberId) -> Cluster {
        let now = Mono(1_000 * SECOND);
        let member =
            |id| Member { id, peer_urls: vec![format!("http://127.0.0.1:{id}")], ..Member::default() };
        let members: Vec<Member> = (1..=count).map(member).collect();
        let machine = |id| {
            let disk = SimDisk::new();
            let bootstrap = Bootstrap { cluster: 7, member: id, members: members.clone(), trust_disk: false };
            let opened = Node::open(&disk, config(id), &bootstrap, 42 + id, now).unwrap();
            let (unwritten, inbox, answers) = (Vec::new(), VecDeque::new(), BTreeMap::new());
            (id, Machine { opened, unwritten, inbox, answers, told: BTreeMap::new(), checkpoints: None })
        };
        let machines: BTreeMap<MemberId, Machine> = (1..=count).map(machine).collect();
        let (mute, deaf) = (BTreeSet::new(), BTreeSet::new());
        let mut cluster = Cluster { machines, now, next_tag: 0, mute, deaf };
        for (one, other) in (1..=count).flat_map(|one| (1..=count).map(move |other| (one, other))) {
            let promise = cluster.machines[&other].opened.node.promise();
            cluster.node(one).on_peer_greeted(other, promise);
        }
        cluster.wait(10 * SECOND);
        assert!(cluster.leader() != 0);
        cluster
    }

    pub(super) fn alone() -> Cluster {
        Cluster::new(1)
    }

    pub(super) fn node(&mut self, id: MemberId) -> &mut Node<SimDisk> {
        &mut self.machines.get_mut(&id).unwrap().opened.node
    }

    pub(super) fn leader(&self) -> MemberId {
        let leads = |(_, machine): &(&MemberId, &Machine)| machine.opened.node.leads();
        self.machines.iter().find(leads).map_or(0, |(id, _)| *id)
    }

    pub(super) fn follower(&self) -> MemberId {
        let leader = self.leader();
        *self.machines.keys().find(|id| **id != leader).unwrap()
    }

    /// One turn of one member, and its write. Whether it has more to do now.
    fn turn(&mut self, id: MemberId) -> bool {
        let now = self.now;
        let machine = self.machines.get_mut(&id).unwrap();
        let any = !machine.inbox.is_empty();
        for (from, message) in std::mem::take(&mut machine.inbox) {
            match message {
                Outbound::Raft(message) => machine.opened.node.on_message(message, now),
                Outbound::Call { call, .. } => machine.opened.node.on_peer_call(from, call, now).unwrap(),
            }
        }
        let output = machine.opened.node.turn(now).unwrap();
        for job in output.jobs {
            match &mut machine.checkpoints {
                Some(kept) if matches!(job, Job::Checkpoint(_)) => kept.push(job),
                _ => machine.opened.node.on_done(job.run(&|| ()).unwrap(), now).unwrap(),
            }
        }
        for reply in output.replies {
            if reply.more || machine.told.contains_key(&reply.tag) {
                machine.told.entry(reply.tag).or_default().push(reply.body);
                continue;
            }
            assert_eq!(machine.answers.insert(reply.tag, reply.body), None, "answered twice");
        }
        machine.unwritten.extend(output.batches);
        let batches = std::mem::take(&mut machine.unwritten);
        let wrote = !batches.is_empty();
        if wrote {
            let written = machine.opened.log_writer.write(batches).unwrap();
            machine.opened.node.on_written(written);
        }
        let more = output.again || machine.opened.node.deadline() <= now;
        for message in output.messages {
            let to = message.to();
            if !self.mute.contains(&id) && !self.deaf.contains(&to) {
                self.machines.get_mut(&to).unwrap().inbox.push_back((id, message));
            }
        }
        any || wrote || more
    }

    /// All that is to be done now.
    fn settle(&mut self) {
        let ids: Vec<MemberId> = self.machines.keys().copied().collect();
        for _ in 0..10_000 {
            let busy: Vec<bool> = ids.iter().map(|id| self.turn(*id)).collect();
            let arrived = self.machines.values().any(|machine| !machine.inbox.is_empty());
            if !arrived && !busy.contains(&true) {
                return;
            }
        }
        panic!("the members never rest")
    }

    pub(super) fn wait(&mut self, length: Nanos) {
        let until = self.now + length;
        while self.now < until {
            self.settle();
            let next = self.machines.values().map(|machine| machine.opened.node.deadline()).min();
            self.now = next.unwrap().max(self.now + MS).min(until);
        }
        self.settle();
    }

    pub(super) fn send_to(&mut self, member: MemberId, conn: ConnId, request: Request) -> Tag {
        self.next_tag += 1;
        let (tag, now) = (self.next_tag, self.now);
        self.node(member).on_call(conn, Call::Request { tag, request }, now);
        tag
    }

    /// To the leader, over a connection of its own.
    pub(super) fn send(&mut self, request: Request) -> Tag {
        let (leader, conn) = (self.leader(), 1_000 + self.next_tag);
        self.send_to(leader, conn, request)
    }

    pub(super) fn answer(&mut self, tag: Tag) -> Option<Body> {
        self.settle();
        self.machines.values_mut().find_map(|machine| machine.answers.remove(&tag))
    }

    pub(super) fn ask(&mut self, request: Request) -> Body {
        let tag = self.send(request);
        self.answer(tag).expect("it need not wait")
    }

    /// From now on a member's checkpoints are the test's to run; those that wait to be run.
    pub(super) fn kept_checkpoints(&mut self, id: MemberId) -> &mut Vec<Job<SimDisk>> {
        self.machines.get_mut(&id).unwrap().checkpoints.get_or_insert_default()
    }

    pub(super) fn checkpoint_ended(&mut self, id: MemberId, done: Done) {
        let now = self.now;
        self.node(id).on_done(done, now).unwrap();
    }

    /// Nothing that this member says is heard, and it hears nothing.
    pub(super) fn cut_off(&mut self, id: MemberId) {
        self.mute.insert(id);
        self.deaf.insert(id);
    }

    pub(super) fn heal(&mut self) {
        (self.mute, self.deaf) = (BTreeSet::new(), BTreeSet::new());
    }

    /// What was told under a tag since the last look.
    pub(super) fn bodies(&mut self, tag: Tag) -> Vec<Body> {
        self.settle();
        let all = self.machines.values_mut().find_map(|machine| machine.told.get_mut(&tag));
        all.map(std::mem::take).unwrap_or_default()
    }

    fn told(&mut self, tag: Tag) -> Vec<String> {
        let shown = |body: Body| match body {
            Body::Observing { leader: None, .. } => "nobody".into(),
            Body::Observing { leader: Some(kv), .. } | Body::Leads { leader: kv, .. } => {
                format!("{} {}", kv.key.escape_ascii(), kv.value.escape_ascii())
            }
            Body::Unwatched { fault, .. } => fault.code.word().into(),
            other => panic!("{other:?}"),
        };
        self.bodies(tag).into_iter().map(shown).collect()
    }

    fn grant(&mut self, id: LeaseId, ttl_s: i64) {
        let granted = self.ask(Request::Lease(LeaseRequest::Grant { id, ttl_s }));
        assert!(matches!(granted, Body::Lease(LeaseAnswer::Granted { .. })), "{granted:?}");
    }

    fn revoke(&mut self, id: LeaseId) {
        let revoked = self.ask(Request::Lease(LeaseRequest::Revoke { id }));
        assert!(matches!(revoked, Body::Lease(LeaseAnswer::Revoked { .. })), "{revoked:?}");
    }

    fn release(&mut self, key: &Bytes) {
        let released = self.ask(Request::Lock(LockRequest::Release { key: key.clone() }));
        assert!(matches!(released, Body::Delete { .. }), "{released:?}");
    }

    /// What is under a name: the keys, the oldest first.
    fn under(&mut self, name: &str) -> Vec<KeyValue> {
        let range = Range::new(Span::Prefix(format!("{name}/").into()));
        match self.ask(Request::Range(range)) {
            Body::Range(mut result) => {
                result.kvs.sort_by_key(|kv| kv.create_revision);
                result.kvs
            }
            other => panic!("{other:?}"),
        }
    }

    fn keys(&mut self, name: &str) -> Vec<Bytes> {
        self.under(name).into_iter().map(|kv| kv.key).collect()
    }

    pub(super) fn revision(&mut self) -> Revision {
        let leader = self.leader();
        self.node(leader).revision()
    }
}

fn acquire(name: &str, lease: LeaseId, wait_ms: Option<u64>) -> Request {
    let acquire =
        Acquire { name: Bytes::copy_from_slice(name.as_bytes()), lease, wait_ms, ..Acquire::default() };
    Request::Lock(LockRequest::Acquire(acquire))
}

fn locks(lease: LeaseId) -> Request {
    acquire("n", lease, None)
}

fn campaigns(lease: LeaseId, value: &'static str) -> Request {
    let (name, value) = (Bytes::from("n"), Bytes::from(value));
    Request::Lock(LockRequest::Acquire(Acquire { name, value, lease, wait_ms: None, campaign: true }))
}

fn held(body: Option<Body>) -> (Bytes, Revision) {
    match body {
        Some(Body::Acquired { key, revision }) => (key, revision),
        other => panic!("{other:?}"),
    }
}

fn code(body: Option<Body>) -> Option<Code> {
    match body? {
        Body::Fault(fault) => Some(fault.code),
        other => panic!("{other:?}"),
    }
}

fn key(lease: LeaseId) -> Bytes {
    lock::lock_key(b"n", lease)
}

#[test]
fn a_free_lock_is_granted_with_the_revision_in_which_its_key_was_created() {
    let mut cluster = Cluster::alone();
    cluster.grant(26, 60);
    let revision = cluster.revision();
    let tag = cluster.send(locks(26));
    assert_eq!(held(cluster.answer(tag)), ("n/1a".into(), revision + 1));
    let there = cluster.under("n");
    assert_eq!((there[0].create_revision, there[0].lease), (revision + 1, 26));
}

#[test]
fn owners_follow_each_other_as_they_came_and_their_revisions_rise() {
    let mut cluster = Cluster::alone();
    (1..=4).for_each(|lease| cluster.grant(lease, 60));
    let tags = [3, 1, 4, 2].map(|lease| (lease, cluster.send(locks(lease))));
    let mut last = 0;
    for (at, (lease, tag)) in tags.into_iter().enumerate() {
        let (own, revision) = held(cluster.answer(tag));
        assert_eq!(own, key(lease));
        assert!(revision > last);
        last = revision;
        for (_, waits) in &tags[at + 1..] {
            assert_eq!(cluster.answer(*waits), None);
        }
        cluster.release(&own);
    }
    assert_eq!(cluster.keys("n"), Vec::<Bytes>::new());
}

#[test]
fn a_lock_waits_for_nobody_of_another_name() {
    let mut cluster = Cluster::alone();
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let one = cluster.send(acquire("n", 1, None));
    let other = cluster.send(acquire("nn", 2, None));
    assert_eq!(held(cluster.answer(one)).0, "n/1");
    assert_eq!(held(cluster.answer(other)).0, "nn/2");
}

#[test]
fn a_lease_that_is_not_there_gets_no_lock() {
    let mut cluster = Cluster::alone();
    for wait_ms in [None, Some(0), Some(10)] {
        let tag = cluster.send(acquire("n", 5, wait_ms));
        assert_eq!(code(cluster.answer(tag)), Some(Code::NoLease));
    }
    assert_eq!(cluster.keys("n"), Vec::<Bytes>::new());
}

/// It ends while it waits; and then it is not the first, whoever gives the lock back.
#[test]
fn a_lease_that_ends_while_it_waits_gets_no_lock() {
    let mut cluster = Cluster::alone();
    cluster.grant(1, 600);
    cluster.grant(2, 10);
    cluster.grant(3, 600);
    let first = cluster.send(locks(1));
    let second = cluster.send(locks(2));
    let third = cluster.send(locks(3));
    held(cluster.answer(first));
    cluster.wait(10 * SECOND);
    assert_eq!(cluster.answer(second), None);
    cluster.wait(SECOND);
    assert_eq!(code(cluster.answer(second)), Some(Code::NoLease));
    assert_eq!(cluster.answer(third), None, "the first still has it");
    cluster.release(&key(1));
    held(cluster.answer(third));
}

#[test]
fn a_lease_that_is_revoked_while_it_waits_gets_no_lock() {
    let mut cluster = Cluster::alone();
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let first = cluster.send(locks(1));
    let second = cluster.send(locks(2));
    held(cluster.answer(first));
    cluster.revoke(2);
    assert_eq!(code(cluster.answer(second)), Some(Code::NoLease));
}

/// Nobody gives it back: the owner is gone.
#[test]
fn the_end_of_the_owners_lease_hands_the_lock_on() {
    let mut cluster = Cluster::alone();
    cluster.grant(1, 10);
    (2..=3).for_each(|lease| cluster.grant(lease, 60));
    let tags = [1, 2, 3].map(|lease| cluster.send(locks(lease)));
    held(cluster.answer(tags[0]));
    cluster.wait(10 * SECOND);
    assert_eq!(cluster.answer(tags[1]), None);
    cluster.wait(SECOND);
    held(cluster.answer(tags[1]));
    cluster.revoke(2);
    held(cluster.answer(tags[2]));
}

#[test]
fn whoever_loses_its_key_while_it_waits_is_told() {
    let mut cluster = Cluster::alone();
    (1..=3).for_each(|lease| cluster.grant(lease, 60));
    let tags = [1, 2, 3].map(|lease| cluster.send(locks(lease)));
    held(cluster.answer(tags[0]));
    cluster.release(&key(2));
    assert_eq!(code(cluster.answer(tags[1])), Some(Code::NoKey));
    assert_eq!(cluster.answer(tags[2]), None, "the one before it is another one now");
    let everything = Delete { span: Span::Prefix("n/".into()), prev_kv: false };
    cluster.ask(Request::Delete(everything));
    assert_eq!(code(cluster.answer(tags[2])), Some(Code::NoKey));
}

/// Somebody else's put has taken it away from the lease: then it would stay when that ends.
#[test]
fn a_key_that_no_longer_goes_with_the_lease_gets_no_lock() {
    let mut cluster = Cluster::alone();
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let tags = [1, 2].map(|lease| cluster.send(locks(lease)));
    held(cluster.answer(tags[0]));
    cluster.ask(Request::Put(Put { key: key(2), ..Put::default() }));
    assert_eq!(code(cluster.answer(tags[1])), Some(Code::NoKey));
}

#[test]
fn whoever_waits_no_longer_takes_its_key_back() {
    let mut cluster = Cluster::alone();
    (1..=3).for_each(|lease| cluster.grant(lease, 60));
    let first = cluster.send(locks(1));
    held(cluster.answer(first));
    let second = cluster.send(acquire("n", 2, Some(500)));
    let third = cluster.send(locks(3));
    cluster.wait(499 * MS);
    assert_eq!(cluster.answer(second), None);
    cluster.wait(2 * MS);
    assert_eq!(code(cluster.answer(second)), Some(Code::Busy));
    assert_eq!(cluster.keys("n"), [key(1), key(3)]);
    cluster.release(&key(1));
    held(cluster.answer(third));
}

#[test]
fn whoever_does_not_wait_leaves_no_trace() {
    let mut cluster = Cluster::alone();
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let first = cluster.send(acquire("n", 1, Some(0)));
    let (_, revision) = held(cluster.answer(first));
    let second = cluster.send(acquire("n", 2, Some(0)));
    assert_eq!(code(cluster.answer(second)), Some(Code::Busy));
    assert_eq!(cluster.revision(), revision, "nothing was written");
    // And whoever has it has it, however often it asks.
    let again = cluster.send(acquire("n", 1, Some(0)));
    assert_eq!(held(cluster.answer(again)), (key(1), revision));
}

#[test]
fn to_ask_again_is_to_keep_the_place() {
    let mut cluster = Cluster::alone();
    (1..=3).for_each(|lease| cluster.grant(lease, 60));
    let first = cluster.send(locks(1));
    let (_, revision) = held(cluster.answer(first));
    let again = cluster.send(locks(1));
    assert_eq!(held(cluster.answer(again)), (key(1), revision));
    let leader = cluster.leader();
    let second = cluster.send_to(leader, 2, locks(2));
    let third = cluster.send(locks(3));
    cluster.settle();
    // Its connection breaks, but not before it has asked over another one.
    let second_again = cluster.send(locks(2));
    cluster.settle();
    cluster.node(leader).on_disconnect(2);
    cluster.settle();
    assert_eq!(cluster.keys("n"), [1, 2, 3].map(key));
    cluster.release(&key(1));
    held(cluster.answer(second_again));
    assert_eq!((cluster.answer(second), cluster.answer(third)), (None, None));
}

#[test]
fn a_connection_that_goes_takes_its_key_along() {
    let mut cluster = Cluster::alone();
    (1..=4).for_each(|lease| cluster.grant(lease, 60));
    let leader = cluster.leader();
    let first = cluster.send(locks(1));
    held(cluster.answer(first));
    cluster.send_to(leader, 2, locks(2));
    let third = cluster.send(locks(3));
    cluster.settle();
    cluster.node(leader).on_disconnect(2);
    cluster.settle();
    assert_eq!(cluster.keys("n"), [key(1), key(3)]);
    // One that goes before its key is there.
    cluster.send_to(leader, 4, locks(4));
    cluster.node(leader).on_disconnect(4);
    cluster.settle();
    assert_eq!(cluster.keys("n"), [key(1), key(3)]);
    cluster.release(&key(1));
    held(cluster.answer(third));
    assert!(cluster.node(leader).locks.waiters.is_empty());
}

#[test]
fn a_wait_that_is_cancelled_ends_unless_it_is_over() {
    let mut cluster = Cluster::alone();
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let leader = cluster.leader();
    let (first, now) = (cluster.send_to(leader, 1, locks(1)), cluster.now);
    cluster.node(leader).on_call(1, Call::Cancel { tag: first }, now);
    held(cluster.answer(first));
    let second = cluster.send_to(leader, 2, locks(2));
    cluster.settle();
    cluster.node(leader).on_call(2, Call::Cancel { tag: second }, now);
    assert_eq!(code(cluster.answer(second)), Some(Code::Busy));
    assert_eq!(cluster.keys("n"), [key(1)]);
}

#[test]
fn an_election_has_a_value() {
    let mut cluster = Cluster::alone();
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let leader =
        |cluster: &mut Cluster| match cluster.ask(Request::Lock(LockRequest::Leader { name: "n".into() })) {
            Body::Range(result) => result.kvs.first().map(|kv| (kv.key.clone(), kv.value.clone())),
            other => panic!("{other:?}"),
        };
    assert_eq!(leader(&mut cluster), None);
    let proclaim =
        |value: &'static str| Request::Lock(LockRequest::Proclaim { key: key(2), value: value.into() });
    assert_eq!(code(Some(cluster.ask(proclaim("too early")))), Some(Code::NoKey));
    let tags = [(2, "b"), (1, "a")].map(|(lease, value)| cluster.send(campaigns(lease, value)));
    let (_, revision) = held(cluster.answer(tags[0]));
    assert_eq!(leader(&mut cluster), Some((key(2), "b".into())));
    cluster.ask(proclaim("b2"));
    assert_eq!(leader(&mut cluster), Some((key(2), "b2".into())));
    let there = cluster.under("n");
    assert_eq!((there[0].create_revision, there[0].lease), (revision, 2), "it is the same place");
    assert_eq!(cluster.answer(tags[1]), None);
    cluster.release(&key(2));
    held(cluster.answer(tags[1]));
    assert_eq!(leader(&mut cluster), Some((key(1), "a".into())));
}

/// The room for them is bounded.
#[test]
fn too_many_who_wait_are_refused() {
    let mut cluster = Cluster::alone();
    (1..=2).for_each(|lease| cluster.grant(lease, 600));
    let name = |n: u64| format!("{n}-{}", "x".repeat(1_000_000));
    let held_by_first: Vec<Tag> = (0..80).map(|n| cluster.send(acquire(&name(n), 1, None))).collect();
    for tag in held_by_first {
        assert!(cluster.answer(tag).is_some());
    }
    let mut refused = 0;
    for n in 0..80 {
        let tag = cluster.send(acquire(&name(n), 2, None));
        refused += usize::from(code(cluster.answer(tag)) == Some(Code::Busy));
    }
    assert!((10..60).contains(&refused), "{refused}");
}

#[test]
fn a_member_that_stops_sends_away_who_waits_and_the_place_is_kept() {
    let mut cluster = Cluster::new(3);
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let first = cluster.send(locks(1));
    held(cluster.answer(first));
    let follower = cluster.follower();
    let second = cluster.send_to(follower, 2, locks(2));
    cluster.settle();
    let now = cluster.now;
    cluster.node(follower).stop(now);
    assert_eq!(code(cluster.answer(second)), Some(Code::Shutdown));
    assert_eq!(cluster.keys("n"), [key(1), key(2)]);
    let late = cluster.send_to(follower, 3, locks(2));
    assert_eq!(code(cluster.answer(late)), Some(Code::Shutdown));
    let elsewhere = cluster.send(locks(2));
    cluster.settle();
    cluster.release(&key(1));
    held(cluster.answer(elsewhere));
}

#[test]
fn any_member_waits_through_a_change_of_leader() {
    let mut cluster = Cluster::new(3);
    (1..=2).for_each(|lease| cluster.grant(lease, 60));
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let first = cluster.send_to(follower, 1, locks(1));
    held(cluster.answer(first));
    let second = cluster.send_to(follower, 2, locks(2));
    cluster.settle();
    cluster.mute.insert(leader);
    cluster.deaf.insert(leader);
    cluster.wait(5 * SECOND);
    let other = 6 - leader - follower;
    let released = cluster.send_to(other, 3, Request::Lock(LockRequest::Release { key: key(1) }));
    assert!(matches!(cluster.answer(released), Some(Body::Delete { deleted: 1, .. })));
    held(cluster.answer(second));
}

/// What was once so is no longer known to be.
#[test]
fn a_member_that_is_cut_off_grants_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.grant(1, 600);
    cluster.grant(2, 10);
    let first = cluster.send(locks(1));
    held(cluster.answer(first));
    let follower = cluster.follower();
    let second = cluster.send_to(follower, 2, locks(2));
    cluster.settle();
    // It still hears that the lock is given back, and then nothing more.
    cluster.mute.insert(follower);
    cluster.release(&key(1));
    cluster.wait(150 * MS);
    assert_eq!(cluster.node(follower).revision(), cluster.revision(), "it has applied that");
    assert_eq!(cluster.answer(second), None);
    cluster.deaf.insert(follower);
    cluster.wait(30 * SECOND);
    assert_eq!(code(cluster.answer(second)), Some(Code::Timeout), "it cannot tell");
    (cluster.mute, cluster.deaf) = (BTreeSet::new(), BTreeSet::new());
    cluster.wait(10 * SECOND);
    assert_eq!(cluster.answer(second), None);
    assert_eq!(cluster.keys("n"), Vec::<Bytes>::new(), "the lease has ended");
}

#[test]
fn whoever_waits_at_a_member_without_a_leader_can_go_on_elsewhere() {
    let mut cluster = Cluster::new(3);
    (1..=2).for_each(|lease| cluster.grant(lease, 600));
    let first = cluster.send(locks(1));
    held(cluster.answer(first));
    let follower = cluster.follower();
    let second = cluster.send_to(follower, 2, locks(2));
    cluster.settle();
    cluster.mute.insert(follower);
    cluster.deaf.insert(follower);
    cluster.wait(5 * SECOND);
    assert_eq!(cluster.answer(second), None, "a leader may be found again");
    cluster.wait(10 * SECOND);
    assert_eq!(code(cluster.answer(second)), Some(Code::Timeout));
    let elsewhere = cluster.send(locks(2));
    cluster.settle();
    assert_eq!(cluster.keys("n"), [key(1), key(2)]);
    cluster.release(&key(1));
    held(cluster.answer(elsewhere));
}

/// Reads and writes of one connection keep their places among its locks.
#[test]
fn a_lock_takes_its_place_among_the_requests_of_its_connection() {
    let mut cluster = Cluster::new(3);
    cluster.grant(1, 60);
    let follower = cluster.follower();
    let get = Request::Range(Range::new(Span::Key(key(1))));
    let tags = [get.clone(), locks(1), get].map(|request| cluster.send_to(follower, 1, request));
    let count = |body: Option<Body>| match body {
        Some(Body::Range(result)) => result.count,
        other => panic!("{other:?}"),
    };
    let answers = tags.map(|tag| cluster.answer(tag));
    let [before, lock, after] = answers;
    assert_eq!((count(before), count(after)), (0, 1));
    held(lock);
}

fn observes() -> Request {
    Request::Lock(LockRequest::Observe { name: "n".into() })
}

#[test]
fn an_observer_is_told_who_leads_and_then_who_leads_next() {
    let mut cluster = Cluster::new(3);
    (1..=3).for_each(|lease| cluster.grant(lease, 600));
    let follower = cluster.follower();
    let early = cluster.send_to(follower, 1, observes());
    assert_eq!(cluster.told(early), ["nobody"]);
    let first = cluster.send(campaigns(1, "anna"));
    held(cluster.answer(first));
    let late = cluster.send(observes());
    assert_eq!((cluster.told(early), cluster.told(late)), (vec!["n/1 anna".into()], vec!["n/1 anna".into()]));
    let waiting = [cluster.send(campaigns(2, "bob")), cluster.send(campaigns(3, "carl"))];
    cluster.ask(Request::Lock(LockRequest::Proclaim { key: key(1), value: "anna again".into() }));
    cluster.revoke(2);
    cluster.release(&key(1));
    cluster.release(&key(3));
    for tag in [early, late] {
        assert_eq!(cluster.told(tag), ["n/1 anna again", "n/3 carl"]);
    }
    assert_eq!(code(cluster.answer(waiting[0])), Some(Code::NoLease));
    held(cluster.answer(waiting[1]));
    let again = cluster.send(campaigns(3, "carl again"));
    held(cluster.answer(again));
    assert_eq!(cluster.told(early), ["n/3 carl again"]);
    // What it was told last is of a connection that is gone.
    cluster.node(follower).on_disconnect(1);
    cluster.release(&key(3));
    let other = cluster.send(campaigns(1, "anna"));
    held(cluster.answer(other));
    assert_eq!((cluster.told(early), cluster.told(late).len()), (vec![], 2));
}

/// A leader of long ago is nobody to be told of.
#[test]
fn a_member_that_is_cut_off_begins_no_observation_and_ends_those_it_has() {
    let mut cluster = Cluster::new(3);
    cluster.grant(1, 600);
    let follower = cluster.follower();
    let early = cluster.send_to(follower, 1, observes());
    assert_eq!(cluster.told(early), ["nobody"]);
    cluster.mute.insert(follower);
    cluster.deaf.insert(follower);
    let first = cluster.send(campaigns(1, "anna"));
    held(cluster.answer(first));
    let late = cluster.send_to(follower, 2, observes());
    assert_eq!(cluster.told(late), Vec::<String>::new());
    cluster.wait(30 * SECOND);
    assert_eq!(cluster.told(early), ["NOLEADER"]);
    assert_eq!(code(cluster.answer(late)), Some(Code::NoLeader));
    let later = cluster.send_to(follower, 2, observes());
    assert_eq!(code(cluster.answer(later)), Some(Code::NoLeader), "at once");
}

#[test]
fn what_is_cancelled_before_it_begins_never_begins() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let tag = cluster.send_to(follower, 1, observes());
    let now = cluster.now;
    cluster.node(follower).on_call(1, Call::Cancel { tag }, now);
    cluster.settle();
    assert_eq!((cluster.told(tag), cluster.answer(tag)), (vec![], None));
    assert!(cluster.node(follower).watches.is_empty());
}
