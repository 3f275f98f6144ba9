//! `watch`: prints what happens, or runs a command for each event, until it is interrupted. And `elect -l`, which is told who
//! leads in the same way.
//!
//! All watches of one process share a connection. When that is lost, or the server can serve them no longer, they go on at
//! the next endpoint behind the last revision that they were told: nothing is lost, nothing printed twice. A server that is
//! silent is asked whether it is still there.

use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use super::args::{self, Watch};
use super::reply::{self, Push};
use super::session::{self, Turn};
use super::{Client, Failure, keys};
use crate::api::{Event, EventKind, Header, KeyValue, RangeResult};
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Mono, Revision};
use crate::cli::output;
use crate::cli::resp::{Connection, Value, put_request};
use crate::cli::{Console, go};
use crate::io::Clock;
use crate::io::os::OsClock;

/// A server that says nothing for so long is asked for a sign, and must give it in time: etcdctl's keep-alive.
const SILENCE: Nanos = 2 * SECOND;
const PATIENCE: Nanos = 6 * SECOND;

/// What has begun to come must come to its end in time.
const PUSH: Nanos = 60 * SECOND;

/// Typed lines are looked for this often.
const LOOK: Nanos = 20 * MS;

/// Between two rounds in which no server could be reached.
const PAUSE_MIN: Nanos = 50 * MS;
const PAUSE_MAX: Nanos = 2 * SECOND;

/// etcdctl's codes: the watch was ended, and standard input.
pub(super) const EXIT_CANCELED: u8 = 5;
pub(super) const EXIT_INPUT: u8 = 3;

/// Something that is watched.
pub(super) struct Watched {
    id: u64,
    /// `WATCH` and its words, but for where to begin.
    words: Vec<Vec<u8>>,
    /// Where it goes on; 0 = now, and nobody has said yet when that is.
    next: Revision,
    /// What to run for each event.
    command: Vec<OsString>,
    ended: bool,
    /// Who leads is told wherever that is asked: from no revision on.
    is_election: bool,
}

impl Watched {
    fn new(id: u64, words: Vec<Vec<u8>>, next: Revision) -> Watched {
        Watched { id, words, next, command: Vec::new(), ended: false, is_election: false }
    }
}

/// How a connection's time ended.
enum Ended {
    /// Another one shall be made.
    Lost(String),
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Failed(failure)
    }
}

fn lost(error: io::Error) -> Ended {
    match error.kind() {
        ErrorKind::InvalidData => Ended::Failed(Failure::Protocol(error.to_string())),
        _ => Ended::Lost(session::plain(&error)),
    }
}

/// What is done with what watches are told.
pub(super) trait Listener {
    /// What a server is asked that has said nothing for long.
    const SIGN: &'static str;

    /// All that the revision of the header did to what is watched.
    fn told(&mut self, watched: &Watched, header: &Header, events: &[Event]) -> Result<(), Failure>;

    /// Who leads the election that is watched; with each connection once more.
    fn leads(&mut self, _: &Header, leader: KeyValue) -> Result<(), Failure> {
        let key = go::quote(&leader.key);
        Err(Failure::Protocol(format!("the server told that {key} leads, which was not asked")))
    }

    /// Up to the revision of the header all was told.
    fn progress(&mut self, header: &Header) -> Result<(), Failure>;

    /// A watch is over: how to end. `compacted` is the bound, or 0 if that is not why.
    fn canceled(&mut self, header: &Header, text: &str, compacted: Revision) -> Failure;

    /// Something that a person may want to know.
    fn complain(&mut self, line: &str);

    /// When it wants to be called again although nothing happens.
    fn due(&self) -> Mono {
        Mono::NEVER
    }

    /// Whether it goes on.
    fn tick(&mut self, _now: Mono) -> bool {
        true
    }
}

/// Prints events, and runs a command for each.
struct Printer<'a, 'c, 'o> {
    client: &'a Client<'a>,
    console: &'c mut Console<'o>,
}

/// Prints each leader of an election.
struct Observer<'a, 'c, 'o> {
    printer: Printer<'a, 'c, 'o>,
    /// Something comes when it is to end.
    over: Receiver<()>,
    /// Which state of which key was shown last.
    shown: Option<(Revision, Revision)>,
}

