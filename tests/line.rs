//! The line protocol as conversations (`tests/golden/line/*.txt`), and as a table of what must be refused.
//!
//! A golden file is a row of steps, each a few directives, `----`, and all that the server then writes, one
//! line per CR LF, other control bytes escaped. `UPDATE=1 cargo test line` rewrites the files: read the diff,
//! and commit only what you understand.
//!
//! | directive | meaning |
//! |---|---|
//! | `# text` | a comment |
//! | `> text` | a person types a line (`\r`, `\n`, `\xHH`, `\\` as escapes; CR LF is added) |
//! | `$ words` | a library sends the words, split as typed ones are, as an array |
//! | `= bytes` | these bytes alone, escapes as above |
//! | `hold` | the node keeps calls back |
//! | `release n` | it replies to the n-th call kept back (from 0), or to all, in order, without n |
//! | `show` | from now on, what is asked of the node is shown, as `ask ...` |
//! | `limit n` | a new connection to a server with so small a request limit |
//! | `new` | a new connection; the node keeps its data |
//! | `progress` | the node answers WATCHPROGRESS |
//! | `compact n` | the node ends all watches, for what they want is compacted |
//! | `part` | the server says goodbye |

use std::fmt::Write;
use std::path::Path;

use bytes::{BufMut, BytesMut};
use pawl::api::{Body, Call, Fault, Header, KeyValue, Limits, RangeHead, RangePart, RangeResult, Reply};
use pawl::proto::Adapter;
use pawl::proto::line::LineAdapter;

use crate::fuzz_bodies::fake_node::FakeNode;
use crate::fuzz_bodies::{self, server_info};

const CONN: u64 = 11;

struct Conversation {
    node: FakeNode,
    adapter: LineAdapter,
    input: BytesMut,
    output: BytesMut,
    kept: Vec<Call>,
    hold: bool,
    show: bool,
    closed: bool,
    shown: String,
}

impl Conversation {
    fn new() -> Conversation {
        Conversation {
            node: FakeNode::default(),
            adapter: LineAdapter::new(server_info(Limits::default().request_bytes_max), CONN),
            input: BytesMut::new(),
            output: BytesMut::new(),
            kept: Vec::new(),
            hold: false,
            show: false,
            closed: false,
            shown: String::new(),
        }
    }

    fn reconnect(&mut self, request_bytes_max: usize) {
        self.adapter = LineAdapter::new(server_info(request_bytes_max), CONN);
        self.node.disconnect();
        self.input.clear();
        self.kept.clear();
        (self.hold, self.closed) = (false, false);
    }

    fn send(&mut self, bytes: &[u8]) {
        assert!(!self.closed, "the connection is closed; say `new`");
        self.input.put_slice(bytes);
        loop {
            self.decode();
            let releases = !self.hold && !self.kept.is_empty();
            if !self.hold {
                self.answer(None);
            }
            if !releases || !self.adapter.stalled() {
                break;
            }
        }
        self.closed |= self.adapter.closing();
    }

    fn decode(&mut self) {
        let mut calls = Vec::new();
        while !self.closed {
            if self.adapter.decode(&mut self.input, &mut calls, &mut self.output).is_err() {
                self.closed = true;
            }
            let decoded = calls.len();
            for call in calls.drain(..) {
                if self.show {
                    match &call {
                        Call::Request { request, .. } => writeln!(self.shown, "ask {request:?}").unwrap(),
                        Call::Cancel { tag } => writeln!(self.shown, "cancel {tag}").unwrap(),
                        other => {
                            panic!("the line protocol has one lane, which is held by its owner: {other:?}")
                        }
                    }
                }
                self.kept.push(call);
            }
            if !self.adapter.stalled() || decoded == 0 {
                break;
            }
        }
    }

    fn release(&mut self, one: Option<usize>) {
        self.answer(one);
        if !self.closed {
            self.send(b"");
        }
    }

