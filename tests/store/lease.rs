//! Leases in the store: what etcd promises of them, what a leader's word is worth, and what survives.

use super::snapshot::{install, send};
use super::*;
use pawl::api::{Code, LeaseAnswer, LeaseRef, Range};
use pawl::store::Lease;

struct Rig {
    disk: SimDisk,
    store: Store<SimDisk>,
    term: u64,
}

fn new_rig() -> Rig {
    let disk = disk();
    let store = new_store(&disk, 4096);
    Rig { disk, store, term: 1 }
}

impl Rig {
    fn apply(&mut self, command: &Command) -> Body {
        let next = EntryId::new(self.term, self.store.applied().index + 1);
        self.store.apply(next, Some(command)).unwrap()
    }

    /// The generation of the lease.
    fn grant(&mut self, id: i64, ttl_s: u64) -> u64 {
        let body = self.apply(&Command::LeaseGrant { id, ttl_s });
        assert_eq!(body, Body::Lease(LeaseAnswer::Granted { id, ttl_s }));
        self.store.applied().index
    }

    fn put(&mut self, key: &'static str, lease: i64) -> Body {
        self.apply(&Command::Put(Put { key: key.into(), lease, ..Put::default() }))
    }

    /// A client's.
    fn revoke(&mut self, id: i64) -> Body {
        self.apply(&Command::LeaseRevoke { term: 0, leases: vec![LeaseRef { id, generation: 0 }] })
    }

    /// A leader's.
    fn end(&mut self, term: u64, leases: &[(i64, u64)]) -> Body {
        let leases = leases.iter().map(|&(id, generation)| LeaseRef { id, generation }).collect();
        self.apply(&Command::LeaseRevoke { term, leases })
    }

    fn checkpoint(&mut self, term: u64, id: i64, generation: u64, remaining_s: u64) {
        let leases = vec![(LeaseRef { id, generation }, remaining_s)];
        self.apply(&Command::LeaseCheckpoint { term, leases });
    }

    fn remaining_s(&self, id: i64) -> Option<u64> {
        self.store.lease(id).unwrap().map(|lease| lease.remaining_s)
    }

    fn keys(&self, id: i64) -> Vec<Bytes> {
        self.store.lease_keys(id, usize::MAX).unwrap()
    }

    fn all(&self, revision: u64) -> Vec<(Bytes, i64)> {
        let range = Range { revision, ..Range::new(Span::From(Bytes::new())) };
        let kvs = self.store.range(&range).unwrap().unwrap().kvs;
        kvs.into_iter().map(|kv| (kv.key, kv.lease)).collect()
    }
}

fn code(body: &Body) -> Option<Code> {
    match body {
        Body::Fault(fault) => Some(fault.code),
        _ => None,
    }
}

fn revoked(revision: u64, deleted: u64) -> Body {
    Body::Lease(LeaseAnswer::Revoked { revision, deleted })
}

#[test]
fn a_lease_is_granted_once_and_makes_no_revision() {
    let mut rig = new_rig();
    rig.grant(7, 60);
    assert_eq!(code(&rig.apply(&Command::LeaseGrant { id: 7, ttl_s: 5 })), Some(Code::LeaseExists));
    assert_eq!(code(&rig.apply(&Command::LeaseGrant { id: 0, ttl_s: 5 })), Some(Code::NoLease));
    assert_eq!(
        rig.store.lease(7).unwrap(),
        Some(Lease { generation: 1, ttl_s: 60, remaining_s: 60 }),
        "the second one changed nothing"
    );
    assert_eq!((rig.store.revision(), rig.store.lease(8).unwrap()), (1, None));
    assert_sound(&rig.disk, rig.store);
}

