//! Hostile and broken input against a real server: from clients, from peers, from the disk. Each ends in the
//! stated error, everybody else is served on, and nothing is lost.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use pawl::api::{Command as Change, Origin, PeerCall, Put, command};
use pawl::base::ids::{cluster_id, member_id};
use pawl::base::{MemberId, Rng};
use pawl::proto::peer::{self, Frame, Hello};

use crate::harness::{self, Cluster, EndAtDrop, Member, PATIENCE, Setup, pause, run, say, shown, until};
use crate::resp::{Client, RangeReply, Reply, unsigned};

/// Resident memory of a process in bytes.
fn resident_bytes(member: &Member) -> u64 {
    status_bytes(member, "VmRSS:")
}

/// A line of `/proc/PID/status`, in bytes.
fn status_bytes(member: &Member, name: &str) -> u64 {
    status_number(member, name) * 1_024
}

fn status_number(member: &Member, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", member.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).expect("Linux reports it");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

fn assert_serves(member: &Member) {
    let mut client = member.client();
    let put = client.call(&["PUT", "alive", "yes"]).unwrap();
    assert!(matches!(put, Reply::Integer(_)), "{put:?}\n{}", member.log_tail(20));
    assert_eq!(client.call(&["GET", "alive"]).unwrap().bulk(), b"yes");
}

#[test]
fn malformed_requests_get_one_error_and_the_door() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let mut good = member.client();
    assert!(!good.call(&["PUT", "before", "1"]).unwrap().is_error());
    let nested = "*1\r\n".repeat(20_000);
    let endless = "x".repeat(300 << 10);
    let cases: [(&str, &str); 14] = [
        ("a bulk of 2 GiB", "*2\r\n$3\r\nGET\r\n$2147483648\r\n"),
        ("a bulk of 2^63", "*2\r\n$3\r\nGET\r\n$9223372036854775808\r\n"),
        ("a bulk of 10^30", "*1\r\n$1000000000000000000000000000000\r\n"),
        ("a negative bulk", "*1\r\n$-5\r\n"),
        ("a signed length", "*1\r\n$+3\r\nGET\r\n"),
        ("a length of letters", "*1\r\n$abc\r\n"),
        ("an array of a billion", "*1000000000\r\n"),
        ("an array of 2^64", "*18446744073709551616\r\n"),
        ("an array of letters", "*x\r\n"),
        ("arrays in arrays", &nested),
        ("a bulk without its end", "*2\r\n$3\r\nGETxx$1\r\na\r\n"),
        ("an integer where a word belongs", "*1\r\n:1\r\n"),
        ("an endless line", &endless),
        (
            "an endless length",
            "*1\r\n$11111111111111111111111111111111111111111111111111111111111111111111111111111111",
        ),
    ];
    for (what, bytes) in cases {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, member.client_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may refuse before it has read all of it.
        let _ = stream.write_all(bytes.as_bytes());
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("-ERR ") && answer.ends_with("\r\n") && answer.matches("\r\n").count() == 1,
            "{what}: expected one line of error, got {answer:?} ({end:?})"
        );
        assert!(!good.call(&["PUT", "during", what]).unwrap().is_error(), "{what}: another client suffers");
    }
    assert_eq!(good.call(&["GET", "before"]).unwrap().bulk(), b"1");
    assert_serves(member);
}

