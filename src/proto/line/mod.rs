//! The line protocol: RESP arrays or typed lines in, RESP2 or RESP3 out. `docs/protocol.md` says it to users.
//!
//! The way of a request:
//!
//! ```text
//!  input -> frame (typed) -> table -> command -> Call ---> node
//!           words            which    Request               |
//!                              |                            v
//!                              +--> session ---> slots <- Reply
//!                                   answers        |
//!                                   at once        +-> reply, info, resp -> output
//! ```
//!
//! Replies leave in the order of the requests, but the node answers in the order that suits it: a read may
//! overtake a write. Each request takes a *slot* in a queue, and a slot's number is its tag. A reply that is
//! at the front is written straight into the output; one that is early waits in its slot. What needs no node
//! (PING) is written at once when nothing is owed, and behind other slots when something is. A slot keeps the
//! dialect of its own request, so `HELLO 3` changes no reply that is still owed.
//!
//! Keys and values are slices of the buffer they arrived in. Nothing is allocated for a request but what the
//! queues grow by.
//!
//! What is pushed for watches ([`watches`]) comes between replies. Nothing of it is kept here.
//!
//! Bounds, per connection: one incomplete request ([`frame::Parser`]), [`SLOTS_MAX`] requests in flight,
//! [`CALLS_AT_ONCE_MAX`] of them new, [`ANSWERS_BYTES_MAX`] of answers that wait behind them, and [`OUTPUT_BYTES_MAX`] of output, behind which
//! decoding rests until the caller has written some of it (small requests can have large answers).
//!
//! A range too large for one reply of the node comes in parts, which are one value on the wire: its length is known with
//! the first. A range that breaks off between two parts ends the connection, because RESP has no word for it.
//!
//! Behind a request that waits (LOCK) nothing is decoded until it is answered: what a client sends behind it rests on the lock.
//!
//! Left out: RESP3 attributes (client libraries break on them), RESP3's streamed strings and aggregates, and requests of
//! any other type than an array of bulk strings.

mod command;
mod frame;
mod info;
mod json;
mod lease;
mod lock;
mod reply;
mod resp;
mod session;
mod table;
mod txn;
mod typed;
mod watches;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;

use self::command::Call as Asked;
use self::frame::{Parser, Step, Words};
use self::reply::Shape;
use self::resp::{Dialect, Resp};
use self::session::Session;
use self::table::{Run, Spec};
use self::watches::Watches;
use super::Adapter;
use crate::api::{Body, Call, Code, ConnId, Fault, Header, Limits, Reply, Request, Tag, validate};
use crate::base::{ClusterId, MemberId};

/// Requests of one connection that may be in flight.
pub const SLOTS_MAX: usize = 8192;

/// Requests that are decoded at once: what they are answered with is not known before, and may be large.
pub const CALLS_AT_ONCE_MAX: usize = 128;

/// Answers of one connection that may wait behind requests in flight.
pub const ANSWERS_BYTES_MAX: usize = 256 << 10;

/// Decoding rests while so much output has not been written.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Of an unknown command's name, so much is repeated in the error.
const ECHO_BYTES_MAX: usize = 32;

/// Redis's SET can do more, and means something else by it than etcd does.
const SET_OPTIONS: &str = "SET takes a key and a value and none of Redis's options here: to let a key expire, \
    PUT key value LEASE id; to set it only if it is or is not there, TXN";

/// What a connection must know about the server it belongs to. Made once, shared by all adapters.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// The program's version, as `STATUS` reports it.
    pub version: &'static str,
    pub limits: Limits,
    /// Name and value of every flag in effect, for `CONFIG GET`.
    pub config: Vec<(String, String)>,
}

