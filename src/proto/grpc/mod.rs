//! etcd's v3 API: gRPC over HTTP/2, on the port that speaks the line protocol, too.
//!
//! ```text
//!   input --> io --> h2 --> stream --> Dialogue --> Call ---> node
//!   output <-- io <-- h2 <-- send <-- its outbox <-- Reply <----+
//! ```
//!
//! HTTP/2 is the `h2` crate's; what a call means is [`super::etcd`]'s; what stands between them is here: streams, messages
//! in pieces ([`frame`]), flow control ([`send`]), how a status travels ([`trailers`]).
//!
//! # Without a runtime
//!
//! `h2` is written for tasks that sleep until they are woken. Here nothing sleeps: it reads and writes byte queues ([`io`]),
//! and who is woken stands in a list ([`wake`]). [`GrpcAdapter::drive`] goes round until nobody is: first the connection,
//! which reads and accepts; then the streams that were woken, which take what came for them and send; then the connection
//! again, which writes that down. The only clock that `h2` looks at by itself is that of streams that were reset lately.
//!
//! # Streams are parties
//!
//! A stream of HTTP/2 has a lane ([`crate::api::Lane`]): to the node it is somebody of its own. Requests of one stream take
//! effect in their order, those of two streams in any, as clients of gRPC expect; a watch that is not read is held without
//! anybody else; progress is that of a stream's watches. Where a stream is reset, its lane is left: what it waited for is
//! forgotten, its watches end, and the place that it had in front of a lock is given back. A write under way still happens.
//!
//! # Bounds
//!
//! - [`Settings::streams_max`] streams of a connection.
//! - A message of a client is as long as `--max-request-bytes` allows, and 512 KiB more. What has come of messages that are
//!   not complete is counted with all other input ([`Adapter::input_bytes`]). It is taken out of `h2` as it comes.
//! - Headers of a request: [`HEADERS_BYTES_MAX`].
//! - A stream that goes on and is not read keeps 256 KiB, and what one turn makes (4 MiB): it is held. One that tells events
//!   keeps its share of [`Settings::events_bytes_max`]. An answer that comes
//!   once is one message, however long, as gRPC wants it; all that waits for its readers together is bounded by [`Room`]. Where
//!   [`Settings::kept_bytes_max`] of it wait on one connection, what else was asked there is held until half of them are taken.
//!   `RangeStream` (3.7) has no such message: its answer is sent as it is read.
//! - `h2` is given what its windows allow, and no more; and the output is full at 256 KiB ([`io`]).
//! - A connection has [`Settings::frames_max`] frames of a turn. While there are more, it is not read.
//!
//! # Left out
//!
//! Compressed messages (UNIMPLEMENTED; no client of etcd sends them unasked). `grpc-encoding` and the fastest ping that a client
//! may send (`--grpc-keepalive-min-time`): a ping costs seventeen bytes. Tokens: there are no users. `hasleader` on a stream that
//! goes on: watches end without a leader for everybody.

mod frame;
mod io;
mod send;
mod stream;
mod trailers;
mod wake;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{HeaderMap, Method as Verb, Request as HttpRequest};

use self::io::Io;
use self::send::Sender;
use self::stream::{Load, Stream};
use self::wake::{Flag, Woken};
use super::Adapter;
use super::etcd::desk::{self, Desk};
use super::etcd::methods;
use super::etcd::{Counts, Dialogue, Room, Status, timeout};
use super::line::ServerInfo;
use crate::api::status::RpcStatus;
use crate::api::{Call, Code, Fault, Lane, Reply, Tag};
use crate::base::Mono;
use crate::base::time::{Nanos, SECOND};

/// Of one request, as HTTP/2 counts them (RFC 9113 §6.5.2). etcd's own are a few hundred bytes, tokens included.
const HEADERS_BYTES_MAX: u32 = 16 << 10;

/// What a client may send on one stream, and on the connection, before it is taken. It is taken at once, so this bounds
/// what is on its way, not what is kept.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// `h2` takes all frames that have come before anybody looks at them, and holds small ones against the client, 255 at most
/// for a frame of one byte. What is read at once (256 KiB) can be all such frames: thousands of leases that are renewed on one stream,
/// thousands of calls. So can it be calls that were given up as soon as they were made.
const FRAMES_BUDGET: usize = (256 << 10) / 10 * 255;
const RESETS_MAX: usize = 4_096;

