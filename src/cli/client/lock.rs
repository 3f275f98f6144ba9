//! `lock` and `elect`. Words and exit codes are etcdctl's.
//!
//! Both hold a lease of their own, which they renew as long as they run, and revoke at their end: with it goes what they hold,
//! or wait for. What they wait for comes from several sides, so each side has a thread that tells the first one: the answer to the
//! request, the end of the lease, a signal, the end of the command. The process does not wait for those that are left.
//!
//! Other than etcdctl's, `ETCD_LOCK_REV` is the fencing revision, in which the key was created: the same as long as the lock is held,
//! and higher for each owner than for the one before.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::args::{Elect, Lock};
use super::session::{Patience, Question, ask, wait};
use super::{Client, Failure, known, reply};
use crate::api::Header;
use crate::base::time::{MS, Mono, Nanos, SECOND};
use crate::base::{LeaseId, Revision};
use crate::cli::resp::Value;
use crate::cli::{Console, go, output};
use crate::io::Clock;
use crate::io::os::OsClock;

/// A request that may wait for its answer as long as anybody does.
const FOR_EVER: Nanos = 365 * 24 * 3_600 * SECOND;

/// What comes to an end.
enum Event {
    Answered(Result<(Header, Value), Failure>),
    LeaseEnded,
    Signal,
    Ran(std::io::Result<ExitStatus>),
}

/// What a thread needs to ask.
#[derive(Clone)]
struct Servers {
    endpoints: Vec<String>,
    dial_timeout: Nanos,
    command_timeout: Nanos,
}

impl Servers {
    fn ask(&self, question: &Question, within: Nanos) -> Result<(Header, Value), Failure> {
        let deadline = OsClock.now() + within;
        ask(&self.endpoints, question, Patience { dial_timeout: self.dial_timeout, deadline, rounds: true })
    }

    /// Renews until the lease is gone, or nobody has answered for as long as it lives.
    fn keep(&self, id: LeaseId, ttl_s: u64, mut sure_until: Mono) {
        let ttl = ttl_s.saturating_mul(SECOND);
        loop {
            wait((ttl / 3).max(MS));
            let asked = OsClock.now();
            let words = ["LEASE", "KEEPALIVE", &id.to_string()].map(|word| word.as_bytes().to_vec());
            let within = self.command_timeout.min(sure_until.since(asked).max(MS));
            match self.ask(&Question::read(words.to_vec()), within) {
                Ok((_, answer)) => match reply::lease_kept(&answer) {
                    Some(1..) => sure_until = asked + ttl,
                    _ => return,
                },
                Err(_) if OsClock.now() < sure_until => {}
                Err(_) => return,
            }
        }
    }
}

/// A lease that is kept, and what happens meanwhile.
struct Session {
    servers: Servers,
    lease: LeaseId,
    events: std::sync::mpsc::Receiver<Event>,
    sender: Sender<Event>,
}

