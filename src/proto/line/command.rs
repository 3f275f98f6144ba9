//! The words of a request become a request of `api`. Options are read by the table's grammar; what is said
//! of a wrong word names its position and never repeats it, because it may be a value or a password.

use super::frame::Words;
use super::lease;
use super::lock;
use super::reply::Shape;
use super::table::{Argument, OPTIONS, Opt, Run, Spec};
use super::txn;
use crate::api::{
    AlarmChange, Code, Compact, Delete, Fault, MemberChange, Op, Order, Put, Range, Request, SortBy, Span,
    Watch,
};
use crate::base::MemberId;

/// The greatest number that any option takes: etcd's are signed.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// A command found in the table, with where its arguments begin.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub spec: &'static Spec,
    pub container: Option<&'static Spec>,
    pub words: &'a Words,
    /// The word behind the name.
    pub first: usize,
}

impl Call<'_> {
    pub fn count(&self) -> usize {
        self.words.count() - self.first
    }

    /// Checks the number of words against the table.
    pub fn check_count(&self) -> Result<(), Fault> {
        let (least, most) = self.spec.words();
        if self.count() < least || most.is_some_and(|most| self.count() > most) {
            return Err(self.fault("wrong number of words"));
        }
        Ok(())
    }

    /// An error that ends in the command's grammar.
    pub fn fault(&self, what: &str) -> Fault {
        Fault::new(Code::Err, format!("{what}; usage: {}", self.spec.usage(self.container)))
    }

    pub fn fault_at(&self, word: usize, what: &str) -> Fault {
        self.fault(&format!("word {} {what}", word + 1))
    }
}

/// The options of one request.
pub struct Given {
    seen: u32,
    values: [u64; OPTIONS],
}

impl Given {
    pub fn has(&self, option: Opt) -> bool {
        self.seen & 1 << option as u8 != 0
    }

    /// The number of a `Number`, the position of an `Either` or `Choice`; 0 where it was not given.
    pub fn value(&self, option: Opt) -> u64 {
        self.values[option as usize]
    }
}

/// Requests that the node answers with one reply. None: the command is not one of them.
pub fn request(call: Call<'_>) -> Result<Option<(Request, Shape)>, Fault> {
    if let Some((op, shape, next)) = operation(call)? {
        if next < call.words.count() {
            return Err(call.fault_at(next, "is none of the options"));
        }
        let request = match op {
            Op::Put(put) => Request::Put(put),
            Op::Delete(delete) => Request::Delete(delete),
            Op::Range(range) => Request::Range(range),
            Op::Txn(txn) => Request::Txn(txn),
        };
        return Ok(Some((request, shape)));
    }
    let words = call.words;
    let first = call.first;
    Ok(Some(match call.spec.run {
        Run::Txn => txn::request(call)?,
        Run::Set => {
            let put = Put { key: words.share(first), value: words.share(first + 1), ..Put::default() };
            (Request::Put(put), Shape::Ok)
        }
        Run::Compact => {
            let revision = number(call, first)?;
            let physical = last_options(call, first + 1)?.has(Opt::Physical);
            (Request::Compact(Compact { revision, physical }), Shape::Ok)
        }
        Run::AlarmList => (Request::AlarmList, Shape::Alarms),
        Run::AlarmDisarm => (Request::AlarmChange(AlarmChange::EndAll), Shape::Alarms),
        Run::Defrag => (Request::Defrag, Shape::Ok),
        Run::HashKv => {
            let revision = last_options(call, first)?.value(Opt::Rev);
            (Request::HashKv { revision }, Shape::HashKv)
        }
        Run::DbSize => {
            let mut range = Range::new(Span::Prefix(bytes::Bytes::new()));
            range.count_only = true;
            (Request::Range(range), Shape::Count)
        }
        Run::Status => (Request::Status, Shape::Status),
        Run::MemberList => {
            let serializable = last_options(call, first)?.has(Opt::Serializable);
            (Request::MemberList { serializable }, Shape::Members)
        }
        Run::MemberAdd => {
            let learner = words.is(words.count() - 1, "LEARNER");
            let end = words.count() - usize::from(learner);
            if end == first {
                return Err(call.fault("no URL"));
            }
            let peer_urls = texts(call, first, end)?;
            (Request::MemberAdd { peer_urls, learner }, Shape::MemberAdded)
        }
        Run::MemberChange => (Request::MemberChange { changes: changes(call)? }, Shape::Members),
        Run::MemberRemove => (Request::MemberRemove { id: id(call, first)? }, Shape::Members),
        Run::MemberPromote => (Request::MemberPromote { id: id(call, first)? }, Shape::Members),
        Run::MemberUpdate => {
            let peer_urls = texts(call, first + 1, words.count())?;
            (Request::MemberUpdate { id: id(call, first)?, peer_urls }, Shape::Members)
        }
        Run::MoveLeader => (Request::MoveLeader { to: id(call, first)? }, Shape::Ok),
        Run::Lock
        | Run::Unlock
        | Run::ElectionCampaign
        | Run::ElectionLeader
        | Run::ElectionProclaim
        | Run::ElectionResign => return lock::request(call),
        _ => return lease::request(call),
    }))
}