/// All of it.
struct Watching<'a, L> {
    client: &'a Client<'a>,
    listener: L,
    watches: Vec<Watched>,
    next_id: u64,
    /// Who answers.
    header: Header,
    /// A server has served a watch since the last connection was lost.
    served: bool,
    /// Lines that are typed, if any are.
    lines: Option<Receiver<io::Result<String>>>,
}

impl Client<'_> {
    pub(super) fn watch(&self, watch: &Watch, console: &mut Console) -> Result<(), Failure> {
        keys::check_watched(&self.options.watched)?;
        output::refuse_watch_format(self.options.format)?;
        let mut watching = Watching::new(self, Printer { client: self, console });
        if watch.interactive == Some(true) {
            watching.lines = Some(typed_lines());
        } else {
            watching.add(watch)?;
        }
        watching.run(false)
    }

    /// Shows who leads an election, and each who leads it later, until it is over.
    pub(super) fn observe(
        &self,
        name: &[u8],
        over: Receiver<()>,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let observer = Observer { printer: Printer { client: self, console }, over, shown: None };
        let mut watching = Watching::new(self, observer);
        let words = vec![b"ELECTION".to_vec(), b"OBSERVE".to_vec(), name.to_vec()];
        watching.watches.push(Watched { is_election: true, ..Watched::new(1, words, 0) });
        watching.run(false)
    }
}

/// Watches from a revision on, until the listener or a server ends it: servers that cannot be reached are waited for.
pub(super) fn follow<L: Listener>(
    client: &Client<'_>,
    words: Vec<Vec<u8>>,
    next: Revision,
    listener: L,
) -> Result<(), Failure> {
    let mut watching = Watching::new(client, listener);
    watching.watches.push(Watched::new(1, words, next));
    watching.run(true)
}

/// Standard input, line by line, from a thread of its own: nothing else can wait for two things at once.
fn typed_lines() -> Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = String::new();
            let read = match input.read_line(&mut line) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => Ok(line.trim_end_matches('\n').to_owned()),
                Err(error) => Err(error),
            };
            let over = read.is_err();
            if sender.send(read).is_err() || over {
                return;
            }
        }
    });
    receiver
}

