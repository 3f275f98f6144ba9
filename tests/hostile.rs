//! Hostile HTTP/2, in frames that are written by hand, against a real member: what it costs the member, and what it costs
//! another client. Decided is that the member lives, that its memory is bounded and that the other client is served; times
//! are told (`-- --nocapture`) and decide nothing. `HOSTILE=20` does twenty times as much of everything.
//!
//! One such run, in release build, on a machine of two processors with nothing else running (puts of the other client, one at a
//! time; resident memory):
//!
//! | attack | p50 quiet, during | p99 quiet, during, behind | memory before, at most, after |
//! |---|---|---|---|
//! | 84 MB of streams that are reset at once | 0.21 ms, 0.22 ms | 0.48 ms, 0.72 ms, 0.46 ms | 8, 31, 31 MiB |
//! | 1.3 GB of headers without an end | 0.25 ms, 0.27 ms | 0.62 ms, 0.81 ms, 0.59 ms | 31, 31, 31 MiB |
//! | 84 MB of SETTINGS | 0.22 ms, 0.24 ms | 0.51 ms, 0.57 ms, 0.53 ms | 31, 31, 31 MiB |
//! | 84 MB of PING | 0.21 ms, 0.26 ms | 0.44 ms, 0.72 ms, 0.51 ms | 31, 31, 31 MiB |
//! | 35 MB of empty DATA, 1,000 connections | 0.23 ms, 0.20 ms | 0.53 ms, 0.54 ms, 0.42 ms | 31, 31, 31 MiB |
//! | 10,000 connections that are made, and then are idle | 0.22 ms, 0.33 ms | 0.44 ms, 4.1 ms, 0.37 ms | 8, 116, 156 MiB |
//! | 10,000 watches of all keys that are not read | 0.22 ms, 0.43 ms | 0.50 ms, 1.2 ms, 0.42 ms | 156, 382, 383 MiB |
//! | 1,000 answers of 1 MiB, windows that never open | 0.20 ms, 0.21 ms | 0.38 ms, 0.46 ms, 0.54 ms | 11, 156, 157 MiB |
//! | 1,000 of these, windows of one byte | 0.21 ms, 0.22 ms | 0.39 ms, 0.58 ms, 0.49 ms | 157, 292, 292 MiB |
//!
//! The p99 of the connections being made is the fifth longest of 521 puts. Before a turn took four connections instead of sixteen, before
//! the table of descriptors had its size from the start, and while a turn told a millisecond of watches, the
//! same hour gave 1.0 and 14 ms for the connections, and 3.4 and 5.7 ms for the watches. Before further reads of a connection were
//! held (`grpc::Settings::kept_bytes_max`), windows that never open came to 1,016 MiB.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, EndAtDrop, PATIENCE, Setup, pause, say};
use crate::resp::{Client, Reply};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame of the longest kind that every server takes.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// Memory that one of these attacks may cost beside what a quiet member has; with `HOSTILE`, all that answers may take which
/// wait for their readers comes in addition.
const COST_BYTES_MAX: u64 = 256 << 20;
const ANSWERS_BYTES_MAX: u64 = 1 << 30;

