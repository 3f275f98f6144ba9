//! The client's side of one HTTP/2 connection (RFC 9113), as far as the calls of gRPC need it that are measured; bytes in and bytes
//! out, no socket. Headers of answers are passed over undecoded.

use std::collections::BTreeMap;

use crate::Result;
use crate::answer::Answer;
use crate::load::Kind;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Of flags. The first is END_STREAM of DATA and HEADERS, and ACK of SETTINGS and PING.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Of settings. Without a table and pushes the server has no state that would have to be followed.
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CANCEL: u32 = 8;
const HEAD_BYTES: usize = 9;

/// The least that a peer may allow, and all that this one does.
const FRAME_BYTES_MAX: usize = 16_384;
const WINDOW_BYTES: i64 = 65_535;
const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;
const STREAM_MAX: u32 = (1 << 31) - 1;

/// When so much was received, the connection's window is opened again.
const RECEIVED_BYTES_MAX: u32 = 1 << 30;

#[derive(Debug, PartialEq)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at `at` and where it ends; None if it is not complete.
    fn read(buf: &'a [u8], at: usize) -> Result<Option<(Frame<'a>, usize)>> {
        let Some(head) = buf.get(at..at + HEAD_BYTES) else { return Ok(None) };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(format!("a frame of {length} bytes where {FRAME_BYTES_MAX} are allowed").into());
        }
        let (from, to) = (at + HEAD_BYTES, at + HEAD_BYTES + length);
        let Some(payload) = buf.get(from..to) else { return Ok(None) };
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Some((Frame { kind: head[3], flags: head[4], stream, payload }, to)))
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number at `at` of a payload that has so many bytes, or at least so many.
    fn number(&self, at: usize) -> Result<u32> {
        let bytes = self.payload.get(at..).and_then(<[u8]>::first_chunk::<4>);
        let Some(bytes) = bytes else {
            return Err(format!("{} bytes in a frame of kind {}", self.payload.len(), self.kind).into());
        };
        Ok(u32::from_be_bytes(*bytes))
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.payload.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(self.payload);
    }
}

struct Stream {
    client: usize,
    /// What the server takes. Its settings may bring it below zero.
    window: i64,
    unsent: Vec<u8>,
    /// Whether what is sent is all.
    last: bool,
    waiting: bool,
    answer: Answer,
}

/// Which client was answered, and whether it got what it asked for.
pub type Answered = (usize, Result<()>);

/// One connection, all of whose requests are of one kind.
pub struct Session {
    kind: Kind,
    headers: Vec<u8>,
    /// To be sent. Who sends it empties it.
    pub out: Vec<u8>,
    input: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    window: i64,
    initial_window: i64,
    /// Streams for which the windows were too small, in their order.
    blocked: Vec<u32>,
    received_bytes: u32,
    /// The stream of a header block that is not complete, and whether it is the last of that stream.
    block: Option<(u32, bool)>,
}