impl<'a, L: Listener> Watching<'a, L> {
    fn new(client: &'a Client<'a>, listener: L) -> Watching<'a, L> {
        let header = Header::default();
        Watching { client, listener, watches: Vec::new(), next_id: 1, header, served: false, lines: None }
    }

    fn add(&mut self, watch: &Watch) -> Result<(), Failure> {
        let words = keys::watch(watch, &self.client.options.watched)?;
        let Ok(next) = Revision::try_from(watch.rev) else {
            return Err(self.canceled("etcdserver: mvcc: required revision has been compacted", 0));
        };
        let id = self.next_id;
        self.next_id += 1;
        self.watches.push(Watched { command: watch.command.clone(), ..Watched::new(id, words, next) });
        Ok(())
    }

    /// `reached`: a server has been, so that it is worth waiting for one.
    fn run(&mut self, mut reached: bool) -> Result<(), Failure> {
        let endpoints = &self.client.options.endpoints;
        let (mut pause, mut told) = (PAUSE_MIN, false);
        loop {
            let mut last = Failure::Usage("no endpoints".into());
            for endpoint in endpoints {
                let connection = match self.connect(endpoint) {
                    Ok(connection) => connection,
                    Err(failure @ (Failure::NotSent { .. } | Failure::NoAnswer { .. })) => {
                        last = failure;
                        continue;
                    }
                    Err(failure) => return Err(failure),
                };
                reached = true;
                let ended = self.follow(connection);
                if std::mem::take(&mut self.served) {
                    (told, pause) = (false, PAUSE_MIN);
                }
                match ended {
                    Err(Ended::Failed(failure)) => return Err(failure),
                    Err(Ended::Lost(why)) => {
                        last = Failure::NoAnswer { endpoint: endpoint.clone(), why, write: false };
                    }
                    Ok(()) => return Ok(()),
                }
            }
            if !reached {
                return Err(last);
            }
            if !told && let Some(cause) = last.cause() {
                self.listener.complain(&format!("Warning: {cause}; the watch goes on when a server answers"));
                told = true;
            }
            session::wait(pause);
            if !self.listener.tick(OsClock.now()) {
                return Ok(());
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// A connection in RESP3, greeted.
    fn connect(&mut self, endpoint: &str) -> Result<Connection, Failure> {
        let timeout = self.client.options.dial_timeout.max(self.client.options.command_timeout);
        let deadline = OsClock.now() + timeout;
        let turn = Turn::alone(self.client.options.dial_timeout, deadline);
        let not_sent =
            |why: io::Error| Failure::NotSent { endpoint: endpoint.into(), why: session::plain(&why) };
        let mut connection = session::connect(endpoint, turn, not_sent)?;
        let mut bytes = Vec::new();
        put_request(&[b"HELLO".to_vec(), b"3".to_vec()], &mut bytes);
        put_request(&[b"HEADER".to_vec(), b"ON".to_vec()], &mut bytes);
        let greeted = connection.send(&bytes).and_then(|()| {
            let hello = connection.receive()?;
            Ok((hello, connection.receive()?))
        });
        match greeted {
            Ok((Value::Error(line), _) | (_, Value::Error(line))) => Err(Failure::fault(endpoint, &line)),
            Ok(_) => Ok(connection),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(Failure::Protocol(format!("{endpoint} does not speak the line protocol: {error}")))
            }
            Err(error) => Err(not_sent(error)),
        }
    }

    /// Watches over one connection, as long as it lasts.
    fn follow(&mut self, mut connection: Connection) -> Result<(), Ended> {
        for at in 0..self.watches.len() {
            self.begin(at, &mut connection)?;
        }
        let mut pinged = None;
        loop {
            self.take_lines(&mut connection)?;
            let now = OsClock.now();
            if !self.listener.tick(now) {
                return Ok(());
            }
            let silence = pinged.map_or(now + SILENCE, |since: Mono| since + PATIENCE);
            let look = if self.lines.is_some() { now + LOOK } else { self.listener.due() };
            connection.set_deadline(silence.min(look));
            match connection.wait_for_bytes() {
                Ok(()) => pinged = None,
                Err(error) if error.kind() == ErrorKind::TimedOut && OsClock.now() < silence => continue,
                Err(error) if error.kind() == ErrorKind::TimedOut && pinged.is_none() => {
                    pinged = Some(OsClock.now());
                    send(&[L::SIGN.into()], &mut connection)?;
                    continue;
                }
                Err(error) => return Err(lost(error)),
            }
            connection.set_deadline(OsClock.now() + PUSH);
            let value = connection.receive().map_err(lost)?;
            self.take(&value)?;
        }
    }

    fn begin(&mut self, at: usize, connection: &mut Connection) -> Result<(), Ended> {
        let Watched { id, words, next, ended, is_election, .. } = &self.watches[at];
        if *ended {
            return Ok(());
        }
        let mut words = words.clone();
        let options = ["ID", &id.to_string(), "REV", &next.to_string()].map(|word| word.as_bytes().to_vec());
        words.extend_from_slice(if *is_election { &options[..2] } else { &options });
        send(&words, connection)?;
        let answer = loop {
            // Pushes for watches that were begun before may come first.
            let value = connection.receive().map_err(lost)?;
            match reply::push(&value) {
                Some(push) => self.take_push(push)?,
                None => break value,
            }
        };
        match session::split_header("the server", answer) {
            Ok((header, _)) => {
                (self.header, self.served) = (header, true);
                let watched = &mut self.watches[at];
                watched.next = if watched.next == 0 { header.revision + 1 } else { watched.next };
                Ok(())
            }
            Err(Failure::Fault { code, text }) => self.refused(at, &code, &text, 0),
            Err(failure) => Err(failure.into()),
        }
    }

    /// A reply that is not awaited here, or a push.
    fn take(&mut self, value: &Value) -> Result<(), Ended> {
        if let Some(push) = reply::push(value) {
            return self.take_push(push);
        }
        match value {
            // Its goodbye.
            Value::Error(line) => Err(Ended::Lost(line.clone())),
            _ => Ok(()), // OK or PONG, with a header.
        }
    }

    fn take_push(&mut self, push: Push) -> Result<(), Ended> {
        let position = |id: u64| self.watches.iter().position(|watched| watched.id == id);
        match push {
            Push::Events { id, revision, events } => {
                let Some(at) = position(id) else { return Ok(()) };
                self.watches[at].next = revision + 1;
                let header = Header { revision, ..self.header };
                Ok(self.listener.told(&self.watches[at], &header, &events)?)
            }
            Push::Progress { id, revision } => {
                let live = self.watches.iter_mut().filter(|watched| !watched.ended);
                for watched in live.filter(|watched| id.is_none_or(|id| id == watched.id)) {
                    watched.next = watched.next.max(revision + 1);
                    self.listener.progress(&Header { revision, ..self.header })?;
                }
                Ok(())
            }
            Push::Leader { id, revision, leader } => match position(id) {
                Some(_) => Ok(self.listener.leads(&Header { revision, ..self.header }, leader)?),
                None => Ok(()),
            },
            Push::Unwatched { id, reason, compacted } => {
                let Some(at) = position(id) else { return Ok(()) };
                let failure = Failure::fault("the server", &reason);
                let Failure::Fault { code, text } = failure else {
                    unreachable!("it is made of an error line")
                };
                self.refused(at, &code, &text, compacted)
            }
        }
    }

    /// What became of a watch that a server does not serve, or no longer.
    fn refused(&mut self, at: usize, code: &str, text: &str, compacted: Revision) -> Result<(), Ended> {
        if matches!(code, "NOLEADER" | "BUSY" | "LOADING" | "SHUTDOWN" | "CORRUPT" | "TIMEOUT") {
            return Err(Ended::Lost(text.into()));
        }
        let failure = self.canceled(text, compacted);
        self.watches[at].ended = true;
        // Who types has other watches, or will have.
        if self.lines.is_some() { Ok(()) } else { Err(failure.into()) }
    }

    /// Says that a watch is over.
    fn canceled(&mut self, text: &str, compacted: Revision) -> Failure {
        self.listener.canceled(&Header { revision: 0, ..self.header }, text, compacted)
    }

    /// What was typed since the last look.
    fn take_lines(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        loop {
            let line = match self.lines.as_ref().map(Receiver::try_recv) {
                None | Some(Err(TryRecvError::Empty)) => return Ok(()),
                Some(Ok(Ok(line))) => line,
                Some(Ok(Err(error))) => {
                    let why = match error.kind() {
                        ErrorKind::UnexpectedEof => "EOF".to_owned(),
                        _ => session::plain(&error),
                    };
                    return Err(Failure::Input(format!("error reading watch request line: {why}")).into());
                }
                Some(Err(TryRecvError::Disconnected)) => {
                    return Err(Failure::Input("error reading watch request line: EOF".into()).into());
                }
            };
            self.obey(&line, connection)?;
        }
    }

    /// `watch ...` and `progress`.
    fn obey(&mut self, line: &str, connection: &mut Connection) -> Result<(), Ended> {
        let words = split(line);
        let complaint = match words.first().map(String::as_str) {
            None => {
                self.listener.complain(&format!("Invalid command: {line} (watch and progress supported)"));
                return Ok(());
            }
            Some("progress") => {
                if self.watches.iter().any(|watched| !watched.ended) {
                    connection.set_deadline(OsClock.now() + PUSH);
                    send(&[b"WATCHPROGRESS".to_vec()], connection)?;
                }
                return Ok(());
            }
            Some("watch") if words.len() == 1 && self.client.options.watched.is_empty() => {
                "command type or key is not provided".to_owned()
            }
            Some("watch") => match self.read_watch(&words).map(|watch| self.add(&watch)) {
                Ok(Ok(())) => {
                    connection.set_deadline(OsClock.now() + PUSH);
                    return self.begin(self.watches.len() - 1, connection);
                }
                Ok(Err(Failure::WatchCanceled)) => return Ok(()),
                // etcdctl ends with it; here the other watches go on.
                Err(failure) if args::is_etcdctl(self.client.program) => return Err(failure.into()),
                Ok(Err(failure)) | Err(failure) => failure.to_string(),
            },
            Some(_) => "only support watch".to_owned(),
        };
        self.listener.complain(&format!("Invalid command {line} ({complaint})"));
        Ok(())
    }

    /// A watch that says what it watches.
    fn read_watch(&self, words: &[String]) -> Result<Watch, Failure> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let bad = |text: String| Err(Failure::BadArguments(text));
        let watch = match args::read(self.client.program, &words, &Default::default()) {
            Ok(Ok((_, args::Command::Watch(watch)))) => watch,
            Err(Failure::Usage(text)) => return bad(text),
            Err(failure) => return Err(failure),
            Ok(_) => return bad("help requested".into()),
        };
        match (watch.words.is_empty(), self.client.options.watched.is_empty()) {
            (true, true) if watch.command.is_empty() => bad("bad number of arguments".into()),
            (false, false) => bad("bad number of arguments (found conflicting environment key)".into()),
            _ => Ok(watch),
        }
    }
}

