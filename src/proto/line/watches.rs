//! The watches of one connection: what they are called, and what is pushed for them.
//!
//! The node knows a watch by the tag of the request that began it. The client knows it by an id, which it chose or was
//! given; or, if it speaks as to Redis, by the key or the pattern that it subscribed to.
//!
//! Pushes come between replies. Requests about watches wait until all before them is answered, so that no push can come
//! before the reply that says what its watch is called. In RESP2, where a push looks like a reply, a connection
//! that has watches takes no requests but those whose replies cannot be mistaken.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::command::{self, Call as Asked};
use super::json;
use super::reply::{self, Shape};
use super::resp::{Dialect, Resp};
use super::table::{Opt, Run};
use super::{Adapter, LineAdapter};
use crate::api::{Body, Call, Code, Event, Fault, LockRequest, Request, Span, Tag, Watch};
use crate::base::planted;

/// The tag of WATCHPROGRESS, which is answered with OK and a push. No slot has it.
pub const PROGRESS: Tag = Tag::MAX;

/// Numbers of wire forms that are kept with an event: one for each dialect, and Redis's message.
const FORM_RESP2: usize = 0;
const FORM_RESP3: usize = 1;
const FORM_JSON: usize = 2;

/// What a client calls a watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Id(u64),
    /// SUBSCRIBE
    Key(Bytes),
    /// PSUBSCRIBE, with the star at its end if it has one.
    Pattern(Bytes),
}

/// Both ways between names and tags.
#[derive(Default)]
pub struct Watches {
    tags: BTreeMap<Name, Tag>,
    names: BTreeMap<Tag, Name>,
    /// The id that is given next, if nobody has chosen it.
    next_id: u64,
    /// Keys and patterns that were confirmed.
    subscribed: usize,
    /// The node has not answered WATCHPROGRESS yet. What it will say answers all who ask meanwhile.
    progress_asked: bool,
    /// What came in the middle of an answer. The node holds back events then, so these are ends of watches.
    late: Vec<(Tag, Body)>,
}

impl Watches {
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    fn insert(&mut self, name: Name, tag: Tag) {
        self.names.insert(tag, name.clone());
        self.tags.insert(name, tag);
    }

    /// The watch is over, or was refused.
    pub fn remove(&mut self, tag: Tag) -> Option<Name> {
        let name = self.names.remove(&tag)?;
        self.tags.remove(&name);
        Some(name)
    }

    fn any_id(&mut self) -> u64 {
        loop {
            self.next_id += 1;
            if !self.tags.contains_key(&Name::Id(self.next_id)) {
                return self.next_id;
            }
        }
    }

    /// The node says that a subscription holds.
    pub fn confirm(&mut self, tag: Tag, resp: &mut Resp<'_>) {
        self.subscribed += 1;
        write_subscription("subscribe", self.names.get(&tag), self.subscribed, resp);
    }

    fn has_subscriptions(&self) -> bool {
        // Ids come first in the order of names.
        self.tags.last_key_value().is_some_and(|(name, _)| !matches!(name, Name::Id(_)))
    }
}

impl Run {
    /// It begins or ends watches, or asks about them.
    fn is_about_watches(self) -> bool {
        matches!(
            self,
            Run::Watch
                | Run::Unwatch
                | Run::WatchProgress
                | Run::Subscribe
                | Run::Unsubscribe
                | Run::PSubscribe
                | Run::PUnsubscribe
                | Run::ElectionObserve
        )
    }
}

impl LineAdapter {
    /// Whether a request must wait for what is owed. So must what changes how pushes look: those that come before its
    /// reply look as before.
    pub(super) fn must_wait(&self, run: Run) -> bool {
        let changes_pushes = matches!(run, Run::Reset | Run::Hello) && !self.watches.is_empty();
        !self.slots.is_empty() && (run.is_about_watches() || changes_pushes)
    }

