//! Alarms, and what they refuse.
//!
//! There are two sorts of them, told apart by who ends them. That the leader has no room is measured, again and again: it says
//! so by an entry and takes it back by another, and it is one field of the application record. Those that clients raise stand
//! until a client ends them, of whatever member and kind; they are a root of the tree, a cell each (`storage-format.md` §6.9).
//! Whoever asks sees both, and may end both.

use super::record::Malformed;
use super::{ALARMS, Store, chain, damaged};
use crate::api::alarm::ALARMS_MAX;
use crate::api::{Alarm, AlarmChange, AlarmKind, Body, Command, Fault};
use crate::base::planted;
use crate::base::{MemberId, Reader, Result};
use crate::btree::View;
use crate::io::Disk;

/// `member u64, big-endian | kind u8`: ordered as alarms are.
fn encode(alarm: Alarm) -> [u8; 9] {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&alarm.member.to_be_bytes());
    key[8] = alarm.kind.number();
    key
}

pub fn decode(key: &[u8], value_bytes: usize) -> Result<Alarm, Malformed> {
    let bad = || Malformed(format!("an alarm in {} and {value_bytes} bytes", key.len()));
    let mut reader = Reader::new(key);
    let (member, kind) = (reader.array().map_err(|_| bad())?, reader.u8().map_err(|_| bad())?);
    let kind =
        AlarmKind::of_number(kind).filter(|_| reader.is_empty() && value_bytes == 0).ok_or_else(bad)?;
    Ok(Alarm { member: MemberId::from_be_bytes(member), kind })
}

impl<D: Disk> Store<D> {
    /// Those that stand, in order.
    pub fn alarms(&self) -> Vec<Alarm> {
        let mut all = self.raised.clone();
        all.extend(self.full());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Those that clients raised and did not end, in order.
    pub fn raised_alarms(&self) -> &[Alarm] {
        &self.raised
    }

    /// The leader that had no room by its quota; 0: there is room.
    pub fn full_member(&self) -> MemberId {
        self.state.alarm
    }

    fn full(&self) -> Option<Alarm> {
        let member = self.state.alarm;
        (member != 0).then_some(Alarm { member, kind: AlarmKind::NoSpace })
    }

    /// Whether an alarm of this kind stands, whose ever.
    pub fn is_alarmed(&self, kind: AlarmKind) -> bool {
        self.raised.iter().chain(&self.full()).any(|alarm| alarm.kind == kind)
    }

    /// While an alarm stands, this is refused, on every member alike: whatever may take up room where there is none, and
    /// whatever may change content that is said to be wrong.
    pub(super) fn refusal(&self, command: &Command) -> Option<Fault> {
        if command.takes_room()
            && self.is_alarmed(AlarmKind::NoSpace)
            && !planted::on("store-put-despite-the-alarm")
        {
            return Some(Fault::no_space());
        }
        let is_wrong = command.changes_content() && self.is_alarmed(AlarmKind::Corrupt);
        (is_wrong && !planted::on("store-write-to-a-corrupt-cluster")).then(Fault::corrupt)
    }

    /// The leader has no room, or has it again: answers with all that stand then.
    pub(super) fn sound(&mut self, member: MemberId, raised: bool) -> Body {
        if raised != (self.state.alarm != 0) {
            self.state.alarm = if raised { member } else { 0 };
            self.state.hash = chain::no_room(self.state.hash, self.state.alarm);
        }
        Body::Alarms(self.alarms())
    }

    /// What a client wants: answers with those that it raised (one that stood is raised all the same), or ended.
    pub(super) fn change_alarms(&mut self, change: AlarmChange) -> Result<Body> {
        let told = match change {
            AlarmChange::Raise(alarm) => {
                if let Err(place) = self.raised.binary_search(&alarm) {
                    if self.raised.len() >= ALARMS_MAX {
                        return Ok(Body::Fault(Fault::too_many_alarms()));
                    }
                    self.tree.insert(ALARMS, &encode(alarm), &[], false)?;
                    self.raised.insert(place, alarm);
                    self.state.hash = chain::alarm(self.state.hash, alarm, true);
                }
                vec![alarm]
            }
            AlarmChange::End(alarm) => {
                let ended: Vec<Alarm> = self.alarms().into_iter().filter(|stands| *stands == alarm).collect();
                self.end_alarms(&ended)?;
                ended
            }
            AlarmChange::EndAll => {
                let ended = self.alarms();
                self.end_alarms(&ended)?;
                ended
            }
        };
        Ok(Body::Alarms(told))
    }

    fn end_alarms(&mut self, ended: &[Alarm]) -> Result<()> {
        for &alarm in ended {
            if let Ok(place) = self.raised.binary_search(&alarm) {
                self.tree.remove(ALARMS, &encode(alarm))?;
                self.raised.remove(place);
                self.state.hash = chain::alarm(self.state.hash, alarm, false);
            }
            if self.full() == Some(alarm) {
                self.sound(0, false);
            }
        }
        Ok(())
    }

    /// What the file holds of them.
    pub(super) fn read_alarms(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, ALARMS);
        let mut there = cursor.first()?;
        while there {
            let alarm = decode(&cursor.key()?, cursor.value().len())
                .map_err(|bad| damaged(&self.path, "an alarm", bad))?;
            if !planted::on("store-restart-forgets-alarms") {
                self.raised.push(alarm);
            }
            there = cursor.next()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `storage-format.md` §6.9. A change here is a change of the format.
    #[test]
    fn the_layout_never_changes() {
        let alarm = Alarm { member: 258, kind: AlarmKind::Corrupt };
        assert_eq!(encode(alarm), [0, 0, 0, 0, 0, 0, 1, 2, 2]);
        assert_eq!(decode(&encode(alarm), 0), Ok(alarm));
    }

    #[test]
    fn hostile_cells_are_errors() {
        for (key, value_bytes) in [(&[][..], 0), (&[0; 8], 0), (&[0; 9], 0), (&[1; 10], 0), (&[1; 9], 1)] {
            assert!(decode(key, value_bytes).is_err(), "{key:?}");
        }
        assert!(decode(&[3; 9], 0).is_err() && decode(&[1; 9], 0).is_ok());
    }
}
