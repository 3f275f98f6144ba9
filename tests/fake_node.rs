//! A node for adapters to talk to: one member, one map, answers at once. Too simple to be wrong about what it
//! stores; it knows nothing of old revisions, and says so as the real one would. Its leases stand still, and nobody waits for a
//! lock: who is not the first is told so at once. Watches begin now, whatever they ask for, and are told before the
//! writer is.

use std::collections::BTreeMap;

use bytes::Bytes;
use pawl::api::{
    Acquire, Alarm, AlarmKind, Body, Call, Compact, Compare, CompareResult, ConnId, Delete, Event, EventKind,
    Fault, Header, KeyValue, LeaseAnswer, LeaseRequest, LeaseTime, LockRequest, Member, MemberChange,
    Metrics, Op, Order, Put, Range, RangeResult, Reply, Request, Span, Status, Tag, Target, Txn, TxnResult,
    Watch, lock,
};
use pawl::base::Revision;

pub const CLUSTER: u64 = 0xcdf8_1819_4e3a_8c32;
pub const MEMBER: u64 = 0x8e9e_05c5_2164_694d;

pub struct FakeNode {
    revision: Revision,
    keys: BTreeMap<Bytes, KeyValue>,
    watches: BTreeMap<Tag, Watch>,
    /// Which of them observe an election, and who led it last.
    observed: BTreeMap<Tag, (Bytes, Option<KeyValue>)>,
    /// Who asked for progress, and is told when a test says so.
    progress: Vec<Tag>,
    /// With the seconds that were granted.
    leases: BTreeMap<i64, u64>,
}

impl Default for FakeNode {
    fn default() -> FakeNode {
        FakeNode {
            revision: 1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            watches: BTreeMap::new(),
            observed: BTreeMap::new(),
            progress: Vec::new(),
        }
    }
}

impl FakeNode {
    /// What is told to watches, and the answer.
    pub fn answer(&mut self, conn: ConnId, call: Call) -> Vec<Reply> {
        let (tag, request) = match call {
            Call::Request { tag, request } => (tag, request),
            Call::Cancel { tag } => {
                self.watches.remove(&tag);
                self.observed.remove(&tag);
                return Vec::new();
            }
            Call::Hold { .. } | Call::Release { .. } | Call::Leave { .. } => return Vec::new(),
        };
        if let Request::WatchProgress = request {
            self.progress.push(tag);
            return Vec::new();
        }
        let mut told = Vec::new();
        let body = match request {
            Request::Watch(watch) => {
                self.watches.insert(tag, watch);
                Body::Watching
            }
            Request::Lock(LockRequest::Observe { name }) => {
                let leader = self.first_of(&name);
                self.watches.insert(tag, Watch::new(Span::Prefix(lock::lock_prefix(&name))));
                self.observed.insert(tag, (name, leader.clone()));
                Body::Observing { revision: self.revision, leader }
            }
            request => self.run(request, &mut told).unwrap_or_else(Body::Fault),
        };
        let mut replies = self.pushes(conn, &told);
        replies.push(self.reply(conn, tag, body));
        replies
    }

    fn reply(&self, conn: ConnId, tag: Tag, body: Body) -> Reply {
        let header = Header { cluster: CLUSTER, member: MEMBER, revision: self.revision, term: 2 };
        let more = body.begins_to_tell() || matches!(body, Body::Events { .. } | Body::Leads { .. });
        Reply { conn, tag, header, body, more }
    }

    /// The oldest key under a name.
    fn first_of(&self, name: &[u8]) -> Option<KeyValue> {
        let under = self.within(&Span::Prefix(lock::lock_prefix(name)));
        under.into_iter().min_by_key(|kv| kv.create_revision)
    }

    fn pushes(&mut self, conn: ConnId, told: &[(EventKind, KeyValue, Option<KeyValue>)]) -> Vec<Reply> {
        let mut replies = Vec::new();
        for (tag, watch) in &self.watches {
            if let Some((name, known)) = self.observed.get(tag) {
                let leader = self.first_of(name);
                if let Some(leader) = leader.clone().filter(|_| leader != *known) {
                    replies.push(self.reply(conn, *tag, Body::Leads { revision: self.revision, leader }));
                }
                continue;
            }
            let wanted = told.iter().filter(|(kind, kv, _)| {
                let left_out = if *kind == EventKind::Put { watch.no_put } else { watch.no_delete };
                !left_out && holds(&watch.span, &kv.key)
            });
            let events: Vec<_> = wanted
                .map(|(kind, kv, before)| {
                    Event::new(*kind, kv.clone(), before.clone().filter(|_| watch.prev_kv))
                })
                .collect();
            if !events.is_empty() {
                replies.push(self.reply(conn, *tag, Body::Events { revision: self.revision, events }));
            }
        }
        let now: Vec<_> = self.observed.iter().map(|(tag, (name, _))| (*tag, self.first_of(name))).collect();
        for (tag, leader) in now {
            self.observed.get_mut(&tag).expect("it was just listed").1 = leader;
        }
        replies
    }