/// What comes for a stream that has ended is a fault, too, and `h2` counts them as long as the connection lives. A client that
/// is told that its watches are over, or that its message is too long, may have more on its way; to us each costs no more than
/// any other call.
const FAULTS_MAX: usize = 1 << 20;

/// What `h2` keeps of a stream's answer.
const SEND_BYTES_MAX: usize = 128 << 10;

/// Lanes that streams may have, whatever the settings say.
const STREAMS_MAX: u32 = 32 << 10;

/// Streams with 4 KiB of small events each take a tenth of a millisecond to free.
const FREED_AT_ONCE: usize = 32;

/// What all gRPC connections of a member have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--max-concurrent-streams`
    pub streams_max: u32,
    /// `--grpc-keepalive-interval`: a silent client is asked whether it is there; 0 = never.
    pub ping_every: Nanos,
    /// `--grpc-keepalive-timeout`: it must answer within this.
    pub ping_patience: Nanos,
    /// So many frames of one connection are taken in one turn.
    pub frames_max: usize,
    /// Of answers that come once, so much may wait on one connection before more of them are made.
    pub kept_bytes_max: usize,
    /// Of events, so much may wait on one connection: streams that are not read share it. One of them has 64 KiB at most, and
    /// 4 KiB at least.
    pub events_bytes_max: usize,
    /// Answers that wait for their readers.
    pub room: Arc<Room>,
    pub counts: Arc<Counts>,
}

/// A turn's worth: thirty calls. Whoever sends more in earnest has the next turn at once.
const FRAMES_MAX: usize = 64;

/// Clients read such answers as they come. One that does not shall not have all of the room that others have, too. One answer
/// counts for half of this at most: a client that takes its time for a large one is not kept from asking for others.
const KEPT_BYTES_MAX: usize = 128 << 20;

/// A connection of a thousand watches that reads none of them costs a few writes' time, and not hundreds of them.
const EVENTS_BYTES_MAX: usize = 4 << 20;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            streams_max: u32::MAX,
            ping_every: 2 * 60 * 60 * SECOND,
            ping_patience: 20 * SECOND,
            frames_max: FRAMES_MAX,
            kept_bytes_max: KEPT_BYTES_MAX,
            events_bytes_max: EVENTS_BYTES_MAX,
            room: Arc::new(Room::default()),
            counts: Arc::new(Counts::default()),
        }
    }
}

enum State {
    /// The preface and the settings are under way.
    Greeting(Box<server::Handshake<Io, Bytes>>),
    Open(Box<server::Connection<Io, Bytes>>),
    /// By either side; what is in the output is the last.
    Over,
}

/// gRPC's side of one connection.
pub struct GrpcAdapter {
    desk: Desk,
    settings: Arc<Settings>,
    io: Io,
    state: State,
    woken: Arc<Woken>,
    waker: Waker,
    /// By lane. None: free, or lane 0, which no stream has.
    streams: Vec<Option<Box<Stream>>>,
    free: Vec<Lane>,
    /// Behind the end: their memory is still to be given back.
    left: Vec<Stream>,
    /// Those that the node has said something to.
    told: Vec<Lane>,
    deadlines: BTreeSet<(Mono, Lane)>,
    /// Of all streams.
    load: Load,
    pings: Pings,
    /// The client was told to go elsewhere.
    is_parting: bool,
}

/// Whether the client is there.
#[derive(Default)]
struct Pings {
    pings: Option<PingPong>,
    /// When it was last heard.
    heard_at: Mono,
    /// Since when a ping is not answered.
    asked_at: Option<Mono>,
    /// For too long; unless the answer has just come, and is not read yet.
    is_late: bool,
    is_deserted: bool,
}

impl Pings {
    /// Whatever it says, it is there.
    fn heard(&mut self, now: Mono) {
        (self.heard_at, self.is_late) = (now, false);
        if let Some(since) = &mut self.asked_at {
            *since = now;
        }
    }
}