    fn answer(&mut self, one: Option<usize>) {
        let calls: Vec<Call> = match one {
            Some(at) => vec![self.kept.remove(at)],
            None => self.kept.drain(..).collect(),
        };
        for call in calls {
            let replies = self.node.answer(CONN, call);
            self.encode(replies);
        }
    }

    fn encode(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            self.adapter.encode(reply, &mut self.output);
        }
        self.closed |= self.adapter.closing();
    }

    fn step(&mut self, directives: &[&str]) -> String {
        for directive in directives {
            let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
            match word {
                "#" => {}
                ">" => {
                    let mut line = unescaped(rest);
                    line.extend_from_slice(b"\r\n");
                    self.send(&line);
                }
                "=" => self.send(&unescaped(rest)),
                "$" => self.send(&array(&words(rest))),
                "hold" => self.hold = true,
                "release" => self.release((!rest.is_empty()).then(|| rest.parse().unwrap())),
                "show" => self.show = true,
                "progress" => {
                    let replies = self.node.tell_progress(CONN);
                    self.encode(replies);
                }
                "compact" => {
                    let revision = rest.parse().unwrap();
                    let replies = self.node.end_watches(CONN, &Fault::compacted(revision), revision);
                    self.encode(replies);
                }
                "part" => {
                    self.adapter.give_up(&Fault::shutdown(), &mut self.output);
                    self.closed = true;
                }
                "new" => self.reconnect(Limits::default().request_bytes_max),
                "limit" => self.reconnect(rest.parse().unwrap()),
                _ => panic!("no such directive: {directive}"),
            }
        }
        let mut shown = std::mem::take(&mut self.shown);
        shown.push_str(&lines(&self.output.split()));
        if self.closed {
            let owed = self.adapter.owed();
            shown.push_str(&if owed == 0 { "(closed)\n".into() } else { format!("(closes, {owed} owed)\n") });
        }
        shown
    }
}

fn lines(output: &[u8]) -> String {
    let mut shown = String::new();
    let mut rest = output;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        let (line, behind) = match end {
            Some(end) => (&rest[..end], &rest[end + 2..]),
            None => (rest, &rest[rest.len()..]),
        };
        let text = match line {
            [] => "(empty)".to_string(),
            line => line.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\""),
        };
        writeln!(shown, "{text}{}", if end.is_none() { " (no line end)" } else { "" }).unwrap();
        rest = behind;
    }
    shown
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        match rest {
            [b'r', behind @ ..] => (bytes.push(b'\r'), rest = behind).1,
            [b'n', behind @ ..] => (bytes.push(b'\n'), rest = behind).1,
            [b'\\', behind @ ..] => (bytes.push(b'\\'), rest = behind).1,
            [b'x', high, low, behind @ ..] => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = behind;
            }
            _ => panic!("an escape in {text}"),
        }
    }
    bytes
}

/// Words parted by blanks; `''` is the empty one.
fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| if word == "''" { Vec::new() } else { unescaped(word) }).collect()
}

fn array(words: &[Vec<u8>]) -> Vec<u8> {
    fuzz_bodies::array(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "golden files are not the product's files")]
fn conversations() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/line");
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "there are golden files");
    let mut differing = Vec::new();
    for file in files {
        let before = String::from_utf8(std::fs::read(&file).unwrap()).unwrap();
        let after = replayed(&before);
        if before == after {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, after).unwrap();
            continue;
        }
        for (number, (before, after)) in before.lines().zip(after.lines()).enumerate() {
            if before != after {
                differing.push(format!(
                    "{}:{}\n  in file {before}\n  is now  {after}",
                    file.display(),
                    number + 1
                ));
                break;
            }
        }
        if differing.is_empty() {
            differing.push(format!("{}: one has more lines than the other", file.display()));
        }
    }
    assert!(differing.is_empty(), "UPDATE=1 rewrites:\n{}", differing.join("\n"));
}

