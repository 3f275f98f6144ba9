//! Transactions: what is compared, what is done if all compares hold and what if not, in etcd's meaning.
//!
//! Every compare, of nested transactions too, looks at the state before the transaction, and so the whole course is
//! settled before anything is done. Then operations are done in their order, and each sees those before it. All that
//! is written is one revision.
//!
//! A transaction may hold others, [`limits::TXN_DEPTH_MAX`] levels of them together. Whoever makes one from bytes
//! refuses what is deeper, so that everything that walks it may call itself.

use bytes::{BufMut, Bytes, BytesMut};

use super::command::{Undecodable, put_delete, put_put, put_span, take_delete, take_put, take_span};
use super::{Body, Delete, Order, Put, Range, SortBy, Span};
use crate::base::codec::{SharedReader, Writer};
use crate::base::{Revision, limits};

/// If all of `compares` hold, `success` is done, else `failure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// Holds if it holds for every key of the span that is there. Where none is, numbers are compared with 0, and no
/// compare of a value holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub span: Span,
    pub target: Target,
    pub result: CompareResult,
}

/// What of a key is compared, and with what. Numbers are signed, as in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Value(Bytes),
    Version(i64),
    Create(i64),
    Mod(i64),
    Lease(i64),
}

/// How the key's side must compare with the given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    Equal,
    NotEqual,
    Less,
    Greater,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put(Put),
    Delete(Delete),
    Range(Range),
    Txn(Txn),
}

/// What came of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResult {
    /// The store's behind it: a new one exactly if it wrote something. Of a nested one, as far as the whole had come.
    pub revision: Revision,
    /// The compares held.
    pub succeeded: bool,
    /// Of the operations that were done, in their order.
    pub responses: Vec<Body>,
}

impl Txn {
    /// What is done if the compares hold, or if not.
    pub fn branch(&self, succeeded: bool) -> &[Op] {
        if succeeded { &self.success } else { &self.failure }
    }

    fn any(&self, is: &impl Fn(&Op) -> bool) -> bool {
        self.success.iter().chain(&self.failure).any(|op| match op {
            Op::Txn(txn) => txn.any(is),
            op => is(op),
        })
    }

    /// It writes nothing, whatever its compares say: no entry of the log is needed.
    pub fn is_read_only(&self) -> bool {
        !self.any(&|op| !matches!(op, Op::Range(_)))
    }

    /// It reads something, and any state may answer all of it.
    pub fn is_serializable(&self) -> bool {
        let serializable = |op: &Op| matches!(op, Op::Range(range) if range.serializable);
        self.any(&serializable) && !self.any(&|op| !serializable(op))
    }

    /// It may need room.
    pub fn may_put(&self) -> bool {
        self.any(&|op| matches!(op, Op::Put(_)))
    }
}

const FLAG_MAY_PUT: u8 = 1;

const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;
const OP_RANGE: u8 = 3;
const OP_TXN: u8 = 4;

const RANGE_SERIALIZABLE: u8 = 1;
const RANGE_KEYS_ONLY: u8 = 2;
const RANGE_COUNT_ONLY: u8 = 4;
const RANGE_DESCENDING: u8 = 8;

const SORT_BY: [SortBy; 5] = [SortBy::Key, SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value];
const RESULTS: [CompareResult; 4] =
    [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less, CompareResult::Greater];

/// An encoded operation or compare is no longer than this beside its keys and values.
pub(super) const PART_BYTES_MAX: usize = 64;

/// ```text
/// flags u8 | txn
/// txn:     count u32 | compare* | count u32 | op* | count u32 | op*
/// compare: target u8 | result u8 | span | value blob, or number i64
/// op:      kind u8 | put, delete (as commands), range or txn
/// range:   flags u8 | sort u8 | span | limit u64 | revision u64 | min mod, max mod, min create, max create u64
/// ```
pub(super) fn encode(txn: &Txn, out: &mut BytesMut) {
    out.put_u8(if txn.may_put() { FLAG_MAY_PUT } else { 0 });
    put_txn(txn, out);
}

