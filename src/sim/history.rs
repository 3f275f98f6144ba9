//! What clients asked, when, and what came of it; and what the store says happened. The checkers in
//! [`super::check`] judge nothing else.
//!
//! The simulator records into a [`History`] as it goes, in the order of events. Tests with real processes
//! collect [`Op`]s per client and join them at the end.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{
    Acquire, Body, Code, Compare, CompareResult, Delete, Event, Fault, Header, KeyValue, LeaseAnswer,
    LeaseRequest, LockRequest, Op as Part, Order, Put, Range, RangeResult, Request, SortBy, Span, Target,
    Txn, Watch,
};
use crate::base::{LeaseId, Mono, Revision};

/// An instant that all clients agree on: true time, and the order of events within one instant. Two operations
/// are concurrent unless the answer to one lies strictly before the question of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub at: Mono,
    /// Counted by [`History`]; 0 where threads with a common clock recorded.
    pub order: u64,
}

impl Moment {
    pub fn new(at: Mono) -> Moment {
        Moment { at, order: 0 }
    }
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Its place in the history; operations are named by it.
    pub number: usize,
    pub client: u64,
    /// Unique for one connection of one client to one life of one member: on it a client's view never goes back.
    pub connection: u64,
    pub request: Request,
    pub invoked: Moment,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `header` is the store's revision when the answer was made, where the protocol says it.
    Answered { at: Moment, header: Option<Revision>, answer: Answer },
    /// The reply promises that nothing happened and nothing will.
    Refused { at: Moment, code: Code },
    /// No answer, a lost connection, or a reply that says so. Happened once, at any time after the question, or never.
    Unknown,
}

/// What an answer told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `previous` as in [`Body::Put`]: Some exactly when it was asked for.
    Put {
        revision: Revision,
        previous: Option<Option<KeyValue>>,
    },
    Delete {
        revision: Revision,
        deleted: u64,
        previous: Vec<KeyValue>,
    },
    Range(RangeResult),
    /// One answer for each operation that was done.
    Txn {
        revision: Revision,
        succeeded: bool,
        responses: Vec<Answer>,
    },
    Exists {
        revision: Revision,
        found: u64,
    },
    /// A read of one key by a protocol that tells the value alone (the line protocol's GET).
    Value(Option<Bytes>),
    /// A put that keeps the value or the lease, of a key that was not there.
    NoKey,
    Lease(LeaseAnswer),
    /// A lock, or leadership: under which key, and when that was created.
    Acquired {
        key: Bytes,
        revision: Revision,
    },
    /// The lease that was named was not there.
    NoLease,
    /// The lease that was to be granted was there.
    LeaseExists,
    /// The revision asked for was not there yet; `newest` was the store's.
    Future {
        newest: Revision,
    },
    /// The revision asked for was compacted away; `first` could still be read.
    Compacted {
        first: Revision,
    },
    /// Of the history up to this revision, and from the compact revision on.
    HashKv {
        hash: u32,
        revision: Revision,
        compact_revision: Revision,
    },
    /// The history ends here, as was asked for.
    Compact {
        revision: Revision,
    },
}

impl Answer {
    /// None: it tells nothing of the store, or is an error.
    fn of(header: &Header, body: Body) -> Option<Answer> {
        Some(match body {
            Body::Put { revision, previous } => Answer::Put { revision, previous },
            Body::Delete { revision, deleted, previous } => Answer::Delete { revision, deleted, previous },
            Body::Range(result) => Answer::Range(result),
            Body::Txn(txn) => Answer::Txn {
                revision: txn.revision,
                succeeded: txn.succeeded,
                responses: txn
                    .responses
                    .into_iter()
                    .map(|body| Answer::of(header, body))
                    .collect::<Option<_>>()?,
            },
            Body::Compacted { revision } => Answer::Compact { revision },
            Body::HashKv { hash, revision, compact_revision } => {
                Answer::HashKv { hash, revision, compact_revision }
            }
            Body::Exists(found) => Answer::Exists { revision: header.revision, found },
            Body::Lease(answer) => Answer::Lease(answer),
            Body::Acquired { key, revision } => Answer::Acquired { key, revision },
            Body::Fault(_)
            | Body::RangePart(_)
            | Body::Hash(_)
            | Body::SnapshotPart { .. }
            | Body::Status(_)
            | Body::Serves(_)
            | Body::Metrics(_)
            | Body::Members(_)
            | Body::MemberAdded { .. }
            | Body::Defragmented
            | Body::Alarms(_)
            | Body::LeaderMoved
            | Body::Watching
            | Body::Events { .. }
            | Body::Progress { .. }
            | Body::Unwatched { .. }
            | Body::Observing { .. }
            | Body::Leads { .. } => return None,
        })
    }

