//! What the store says happened at each revision. The log tells which keys to ask for; what is believed is the store.
//!
//! A compaction hides what was before, so each revision is read back when the first sound member has applied it. What
//! a compaction in the same turn hides has not been read by anybody. At the end what is behind the last bound is
//! read a second time: it must still be so.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::alarms::Alarms;
use super::check::txn::{Asked, Course};
use super::history::Change;
use super::room_watch::values;
use super::world::World;
use crate::api::{
    Code, Command, Compact, Delete, KeyValue, LeaseRef, Put, Range, RangeResult, Span, Txn, command,
};
use crate::base::{Index, LeaseId, Revision};

/// Why something could not be read.
enum Unreadable {
    /// It was compacted.
    Hidden,
    /// It happened where there was no room.
    Refused,
    Wrong(String),
}

/// Answers a range as of a revision.
type Ask<'a> = dyn Fn(&Span, Revision) -> Result<RangeResult, Unreadable> + 'a;

pub struct Readback {
    /// The last entry that was looked at, and the revision behind it.
    entry: Index,
    revision: Revision,
    /// The first revision that could be read there.
    compacted: Revision,
    /// The entries that made a revision, and what that changed.
    made: Vec<(Index, Revision, Vec<Change>)>,
    hidden: BTreeSet<Revision>,
}

impl Readback {
    pub fn new() -> Readback {
        Readback { entry: 0, revision: 1, compacted: 0, made: Vec::new(), hidden: BTreeSet::new() }
    }
}

impl World {
    /// A member has applied entries, perhaps as the first one.
    pub(super) fn read_back(&mut self, member: usize, applied: Index) {
        let Some(process) = &self.machines[member].process else { return };
        if applied <= self.readback.entry || self.machines[member].tainted {
            return;
        }
        let (last, end) = (process.node.revision(), process.node.compact_revision());
        let ask = |span: &Span, revision| self.read_at(member, span, revision);
        let Readback { entry, revision: mut done, mut compacted, .. } = self.readback;
        let mut made = Vec::new();
        let mut blind = false;
        for index in entry + 1..=applied {
            if done == last {
                break;
            }
            let Some(Some(committed)) = self.watch.committed.get(index as usize - 1) else {
                blind = true;
                break;
            };
            if committed.payload.is_empty() {
                continue;
            }
            let alarms = self.room.alarms_before(index);
            if let Ok((_, ref command @ Command::Compact(Compact { revision, .. }))) =
                command::decode(committed.payload.clone())
                && !alarms.is_some_and(|alarms| alarms.refuse(command))
                && (compacted + 1..=done).contains(&revision)
            {
                compacted = revision;
            }
            let (lease, ended) = (|id| self.leases.was_there(id, index), |id| self.leases.ended(id, index));
            let when = When { compacted, last, alarms, lease: &lease, ended: &ended };
            match happened(&committed.payload, done + 1, &when, &ask) {
                Ok(revisions) => {
                    for changes in revisions {
                        done += 1;
                        made.push((index, done, changes));
                    }
                }
                Err(Unreadable::Hidden) => {
                    blind = true;
                    break;
                }
                Err(Unreadable::Refused) => {
                    let what = format!("member {member} carries out entry {index}, though an alarm stands");
                    return self.fail("V41", what);
                }
                Err(Unreadable::Wrong(why)) => {
                    return self
                        .fail("V13", format!("member {member} cannot be read at revision {done}: {why}"));
                }
            }
        }
        if done < last && !blind {
            let done = done + 1;
            return self
                .fail("V06", format!("no entry of the log explains revision {done} of member {member}"));
        }
        self.readback.made.extend(made);
        self.readback.hidden.extend(done + 1..=last);
        (self.readback.entry, self.readback.revision, self.readback.compacted) = (applied, last, end);
    }