    /// In RESP2 nobody could tell the reply to another request from a push.
    pub(super) fn check_watching(&self, run: Run) -> Result<(), Fault> {
        let plain = matches!(run, Run::Ping | Run::Quit | Run::Reset) || run.is_about_watches();
        if plain || self.watches.is_empty() || self.session.dialect == Dialect::Resp3 {
            return Ok(());
        }
        Err(Fault::new(
            Code::Err,
            "in RESP2 a connection that has watches takes only WATCH, UNWATCH, WATCHPROGRESS, ELECTION OBSERVE, SUBSCRIBE, \
             UNSUBSCRIBE, PSUBSCRIBE, PUNSUBSCRIBE, PING, RESET and QUIT: use another one, or HELLO 3 before",
        ))
    }

    pub(super) fn run_watches(
        &mut self,
        call: Asked<'_>,
        calls: &mut Vec<Call>,
        output: &mut BytesMut,
    ) -> Result<(), Fault> {
        let words = (call.first..call.words.count()).map(|word| call.words.share(word));
        match call.spec.run {
            Run::Watch => {
                let (watch, id) = command::watch(call)?;
                self.begin_numbered(id, Request::Watch(watch), calls)?;
            }
            Run::ElectionObserve => {
                let id = command::last_options(call, call.first + 1)?.value(Opt::Id);
                let observe = LockRequest::Observe { name: call.words.share(call.first) };
                self.begin_numbered(id, Request::Lock(observe), calls)?;
            }
            Run::Unwatch => {
                let id = command::watch_id(call)?;
                let Some(&tag) = self.watches.tags.get(&Name::Id(id)) else {
                    return Err(Fault::new(Code::Err, format!("there is no watch {id} on this connection")));
                };
                self.watches.remove(tag);
                calls.push(Call::Cancel { tag });
                self.ok(output);
            }
            Run::WatchProgress => {
                if self.watches.is_empty() {
                    return Err(Fault::new(Code::Err, "there is no watch on this connection"));
                }
                self.ok(output);
                if !std::mem::replace(&mut self.watches.progress_asked, true) {
                    calls.push(Call::Request { tag: PROGRESS, request: Request::WatchProgress });
                }
            }
            Run::Subscribe => {
                for key in words {
                    let span = Span::Key(key.clone());
                    self.subscribe(Name::Key(Bytes::copy_from_slice(&key)), span, calls, output);
                }
            }
            Run::PSubscribe => {
                for pattern in words {
                    match pattern_span(&pattern) {
                        Ok(span) => {
                            let name = Name::Pattern(Bytes::copy_from_slice(&pattern));
                            self.subscribe(name, span, calls, output);
                        }
                        Err(fault) => self.refuse(&fault, output),
                    }
                }
            }
            Run::Unsubscribe => self.unsubscribe(words.map(Name::Key).collect(), false, calls, output),
            Run::PUnsubscribe => self.unsubscribe(words.map(Name::Pattern).collect(), true, calls, output),
            run => unreachable!("{run:?} is not about watches"),
        }
        Ok(())
    }

    /// Under this id; 0: one that is free.
    fn begin_numbered(&mut self, id: u64, request: Request, calls: &mut Vec<Call>) -> Result<(), Fault> {
        let id = if id == 0 { self.watches.any_id() } else { id };
        if self.watches.tags.contains_key(&Name::Id(id)) {
            return Err(Fault::new(Code::Err, format!("watch {id} exists; choose another id, or none")));
        }
        self.begin(Name::Id(id), request, Shape::Watch(id), calls)
    }

    fn begin(
        &mut self,
        name: Name,
        request: Request,
        shape: Shape,
        calls: &mut Vec<Call>,
    ) -> Result<(), Fault> {
        let tag = self.next_tag();
        self.ask(request, shape, calls)?;
        self.watches.insert(name, tag);
        Ok(())
    }

    fn subscribe(&mut self, name: Name, span: Span, calls: &mut Vec<Call>, output: &mut BytesMut) {
        if self.watches.tags.contains_key(&name) {
            let count =
                self.watches.tags.iter().rev().take_while(|(name, _)| !matches!(name, Name::Id(_))).count();
            return self
                .answer_bare(output, |resp| write_subscription("subscribe", Some(&name), count, resp));
        }
        let watch = Request::Watch(Watch::new(span));
        if let Err(fault) = self.begin(name, watch, Shape::Subscribed, calls) {
            self.refuse(&fault, output);
        }
    }

