//! Answers as they go out (RFC 9112 §4). There is no Date: that is for servers with a clock (RFC 9110 §6.6.1), and an
//! adapter has none that tells the time of day.

use std::fmt::Write;

use bytes::BytesMut;

use super::head::Refusal;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// Fields of this answer alone.
    pub(super) fields: Vec<(&'static str, &'static str)>,
}

const TEXT: &str = "text/plain; charset=utf-8";
const NOSNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<String>) -> Response {
        Response { status, content_type, body: body.into(), fields: Vec::new() }
    }

    pub(super) fn text(status: u16, body: impl Into<String>) -> Response {
        Response::new(status, TEXT, body)
    }

    /// Text that no browser may take for anything else. `body` is without its line end.
    pub(super) fn error(status: u16, body: &str) -> Response {
        Response { fields: vec![NOSNIFF], ..Response::text(status, format!("{body}\n")) }
    }

    pub(super) fn nosniff(mut self) -> Response {
        self.fields.push(NOSNIFF);
        self
    }

    pub(super) fn refused(refusal: Refusal) -> Response {
        let Refusal { status, why } = refusal;
        Response::error(status, &format!("{status} {}: {why}", reason(status)))
    }
}

/// How the request wants its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// HEAD: everything but the body.
    pub(super) head_only: bool,
    /// The connection goes on behind it.
    pub(super) keep_alive: bool,
    /// A client of HTTP/1.0 wants to be told that it does.
    pub(super) http10: bool,
    /// Pages of this origin may read it.
    pub(super) allow_origin: Option<String>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    /// Each piece says how long it is.
    Chunked,
    /// It is where the connection ends.
    Close,
}

/// Writes the answer.
pub(super) fn write(response: &Response, form: &Form, output: &mut BytesMut) {
    write_head(response, form, Framing::Length(response.body.len()), output);
    if !form.head_only {
        output.extend_from_slice(response.body.as_bytes());
    }
}

/// Writes what stands before the body.
pub(super) fn write_head(response: &Response, form: &Form, framing: Framing, output: &mut BytesMut) {
    let Response { status, content_type, fields, .. } = response;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(*status));
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(head, "{name}: {value}\r\n");
    };
    if let Some(origin) = &form.allow_origin {
        field("Access-Control-Allow-Headers", &"accept, content-type, authorization");
        field("Access-Control-Allow-Methods", &"POST, GET, OPTIONS, PUT, DELETE");
        field("Access-Control-Allow-Origin", origin);
    }
    for (name, value) in fields {
        field(name, value);
    }
    if framing != Framing::Length(0) {
        field("Content-Type", content_type);
    }
    match framing {
        Framing::Length(bytes) => field("Content-Length", &bytes),
        Framing::Chunked => field("Transfer-Encoding", &"chunked"),
        Framing::Close => {}
    }
    match (form.keep_alive, form.http10) {
        (false, _) => field("Connection", &"close"),
        (true, true) => field("Connection", &"keep-alive"),
        (true, false) => {}
    }
    head.push_str("\r\n");
    output.extend_from_slice(head.as_bytes());
}

/// RFC 9110 §15.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => unreachable!("every status that is answered has its words"),
    }
}