impl GrpcAdapter {
    pub fn new(info: Arc<ServerInfo>, settings: Arc<Settings>) -> GrpcAdapter {
        let io = Io::default();
        let greeting = server::Builder::new()
            .max_concurrent_streams(settings.streams_max.clamp(1, STREAMS_MAX))
            .max_header_list_size(HEADERS_BYTES_MAX)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BYTES_MAX)
            .data_frame_budget(FRAMES_BUDGET)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_local_error_reset_streams(Some(FAULTS_MAX))
            .handshake(io.clone());
        let woken = Arc::new(Woken::default());
        GrpcAdapter {
            desk: Desk::new(info),
            settings,
            io,
            state: State::Greeting(Box::new(greeting)),
            waker: wake::of_connection(&woken),
            woken,
            streams: vec![None],
            free: Vec::new(),
            left: Vec::new(),
            told: Vec::new(),
            deadlines: BTreeSet::new(),
            load: Load::default(),
            pings: Pings::default(),
            is_parting: false,
        }
    }

    /// Goes round until nobody is woken.
    fn drive(&mut self) {
        self.io.unblock();
        let mut list = std::mem::take(&mut self.told);
        loop {
            self.poll_connection();
            self.woken.take_streams(&mut list);
            if list.is_empty() && !self.woken.take_connection() {
                break;
            }
            for lane in list.drain(..) {
                self.with_stream(lane, |stream, desk| stream.serve(desk));
            }
        }
        // Its room serves the next turn.
        self.told = list;
    }

    /// Reads, accepts and writes.
    fn poll_connection(&mut self) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        if let State::Greeting(greeting) = &mut self.state {
            match Pin::new(&mut **greeting).poll(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(mut connection)) => {
                    self.pings.pings = connection.ping_pong();
                    self.state = State::Open(Box::new(connection));
                }
                Poll::Ready(Err(_)) => return self.close(),
            }
        }
        loop {
            let State::Open(connection) = &mut self.state else { return };
            match connection.poll_accept(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(None) => return self.close(),
                Poll::Ready(Some(Err(error))) => {
                    // h2 has told the client.
                    log::debug!("a gRPC connection ends: {error}");
                    return self.close();
                }
            }
        }
        if let Some(pings) = &mut self.pings.pings
            && self.pings.asked_at.is_some()
            && pings.poll_pong(&mut cx).is_ready()
        {
            self.pings.asked_at = None;
        }
    }

    /// A call begins.
    fn begin(&mut self, request: HttpRequest<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (head, recv) = request.into_parts();
        if head.method != Verb::POST || !speaks_grpc(&head.headers) {
            // A browser, perhaps: an answer in its own words ("Responses": 415).
            let code = if head.method == Verb::POST { 415 } else { 405 };
            let mut response = http::Response::new(());
            *response.status_mut() = http::StatusCode::from_u16(code).expect("it is one");
            // It fails where the stream is gone.
            let _ = respond.send_response(response, true);
            return;
        }
        let Some(lane) = self.free_lane() else { return respond.send_reset(Reason::REFUSED_STREAM) };
        let timeout = head.headers.get("grpc-timeout").and_then(|value| timeout::parse(value.as_bytes()));
        let deadline = timeout.map_or(Mono::NEVER, |timeout| self.desk.now + timeout);
        let found = methods::find(head.uri.path());
        let Settings { room, counts, .. } = &*self.settings;
        let mut call = Dialogue::new(found, (room, counts), (lane, &mut self.desk));
        call.needs_leader = head.headers.get("hasleader").is_some_and(|value| value == "true");
        if found.is_none() {
            let text = format!("unknown method {}", shown(head.uri.path()));
            call.fail(Status::new(RpcStatus::Unimplemented, text), &mut self.desk);
        }
        let flag = Flag::new(lane, &self.woken);
        let stream = Stream::new(call, (recv, Sender::Unanswered(respond)), flag, deadline);
        if deadline != Mono::NEVER {
            self.deadlines.insert((deadline, lane));
        }
        self.load.change(Load::default(), stream.load(self.share_bytes()));
        self.streams[usize::from(lane)] = Some(Box::new(stream));
        self.with_stream(lane, |stream, desk| stream.serve(desk));
    }

    fn free_lane(&mut self) -> Option<Lane> {
        if let Some(lane) = self.free.pop() {
            return Some(lane);
        }
        if self.streams.len() > STREAMS_MAX as usize {
            return None;
        }
        self.streams.push(None);
        Lane::try_from(self.streams.len() - 1).ok()
    }

    /// Has something done with a stream, if there is one, and keeps the sums.
    fn with_stream(&mut self, lane: Lane, act: impl FnOnce(&mut Stream, &mut Desk)) {
        let place = usize::from(lane);
        let Some(mut stream) = self.streams.get_mut(place).and_then(Option::take) else { return };
        let share = self.share_bytes();
        let before = stream.load(share);
        self.desk.share(self.settings.events_bytes_max, self.load.unsent);
        act(&mut stream, &mut self.desk);
        self.load.change(before, if stream.is_over() { Load::default() } else { stream.load(share) });
        if stream.is_over() {
            self.deadlines.remove(&(stream.deadline, lane));
            self.free.push(lane);
        } else {
            self.streams[place] = Some(stream);
        }
    }

    /// Nothing more comes or goes.
    fn close(&mut self) {
        self.state = State::Over;
        self.pings = Pings { is_deserted: self.pings.is_deserted, ..Pings::default() };
        self.io.close();
        for lane in self.lanes() {
            if let Some(mut stream) = self.streams[usize::from(lane)].take() {
                stream.leave(&mut self.desk);
                self.left.push(*stream);
            }
        }
        self.streams.truncate(1);
        self.free.clear();
        self.deadlines.clear();
        self.load = Load::default();
    }

    /// An answer may be as large as it likes, and alone holds up nothing else.
    fn share_bytes(&self) -> usize {
        self.settings.kept_bytes_max / 2
    }

    /// A client that asks for more than it takes has the rest when it has taken some.
    fn mind_kept(&mut self) {
        let most = self.settings.kept_bytes_max;
        let is_full = self.load.kept_bytes >= if self.desk.is_full { most / 2 } else { most };
        if std::mem::replace(&mut self.desk.is_full, is_full) != is_full {
            for lane in self.lanes() {
                self.with_stream(lane, |stream, desk| stream.on_fullness(desk));
            }
        }
    }

    fn lanes(&self) -> Vec<Lane> {
        let used = (1..).zip(&self.streams[1..]).filter(|(_, stream)| stream.is_some());
        used.map(|(lane, _)| lane).collect()
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Asks a silent client whether it is there, and does not wait for ever.
    fn ask_for_life(&mut self) {
        let Settings { ping_every, ping_patience, .. } = *self.settings;
        match self.pings.asked_at {
            Some(since) => self.pings.is_late = since + ping_patience <= self.desk.now,
            None if ping_every > 0 && self.pings.heard_at + ping_every <= self.desk.now => {
                if let Some(pings) = &mut self.pings.pings
                    && pings.send_ping(Ping::opaque()).is_ok()
                {
                    self.pings.asked_at = Some(self.desk.now);
                }
                // The next one counts from here, whatever became of this.
                self.pings.heard_at = self.desk.now;
            }
            None => {}
        }
    }

    fn life_deadline(&self) -> Mono {
        let Settings { ping_every, ping_patience, .. } = *self.settings;
        match self.pings.asked_at {
            Some(_) if self.pings.is_late => Mono::NEVER,
            Some(since) => since + ping_patience,
            None if self.pings.pings.is_some() && ping_every > 0 => self.pings.heard_at + ping_every,
            None => Mono::NEVER,
        }
    }
}