/// The line protocol's side of one connection.
pub struct LineAdapter {
    info: Arc<ServerInfo>,
    conn: ConnId,
    parser: Parser,
    session: Session,
    slots: VecDeque<Slot>,
    /// The tag of the first slot; the others follow without a gap.
    front: Tag,
    /// Slots that wait for the node.
    owed: usize,
    /// The bytes of all answered slots, in their order.
    answers: BytesMut,
    /// What parts that came before their turn take up, about.
    early_bytes: usize,
    watches: Watches,
    /// A request that waits until all before it is answered: the next one to run.
    parked: Option<Words>,
    /// Of the node's last reply in order: what `HEADER ON` shows before answers that need no node.
    last_header: Header,
    /// Decoding rests although there is input.
    stalled: bool,
    /// Nothing more will be decoded: QUIT, a four-letter word, or a protocol error.
    ended: bool,
    closing: bool,
    /// In the middle of an answer.
    broken: bool,
    /// What was waited for when that was cancelled.
    cancelled: Option<Tag>,
}

/// One reply that is owed or waits for those before it.
struct Slot {
    shape: Shape,
    dialect: Dialect,
    header: bool,
    filled: Filled,
}

enum Filled {
    /// The node has not replied.
    No,
    /// It has, before its turn, once or in parts; `whole` if the last one has come.
    Early { replies: Vec<(Header, Body)>, whole: bool },
    /// The first parts are out.
    Begun,
    /// Written into `answers`, so many bytes.
    Answered(usize),
}

impl LineAdapter {
    /// `conn` is what `CLIENT ID` answers.
    pub fn new(info: Arc<ServerInfo>, conn: ConnId) -> LineAdapter {
        let last_header = Header { cluster: info.cluster, member: info.member, revision: 0, term: 0 };
        LineAdapter {
            conn,
            parser: Parser::new(info.limits.request_bytes_max),
            session: Session::default(),
            slots: VecDeque::new(),
            front: 0,
            owed: 0,
            answers: BytesMut::new(),
            early_bytes: 0,
            watches: Watches::default(),
            parked: None,
            last_header,
            stalled: false,
            ended: false,
            closing: false,
            broken: false,
            cancelled: None,
            info,
        }
    }

    fn is_full(&self, output: &BytesMut) -> bool {
        self.slots.len() >= SLOTS_MAX
            || self.answers.len() >= ANSWERS_BYTES_MAX
            || output.len() >= OUTPUT_BYTES_MAX
    }

    /// False: it must wait.
    fn run(&mut self, words: &Words, calls: &mut Vec<Call>, output: &mut BytesMut) -> Result<bool, Fault> {
        if words.typed && words.count() == 1 && self.four_letters(words.get(0), calls, output) {
            return Ok(true);
        }
        let Some(spec) = table::find(words.get(0)) else {
            return Err(unknown(words.get(0)));
        };
        let call = if spec.subcommands.is_empty() || words.count() == 1 {
            Asked { spec, container: None, words, first: 1 }
        } else {
            let name = words.get(1);
            let Some(sub) = table::find_sub(spec, name) else { return Err(unknown_sub(spec, name)) };
            Asked { spec: sub, container: Some(spec), words, first: 2 }
        };
        if self.must_wait(call.spec.run) {
            return Ok(false);
        }
        self.check_watching(call.spec.run)?;
        if spec.run == Run::Set && call.count() > 2 {
            return Err(Fault::new(Code::Err, SET_OPTIONS));
        }
        call.check_count()?;
        match command::request(call)? {
            Some((request, shape)) => self.ask(request, shape, calls)?,
            None => self.run_session(call, calls, output)?,
        }
        Ok(true)
    }

    /// Sends one request to the node, through the gate.
    fn ask(&mut self, request: Request, shape: Shape, calls: &mut Vec<Call>) -> Result<(), Fault> {
        validate::check(&request, &self.info.limits)?;
        calls.push(Call::Request { tag: self.next_tag(), request });
        let Session { dialect, header, .. } = self.session;
        self.slots.push_back(Slot { shape, dialect, header, filled: Filled::No });
        self.owed += 1;
        Ok(())
    }

    /// The tag of the next request.
    fn next_tag(&self) -> Tag {
        self.front + self.slots.len() as Tag
    }