fn replayed(text: &str) -> String {
    let mut conversation = Conversation::new();
    let mut after = String::new();
    for step in text.split("\n\n") {
        let directives: Vec<&str> = step.trim().lines().take_while(|line| *line != "----").collect();
        if directives.is_empty() {
            continue;
        }
        if !after.is_empty() {
            after.push('\n');
        }
        for directive in &directives {
            writeln!(after, "{directive}").unwrap();
        }
        if directives.iter().all(|directive| directive.starts_with('#')) {
            continue;
        }
        after.push_str("----\n");
        after.push_str(&conversation.step(&directives));
    }
    after
}

/// Sends all at once; what came back, and whether the connection ends.
fn talk(request_bytes_max: usize, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut conversation = Conversation::new();
    conversation.reconnect(request_bytes_max);
    for piece in pieces {
        if !conversation.closed {
            conversation.send(piece);
        }
    }
    assert_eq!(conversation.adapter.owed(), 0);
    (conversation.output.to_vec(), conversation.closed)
}

#[test]
fn malformed_frames_end_the_connection() {
    let long_line = vec![b'a'; (64 << 10) + 1];
    for (bytes, expected) in [
        // Lengths that are none, or are spelled in another way than ours.
        (&b"*2147483648\r\n"[..], "more than 65536 words"),
        (b"*9223372036854775808\r\n", "more than 65536 words"),
        (b"*99999999999999999999999999", "more than 65536 words"),
        (b"*65537\r\n", "more than 65536 words"),
        (b"*-1\r\n", "found byte 0x2d"),
        (b"*+5\r\n", "found byte 0x2b"),
        (b"*05\r\n", "found byte 0x35"),
        (b"*00\r\n", "found byte 0x30"),
        (b"* 1\r\n", "found byte 0x20"),
        (b"*\r\n", "found byte 0x0d"),
        (b"*1\n", "found byte 0x0a"),
        (b"*1\rx", "expected LF behind CR"),
        (b"*0x1\r\n", "found byte 0x78"),
        (b"*1\r\n$2147483648\r\n", "more than 67174400 bytes in a word"),
        (b"*1\r\n$9223372036854775808\r\n", "more than 67174400 bytes in a word"),
        (b"*1\r\n$18446744073709551616\r\n", "more than 67174400 bytes in a word"),
        (b"*1\r\n$67174401\r\n", "more than 67174400 bytes in a word"),
        (b"*1\r\n$67174400\r\n", "a request of more than 67174400 bytes"),
        (b"*1\r\n$-1\r\n", "found byte 0x2d"),
        (b"*1\r\n$+4\r\nPING\r\n", "found byte 0x2b"),
        (b"*1\r\n$04\r\nPING\r\n", "found byte 0x34"),
        (b"*1\r\n$\r\n", "found byte 0x0d"),
        // Requests hold bulk strings and nothing else, above all no arrays.
        (b"*1\r\n*1\r\n", "expected '$'"),
        (b"*1\r\n:1\r\n", "expected '$'"),
        (b"*1\r\n+PING\r\n", "expected '$'"),
        (b"*1\r\nPING\r\n", "expected '$'"),
        // Words that are longer or shorter than they say.
        (b"*1\r\n$3\r\nPING\r\n", "found byte 0x47"),
        (b"*1\r\n$4\r\nPING\n\n", "found byte 0x0a"),
        (b"*1\r\n$4\r\nPING\r\r", "found byte 0x0d"),
        // Lines that nobody types.
        (b"PING\rPING\r\n", "control byte 0x0d"),
        (b"a\0b\r\n", "control byte 0x00"),
        (b"\x16\x03\x01\x02\x00\x01\n", "control byte 0x16"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "this is HTTP"),
        (b"POST / HTTP/1.1\r\n", "this is HTTP"),
        (b"Host: localhost:2379\r\n", "this is HTTP"),
        (&long_line, "a line of more than 65536 bytes"),
    ] {
        let (output, closed) = talk(100, &[bytes]);
        let text = String::from_utf8(output).unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert!(closed && text.starts_with("-ERR protocol error: "), "{shown:?}: {text}");
        assert!(text.contains(expected) && text.ends_with("\r\n"), "{shown:?}: {text}");
        assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    }
}