    /// The connection is gone, and its watches with it.
    pub fn disconnect(&mut self) {
        self.watches.clear();
        self.observed.clear();
        self.progress.clear();
    }

    /// Those who asked hear how far they were told everything.
    pub fn tell_progress(&mut self, conn: ConnId) -> Vec<Reply> {
        let asked = std::mem::take(&mut self.progress);
        let progress = |tag| self.reply(conn, tag, Body::Progress { revision: self.revision });
        asked.into_iter().map(progress).collect()
    }

    /// All watches end.
    pub fn end_watches(&mut self, conn: ConnId, fault: &Fault, compacted: Revision) -> Vec<Reply> {
        self.observed.clear();
        let watches = std::mem::take(&mut self.watches);
        let unwatched = |tag| self.reply(conn, tag, Body::Unwatched { fault: fault.clone(), compacted });
        watches.into_keys().map(unwatched).collect()
    }

    fn run(
        &mut self,
        request: Request,
        told: &mut Vec<(EventKind, KeyValue, Option<KeyValue>)>,
    ) -> Result<Body, Fault> {
        match request {
            Request::Put(put) => {
                let (key, before) = (put.key.clone(), self.keys.get(&put.key).cloned());
                let body = self.put(put)?;
                told.push((EventKind::Put, self.keys[&key].clone(), before));
                Ok(body)
            }
            Request::Range(range) => self.range(&range).map(Body::Range),
            Request::Delete(delete) => {
                let gone = self.within(&delete.span);
                let body = self.delete(&delete);
                for kv in gone {
                    let tombstone =
                        KeyValue { key: kv.key.clone(), mod_revision: self.revision, ..KeyValue::default() };
                    told.push((EventKind::Delete, tombstone, Some(kv)));
                }
                Ok(body)
            }
            Request::Txn(txn) => {
                let (before, revision) = (self.keys.clone(), self.revision);
                let result = self.txn(txn, &before, revision);
                if result.is_err() {
                    (self.keys, self.revision) = (before.clone(), revision);
                }
                let result = result?;
                told.extend(changed(&before, &self.keys, self.revision));
                Ok(Body::Txn(result))
            }
            Request::Compact(Compact { revision, .. }) if revision > self.revision => {
                Err(Fault::future(self.revision))
            }
            Request::Compact(Compact { revision, .. }) => Ok(Body::Compacted { revision }),
            Request::Defrag => Ok(Body::Defragmented),
            // One number for what it holds; who reads it back looks for nothing else.
            Request::Hash => Ok(Body::Hash(7)),
            Request::HashKv { revision } if revision > self.revision => Err(Fault::future(self.revision)),
            Request::HashKv { revision } => {
                Ok(Body::HashKv { hash: 9, revision: revision.max(1), compact_revision: 0 })
            }
            Request::Snapshot => Ok(Body::SnapshotPart { bytes: vec![5; 32].into(), remaining_bytes: 0 }),
            Request::AlarmList => Ok(Body::Alarms(Vec::new())),
            Request::AlarmChange(_) => {
                Ok(Body::Alarms(vec![Alarm { member: MEMBER, kind: AlarmKind::NoSpace }]))
            }
            Request::Exists { keys } => {
                Ok(Body::Exists(keys.iter().filter(|key| self.keys.contains_key(*key)).count() as u64))
            }
            Request::Lease(request) => self.lease(request).map(Body::Lease),
            Request::Lock(request) => self.lock(request),
            Request::Status => Ok(Body::Status(Box::new(self.status()))),
            Request::Metrics => {
                Ok(Body::Metrics(Box::new(Metrics { status: self.status(), ..Metrics::default() })))
            }
            Request::MemberList { .. } => Ok(Body::Members(vec![Member {
                id: MEMBER,
                name: "default".into(),
                peer_urls: vec!["http://localhost:2380".into()],
                client_urls: vec!["http://localhost:2379".into()],
                learner: false,
            }])),
            Request::MemberAdd { peer_urls, learner } => {
                let member = Member { id: 7, peer_urls, learner, ..Member::default() };
                Ok(Body::MemberAdded { member: Box::new(member.clone()), members: vec![member] })
            }
            Request::MemberUpdate { id, peer_urls } => {
                Ok(Body::Members(vec![Member { id, peer_urls, ..Member::default() }]))
            }
            Request::MemberChange { changes } => {
                let added = changes.into_iter().filter_map(|change| match change {
                    MemberChange::Add { peer_urls, learner, .. } => {
                        Some(Member { id: 7, peer_urls, learner, ..Member::default() })
                    }
                    _ => None,
                });
                Ok(Body::Members(added.collect()))
            }
            Request::MemberRemove { .. } | Request::MemberPromote { .. } => Err(Fault::no_member()),
            Request::MoveLeader { to } if to == MEMBER => Ok(Body::LeaderMoved),
            Request::MoveLeader { .. } => Err(Fault::no_leader()),
            Request::WatchHealth => Ok(Body::Serves(true)),
            Request::Watch(_) | Request::WatchProgress => unreachable!("answered before"),
        }
    }

