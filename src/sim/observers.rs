//! Clients that watch observe elections as well, one each at a time, over the same connection. With the next connection they
//! begin anew, and are told who leads then.
//!
//! What they were told is judged by [`super::check`] at the end, and that they are told everything in the end with what is
//! said of watches (L11).

use bytes::Bytes;

use super::history::{Observed, ToldOfLeader};
use super::wire::Wires;
use super::world::World;
use crate::api::{Body, Call, ConnId, KeyValue, LockRequest, Request, Tag};
use crate::base::Revision;

impl Observed {
    fn leader(&self) -> Option<&KeyValue> {
        let told = self.told.iter().rev().find_map(|told| match told {
            ToldOfLeader::Leads { leader, .. } => Some(leader),
            _ => None,
        });
        told.or(self.begun.as_ref().and_then(|(_, leader)| leader.as_ref()))
    }

    /// The first revision of which it was told nothing.
    fn next(&self) -> Revision {
        let told = self.told.iter().rev().find_map(|told| match told {
            ToldOfLeader::Leads { revision, .. } | ToldOfLeader::Progress { revision } => Some(revision + 1),
            ToldOfLeader::Ended { .. } => None,
        });
        told.or(self.begun.as_ref().map(|(revision, _)| revision + 1)).unwrap_or(0)
    }
}

impl World {
    /// The client's election is another one from now on.
    pub(super) fn watcher_observes_another(&mut self, watcher: usize, conn: ConnId, name: Bytes) {
        let connection = self.watchers.conns.get_mut(&conn).expect("it is connected");
        for tag in std::mem::take(&mut connection.observed).into_keys() {
            self.watcher_says(conn, Call::Cancel { tag });
        }
        self.watchers.all[watcher].election = Some(name);
        self.watcher_observes(watcher, conn);
    }

    /// Asks for it, on a connection on which it was not asked for.
    pub(super) fn watcher_observes(&mut self, watcher: usize, conn: ConnId) {
        if Wires::is_one(conn) {
            return; // Its stream is one of watches; those who observe do so without bytes.
        }
        let Some(name) = self.watchers.all[watcher].election.clone() else { return };
        let (known, client, place) =
            (self.newest_known(), watcher as u64, self.clients.history.observed.len());
        let observed =
            Observed { client, connection: conn, name: name.clone(), known, begun: None, told: Vec::new() };
        self.clients.history.observed.push(observed);
        let connection = self.watchers.conns.get_mut(&conn).expect("it is connected");
        let tag = connection.next_tag;
        connection.next_tag += 1;
        connection.observed.insert(tag, place);
        let request = Request::Lock(LockRequest::Observe { name });
        self.watcher_says(conn, Call::Request { tag, request });
    }

    /// A member says something about it.
    pub(super) fn observer_is_told(&mut self, conn: ConnId, tag: Tag, observed: usize, body: Body) {
        let log = &mut self.clients.history.observed[observed];
        let what = match body {
            Body::Observing { revision, leader } => {
                let what = if leader.is_some() { "somebody" } else { "nobody" };
                log.begun = Some((revision, leader));
                what
            }
            Body::Leads { revision, leader } => {
                self.tally.told += 1;
                let same = log.leader().is_some_and(|last| last.create_revision == leader.create_revision);
                let fresh = leader.create_revision == revision;
                log.told.push(ToldOfLeader::Leads { revision, leader });
                match (same, fresh) {
                    (true, _) => "another value",
                    (false, true) => "a new leader",
                    (false, false) => "the next in line",
                }
            }
            Body::Progress { revision } => {
                log.told.push(ToldOfLeader::Progress { revision });
                "progress"
            }
            Body::Unwatched { compacted, .. } => {
                log.told.push(ToldOfLeader::Ended { compacted });
                let connection = self.watchers.conns.get_mut(&conn).expect("it was just told");
                connection.observed.remove(&tag);
                let watcher = connection.watcher;
                if compacted > 0 {
                    // Who leads now can be asked all the same.
                    self.watcher_observes(watcher, conn);
                    "compacted"
                } else {
                    self.watcher_leaves(watcher);
                    "ended"
                }
            }
            Body::Fault(fault) => {
                let watcher = self.watchers.conns[&conn].watcher;
                self.watcher_leaves(watcher);
                fault.code.word()
            }
            other => return self.fail("V25", format!("an observer is answered by {other:?}")),
        };
        *self.clients.maintained.entry(format!("observer {what}")).or_default() += 1;
    }

    /// All that was asked for on a connection was told up to a revision.
    pub(super) fn observers_progress(&mut self, observed: &[usize], revision: Revision) {
        for &place in observed {
            let log = &mut self.clients.history.observed[place];
            if log.begun.is_some() {
                log.told.push(ToldOfLeader::Progress { revision });
                *self.clients.maintained.entry("observer progress".into()).or_default() += 1;
            }
        }
    }

    /// Whether somebody who wants to observe an election was not told everything up to a revision.
    pub(super) fn observer_is_behind(&self, conn: Option<ConnId>, wants: bool, revision: Revision) -> bool {
        let connection = conn.and_then(|conn| self.watchers.conns.get(&conn));
        let place = connection.and_then(|connection| connection.observed.values().next_back());
        wants && place.is_none_or(|place| self.clients.history.observed[*place].next() <= revision)
    }
}