#[test]
fn a_put_attaches_moves_keeps_and_detaches() {
    let mut rig = new_rig();
    rig.grant(7, 60);
    rig.grant(8, 60);
    assert_eq!(code(&rig.put("k", 9)), Some(Code::NoLease));
    rig.put("k", 7);
    assert_eq!((rig.keys(7), rig.keys(8)), (vec![Bytes::from("k")], vec![]));
    rig.put("k", 7);
    assert_eq!(rig.keys(7).len(), 1);
    rig.put("k", 8);
    assert_eq!((rig.keys(7), rig.keys(8)), (vec![], vec![Bytes::from("k")]));
    rig.apply(&Command::Put(Put { key: "k".into(), ignore_lease: true, ..Put::default() }));
    assert_eq!(rig.keys(8).len(), 1);
    rig.put("k", 0);
    assert_eq!(rig.keys(8), Vec::<Bytes>::new());
    // What was attached when, can still be read.
    let leases: Vec<i64> = (2..=6).map(|revision| rig.all(revision)[0].1).collect();
    assert_eq!(leases, [7, 7, 8, 8, 0]);
    assert_eq!(rig.revoke(8), revoked(6, 0), "nothing is attached, so nothing goes and there is no revision");
    assert_sound(&rig.disk, rig.store);
}

#[test]
fn a_deleted_key_is_attached_to_nothing() {
    let mut rig = new_rig();
    rig.grant(7, 60);
    rig.put("a", 7);
    rig.put("b", 7);
    rig.apply(&delete(Span::Key("a".into())));
    assert_eq!(rig.keys(7), ["b"]);
    rig.put("a", 0);
    assert_eq!(rig.revoke(7), revoked(6, 1));
    assert_eq!(rig.all(0), [("a".into(), 0)]);
    assert_sound(&rig.disk, rig.store);
}

#[test]
fn a_revocation_deletes_everything_attached_in_one_revision_in_the_order_of_keys() {
    let mut rig = new_rig();
    rig.grant(7, 60);
    rig.grant(8, 60);
    for (key, lease) in [("c", 7), ("a", 7), ("d", 8), ("b", 0), ("e", 7)] {
        rig.put(key, lease);
    }
    assert_eq!(rig.revoke(7), revoked(7, 3));
    assert_eq!(rig.all(0), [("b".into(), 0), ("d".into(), 8)]);
    assert_eq!(rig.all(6).len(), 5, "the revision before has them all");
    assert_eq!(code(&rig.revoke(7)), Some(Code::NoLease));
    assert_eq!(code(&rig.put("x", 7)), Some(Code::NoLease));
    assert_eq!(rig.store.revision(), 7);
    rig.grant(7, 5);
    assert_eq!(rig.keys(7), Vec::<Bytes>::new(), "a new lease of that id begins with nothing");
    assert_sound(&rig.disk, rig.store);
}

/// More keys than are collected at a time, and of several lengths.
#[test]
fn a_lease_with_very_many_keys_ends_in_one_revision() {
    let mut rig = new_rig();
    rig.grant(7, 60);
    for n in 0..2_500u32 {
        let mut key = n.to_be_bytes().to_vec();
        key.resize(4 + (n % 7) as usize * 300, b'x');
        rig.apply(&Command::Put(Put { key: key.into(), lease: 7, ..Put::default() }));
    }
    assert_eq!((rig.store.lease_key_count(7, 100).unwrap(), rig.keys(7).len()), (100, 2_500));
    assert_eq!(rig.revoke(7), revoked(2_502, 2_500));
    assert_eq!(rig.all(0), []);
    assert_sound(&rig.disk, rig.store);
}

#[test]
fn a_leader_ends_many_leases_in_one_entry_each_in_its_own_revision() {
    let mut rig = new_rig();
    let leases: Vec<(i64, u64)> = (1..=4).map(|id| (id, rig.grant(id, 60))).collect();
    for (key, lease) in [("a", 2), ("b", 1), ("c", 2), ("d", 4)] {
        rig.put(key, lease);
    }
    assert_eq!(rig.end(1, &leases), revoked(8, 4));
    // Lease 1 had b, lease 2 a and c, lease 3 nothing, lease 4 d.
    let left: Vec<Vec<Bytes>> =
        (5..=8).map(|at| rig.all(at).into_iter().map(|(key, _)| key).collect()).collect();
    assert_eq!(left, [vec!["a", "b", "c", "d"], vec!["a", "c", "d"], vec!["d"], vec![]]);
    assert_sound(&rig.disk, rig.store);
}