#[test]
fn a_nested_request_of_any_depth_costs_nothing() {
    let bytes = b"*1\r\n".repeat(1_000_000);
    assert!(talk(100, &[&bytes]).1);
}

#[test]
fn a_request_above_the_limit_is_refused_and_the_connection_lives() {
    let limit = 1000;
    let put = |value_bytes: usize| array(&[b"PUT".to_vec(), b"k".to_vec(), vec![b'v'; value_bytes]]);
    let ping = array(&[b"PING".to_vec()]);
    let too_large = "-TOOLARGE etcdserver: request is too large\r\n+PONG\r\n";
    for (value_bytes, expected) in [
        (limit - 1, ":2\r\n+PONG\r\n"),
        (limit, too_large),
        // Where the overhead ends and bytes are thrown away as they come.
        ((64 << 10) + limit - 100, too_large),
        ((64 << 10) + limit, too_large),
        (1 << 20, too_large),
        (20 << 20, too_large),
    ] {
        let bytes = [put(value_bytes), ping.clone()].concat();
        let (output, closed) = talk(limit, &[&bytes]);
        assert_eq!((String::from_utf8(output).unwrap().as_str(), closed), (expected, false), "{value_bytes}");
    }
}

#[test]
fn what_is_too_large_is_not_held() {
    let mut conversation = Conversation::new();
    conversation.reconnect(1000);
    conversation.send(b"*3\r\n$3\r\nPUT\r\n$1\r\nk\r\n$33554432\r\n");
    for _ in 0..32 << 20 >> 16 {
        conversation.send(&[b'v'; 1 << 16]);
        assert!(conversation.input.is_empty(), "bytes that nobody will read are gone at once");
    }
    conversation.send(b"\r\n");
    assert_eq!(lines(&conversation.output), "-TOOLARGE etcdserver: request is too large\n");

    // Many words of which none is large.
    conversation.output.clear();
    conversation.send(b"*65536\r\n$6\r\nEXISTS\r\n");
    for _ in 1..65536 {
        conversation.send(b"$4\r\nabcd\r\n");
        assert!(conversation.input.len() < 1000 + (64 << 10));
    }
    assert_eq!(lines(&conversation.output), "-TOOLARGE etcdserver: request is too large\n");
}

/// What a client may send, with everything that changes the parser's course.
fn long_talk() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"PING\r\n\r\n  \nPUT a \"1 \\x00\\xff\"\n*0\r\n");
    for words in [
        &["PUT", "k", "v", "PREV"][..],
        &["GET", "k"],
        &["RANGE", "", "PREFIX", "LIMIT", "1"],
        &["EXISTS", "a", "b", "k"],
        &["HELLO", "3"],
        &["GET", "none"],
        &["STATUS"],
        &["NOSUCH"],
        &["PUT", "k", &"v".repeat(70_000)],
        &["HEADER", "ON"],
        &["DEL", "k", "PREV"],
        &["ECHO", "a\r\nb"],
        &["PUT", ""],
        &["WATCH", "k", "PREFIX", "PREV"],
        &["PUT", "k", "v"],
        &["WATCH", "k", "ID", "7"],
        &["PSUBSCRIBE", "k*", "[x]*", "k*"],
        &["PUT", "k", "w"],
        &["UNWATCH", "7"],
        &["PUNSUBSCRIBE"],
        &["DEL", "", "PREFIX"],
        &["HELLO", "2"],
        &["PUT", "k", "x"],
        &["WATCHPROGRESS"],
        &["RESET"],
        &["PUT", "k", "y"],
    ] {
        bytes.extend_from_slice(&array(
            &words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>(),
        ));
    }
    bytes.extend_from_slice(b"mem \"unbalanced\r\nMEMBER LIST\r\nQUIT\r\nPING\r\n");
    bytes
}