    fn read_at(&self, member: usize, span: &Span, revision: Revision) -> Result<RangeResult, Unreadable> {
        let process = self.machines[member].process.as_ref().expect("it was just looked at");
        let range = Range { revision, ..Range::new(span.clone()) };
        match process.node.range(&range) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(fault)) if fault.code == Code::Compacted => Err(Unreadable::Hidden),
            Ok(Err(fault)) => Err(Unreadable::Wrong(fault.to_string())),
            Err(why) => Err(Unreadable::Wrong(why.to_string())),
        }
    }

    /// The end: gives the history all that was read back, what can still be read as a member reads it now. And every
    /// member shows its state at its bound, in the middle of what is left, and now: the judge has seen these reads as any
    /// others.
    pub(super) fn read_changes(&mut self) {
        let sound = |member: &usize| {
            let machine = &self.machines[*member];
            let reads = |node: &crate::node::Node<_>| !node.is_blank() && !node.is_recovering();
            !machine.tainted && machine.process.as_ref().is_some_and(|process| reads(&process.node))
        };
        let members: Vec<usize> = self.members().filter(sound).collect();
        let node = |member: usize| &self.machines[member].process.as_ref().expect("it is up").node;
        if let Some(member) = members.iter().copied().max_by_key(|member| node(*member).revision())
            && let Err(what) = self.read_again(member)
        {
            return self.fail("V13", what);
        }
        let mut made = std::mem::take(&mut self.readback.made);
        self.clients.history.changes = made.drain(..).flat_map(|(_, _, changes)| changes).collect();
        self.clients.history.unread = std::mem::take(&mut self.readback.hidden);
        for member in members {
            self.show_states(member);
        }
    }

    fn read_again(&mut self, member: usize) -> Result<(), String> {
        let node = &self.machines[member].process.as_ref().expect("it is up").node;
        let (bound, last) = (node.compact_revision(), node.revision());
        let mut made = std::mem::take(&mut self.readback.made);
        for (index, revision, changes) in &mut made {
            if *revision <= bound.max(1) || *revision > last {
                continue;
            }
            let committed = self.watch.committed[*index as usize - 1].as_ref().expect("it was read back");
            let ask = |span: &Span, revision| self.read_at(member, span, revision);
            // It made a revision, so neither a compaction nor the want of a lease or of room stopped it.
            let none = Alarms::default();
            let when = When {
                compacted: 0,
                last,
                alarms: Some(&none),
                lease: &|_| Some(true),
                ended: &|_| Some(true),
            };
            match happened(&committed.payload, *revision, &when, &ask) {
                Ok(now) => *changes = now.into_iter().next().unwrap_or_default(),
                Err(Unreadable::Hidden | Unreadable::Refused) => {
                    return Err(format!("member {member} hides revision {revision}"));
                }
                Err(Unreadable::Wrong(why)) => {
                    return Err(format!("member {member} cannot be read at revision {revision}: {why}"));
                }
            }
        }
        self.readback.made = made;
        Ok(())
    }

    fn show_states(&mut self, member: usize) {
        let node = &self.machines[member].process.as_ref().expect("it is up").node;
        let (bound, last) = (node.compact_revision().max(1), node.revision());
        let header = crate::api::Header { revision: last, ..Default::default() };
        for revision in BTreeSet::from([bound, bound.midpoint(last), last]) {
            let span = Span::Prefix(Bytes::new());
            let range = Range { revision, serializable: true, ..Range::new(span) };
            let body = match node.range(&range) {
                Ok(Ok(result)) => crate::api::Body::Range(result),
                Ok(Err(fault)) => crate::api::Body::Fault(fault),
                Err(why) => {
                    let what = format!("member {member} cannot be read at revision {revision}: {why}");
                    return self.fail("V13", what);
                }
            };
            self.clients.shown_state(crate::api::Request::Range(range), &header, body, self.now);
        }
    }
}

/// When an entry was applied.
struct When<'a> {
    /// Nothing older could be read.
    compacted: Revision,
    /// The store's afterwards.
    last: Revision,
    /// What alarms stood, if that is known.
    alarms: Option<&'a Alarms>,
    /// Whether this lease was there, if that is known.
    lease: &'a dyn Fn(LeaseId) -> Option<bool>,
    /// Whether it ended this lease.
    ended: &'a dyn Fn(LeaseId) -> Option<bool>,
}

impl When<'_> {
    /// Of a lease that is known from a snapshot alone nobody says whether it was there.
    fn lease_was_there(&self, id: LeaseId) -> Result<bool, Unreadable> {
        (self.lease)(id).ok_or(Unreadable::Hidden)
    }
}

