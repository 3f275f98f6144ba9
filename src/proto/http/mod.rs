//! HTTP/1.1 (RFC 9112) for what is asked about the server (health, metrics, the version), and for etcd's API as JSON
//! ([`gateway`]).
//!
//! ```text
//!  input -> head -> body -> site ---------------> exchange ... exchange   in the order of the requests
//!           where it  passed  which page, from whom   |                     |
//!           ends, what over   +-- answered at once    +- Question -> Call --> node
//!           it says           +-- asks the node       +- Body <----- Reply <--+
//!                                                     |
//!                                                     +-> response -> output, the first in line only
//! ```
//!
//! A connection is kept and may be pipelined: up to [`EXCHANGES_MAX`] requests are under way, and answers leave in
//! their order. What follows from an answer of the node, a second question, is asked with the next `write`.
//!
//! The strict reading of the protocol is the only one (`head`, `body`): where two readers could disagree about where a
//! request ends, it is refused and the connection closed. A refusal repeats nothing of what was sent, but for the
//! name in a Host that is not on the list.
//!
//! Bounds, per connection: one incomplete head ([`head::HEAD_BYTES_MAX`]), and so many answers as there may be
//! exchanges, none of which is larger than the page of metrics. Bodies are read and thrown away, [`BODY_BYTES_MAX`] of
//! them, but for those of the gateway, which has bounds of its own.
//!
//! Left out: Date (no clock), ranges, conditions, compression, trailers, upgrades (also to HTTP/2: who speaks it says so
//! with its first bytes), TLS.

mod body;
mod gateway;
mod head;
mod health;
mod metrics;
mod page;
mod response;
mod site;
mod target;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Buf, BytesMut};

use self::body::Body;
use self::gateway::{LANE, Talk};
use self::head::{Head, Length, Refusal, Scanner, refuse};
use self::health::Question;
use self::response::{Form, Response};
use self::site::Work;
use super::Adapter;
use crate::api::{self, Call, Code, Fault, Lane, Reply, Tag};
use crate::base::Mono;
use crate::base::time::{Nanos, SECOND};
use crate::proto::etcd::desk::{self, Desk};

pub use gateway::Gateway;
pub use site::{Allowed, Counters, Scope, Site};

/// Requests of one connection under way.
pub const EXCHANGES_MAX: usize = 32;

/// Of a body that nobody wants.
pub const BODY_BYTES_MAX: u64 = 64 << 10;

/// Decoding rests while so much output has not been written.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// A body must be here within this. (A head must be, too: whoever owns the socket sees to that.)
const BODY_PATIENCE: Nanos = 30 * SECOND;

const LATE: Refusal = refuse(408, "the request was not complete within 30 s");

/// HTTP's side of one connection.
pub struct HttpAdapter {
    site: Rc<Site>,
    scope: Scope,
    now: Mono,
    scanner: Scanner,
    /// A request whose body is not all here.
    reading: Option<Reading>,
    exchanges: VecDeque<Exchange>,
    /// A call of etcd's API, which is alone when it begins.
    talk: Option<Box<Talk>>,
    /// Where there is a gateway.
    desk: Option<Desk>,
    next_tag: Tag,
    /// Calls without a reply.
    owed: usize,
    /// Some exchange has a question that was not asked yet.
    unasked: bool,
    stalled: bool,
    /// Nothing more is decoded: the last request said so, or was not one.
    ended: bool,
}

struct Reading {
    head: Head,
    body: Body,
    is_whole: bool,
    /// What has come of it, if anybody wants it.
    kept: Option<BytesMut>,
    /// It sends its body when it is told to go on.
    holds_back: bool,
    since: Mono,
}

/// A request and what has come of it.
struct Exchange {
    form: Form,
    work: Work,
    /// Asked and not answered.
    open: Vec<(Tag, Question)>,
    response: Option<Response>,
}

/// What one step of decoding came to.
enum Step {
    NeedMore,
    /// Answers that are owed must be out before it can go on.
    Wait,
    Request(Head),
    /// With its body.
    Call(Head, BytesMut),
}

