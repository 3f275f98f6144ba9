//! `--quota-backend-bytes`: when puts are refused, and when they are admitted again.
//!
//! What counts is bytes in use: a file that is long and empty is not full. They differ a little between members that hold
//! the same, and so may their quotas. So one of them decides, the leader, by its own; and it decides by an entry of the
//! log, behind which every member refuses puts in apply (`Store::apply`), or admits them again. So a refusal is the
//! same everywhere, and means that nothing was written.
//!
//! The alarm ends by itself when less than nine tenths of the quota are in use. What brings that about is always
//! admitted: deletes, compactions, and what members of the cluster need. An operator may end it, too; if
//! the quota is still reached, it comes back at once. Alarms that clients raised are no concern of this.
//!
//! Between the put that reaches the quota and the entry that says so, the leader takes no puts either, or as many could
//! get through as wait.

use super::Node;
use super::writes::Asker;
use crate::api::{Body, Command, ConnId, Tag};
use crate::base::planted;
use crate::base::time::{Nanos, SECOND};
use crate::io::Disk;

/// An entry that nobody takes for so long is proposed again.
const PATIENCE: Nanos = 5 * SECOND;

impl<D: Disk> Node<D> {
    /// Whether this member leads and uses as much as it may.
    pub(super) fn is_over_quota(&self) -> bool {
        let reached = |quota| self.store.bytes_in_use() >= quota;
        self.config.quota_bytes.is_some_and(reached) && self.leads()
    }

    pub(super) fn answer_alarms(&mut self, conn: ConnId, tag: Tag) {
        let alarms = self.store.alarms();
        self.reply(conn, tag, Body::Alarms(alarms));
    }

    /// Who leads sees to it that the alarm stands if there is no room, and only then.
    pub(super) fn mind_quota(&mut self) {
        let under_way = self.alarm_write.is_some_and(|id| self.writes.is_open(id));
        if under_way || !self.leads() || self.raft.transferring() || self.log_is_full() {
            return;
        }
        let stands = self.store.full_member() != 0;
        let enough = |quota: u64| if stands { quota - quota / 10 } else { quota };
        let quota = self.config.quota_bytes;
        let raised = quota.is_some_and(|quota| self.store.bytes_in_use() >= enough(quota));
        if raised != stands && !(stands && planted::on("node-quota-alarm-stays")) {
            self.alarm_write = Some(self.writes.next_id());
            let alarm = Command::Alarm { member: self.id, raised };
            self.write(Asker::Member, &alarm, self.now + PATIENCE);
        }
    }
}
