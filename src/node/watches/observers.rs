//! Who observes an election: a watcher of the keys under its name, that is told who leads and not what happens.
//!
//! ```text
//!   revision   12          15           17             20           21          24
//!              put n/3f    put n/1b     put n/3f       del n/3f     del n/1b    put n/7
//!   leads      n/3f        n/3f         n/3f           n/1b         nobody      n/7
//!   told       n/3f        -            n/3f (value)   n/1b         -           n/7
//! ```
//!
//! The leader is the oldest key under the name. A key that is put again keeps its age and new ones are younger, so as long as the
//! leader's key is there nothing else matters, and what happens to it is told as it comes. Only when it goes, or where nobody led,
//! is the first one looked up, as of that very revision: what this member has applied since then is told in its turn.
//! So an observer is told of each leader in the order of revisions, whether it keeps up, catches up, or was parked meanwhile.
//!
//! Left out: that nobody leads is not told, as etcd does not either. For the look-up all keys under the name are looked at in one go,
//! once for all who observe it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::feed::{Budget, TELL_WORK};
use super::index::Target;
use super::{Out, Slot, Watcher, Watches};
use crate::api::{Body, Code, ConnId, Event, EventKind, Fault, KeyValue, Range, Span, Tag, Watch, lock};
use crate::base::planted;
use crate::base::{Mono, Result, Revision};
use crate::io::Disk;
use crate::store::Store;

/// What an observer knows.
#[derive(Debug)]
pub(super) struct Observed {
    /// The key that leads, as of the revision up to which it was told; None: nobody does.
    leader: Option<Bytes>,
}

impl Observed {
    pub(super) fn size_bytes(&self) -> usize {
        self.leader.as_ref().map_or(0, Bytes::len)
    }
}

/// Who led at one revision, by what is in front of an election's keys; once it has been looked up.
pub(super) type Leaders = BTreeMap<Bytes, Option<KeyValue>>;

impl Watches {
    /// Somebody observes an election from now on, which is `revision`, at which this one led.
    pub(in super::super) fn observe(
        &mut self,
        (conn, tag): (ConnId, Tag),
        name: &[u8],
        leader: Option<&KeyValue>,
        revision: Revision,
        now: Mono,
    ) -> Result<(), Fault> {
        let watch = Watch::new(Span::Prefix(lock::lock_prefix(name)));
        self.add(conn, tag, &watch, revision, now)?;
        let observed = Observed { leader: leader.map(|kv| kv.key.clone()) };
        self.bytes += observed.size_bytes();
        let slot = self.slots[&(conn, tag)];
        self.watcher_mut(slot).observed = Some(observed);
        Ok(())
    }

    /// Tells an observer what has become of its election in a revision that changed something there.
    pub(super) fn tell_observer<D: Disk>(
        &mut self,
        slot: Slot,
        (revision, events): (Revision, &[Arc<Event>]),
        leaders: &mut Leaders,
        (store, now): (&Store<D>, Mono),
        budget: &mut Budget,
        out: &mut Out<'_>,
    ) -> Result<()> {
        let Watcher { target, observed, .. } = self.watcher(slot);
        let known = observed.as_ref().and_then(|observed| observed.leader.as_ref());
        let its_own = known.and_then(|key| events.iter().find(|event| event.kv.key == *key));
        let leader = match (known, its_own) {
            // Others come and go behind it.
            (Some(_), None) => return Ok(()),
            (Some(_), Some(event)) if event.kind == EventKind::Put => Some(event.kv.clone()),
            (Some(_), Some(_)) if planted::on("watch-observer-sleeps-when-a-leader-goes") => None,
            _ => match first_of(target, revision, leaders, store, budget)? {
                Ok(leader) => leader,
                Err(fault) => {
                    let is_gone = fault.code == Code::Compacted;
                    let compacted = if is_gone { store.compact_revision() } else { 0 };
                    let Watcher { conn, tag, .. } = self.remove(slot);
                    out(conn, tag, Body::Unwatched { fault, compacted }, false);
                    return Ok(());
                }
            },
        };
        let now_known = Observed { leader: leader.as_ref().map(|kv| kv.key.clone()) };
        self.bytes += now_known.size_bytes();
        let watcher = self.watchers[slot as usize].as_mut().expect("it was just looked at");
        let was_known = watcher.observed.replace(now_known);
        self.bytes -= was_known.as_ref().map_or(0, Observed::size_bytes);
        if let Some(leader) = leader {
            watcher.told_at = now;
            let body = Body::Leads { revision, leader };
            budget.take(TELL_WORK, body.size_bytes());
            out(watcher.conn, watcher.tag, body, true);
        }
        Ok(())
    }
}

