//! etcd's semantics, written for being obviously right: every version of every key in a list.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pawl::api::{
    Alarm, AlarmChange, AlarmKind, Body, Code, Command, Compare, CompareResult, Delete, Fault, KeyValue,
    LeaseAnswer, LeaseRef, Member, MemberChange, Op, Order, Put, Range, RangeResult, SortBy, Span, Target,
    Txn, TxnResult,
};
use pawl::base::EntryId;

#[derive(Clone)]
struct Version {
    modified: u64,
    created: u64,
    version: u64,
    /// None: deleted.
    value: Option<Bytes>,
    lease: i64,
}

#[derive(Clone)]
pub struct Lease {
    pub granted_by: u64,
    pub ttl_s: u64,
    pub remaining_s: u64,
}

#[derive(Clone)]
pub struct Model {
    pub revision: u64,
    pub compacted: u64,
    /// The leader without room, 0: there is room; and the alarms of clients.
    full: u64,
    raised: BTreeSet<Alarm>,
    /// Oldest version first.
    keys: BTreeMap<Bytes, Vec<Version>>,
    pub members: BTreeMap<u64, Member>,
    pub removed: BTreeSet<u64>,
    /// Voters of one half only, while the membership is joint.
    pub coming: BTreeSet<u64>,
    pub leaving: BTreeSet<u64>,
    pub leases: BTreeMap<i64, Lease>,
}

fn wants_room(command: &Command) -> bool {
    fn holds_a_put(txn: &Txn) -> bool {
        txn.success.iter().chain(&txn.failure).any(|op| match op {
            Op::Put(_) => true,
            Op::Txn(txn) => holds_a_put(txn),
            _ => false,
        })
    }
    match command {
        Command::Put(_) | Command::LeaseGrant { .. } => true,
        Command::Txn(txn) => holds_a_put(txn),
        _ => false,
    }
}

fn is_of_keys_or_leases(command: &Command) -> bool {
    matches!(
        command,
        Command::Put(_)
            | Command::Delete(_)
            | Command::Txn(_)
            | Command::Compact(_)
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
    )
}

impl Model {
    pub fn new(members: &[Member]) -> Model {
        let members = members.iter().map(|member| (member.id, member.clone())).collect();
        Model {
            revision: 1,
            compacted: 0,
            full: 0,
            raised: BTreeSet::new(),
            keys: BTreeMap::new(),
            members,
            removed: BTreeSet::new(),
            coming: BTreeSet::new(),
            leaving: BTreeSet::new(),
            leases: BTreeMap::new(),
        }
    }

    pub fn apply(&mut self, entry: EntryId, command: &Command) -> Body {
        let alarms = self.alarms();
        let stands = |kind| alarms.iter().any(|alarm| alarm.kind == kind);
        if wants_room(command) && stands(AlarmKind::NoSpace) {
            return Body::Fault(Fault::no_space());
        }
        if is_of_keys_or_leases(command) && stands(AlarmKind::Corrupt) {
            return Body::Fault(Fault::new(Code::Corrupt, "etcdserver: corrupt cluster"));
        }
        match command {
            Command::LeaseGrant { id, ttl_s } => self.grant(entry, *id, *ttl_s),
            Command::LeaseRevoke { term, leases } => self.revoke(entry, *term, leases),
            Command::LeaseCheckpoint { term, leases } => {
                for (lease, left_s) in leases {
                    if *term == entry.term
                        && let Some(known) = self.leases.get_mut(&lease.id)
                        && known.granted_by == lease.generation
                    {
                        known.remaining_s = (*left_s).clamp(1, known.ttl_s);
                    }
                }
                Body::Members(Vec::new())
            }
            Command::Put(put) => self.put(put),
            Command::Delete(delete) => self.delete(delete),
            Command::Txn(txn) => self.txn(txn).map_or_else(Body::Fault, Body::Txn),
            Command::Publish { member, name, client_urls } => match self.members.get_mut(member) {
                None => Body::Fault(Fault::new(Code::NoMember, "etcdserver: member not found")),
                Some(member) => {
                    member.name = name.clone();
                    member.client_urls = client_urls.clone();
                    self.all_members()
                }
            },
            Command::Members(change) => self.change_members(change),
            Command::Compact(compact) => self.compact(compact.revision),
            Command::Alarm { raised: false, .. } => {
                self.full = 0;
                Body::Alarms(self.alarms())
            }
            Command::Alarm { member, .. } => {
                self.full = if self.full == 0 { *member } else { self.full };
                Body::Alarms(self.alarms())
            }
            Command::ChangeAlarms(AlarmChange::Raise(alarm)) => {
                self.raised.insert(*alarm);
                Body::Alarms(vec![*alarm])
            }
            Command::ChangeAlarms(AlarmChange::End(alarm)) => {
                let is_leaders = *alarm == (Alarm { member: self.full, kind: AlarmKind::NoSpace });
                self.raised.remove(alarm);
                self.full = if is_leaders { 0 } else { self.full };
                Body::Alarms(alarms.into_iter().filter(|stood| stood == alarm).collect())
            }
            Command::ChangeAlarms(AlarmChange::EndAll) => {
                (self.full, self.raised) = (0, BTreeSet::new());
                Body::Alarms(alarms)
            }
        }
    }