    fn run_session(
        &mut self,
        call: Asked<'_>,
        calls: &mut Vec<Call>,
        output: &mut BytesMut,
    ) -> Result<(), Fault> {
        let (words, first) = (call.words, call.first);
        match call.spec.run {
            Run::Exists => {
                let keys = (first..words.count()).map(|word| words.share(word)).collect();
                self.ask(Request::Exists { keys }, Shape::Exists, calls)?;
            }
            Run::Info => {
                let sections = info::Sections::named(words, first);
                self.ask(Request::Status, Shape::Info(sections), calls)?;
            }
            Run::Ping if self.pings_as_subscriber() => {
                let message = if call.count() == 0 { &b""[..] } else { words.get(first) };
                self.answer(output, |resp, _| {
                    resp.array(2);
                    resp.text("pong");
                    resp.bulk(message);
                });
            }
            Run::Ping if call.count() == 0 => self.answer(output, |resp, _| resp.simple("PONG")),
            Run::Ping | Run::Echo => self.answer(output, |resp, _| resp.bulk(words.get(first))),
            Run::Hello => {
                self.session.hello(call)?;
                let (conn, dialect) = (self.conn, self.session.dialect);
                self.answer(output, |resp, info| session::write_hello(info, conn, dialect, resp));
            }
            Run::Header => {
                let on = words.is(first, "ON");
                if !on && !words.is(first, "OFF") {
                    return Err(call.fault("HEADER is ON or OFF"));
                }
                self.ok(output);
                self.session.header = on;
            }
            Run::Quit => {
                self.ok(output);
                self.close();
            }
            Run::Reset => {
                self.end_watches(calls);
                self.session = Session::default();
                self.answer(output, |resp, _| resp.simple("RESET"));
            }
            Run::Select => {
                session::select(call)?;
                self.ok(output);
            }
            Run::ConfigGet => {
                let info = Arc::clone(&self.info);
                let found = session::config_matches(&info, call)?;
                self.answer(output, |resp, _| {
                    resp.map(found.len());
                    for (name, value) in found {
                        resp.text(name);
                        resp.text(value);
                    }
                });
            }
            Run::ClientSetName => {
                self.session.set_name(words.get(first))?;
                self.ok(output);
            }
            Run::ClientSetInfo => self.ok(output),
            Run::ClientGetName => {
                let name = self.session.name.clone();
                self.answer(output, |resp, _| match name {
                    Some(name) => resp.bulk(&name),
                    None => resp.null(),
                });
            }
            Run::ClientId => {
                let conn = self.conn;
                self.answer(output, |resp, _| resp.integer(conn));
            }
            Run::Command | Run::CommandInfo => {
                self.answer(output, |resp, _| session::write_commands(words, first, resp));
            }
            Run::CommandCount => {
                self.answer(output, |resp, _| resp.integer(table::COMMANDS.len() as u64));
            }
            Run::CommandDocs => self.answer(output, |resp, _| session::write_docs(words, first, resp)),
            Run::CommandList => self.answer(output, |resp, _| session::write_names(resp)),
            _ => self.run_watches(call, calls, output)?,
        }
        Ok(())
    }

    /// ZooKeeper's four-letter words: bare text, then the end of the connection, which is what its monitors
    /// wait for.
    fn four_letters(&mut self, word: &[u8], calls: &mut Vec<Call>, output: &mut BytesMut) -> bool {
        match word {
            b"ruok" => {
                self.answer_bare(output, |resp| resp.raw(b"imok"));
            }
            b"mntr" | b"stat" => {
                let shape = if word == b"mntr" { Shape::Mntr } else { Shape::Stat };
                self.ask(Request::Status, shape, calls).expect("STATUS passes every gate");
            }
            _ => return false,
        }
        self.close();
        true
    }

    fn close(&mut self) {
        self.ended = true;
        self.closing = true;
    }

    fn ok(&mut self, output: &mut BytesMut) {
        self.answer(output, |resp, _| resp.simple("OK"));
    }