/// Who leads as of a revision.
fn first_of<D: Disk>(
    target: &Target,
    revision: Revision,
    leaders: &mut Leaders,
    store: &Store<D>,
    budget: &mut Budget,
) -> Result<Result<Option<KeyValue>, Fault>> {
    let Target::Span(prefix, _) = target else { panic!("an election is a span of keys") };
    if let Some(leader) = leaders.get(prefix) {
        return Ok(Ok(leader.clone()));
    }
    let as_of = if planted::on("watch-observer-looks-at-now") { 0 } else { revision };
    let name = &prefix[..prefix.len() - 1];
    let found = match store.range(&Range { revision: as_of, ..lock::first_of(name) })? {
        Ok(found) => found,
        Err(fault) => return Ok(Err(fault)),
    };
    budget.take(usize::try_from(found.count).unwrap_or(usize::MAX), 0);
    let leader = found.kvs.into_iter().next();
    leaders.insert(prefix.clone(), leader.clone());
    Ok(Ok(leader))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Sent, World};
    use super::super::{Why, feed::WATCH_WORK};
    use super::*;
    use crate::base::Rng;
    use crate::base::time::SECOND;

    impl World {
        fn observe(&mut self, conn: ConnId, tag: Tag) {
            let found = self.store.range(&lock::first_of(b"n")).unwrap().unwrap();
            let leader = found.kvs.first();
            self.watches.observe((conn, tag), b"n", leader, found.revision, self.now).unwrap();
        }

        fn delete_key(&mut self, key: &str) {
            self.delete(Span::Key(Bytes::copy_from_slice(key.as_bytes())));
        }

        /// Who an observer that begins at a revision is told of, by what has happened.
        fn leaders_after(&self, begun: Revision) -> Vec<Sent> {
            let mut there: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
            let (mut led, mut told) = (None, Vec::new());
            for (revision, events) in (2..).zip(&self.history) {
                for (kind, kv, _) in events.iter().filter(|(_, kv, _)| kv.key.starts_with(b"n/")) {
                    match kind {
                        EventKind::Put => there.insert(kv.key.clone(), kv.clone()),
                        EventKind::Delete => there.remove(&kv.key),
                    };
                }
                let leads = there.values().min_by_key(|kv| kv.create_revision).cloned();
                if let Some(kv) = leads.clone().filter(|_| leads != led && revision > begun) {
                    told.push(Sent::Leads(revision, kv.key, kv.value));
                }
                led = leads;
            }
            told
        }
    }

    fn leads(revision: Revision, key: &'static str, value: &'static str) -> Sent {
        Sent::Leads(revision, key.into(), value.into())
    }

    #[test]
    fn an_observer_is_told_of_every_leader_and_of_nothing_else() {
        let mut world = World::new();
        world.observe(1, 1);
        world.put("n/3f", "a");
        world.put("n/1b", "b");
        world.put("m/1", "another election");
        world.put("n", "the name itself");
        world.put("n/3f", "c");
        world.observe(1, 2);
        world.delete_key("n/3f");
        world.put("n/1b", "d");
        world.delete_key("n/1b");
        world.put("n/7", "e");
        world.settle();
        let later = [leads(7, "n/1b", "b"), leads(8, "n/1b", "d"), leads(10, "n/7", "e")];
        let all = [&[leads(2, "n/3f", "a"), leads(6, "n/3f", "c")][..], &later].concat();
        assert_eq!(world.sent(1, 1), all);
        assert_eq!(world.sent(1, 2), later);
        world.watches.cancel(1, 1);
        world.watches.cancel(1, 2);
        assert_eq!((world.watches.bytes, world.watches.is_empty()), (0, true));
    }

    /// What one revision does at once: the leader goes, and those behind it do, too.
    #[test]
    fn who_is_next_is_looked_up_as_of_the_revision_in_which_the_leader_went() {
        let mut world = World::new();
        for key in ["n/1", "n/2", "n/3"] {
            world.put(key, "x");
        }
        world.observe(1, 1);
        world.delete(Span::Between("n/1".into(), "n/3".into()));
        world.delete_key("n/3");
        world.put("n/2", "y");
        world.settle();
        assert_eq!(world.sent(1, 1), [leads(5, "n/3", "x"), leads(7, "n/2", "y")]);
    }

    #[test]
    fn an_observer_that_is_held_is_told_the_rest_later_and_ends_with_what_was_compacted() {
        let mut world = World::new();
        world.observe(1, 1);
        world.watches.hold(1, Why::Untaken);
        world.put("n/1", "a");
        world.delete_key("n/1");
        world.put("n/2", "b");
        world.settle();
        assert_eq!(world.sent(1, 1), []);
        world.watches.release(1, Why::Untaken);
        world.settle();
        assert_eq!(world.sent(1, 1), [leads(2, "n/1", "a"), leads(4, "n/2", "b")]);
        world.watches.hold(1, Why::Untaken);
        world.put("n/2", "c");
        world.settle();
        world.put("n/2", "d");
        world.compact(6);
        world.watches.release(1, Why::Untaken);
        world.settle();
        assert_eq!(world.sent(1, 1), [Sent::Unwatched(Code::Compacted, 6)]);
    }

    #[test]
    fn whatever_happens_each_leader_is_told_in_order_and_once() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let mut world = World::new();
            world.watches = Watches::new(10 * SECOND, if seed % 2 == 0 { 12 } else { WATCH_WORK });
            let mut begun = Vec::new();
            for tag in 0..120 {
                let key = format!("n/{}", rng.below(5));
                match rng.below(10) {
                    0..4 => world.put(&key, &format!("v{tag}")),
                    4..7 => world.delete_key(&key),
                    7 => world.delete(Span::Prefix("n/".into())),
                    8 => {
                        let conn = rng.below(3);
                        begun.push((conn, tag, world.store.revision()));
                        world.observe(conn, tag);
                    }
                    _ => {
                        let conn = rng.below(3);
                        world.watches.hold(conn, Why::Untaken);
                        world.turn();
                        if rng.one_in(2) {
                            world.watches.release(conn, Why::Untaken);
                        }
                    }
                }
                if rng.one_in(3) {
                    world.turn();
                }
            }
            for conn in 0..3 {
                world.watches.release(conn, Why::Untaken);
            }
            world.settle();
            for (conn, tag, revision) in begun {
                assert_eq!(world.sent(conn, tag), world.leaders_after(revision), "seed {seed}, tag {tag}");
            }
        }
    }
}