/// Each change begins with its word, which no URL and no id is.
fn changes(call: Call<'_>) -> Result<Vec<MemberChange>, Fault> {
    let words = call.words;
    let begins = |word: usize| ["ADD", "REMOVE", "PROMOTE"].iter().any(|token| words.is(word, token));
    let mut changes = Vec::new();
    let mut next = call.first;
    while next < words.count() {
        if !begins(next) {
            return Err(call.fault_at(next, "must be ADD, REMOVE or PROMOTE"));
        }
        let end = (next + 1..words.count()).find(|word| begins(*word)).unwrap_or(words.count());
        let one_id = || match end - next {
            2 => id(call, next + 1),
            _ => Err(call.fault_at(next, "must be followed by one id")),
        };
        changes.push(if words.is(next, "ADD") {
            let learner = words.is(end - 1, "LEARNER");
            let peer_urls = texts(call, next + 1, end - usize::from(learner))?;
            MemberChange::Add { id: 0, peer_urls, learner }
        } else if words.is(next, "REMOVE") {
            MemberChange::Remove { id: one_id()? }
        } else {
            MemberChange::Promote { id: one_id()? }
        });
        next = end;
    }
    Ok(changes)
}

/// An id of a member uses all 64 bits.
fn id(call: Call<'_>, word: usize) -> Result<MemberId, Fault> {
    let text = std::str::from_utf8(call.words.get(word)).ok();
    let digits = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| call.fault_at(word, "must be an id, a decimal number"))
}

fn texts(call: Call<'_>, from: usize, to: usize) -> Result<Vec<String>, Fault> {
    let text = |word: usize| String::from_utf8(call.words.get(word).to_vec());
    (from..to).map(|word| text(word).map_err(|_| call.fault_at(word, "must be a text"))).collect()
}

/// A request that may also stand in a transaction, and the first word behind it. None: the command is none of those.
pub fn operation(call: Call<'_>) -> Result<Option<(Op, Shape, usize)>, Fault> {
    let words = call.words;
    Ok(Some(match call.spec.run {
        Run::Put => put(call)?,
        Run::Get => {
            let (given, next) = options(call, call.first + 1)?;
            let mut range = Range::new(Span::Key(words.share(call.first)));
            range.revision = given.value(Opt::Rev);
            range.serializable = given.has(Opt::Serializable);
            (Op::Range(range), Shape::Value, next)
        }
        Run::Range => range(call)?,
        Run::Del => {
            let (span, next) = span(call, call.first)?;
            let (given, next) = options(call, next)?;
            let prev_kv = given.has(Opt::Prev);
            let shape = if prev_kv { Shape::DeletedKvs } else { Shape::Deleted };
            (Op::Delete(Delete { span, prev_kv }), shape, next)
        }
        _ => return Ok(None),
    }))
}

fn put(call: Call<'_>) -> Result<(Op, Shape, usize), Fault> {
    let (given, next) = options(call, call.first + 2)?;
    let put = Put {
        key: call.words.share(call.first),
        value: call.words.share(call.first + 1),
        lease: given.value(Opt::Lease).cast_signed(),
        prev_kv: given.has(Opt::Prev),
        ignore_value: given.has(Opt::KeepValue),
        ignore_lease: given.has(Opt::KeepLease),
    };
    let shape = if put.prev_kv { Shape::PutPrevious } else { Shape::Revision };
    Ok((Op::Put(put), shape, next))
}

fn range(call: Call<'_>) -> Result<(Op, Shape, usize), Fault> {
    let (span, next) = span(call, call.first)?;
    let (given, next) = options(call, next)?;
    let show = given.has(Opt::Show).then(|| given.value(Opt::Show));
    let range = Range {
        span,
        limit: given.value(Opt::Limit),
        revision: given.value(Opt::Rev),
        order: if given.value(Opt::Order) == 1 { Order::Descending } else { Order::Ascending },
        sort_by: match given.value(Opt::By) {
            0 => SortBy::Key,
            1 => SortBy::Version,
            2 => SortBy::Create,
            3 => SortBy::Mod,
            _ => SortBy::Value,
        },
        serializable: given.has(Opt::Serializable),
        keys_only: show == Some(0),
        count_only: show == Some(1),
        min_mod: given.value(Opt::MinMod),
        max_mod: given.value(Opt::MaxMod),
        min_create: given.value(Opt::MinCreate),
        max_create: given.value(Opt::MaxCreate),
    };
    let shape = Shape::Range { keys_only: range.keys_only };
    Ok((Op::Range(range), shape, next))
}