impl Adapter for GrpcAdapter {
    fn decode(
        &mut self,
        input: &mut BytesMut,
        calls: &mut Vec<Call>,
        output: &mut BytesMut,
    ) -> Result<(), Fault> {
        if !self.is_over() && (!input.is_empty() || self.io.has_input()) {
            self.pings.heard(self.desk.now);
            self.io.take_frames(input, self.settings.frames_max);
            self.io.swap_output(output);
            self.drive();
            self.io.swap_output(output);
            self.io.give_buffer_back(input);
        }
        if self.is_over() {
            input.clear();
        }
        self.mind_kept();
        calls.append(&mut self.desk.calls);
        Ok(())
    }

    fn encode(&mut self, reply: Reply, _: &mut BytesMut) {
        self.desk.heard(reply.header);
        let lane = desk::lane_of(reply.tag);
        self.with_stream(lane, |stream, desk| stream.on_reply(reply, desk));
        self.told.push(lane);
    }

    fn write(&mut self, calls: &mut Vec<Call>, output: &mut BytesMut) {
        if self.pings.is_late {
            self.close();
            self.pings.is_deserted = true;
        }
        if !self.told.is_empty() || (self.io.is_blocked() && Io::has_room(output)) {
            self.io.swap_output(output);
            self.drive();
            self.io.swap_output(output);
        }
        self.mind_kept();
        calls.append(&mut self.desk.calls);
    }