    pub fn alarms(&self) -> Vec<Alarm> {
        let mut all = self.raised.clone();
        if self.full != 0 {
            all.insert(Alarm { member: self.full, kind: AlarmKind::NoSpace });
        }
        all.into_iter().collect()
    }

    fn all_members(&self) -> Body {
        Body::Members(self.members.values().cloned().collect())
    }

    fn change_members(&mut self, change: &MemberChange) -> Body {
        let unknown = || Body::Fault(Fault::new(Code::NoMember, "etcdserver: member not found"));
        let is_joint = !self.coming.is_empty() || !self.leaving.is_empty();
        match change {
            MemberChange::Leave => {
                self.coming.clear();
                for id in std::mem::take(&mut self.leaving) {
                    self.members.remove(&id);
                    self.removed.insert(id);
                }
                self.all_members()
            }
            change if is_joint && !matches!(change, MemberChange::Alone { .. }) => {
                Body::Fault(Fault::new(Code::Busy, "etcdserver: too many requests"))
            }
            MemberChange::Several(steps) => self.change_several(steps),
            MemberChange::Add { id, peer_urls, learner } => {
                if self.members.contains_key(id) || self.removed.contains(id) {
                    return Body::Fault(Fault::new(
                        Code::MemberExists,
                        "etcdserver: member ID already exist",
                    ));
                }
                let member =
                    Member { id: *id, peer_urls: peer_urls.clone(), learner: *learner, ..Member::default() };
                self.members.insert(*id, member.clone());
                let members = self.members.values().cloned().collect();
                Body::MemberAdded { member: Box::new(member), members }
            }
            MemberChange::Remove { id } => match self.members.remove(id) {
                None => unknown(),
                Some(_) => {
                    self.removed.insert(*id);
                    self.all_members()
                }
            },
            MemberChange::Update { id, peer_urls } => match self.members.get_mut(id) {
                None => unknown(),
                Some(member) => {
                    member.peer_urls = peer_urls.clone();
                    self.all_members()
                }
            },
            MemberChange::Promote { id } => match self.members.get_mut(id) {
                None => unknown(),
                Some(member) => {
                    member.learner = false;
                    self.all_members()
                }
            },
            MemberChange::Alone { id } => {
                self.coming.clear();
                self.leaving.clear();
                let others: Vec<u64> = self.members.keys().copied().filter(|other| other != id).collect();
                for other in others {
                    self.members.remove(&other);
                    self.removed.insert(other);
                }
                self.change_members(&MemberChange::Promote { id: *id })
            }
        }
    }

    fn compact(&mut self, revision: u64) -> Body {
        if revision > self.revision {
            return Body::Fault(Fault::future(self.revision));
        }
        if revision <= self.compacted {
            return Body::Fault(Fault::compacted(self.compacted));
        }
        self.compacted = revision;
        Body::Compacted { revision }
    }

    /// Each in turn on a copy, which counts if all went well. If the voters before and after differ in more than one,
    /// those who went stay for now.
    fn change_several(&mut self, steps: &[MemberChange]) -> Body {
        let mut after = self.clone();
        let mut concerned = BTreeSet::new();
        for step in steps {
            let (MemberChange::Add { id, .. } | MemberChange::Remove { id } | MemberChange::Promote { id }) =
                step
            else {
                panic!("{step:?} among several")
            };
            let is_voter = self.members.get(id).is_some_and(|member| !member.learner);
            if matches!(step, MemberChange::Promote { .. }) && is_voter {
                return Body::Fault(Fault::new(
                    Code::Learner,
                    "etcdserver: can only promote a learner member",
                ));
            }
            let mut alone = self.clone();
            if let Body::Fault(fault) = alone.change_members(step) {
                return Body::Fault(fault);
            }
            if !concerned.insert(*id) {
                return Body::Fault(Fault::new(Code::MemberExists, "etcdserver: member ID already exist"));
            }
            after.change_members(step);
        }
        let (old, new) = (self.voters(), after.voters());
        if old.symmetric_difference(&new).count() > 1 {
            after.coming = new.difference(&old).copied().collect();
            after.leaving = old.difference(&new).copied().collect();
            for id in &after.leaving {
                after.members.insert(*id, self.members[id].clone());
                after.removed.remove(id);
            }
        }
        *self = after;
        self.all_members()
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.members.values().filter(|member| !member.learner).map(|member| member.id).collect()
    }

