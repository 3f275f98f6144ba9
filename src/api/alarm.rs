//! Alarms: what is wrong with the cluster, and whose it is.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::command::Undecodable;
use crate::base::MemberId;
use crate::base::codec::SharedReader;
use crate::base::limits::MEMBERS_MAX;

/// Alarms of clients that stand at once: as many as there are members, and nobody, of each kind.
pub const ALARMS_MAX: usize = (MEMBERS_MAX + 1) * AlarmKind::ALL.len();

/// Why an alarm was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// Whatever may take up room is refused.
    NoSpace,
    /// A member's state differs from the others'. Where a client says so, all that changes keys or leases is refused.
    Corrupt,
}

impl AlarmKind {
    pub const ALL: [AlarmKind; 2] = [AlarmKind::NoSpace, AlarmKind::Corrupt];

    /// As etcd spells it.
    pub fn word(self) -> &'static str {
        match self {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        }
    }

    /// etcd's number, on the wire and in the log.
    pub fn number(self) -> u8 {
        match self {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
        }
    }

    pub fn of_number(number: u8) -> Option<AlarmKind> {
        AlarmKind::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// An alarm, as etcd tells it: ordered by member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// 0: of nobody. Who raises one may name whom it likes.
    pub member: MemberId,
    pub kind: AlarmKind,
}

impl fmt::Display for Alarm {
    /// Without the member where there is none, as etcd's messages print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.member != 0 {
            write!(f, "memberID:{} ", self.member)?;
        }
        write!(f, "alarm:{}", self.kind.word())
    }
}

/// What a client wants of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmChange {
    /// It stands until a client ends it.
    Raise(Alarm),
    /// This one, whoever raised it.
    End(Alarm),
    EndAll,
}

const RAISE: u8 = 1;
const END: u8 = 2;
const END_ALL: u8 = 3;

/// `change u8 | member u64 | kind u8`; the last two are 0 where all end.
pub(super) fn encode(change: &AlarmChange, out: &mut BytesMut) {
    let (verb, member, kind) = match change {
        AlarmChange::Raise(alarm) => (RAISE, alarm.member, alarm.kind.number()),
        AlarmChange::End(alarm) => (END, alarm.member, alarm.kind.number()),
        AlarmChange::EndAll => (END_ALL, 0, 0),
    };
    out.put_u8(verb);
    out.put_u64_le(member);
    out.put_u8(kind);
}

pub(super) fn decode(reader: &mut SharedReader) -> Result<AlarmChange, Undecodable> {
    let (verb, member, kind) = (reader.u8()?, reader.u64()?, reader.u8()?);
    match (verb, member, AlarmKind::of_number(kind)) {
        (RAISE, member, Some(kind)) => Ok(AlarmChange::Raise(Alarm { member, kind })),
        (END, member, Some(kind)) => Ok(AlarmChange::End(Alarm { member, kind })),
        (END_ALL, 0, None) if kind == 0 => Ok(AlarmChange::EndAll),
        _ => Err(Undecodable(format!("change {verb} of the alarm {kind} of member {member}"))),
    }
}