#[test]
fn it_does_not_matter_how_bytes_arrive() {
    let bytes = long_talk();
    let whole = talk(500, &[&bytes]);
    assert!(whole.1);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert!(talk(500, &single) == whole, "one byte at a time");
    for piece in [2, 3, 5, 7, 64, 1000, 4096] {
        assert!(talk(500, &bytes.chunks(piece).collect::<Vec<_>>()) == whole, "pieces of {piece}");
    }
    // Two pieces, cut everywhere but within the long value, where all places are alike.
    let value = 500..69_500;
    for cut in (0..bytes.len()).filter(|cut| !value.contains(cut)) {
        let (one, two) = bytes.split_at(cut);
        assert!(talk(500, &[one, two]) == whole, "cut at {cut}");
    }
}

#[test]
fn decoding_rests_while_too_much_is_owed() {
    let mut conversation = Conversation::new();
    conversation.hold = true;
    let get = array(&[b"GET".to_vec(), b"k".to_vec()]);
    conversation.send(&get.repeat(10_000));
    assert_eq!((conversation.adapter.owed(), conversation.adapter.stalled()), (8192, true));
    conversation.send(b"");
    assert_eq!(conversation.adapter.owed(), 8192, "still full");
    conversation.release(None);
    conversation.send(b"");
    assert_eq!((conversation.adapter.owed(), conversation.adapter.stalled()), (10_000 - 8192, false));
    conversation.release(None);
    assert_eq!(&conversation.output[..], b"$-1\r\n".repeat(10_000));
}

#[test]
fn decoding_rests_while_output_is_not_taken() {
    let mut conversation = Conversation::new();
    conversation.send(&b"COMMAND\r\n".repeat(10_000));
    assert!(conversation.adapter.stalled());
    let one_answer_bytes = 16 << 10;
    assert!(conversation.output.len() < (1 << 20) + one_answer_bytes, "{}", conversation.output.len());
    let left = conversation.input.len();
    conversation.output.clear();
    conversation.send(b"");
    assert!(conversation.input.len() < left, "goes on when the output is written");

    // Behind an owed reply, answers wait in the adapter: bounded too.
    conversation.reconnect(1 << 20);
    conversation.output.clear();
    conversation.hold = true;
    conversation.send(b"GET k\r\n");
    conversation.send(&b"COMMAND\r\n".repeat(10_000));
    assert!(conversation.adapter.stalled() && conversation.output.is_empty());
    conversation.answer(None);
    assert!(conversation.output.len() < (256 << 10) + one_answer_bytes, "{}", conversation.output.len());
    conversation.send(b"");
    assert!(!conversation.output.is_empty());
}

/// An answer of three kvs, whole and in parts.
fn answer_in_parts() -> (RangeResult, Vec<RangePart>) {
    let kvs: Vec<KeyValue> = ["a", "b", "c"]
        .into_iter()
        .map(|key| KeyValue { key: key.into(), value: "v".into(), version: 1, ..KeyValue::default() })
        .collect();
    let head = RangeHead { revision: 9, count: 7, more: true, kvs: 3 };
    let parts = vec![
        RangePart { head: Some(head), kvs: kvs[..1].to_vec(), last: false },
        RangePart { kvs: kvs[1..2].to_vec(), ..RangePart::default() },
        RangePart { kvs: kvs[2..].to_vec(), last: true, ..RangePart::default() },
    ];
    (RangeResult { revision: 9, count: 7, more: true, kvs }, parts)
}

fn reply(tag: u64, body: Body, more: bool) -> Reply {
    Reply { conn: CONN, tag, header: Header::default(), body, more }
}

#[test]
fn an_answer_in_parts_is_one_value() {
    let (whole, parts) = answer_in_parts();
    let mut expected = Conversation::new();
    let mut partly = Conversation::new();
    for conversation in [&mut expected, &mut partly] {
        conversation.hold = true;
        conversation.send(b"HELLO 3\r\nHEADER ON\r\nRANGE a FROM\r\nPING\r\n");
        conversation.output.clear();
    }
    expected.adapter.encode(reply(0, Body::Range(whole), false), &mut expected.output);
    for part in parts {
        assert_eq!(partly.adapter.owed(), 1);
        let more = !part.last;
        partly.adapter.encode(reply(0, Body::RangePart(part), more), &mut partly.output);
    }
    assert_eq!(partly.output, expected.output);
    assert_eq!(partly.adapter.owed(), 0);
}