impl HttpAdapter {
    pub fn new(site: Rc<Site>, scope: Scope) -> HttpAdapter {
        let desk = site.gateway.as_ref().map(|gateway| Desk::new(gateway.info.clone()));
        HttpAdapter {
            site,
            scope,
            talk: None,
            desk,
            now: Mono(0),
            scanner: Scanner::default(),
            reading: None,
            exchanges: VecDeque::new(),
            next_tag: 0,
            owed: 0,
            unasked: false,
            stalled: false,
            ended: false,
        }
    }

    fn step(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<Step, Refusal> {
        if self.reading.is_none() {
            // RFC 9112 §2.2: empty lines before a request are passed over.
            if !self.scanner.has_begun() {
                while input.starts_with(b"\r\n") {
                    input.advance(2);
                }
                if input[..] == b"\r"[..] {
                    return Ok(Step::NeedMore);
                }
            }
            let Some(end) = self.scanner.find_end(input)? else { return Ok(Step::NeedMore) };
            let head = head::parse(&input.split_to(end))?;
            let keeps = self.site.call(&head, self.scope).and(self.site.gateway.as_ref());
            let body_bytes_max = keeps.map_or(BODY_BYTES_MAX, |gateway| gateway.body_bytes_max());
            let body = Body::new(head.length, body_bytes_max)?;
            let kept = keeps.map(|_| BytesMut::new());
            let holds_back = head.expects_continue && head.length != Length::Bytes(0);
            self.reading = Some(Reading { head, body, is_whole: false, kept, holds_back, since: self.now });
        }
        let reading = self.reading.as_mut().expect("it was just seen");
        if reading.holds_back && input.is_empty() {
            // The word belongs to this request, so all earlier answers are before it.
            if !self.exchanges.is_empty() {
                return Ok(Step::Wait);
            }
            output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            reading.since = self.now;
        }
        reading.holds_back = false;
        let Reading { body, kept, .. } = reading;
        let mut keep = |bytes: &[u8]| {
            if let Some(kept) = kept {
                kept.extend_from_slice(bytes);
            }
        };
        reading.is_whole = reading.is_whole || body.take(input, &mut keep)?;
        if !reading.is_whole {
            return Ok(Step::NeedMore);
        }
        if reading.kept.is_some() && !self.exchanges.is_empty() {
            return Ok(Step::Wait);
        }
        let Reading { head, kept, .. } = self.reading.take().expect("it was just seen");
        Ok(kept.map_or(Step::Request(head.clone()), |body| Step::Call(head, body)))
    }

    /// A call of etcd's API begins.
    fn begin_call(&mut self, head: &Head, body: &[u8]) {
        let (Some(desk), Some(gateway)) = (&mut self.desk, &self.site.gateway) else {
            unreachable!("without a gateway no body is kept")
        };
        let rpc = self.site.call(head, self.scope).expect("its body was kept");
        let form = self.site.form(head, self.scope);
        desk.now = self.now;
        let mut talk = Talk::new(rpc, head, form, gateway, desk);
        talk.hear(body, desk);
        self.talk = Some(Box::new(talk));
    }

    /// Writes what the call has to say, and goes on behind it.
    fn write_call(&mut self, is_last: bool, calls: &mut Vec<Call>, output: &mut BytesMut) {
        let Some(desk) = &mut self.desk else { return };
        if let Some(talk) = &mut self.talk {
            talk.write(output, is_last, desk);
            if talk.is_over() {
                self.ended |= !talk.keeps_alive();
                self.talk = None;
                // There may be a request behind it.
                self.stalled = true;
            }
        }
        calls.append(&mut desk.calls);
    }

    fn begin(&mut self, head: &Head) {
        let form = self.site.form(head, self.scope);
        self.ended = !form.keep_alive;
        let work = self.site.route(head, self.scope);
        self.exchanges.push_back(Exchange { form, work, open: Vec::new(), response: None });
        self.unasked = true;
    }

    /// The last answer of the connection.
    fn refuse(&mut self, response: Response) {
        self.ended = true;
        self.reading = None;
        let work = Work::Ready(response);
        self.exchanges.push_back(Exchange { form: Form::default(), work, open: Vec::new(), response: None });
        self.unasked = true;
    }

    /// Asks what is to be asked, and takes up what can be answered.
    fn ask(&mut self, calls: &mut Vec<Call>) {
        if !std::mem::take(&mut self.unasked) {
            return;
        }
        for exchange in &mut self.exchanges {
            while let Some(question) = exchange.next() {
                calls.push(Call::Request { tag: self.next_tag, request: question.request() });
                exchange.open.push((self.next_tag, question));
                self.next_tag += 1;
                self.owed += 1;
            }
            exchange.conclude(&self.site);
        }
    }

    /// Writes every answer that is ready and has none before it that is not.
    fn flush(&mut self, output: &mut BytesMut) {
        while let Some(Exchange { response: Some(response), form, .. }) = self.exchanges.front() {
            response::write(response, form, output);
            self.exchanges.pop_front();
        }
    }
}

impl Exchange {
    fn next(&mut self) -> Option<Question> {
        match &mut self.work {
            Work::Ready(_) => None,
            Work::Health(health) => health.next(),
            Work::Checks(checks) => checks.next(),
            Work::Metrics { asked, .. } => (!std::mem::replace(asked, true)).then_some(Question::Metrics),
        }
    }