/// A wrong command is the client's mistake, not a broken connection.
#[test]
fn wrong_commands_leave_the_connection_open() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    let too_large = "v".repeat(1_600_000);
    let cases: [(&[&str], &str); 12] = [
        (&["FROBNICATE", "a"], "ERR"),
        (&["PUT"], "ERR"),
        (&["PUT", "a"], "ERR"),
        (&["PUT", "a", "b", "c"], "ERR"),
        (&["PUT", "", "b"], "ERR"),
        (&["GET", "a", "REV", "x"], "ERR"),
        (&["GET", "a", "REV", "-1"], "ERR"),
        (&["GET", "a", "REV", "99999999999999999999"], "ERR"),
        (&["GET", "a", "REV", "1000000"], "FUTURE"),
        (&["DEL", "a", "b"], "ERR"),
        (&["MULTI"], "ERR"),
        (&["PUT", "a", "1", "LEASE", "77"], "NOLEASE"),
    ];
    for (words, code) in cases {
        let reply = client.call(words).unwrap();
        assert_eq!(reply.code(), Some(code), "{words:?}: {reply:?}");
    }
    assert!(!client.call(&["PUT", "a", "1"]).unwrap().is_error());
    // Too large may close the connection (the rest of it is not read), but says why first.
    let reply = client.call(&["PUT", "a", &too_large]).unwrap();
    assert!(matches!(reply.code(), Some("TOOLARGE" | "ERR")), "{reply:?}");
    let mut client = cluster.members[0].client();
    assert_eq!(client.call(&["GET", "a"]).unwrap().bulk(), b"1");
}

/// The same requests in one piece, byte by byte, and cut at random places have the same answers.
#[test]
fn requests_may_arrive_in_any_pieces() {
    let cluster = Cluster::start(&Setup::single());
    let port = cluster.members[0].client_port;
    let mut script = Vec::new();
    for n in 0..40 {
        script.extend(crate::resp::encode(&["SET", &format!("k{}", n % 7), &"v".repeat(n * 3)]));
        script.extend(crate::resp::encode(&["GET", &format!("k{}", n % 5)]));
        script.extend(b"PING\r\nEXISTS k1 k2 nothing\r\n");
    }
    script.extend(b"QUIT\r\n");
    let converse = |pieces: &[&[u8]]| {
        let mut client = Client::connect(port, PATIENCE).unwrap();
        client.call(&["DEL", "", "PREFIX"]).unwrap();
        for piece in pieces {
            client.send_raw(piece).unwrap();
            if pieces.len() < 200 {
                pause(1);
            }
        }
        client.read_to_end().unwrap()
    };
    let whole = converse(&[&script]);
    assert!(whole.ends_with(b"+OK\r\n"), "QUIT is answered last");
    let bytes: Vec<&[u8]> = script.chunks(1).collect();
    assert_eq!(converse(&bytes), whole, "byte by byte");
    let mut rng = Rng::new(7);
    for _ in 0..3 {
        let (mut pieces, mut rest) = (Vec::new(), &script[..]);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(1 + rng.below(180) as usize));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(converse(&pieces), whole, "in {} pieces", pieces.len());
    }
}

/// Clients that promise much and send little hold little.
#[test]
fn half_requests_cost_no_memory() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    assert_serves(member);
    let before = resident_bytes(member);
    let held: Vec<TcpStream> = (0..400)
        .map(|n| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, member.client_port)).unwrap();
            let half: &[u8] = match n % 4 {
                0 => b"*3\r\n$3\r\nPUT\r\n$1\r\na\r\n$1500000\r\nabc",
                1 => b"*60000\r\n$3\r\nEXI",
                2 => b"PUT a ",
                _ => b"*",
            };
            stream.write_all(half).unwrap();
            stream
        })
        .collect();
    assert_serves(member);
    pause(200);
    let grown = resident_bytes(member).saturating_sub(before);
    assert!(grown < 16 << 20, "400 half requests hold {} KiB", grown >> 10);
    assert_serves(member);
    drop(held);
    assert_serves(member);
}

/// Ten thousand connections that say nothing, then one byte each.
fn raw(member: &Member) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, member.client_port)).unwrap()
}