    /// Something was written.
    pub fn wrote(&self) -> bool {
        match self {
            Answer::Put { .. } | Answer::Delete { deleted: 1.., .. } => true,
            Answer::Lease(LeaseAnswer::Revoked { deleted: 1.., .. }) => true,
            Answer::Txn { responses, .. } => responses.iter().any(Answer::wrote),
            _ => false,
        }
    }
}

/// What one revision did to one key, as the store itself tells afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: Bytes,
    /// None: deleted.
    pub value: Option<Bytes>,
    /// What it is attached to; 0 = nothing.
    pub lease: LeaseId,
}

/// One watch, over all connections on which it went on.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    pub client: u64,
    pub watch: Watch,
    pub pieces: Vec<Piece>,
}

/// What it was told over one of them, in the order in which it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub connection: u64,
    /// The first revision that was asked for; 0 = the next one.
    pub asked: Revision,
    /// The store's revision when it began; None: nobody said that it did.
    pub begun: Option<Revision>,
    pub told: Vec<Told>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Events {
        revision: Revision,
        events: Vec<Arc<Event>>,
    },
    Progress {
        revision: Revision,
    },
    /// `compacted` as in [`Body::Unwatched`].
    Ended {
        compacted: Revision,
    },
}

/// An election as it was observed over one connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub client: u64,
    pub connection: u64,
    pub name: Bytes,
    /// The newest revision that any client was told of when this was asked for.
    pub known: Revision,
    /// The store's revision when it began, and who led then; None: nobody said that it did.
    pub begun: Option<(Revision, Option<KeyValue>)>,
    pub told: Vec<ToldOfLeader>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ToldOfLeader {
    Leads {
        revision: Revision,
        leader: KeyValue,
    },
    Progress {
        revision: Revision,
    },
    /// `compacted` as in [`Body::Unwatched`].
    Ended {
        compacted: Revision,
    },
}

/// Everything that one run showed.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub ops: Vec<Op>,
    /// What the store says happened, by rising revision, read back from a member (what is applied is final, so it
    /// may be read at any time, in pieces). Without it, a revision that nobody was told of and nobody has read
    /// leaves the keys that it may have changed in doubt, and what was said of them later goes unchecked.
    pub changes: Vec<Change>,
    /// Revisions among them that nobody could read back: a compaction was first.
    pub unread: BTreeSet<Revision>,
    /// The store orders compactions of its own.
    pub compacts_by_itself: bool,
    pub watched: Vec<Watched>,
    pub observed: Vec<Observed>,
    last_order: u64,
}

impl History {
    pub fn new() -> History {
        History::default()
    }

    /// Joins what several clients recorded by one clock. Numbers are given anew, by the time of the question.
    pub fn from_ops(mut ops: Vec<Op>) -> History {
        ops.sort_by_key(|op| op.invoked);
        for (number, op) in ops.iter_mut().enumerate() {
            op.number = number;
        }
        History { ops, ..History::default() }
    }

    /// A client asks. The number names the operation until its answer.
    pub fn invoke(&mut self, client: u64, connection: u64, request: Request, now: Mono) -> usize {
        let number = self.ops.len();
        let invoked = self.moment(now);
        self.ops.push(Op { number, client, connection, request, invoked, outcome: Outcome::Unknown });
        number
    }

    /// The node's answer arrives, also when the client no longer waits for it: an answer is a promise.
    pub fn answer(&mut self, number: usize, header: &Header, body: Body, now: Mono) {
        let at = self.moment(now);
        let op = &mut self.ops[number];
        assert!(op.outcome == Outcome::Unknown, "operation {number} is answered twice");
        op.outcome = Outcome::from_reply(at, header, body);
    }