    fn answer(&mut self, question: Question, answer: Result<api::Body, Fault>, site: &Site) {
        match (&mut self.work, answer) {
            (Work::Ready(_), _) => unreachable!("it asked nothing"),
            (Work::Health(health), answer) => health.answer(question, answer),
            (Work::Checks(checks), answer) => checks.answer(question, &answer),
            (Work::Metrics { text, .. }, Ok(api::Body::Metrics(found))) => {
                *text = Some(metrics::text(&found, &site.counters, &site.calls));
            }
            (work @ Work::Metrics { .. }, answer) => {
                let why = answer.err().map_or_else(String::new, |fault| fault.text);
                *work = Work::Ready(Response::error(503, &why));
            }
        }
    }

    /// Makes the answer if everything for it is here.
    fn conclude(&mut self, site: &Site) {
        if self.response.is_some() {
            return;
        }
        self.response = match &mut self.work {
            Work::Ready(response) => Some(response.clone()),
            Work::Health(health) => health.response(&site.counters),
            Work::Checks(checks) => checks.response(&site.counters),
            Work::Metrics { text, .. } => {
                text.take().map(|text| Response::new(200, metrics::CONTENT_TYPE, text))
            }
        };
    }
}

impl Adapter for HttpAdapter {
    fn decode(
        &mut self,
        input: &mut BytesMut,
        calls: &mut Vec<Call>,
        output: &mut BytesMut,
    ) -> Result<(), Fault> {
        self.stalled = false;
        let mut outcome = Ok(());
        while !self.ended {
            if self.talk.is_some() {
                self.stalled = true;
                break;
            }
            if self.exchanges.len() >= EXCHANGES_MAX || output.len() >= OUTPUT_BYTES_MAX {
                self.stalled = !input.is_empty();
                break;
            }
            match self.step(input, output) {
                Ok(Step::NeedMore) => break,
                Ok(Step::Wait) => {
                    self.stalled = true;
                    break;
                }
                Ok(Step::Request(head)) => {
                    self.begin(&head);
                    self.ask(calls);
                    self.flush(output);
                }
                Ok(Step::Call(head, body)) => {
                    self.begin_call(&head, &body);
                    self.write_call(false, calls, output);
                }
                Err(refusal) => {
                    self.refuse(Response::refused(refusal));
                    outcome = Err(Fault::new(Code::Err, refusal.why));
                }
            }
        }
        self.ask(calls);
        self.flush(output);
        if self.ended {
            input.clear();
        }
        outcome
    }

    fn encode(&mut self, reply: Reply, output: &mut BytesMut) {
        if desk::lane_of(reply.tag) == LANE {
            let desk = self.desk.as_mut().expect("it gave the tag");
            desk.heard(reply.header);
            if let Some(talk) = &mut self.talk {
                talk.on_reply(reply, desk);
            }
            return;
        }
        if reply.more {
            return; // A range in parts: the last one tells.
        }
        self.owed -= 1;
        let found = self.exchanges.iter_mut().find_map(|exchange| {
            let at = exchange.open.iter().position(|(tag, _)| *tag == reply.tag)?;
            Some((exchange.open.swap_remove(at).1, exchange))
        });
        let (question, exchange) = found.expect("every call that is owed a reply belongs to an exchange");
        let answer = match reply.body {
            api::Body::Fault(fault) => Err(fault),
            body => Ok(body),
        };
        exchange.answer(question, answer, &self.site);
        exchange.conclude(&self.site);
        self.unasked |= exchange.response.is_none();
        self.flush(output);
    }