/// Small requests with large answers, which nobody takes.
#[test]
fn who_takes_no_answers_fills_no_memory() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    for n in 0..20 {
        member.client().call(&["PUT", &format!("big{n}"), &"v".repeat(1_000_000)]).unwrap();
    }
    let before = resident_bytes(member);
    let mut streams: Vec<TcpStream> = (0..2).map(|_| raw(member)).collect();
    streams[0].write_all(&b"RANGE big PREFIX\r\n".repeat(400)).unwrap();
    // The write comes behind reads that are not answered yet.
    streams[1].write_all(&b"GET big1\r\nGET big2 SERIALIZABLE\r\n".repeat(1_000)).unwrap();
    streams[1].write_all(b"PUT big1 small\r\n").unwrap();
    let mut most = 0;
    for _ in 0..20 {
        assert_serves(member);
        pause(20);
        most = most.max(resident_bytes(member).saturating_sub(before));
    }
    say(&format!("answers that nobody takes: {} MiB", most >> 20));
    assert!(most < 200 << 20, "{most} bytes for answers that nobody takes");
    // The reader that wakes up gets all of it.
    streams[1].set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut bytes, mut piece) = (0, vec![0; 1 << 20]);
    while bytes < 2_000 * 1_000_000 {
        bytes += streams[1].read(&mut piece).unwrap();
    }
    drop(streams);
    assert_serves(member);
}

/// A range as large as the store, to a client that takes its time: it is of one revision, others are served, and the
/// member's memory does not grow by the answer.
#[test]
fn a_large_range_is_sent_as_it_is_taken() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let (keys, value) = (30_000, "v".repeat(1_000));
    let put = |n: usize| vec!["PUT".to_string(), format!("k{n:05}"), value.clone()];
    for from in (0..keys).step_by(1_000) {
        let puts: Vec<Vec<String>> = (from..from + 1_000).map(put).collect();
        member.client().pipeline(&puts).unwrap();
    }
    let revision =
        unsigned(member.client().call(&["RANGE", "k", "PREFIX", "COUNT"]).unwrap().field("revision"));
    // Pages of the file that were read are the kernel's to take back.
    let memory = || status_bytes(member, "RssAnon:");
    let before = memory();
    let mut slow = member.client();
    slow.send_raw(b"RANGE k PREFIX\r\nGET k00000\r\n").unwrap();
    let mut other = member.client();
    let mut most = 0;
    for n in 0..keys / 100 {
        other.call(&["PUT", &format!("k{:05}", n * 100), "changed"]).unwrap();
        other.call(&["DEL", &format!("k{:05}", n * 100 + 1)]).unwrap();
        most = most.max(memory().saturating_sub(before));
    }
    say(&format!("a range of {} MB that nobody takes: {} MiB", keys / 1_000, most >> 20));
    // The writes' own pages, and the socket's and our share of the answer.
    assert!(most < 16 << 20, "{most} bytes");
    let range = RangeReply::parse(&slow.receive().unwrap());
    assert_eq!((range.revision, range.count, range.kvs.len()), (revision, keys as u64, keys));
    assert!(range.kvs.iter().all(|kv| kv.value == value.as_bytes()), "no later write is seen");
    let behind = slow.receive().unwrap();
    assert!([value.as_bytes(), b"changed"].contains(&behind.bulk()), "{behind:?}");
}

/// A thousand requests, each within its bound and none of them complete.
#[test]
fn unfinished_requests_have_a_bound_together() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let before = resident_bytes(member);
    let mut streams = Vec::new();
    for _ in 0..500 {
        let mut stream = raw(member);
        let _ = stream.write_all(b"*3\r\n$3\r\nPUT\r\n$1\r\nk\r\n$1500000\r\n");
        let _ = stream.write_all(&vec![b'v'; 1_400_000]);
        streams.push(stream);
    }
    assert_serves(member);
    let held = resident_bytes(member).saturating_sub(before);
    say(&format!("500 unfinished requests of 1.4 MB: {} MiB", held >> 20));
    assert!(held < 450 << 20, "{held} bytes for requests that are not complete");
    let refused = streams.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).ok().filter(|()| answer == *b"-BUSY")
    });
    assert!(refused.count() > 200);
}

fn open_files(member: &Member) -> usize {
    fs::read_dir(format!("/proc/{}/fd", member.pid())).unwrap().count()
}