fn scaled(count: usize) -> usize {
    count * std::env::var("HOSTILE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// The headers of a call, without Huffman codes and without the table (RFC 7541 §6.2.2).
fn headers(path: &str) -> Vec<u8> {
    let literal = |name: &[u8], value: &[u8]| {
        let length = u8::try_from(value.len()).unwrap();
        [name, &[length], value].concat()
    };
    [
        vec![0x83, 0x86],
        literal(&[0x04], path.as_bytes()),
        literal(&[0x01], b"hostile"),
        literal(&[0x0f, 0x10], b"application/grpc"),
        literal(b"\x00\x02te", b"trailers"),
    ]
    .concat()
}

fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A connection that says what it likes.
struct Enemy {
    socket: TcpStream,
    next_stream: u32,
}

impl Enemy {
    /// None: the member takes no more connections now.
    fn connect(port: u16, window_bytes: Option<u32>) -> Option<Enemy> {
        let socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut enemy = Enemy { socket, next_stream: 1 };
        let settings =
            window_bytes.map_or(frame(SETTINGS, 0, 0, &[]), |bytes| setting(INITIAL_WINDOW_SIZE, bytes));
        enemy.say(&[PREFACE, &settings].concat()).then_some(enemy)
    }

    /// False: the member has ended the connection, or does not read it.
    fn say(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Takes what has come, and looks at none of it. False: it was the end.
    fn skip(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        match self.socket.read(&mut buffer) {
            Ok(count) => count > 0,
            Err(why) => matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    fn stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    /// A call with its one message.
    fn call(&mut self, path: &str, request: &[u8], flags: u8) -> bool {
        let stream = self.stream();
        let begins = frame(HEADERS, END_HEADERS, stream, &headers(path));
        let asks = frame(DATA, flags, stream, &message(request));
        self.say(&[begins, asks].concat())
    }
}

/// Says `frames` again and again, so many bytes of it, on as many connections as it takes. `reads`: what is answered.
fn flood(port: u16, bytes: usize, reads: bool, mut frames: impl FnMut(&mut Enemy) -> Vec<u8>) {
    let mut said = 0;
    let mut connections = 0;
    while said < bytes && connections < 1_000 {
        connections += 1;
        let Some(mut enemy) = Enemy::connect(port, None) else { continue };
        while said < bytes {
            let chunk = frames(&mut enemy);
            said += chunk.len();
            if !enemy.say(&chunk) || (reads && !enemy.skip()) {
                break;
            }
        }
    }
    say(&format!("    {said} bytes on {connections} connections"));
}

fn memory_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Puts, one at a time, until told to stop: how long each took.
fn keep_putting(port: u16, over: &AtomicBool) -> Vec<Duration> {
    let mut client = Client::connect(port, PATIENCE).unwrap();
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let reply = client.call(&["PUT", "polite", "value"]).expect("the polite client is served");
        assert!(matches!(reply, Reply::Integer(_)), "{reply:?}");
        took.push(began.elapsed());
    }
    took
}

fn told(mut took: Vec<Duration>) -> String {
    if took.is_empty() {
        return "no puts".to_string(); // It was over before there was one.
    }
    took.sort();
    let at = |hundredths: usize| took[(took.len() - 1) * hundredths / 100];
    format!("{} puts, p50 {:?}, p99 {:?}, longest {:?}", took.len(), at(50), at(99), at(100))
}

/// Enemies have machines of their own: here they take a processor only where nobody else wants it (`SCHED_IDLE`, of this thread
/// alone).
fn as_from_afar<T>(act: impl FnOnce() -> T) -> T {
    let thread = std::fs::read_link("/proc/thread-self").expect("Linux tells");
    let told = Command::new("chrt")
        .args(["--idle", "--pid", "0"])
        .arg(thread.file_name().expect("PID/task/TID"))
        .output();
    if !told.is_ok_and(|output| output.status.success()) {
        say("    the attack is as urgent as those whom it delays: there is no chrt, or it is refused");
    }
    act()
}

/// What the attack costs while it goes on, and what is left of it: its sockets, which are closed only at the end.
fn attack<T: Send>(cluster: &Cluster, what: &str, attack: impl FnOnce(u16) -> T + Send) {
    let member = &cluster.members[0];
    let (port, pid) = (member.client_port, member.pid());
    let putting = |for_as_long: &mut dyn FnMut()| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let puts = scope.spawn(|| keep_putting(port, &over));
            let peak = scope.spawn(|| {
                let mut peak = 0;
                while !over.load(Ordering::Relaxed) {
                    peak = memory_bytes(pid).max(peak);
                    pause(5);
                }
                peak
            });
            let guard = EndAtDrop(&over);
            for_as_long();
            drop(guard);
            (puts.join().unwrap(), peak.join().unwrap())
        })
    };
    let a_while = 500 + 75 * scaled(1) as u64;
    let (quiet, before) = putting(&mut || pause(a_while));
    let (mut attack, mut left) = (Some(attack), None);
    let (during, peak) = putting(&mut || {
        let enemy = attack.take().expect("once");
        let done = std::thread::scope(|scope| scope.spawn(|| as_from_afar(|| enemy(port))).join());
        left = Some(done.expect("the attack itself works"));
    });
    let (behind, _) = putting(&mut || pause(a_while));
    drop(left);
    pause(500);
    let after = memory_bytes(pid);
    let mib = |bytes: u64| bytes >> 20;
    say(&format!("{what}: quiet {}; during {}; behind {}", told(quiet), told(during), told(behind)));
    say(&format!("    {} MiB before, {} MiB at most, {} MiB after", mib(before), mib(peak), mib(after)));
    let cost_max = COST_BYTES_MAX + if scaled(1) > 1 { ANSWERS_BYTES_MAX } else { 0 };
    assert!(peak < before + cost_max, "{what}: {peak} bytes, and {before} before");
}

#[test]
fn hostile_http2_costs_others_little() {
    let cluster = Cluster::start(&Setup::single());
    let put = "/etcdserverpb.KV/Put";
    attack(&cluster, "streams reset at once", |port| {
        let call = headers(put);
        flood(port, scaled(4 << 20), true, |enemy| {
            let mut frames = Vec::new();
            for _ in 0..100 {
                let stream = enemy.stream();
                frames.extend(frame(HEADERS, END_HEADERS, stream, &call));
                frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            }
            frames
        });
    });
    attack(&cluster, "headers without an end", |port| {
        // A header that is new to the decoder, over and over.
        let block = [b"\x00\x01x".as_slice(), &[100], &[b'x'; 100]].concat().repeat(100);
        flood(port, scaled(64 << 20), true, |enemy| {
            let stream = enemy.stream();
            let mut frames = frame(HEADERS, 0, stream, &headers(put));
            for _ in 0..100 {
                frames.extend(frame(CONTINUATION, 0, stream, &block[..block.len().min(FRAME_BYTES_MAX)]));
            }
            frames
        });
    });
    let several = |one: Vec<u8>| one.repeat(1_000);
    attack(&cluster, "settings", |port| {
        flood(port, scaled(4 << 20), false, |_| several(setting(INITIAL_WINDOW_SIZE, 100)));
    });
    attack(&cluster, "pings", |port| {
        flood(port, scaled(4 << 20), false, |_| several(frame(PING, 0, 0, &[7; 8])));
    });
    attack(&cluster, "data without data", |port| {
        flood(port, scaled(4 << 20), true, |enemy| {
            if enemy.next_stream == 1 {
                let stream = enemy.stream();
                return frame(HEADERS, END_HEADERS, stream, &headers(put));
            }
            several(frame(DATA, 0, 1, &[]))
        });
    });
}

/// A put of key `k` and a long value, and a range of it, as messages.
fn long_value(client: &mut Client, bytes: usize) {
    let value = "v".repeat(bytes);
    let reply = client.call(&["PUT", "k", &value]).unwrap();
    assert!(matches!(reply, Reply::Integer(_)), "{reply:?}");
}

const RANGE_OF_K: &[u8] = b"\x0a\x01k";

/// A watch of every key.
const WATCH_ALL: &[u8] = b"\x0a\x06\x0a\x01\0\x12\x01\0";

#[test]
fn windows_that_hardly_open_cost_little() {
    let cluster = Cluster::start(&Setup::single());
    long_value(&mut cluster.members[0].client(), 1 << 20);
    for (what, window_bytes) in [("windows that never open", 0), ("windows of one byte", 1)] {
        attack(&cluster, what, |port| {
            let mut enemy = Enemy::connect(port, Some(window_bytes)).expect("a connection");
            for _ in 0..scaled(50) {
                enemy.call("/etcdserverpb.KV/Range", RANGE_OF_K, END_STREAM);
            }
            for _ in 0..scaled(100) {
                if window_bytes > 0 {
                    let opened =
                        (0..50).map(|call| frame(WINDOW_UPDATE, 0, 1 + 2 * call, &1_u32.to_be_bytes()));
                    enemy.say(&opened.collect::<Vec<_>>().concat());
                }
                enemy.skip();
            }
        });
    }
}

#[test]
fn idle_connections_and_streams_that_are_not_read_cost_little() {
    let cluster = Cluster::start(&Setup::single());
    attack(&cluster, "connections that are made, and then are idle", |port| {
        let all: Vec<Enemy> = (0..scaled(500)).filter_map(|_| Enemy::connect(port, None)).collect();
        say(&format!("    {} connections", all.len()));
        all
    });
    attack(&cluster, "streams that are not read", |port| {
        let mut all = Vec::new();
        for _ in 0..10 {
            let Some(mut enemy) = Enemy::connect(port, Some(0)) else { continue };
            for _ in 0..scaled(50) {
                enemy.call("/etcdserverpb.Watch/Watch", WATCH_ALL, 0);
            }
            all.push(enemy);
        }
        pause(1_000);
        say(&format!("    {} connections", all.len()));
    });
}
