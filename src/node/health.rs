//! Whether this member serves, for those who watch that: they are told at once, and again each time it changes.

use std::collections::BTreeMap;

use super::{Node, WAITING_MAX};
use crate::api::{Body, ConnId, Fault, Reply, Tag};
use crate::base::MemberId;
use crate::io::Disk;

#[derive(Debug, Default)]
pub(super) struct HealthWatch {
    /// One for each who asks: it is not asked twice over a lane.
    watchers: BTreeMap<ConnId, Tag>,
    /// What all of them know.
    serves: bool,
}

impl HealthWatch {
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.watchers.remove(&conn);
    }
}

impl<D: Disk> Node<D> {
    /// Who leads, as far as this member may say so; 0: nobody.
    pub(super) fn known_leader(&self) -> MemberId {
        if self.is_silent() { 0 } else { self.raft.standing().leader }
    }

    fn serves(&self) -> bool {
        self.known_leader() != 0 && self.refusal(true).is_none()
    }

    pub(super) fn watch_health(&mut self, conn: ConnId, tag: Tag) {
        if self.health.watchers.len() >= WAITING_MAX {
            return self.fail(conn, tag, Fault::busy());
        }
        self.tell_health();
        self.health.watchers.insert(conn, tag);
        self.reply(conn, tag, Body::Serves(self.health.serves));
    }

    /// At the end of each turn; a comparison, where nothing has changed.
    pub(super) fn tell_health(&mut self) {
        let serves = self.serves();
        if serves == self.health.serves {
            return;
        }
        self.health.serves = serves;
        let header = self.header();
        let told = self.health.watchers.iter();
        let reply = |(&conn, &tag)| Reply { conn, tag, header, body: Body::Serves(serves), more: true };
        self.output.replies.extend(told.map(reply));
    }
}