#[test]
fn parts_wait_for_their_turn() {
    let (whole, parts) = answer_in_parts();
    let mut conversation = Conversation::new();
    conversation.hold = true;
    conversation.send(b"DBSIZE\r\nRANGE a FROM\r\nPING\r\n");
    let Conversation { adapter, output, .. } = &mut conversation;
    for part in &parts[..2] {
        adapter.encode(reply(1, Body::RangePart(part.clone()), true), output);
    }
    assert!(output.is_empty() && adapter.kept_bytes() > 0);
    let count = RangeResult { count: 7, ..RangeResult::default() };
    adapter.encode(reply(0, Body::Range(count.clone()), false), output);
    assert!(!output.ends_with(b"+PONG\r\n"));
    adapter.encode(reply(1, Body::RangePart(parts[2].clone()), false), output);

    let mut expected = Conversation::new();
    expected.hold = true;
    expected.send(b"DBSIZE\r\nRANGE a FROM\r\nPING\r\n");
    expected.adapter.encode(reply(0, Body::Range(count), false), &mut expected.output);
    expected.adapter.encode(reply(1, Body::Range(whole), false), &mut expected.output);
    assert_eq!(*output, expected.output);
    assert_eq!(adapter.kept_bytes(), 0);
}

#[test]
fn an_answer_that_breaks_off_ends_the_connection() {
    let (_, parts) = answer_in_parts();
    let mut conversation = Conversation::new();
    conversation.hold = true;
    conversation.send(b"RANGE a FROM\r\nDBSIZE\r\nPING\r\n");
    let Conversation { adapter, output, .. } = &mut conversation;
    adapter.encode(reply(0, Body::RangePart(parts[0].clone()), true), output);
    let sent = output.clone();
    adapter.encode(reply(0, Body::Fault(Fault::compacted(8)), false), output);
    assert!(adapter.closing() && adapter.owed() == 0);
    adapter.encode(reply(1, Body::Range(RangeResult::default()), false), output);
    assert_eq!(*output, sent, "nothing more is said");
}

/// Ends of watches come when they come; nothing else may be said in the middle of an answer.
#[test]
fn the_end_of_a_watch_waits_for_the_end_of_an_answer() {
    let (whole, parts) = answer_in_parts();
    let said = |reversed: bool| {
        let mut conversation = Conversation::new();
        conversation.send(b"HELLO 3\r\nWATCH w\r\n");
        conversation.hold = true;
        conversation.send(b"RANGE a FROM\r\n");
        let Conversation { adapter, output, .. } = &mut conversation;
        let ended = reply(0, Body::Unwatched { fault: Fault::corrupt(), compacted: 0 }, false);
        if reversed {
            adapter.encode(reply(1, Body::RangePart(parts[0].clone()), true), output);
            adapter.encode(ended, output);
            adapter.encode(reply(1, Body::RangePart(parts[1].clone()), true), output);
            adapter.encode(reply(1, Body::RangePart(parts[2].clone()), false), output);
        } else {
            adapter.encode(reply(1, Body::Range(whole.clone()), false), output);
            adapter.encode(ended, output);
        }
        output.clone()
    };
    assert_eq!(said(true), said(false));
}

#[test]
fn a_goodbye_in_the_middle_of_an_answer_says_nothing_of_watches() {
    let (_, parts) = answer_in_parts();
    let mut conversation = Conversation::new();
    conversation.send(b"HELLO 3\r\nWATCH w\r\n");
    conversation.hold = true;
    conversation.send(b"RANGE a FROM\r\n");
    let Conversation { adapter, output, .. } = &mut conversation;
    adapter.encode(reply(1, Body::RangePart(parts[0].clone()), true), output);
    let sent = output.clone();
    adapter.give_up(&Fault::shutdown(), output);
    assert_eq!(*output, sent, "the goodbye comes behind the answer");
}
