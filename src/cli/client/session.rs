//! Asks servers in turn until one has answered, and never does a thing twice that should be done once.
//!
//! Each server gets a share of the time, or one that accepts connections and says nothing (a process that is
//! stopped, a machine that hangs) would use up what the healthy ones need. A share is the time until the first byte
//! of the answer: whoever has begun to answer may finish.
//!
//! A command may be sent again when nothing can have happened (the connection was refused, or the server
//! said so), or when it changes nothing. A write whose answer is lost may or may not have happened: only
//! the person at the keyboard can know whether to repeat it, so it ends in an error that says so. Where there are
//! other servers to go to, a write is sent only after the server has answered a greeting.

use std::io;
use std::net::SocketAddr;

use super::Failure;
use crate::api::Header;
use crate::base::time::{MS, Mono, Nanos};
use crate::cli::names;
use crate::cli::resp::{Connection, Value, put_request};
use crate::cli::url::Url;
use crate::io::Clock;
use crate::io::os::OsClock;

/// One command in the words of the line protocol.
pub struct Question {
    pub words: Vec<Vec<u8>>,
    /// It changes nothing, so it may be asked twice.
    pub repeatable: bool,
}

impl Question {
    pub fn read(words: Vec<Vec<u8>>) -> Question {
        Question { words, repeatable: true }
    }

    pub fn write(words: Vec<Vec<u8>>) -> Question {
        Question { words, repeatable: false }
    }
}

/// How long to try, and how often.
#[derive(Clone, Copy)]
pub struct Patience {
    pub dial_timeout: Nanos,
    pub deadline: Mono,
    /// Try again after a round in which no server could be asked.
    pub rounds: bool,
}

/// What one server may take of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    dial_timeout: Nanos,
    /// Until it has connected, greeted if it must, and begun to answer.
    begun: Mono,
    deadline: Mono,
    /// There are others.
    one_of_several: bool,
}

impl Turn {
    /// Of a server beside which no other is thought of.
    pub fn alone(dial_timeout: Nanos, deadline: Mono) -> Turn {
        Turn { dial_timeout, begun: deadline, deadline, one_of_several: false }
    }
}

impl Patience {
    /// The turn of the server at `at` among `count`; None when the time is up. Of several, even the last of a round
    /// does not get all that is left: those before it may have become able to answer.
    fn turn(&self, now: Mono, at: usize, count: usize) -> Option<Turn> {
        let left = self.deadline.since(now);
        let parts = if count == 1 { 1 } else { (count - at).max(2) };
        (left > 0).then(|| Turn {
            dial_timeout: self.dial_timeout,
            begun: now + left / parts as Nanos,
            deadline: self.deadline,
            one_of_several: count > 1,
        })
    }
}

const PAUSE_MIN: Nanos = 50 * MS;
const PAUSE_MAX: Nanos = 500 * MS;

/// Asks `endpoints` in turn; the first answer.
pub fn ask(
    endpoints: &[String],
    question: &Question,
    patience: Patience,
) -> Result<(Header, Value), Failure> {
    ask_and_keep(endpoints, question, patience).map(|(answer, _)| answer)
}

/// Asks question after question, all of them repeatable, over one connection as long as that lasts.
pub struct Line {
    endpoints: Vec<String>,
    /// In which the header is on.
    kept: Option<Connection>,
}

impl Line {
    pub fn new(endpoints: Vec<String>) -> Line {
        Line { endpoints, kept: None }
    }