/// Whether an encoded body may put.
pub(super) fn may_put(body: &[u8]) -> bool {
    body.first().is_some_and(|flags| flags & FLAG_MAY_PUT != 0)
}

fn put_txn(txn: &Txn, out: &mut BytesMut) {
    put_count(txn.compares.len(), out);
    for compare in &txn.compares {
        put_compare(compare, out);
    }
    for ops in [&txn.success, &txn.failure] {
        put_count(ops.len(), out);
        for op in ops {
            put_op(op, out);
        }
    }
}

fn put_count(count: usize, out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(count).expect("a request has few parts"));
}

fn put_compare(compare: &Compare, out: &mut BytesMut) {
    let (target, number) = match compare.target {
        Target::Value(_) => (0, 0),
        Target::Version(number) => (1, number),
        Target::Create(number) => (2, number),
        Target::Mod(number) => (3, number),
        Target::Lease(number) => (4, number),
    };
    out.put_u8(target);
    out.put_u8(place(&RESULTS, &compare.result));
    put_span(&compare.span, out);
    match &compare.target {
        Target::Value(value) => out.put_blob(value),
        _ => out.put_i64_le(number),
    }
}

fn put_op(op: &Op, out: &mut BytesMut) {
    match op {
        Op::Put(put) => {
            out.put_u8(OP_PUT);
            put_put(put, out);
        }
        Op::Delete(delete) => {
            out.put_u8(OP_DELETE);
            put_delete(delete, out);
        }
        Op::Range(range) => {
            out.put_u8(OP_RANGE);
            put_range(range, out);
        }
        Op::Txn(txn) => {
            out.put_u8(OP_TXN);
            put_txn(txn, out);
        }
    }
}

fn put_range(range: &Range, out: &mut BytesMut) {
    let flags = [
        (range.serializable, RANGE_SERIALIZABLE),
        (range.keys_only, RANGE_KEYS_ONLY),
        (range.count_only, RANGE_COUNT_ONLY),
        (range.order == Order::Descending, RANGE_DESCENDING),
    ];
    out.put_u8(flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
    out.put_u8(place(&SORT_BY, &range.sort_by));
    put_span(&range.span, out);
    let Range { limit, revision, min_mod, max_mod, min_create, max_create, .. } = *range;
    for number in [limit, revision, min_mod, max_mod, min_create, max_create] {
        out.put_u64_le(number);
    }
}

fn place<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|other| other == one).expect("the list has all of them") as u8
}

fn at<T: Copy>(all: &[T], place: u8, what: &str) -> Result<T, Undecodable> {
    all.get(usize::from(place)).copied().ok_or_else(|| Undecodable(format!("{what} {place}")))
}

/// The inverse of [`encode`].
pub(super) fn decode(reader: &mut SharedReader) -> Result<Txn, Undecodable> {
    let flags = reader.u8()?;
    let txn = take_txn(reader, 1)?;
    // Whoever refuses puts for want of room looks at the flag alone.
    if flags != u8::from(txn.may_put()) * FLAG_MAY_PUT {
        return Err(Undecodable(format!("transaction flags {flags:#x}, and it may put: {}", txn.may_put())));
    }
    Ok(txn)
}

fn take_txn(reader: &mut SharedReader, depth: usize) -> Result<Txn, Undecodable> {
    if depth > limits::TXN_DEPTH_MAX {
        return Err(Undecodable(format!("transactions nested deeper than {}", limits::TXN_DEPTH_MAX)));
    }
    let mut txn = Txn::default();
    for _ in 0..reader.u32()? {
        txn.compares.push(take_compare(reader)?);
    }
    for ops in [&mut txn.success, &mut txn.failure] {
        for _ in 0..reader.u32()? {
            ops.push(take_op(reader, depth)?);
        }
    }
    Ok(txn)
}

fn take_compare(reader: &mut SharedReader) -> Result<Compare, Undecodable> {
    let target = reader.u8()?;
    let result = at(&RESULTS, reader.u8()?, "compare result")?;
    let span = take_span(reader)?;
    let target = match target {
        0 => Target::Value(reader.blob()?),
        1 => Target::Version(reader.u64()?.cast_signed()),
        2 => Target::Create(reader.u64()?.cast_signed()),
        3 => Target::Mod(reader.u64()?.cast_signed()),
        4 => Target::Lease(reader.u64()?.cast_signed()),
        other => return Err(Undecodable(format!("compare target {other}"))),
    };
    Ok(Compare { span, target, result })
}

