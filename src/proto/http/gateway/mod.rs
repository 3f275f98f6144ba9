//! etcd's JSON gateway: its API as POST of JSON, beside gRPC.
//!
//! ```text
//!   body -> read -> message --> Dialogue --> Call ---> node
//!   output <- response, chunks <- write <- outbox <-- Reply
//! ```
//!
//! What a call means is [`crate::proto::etcd`]'s, as of gRPC; which paths there are stands in its table of methods. Here JSON is
//! made of messages and messages of JSON, by the tables of their fields, and the answer gets HTTP's form:
//!
//! - A call with one answer is one response. One that is longer than [`PIECE_BYTES`] comes in chunks, as it is written.
//! - A call that goes on is a response in chunks, a line `{"result":…}` for each message, and `{"error":…}` where it fails.
//! - A call that fails has the HTTP status that goes with its gRPC status.
//!
//! A connection has one call at a time: what is behind it is decoded when it has ended, and it begins when all before it are
//! answered. It is a party of its own to the node, on lane [`LANE`], so it is held alone when its client does not read, and
//! left when its client is gone.
//!
//! The whole body is read before the call begins: clients of HTTP/1.1 send all of it before they read, and etcd's own server
//! waits for that, too. Several requests of a stream may stand in it one behind the other. That it ends does not end a watch.
//!
//! Left out: WebSockets, by which a browser could go on sending; the fields `Grpc-Metadata-…` of answers.

mod read;
mod write;

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use self::write::Writer;
use super::head::{Head, Method as Verb};
use super::response::{self, Form, Framing, Response, reason};
use crate::api::status::RpcStatus;
use crate::api::{Fault, Lane, Reply};
use crate::base::Mono;
use crate::base::codec::json_string;
use crate::proto::etcd::frame::PREFIX_BYTES;
use crate::proto::etcd::methods::{self, Rpc, Shape};
use crate::proto::etcd::{Counts, Desk, Dialogue, Room, Status};
use crate::proto::line::ServerInfo;

/// To the node the call of a connection is somebody else than the pages that are asked for on it.
pub(super) const LANE: Lane = 1;

/// An answer is written in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// Nothing more is written while so much has not been sent: the rest waits where it can be held.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

const JSON: &str = "application/json";

/// What all gateways of a process share.
#[derive(Debug)]
pub struct Gateway {
    pub info: Arc<ServerInfo>,
    /// Answers that wait for their readers.
    pub room: Arc<Room>,
    pub counts: Arc<Counts>,
}

impl Gateway {
    /// Of a body: base64 is a third longer than what it says, and names and quotes need their place.
    pub(super) fn body_bytes_max(&self) -> u64 {
        2 * Desk::new(self.info.clone()).message_bytes_max() as u64
    }

    /// What a request is about: None where the path is none of the gateway's.
    pub(super) fn route(head: &Head) -> Option<Result<&'static Rpc, Response>> {
        let path = head.target.path.as_str();
        // As etcd has it since 3.4.
        let rest = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))?;
        let Some(rpc) = methods::find_by_gateway_path(&format!("/v3/{rest}")) else {
            return Some(Err(Response::error(404, reason(404))));
        };
        if head.method != Verb::Post {
            let mut refused = Response::error(405, reason(405));
            refused.fields.push(("Allow", "POST"));
            return Some(Err(refused));
        }
        Some(Ok(rpc))
    }
}

/// One call, from its body to the end of its answer.
pub(super) struct Talk {
    call: Dialogue,
    rpc: &'static Rpc,
    form: Form,
    /// A message that is half written.
    writer: Option<Writer>,
    /// The head is out, and the body is framed so.
    framing: Option<Framing>,
    pub(super) deadline: Mono,
    /// There was no message in the body: no call has begun.
    is_misread: bool,
    is_over: bool,
}

impl Talk {
    pub(super) fn new(
        rpc: &'static Rpc,
        head: &Head,
        form: Form,
        gateway: &Gateway,
        desk: &mut Desk,
    ) -> Talk {
        let mut call = Dialogue::new(Some(rpc), (&gateway.room, &gateway.counts), (LANE, desk));
        call.needs_leader = head.needs_leader;
        let deadline = head.timeout.map_or(Mono::NEVER, |timeout| desk.now + timeout);
        Talk { call, rpc, form, writer: None, framing: None, deadline, is_misread: false, is_over: false }
    }

    /// All that the client says.
    pub(super) fn hear(&mut self, body: &[u8], desk: &mut Desk) {
        let sends_stream = self.rpc.shape == Shape::Both;
        let mut heard = false;
        let call = &mut self.call;
        let mut take = |message: Bytes| {
            heard = true;
            let (length, bytes_max) = (message.len(), desk.message_bytes_max());
            if length > bytes_max {
                let text = format!("grpc: received message larger than max ({length} vs. {bytes_max})");
                call.fail(Status::new(RpcStatus::ResourceExhausted, text), desk);
            } else {
                call.hear(message, desk);
            }
            sends_stream && !call.out.is_ending()
        };
        let outcome = read::messages(body, (self.rpc.request)(), &mut take);
        match outcome {
            // What is wrong behind the first request of a stream ends nothing but the list.
            Err(_) if heard => {}
            Err(why) => {
                let code = if sends_stream { RpcStatus::Unknown } else { RpcStatus::InvalidArgument };
                self.is_misread = true;
                call.fail(Status::new(code, why), desk);
            }
            // No body is a message without fields.
            Ok(()) if !heard && !sends_stream => call.hear(Bytes::new(), desk),
            Ok(()) => {}
        }
        // A watch goes on when nothing more is said about it.
        if !call.is_watch() {
            call.on_end(desk);
        }
        call.ask_gathered(desk);
    }