    pub fn ask(&mut self, question: &Question, patience: Patience) -> Result<(Header, Value), Failure> {
        debug_assert!(question.repeatable, "whether a lost connection has passed it on is not asked here");
        if let Some(mut connection) = self.kept.take() {
            let mut bytes = Vec::new();
            put_request(&question.words, &mut bytes);
            // The others get what is left if this one hangs.
            let now = OsClock.now();
            connection.set_deadline(now + patience.deadline.since(now) / 2);
            let answer = connection.send(&bytes).and_then(|()| connection.receive());
            match answer.map(|answer| split_header("the server", answer)) {
                Ok(Ok(answer)) => {
                    self.kept = Some(connection);
                    return Ok(answer);
                }
                Ok(Err(failure)) if !may_ask_again(&failure, true) => {
                    self.kept = Some(connection);
                    return Err(failure);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let (answer, connection) = ask_and_keep(&self.endpoints, question, patience)?;
        self.kept = Some(connection);
        Ok(answer)
    }
}

/// The first answer, and the connection over which it came.
fn ask_and_keep(
    endpoints: &[String],
    question: &Question,
    patience: Patience,
) -> Result<((Header, Value), Connection), Failure> {
    let mut pause = PAUSE_MIN;
    let nothing_yet = if endpoints.is_empty() { "no endpoints" } else { super::TOO_LATE };
    let mut last = Failure::Usage(nothing_yet.into());
    loop {
        for (at, endpoint) in endpoints.iter().enumerate() {
            // Whoever has had no turn is not blamed.
            let Some(turn) = patience.turn(OsClock.now(), at, endpoints.len()) else { return Err(last) };
            match ask_one(endpoint, question, turn) {
                Ok(answer) => return Ok(answer),
                Err(failure) if may_ask_again(&failure, question.repeatable) => last = failure,
                Err(failure) => return Err(failure),
            }
        }
        let now = OsClock.now();
        if !patience.rounds || now + pause >= patience.deadline {
            return Err(last);
        }
        wait(pause);
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Whether to go on to the next server, or to this one again.
fn may_ask_again(failure: &Failure, repeatable: bool) -> bool {
    match failure {
        Failure::NotSent { .. } => true,
        Failure::NoAnswer { .. } => repeatable,
        Failure::Fault { code, .. } => match code.as_str() {
            "NOLEADER" | "BUSY" | "LOADING" | "SHUTDOWN" => true,
            "TIMEOUT" | "CORRUPT" => repeatable,
            _ => false,
        },
        _ => false,
    }
}

fn ask_one(
    endpoint: &str,
    question: &Question,
    turn: Turn,
) -> Result<((Header, Value), Connection), Failure> {
    let not_sent = |why: io::Error| Failure::NotSent { endpoint: endpoint.into(), why: plain(&why) };
    let no_answer = |why: io::Error| match why.kind() {
        io::ErrorKind::InvalidData => {
            Failure::Protocol(format!("{endpoint} does not speak the line protocol: {why}"))
        }
        _ => Failure::NoAnswer { endpoint: endpoint.into(), why: plain(&why), write: !question.repeatable },
    };
    let greeted = |answer: Value| match answer {
        Value::Error(text) => Err(Failure::fault(endpoint, &text)),
        _ => Ok(()),
    };
    let mut connection = connect(endpoint, turn, not_sent)?;
    let mut bytes = Vec::new();
    put_request(&[b"HEADER".to_vec(), b"ON".to_vec()], &mut bytes);
    if !question.repeatable && turn.one_of_several {
        // Costs a round trip, and makes sure that a write goes to nobody who does not answer.
        connection.send(&bytes).map_err(not_sent)?;
        greeted(connection.receive().map_err(|why| match why.kind() {
            io::ErrorKind::InvalidData => no_answer(why),
            _ => not_sent(why),
        })?)?;
        bytes.clear();
        put_request(&question.words, &mut bytes);
        connection.set_deadline(turn.deadline);
        connection.send(&bytes).map_err(no_answer)?;
    } else {
        // Both in one packet: the header costs no round trip.
        put_request(&question.words, &mut bytes);
        connection.send(&bytes).map_err(no_answer)?;
        greeted(connection.receive().map_err(no_answer)?)?;
        connection.wait_for_bytes().map_err(no_answer)?;
        connection.set_deadline(turn.deadline);
    }
    let answer = connection.receive().map_err(no_answer)?;
    Ok((split_header(endpoint, answer)?, connection))
}

pub fn connect(
    endpoint: &str,
    turn: Turn,
    not_sent: impl Fn(io::Error) -> Failure,
) -> Result<Connection, Failure> {
    let mut last = io::Error::other("the name has no address");
    for address in resolve(endpoint, turn, &not_sent)? {
        match Connection::open(address, turn.dial_timeout, turn.begun) {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(not_sent(last))
}

/// `host:port`, with or without `http://`; a slash behind it is passed over, as etcdctl does.
fn resolve(
    endpoint: &str,
    turn: Turn,
    not_sent: impl Fn(io::Error) -> Failure,
) -> Result<Vec<SocketAddr>, Failure> {
    let text = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let url = Url::parse(text.strip_suffix('/').unwrap_or(&text));
    let url = url.map_err(|why| Failure::Usage(format!("endpoint {why}")))?;
    let addresses = names::lookup(&url.host, turn.begun).map_err(not_sent)?;
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, url.port)).collect())
}

/// `[[cluster, member, revision, term], reply]`; errors come bare.
pub fn split_header(endpoint: &str, answer: Value) -> Result<(Header, Value), Failure> {
    let odd = || Failure::Protocol(format!("{endpoint} sent an answer without a header"));
    let mut parts = match answer {
        Value::Error(text) => return Err(Failure::fault(endpoint, &text)),
        Value::Array(parts) => parts.into_iter(),
        _ => return Err(odd()),
    };
    let (Some(Value::Array(header)), Some(reply), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(odd());
    };
    if let Value::Error(text) = reply {
        return Err(Failure::fault(endpoint, &text));
    }
    let numbers: Option<Vec<u64>> = header.iter().map(super::reply::number).collect();
    match numbers.as_deref() {
        Some(&[cluster, member, revision, term]) => Ok((Header { cluster, member, revision, term }, reply)),
        _ => Err(odd()),
    }
}

/// An error of the operating system without its number.
pub fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "the connection was closed".into(),
        _ => error.to_string(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a client of one command has nothing else to do meanwhile")]
pub fn wait(nanos: Nanos) {
    std::thread::sleep(std::time::Duration::from_nanos(nanos));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::SECOND;

    #[test]
    fn only_what_is_safe_is_asked_again() {
        let fault = |code: &str| Failure::fault("e", &format!("{code} text"));
        let not_sent = Failure::NotSent { endpoint: "e".into(), why: "connection refused".into() };
        let no_answer = Failure::NoAnswer { endpoint: "e".into(), why: "timed out".into(), write: true };
        for (failure, write, read) in [
            (&not_sent, true, true),
            (&no_answer, false, true),
            (&fault("NOLEADER"), true, true),
            (&fault("BUSY"), true, true),
            (&fault("TIMEOUT"), false, true),
            (&fault("SHUTDOWN"), true, true),
            (&fault("COMPACTED"), false, false),
            (&fault("ERR"), false, false),
            (&Failure::Protocol("?".into()), false, false),
        ] {
            assert_eq!(
                (may_ask_again(failure, false), may_ask_again(failure, true)),
                (write, read),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn everybody_gets_a_share() {
        let patience = Patience { dial_timeout: SECOND, deadline: Mono(12 * SECOND), rounds: true };
        let begun = |now, at, count| patience.turn(Mono(now), at, count).map(|turn| turn.begun);
        assert_eq!(begun(0, 0, 1), Some(patience.deadline), "nobody else could use it");
        assert_eq!(begun(0, 0, 3), Some(Mono(4 * SECOND)));
        assert_eq!(begun(4 * SECOND, 1, 3), Some(Mono(8 * SECOND)));
        assert_eq!(begun(8 * SECOND, 2, 3), Some(Mono(10 * SECOND)), "another round must be possible");
        assert_eq!(begun(12 * SECOND, 0, 3), None);
        assert!(patience.turn(Mono(0), 2, 3).is_some_and(|turn| turn.deadline == patience.deadline));
    }

    #[test]
    fn endpoints_may_look_like_urls() {
        let turn = Turn::alone(SECOND, Mono::NEVER);
        let not_sent = |why: io::Error| Failure::Usage(why.to_string());
        for endpoint in ["127.0.0.1:7", "http://127.0.0.1:7", "http://127.0.0.1:7/"] {
            assert_eq!(resolve(endpoint, turn, not_sent), Ok(vec!["127.0.0.1:7".parse().unwrap()]));
        }
        let refused = resolve("http://127.0.0.1:7/path", turn, not_sent).unwrap_err();
        assert!(refused.to_string().contains("must not contain a path"), "{refused}");
    }

    #[test]
    fn answers_without_a_header_are_refused() {
        let number = |n: &str| Value::Bulk(n.into());
        let header =
            Value::Array(vec![number("18446744073709551615"), Value::Integer(-1), number("3"), number("4")]);
        let answer = Value::Array(vec![header.clone(), Value::Null]);
        let expected = Header { cluster: u64::MAX, member: u64::MAX, revision: 3, term: 4 };
        assert_eq!(split_header("e", answer).unwrap(), (expected, Value::Null));
        for answer in [
            Value::Null,
            Value::Array(vec![header.clone()]),
            Value::Array(vec![Value::Array(vec![]), Value::Null]),
            Value::Array(vec![header, Value::Null, Value::Null]),
        ] {
            assert!(matches!(split_header("e", answer), Err(Failure::Protocol(_))));
        }
    }
}