/// A leader of another term knows nothing of what was renewed since.
#[test]
fn a_leaders_word_counts_in_its_own_term_only() {
    let mut rig = new_rig();
    let generation = rig.grant(7, 60);
    rig.put("k", 7);
    rig.term = 5;
    for term in [4, 6, u64::MAX] {
        assert_eq!(code(&rig.end(term, &[(7, generation)])), Some(Code::NoLease));
        rig.checkpoint(term, 7, generation, 10);
        assert_eq!(rig.remaining_s(7), Some(60));
    }
    rig.checkpoint(5, 7, generation, 10);
    assert_eq!(rig.remaining_s(7), Some(10));
    assert_eq!(rig.end(5, &[(7, generation)]), revoked(3, 1));
}

/// The client revoked the lease and granted another one of the same id, while the end of the first was on its way.
#[test]
fn a_leaders_word_is_of_one_generation() {
    let mut rig = new_rig();
    let first = rig.grant(7, 60);
    rig.revoke(7);
    let second = rig.grant(7, 60);
    rig.put("k", 7);
    assert_eq!(code(&rig.end(1, &[(7, first)])), Some(Code::NoLease));
    rig.checkpoint(1, 7, first, 10);
    assert_eq!((rig.remaining_s(7), rig.keys(7).len()), (Some(60), 1));
    // Others of the same entry do not suffer.
    let other = rig.grant(8, 60);
    assert_eq!(rig.end(1, &[(7, first), (8, other), (9, 1)]), revoked(2, 0));
    assert_eq!(rig.end(1, &[(7, second)]), revoked(3, 1));
}

#[test]
fn a_checkpoint_says_what_is_left_and_never_more_than_was_granted() {
    let mut rig = new_rig();
    let generation = rig.grant(7, 60);
    for (said, noted) in [(31, 31), (0, 1), (60, 60), (61, 60), (u64::MAX, 60)] {
        rig.checkpoint(1, 7, generation, said);
        assert_eq!(rig.remaining_s(7), Some(noted));
    }
    assert_eq!(rig.store.revision(), 1);
}

#[test]
fn leases_survive_a_restart_and_a_snapshot() {
    let mut rig = new_rig();
    let generation = rig.grant(7, 60);
    rig.grant(-8, 9_000_000_000);
    rig.put("moved", 7);
    rig.put("moved", -8);
    rig.put("kept", 7);
    rig.checkpoint(1, 7, generation, 31);
    let gone = rig.grant(9, 60);
    rig.put("gone", 9);
    rig.end(1, &[(9, gone)]);
    checkpoint(&mut rig.store);
    let hash = content(&rig.store);
    let other = disk();
    let installed = install(&other, IDENTITY, options(512), &send(&mut rig.store, 100));
    let reopened = Store::open(&rig.disk.point().kill_image(), path()).unwrap();
    for store in [reopened, installed] {
        assert_eq!(content(&store), hash);
        let mut after = Rig { disk: rig.disk.clone(), store, term: 1 };
        assert_eq!(after.remaining_s(7), Some(31));
        assert_eq!(after.store.leases(None, 10).unwrap().len(), 2);
        assert_eq!((after.keys(7), after.keys(-8)), (vec!["kept".into()], vec!["moved".into()]));
        assert_eq!(code(&after.put("x", 9)), Some(Code::NoLease), "what is gone stays gone");
        let revision = after.store.revision();
        assert_eq!(after.revoke(-8), revoked(revision + 1, 1));
        assert_eq!(after.all(0), [("kept".into(), 7)]);
    }
}

/// What a lease is, is part of what members compare.
#[test]
fn whatever_happens_to_a_lease_changes_the_hash() {
    let mut rig = new_rig();
    let mut hashes = vec![rig.store.hash()];
    let generation = rig.grant(7, 60);
    hashes.push(rig.store.hash());
    rig.checkpoint(1, 7, generation, 10);
    hashes.push(rig.store.hash());
    let mut other = new_rig();
    other.grant(7, 60);
    other.checkpoint(1, 7, generation, 11);
    hashes.push(other.store.hash());
    rig.revoke(7);
    hashes.push(rig.store.hash());
    other.end(1, &[]);
    hashes.push(other.store.hash());
    let count = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
}
