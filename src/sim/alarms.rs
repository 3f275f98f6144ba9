//! Which alarms stand, by the commands of the log alone, and what is refused while they do. Written from `storage-format.md`
//! §7, and on purpose not from the store, which is held against it.

use std::collections::BTreeSet;

use crate::api::alarm::ALARMS_MAX;
use crate::api::{Alarm, AlarmChange, AlarmKind, Command};
use crate::base::MemberId;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// The leader that had no room by its quota; 0: there is room.
    pub full: MemberId,
    /// Those that clients raised.
    pub raised: BTreeSet<Alarm>,
}

impl Alarms {
    /// As a member has them.
    pub fn of((full, raised): (MemberId, &[Alarm])) -> Alarms {
        Alarms { full, raised: raised.iter().copied().collect() }
    }

    pub fn read(&mut self, command: &Command) {
        match command {
            Command::Alarm { member, raised: true } if self.full == 0 => self.full = *member,
            Command::Alarm { raised: false, .. } => self.full = 0,
            Command::ChangeAlarms(AlarmChange::Raise(alarm)) if self.raised.len() < ALARMS_MAX => {
                self.raised.insert(*alarm);
            }
            Command::ChangeAlarms(AlarmChange::End(alarm)) => {
                self.raised.remove(alarm);
                if *alarm == (Alarm { member: self.full, kind: AlarmKind::NoSpace }) {
                    self.full = 0;
                }
            }
            Command::ChangeAlarms(AlarmChange::EndAll) => *self = Alarms::default(),
            _ => {}
        }
    }

    pub fn stands(&self, kind: AlarmKind) -> bool {
        (kind == AlarmKind::NoSpace && self.full != 0) || self.raised.iter().any(|alarm| alarm.kind == kind)
    }

    /// Whether this changes nothing while they stand.
    pub fn refuse(&self, command: &Command) -> bool {
        let is_content = matches!(
            command,
            Command::Put(_)
                | Command::Delete(_)
                | Command::Txn(_)
                | Command::Compact(_)
                | Command::LeaseGrant { .. }
                | Command::LeaseRevoke { .. }
        );
        (command.takes_room() && self.stands(AlarmKind::NoSpace))
            || (is_content && self.stands(AlarmKind::Corrupt))
    }
}