#[test]
fn silent_connections_are_cheap() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    // Other tests of this process need descriptors too.
    let wanted = limit.maximum.map_or(10_000, |most| most.saturating_sub(1_000).min(10_000)) as usize;
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    assert_serves(member);
    // While the kernel's table of descriptors grows nobody is served.
    let slots = status_number(member, "FDSize:");
    assert!(slots >= wanted as u64, "{wanted} connections, and room for {slots} descriptors");
    let (before, open) = (resident_bytes(member), open_files(member));
    let mut held = Vec::new();
    while held.len() < wanted {
        match TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, member.client_port).into(), PATIENCE) {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
    }
    assert_serves(member);
    let silent = resident_bytes(member).saturating_sub(before);
    for stream in &mut held {
        let _ = stream.write_all(b"P");
    }
    assert_serves(member);
    pause(300);
    let spoken = resident_bytes(member).saturating_sub(before);
    say(&format!(
        "connections: {} silent ones hold {} KiB, with one byte each {} KiB",
        held.len(),
        silent >> 10,
        spoken >> 10
    ));
    assert!(held.len() >= wanted.min(1_000), "only {} connections were accepted", held.len());
    let bound = (held.len() as u64 * (8 << 10)).max(16 << 20);
    assert!(silent.max(spoken) < bound, "more than 8 KiB per connection");
    // They are not half dead: each can still ask.
    for stream in held.iter_mut().step_by(997) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"ING\r\n").unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
    drop(held);
    assert_serves(member);
    // Many that end at once are closed little by little, and all of them; files of the log come and go meanwhile.
    until("the connections to be closed", PATIENCE, || (open_files(member) <= open + 10).then_some(()));
}

/// Other protocols on the client port are told so and closed.
#[test]
fn other_protocols_are_refused() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let cases: [&[u8]; 3] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        // A preface behind which no frame of HTTP/2 comes.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nPUT key value\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ];
    for bytes in cases {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, member.client_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            !answer.is_empty() && answer.len() < 1_000,
            "{bytes:?}: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_serves(member);
}

/// What arrives on the port for members: noise, strangers, impostors.
#[test]
fn peers_that_speak_wrongly_change_nothing() {
    let mut cluster = Cluster::start(&Setup::default());
    let id = |member: &Member| member_id(&[format!("http://127.0.0.1:{}", member.peer_port)], "t");
    let ids: Vec<MemberId> = cluster.members.iter().map(id).collect();
    let ours = cluster_id(&ids);
    let leader = cluster.leader();
    let (me, friend) = (ids[leader], ids[(leader + 1) % 3]);
    let hello = |cluster, from, to| {
        let mut out = BytesMut::new();
        peer::encode(&Frame::Hello(Hello::new(cluster, from, to, 0)), &mut out);
        out.to_vec()
    };
    let mut newer = hello(ours, friend, me);
    newer[peer::HEAD_BYTES] = 9; // The version, and with it the checksum, is wrong.
    let mut bad_crc = hello(ours, friend, me);
    let last = bad_crc.len() - 1;
    bad_crc[last] ^= 1;
    let mut garbage = vec![0; 5_000];
    Rng::new(3).fill(&mut garbage);
    let mut impostor = hello(ours, friend, me);
    impostor.extend_from_slice(&garbage);
    let mut huge = hello(ours, friend, me);
    huge.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 4, 0, 0, 0, 1, 2, 3, 4]);
    let mut twice = hello(ours, friend, me);
    twice.extend(hello(ours, friend, me));
    let cases = [
        ("noise", garbage, None),
        ("a frame of 4 GiB", vec![0xff; 12], None),
        ("another cluster", hello(ours + 1, friend, me), Some("cluster")),
        ("another addressee", hello(ours, friend, friend), Some("you look for")),
        ("a stranger", hello(ours, 77, me), Some("is not a member")),
        ("a wrong version", newer, None),
        ("a wrong checksum", bad_crc, None),
        ("a member that goes mad", impostor, None),
        ("a member that promises 4 GiB", huge, None),
        ("a member that greets twice", twice, None),
    ];
    let port = cluster.members[leader].peer_port;
    for (what, bytes, why) in cases {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        // Closed with unread bytes, a connection may end in a reset.
        let _ = stream.read_to_end(&mut answer);
        if let Some(why) = why {
            match peer::decode(&mut BytesMut::from(&answer[..])) {
                Ok(Some(Frame::Refused { why: said })) => assert!(said.contains(why), "{what}: {said:?}"),
                other => panic!("{what}: expected a refusal, got {other:?}"),
            }
        }
        assert_serves(&cluster.members[leader]);
    }
    let log = cluster.members[leader].log();
    assert!(log.contains("refusing the peer connection"), "{}", cluster.members[leader].log_tail(30));
    cluster.settle();
    assert_eq!(cluster.leader(), leader, "nobody lost its office");
    cluster.stop_all();
    cluster.check_stopped();
}

