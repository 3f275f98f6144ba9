//! Leases of a cluster of one: what takes a clock, and what waits for the log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::api::{
    Alarm, AlarmChange, AlarmKind, Code, LeaseAnswer, LeaseRequest, LeaseTime, Put, Range, Span,
};
use crate::base::LeaseId;
use crate::io::sim::SimDisk;

/// A member, its disk and its clock. What it writes is durable when the test says so.
struct Rig {
    disk: SimDisk,
    opened: Opened<SimDisk>,
    now: Mono,
    unwritten: Vec<Batch>,
    next_tag: Tag,
    answers: BTreeMap<Tag, Body>,
}

/// Of a member that nothing hurries.
pub(super) fn config() -> Config {
    Config {
        name: "n1".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        tree_dir: PathBuf::from("/d"),
        wal_dir: PathBuf::from("/d/wal"),
        wal_segment_bytes: 1 << 20,
        tree_page_bytes: 4096,
        heartbeat_interval: 100 * MS,
        election_timeout: SECOND,
        pre_vote: true,
        lease_reads: true,
        catchup_entries: 1_000,
        checkpoint_entries: 100_000,
        sweep_work_max: 100,
        retention: None,
        watch_progress_interval: 600 * SECOND,
        watch_work: 1_000,
        quota_bytes: None,
        range_parts: PARTS,
        members: Rules::default(),
    }
}

fn open(disk: &SimDisk, now: Mono) -> Opened<SimDisk> {
    let member = Member { id: 1, peer_urls: vec!["http://127.0.0.1:2380".into()], ..Member::default() };
    let bootstrap = Bootstrap { cluster: 7, member: 1, members: vec![member], trust_disk: false };
    Node::open(disk, config(), &bootstrap, 42, now).unwrap()
}

impl Rig {
    fn new() -> Rig {
        let disk = SimDisk::new();
        let now = Mono(1_000 * SECOND);
        let opened = open(&disk, now);
        let (unwritten, answers) = (Vec::new(), BTreeMap::new());
        let mut rig = Rig { disk, opened, now, unwritten, next_tag: 0, answers };
        rig.wait(3 * SECOND);
        assert!(rig.opened.node.leads());
        rig
    }

    /// The process ends, and another one leads in a later term.
    fn restart(self) -> Rig {
        let Rig { disk, opened, now, next_tag, .. } = self;
        drop(opened);
        let disk = disk.point().kill_image();
        let opened = open(&disk, now);
        let (unwritten, answers) = (Vec::new(), BTreeMap::new());
        let mut rig = Rig { disk, opened, now, unwritten, next_tag, answers };
        rig.settle();
        assert!(rig.opened.node.leads());
        rig
    }

    /// One turn.
    fn turn(&mut self) -> bool {
        let output = self.opened.node.turn(self.now).unwrap();
        for job in output.jobs {
            self.opened.node.on_done(job.run(&|| ()).unwrap(), self.now).unwrap();
        }
        self.answers.extend(output.replies.into_iter().map(|reply| (reply.tag, reply.body)));
        self.unwritten.extend(output.batches);
        output.again || self.opened.node.deadline() <= self.now
    }

    /// What the member wants written becomes durable.
    fn write(&mut self) -> bool {
        let batches = std::mem::take(&mut self.unwritten);
        let any = !batches.is_empty();
        if any {
            let written = self.opened.log_writer.write(batches).unwrap();
            self.opened.node.on_written(written);
        }
        any
    }

    /// All that is to be done now; the number of turns.
    fn settle(&mut self) -> usize {
        for turns in 1..100_000 {
            let again = self.turn();
            if !self.write() && !again {
                return turns;
            }
        }
        panic!("the member never rests")
    }

    /// Time goes on, from one deadline to the next.
    fn wait(&mut self, length: Nanos) {
        let until = self.now + length;
        while self.now < until {
            self.settle();
            self.now = self.opened.node.deadline().max(self.now).min(until);
        }
        self.settle();
    }

    fn send(&mut self, request: Request) -> Tag {
        self.next_tag += 1;
        let call = Call::Request { tag: self.next_tag, request };
        self.opened.node.on_call(1, call, self.now);
        self.next_tag
    }

    fn ask(&mut self, request: Request) -> Body {
        let tag = self.send(request);
        self.settle();
        self.answers.remove(&tag).expect("everything that was written is answered")
    }