    fn moment(&mut self, at: Mono) -> Moment {
        self.last_order += 1;
        Moment { at, order: self.last_order }
    }
}

impl Outcome {
    /// What the node's reply means for a history. Replies that tell nothing of the store (status, members) are
    /// answers that promise nothing: unknown.
    pub fn from_reply(at: Moment, header: &Header, body: Body) -> Outcome {
        if let Body::Fault(fault) = &body {
            return Outcome::from_fault(at, Some(header.revision), fault);
        }
        match Answer::of(header, body) {
            Some(answer) => Outcome::Answered { at, header: Some(header.revision), answer },
            None => Outcome::Unknown,
        }
    }

    /// What an error line means: by its code alone, except the bound that some codes carry.
    pub fn from_fault(at: Moment, header: Option<Revision>, fault: &Fault) -> Outcome {
        let bound = || fault.text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let answer = match fault.code {
            Code::Timeout | Code::Shutdown | Code::Corrupt => return Outcome::Unknown,
            Code::NoKey => Answer::NoKey,
            Code::NoLease => Answer::NoLease,
            Code::LeaseExists => Answer::LeaseExists,
            Code::Future => Answer::Future { newest: bound() },
            Code::Compacted => Answer::Compacted { first: bound() },
            Code::Err
            | Code::NoLeader
            | Code::Busy
            | Code::TooLarge
            | Code::TooManyOps
            | Code::DupKey
            | Code::NoMember
            | Code::MemberExists
            | Code::Learner
            | Code::Unhealthy
            | Code::NoSpace
            | Code::Loading => return Outcome::Refused { at, code: fault.code },
        };
        Outcome::Answered { at, header, answer }
    }
}

// How violations show operations: one line each, long values cut.

const SHOWN_BYTES_MAX: usize = 40;

/// Bytes as text in quotes, cut where they are long.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        let head = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
        write!(f, "\"{}\"", head.escape_ascii())?;
        if head.len() < bytes.len() { write!(f, "+{}B", bytes.len() - head.len()) } else { Ok(()) }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}ms", self.at.0 / 1_000_000, self.at.0 % 1_000_000)?;
        if self.order > 0 { write!(f, "#{}", self.order) } else { Ok(()) }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "op {} client {} conn {} [{} .. ",
            self.number, self.client, self.connection, self.invoked
        )?;
        match &self.outcome {
            Outcome::Answered { at, .. } | Outcome::Refused { at, .. } => write!(f, "{at}] ")?,
            Outcome::Unknown => f.write_str("?] ")?,
        }
        show_request(f, &self.request)?;
        write!(f, " -> {}", self.outcome)
    }
}

fn show_request(f: &mut fmt::Formatter<'_>, request: &Request) -> fmt::Result {
    match request {
        Request::Put(put) => show_put(f, put),
        Request::Delete(delete) => show_delete(f, delete),
        Request::Range(range) => show_range(f, range),
        Request::Compact(compact) => {
            let physical = if compact.physical { " physical" } else { "" };
            write!(f, "compact {}{physical}", compact.revision)
        }
        Request::Lease(lease) => show_lease_request(f, lease),
        Request::Txn(txn) => show_txn(f, txn),
        Request::Lock(LockRequest::Acquire(acquire)) => {
            let Acquire { name, lease, wait_ms, .. } = acquire;
            write!(f, "lock {} lease {lease}", Shown(name))?;
            wait_ms.map_or(Ok(()), |wait_ms| write!(f, " wait {wait_ms} ms"))
        }
        other => write!(f, "{other:?}"),
    }
}

fn show_lease_request(f: &mut fmt::Formatter<'_>, request: &LeaseRequest) -> fmt::Result {
    match request {
        LeaseRequest::Grant { id, ttl_s } => write!(f, "grant lease {id} ttl {ttl_s}"),
        LeaseRequest::Revoke { id } => write!(f, "revoke lease {id}"),
        LeaseRequest::KeepAlive { ids } => write!(f, "keep leases {ids:?}"),
        LeaseRequest::TimeToLive { id, keys } => {
            write!(f, "ttl of lease {id}{}", if *keys { " keys" } else { "" })
        }
        LeaseRequest::List => f.write_str("list leases"),
    }
}