fn take_op(reader: &mut SharedReader, depth: usize) -> Result<Op, Undecodable> {
    Ok(match reader.u8()? {
        OP_PUT => Op::Put(take_put(reader)?),
        OP_DELETE => Op::Delete(take_delete(reader)?),
        OP_RANGE => Op::Range(take_range(reader)?),
        OP_TXN => Op::Txn(take_txn(reader, depth + 1)?),
        other => return Err(Undecodable(format!("operation kind {other}"))),
    })
}

fn take_range(reader: &mut SharedReader) -> Result<Range, Undecodable> {
    let flags = reader.u8()?;
    if flags & !(RANGE_SERIALIZABLE | RANGE_KEYS_ONLY | RANGE_COUNT_ONLY | RANGE_DESCENDING) != 0 {
        return Err(Undecodable(format!("range flags {flags:#x}")));
    }
    Ok(Range {
        sort_by: at(&SORT_BY, reader.u8()?, "sort")?,
        span: take_span(reader)?,
        limit: reader.u64()?,
        revision: reader.u64()?,
        min_mod: reader.u64()?,
        max_mod: reader.u64()?,
        min_create: reader.u64()?,
        max_create: reader.u64()?,
        order: if flags & RANGE_DESCENDING != 0 { Order::Descending } else { Order::Ascending },
        serializable: flags & RANGE_SERIALIZABLE != 0,
        keys_only: flags & RANGE_KEYS_ONLY != 0,
        count_only: flags & RANGE_COUNT_ONLY != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::super::command::{self, Command, Origin};
    use super::super::{Limits, Request, validate};
    use super::*;

    fn everything() -> Txn {
        let spans = [
            Span::Key("a".into()),
            Span::Between("a".into(), "b".into()),
            Span::Prefix(Bytes::new()),
            Span::From("x".into()),
        ];
        let targets = [
            Target::Value("v".into()),
            Target::Version(-1),
            Target::Create(i64::MIN),
            Target::Mod(i64::MAX),
            Target::Lease(7),
        ];
        let compares = targets.into_iter().zip(spans.iter().chain(&spans)).zip(RESULTS.iter().cycle());
        let compares =
            compares.map(|((target, span), &result)| Compare { span: span.clone(), target, result });
        let range = |(at, span): (usize, &Span)| {
            let number = 1 << at;
            Op::Range(Range {
                limit: number,
                revision: 2 * number,
                order: if at == 1 { Order::Descending } else { Order::Ascending },
                sort_by: SORT_BY[at + 1],
                serializable: at == 0,
                keys_only: at == 2,
                count_only: at == 3,
                min_mod: 3 * number,
                max_mod: 5 * number,
                min_create: 7 * number,
                max_create: 9 * number,
                ..Range::new(span.clone())
            })
        };
        let put = Put { key: "k".into(), value: "v".into(), lease: -1, prev_kv: true, ..Put::default() };
        let nested = Txn { success: vec![Op::Put(put)], ..Txn::default() };
        Txn {
            compares: compares.collect(),
            success: spans.iter().enumerate().map(range).collect(),
            failure: vec![
                Op::Txn(nested),
                Op::Delete(Delete { span: Span::From("l".into()), prev_kv: true }),
            ],
        }
    }

    fn encoded(txn: &Txn) -> Bytes {
        let mut out = BytesMut::new();
        command::encode(Origin { member: 7, request_id: 9 }, &Command::Txn(txn.clone()), &mut out);
        out.freeze()
    }

    #[test]
    fn transactions_come_back_as_they_went() {
        let txn = everything();
        let bytes = encoded(&txn);
        let (origin, command) = command::decode(bytes.clone()).unwrap();
        assert_eq!((origin.request_id, command), (9, Command::Txn(txn)));
        for cut in 0..bytes.len() {
            assert!(command::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    /// The example of `storage-format.md` §7. A change here is a change of the format.
    #[test]
    fn the_encoding_never_changes() {
        let txn = Txn {
            compares: vec![Compare {
                span: Span::Key("k".into()),
                target: Target::Version(0),
                result: CompareResult::Equal,
            }],
            success: vec![Op::Put(Put { key: "k".into(), value: "v".into(), ..Put::default() })],
            failure: vec![Op::Range(Range::new(Span::Key("k".into())))],
        };
        let hex: String = encoded(&txn)[18..].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "01 01000000 01 00 00 01000000 6b 00000000 0000000000000000 \
             01000000 01 00 0000000000000000 01000000 6b 01000000 76 \
             01000000 03 00 00 00 01000000 6b 00000000"
            .replace(' ', "");
        assert_eq!(hex, expected + &"0".repeat(96));
    }

    #[test]
    fn hostile_bytes_are_named() {
        let bytes = encoded(&everything());
        let wrong = |at: usize, byte: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = byte;
            command::decode(bytes.into()).unwrap_err().0
        };
        assert_eq!(wrong(18, 0), "transaction flags 0x0, and it may put: true");
        assert_eq!(wrong(18, 3), "transaction flags 0x3, and it may put: true");
        assert_eq!(wrong(23, 5), "compare target 5");
        assert_eq!(wrong(24, 4), "compare result 4");
        assert_eq!(wrong(25, 4), "span kind 4");
        assert!(wrong(22, 0xff).contains("compare target") || wrong(22, 0xff).contains("a field of"));
        let mut nested = Txn::default();
        for depth in 1..=limits::TXN_DEPTH_MAX {
            assert_eq!(
                command::decode(encoded(&nested)).map(|(_, command)| command),
                Ok(Command::Txn(nested.clone()))
            );
            assert_eq!(
                depth == limits::TXN_DEPTH_MAX,
                command::decode(encoded(&within(nested.clone()))).is_err()
            );
            nested = within(nested);
        }
    }

    fn within(txn: Txn) -> Txn {
        Txn { failure: vec![Op::Txn(txn)], ..Txn::default() }
    }

    /// Both where the writer decides and where the leader does, by the bytes alone.
    #[test]
    fn whatever_may_put_needs_room() {
        let txn = everything();
        assert!(txn.may_put() && command::takes_room(&encoded(&txn)));
        let deletes = Txn { failure: txn.failure[1..].to_vec(), ..txn };
        assert!(!deletes.may_put() && !command::takes_room(&encoded(&deletes)));
        assert!(!command::takes_room(&encoded(&deletes)[..18]));
    }

    #[test]
    fn what_writes_nothing_is_known_whichever_way_it_goes() {
        let range = |serializable| Op::Range(Range { serializable, ..Range::new(Span::Key("k".into())) });
        let of = |success, failure| Txn { success, failure, ..Txn::default() };
        assert!(Txn::default().is_read_only() && !Txn::default().is_serializable());
        let nested = of(vec![range(true), Op::Txn(of(vec![], vec![range(true)]))], vec![range(true)]);
        assert!(nested.is_read_only() && nested.is_serializable());
        let mixed = of(vec![range(true), Op::Txn(of(vec![], vec![range(false)]))], vec![]);
        assert!(mixed.is_read_only() && !mixed.is_serializable());
        assert!(!everything().is_read_only() && !within(everything()).is_read_only());
    }

    /// The gate counts bytes before there are any: an entry of the log is never larger than it thought.
    #[test]
    fn an_entry_is_no_larger_than_the_gate_counts() {
        let txn = within(everything());
        let passes = |request_bytes_max| {
            let limits = Limits { request_bytes_max, ..Limits::default() };
            validate::check(&Request::Txn(txn.clone()), &limits).is_ok()
        };
        let counted = (0..).find(|&bytes_max| passes(bytes_max)).expect("some limit is enough");
        // Beside the head there are the flags, and the lengths of the outermost lists.
        assert!(encoded(&txn).len() <= 18 + 1 + 12 + counted);
    }
}