/// A member that comes back numbers its calls anew, perhaps before the end of its former connection was noticed.
#[test]
fn a_new_greeting_begins_a_new_count() {
    let mut cluster = Cluster::start(&Setup::default());
    let id = |member: &Member| member_id(&[format!("http://127.0.0.1:{}", member.peer_port)], "t");
    let ids: Vec<MemberId> = cluster.members.iter().map(id).collect();
    let ours = cluster_id(&ids);
    let leader = cluster.leader();
    let (me, friend) = (ids[leader], ids[(leader + 1) % 3]);
    cluster.members[(leader + 1) % 3].kill();
    let term = unsigned(cluster.members[leader].status().unwrap().field("term"));
    let greet_and_put = |number: u64, key: &'static str| {
        let mut out = BytesMut::new();
        peer::encode(&Frame::Hello(Hello::new(ours, friend, me, 0)), &mut out);
        let mut payload = BytesMut::new();
        let put = Put {
            key: key.into(),
            value: "v".into(),
            lease: 0,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        let origin = Origin { member: friend, request_id: number };
        command::encode(origin, &Change::Put(put), &mut payload);
        let payloads = vec![payload.freeze()];
        peer::encode(&Frame::Call(PeerCall::Propose { term, number, payloads }), &mut out);
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.members[leader].peer_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&out).unwrap();
        let mut client = cluster.members[leader].client();
        until(&format!("the put of {key}"), PATIENCE, || {
            matches!(client.call(&["GET", key]).unwrap(), Reply::Bulk(_)).then_some(())
        });
        stream
    };
    let mut former = greet_and_put(7, "former");
    let _present = greet_and_put(1, "present");
    let mut rest = Vec::new();
    former.read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty(), "it was welcomed, and then closed in favour of the new one");
}