impl Session {
    /// `headers` is the HPACK block that each request begins with.
    pub fn new(headers: &[u8], kind: Kind) -> Session {
        let mut session = Session {
            kind,
            headers: headers.to_vec(),
            out: PREFACE.to_vec(),
            input: Vec::new(),
            streams: BTreeMap::new(),
            next_stream: 1,
            window: WINDOW_BYTES,
            initial_window: WINDOW_BYTES,
            blocked: Vec::new(),
            received_bytes: 0,
            block: None,
        };
        // A stream's window is never opened again: 2 GiB are more than any answer, and than a run's renewals.
        let window = WINDOW_BYTES_MAX as u32;
        let settings = [(HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, window)];
        let settings = settings.map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        session.write(SETTINGS, 0, 0, &settings.concat());
        session.write(WINDOW_UPDATE, 0, 0, &(window - WINDOW_BYTES as u32).to_be_bytes());
        session
    }

    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        Frame { kind, flags, stream, payload }.write(&mut self.out);
    }

    /// A new call, of one message if that is the last. The number is that of its stream.
    pub fn open(&mut self, client: usize, message: &[u8], last: bool) -> Result<u32> {
        let id = self.next_stream;
        if id > STREAM_MAX {
            return Err("a connection's stream numbers are used up".into());
        }
        self.next_stream += 2;
        Frame { kind: HEADERS, flags: END_HEADERS, stream: id, payload: &self.headers }.write(&mut self.out);
        let (unsent, window) = (message.to_vec(), self.initial_window);
        let stream = Stream { client, window, unsent, last, waiting: true, answer: Answer::default() };
        self.streams.insert(id, stream);
        self.send(id);
        Ok(id)
    }

    /// One more message in a call whose last message was answered. False if the call is over.
    pub fn again(&mut self, id: u32, message: &[u8]) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        stream.unsent.extend_from_slice(message);
        stream.waiting = true;
        self.send(id);
        true
    }

    /// As much as both windows let through.
    fn send(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let fits = self.window.min(stream.window).clamp(0, stream.unsent.len() as i64);
        self.window -= fits;
        stream.window -= fits;
        let whole = fits as usize == stream.unsent.len();
        let mut pieces = stream.unsent[..fits as usize].chunks(FRAME_BYTES_MAX).peekable();
        while let Some(payload) = pieces.next() {
            let last = stream.last && whole && pieces.peek().is_none();
            let flags = if last { END_STREAM } else { 0 };
            Frame { kind: DATA, flags, stream: id, payload }.write(&mut self.out);
        }
        stream.unsent.drain(..fits as usize);
        if !whole {
            self.blocked.push(id);
        }
    }

    fn send_blocked(&mut self) {
        for id in std::mem::take(&mut self.blocked) {
            self.send(id);
        }
    }

    /// Bytes from the server. Answers that are complete are put behind `done`.
    pub fn take(&mut self, bytes: &[u8], done: &mut Vec<Answered>) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((frame, end)) = Frame::read(&input, at)? {
            done.extend(self.on_frame(&frame)?);
            at = end;
        }
        input.drain(..at);
        self.input = input;
        Ok(())
    }

    fn on_frame(&mut self, frame: &Frame) -> Result<Option<Answered>> {
        if self.block.is_some_and(|(id, _)| frame.kind != CONTINUATION || frame.stream != id) {
            return Err(format!("a frame of kind {} within a header block", frame.kind).into());
        }
        match frame.kind {
            DATA => return self.on_data(frame),
            HEADERS | CONTINUATION => return self.on_headers(frame),
            RST_STREAM => {
                let code = frame.number(0)?;
                let stream = self.streams.remove(&frame.stream).filter(|stream| stream.waiting);
                return Ok(stream.map(|s| (s.client, Err(format!("a call was reset, code {code}").into()))));
            }
            SETTINGS if !frame.has(ACK) => self.on_settings(frame)?,
            PING if !frame.has(ACK) => {
                frame.number(4)?;
                self.write(PING, ACK, 0, frame.payload);
            }
            GOAWAY => return Err(format!("the server says GOAWAY, code {}", frame.number(4)?).into()),
            WINDOW_UPDATE => self.on_window(frame)?,
            PUSH_PROMISE => return Err("a push, where none was allowed".into()),
            // Acknowledgements, priorities, and what is to be passed over because it is not known.
            _ => {}
        }
        Ok(None)
    }

    fn on_data(&mut self, frame: &Frame) -> Result<Option<Answered>> {
        self.received_bytes += frame.payload.len() as u32;
        if self.received_bytes > RECEIVED_BYTES_MAX {
            let received_bytes = std::mem::take(&mut self.received_bytes);
            self.write(WINDOW_UPDATE, 0, 0, &received_bytes.to_be_bytes());
        }
        let mut data = frame.payload;
        if frame.has(PADDED) {
            let (padding, rest) = data.split_first().ok_or("a padded frame without the padding's length")?;
            let length = rest.len().checked_sub(usize::from(*padding));
            data = &rest[..length.ok_or("a frame with more padding than bytes")?];
        }
        // That of a call that was given up is passed over.
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return Ok(None) };
        stream.answer.take(data, self.kind)?;
        if frame.has(END_STREAM) {
            return Ok(self.end(frame.stream));
        }
        if stream.last || stream.answer.messages == 0 {
            return Ok(None);
        }
        // A call that goes on: each message is an answer.
        let result = std::mem::take(&mut stream.answer).judge(self.kind);
        let client = stream.client;
        if !std::mem::take(&mut stream.waiting) {
            return Err("a message that nobody had asked for".into());
        }
        if result.is_err() {
            self.end(frame.stream);
        }
        Ok(Some((client, result)))
    }

    fn on_headers(&mut self, frame: &Frame) -> Result<Option<Answered>> {
        let ends = match (frame.kind, self.block.take()) {
            (HEADERS, _) => frame.has(END_STREAM),
            (_, Some((_, ends))) => ends,
            (_, None) => return Err("a header block that goes on, and had not begun".into()),
        };
        if !frame.has(END_HEADERS) {
            self.block = Some((frame.stream, ends));
            return Ok(None);
        }
        Ok(if ends { self.end(frame.stream) } else { None })
    }

    /// The call is over; also for the server, if it does not have all of it.
    fn end(&mut self, id: u32) -> Option<Answered> {
        let stream = self.streams.remove(&id)?;
        if !stream.last || !stream.unsent.is_empty() {
            self.write(RST_STREAM, 0, id, &CANCEL.to_be_bytes());
        }
        stream.waiting.then(|| (stream.client, stream.answer.judge(self.kind)))
    }

    fn on_settings(&mut self, frame: &Frame) -> Result<()> {
        let (settings, []) = frame.payload.as_chunks::<6>() else {
            return Err(format!("settings of {} bytes, six each", frame.payload.len()).into());
        };
        for [name @ .., a, b, c, d] in settings {
            let value = i64::from(u32::from_be_bytes([*a, *b, *c, *d]));
            if u16::from_be_bytes(*name) == INITIAL_WINDOW_SIZE {
                let more = value - self.initial_window;
                let most = self.streams.values().map(|stream| stream.window + more).fold(value, i64::max);
                if most > WINDOW_BYTES_MAX {
                    return Err(format!("settings that make a window {most} bytes").into());
                }
                self.streams.values_mut().for_each(|stream| stream.window += more);
                self.initial_window = value;
            }
        }
        self.write(SETTINGS, ACK, 0, &[]);
        self.send_blocked();
        Ok(())
    }

    fn on_window(&mut self, frame: &Frame) -> Result<()> {
        let more = i64::from(frame.number(0)? & 0x7fff_ffff);
        let window = match frame.stream {
            0 => &mut self.window,
            id => match self.streams.get_mut(&id) {
                Some(stream) => &mut stream.window,
                // Of a call that is over.
                None => return Ok(()),
            },
        };
        *window += more;
        if more == 0 || *window > WINDOW_BYTES_MAX {
            return Err(format!("a window of {window} bytes after {more} more").into());
        }
        self.send_blocked();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::tests::range;
    use crate::etcd::LeaseResponse;
    use prost::Message;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Frame { kind, flags, stream, payload }.write(&mut out);
        out
    }

    fn prefixed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    /// Which frames of what was sent: kind, flags, stream, length.
    fn sent(session: &mut Session) -> Vec<(u8, u8, u32, usize)> {
        let out = std::mem::take(&mut session.out);
        let mut rest = out.strip_prefix(PREFACE).unwrap_or(&out);
        let mut frames = Vec::new();
        while let Some((frame, end)) = Frame::read(rest, 0).unwrap() {
            frames.push((frame.kind, frame.flags, frame.stream, frame.payload.len()));
            rest = &rest[end..];
        }
        assert!(rest.is_empty(), "half a frame was sent");
        frames
    }

    /// Who was answered, and the error.
    fn take(session: &mut Session, bytes: &[u8]) -> Vec<(usize, Option<String>)> {
        let mut done = Vec::new();
        session.take(bytes, &mut done).unwrap();
        done.into_iter().map(|(client, result)| (client, result.err().map(|e| e.to_string()))).collect()
    }

    #[test]
    fn frames_cut_anywhere_are_read_whole_or_not_at_all() {
        let body = prefixed(&range());
        let padded = [&[3][..], &body[90..], &[0; 3]].concat();
        let all = [
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]),
            frame(HEADERS, END_HEADERS, 1, b"headers"),
            frame(DATA, 0, 1, &body[..3]),
            frame(PING, 0, 0, b"12345678"),
            frame(DATA, 0, 1, &body[3..90]),
            frame(DATA, PADDED, 1, &padded),
            frame(HEADERS, END_STREAM, 1, b"trail"),
            frame(CONTINUATION, END_HEADERS, 1, b"ers"),
            frame(HEADERS, END_STREAM | END_HEADERS, 3, b"an error"),
            frame(RST_STREAM, 0, 5, &[0, 0, 0, 7]),
        ];
        let all = all.concat();
        let failed = Some("the call failed; its grpc-status, which is not decoded, says why".to_string());
        let answered = [(10, None), (11, failed), (12, Some("a call was reset, code 7".into()))];
        for cut in 0..=all.len() {
            let mut session = Session::new(b"block", Kind::Range(2));
            for client in 10..13 {
                session.open(client, &prefixed(b"request"), true).unwrap();
            }
            sent(&mut session);
            let mut done = take(&mut session, &all[..cut]);
            done.extend(take(&mut session, &all[cut..]));
            assert_eq!(done, answered, "cut at {cut}");
            assert_eq!(sent(&mut session), [(SETTINGS, ACK, 0, 0), (PING, ACK, 0, 8)], "cut at {cut}");
            assert!(session.input.is_empty() && session.streams.is_empty(), "cut at {cut}");
        }
    }

    #[test]
    fn a_large_body_is_sent_as_the_windows_open() {
        let mut session = Session::new(b"block", Kind::Puts(300));
        session.open(0, &[0; 80_000], true).unwrap();
        session.open(1, &[0; 10], true).unwrap();
        let data = |flags, stream, length| (DATA, flags, stream, length);
        let full = data(0, 1, FRAME_BYTES_MAX);
        let first = [(HEADERS, END_HEADERS, 1, 5), full, full, full, data(0, 1, 16_383)];
        assert_eq!(sent(&mut session)[2..], [&first[..], &[(HEADERS, END_HEADERS, 3, 5)]].concat());
        // The stream's window alone is not enough, nor is the connection's, which serves the other stream.
        take(&mut session, &frame(WINDOW_UPDATE, 0, 1, &5_u32.to_be_bytes()));
        assert_eq!(sent(&mut session), []);
        take(&mut session, &frame(WINDOW_UPDATE, 0, 0, &100_000_u32.to_be_bytes()));
        assert_eq!(sent(&mut session), [data(0, 1, 5), data(END_STREAM, 3, 10)]);
        // Settings shrink and widen the windows of streams that are open.
        take(&mut session, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        take(&mut session, &frame(WINDOW_UPDATE, 0, 1, &65_536_u32.to_be_bytes()));
        let one = data(0, 1, 1);
        assert_eq!(sent(&mut session), [(SETTINGS, ACK, 0, 0), one]);
        take(&mut session, &frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
        let rest = 80_000 - 65_535 - 5 - 1;
        assert_eq!(sent(&mut session), [(SETTINGS, ACK, 0, 0), data(END_STREAM, 1, rest)]);
        assert!(
            session.take(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), &mut Vec::new()).is_err()
        );
    }

    #[test]
    fn renewals_share_a_stream_until_one_fails() {
        let mut session = Session::new(b"block", Kind::KeepAlive);
        let answer = |ttl| {
            let answer = LeaseResponse { id: 8, ttl }.encode_to_vec();
            frame(DATA, 0, 1, &prefixed(&answer))
        };
        assert_eq!(session.open(7, b"renew", false).unwrap(), 1);
        assert_eq!(take(&mut session, &answer(5)), [(7, None)]);
        sent(&mut session);
        assert!(session.again(1, b"renew"));
        assert_eq!(sent(&mut session), [(DATA, 0, 1, 5)]);
        assert_eq!(take(&mut session, &answer(0)), [(7, Some("lease 8 is gone".into()))]);
        assert_eq!(sent(&mut session), [(RST_STREAM, 0, 1, 4)]);
        assert!(!session.again(1, b"renew"));
    }
}