    fn grant(&mut self, entry: EntryId, id: i64, ttl_s: u64) -> Body {
        if id == 0 {
            return Body::Fault(Fault::no_lease());
        }
        if self.leases.contains_key(&id) {
            return Body::Fault(Fault::lease_exists());
        }
        let ttl_s = ttl_s.max(1);
        self.leases.insert(id, Lease { granted_by: entry.index, ttl_s, remaining_s: ttl_s });
        Body::Lease(LeaseAnswer::Granted { id, ttl_s })
    }

    fn revoke(&mut self, entry: EntryId, term: u64, leases: &[LeaseRef]) -> Body {
        let (mut ended, mut deleted) = (false, 0);
        for lease in leases {
            let is_it =
                |known: &Lease| term == 0 || (term == entry.term && known.granted_by == lease.generation);
            if !self.leases.get(&lease.id).is_some_and(is_it) {
                continue;
            }
            ended = true;
            self.leases.remove(&lease.id);
            let doomed = self.attached(lease.id);
            self.revision += u64::from(!doomed.is_empty());
            deleted += doomed.len() as u64;
            for key in doomed {
                self.tombstone(&key);
            }
        }
        if !ended {
            return Body::Fault(Fault::no_lease());
        }
        Body::Lease(LeaseAnswer::Revoked { revision: self.revision, deleted })
    }

    pub fn attached(&self, id: i64) -> Vec<Bytes> {
        let now = |key: &&Bytes| id != 0 && self.at(key, self.revision).is_some_and(|kv| kv.lease == id);
        self.keys.keys().filter(now).cloned().collect()
    }

    fn tombstone(&mut self, key: &Bytes) {
        let versions = self.keys.get_mut(key).expect("it is there");
        versions.push(Version { modified: self.revision, created: 0, version: 0, value: None, lease: 0 });
    }