/// What the store says this entry did at a revision, and at those behind it if it made several; nothing: the revision is
/// another entry's.
fn happened(
    payload: &Bytes,
    revision: Revision,
    when: &When,
    ask: &Ask,
) -> Result<Vec<Vec<Change>>, Unreadable> {
    let (_, decoded) = command::decode(payload.clone()).map_err(|why| Unreadable::Wrong(why.0))?;
    let refused = when.alarms.ok_or(Unreadable::Hidden)?.refuse(&decoded);
    let changes = match &decoded {
        Command::Put(put) => match put.lease == 0 || when.lease_was_there(put.lease)? {
            true => was_put(put, revision, ask)?,
            false => Vec::new(), // What is there may be of a transaction that put this key and others.
        },
        // What is gone is another entry's.
        Command::Delete(_) if refused => Vec::new(),
        Command::Delete(delete) => was_deleted(delete, revision, ask)?,
        Command::Txn(txn) => was_done(txn, revision, when, ask)?,
        Command::LeaseRevoke { leases, .. } => return ends(leases, revision, when, ask),
        Command::Publish { .. }
        | Command::Members(_)
        | Command::Compact(_)
        | Command::LeaseGrant { .. }
        | Command::LeaseCheckpoint { .. }
        | Command::Alarm { .. }
        | Command::ChangeAlarms(_) => Vec::new(),
    };
    if refused {
        // What is there is another entry's, unless it has this one's values.
        let values = values(&decoded);
        let its = |change: &Change| change.value.as_ref().is_some_and(|value| values.contains(&&value[..]));
        return if changes.iter().any(its) { Err(Unreadable::Refused) } else { Ok(Vec::new()) };
    }
    Ok(if changes.is_empty() { Vec::new() } else { vec![changes] })
}

fn was_put(put: &Put, revision: Revision, ask: &Ask) -> Result<Vec<Change>, Unreadable> {
    let key = Span::Key(put.key.clone());
    if (put.ignore_value || put.ignore_lease) && ask(&key, revision - 1)?.kvs.is_empty() {
        return Ok(Vec::new()); // It kept something of a key that was not there.
    }
    let found = ask(&key, revision)?;
    let new = found.kvs.into_iter().filter(|kv| kv.mod_revision == revision);
    Ok(new.map(|kv| Change { revision, key: kv.key, value: Some(kv.value), lease: kv.lease }).collect())
}

fn was_deleted(delete: &Delete, revision: Revision, ask: &Ask) -> Result<Vec<Change>, Unreadable> {
    gone(&delete.span, revision, 0, ask)
}

/// What of a span was there before a revision and is not any more; nothing, unless something of it was attached to `lease`.
fn gone(span: &Span, revision: Revision, lease: LeaseId, ask: &Ask) -> Result<Vec<Change>, Unreadable> {
    let before = ask(span, revision - 1)?.kvs;
    if before.is_empty() || (lease != 0 && before.iter().all(|kv| kv.lease != lease)) {
        return Ok(Vec::new());
    }
    let after = ask(span, revision)?.kvs;
    let gone = before.into_iter().filter(|kv| after.iter().all(|left| left.key != kv.key));
    let gone: Vec<KeyValue> = gone.collect();
    if lease != 0 && gone.iter().all(|kv| kv.lease != lease) {
        return Ok(Vec::new());
    }
    Ok(gone.into_iter().map(|kv| Change { revision, key: kv.key, value: None, lease: 0 }).collect())
}

/// Each lease that had keys made a revision.
fn ends(
    leases: &[LeaseRef],
    mut revision: Revision,
    when: &When,
    ask: &Ask,
) -> Result<Vec<Vec<Change>>, Unreadable> {
    let everything = Span::Prefix(Bytes::new());
    let mut revisions = Vec::new();
    for lease in leases {
        if revision > when.last {
            break;
        }
        if !(when.ended)(lease.id).ok_or(Unreadable::Hidden)? {
            continue;
        }
        let changes = gone(&everything, revision, lease.id, ask)?;
        if !changes.is_empty() {
            revisions.push(changes);
            revision += 1;
        }
    }
    Ok(revisions)
}

fn was_done(txn: &Txn, revision: Revision, when: &When, ask: &Ask) -> Result<Vec<Change>, Unreadable> {
    let mut unread = None;
    let mut look = |span: &Span| -> Vec<KeyValue> {
        ask(span, revision - 1).map_err(|why| unread = Some(why)).map_or(Vec::new(), |found| found.kvs)
    };
    let course = Course::new(txn, &mut look);
    let mut unknown = None;
    let mut leases = |id| when.lease_was_there(id).map_err(|why| unknown = Some(why)).unwrap_or(true);
    let stop = course.stop(when.compacted, revision - 1, &mut look, &mut leases);
    if let Some(why) = unread.or(unknown) {
        return Err(why);
    }
    let mut changes = BTreeMap::new();
    for asked in course.all().into_iter().filter(|_| stop.is_none()) {
        let done = match asked {
            Asked::Put(put) => was_put(put, revision, ask)?,
            Asked::Delete(delete) => was_deleted(delete, revision, ask)?,
            Asked::Range(_) => Vec::new(),
        };
        changes.extend(done.into_iter().map(|change| (change.key.clone(), change)));
    }
    Ok(changes.into_values().collect())
}