    /// What the node says.
    pub(super) fn on_reply(&mut self, reply: Reply, desk: &mut Desk) {
        self.call.on_reply(reply, desk);
    }

    /// The client has waited as long as it wanted.
    pub(super) fn on_deadline(&mut self, desk: &mut Desk) {
        self.deadline = Mono::NEVER;
        let late = Status::new(RpcStatus::DeadlineExceeded, "context deadline exceeded");
        self.call.cut_off(late, desk);
    }

    /// The member stops, and calls that go on can go on elsewhere.
    pub(super) fn part(&mut self, fault: &Fault, desk: &mut Desk) {
        self.call.part(Status::of(fault), desk);
    }

    /// The last word, whatever is under way.
    pub(super) fn give_up(&mut self, fault: &Fault, desk: &mut Desk) {
        self.call.cut_off(Status::of(fault), desk);
    }

    pub(super) fn leave(&mut self, desk: &mut Desk) {
        self.call.leave(desk);
    }

    /// The client need not be there for long.
    pub(super) fn is_answered_soon(&self) -> bool {
        self.call.is_answered_soon()
    }

    /// Something is to be written that was not.
    pub(super) fn has_unwritten(&self) -> bool {
        self.writer.is_some() || !self.call.out.is_empty()
    }

    /// The answer is in the output, all of it.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The connection can go on behind the answer.
    pub(super) fn keeps_alive(&self) -> bool {
        self.form.keep_alive && self.framing != Some(Framing::Close)
    }

    /// Writes what there is room for, or everything.
    pub(super) fn write(&mut self, output: &mut BytesMut, is_last: bool, desk: &mut Desk) {
        while !self.is_over && (is_last || output.len() < OUTPUT_BYTES_MAX) {
            if self.writer.is_some() || self.call.out.first().is_some() {
                self.write_piece(output);
            } else if let Some(status) = self.call.out.status().cloned() {
                self.end(&status, output);
            } else {
                break;
            }
        }
        self.call.on_taken(desk);
    }

    fn is_stream(&self) -> bool {
        self.rpc.shape != Shape::Unary
    }

    /// Some of a message.
    fn write_piece(&mut self, output: &mut BytesMut) {
        let mut text = String::new();
        let mut writer = self.writer.take().unwrap_or_else(|| self.begin_message(&mut text));
        let left = writer.left_bytes();
        let is_whole = writer.write(&mut text, PIECE_BYTES);
        self.call.out.take(left - writer.left_bytes());
        if !is_whole {
            self.writer = Some(writer);
        } else if self.is_stream() {
            text.push_str("}\n");
        }
        if self.framing.is_none() && is_whole && !self.is_stream() {
            // The usual case: a short answer.
            self.is_over = true;
            return response::write(&Response::new(200, JSON, text), &self.form, output);
        }
        self.begin_body(200, output);
        self.write_body(&text, output);
    }

    fn begin_message(&mut self, text: &mut String) -> Writer {
        let mut message = self.call.out.first().expect("there is one").clone();
        let prefix = self.call.out.take(PREFIX_BYTES);
        let length =
            u32::from_be_bytes(prefix[1..].try_into().expect("a prefix is as long as it is")) as usize;
        message.advance(PREFIX_BYTES);
        message.truncate(length);
        if self.is_stream() {
            text.push_str("{\"result\":");
        }
        Writer::new(message, (self.rpc.response)(), text)
    }

    fn end(&mut self, status: &Status, output: &mut BytesMut) {
        self.is_over = true;
        let is_ok = status.code == RpcStatus::Ok;
        let body = match is_ok {
            true => String::new(),
            false if self.is_stream() && !self.is_misread => stream_error(status),
            false => error(status),
        };
        if self.framing.is_none() && !(is_ok && self.is_stream()) {
            let code = status.code.http();
            return response::write(&Response::new(code, JSON, body), &self.form, output);
        }
        if self.framing.is_some() && !is_ok && !self.is_stream() {
            // Half an answer is out: only its end can say that it is none.
            self.framing = Some(Framing::Close);
            return;
        }
        self.begin_body(200, output);
        self.write_body(&body, output);
        if self.framing == Some(Framing::Chunked) {
            output.extend_from_slice(b"0\r\n\r\n");
        }
    }

    fn begin_body(&mut self, status: u16, output: &mut BytesMut) {
        if self.framing.is_some() {
            return;
        }
        let framing = if self.form.http10 { Framing::Close } else { Framing::Chunked };
        self.framing = Some(framing);
        self.form.keep_alive &= framing == Framing::Chunked;
        response::write_head(&Response::new(status, JSON, ""), &self.form, framing, output);
    }

    fn write_body(&mut self, text: &str, output: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        if self.framing == Some(Framing::Chunked) {
            output.extend_from_slice(format!("{:x}\r\n", text.len()).as_bytes());
        }
        output.extend_from_slice(text.as_bytes());
        if self.framing == Some(Framing::Chunked) {
            output.extend_from_slice(b"\r\n");
        }
    }
}

/// How a call with one answer fails.
fn error(status: &Status) -> String {
    let text = json_string(&status.text);
    format!("{{\"error\":{text},\"code\":{},\"message\":{text}}}", status.code.number())
}

/// How a call that goes on fails.
fn stream_error(status: &Status) -> String {
    let (code, http) = (status.code.number(), status.code.http());
    let (text, words) = (json_string(&status.text), json_string(reason(http)));
    format!(
        "{{\"error\":{{\"grpc_code\":{code},\"http_code\":{http},\"message\":{text},\"http_status\":{words}}}}}\n"
    )
}