    fn give_up(&mut self, fault: &Fault, output: &mut BytesMut) {
        if self.is_over() {
            return;
        }
        self.io.swap_output(output);
        self.io.unbind();
        for lane in self.lanes() {
            self.with_stream(lane, |stream, desk| stream.cut_off(Status::of(fault), desk));
            self.told.push(lane);
        }
        self.drive();
        if let State::Open(connection) = &mut self.state {
            let is_polite = fault.code == Code::Shutdown;
            connection.abrupt_shutdown(if is_polite { Reason::NO_ERROR } else { Reason::ENHANCE_YOUR_CALM });
            self.poll_connection();
        }
        self.close();
        self.io.swap_output(output);
    }

    /// A GOAWAY that refuses nothing yet: calls that are on their way are still taken. What would never end by itself is
    /// ended.
    fn prepare_to_part(&mut self, fault: &Fault) {
        let State::Open(connection) = &mut self.state else { return };
        if !std::mem::replace(&mut self.is_parting, true) {
            connection.graceful_shutdown();
        }
        for lane in self.lanes() {
            self.with_stream(lane, |stream, desk| stream.part(Status::of(fault), desk));
            self.told.push(lane);
        }
        // Lane 0 is nobody: the connection is driven.
        self.told.push(0);
    }

    fn owed(&self) -> usize {
        self.desk.owed
    }

    fn stalled(&self) -> bool {
        self.io.has_input()
    }

    /// `h2` reads no further while an answer to what it has read finds no room.
    fn awaits_answers(&self) -> bool {
        self.io.is_blocked() && self.io.has_input()
    }

    fn waits(&self) -> bool {
        false
    }

    fn cancel(&mut self, _: &mut Vec<Call>) {}

    fn closing(&self) -> bool {
        self.is_over()
    }

    fn set_time(&mut self, now: Mono, calls: &mut Vec<Call>, _: &mut BytesMut) {
        self.desk.now = now;
        while let Some(&(deadline, lane)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let late = Status::new(RpcStatus::DeadlineExceeded, "context deadline exceeded");
            self.with_stream(lane, |stream, desk| stream.cut_off(late, desk));
            self.told.push(lane);
        }
        if self.life_deadline() <= now {
            self.ask_for_life();
            // Lane 0 is nobody: the connection is driven.
            self.told.push(0);
        }
        calls.append(&mut self.desk.calls);
    }

    fn deadline(&self) -> Mono {
        let first = self.deadlines.first().map_or(Mono::NEVER, |(deadline, _)| *deadline);
        first.min(self.life_deadline())
    }

    fn lane_of(&self, tag: Tag) -> Lane {
        desk::lane_of(tag)
    }

    fn leave(&mut self, calls: &mut Vec<Call>) -> bool {
        self.close();
        calls.append(&mut self.desk.calls);
        self.left.truncate(self.left.len().saturating_sub(FREED_AT_ONCE));
        self.left.is_empty()
    }

    fn is_deserted(&self) -> bool {
        self.pings.is_deserted
    }

    fn has_unwritten(&self) -> bool {
        self.load.unsent > 0 || self.io.is_blocked()
    }

    fn input_bytes(&self) -> usize {
        self.load.input_bytes
    }
}

fn speaks_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get("content-type").map_or(&b""[..], |value| value.as_bytes());
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
}

/// A path as it may stand in an error: not long.
fn shown(path: &str) -> String {
    path.chars().take(64).collect()
}