impl Listener for Printer<'_, '_, '_> {
    const SIGN: &'static str = "PING";

    fn told(&mut self, watched: &Watched, header: &Header, events: &[Event]) -> Result<(), Failure> {
        self.show(header, events)?;
        if watched.command.is_empty() {
            return Ok(());
        }
        events.iter().try_for_each(|event| self.execute(&watched.command, header.revision, event))
    }

    fn progress(&mut self, header: &Header) -> Result<(), Failure> {
        self.console.print(format!("progress notify: {}\n", header.revision).as_bytes());
        self.show(header, &[])
    }

    fn canceled(&mut self, header: &Header, text: &str, compacted: Revision) -> Failure {
        self.console.complain(&format!("watch was canceled ({text})"));
        if let Ok(shown) = output::watch_canceled(header, compacted, self.client.options.format) {
            self.console.print(&shown);
        }
        Failure::WatchCanceled
    }

    fn complain(&mut self, line: &str) {
        self.console.complain(line);
    }
}

impl Printer<'_, '_, '_> {
    fn show(&mut self, header: &Header, events: &[Event]) -> Result<(), Failure> {
        let super::Options { format, hex, .. } = self.client.options;
        self.console.print(&output::watch(header, events, format, hex)?);
        Ok(())
    }

    /// One after the other, and each to its end.
    fn execute(&mut self, command: &[OsString], revision: Revision, event: &Event) -> Result<(), Failure> {
        let (program, arguments) = command.split_first().expect("there is a command");
        let kind = match event.kind {
            EventKind::Put => "PUT",
            EventKind::Delete => "DELETE",
        };
        let status = Command::new(program)
            .args(arguments)
            .env("ETCD_WATCH_REVISION", revision.to_string())
            .env("ETCD_WATCH_EVENT_TYPE", go::quote(kind.as_bytes()))
            .env("ETCD_WATCH_KEY", go::quote(&event.kv.key))
            .env("ETCD_WATCH_VALUE", go::quote(&event.kv.value))
            .status();
        let why = match status {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => go::ending(status),
            Err(error) => go::not_run(program, &error),
        };
        let shown: Vec<String> = command.iter().map(|word| go::quote(word.as_bytes())).collect();
        self.console.complain(&format!("command [{}] error ({why})", shown.join(" ")));
        Err(Failure::Told)
    }
}