/// Somebody who asks again and again who the members are, and reads no answer.
#[test]
fn who_asks_for_the_members_without_end_is_shown_the_door() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let dial = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, member.peer_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut question = BytesMut::new();
    peer::encode(&Frame::AskMembers, &mut question);
    let before = resident_bytes(member);
    let flood = question.repeat(20_000);
    let mut greedy = dial();
    let refused = (0..100).find_map(|_| greedy.write_all(&flood).err());
    let refused = refused.expect("28 MB of questions were taken");
    assert!(matches!(refused.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
    let grown = resident_bytes(member).saturating_sub(before);
    assert!(grown < 16 << 20, "the answers hold {} KiB", grown >> 10);
    assert_serves(member);

    // Who asks once is answered, and loses the connection if nothing else comes.
    let mut polite = dial();
    polite.write_all(&question).unwrap();
    let mut answer = Vec::new();
    polite.read_to_end(&mut answer).unwrap();
    let mut answer = BytesMut::from(&answer[..]);
    match peer::decode(&mut answer) {
        Ok(Some(Frame::Members { members, .. })) => assert_eq!(members.len(), 1),
        other => panic!("expected the members, got {other:?}"),
    }
    assert!(answer.is_empty());
}

/// Keeps so many connections open that say nothing, until told to stop.
fn keep_silent_connections(port: u16, count: usize, over: &AtomicBool) {
    let mut held: Vec<TcpStream> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        held.retain_mut(|stream| {
            matches!(stream.read(&mut [0; 100]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
        while held.len() < count && !over.load(Ordering::Relaxed) {
            let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { break };
            stream.set_nonblocking(true).unwrap();
            held.push(stream);
        }
        pause(50);
    }
}

#[test]
fn silent_strangers_do_not_keep_members_out() {
    let mut cluster = Cluster::start(&Setup::default());
    let follower = (cluster.leader() + 1) % 3;
    cluster.members[follower].kill();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _guard = EndAtDrop(&over);
        for at in (0..3).filter(|&at| at != follower) {
            let (over, port) = (&over, cluster.members[at].peer_port);
            scope.spawn(move || keep_silent_connections(port, 160, over));
        }
        // More than are let in have come and gone.
        pause(500);
        cluster.members[follower].start();
        cluster.settle();
    });
    cluster.stop_all();
    cluster.check_stopped();
}

// ---- starts that must not be ------------------------------------------------------------------------------

/// Starts the member, which must end by itself with code 1 and a line that has all these words.
pub fn assert_refuses(member: &mut Member, what: &str, words: &[&str]) {
    let before = member.log().len();
    member.start();
    let status = member.wait_exit(PATIENCE);
    let log = member.log()[before..].to_owned();
    assert_eq!(status.code(), Some(1), "{what}: {status}\n{log}");
    let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "{what}: expected a line with {words:?}, got\n{log}");
    assert!(!log.contains("panicked"), "{what}:\n{log}");
}

/// A lone member with some data in it, stopped: three hundred keys, several segments.
fn stopped_member() -> (Cluster, RangeReply) {
    let setup = Setup { segment_bytes: 256 << 10, ..Setup::single() };
    let mut cluster = Cluster::start(&setup);
    let mut client = cluster.members[0].client();
    for round in 0..5 {
        let command = |n: u64| vec!["PUT".into(), format!("key-{n}"), format!("{round}-{}", "x".repeat(700))];
        let commands: Vec<Vec<String>> = (0..300).map(command).collect();
        for reply in client.pipeline(&commands).unwrap() {
            assert!(!reply.is_error(), "{reply:?}");
        }
    }
    let content = everything(&cluster.members[0]);
    cluster.stop_all();
    let segments = cluster.members[0].segments();
    assert!(segments.len() >= 4, "several segments: {segments:?}");
    (cluster, content)
}

pub fn everything(member: &Member) -> RangeReply {
    let mut client = member.client();
    until("a linearizable read", PATIENCE, || {
        let reply = client.call(&["RANGE", "", "PREFIX"]).unwrap();
        (!reply.is_error()).then(|| RangeReply::parse(&reply))
    })
}

fn assert_starts_with(member: &mut Member, what: &str, content: &RangeReply) {
    member.start();
    let found = everything(member);
    assert_eq!((found.revision, found.count), (content.revision, content.count), "{what}");
    assert!(found == *content, "{what}: the content differs");
    assert_serves(member);
    member.stop();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn flip_bit(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// The offline check of a data directory: whether it passed, and what it said.
pub fn verify(member: &Member) -> (bool, String) {
    let output =
        run(harness::PAWLD, &["util", "verify", &format!("--data-dir={}", member.data_dir.display())]);
    (output.status.success(), shown(&output))
}

/// Damage of every kind to the files of a stopped member. Afterwards the untouched copy still starts.
#[test]
fn damaged_files_are_refused_by_name() {
    let (mut cluster, content) = stopped_member();
    let safe = cluster.path().join("safe");
    let member = &mut cluster.members[0];
    copy_dir(&member.data_dir, &safe);
    let names: Vec<String> = member
        .segments()
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().into())
        .collect();
    let segment = |at: usize| format!("member/wal/{}", names[at]);
    let last = names.len() - 1;
    type Damage = Box<dyn Fn(&Path)>;
    let flip = |name: String, at: u64| -> Damage { Box::new(move |dir| flip_bit(&dir.join(&name), at)) };
    let cut = |name: String, len: u64| -> Damage { Box::new(move |dir| truncate(&dir.join(&name), len)) };
    let drop_file =
        |name: String| -> Damage { Box::new(move |dir| fs::remove_file(dir.join(&name)).unwrap()) };
    let tree = || "member/tree".to_owned();
    let cases: Vec<(&str, Damage, Vec<&str>)> = vec![
        ("a segment cut in half", cut(segment(1), 100_000), vec![&names[1]]),
        ("a segment cut to nothing", cut(segment(1), 0), vec![&names[1]]),
        ("a flipped bit in the first segment", flip(segment(0), 50_000), vec![&names[0]]),
        ("a flipped bit in a segment's header", flip(segment(1), 30), vec![&names[1]]),
        ("a flipped bit in the last segment", flip(segment(last), 700), vec![&names[last]]),
        (
            "both meta slots damaged",
            Box::new(|dir| {
                flip_bit(&dir.join("member/tree"), 20);
                flip_bit(&dir.join("member/tree"), 4096 + 20);
            }),
            vec!["member/tree"],
        ),
        ("a tree cut to nothing", cut(tree(), 0), vec!["member/tree"]),
        ("a tree cut short", cut(tree(), 12_288), vec!["member/tree"]),
        ("a missing tree", drop_file(tree()), vec!["tree"]),
        (
            "a missing log",
            Box::new(|dir| {
                fs::remove_dir_all(dir.join("member/wal")).unwrap();
                fs::create_dir(dir.join("member/wal")).unwrap();
            }),
            vec!["log"],
        ),
    ];
    for (what, damage, words) in cases {
        fs::remove_dir_all(&member.data_dir).unwrap();
        copy_dir(&safe, &member.data_dir);
        damage(&member.data_dir);
        let (clean, said) = verify(member);
        assert!(!clean, "{what}: verify found nothing:\n{said}");
        assert_refuses(member, what, &words);
    }
    fs::remove_dir_all(&member.data_dir).unwrap();
    copy_dir(&safe, &member.data_dir);
    assert_starts_with(member, "the untouched copy", &content);
    let (clean, said) = verify(member);
    assert!(clean, "{said}");
}

/// Damage that a member can mend from what it has.
#[test]
fn one_damaged_meta_slot_is_survived() {
    let (mut cluster, content) = stopped_member();
    let safe = cluster.path().join("safe");
    let member = &mut cluster.members[0];
    copy_dir(&member.data_dir, &safe);
    for slot in [0, 4096] {
        for at in [0, 9, 40, 511] {
            fs::remove_dir_all(&member.data_dir).unwrap();
            copy_dir(&safe, &member.data_dir);
            flip_bit(&member.tree(), slot + at);
            assert_starts_with(member, &format!("byte {at} of the slot at {slot}"), &content);
        }
    }
}

/// A power cut's view: killed, not stopped, and the newest meta slot damaged. The older one and the log
/// lead to the same state.
#[test]
fn the_older_meta_slot_finds_its_log() {
    let setup = Setup { segment_bytes: 256 << 10, ..Setup::single() }
        .flag("snapshot-count", 200)
        .flag("snapshot-catchup-entries", 10);
    let mut cluster = Cluster::start(&setup);
    let mut client = cluster.members[0].client();
    for n in 0..2_000 {
        let command = ["PUT".to_owned(), format!("key-{}", n % 300), "y".repeat(500)];
        assert!(!client.call(&command).unwrap().is_error());
    }
    let content = everything(&cluster.members[0]);
    cluster.members[0].kill();
    let safe = cluster.path().join("safe");
    let member = &mut cluster.members[0];
    copy_dir(&member.data_dir, &safe);
    for slot in [0, 4096] {
        fs::remove_dir_all(&member.data_dir).unwrap();
        copy_dir(&safe, &member.data_dir);
        flip_bit(&member.tree(), slot + 40);
        assert_starts_with(member, &format!("the slot at {slot}"), &content);
    }
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let (mut cluster, content) = stopped_member();
    let member = &mut cluster.members[0];
    let right = member.args.clone();
    member.args.push("--initial-cluster-token=another".into());
    assert_refuses(member, "another token", &["belongs to", "cluster"]);
    member.args = right;
    assert_starts_with(member, "with its own flags again", &content);
}

#[test]
fn two_processes_on_one_directory() {
    let cluster = Cluster::start(&Setup::single());
    let first = &cluster.members[0];
    let (client, peer) = (harness::free_port(), harness::free_port());
    let args = first
        .args
        .iter()
        .map(|arg| {
            arg.replace(&format!(":{}", first.client_port), &format!(":{client}"))
                .replace(&format!(":{}", first.peer_port), &format!(":{peer}"))
        })
        .collect();
    let mut second = Member::new("second", cluster.path(), args, client, peer);
    assert_refuses(&mut second, "a directory in use", &["in use", &first.data_dir.display().to_string()]);
    assert_serves(first);
}

#[test]
fn a_port_in_use_leaves_no_trace() {
    let mut cluster = Cluster::prepare(&Setup::single());
    let member = &mut cluster.members[0];
    for port in [member.client_port, member.peer_port] {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_refuses(member, "a port in use", &["cannot listen", &port.to_string()]);
        assert!(!member.data_dir.exists(), "{} was made", member.data_dir.display());
        drop(holder);
    }
    member.start();
    cluster.leader();
    assert_serves(&cluster.members[0]);
}

#[test]
fn flags_that_make_no_sense_end_the_start() {
    let mut cluster = Cluster::prepare(&Setup::single());
    let member = &mut cluster.members[0];
    let right = member.args.clone();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--election-timeout=100", "--heartbeat-interval=90"], 1, "election-timeout"),
        (&["--no-such-flag"], 2, "no-such-flag"),
        (&["--snapshot-count=-1"], 1, "snapshot-count"),
        (&["--name=other"], 1, "other"),
    ];
    for (more, code, word) in cases {
        member.args = right.iter().cloned().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
        let before = member.log().len();
        member.start();
        let status = member.wait_exit(PATIENCE);
        let log = member.log()[before..].to_owned();
        assert!(log.contains(word), "{more:?}: {log}");
        assert_eq!(status.code(), Some(code), "{more:?}: {log}");
        assert!(!member.data_dir.exists(), "{more:?}: {} was made", member.data_dir.display());
    }
}

/// What a refusal must never do: end a member that serves. Many bad clients at once, many good ones beside.
#[test]
fn good_clients_do_not_notice_bad_ones() {
    let cluster = Cluster::start(&Setup::single());
    let port = cluster.members[0].client_port;
    std::thread::scope(|scope| {
        for number in 0..3 {
            scope.spawn(move || {
                let mut rng = Rng::new(number);
                for _ in 0..150 {
                    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                    let mut noise = vec![0; 1 + rng.below(3_000) as usize];
                    rng.fill(&mut noise);
                    if rng.one_in(2) {
                        noise[0] = b'*';
                    }
                    let _ = stream.write_all(&noise);
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
                    let _ = stream.read(&mut [0; 100]);
                }
            });
        }
        for number in 0..3 {
            scope.spawn(move || {
                let mut client = Client::connect(port, PATIENCE).unwrap();
                for serial in 0..200 {
                    let (key, value) = (format!("good-{number}"), serial.to_string());
                    assert!(!client.call(&["PUT", &key, &value]).unwrap().is_error());
                    assert_eq!(client.call(&["GET", &key]).unwrap().bulk(), value.as_bytes());
                }
            });
        }
    });
    assert_serves(&cluster.members[0]);
}