    fn put(&mut self, put: &Put) -> Body {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Body::Fault(Fault::no_lease());
        }
        let previous = self.at(&put.key, self.revision);
        if previous.is_none() && (put.ignore_value || put.ignore_lease) {
            return Body::Fault(Fault::no_key());
        }
        self.revision += 1;
        let value = match &previous {
            Some(previous) if put.ignore_value => previous.value.clone(),
            _ => put.value.clone(),
        };
        self.keys.entry(put.key.clone()).or_default().push(Version {
            modified: self.revision,
            created: previous.as_ref().map_or(self.revision, |kv| kv.create_revision),
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            value: Some(value),
            lease: match &previous {
                Some(previous) if put.ignore_lease => previous.lease,
                _ => put.lease,
            },
        });
        Body::Put { revision: self.revision, previous: put.prev_kv.then_some(previous) }
    }

    fn delete(&mut self, delete: &Delete) -> Body {
        let doomed = self.all_at(&delete.span, self.revision);
        if !doomed.is_empty() {
            self.revision += 1;
        }
        for kv in &doomed {
            self.tombstone(&kv.key);
        }
        Body::Delete {
            revision: self.revision,
            deleted: doomed.len() as u64,
            previous: if delete.prev_kv { doomed } else { Vec::new() },
        }
    }

    /// All or nothing.
    pub fn txn(&mut self, txn: &Txn) -> Result<TxnResult, Fault> {
        let before = self.clone();
        // Of puts that cannot be done the first one is named; only then reads are.
        let mut unread = None;
        let result = self.do_txn(txn, &before, &mut unread).and_then(|done| unread.map_or(Ok(done), Err));
        if result.is_err() {
            *self = before;
        }
        result
    }

    /// `before` is the state before the whole of it.
    fn do_txn(&mut self, txn: &Txn, before: &Model, unread: &mut Option<Fault>) -> Result<TxnResult, Fault> {
        let succeeded = txn.compares.iter().all(|compare| before.holds(compare));
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let reached = self.revision;
            responses.push(match op {
                Op::Txn(txn) => Body::Txn(self.do_txn(txn, before, unread)?),
                Op::Range(range) => {
                    let future = range.revision > before.revision;
                    let read = if future { Err(Fault::future(before.revision)) } else { self.range(range) };
                    read.map(Body::Range).unwrap_or_else(|fault| {
                        unread.get_or_insert(fault.clone());
                        Body::Fault(fault)
                    })
                }
                Op::Put(put) => {
                    let keeps = put.ignore_value || put.ignore_lease;
                    if keeps && before.at(&put.key, before.revision).is_none() {
                        return Err(Fault::no_key());
                    }
                    if put.lease != 0 && !before.leases.contains_key(&put.lease) {
                        return Err(Fault::no_lease());
                    }
                    // No key is written twice, so a write need not see those before it; it shares their revision.
                    self.revision = before.revision;
                    self.put(put)
                }
                Op::Delete(delete) => {
                    let gone = self.all_at(&delete.span, reached);
                    for kv in &gone {
                        self.revision = before.revision;
                        self.delete(&Delete { span: Span::Key(kv.key.clone()), prev_kv: false });
                    }
                    Body::Delete {
                        revision: self.revision.max(reached),
                        deleted: gone.len() as u64,
                        previous: if delete.prev_kv { gone } else { Vec::new() },
                    }
                }
            });
            self.revision = self.revision.max(reached);
        }
        Ok(TxnResult { revision: self.revision, succeeded, responses })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut there = self.all_at(&compare.span, self.revision);
        if there.is_empty() {
            if matches!(compare.target, Target::Value(_)) {
                return false;
            }
            there.push(KeyValue::default());
        }
        there.iter().all(|kv| {
            let order = match &compare.target {
                Target::Value(value) => kv.value.cmp(value),
                Target::Version(number) => (kv.version as i64).cmp(number),
                Target::Create(number) => (kv.create_revision as i64).cmp(number),
                Target::Mod(number) => (kv.mod_revision as i64).cmp(number),
                Target::Lease(number) => kv.lease.cmp(number),
            };
            match compare.result {
                CompareResult::Equal => order.is_eq(),
                CompareResult::NotEqual => order.is_ne(),
                CompareResult::Less => order.is_lt(),
                CompareResult::Greater => order.is_gt(),
            }
        })
    }

    pub fn range(&self, range: &Range) -> Result<RangeResult, Fault> {
        if range.revision > self.revision {
            return Err(Fault::future(self.revision));
        }
        if range.revision > 0 && range.revision < self.compacted {
            return Err(Fault::compacted(self.compacted));
        }
        let revision = if range.revision == 0 { self.revision } else { range.revision };
        let all = self.all_at(&range.span, revision);
        let count = all.len() as u64;
        if range.count_only {
            return Ok(RangeResult { revision, count, ..RangeResult::default() });
        }
        let within = |min: u64, value: u64, max: u64| min <= value && (max == 0 || value <= max);
        let mut kvs: Vec<KeyValue> = all
            .into_iter()
            .filter(|kv| within(range.min_mod, kv.mod_revision, range.max_mod))
            .filter(|kv| within(range.min_create, kv.create_revision, range.max_create))
            .collect();
        match range.sort_by {
            SortBy::Key => {}
            SortBy::Version => kvs.sort_by_key(|kv| kv.version),
            SortBy::Create => kvs.sort_by_key(|kv| kv.create_revision),
            SortBy::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
            SortBy::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
        }
        if range.order == Order::Descending {
            kvs.reverse();
        }
        let more = range.limit > 0 && kvs.len() as u64 > range.limit;
        if more {
            kvs.truncate(range.limit as usize);
        }
        if range.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeResult { revision, count, more, kvs })
    }

    fn all_at(&self, span: &Span, revision: u64) -> Vec<KeyValue> {
        let inside = |key: &Bytes| match span {
            Span::Key(wanted) => key == wanted,
            Span::Between(from, to) => from <= key && key < to,
            Span::Prefix(prefix) => key.starts_with(prefix),
            Span::From(from) => from <= key,
        };
        self.keys.keys().filter(|key| inside(key)).filter_map(|key| self.at(key, revision)).collect()
    }

    /// Changes of keys behind a revision.
    pub fn changes_after(&self, revision: u64) -> u64 {
        let after = |version: &&Version| version.modified > revision;
        self.keys.values().flatten().filter(after).count() as u64
    }

    pub fn deletions_at(&self, revision: u64) -> u64 {
        let deletion = |version: &&Version| version.modified == revision && version.value.is_none();
        self.keys.values().flatten().filter(deletion).count() as u64
    }

    fn at(&self, key: &Bytes, revision: u64) -> Option<KeyValue> {
        let version = self.keys.get(key)?.iter().rfind(|version| version.modified <= revision)?;
        Some(KeyValue {
            key: key.clone(),
            value: version.value.clone()?,
            create_revision: version.created,
            mod_revision: version.modified,
            version: version.version,
            lease: version.lease,
        })
    }
}