fn show_txn(f: &mut fmt::Formatter<'_>, txn: &Txn) -> fmt::Result {
    f.write_str("txn")?;
    for (at, compare) in txn.compares.iter().enumerate() {
        f.write_str(if at == 0 { " if " } else { ", " })?;
        show_compare(f, compare)?;
    }
    for (ops, word) in [(&txn.success, " then "), (&txn.failure, " else ")] {
        for (at, op) in ops.iter().enumerate() {
            f.write_str(if at == 0 { word } else { ", " })?;
            match op {
                Part::Put(put) => show_put(f, put)?,
                Part::Delete(delete) => show_delete(f, delete)?,
                Part::Range(range) => show_range(f, range)?,
                Part::Txn(txn) => show_txn(f, txn)?,
            }
        }
    }
    f.write_str(" end")
}

fn show_compare(f: &mut fmt::Formatter<'_>, compare: &Compare) -> fmt::Result {
    let result = match compare.result {
        CompareResult::Equal => "=",
        CompareResult::NotEqual => "!=",
        CompareResult::Less => "<",
        CompareResult::Greater => ">",
    };
    let span = ShownSpan(&compare.span);
    match &compare.target {
        Target::Value(value) => write!(f, "value {span} {result} {}", Shown(value)),
        Target::Version(number) => write!(f, "version {span} {result} {number}"),
        Target::Create(number) => write!(f, "create {span} {result} {number}"),
        Target::Mod(number) => write!(f, "mod {span} {result} {number}"),
        Target::Lease(number) => write!(f, "lease {span} {result} {number}"),
    }
}

fn show_delete(f: &mut fmt::Formatter<'_>, Delete { span, prev_kv }: &Delete) -> fmt::Result {
    write!(f, "delete {}{}", ShownSpan(span), if *prev_kv { " prev" } else { "" })
}

fn show_put(f: &mut fmt::Formatter<'_>, put: &Put) -> fmt::Result {
    write!(f, "put {} {}", Shown(&put.key), Shown(&put.value))?;
    if put.lease != 0 {
        write!(f, " lease {}", put.lease)?;
    }
    for (set, word) in
        [(put.prev_kv, " prev"), (put.ignore_value, " keepvalue"), (put.ignore_lease, " keeplease")]
    {
        f.write_str(if set { word } else { "" })?;
    }
    Ok(())
}

fn show_range(f: &mut fmt::Formatter<'_>, range: &Range) -> fmt::Result {
    write!(f, "range {}", ShownSpan(&range.span))?;
    let numbers = [
        (range.limit, "limit"),
        (range.revision, "rev"),
        (range.min_mod, "minmod"),
        (range.max_mod, "maxmod"),
        (range.min_create, "mincreate"),
        (range.max_create, "maxcreate"),
    ];
    for (number, word) in numbers {
        if number > 0 {
            write!(f, " {word} {number}")?;
        }
    }
    for (set, word) in [
        (range.serializable, " serializable"),
        (range.keys_only, " keys"),
        (range.count_only, " count"),
        (range.order == Order::Descending, " desc"),
    ] {
        f.write_str(if set { word } else { "" })?;
    }
    if range.sort_by == SortBy::Key { Ok(()) } else { write!(f, " by {:?}", range.sort_by) }
}

struct ShownSpan<'a>(&'a Span);

impl fmt::Display for ShownSpan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Span::Key(key) => write!(f, "{}", Shown(key)),
            Span::Between(from, to) => write!(f, "{} to {}", Shown(from), Shown(to)),
            Span::Prefix(prefix) => write!(f, "{} prefix", Shown(prefix)),
            Span::From(from) => write!(f, "{} from", Shown(from)),
        }
    }
}

/// `"key"="value" mod 7 create 3 v2`
pub struct ShownKv<'a>(pub &'a KeyValue);

impl fmt::Display for ShownKv<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyValue { key, value, create_revision, mod_revision, version, lease } = self.0;
        write!(f, "{}={} mod {mod_revision} create {create_revision} v{version}", Shown(key), Shown(value))?;
        if *lease == 0 { Ok(()) } else { write!(f, " lease {lease}") }
    }
}