impl Listener for Observer<'_, '_, '_> {
    const SIGN: &'static str = Printer::SIGN;

    fn told(&mut self, _: &Watched, _: &Header, _: &[Event]) -> Result<(), Failure> {
        Err(Failure::Protocol("the server told events of an election".into()))
    }

    fn leads(&mut self, header: &Header, leader: KeyValue) -> Result<(), Failure> {
        let seen = Some((leader.create_revision, leader.mod_revision));
        if std::mem::replace(&mut self.shown, seen) != seen {
            let super::Options { format, hex, .. } = self.printer.client.options;
            // etcdctl counts nothing here.
            let alone = RangeResult { revision: header.revision, count: 0, more: false, kvs: vec![leader] };
            self.printer.console.print(&output::get(header, &alone, format, hex, false)?);
        }
        Ok(())
    }

    fn progress(&mut self, _: &Header) -> Result<(), Failure> {
        Ok(())
    }

    fn canceled(&mut self, header: &Header, text: &str, compacted: Revision) -> Failure {
        self.printer.canceled(header, text, compacted)
    }

    fn complain(&mut self, line: &str) {
        self.printer.complain(line);
    }

    fn due(&self) -> Mono {
        OsClock.now() + LOOK
    }

    fn tick(&mut self, _now: Mono) -> bool {
        self.over.try_recv() == Err(TryRecvError::Empty)
    }
}

fn send(words: &[Vec<u8>], connection: &mut Connection) -> Result<(), Ended> {
    let mut bytes = Vec::new();
    put_request(words, &mut bytes);
    connection.set_deadline(OsClock.now() + PATIENCE);
    connection.send(&bytes).map_err(lost)
}

/// Words parted by blanks; quotes of either kind hold one together.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => (quote, begun) = (Some(c), true),
            None if c.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn typed_words() {
        assert_eq!(
            split("watch foo  --rev=2\t-- echo 'a b' \"\" c\"d e\""),
            ["watch", "foo", "--rev=2", "--", "echo", "a b", "", "cd e"]
        );
        assert!(split("  ").is_empty());
    }
}