impl Client<'_> {
    pub(super) fn lock(&self, lock: &Lock, console: &mut Console) -> Result<(), Failure> {
        let Some(name) = &lock.name else {
            let what = "lock takes a lock name argument and an optional command to execute";
            return Err(Failure::BadArguments(what.into()));
        };
        let session = self.session(lock.ttl.unwrap_or(10))?;
        let words = [b"LOCK".to_vec(), name.as_bytes().to_vec()];
        let Some((key, revision)) = session.acquire(&words)? else { return Ok(()) };
        let Some((program, arguments)) = lock.command.split_first() else {
            return self.hold(session, &key, "session expired", console);
        };
        let mut command = Command::new(program);
        command.args(arguments).env("ETCD_LOCK_REV", revision.to_string());
        command.env("ETCD_LOCK_KEY", std::ffi::OsStr::from_bytes(&key));
        session.run(command, console)
    }

    pub(super) fn elect(&self, elect: &Elect, console: &mut Console) -> Result<(), Failure> {
        let bad = |what: &str| Err(Failure::BadArguments(what.into()));
        match (&elect.words[..], elect.listen == Some(true)) {
            ([name], true) => self.listen(name.as_bytes(), console),
            ([_, _], true) => bad("proposal given but -l is set"),
            ([_], false) => bad("no proposal argument but -l not set"),
            ([name, proposal], false) => {
                let session = self.session(elect.ttl.unwrap_or(60))?;
                let campaign: [&[u8]; 4] = [b"ELECTION", b"CAMPAIGN", name.as_bytes(), proposal.as_bytes()];
                let Some((key, _)) = session.acquire(&campaign.map(<[u8]>::to_vec))? else { return Ok(()) };
                self.hold(session, &key, "elect: session expired", console)
            }
            _ => bad("elect takes one election name argument and an optional proposal argument"),
        }
    }

    fn session(&self, ttl_s: u64) -> Result<Session, Failure> {
        let asked = OsClock.now();
        let words = ["LEASE", "GRANT", &ttl_s.to_string()].map(|word| word.as_bytes().to_vec());
        let (_, answer) = self.ask(&Question::write(words.to_vec()))?;
        let (lease, ttl_s) = known(reply::lease_granted(&answer), "LEASE GRANT")?;
        let servers = Servers {
            endpoints: self.options.endpoints.clone(),
            dial_timeout: self.options.dial_timeout,
            command_timeout: self.options.command_timeout,
        };
        let (sender, events) = channel();
        let session = Session { servers, lease, events, sender };
        let signals = signals().map_err(|why| Failure::Usage(format!("listening for signals: {why}")))?;
        session.tell(move || wait_for_byte(signals));
        let (servers, sure_until) = (session.servers.clone(), asked + ttl_s.saturating_mul(SECOND));
        session.tell(move || {
            servers.keep(lease, ttl_s, sure_until);
            Some(Event::LeaseEnded)
        });
        Ok(session)
    }

    /// Shows what is held, until a signal comes.
    fn hold(
        &self,
        session: Session,
        key: &[u8],
        expired: &str,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let (header, answer) = self.ask(&Question::read(vec![b"RANGE".to_vec(), key.to_vec()]))?;
        let range = known(reply::range(&answer), "RANGE")?;
        if range.kvs.is_empty() {
            return Err(Failure::Usage("lock lost on init".into()));
        }
        console.print(&output::get(&header, &range, self.options.format, self.options.hex, false)?);
        match session.next() {
            Event::Signal => session.end(),
            _ => Err(Failure::Usage(expired.into())),
        }
    }

    fn listen(&self, name: &[u8], console: &mut Console) -> Result<(), Failure> {
        let signals = signals().map_err(|why| Failure::Usage(format!("listening for signals: {why}")))?;
        let (sender, over) = channel();
        thread::spawn(move || wait_for_byte(signals).map(|_| sender.send(())));
        self.observe(name, over, console)
    }
}

impl Session {
    fn tell(&self, watch: impl FnOnce() -> Option<Event> + Send + 'static) {
        let sender = self.sender.clone();
        thread::spawn(move || watch().map(|event| sender.send(event)));
    }

    fn next(&self) -> Event {
        self.events.recv().expect("a sender is kept")
    }

    /// Waits for what is asked for; None: a signal came first.
    fn acquire(&self, words: &[Vec<u8>]) -> Result<Option<(Vec<u8>, Revision)>, Failure> {
        let lease = self.lease.to_string().into_bytes();
        let words = [words, &[b"LEASE".to_vec(), lease]].concat();
        let servers = self.servers.clone();
        // To ask twice with the same lease is to ask once.
        self.tell(move || Some(Event::Answered(servers.ask(&Question::read(words), FOR_EVER))));
        match self.next() {
            Event::Answered(Ok((_, answer))) => known(reply::acquired(&answer), "LOCK").map(Some),
            Event::Answered(Err(why)) => Err(why),
            Event::Signal => self.end().map(|()| None),
            _ => Err(Failure::Usage("session expired".into())),
        }
    }

    /// Runs a command; its exit code becomes ours. That the lock is lost meanwhile is said, and is for the command to notice: what it
    /// writes to should compare the fencing revision.
    fn run(self, mut command: Command, console: &mut Console) -> Result<(), Failure> {
        let program = command.get_program().to_owned();
        self.tell(move || Some(Event::Ran(command.status())));
        let ran = loop {
            match self.next() {
                Event::Ran(ran) => break ran,
                Event::LeaseEnded => console.complain("Warning: the lock is lost: its lease has ended"),
                // From a terminal it reaches the command, too: the lock is kept as long as that runs.
                Event::Signal | Event::Answered(_) => {}
            }
        };
        let released = self.end();
        match ran {
            Err(why) => Err(Failure::Usage(go::not_run(&program, &why))),
            Ok(status) if status.success() => released,
            Ok(status) => Err(Failure::Command {
                // etcdctl's for those that a signal ended.
                code: status.code().map_or(u8::MAX, |code| code as u8),
                text: go::ending(status),
            }),
        }
    }

    /// Gives up all that goes with the lease.
    fn end(&self) -> Result<(), Failure> {
        let words = ["LEASE", "REVOKE", &self.lease.to_string()].map(|word| word.as_bytes().to_vec());
        match self.servers.ask(&Question::write(words.to_vec()), self.servers.command_timeout) {
            Ok(_) => Ok(()),
            Err(Failure::Fault { code, .. }) if code == "NOLEASE" => Ok(()),
            Err(why) => Err(why),
        }
    }
}

/// A byte for each signal that asks to end.
fn signals() -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

fn wait_for_byte(mut signals: UnixStream) -> Option<Event> {
    signals.read_exact(&mut [0]).ok().map(|()| Event::Signal)
}