struct ShownKvs<'a>(&'a [KeyValue]);

impl fmt::Display for ShownKvs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, kv) in self.0.iter().enumerate() {
            write!(f, "{}{}", if at > 0 { ", " } else { "" }, ShownKv(kv))?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Unknown => f.write_str("unknown"),
            Outcome::Refused { code, .. } => write!(f, "refused {}", code.word()),
            Outcome::Answered { header, answer, .. } => {
                write!(f, "{answer}")?;
                header.map_or(Ok(()), |revision| write!(f, " (store at {revision})"))
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Put { revision, previous } => {
                write!(f, "revision {revision}")?;
                match previous {
                    None => Ok(()),
                    Some(None) => f.write_str(", before: nothing"),
                    Some(Some(kv)) => write!(f, ", before: {}", ShownKv(kv)),
                }
            }
            Answer::Delete { revision, deleted, previous } => {
                write!(f, "{deleted} deleted, revision {revision}")?;
                if previous.is_empty() { Ok(()) } else { write!(f, ", before: {}", ShownKvs(previous)) }
            }
            Answer::Range(result) => show_range_result(f, result),
            Answer::Txn { revision, succeeded, responses } => {
                write!(f, "revision {revision} {}", if *succeeded { "then" } else { "else" })?;
                responses.iter().try_for_each(|response| write!(f, " ({response})"))
            }
            Answer::Exists { revision, found } => write!(f, "{found} of them at {revision}"),
            Answer::Value(None) => f.write_str("null"),
            Answer::Value(Some(value)) => write!(f, "{}", Shown(value)),
            Answer::NoKey => f.write_str("NOKEY"),
            Answer::Lease(answer) => write!(f, "{answer:?}"),
            Answer::Acquired { key, revision } => write!(f, "{} of revision {revision}", Shown(key)),
            Answer::HashKv { hash, revision, compact_revision } => {
                write!(f, "hash {hash:08x} of {revision}, compacted {compact_revision}")
            }
            Answer::NoLease => f.write_str("NOLEASE"),
            Answer::LeaseExists => f.write_str("LEASEEXISTS"),
            Answer::Future { newest } => write!(f, "FUTURE {newest}"),
            Answer::Compacted { first } => write!(f, "COMPACTED {first}"),
            Answer::Compact { revision } => write!(f, "compacted {revision}"),
        }
    }
}

fn show_range_result(f: &mut fmt::Formatter<'_>, result: &RangeResult) -> fmt::Result {
    let RangeResult { revision, count, more, kvs } = result;
    write!(f, "revision {revision} count {count}{} {}", if *more { " more" } else { "" }, ShownKvs(kvs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_one_readable_line() {
        let mut history = History::new();
        let put = Put { key: "k".into(), value: vec![b'x'; 50].into(), prev_kv: true, ..Put::default() };
        let number = history.invoke(3, 7, Request::Put(put), Mono(2_500_000));
        let header = Header { revision: 9, ..Header::default() };
        let old = KeyValue { key: "k".into(), value: "v".into(), mod_revision: 4, ..KeyValue::default() };
        let body = Body::Put { revision: 8, previous: Some(Some(old)) };
        history.answer(number, &header, body, Mono(3_000_001));
        assert_eq!(
            history.ops[0].to_string(),
            format!(
                "op 0 client 3 conn 7 [2.500000ms#1 .. 3.000001ms#2] put \"k\" \"{}\"+10B prev -> revision 8, \
                 before: \"k\"=\"v\" mod 4 create 0 v0 (store at 9)",
                "x".repeat(40)
            )
        );
    }

    #[test]
    fn codes_decide_what_an_error_means() {
        let at = Moment::new(Mono(1));
        let of = |fault: Fault| Outcome::from_fault(at, None, &fault);
        assert_eq!(of(Fault::timeout()), Outcome::Unknown);
        assert_eq!(of(Fault::busy()), Outcome::Refused { at, code: Code::Busy });
        let answer = Answer::Future { newest: 12 };
        assert_eq!(of(Fault::future(12)), Outcome::Answered { at, header: None, answer });
    }
}