    fn lease(&mut self, request: LeaseRequest) -> LeaseAnswer {
        match self.ask(Request::Lease(request)) {
            Body::Lease(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn grant(&mut self, id: LeaseId, ttl_s: i64) -> (LeaseId, u64) {
        match self.lease(LeaseRequest::Grant { id, ttl_s }) {
            LeaseAnswer::Granted { id, ttl_s } => (id, ttl_s),
            other => panic!("{other:?}"),
        }
    }

    fn keep(&mut self, id: LeaseId) -> u64 {
        match self.lease(LeaseRequest::KeepAlive { ids: vec![id] }) {
            LeaseAnswer::Kept(ttls) => ttls[0],
            other => panic!("{other:?}"),
        }
    }

    fn remaining_s(&mut self, id: LeaseId) -> Option<u64> {
        match self.lease(LeaseRequest::TimeToLive { id, keys: false }) {
            LeaseAnswer::TimeToLive { time, .. } => time.map(|time| time.remaining_s),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, key: impl Into<Bytes>, lease: LeaseId) -> Body {
        self.ask(Request::Put(Put { key: key.into(), lease, ..Put::default() }))
    }

    fn count(&mut self) -> u64 {
        let range = Range { count_only: true, ..Range::new(Span::Prefix(Bytes::new())) };
        match self.ask(Request::Range(range)) {
            Body::Range(result) => result.count,
            other => panic!("{other:?}"),
        }
    }

    /// What the log says is left.
    fn noted_s(&self, id: LeaseId) -> u64 {
        self.opened.node.store.lease(id).unwrap().expect("the lease is there").remaining_s
    }
}

#[test]
fn the_least_ttl_is_etcds() {
    let mut rig = Rig::new();
    for (asked, granted) in [(60, 60), (2, 2), (1, 2), (0, 2), (-5, 2), (i64::MIN, 2)] {
        assert_eq!(rig.grant(0, asked).1, granted);
    }
    // Election timeout and heartbeat in milliseconds, as etcd's flags have them.
    for (election, heartbeat, least) in [(1_000, 100, 2), (1_000, 300, 2), (5_000, 500, 8), (100, 20, 1)] {
        let config =
            Config { election_timeout: election * MS, heartbeat_interval: heartbeat * MS, ..config() };
        assert_eq!(leases::ttl_s_min(&config), least, "{election} {heartbeat}");
    }
}

#[test]
fn an_id_that_nobody_chose_is_positive_and_new() {
    let mut rig = Rig::new();
    let mut ids: Vec<LeaseId> = (0..50).map(|_| rig.grant(0, 60).0).collect();
    assert!(ids.iter().all(|id| *id > 0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    assert_eq!(rig.lease(LeaseRequest::List), LeaseAnswer::List(ids));
}

#[test]
fn a_lease_ends_when_its_time_is_over_and_not_before() {
    let mut rig = Rig::new();
    rig.grant(7, 10);
    rig.put("k", 7);
    assert_eq!(rig.remaining_s(7), Some(10));
    rig.wait(4_500 * MS);
    assert_eq!(rig.remaining_s(7), Some(5));
    // This clock may be 2 % too fast.
    rig.wait(5_699 * MS);
    assert_eq!((rig.remaining_s(7), rig.count()), (Some(0), 1));
    rig.wait(MS);
    assert_eq!((rig.remaining_s(7), rig.keep(7), rig.count()), (None, 0, 0));
    assert!(matches!(rig.put("k", 7), Body::Fault(fault) if fault.code == Code::NoLease));
}

#[test]
fn a_renewal_begins_the_time_anew() {
    let mut rig = Rig::new();
    rig.grant(7, 10);
    for _ in 0..5 {
        rig.wait(8 * SECOND);
        assert_eq!(rig.keep(7), 10);
    }
    rig.wait(10_199 * MS);
    assert_eq!(rig.remaining_s(7), Some(0));
    rig.wait(MS);
    assert_eq!(rig.remaining_s(7), None);
}

#[test]
fn requests_on_one_connection_find_the_lease_that_was_granted_before_them() {
    let mut rig = Rig::new();
    let tags = [
        LeaseRequest::Grant { id: 7, ttl_s: 10 },
        LeaseRequest::KeepAlive { ids: vec![7, 8] },
        LeaseRequest::TimeToLive { id: 7, keys: true },
        LeaseRequest::List,
    ]
    .map(|request| rig.send(Request::Lease(request)));
    rig.settle();
    let answers = tags.map(|tag| rig.answers.remove(&tag).unwrap());
    let time = Some(LeaseTime { granted_s: 10, remaining_s: 10 });
    let expected = [
        LeaseAnswer::Granted { id: 7, ttl_s: 10 },
        LeaseAnswer::Kept(vec![10, 0]),
        LeaseAnswer::TimeToLive { id: 7, time, keys: Vec::new() },
        LeaseAnswer::List(vec![7]),
    ];
    assert_eq!(answers, expected.map(Body::Lease));
}

/// As in etcd: while the state is said to be wrong nothing changes, leases included; what is over goes as soon as the alarm ends.
#[test]
fn no_lease_ends_while_the_state_is_said_to_be_wrong() {
    let mut rig = Rig::new();
    let corrupt = Alarm { member: 0, kind: AlarmKind::Corrupt };
    let raise = || Request::AlarmChange(AlarmChange::Raise(corrupt));
    let end = || Request::AlarmChange(AlarmChange::End(corrupt));
    rig.grant(7, 10);
    rig.grant(8, 100);
    rig.put("k", 7);
    assert_eq!(rig.ask(raise()), Body::Alarms(vec![corrupt]));
    assert_eq!(rig.ask(Request::Lease(LeaseRequest::Revoke { id: 7 })), Body::Fault(Fault::corrupt()));
    rig.wait(30 * SECOND);
    assert_eq!((rig.remaining_s(7), rig.count()), (Some(0), 1));
    assert_eq!(rig.keep(8), 100, "time is another matter");
    assert_eq!(rig.ask(end()), Body::Alarms(vec![corrupt]));
    assert_eq!((rig.remaining_s(7), rig.count()), (None, 0));
    // The end of the other one stands in the log behind the alarm.
    rig.wait(101_999 * MS);
    rig.now = rig.now + MS;
    rig.send(raise());
    rig.settle();
    assert_eq!(rig.remaining_s(8), Some(0), "it was refused");
    rig.ask(end());
    assert_eq!(rig.remaining_s(8), None, "and decided anew");
}

/// Exactly one outcome, decided in the log.
#[test]
fn whoever_renews_a_lease_whose_end_is_in_the_log_learns_what_came_of_it() {
    let mut rig = Rig::new();
    rig.grant(7, 10);
    rig.put("k", 7);
    rig.now = rig.now + 10_200 * MS;
    rig.turn();
    let keep = rig.send(Request::Lease(LeaseRequest::KeepAlive { ids: vec![7] }));
    for _ in 0..5 {
        rig.turn();
    }
    assert_eq!(rig.answers.get(&keep), None);
    rig.settle();
    assert_eq!(rig.answers.remove(&keep), Some(Body::Lease(LeaseAnswer::Kept(vec![0]))));
}

#[test]
fn a_renewal_that_comes_before_the_end_is_proposed_is_in_time() {
    let mut rig = Rig::new();
    rig.grant(7, 10);
    rig.now = rig.now + 60 * SECOND; // The process stood still; what came meanwhile is read first.
    let keep = rig.send(Request::Lease(LeaseRequest::KeepAlive { ids: vec![7] }));
    rig.settle();
    assert_eq!(rig.answers.remove(&keep), Some(Body::Lease(LeaseAnswer::Kept(vec![10]))));
}

/// Whatever is noted of leases, a million that are renewed in time must cost no writes.
#[test]
fn a_lease_that_is_renewed_in_time_is_never_noted() {
    let mut rig = Rig::new();
    for (id, ttl_s) in [(1, 6), (2, 10), (3, 60), (4, 600)] {
        rig.grant(id, ttl_s);
    }
    let applied = rig.opened.node.store.applied();
    for second in 1..=600u64 {
        rig.wait(SECOND);
        for (id, ttl_s) in [(1, 6), (2, 10), (3, 60), (4, 600)] {
            if second.is_multiple_of(ttl_s / 3) {
                assert_eq!(rig.keep(id), ttl_s);
            }
        }
    }
    assert_eq!(rig.opened.node.store.applied(), applied);
}

#[test]
fn what_a_lease_has_left_is_noted_and_the_next_leader_goes_on_with_it() {
    let mut rig = Rig::new();
    rig.grant(7, 100);
    rig.wait(49 * SECOND);
    assert_eq!(rig.noted_s(7), 100, "it may still be renewed in time");
    rig.wait(8 * SECOND);
    let noted = rig.noted_s(7);
    assert!((43..=50).contains(&noted), "{noted}");
    let mut rig = rig.restart();
    assert_eq!(rig.remaining_s(7), Some(noted));
    // Under this one nobody has renewed it: that is noted soon.
    rig.wait(11 * SECOND);
    let before = noted;
    let noted = rig.noted_s(7);
    assert!((5..=11).contains(&(before - noted)), "{before} to {noted}");
    let mut rig = rig.restart();
    rig.wait(Nanos::from(noted) * 1_020 * MS - MS);
    assert_eq!(rig.remaining_s(7), Some(0));
    rig.wait(MS);
    assert_eq!(rig.remaining_s(7), None);
}

#[test]
fn a_lease_that_nobody_renews_ends_however_often_the_leader_changes() {
    let mut rig = Rig::new();
    rig.grant(7, 60);
    let mut changes = 0;
    while rig.remaining_s(7).is_some() {
        rig.wait(11 * SECOND);
        rig = rig.restart();
        changes += 1;
        assert!(changes < 15, "{} s are left", rig.noted_s(7));
    }
}

/// The renewal is answered when the next leader would know of it.
#[test]
fn a_renewal_of_a_lease_of_which_less_is_noted_goes_through_the_log() {
    let mut rig = Rig::new();
    rig.grant(7, 100);
    rig.wait(60 * SECOND);
    assert!(rig.noted_s(7) < 100);
    let keep = rig.send(Request::Lease(LeaseRequest::KeepAlive { ids: vec![7] }));
    for _ in 0..5 {
        rig.turn();
        assert_eq!(rig.answers.get(&keep), None);
    }
    rig.settle();
    assert_eq!(rig.answers.remove(&keep), Some(Body::Lease(LeaseAnswer::Kept(vec![100]))));
    assert_eq!(rig.noted_s(7), 100);
    let applied = rig.opened.node.store.applied();
    assert_eq!(rig.keep(7), 100);
    assert_eq!(rig.opened.node.store.applied(), applied, "the next one need not");
    let mut rig = rig.restart();
    assert_eq!(rig.remaining_s(7), Some(100));
}

/// No turn is long, whatever ends, and nobody waits for all of it.
#[test]
fn leases_that_end_together_are_ended_a_few_at_a_time() {
    let mut rig = Rig::new();
    let count = 3_000u32;
    for id in 1..=count {
        rig.send(Request::Lease(LeaseRequest::Grant { id: i64::from(id), ttl_s: 10 }));
        let key = Bytes::copy_from_slice(&id.to_be_bytes());
        rig.send(Request::Put(Put { key, lease: i64::from(id), ..Put::default() }));
    }
    rig.settle();
    assert_eq!(rig.count(), u64::from(count));
    rig.now = rig.now + 11 * SECOND;
    let put = rig.send(Request::Put(Put { key: "between".into(), ..Put::default() }));
    let (mut left, mut left_at_put) = (count as usize, 0);
    while left > 0 {
        rig.turn();
        let now = rig.opened.node.leases().unwrap().len();
        // Four entries of 128 leases and keys each are applied in one turn at most.
        assert!(left - now <= 4 * 64, "{left} to {now}");
        left = now;
        rig.write();
        if left_at_put == 0 && rig.answers.contains_key(&put) {
            left_at_put = left;
        }
    }
    assert!(left_at_put > 2_000, "a put waited until {left_at_put} were left");
    rig.settle();
    assert_eq!(rig.count(), 1);
}

#[test]
fn a_lease_with_more_keys_than_an_entry_should_end_ends_in_one() {
    let mut rig = Rig::new();
    rig.grant(7, 10);
    rig.grant(8, 10);
    for n in 0..500u32 {
        let key = Bytes::copy_from_slice(&n.to_be_bytes());
        rig.send(Request::Put(Put { key, lease: 7, ..Put::default() }));
    }
    rig.settle();
    let revision = rig.opened.node.revision();
    rig.wait(11 * SECOND);
    assert_eq!((rig.count(), rig.opened.node.revision()), (0, revision + 1));
    assert_eq!(rig.lease(LeaseRequest::List), LeaseAnswer::List(Vec::new()));
}

#[test]
fn the_keys_of_a_lease_are_told_all_of_them() {
    let mut rig = Rig::new();
    rig.grant(7, 1_000);
    for n in 0..20_000u32 {
        let key = Bytes::copy_from_slice(&n.to_be_bytes());
        rig.send(Request::Put(Put { key, lease: 7, ..Put::default() }));
    }
    rig.settle();
    let LeaseAnswer::TimeToLive { keys, .. } = rig.lease(LeaseRequest::TimeToLive { id: 7, keys: true })
    else {
        panic!("that is what was asked")
    };
    assert!(
        keys.iter().map(|key| &key[..]).eq((0..20_000u32).map(u32::to_be_bytes).collect::<Vec<_>>().iter())
    );
}

#[test]
fn leases_are_found_again_after_a_restart_a_slice_at_a_time() {
    let mut rig = Rig::new();
    for id in 1..=1_500 {
        rig.send(Request::Lease(LeaseRequest::Grant { id, ttl_s: 100 }));
    }
    rig.settle();
    let mut rig = rig.restart();
    rig.wait(102 * SECOND - MS);
    assert_eq!(rig.opened.node.leases().unwrap().len(), 1_500);
    rig.wait(SECOND);
    assert_eq!(rig.opened.node.leases().unwrap().len(), 0);
}

#[test]
fn the_longest_ttl_does_not_overflow() {
    let mut rig = Rig::new();
    assert_eq!(rig.grant(7, 9_000_000_000), (7, 9_000_000_000));
    assert_eq!(rig.remaining_s(7), Some(9_000_000_000));
    rig.wait(3_600 * SECOND);
    assert_eq!(rig.keep(7), 9_000_000_000);
    let mut rig = rig.restart();
    assert_eq!(rig.remaining_s(7), Some(9_000_000_000));
}