    fn lock(&mut self, request: LockRequest) -> Result<Body, Fault> {
        match request {
            LockRequest::Acquire(Acquire { name, value, lease, campaign, .. }) => {
                let key = lock::lock_key(&name, lease);
                self.put(Put { key: key.clone(), value, lease, ..Put::default() })?;
                let own = self.keys[&key].create_revision;
                let under = self.within(&Span::Prefix(lock::lock_prefix(&name)));
                if under.iter().any(|kv| kv.create_revision < own) {
                    self.delete(&Delete { span: Span::Key(key), prev_kv: false });
                    return Err(if campaign { Fault::another_leads() } else { Fault::locked() });
                }
                Ok(Body::Acquired { key, revision: own })
            }
            LockRequest::Release { key } => Ok(self.delete(&Delete { span: Span::Key(key), prev_kv: false })),
            LockRequest::Proclaim { key, value } => {
                self.put(Put { key, value, ignore_lease: true, ..Put::default() })
            }
            LockRequest::Observe { .. } => unreachable!("answered before"),
            LockRequest::Leader { name } => {
                let mut kvs = self.within(&Span::Prefix(lock::lock_prefix(&name)));
                kvs.sort_by_key(|kv| kv.create_revision);
                let count = kvs.len() as u64;
                kvs.truncate(1);
                Ok(Body::Range(RangeResult { revision: self.revision, count, more: count > 1, kvs }))
            }
        }
    }

    fn put(&mut self, put: Put) -> Result<Body, Fault> {
        let before = self.keys.get(&put.key).cloned();
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Fault::no_lease());
        }
        if before.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(Fault::no_key());
        }
        self.revision += 1;
        let old = before.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            value: if put.ignore_value { old.value } else { put.value },
            create_revision: if before.is_some() { old.create_revision } else { self.revision },
            mod_revision: self.revision,
            version: old.version + 1,
            lease: if put.ignore_lease { old.lease } else { put.lease },
        };
        self.keys.insert(put.key, kv);
        Ok(Body::Put { revision: self.revision, previous: put.prev_kv.then_some(before) })
    }

    /// `before` is what compares look at, and every write makes the revision behind `begun`.
    fn txn(
        &mut self,
        txn: Txn,
        before: &BTreeMap<Bytes, KeyValue>,
        begun: Revision,
    ) -> Result<TxnResult, Fault> {
        let succeeded = txn.compares.iter().all(|compare| compare_holds(compare, before));
        let mut responses = Vec::new();
        for op in if succeeded { txn.success } else { txn.failure } {
            let reached = self.revision;
            responses.push(match op {
                Op::Range(range) => self.range(&range).map(Body::Range)?,
                Op::Txn(txn) => Body::Txn(self.txn(txn, before, begun)?),
                Op::Put(put) => {
                    self.revision = begun;
                    self.put(put)?
                }
                Op::Delete(delete) => {
                    self.revision = begun;
                    self.delete(&delete)
                }
            });
            self.revision = self.revision.max(reached);
        }
        Ok(TxnResult { revision: self.revision, succeeded, responses })
    }

    fn within(&self, span: &Span) -> Vec<KeyValue> {
        within(&self.keys, span)
    }
}

fn within(keys: &BTreeMap<Bytes, KeyValue>, span: &Span) -> Vec<KeyValue> {
    keys.values().filter(|kv| holds(span, &kv.key)).cloned().collect()
}