    /// Of all names of the kind, if none is given.
    fn unsubscribe(
        &mut self,
        mut names: Vec<Name>,
        patterns: bool,
        calls: &mut Vec<Call>,
        output: &mut BytesMut,
    ) {
        let verb = "unsubscribe";
        if names.is_empty() {
            let of_kind = |name: &&Name| match name {
                Name::Id(_) => false,
                Name::Key(_) => !patterns,
                Name::Pattern(_) => patterns,
            };
            names = self.watches.tags.keys().filter(of_kind).cloned().collect();
            if names.is_empty() {
                let count = self.watches.subscribed;
                let kind = Name::Pattern(Bytes::new());
                return self.answer_bare(output, |resp| {
                    write_word(verb, patterns.then_some(&kind), resp);
                    resp.null();
                    resp.integer(count as u64);
                });
            }
        }
        for name in names {
            if let Some(&tag) = self.watches.tags.get(&name) {
                self.watches.remove(tag);
                self.watches.subscribed -= 1;
                calls.push(Call::Cancel { tag });
            }
            let count = self.watches.subscribed;
            self.answer_bare(output, |resp| write_subscription(verb, Some(&name), count, resp));
        }
    }

    /// All watches of the connection end.
    pub(super) fn end_watches(&mut self, calls: &mut Vec<Call>) {
        let ended = std::mem::take(&mut self.watches);
        calls.extend(ended.names.into_keys().map(|tag| Call::Cancel { tag }));
        // What the node still says to it must find it asked.
        self.watches.progress_asked = ended.progress_asked;
    }

    /// PING where clients expect messages alone.
    pub(super) fn pings_as_subscriber(&self) -> bool {
        self.session.dialect == Dialect::Resp2 && self.watches.has_subscriptions()
    }

    /// Who leads when an election begins to be observed comes behind the answer to that, as whoever leads later.
    pub(super) fn push_present(&mut self, tag: Tag, body: &Body, output: &mut BytesMut) {
        if matches!(body, Body::Observing { .. }) {
            self.push(tag, body, output);
        }
    }

    /// What the node says about a watch.
    pub(super) fn take_push(&mut self, tag: Tag, body: Body, output: &mut BytesMut) {
        if self.is_amid_an_answer() && !planted::on("watch-ends-between-parts") {
            assert!(
                !matches!(body, Body::Events { .. } | Body::Leads { .. }),
                "the node holds back events while a range is under way"
            );
            self.watches.late.push((tag, body));
        } else {
            self.push(tag, &body, output);
        }
    }

    /// An answer has come to its end.
    pub(super) fn push_late(&mut self, output: &mut BytesMut) {
        for (tag, body) in std::mem::take(&mut self.watches.late) {
            self.push(tag, &body, output);
        }
    }

    /// Writes it. What was said before the node heard that the watch is over is dropped.
    fn push(&mut self, tag: Tag, body: &Body, output: &mut BytesMut) {
        let dialect = self.session.dialect;
        let mut resp = Resp::new(output, dialect);
        if tag == PROGRESS {
            self.watches.progress_asked = false;
            if let Body::Progress { revision } = body
                && !self.watches.is_empty()
                && !self.ended
            {
                write_progress(-1, *revision, &mut resp);
            }
            return;
        }
        let Some(name) = self.watches.names.get(&tag).filter(|_| !self.ended) else { return };
        match (name, body) {
            (Name::Id(id), Body::Events { revision, events }) => {
                resp.push(4);
                resp.text("watch");
                resp.integer(*id);
                resp.integer(*revision);
                resp.array(events.len());
                for event in events {
                    resp.raw(event_form(event, dialect));
                }
            }
            (
                Name::Id(id),
                Body::Observing { revision, leader: Some(leader) } | Body::Leads { revision, leader },
            ) => {
                resp.push(4);
                resp.text("leader");
                resp.integer(*id);
                resp.integer(*revision);
                reply::key_value(leader, false, &mut resp);
            }
            (_, Body::Observing { leader: None, .. }) => {}
            (Name::Id(id), Body::Progress { revision }) => {
                write_progress(id.cast_signed(), *revision, &mut resp)
            }
            (Name::Id(id), Body::Unwatched { fault, compacted }) => {
                write_unwatched(*id, fault, *compacted, &mut resp);
                self.watches.remove(tag);
            }
            (name, Body::Events { events, .. }) => {
                events.iter().for_each(|event| write_message(name, event, &mut resp));
            }
            // Redis has no word for it, and its libraries know what the end of a connection means.
            (_, Body::Unwatched { fault, .. }) => {
                self.give_up(fault, output);
                self.close();
            }
            (name, body) => panic!("the node tells {name:?} of {body:?}, which is not about watches"),
        }
    }