    /// Answers without the node: at once if nothing is owed, else behind what is.
    fn answer(&mut self, output: &mut BytesMut, write: impl FnOnce(&mut Resp<'_>, &ServerInfo)) {
        let Session { dialect, header, .. } = self.session;
        let at_once = self.slots.is_empty();
        let buffer = if at_once { output } else { &mut self.answers };
        let before = buffer.len();
        let mut resp = Resp::new(buffer, dialect);
        if header && at_once {
            resp.array(2);
            reply::header(&self.last_header, &mut resp);
        }
        write(&mut resp, &self.info);
        if !at_once {
            // Its header is written in its turn: it shows the replies before it.
            let filled = Filled::Answered(self.answers.len() - before);
            self.slots.push_back(Slot { shape: Shape::Ok, dialect, header, filled });
        }
    }

    /// The same for what never comes with a header.
    fn answer_bare(&mut self, output: &mut BytesMut, write: impl FnOnce(&mut Resp<'_>)) {
        let header = std::mem::replace(&mut self.session.header, false);
        self.answer(output, |resp, _| write(resp));
        self.session.header = header;
    }

    /// An error must be seen as an error without looking inside.
    fn refuse(&mut self, fault: &Fault, output: &mut BytesMut) {
        self.answer_bare(output, |resp| resp.error(fault));
    }

    /// Writes one reply of the node for the slot at the front. The slot leaves with the last.
    fn emit(&mut self, header: Header, body: &Body, last: bool, output: &mut BytesMut) {
        self.last_header = header;
        let slot = self.slots.front_mut().expect("a reply is owed");
        let mut resp = Resp::new(output, slot.dialect);
        match (&slot.filled, body) {
            (Filled::Begun, Body::RangePart(part)) => reply::further_part(&slot.shape, part, &mut resp),
            (Filled::Begun, _) => return self.break_off(),
            (_, Body::Fault(fault)) => {
                resp.error(fault);
                self.watches.remove(self.front);
            }
            (_, Body::Watching) if slot.shape == Shape::Subscribed => {
                self.watches.confirm(self.front, &mut resp);
            }
            (_, body) => {
                if slot.header && !slot.shape.is_raw() {
                    resp.array(2);
                    reply::header(&header, &mut resp);
                }
                reply::write(&slot.shape, body, &self.info, &mut resp);
            }
        }
        slot.filled = Filled::Begun;
        if last {
            let tag = self.front;
            self.slots.pop_front();
            self.front += 1;
            self.push_present(tag, body, output);
            self.push_late(output);
        }
    }

    /// Whether an answer is out up to its middle.
    fn is_amid_an_answer(&self) -> bool {
        self.slots.front().is_some_and(|slot| matches!(slot.filled, Filled::Begun))
    }

    /// Half an answer is out, and its end will not come: no later word could be told from it.
    fn break_off(&mut self) {
        self.slots.clear();
        (self.owed, self.early_bytes) = (0, 0);
        self.answers.clear();
        self.broken = true;
        self.close();
    }

    /// Writes everything at the front of the queue that is not owed any more.
    fn flush(&mut self, output: &mut BytesMut) {
        while let Some(slot) = self.slots.front_mut() {
            match std::mem::replace(&mut slot.filled, Filled::No) {
                Filled::No => return,
                Filled::Begun => unreachable!("only the front slot has begun, and it was written to its end"),
                Filled::Answered(bytes) => {
                    if slot.header {
                        let mut resp = Resp::new(output, slot.dialect);
                        resp.array(2);
                        reply::header(&self.last_header, &mut resp);
                    }
                    output.extend_from_slice(&self.answers.split_to(bytes));
                    self.slots.pop_front();
                    self.front += 1;
                }
                Filled::Early { replies, whole } => {
                    let count = replies.len();
                    for (at, (header, body)) in replies.into_iter().enumerate() {
                        if self.broken {
                            return;
                        }
                        self.early_bytes -= body.size_bytes();
                        self.emit(header, &body, whole && at + 1 == count, output);
                    }
                    if !whole || self.broken {
                        return;
                    }
                }
            }
        }
    }
}

impl Adapter for LineAdapter {
    fn decode(
        &mut self,
        input: &mut BytesMut,
        calls: &mut Vec<Call>,
        output: &mut BytesMut,
    ) -> Result<(), Fault> {
        self.stalled = false;
        while !self.ended && !self.awaits_answers() {
            if self.is_full(output) || self.waits() || calls.len() >= CALLS_AT_ONCE_MAX {
                self.stalled = !input.is_empty();
                return Ok(());
            }
            let step = match self.parked.take() {
                Some(words) => Ok(Step::Request(words)),
                None => self.parser.next(input),
            };
            match step {
                Ok(Step::NeedMore) => return Ok(()),
                Ok(Step::Refused(fault)) => self.refuse(&fault, output),
                Ok(Step::Request(words)) => match self.run(&words, calls, output) {
                    Ok(true) => self.parser.recycle(words),
                    Ok(false) => self.parked = Some(words),
                    Err(fault) => {
                        self.refuse(&fault, output);
                        self.parser.recycle(words);
                    }
                },
                Err(fault) => {
                    self.give_up(&fault, output);
                    input.clear();
                    return Err(fault);
                }
            }
        }
        if self.ended {
            input.clear();
        }
        Ok(())
    }

    fn encode(&mut self, reply: Reply, output: &mut BytesMut) {
        if self.broken {
            return; // Nobody hears it.
        }
        let Reply { tag, header, body, more, .. } = reply;
        if tag < self.front || tag == watches::PROGRESS {
            return self.take_push(tag, body, output);
        }
        // That a watch has begun answers its request. What follows are pushes.
        let more = more && !body.begins_to_tell();
        let at = tag.checked_sub(self.front).and_then(|at| usize::try_from(at).ok());
        let Some((at, slot)) = at.and_then(|at| Some((at, self.slots.get_mut(at)?))) else {
            panic!("a reply to tag {tag}, which is owed none");
        };
        self.owed -= usize::from(!more);
        if at == 0 {
            self.emit(header, &body, !more, output);
            if !more {
                self.flush(output);
            }
            return;
        }
        self.early_bytes += body.size_bytes();
        match &mut slot.filled {
            filled @ Filled::No => *filled = Filled::Early { replies: vec![(header, body)], whole: !more },
            Filled::Early { replies, whole: whole @ false } => {
                replies.push((header, body));
                *whole = !more;
            }
            _ => panic!("a reply to tag {tag} behind its last"),
        }
    }

    fn give_up(&mut self, fault: &Fault, output: &mut BytesMut) {
        self.part_from_watches(fault, output);
        self.refuse(fault, output);
        (self.ended, self.parked) = (true, None);
    }

    fn owed(&self) -> usize {
        self.owed
    }

    fn stalled(&self) -> bool {
        self.stalled || self.parked.is_some()
    }

    /// As Redis does it with commands that wait: what a client sends behind a LOCK happens when it has the lock.
    fn waits(&self) -> bool {
        let is_open = |slot: &Slot| slot.shape == Shape::Acquired && matches!(slot.filled, Filled::No);
        self.slots.back().is_some_and(is_open)
    }

    fn cancel(&mut self, calls: &mut Vec<Call>) {
        let last = (self.front + self.slots.len() as Tag).checked_sub(1);
        if let Some(tag) = last.filter(|_| self.waits() && self.cancelled != last) {
            self.cancelled = last;
            calls.push(Call::Cancel { tag });
        }
    }

    fn closing(&self) -> bool {
        self.closing
    }

    /// A request waits until nothing is owed; whether this one has to.
    fn awaits_answers(&self) -> bool {
        self.parked.is_some() && !self.slots.is_empty()
    }

    fn kept_bytes(&self) -> usize {
        self.early_bytes + self.answers.len()
    }
}

fn unknown(name: &[u8]) -> Fault {
    if let Some((name, why)) = table::absent(name) {
        return Fault::new(Code::Err, format!("{name}: {why}"));
    }
    Fault::new(Code::Err, format!("unknown command '{}'; COMMAND LIST names those there are", shown(name)))
}

fn unknown_sub(container: &'static Spec, name: &[u8]) -> Fault {
    if let Some((name, why)) = table::absent(&[container.name.as_bytes(), name].join(&b' ')) {
        return Fault::new(Code::Err, format!("{name}: {why}"));
    }
    let usage = container.usage(None);
    Fault::new(Code::Err, format!("unknown subcommand '{}'; usage: {usage}", shown(name)))
}

/// A name as it may stand in an error line: printable, and not long.
fn shown(name: &[u8]) -> String {
    let cut = &name[..name.len().min(ECHO_BYTES_MAX)];
    format!("{}{}", cut.escape_ascii(), if cut.len() < name.len() { "..." } else { "" })
}