/// A watch, and the id that it shall have; 0 = any.
pub fn watch(call: Call<'_>) -> Result<(Watch, u64), Fault> {
    let (span, next) = span(call, call.first)?;
    let given = last_options(call, next)?;
    let watch = Watch {
        span,
        revision: given.value(Opt::Rev),
        prev_kv: given.has(Opt::Prev),
        no_put: given.has(Opt::NoPut),
        no_delete: given.has(Opt::NoDelete),
        progress: given.has(Opt::Progress),
    };
    Ok((watch, given.value(Opt::Id)))
}

/// The number at a word, which names a watch.
pub fn watch_id(call: Call<'_>) -> Result<u64, Fault> {
    number(call, call.first)
}

/// The span whose key is this word, and the word behind it.
pub fn span(call: Call<'_>, word: usize) -> Result<(Span, usize), Fault> {
    let words = call.words;
    let key = words.share(word);
    let second = word + 1;
    if second == words.count() {
        return Ok((Span::Key(key), second));
    }
    if words.is(second, "TO") {
        if second + 1 == words.count() {
            return Err(call.fault_at(second, "is TO, behind which the end of the span must stand"));
        }
        return Ok((Span::Between(key, words.share(second + 1)), second + 2));
    }
    if words.is(second, "PREFIX") {
        return Ok((Span::Prefix(key), second + 1));
    }
    if words.is(second, "FROM") {
        return Ok((Span::From(key), second + 1));
    }
    Ok((Span::Key(key), second))
}

/// Reads words from `next` on as options of the command, up to the first that is none.
fn options(call: Call<'_>, mut next: usize) -> Result<(Given, usize), Fault> {
    let mut given = Given { seen: 0, values: [0; OPTIONS] };
    while next < call.words.count() {
        let found = call.spec.arguments.iter().find_map(|argument| matched(call.words, next, argument));
        let Some((option, value)) = found else { break };
        if given.has(option) {
            return Err(call.fault_at(next, "gives an option for the second time"));
        }
        let (value, used) = match value {
            Value::Here(value) => (value, 1),
            Value::Number => (number(call, next + 1)?, 2),
            Value::Token(tokens) => (token(call, next + 1, tokens)?, 2),
        };
        given.seen |= 1 << option as u8;
        given.values[option as usize] = value;
        next += used;
    }
    Ok((given, next))
}

/// Options with nothing behind them.
pub fn last_options(call: Call<'_>, next: usize) -> Result<Given, Fault> {
    let (given, next) = options(call, next)?;
    if next < call.words.count() {
        return Err(call.fault_at(next, "is none of the options"));
    }
    Ok(given)
}

/// Where an option's value stands.
enum Value {
    Here(u64),
    /// In the next word, a number.
    Number,
    /// In the next word, one of these.
    Token(&'static [&'static str]),
}

fn matched(words: &Words, word: usize, argument: &Argument) -> Option<(Opt, Value)> {
    match *argument {
        Argument::Flag(option, token) if words.is(word, token) => Some((option, Value::Here(1))),
        Argument::Number(option, token, _) if words.is(word, token) => Some((option, Value::Number)),
        Argument::Choice(option, token, tokens) if words.is(word, token) => {
            Some((option, Value::Token(tokens)))
        }
        Argument::Either(option, tokens) => {
            let at = tokens.iter().position(|token| words.is(word, token))?;
            Some((option, Value::Here(at as u64)))
        }
        _ => None,
    }
}

fn number(call: Call<'_>, word: usize) -> Result<u64, Fault> {
    let number = (word < call.words.count()).then(|| decimal(call.words.get(word))).flatten();
    number.ok_or_else(|| call.fault_at(word, &format!("must be a decimal number from 0 to {NUMBER_MAX}")))
}

fn token(call: Call<'_>, word: usize, tokens: &[&str]) -> Result<u64, Fault> {
    let found = (word < call.words.count())
        .then(|| tokens.iter().position(|token| call.words.is(word, token)))
        .flatten();
    found.map(|at| at as u64).ok_or_else(|| call.fault_at(word, &format!("must be {}", tokens.join(" or "))))
}

/// Digits alone, up to [`NUMBER_MAX`].
pub fn decimal(word: &[u8]) -> Option<u64> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(word).ok()?.parse().ok()?;
    (number <= NUMBER_MAX).then_some(number)
}