    /// The connection is about to be closed: each watch is told where it stands, unless half an answer is out.
    pub(super) fn part_from_watches(&mut self, fault: &Fault, output: &mut BytesMut) {
        if self.is_amid_an_answer() {
            self.watches = Watches::default();
        }
        for name in std::mem::take(&mut self.watches).tags.into_keys() {
            if let Name::Id(id) = name {
                write_unwatched(id, fault, 0, &mut Resp::new(output, self.session.dialect));
            }
        }
    }
}

fn write_progress(id: i64, revision: u64, resp: &mut Resp<'_>) {
    resp.push(3);
    resp.text("progress");
    resp.signed(id);
    resp.integer(revision);
}

fn write_unwatched(id: u64, fault: &Fault, compacted: u64, resp: &mut Resp<'_>) {
    resp.push(4);
    resp.text("unwatched");
    resp.integer(id);
    resp.text(&fault.to_string());
    resp.integer(compacted);
}

/// `subscribe`, or `psubscribe` for a pattern.
fn write_word(verb: &str, name: Option<&Name>, resp: &mut Resp<'_>) {
    resp.push(3);
    match name {
        Some(Name::Pattern(_)) => resp.text(&format!("p{verb}")),
        _ => resp.text(verb),
    }
}

fn write_subscription(verb: &str, name: Option<&Name>, count: usize, resp: &mut Resp<'_>) {
    write_word(verb, name, resp);
    match name {
        Some(Name::Key(bytes) | Name::Pattern(bytes)) => resp.bulk(bytes),
        other => unreachable!("{other:?} is not subscribed to"),
    }
    resp.integer(count as u64);
}

fn write_message(name: &Name, event: &Event, resp: &mut Resp<'_>) {
    match name {
        Name::Pattern(pattern) => {
            resp.push(4);
            resp.text("pmessage");
            resp.bulk(pattern);
        }
        _ => {
            resp.push(3);
            resp.text("message");
        }
    }
    resp.bulk(&event.kv.key);
    let payload = event.encoded.get(FORM_JSON, || {
        let mut bytes = BytesMut::new();
        Resp::new(&mut bytes, Dialect::Resp2).text(&json::event(event));
        bytes.freeze()
    });
    resp.raw(payload);
}

fn event_form(event: &Event, dialect: Dialect) -> &Bytes {
    let form = if dialect == Dialect::Resp3 { FORM_RESP3 } else { FORM_RESP2 };
    event.encoded.get(form, || {
        let mut bytes = BytesMut::with_capacity(event.size_bytes());
        reply::event(event, &mut Resp::new(&mut bytes, dialect));
        bytes.freeze()
    })
}

/// Literal bytes, and a star at the end for all keys that begin so. Redis's other signs are refused, not guessed at.
fn pattern_span(pattern: &Bytes) -> Result<Span, Fault> {
    let (literal, is_prefix) = match pattern.split_last() {
        Some((b'*', _)) => (pattern.slice(..pattern.len() - 1), true),
        _ => (pattern.clone(), false),
    };
    if literal.iter().any(|byte| b"*?[]\\".contains(byte)) {
        return Err(Fault::new(
            Code::Err,
            "a pattern is the beginning of keys and a star at its end, without other signs of Redis's patterns",
        ));
    }
    Ok(if is_prefix { Span::Prefix(literal) } else { Span::Key(literal) })
}