    /// A connection that owes nothing ends without a word: HTTP has none for that.
    fn give_up(&mut self, fault: &Fault, output: &mut BytesMut) {
        let is_partial = self.reading.is_some() || self.scanner.has_begun();
        if is_partial && !self.ended {
            self.refuse(match fault.code {
                Code::Err => Response::refused(LATE),
                _ => Response::error(503, &fault.text),
            });
            self.exchanges.back_mut().expect("it was just pushed").conclude(&self.site);
        }
        if let (Some(talk), Some(desk)) = (&mut self.talk, &mut self.desk) {
            talk.give_up(fault, desk);
            self.write_call(true, &mut Vec::new(), output);
        }
        (self.ended, self.reading) = (true, None);
        self.flush(output);
    }

    fn prepare_to_part(&mut self, fault: &Fault) {
        if let (Some(talk), Some(desk)) = (&mut self.talk, &mut self.desk) {
            talk.part(fault, desk);
        }
    }

    fn owed(&self) -> usize {
        self.owed + self.desk.as_ref().map_or(0, |desk| desk.owed)
    }

    fn stalled(&self) -> bool {
        self.stalled
    }

    fn waits(&self) -> bool {
        self.talk.is_some()
    }

    fn cancel(&mut self, calls: &mut Vec<Call>) {
        if let (Some(talk), Some(desk)) = (&mut self.talk, &mut self.desk)
            && !talk.is_answered_soon()
        {
            talk.leave(desk);
            calls.append(&mut desk.calls);
            (self.talk, self.ended) = (None, true);
        }
    }

    fn closing(&self) -> bool {
        self.ended && self.talk.is_none()
    }

    fn lane_of(&self, tag: Tag) -> Lane {
        desk::lane_of(tag)
    }

    fn leave(&mut self, calls: &mut Vec<Call>) -> bool {
        calls.push(Call::Leave { lane: 0 });
        if let (Some(mut talk), Some(desk)) = (self.talk.take(), &mut self.desk) {
            talk.leave(desk);
            calls.append(&mut desk.calls);
        }
        true
    }

    fn set_time(&mut self, now: Mono, _calls: &mut Vec<Call>, _output: &mut BytesMut) {
        self.now = now;
        if let (Some(talk), Some(desk)) = (&mut self.talk, &mut self.desk) {
            if talk.deadline <= now {
                talk.on_deadline(desk);
            }
        } else if self.deadline() <= now {
            self.refuse(Response::refused(LATE));
            // The next `decode` writes it, and ends the connection.
            self.stalled = true;
        }
    }

    fn deadline(&self) -> Mono {
        // While answers before it are owed it is not the client who is late.
        if let Some(talk) = &self.talk {
            return talk.deadline;
        }
        let waits = self.reading.as_ref().filter(|_| !self.stalled);
        waits.map_or(Mono::NEVER, |reading| reading.since + BODY_PATIENCE)
    }

    fn write(&mut self, calls: &mut Vec<Call>, output: &mut BytesMut) {
        self.ask(calls);
        self.flush(output);
        self.write_call(false, calls, output);
    }

    fn awaits_answers(&self) -> bool {
        self.stalled && !self.exchanges.is_empty()
    }

    fn kept_bytes(&self) -> usize {
        let kept = |exchange: &Exchange| exchange.response.as_ref().map_or(0, |response| response.body.len());
        self.exchanges.iter().map(kept).sum()
    }

    fn has_unwritten(&self) -> bool {
        self.unasked || self.talk.as_ref().is_some_and(|talk| talk.has_unwritten())
    }

    fn input_bytes(&self) -> usize {
        let kept = self.reading.as_ref().and_then(|reading| reading.kept.as_ref());
        kept.map_or(0, BytesMut::len)
    }
}
