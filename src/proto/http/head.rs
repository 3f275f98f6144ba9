//! The head of a request: where it ends, and what it says.
//!
//! The end is looked for here and not by the parser, so that no byte is looked at twice while a head arrives in
//! pieces, and so that every line end is CRLF. The parser takes a bare LF, as RFC 9112 §2.2 allows; where something in
//! front of this server does not, the two disagree about where a request ends, and a request can be hidden in
//! another one. For the same reason a length is said once and in one way, or the request is refused.

use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::target::{Target, host_name};
use crate::base::time::Nanos;
use crate::proto::etcd::timeout;

/// Of the request line; longer ones are told 414.
pub(super) const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;

/// Of the whole head, and how many fields it has; more are told 431.
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
pub(super) const FIELDS_MAX: usize = 100;

/// Why a request is not taken. The connection ends behind it: nobody knows where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// One line, without anything of what was sent.
    pub(super) why: &'static str,
}

pub(super) const fn refuse(status: u16, why: &'static str) -> Refusal {
    Refusal { status, why }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Options,
    Other,
}

/// What follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// 0 where nothing is said.
    Bytes(u64),
    Chunked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: Target,
    /// Whom the client believes to talk to, without a port.
    pub(super) host: String,
    /// Which page a browser's request comes from.
    pub(super) origin: Option<String>,
    pub(super) http10: bool,
    /// The connection may go on behind the answer.
    pub(super) keep_alive: bool,
    pub(super) length: Length,
    /// It waits for a word before it sends what follows.
    pub(super) expects_continue: bool,
    /// What the gateway hands on: how long the client waits, and that it would rather fail than wait for a leader.
    pub(super) timeout: Option<Nanos>,
    pub(super) needs_leader: bool,
}

/// Looks for the end of a head as it arrives.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    scanned: usize,
    line_start: usize,
}

impl Scanner {
    /// Some of a head has arrived, and not all.
    pub(super) fn has_begun(&self) -> bool {
        self.scanned > 0
    }

    /// Where the head at the front of `input` ends. Nothing is consumed.
    pub(super) fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(at) = input[self.scanned..].iter().position(|&byte| byte == b'\n') {
            let line_feed = self.scanned + at;
            if line_feed == 0 || input[line_feed - 1] != b'\r' {
                return Err(refuse(400, "a line ends with CR and LF"));
            }
            let line = &input[self.line_start..line_feed - 1];
            self.check_sizes(line.len(), line_feed + 1)?;
            self.scanned = line_feed + 1;
            self.line_start = self.scanned;
            if line.is_empty() {
                *self = Scanner::default();
                return Ok(Some(line_feed + 1));
            }
        }
        self.scanned = input.len();
        self.check_sizes(input.len() - self.line_start, input.len())?;
        Ok(None)
    }

    fn check_sizes(&self, line_bytes: usize, head_bytes: usize) -> Result<(), Refusal> {
        if self.line_start == 0 && line_bytes > REQUEST_LINE_BYTES_MAX {
            return Err(refuse(414, "the request line is too long"));
        }
        if head_bytes > HEAD_BYTES_MAX {
            return Err(refuse(431, "the head of the request is too long"));
        }
        Ok(())
    }
}

/// Reads a whole head.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(refuse(400, "the head of the request has no end")),
        Err(error) => return Err(unreadable(error)),
    }
    let http10 = request.version == Some(0);
    let fields = Fields(request.headers);
    let method = match request.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    };
    let (target, authority) = Target::parse(request.path.unwrap_or_default(), method)?;
    // RFC 9112 §3.2.2: what the target says of the host counts, and not the field.
    let host = match (fields.host(http10)?, authority) {
        (_, Some(authority)) => authority,
        (field, None) => field,
    };
    Ok(Head {
        method,
        host: host_name(&host)?,
        origin: fields.only("origin", "there is more than one Origin")?.map(text),
        http10,
        keep_alive: fields.keep_alive(http10),
        length: fields.length(http10)?,
        expects_continue: fields.expects_continue(http10)?,
        timeout: fields.all("grpc-timeout").next().and_then(timeout::parse),
        needs_leader: fields.all("grpc-metadata-hasleader").next() == Some(b"true"),
        target,
    })
}

fn unreadable(error: Error) -> Refusal {
    match error {
        Error::TooManyHeaders => refuse(431, "the head of the request has too many fields"),
        Error::Version => refuse(505, "HTTP/1.0 and HTTP/1.1 are spoken here"),
        Error::HeaderName => refuse(400, "a field has no valid name"),
        Error::HeaderValue => refuse(400, "a field has no valid value"),
        Error::NewLine | Error::Status | Error::Token => refuse(400, "the request line is not valid"),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

struct Fields<'a>(&'a [Header<'a>]);

impl Fields<'_> {
    fn all<'s>(&'s self, name: &'static str) -> impl Iterator<Item = &'s [u8]> {
        let named = move |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|field| field.value.trim_ascii())
    }

    fn only(&self, name: &'static str, why: &'static str) -> Result<Option<&[u8]>, Refusal> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(refuse(400, why)),
            (value, None) => Ok(value),
        }
    }

    /// RFC 9112 §3.2: exactly one, since HTTP/1.1.
    fn host(&self, http10: bool) -> Result<String, Refusal> {
        match self.only("host", "there is more than one Host")? {
            None if http10 => Ok(String::new()),
            None => Err(refuse(400, "there is no Host")),
            Some(host) => Ok(text(host)),
        }
    }

    /// RFC 9112 §6.3, the strict way: what could be read in two ways is not read.
    fn length(&self, http10: bool) -> Result<Length, Refusal> {
        let length = self.only("content-length", "there is more than one Content-Length")?;
        let coding = self.only("transfer-encoding", "there is more than one Transfer-Encoding")?;
        match (length, coding) {
            (Some(_), Some(_)) => Err(refuse(400, "there are both Content-Length and Transfer-Encoding")),
            (None, Some(_)) if http10 => Err(refuse(400, "HTTP/1.0 has no Transfer-Encoding")),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Length::Chunked),
            (None, Some(_)) => Err(refuse(501, "the only Transfer-Encoding known here is chunked")),
            (None, None) => Ok(Length::Bytes(0)),
            (Some(digits), None) => {
                let number = Some(digits)
                    .filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
                    .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                number.map(Length::Bytes).ok_or(refuse(400, "Content-Length is not a number"))
            }
        }
    }

    /// RFC 9112 §9.3.
    fn keep_alive(&self, http10: bool) -> bool {
        let says = |word: &[u8]| {
            self.all("connection").any(|list| {
                list.split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(word))
            })
        };
        !says(b"close") && (!http10 || says(b"keep-alive"))
    }

    /// RFC 9110 §10.1.1.
    fn expects_continue(&self, http10: bool) -> Result<bool, Refusal> {
        match self.only("expect", "there is more than one Expect")? {
            None => Ok(false),
            Some(what) if what.eq_ignore_ascii_case(b"100-continue") => Ok(!http10),
            Some(_) => Err(refuse(417, "the only Expect known here is 100-continue")),
        }
    }
}