/// What a watch is told of a revision, in the order of the keys: what is there now, and what was there before.
fn changed(
    before: &BTreeMap<Bytes, KeyValue>,
    now: &BTreeMap<Bytes, KeyValue>,
    revision: Revision,
) -> Vec<(EventKind, KeyValue, Option<KeyValue>)> {
    let put = now.values().filter(|kv| before.get(&kv.key) != Some(kv));
    let put = put.map(|kv| (EventKind::Put, kv.clone(), before.get(&kv.key).cloned()));
    let gone = before.values().filter(|kv| !now.contains_key(&kv.key)).map(|kv| {
        let tombstone = KeyValue { key: kv.key.clone(), mod_revision: revision, ..KeyValue::default() };
        (EventKind::Delete, tombstone, Some(kv.clone()))
    });
    put.chain(gone).collect()
}

fn compare_holds(compare: &Compare, keys: &BTreeMap<Bytes, KeyValue>) -> bool {
    let mut there = within(keys, &compare.span);
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

impl FakeNode {
    fn range(&self, range: &Range) -> Result<RangeResult, Fault> {
        if range.revision > self.revision {
            return Err(Fault::future(self.revision));
        }
        if range.revision != 0 && range.revision < self.revision {
            return Err(Fault::compacted(self.revision));
        }
        let mut kvs = self.within(&range.span);
        let count = kvs.len() as u64;
        if range.order == Order::Descending {
            kvs.reverse();
        }
        let most = if range.limit == 0 { usize::MAX } else { range.limit as usize };
        let more = kvs.len() > most;
        kvs.truncate(if range.count_only { 0 } else { most });
        if range.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeResult { revision: self.revision, count, more, kvs })
    }

    fn delete(&mut self, delete: &Delete) -> Body {
        let gone = self.within(&delete.span);
        for kv in &gone {
            self.keys.remove(&kv.key);
        }
        self.revision += u64::from(!gone.is_empty());
        Body::Delete {
            revision: self.revision,
            deleted: gone.len() as u64,
            previous: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    fn lease(&mut self, request: LeaseRequest) -> Result<LeaseAnswer, Fault> {
        match request {
            LeaseRequest::Grant { id, ttl_s } => {
                let id = if id == 0 { 1_234_567_890_123_456_789 } else { id };
                let ttl_s = u64::try_from(ttl_s).unwrap_or(0).max(2);
                if self.leases.contains_key(&id) {
                    return Err(Fault::lease_exists());
                }
                self.leases.insert(id, ttl_s);
                Ok(LeaseAnswer::Granted { id, ttl_s })
            }
            LeaseRequest::Revoke { id } => {
                self.leases.remove(&id).ok_or_else(Fault::no_lease)?;
                let before = self.keys.len();
                self.keys.retain(|_, kv| kv.lease != id);
                let deleted = (before - self.keys.len()) as u64;
                self.revision += u64::from(deleted > 0);
                Ok(LeaseAnswer::Revoked { revision: self.revision, deleted })
            }
            LeaseRequest::KeepAlive { ids } => {
                let ttl = |id| self.leases.get(id).copied().unwrap_or(0);
                Ok(LeaseAnswer::Kept(ids.iter().map(ttl).collect()))
            }
            LeaseRequest::TimeToLive { id, keys } => {
                let granted = self.leases.get(&id).copied();
                let attached = self.keys.values().filter(|kv| keys && kv.lease == id);
                let keys = attached.map(|kv| kv.key.clone()).collect();
                let time = granted.map(|granted_s| LeaseTime { granted_s, remaining_s: granted_s - 1 });
                Ok(LeaseAnswer::TimeToLive { id, time, keys })
            }
            LeaseRequest::List => Ok(LeaseAnswer::List(self.leases.keys().copied().collect())),
        }
    }

    fn status(&self) -> Status {
        Status {
            member_id: MEMBER,
            cluster_id: CLUSTER,
            name: "default".into(),
            version: "0.1.0".into(),
            leader: MEMBER,
            term: 2,
            commit_index: 7,
            applied_index: 6,
            revision: self.revision,
            db_size: 20480,
            db_size_in_use: 16384,
            ..Status::default()
        }
    }
}

fn holds(span: &Span, key: &Bytes) -> bool {
    match span {
        Span::Key(one) => key == one,
        Span::Between(from, to) => key >= from && key < to,
        Span::Prefix(prefix) => key.starts_with(prefix),
        Span::From(from) => key >= from,
    }
}
