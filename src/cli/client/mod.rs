//! `pawlctl`: etcdctl's commands over the line protocol.

mod args;
mod check;
mod keys;
mod lease;
mod lock;
mod maintenance;
mod members;
mod mirror;
mod reply;
mod session;
mod txn;
mod watch;

use std::ffi::OsString;
use std::fmt;
use std::io::Read;

use self::args::{Command, Endpoint, EndpointCommand, Help, Member, Options};
use self::session::{Patience, Question, ask};
use super::output::{self, EndpointHealth, EndpointStatus, Unsupported};
use super::resp::Value;
use super::values::Environment;
use super::{Console, Role, go, version};
use crate::api::Header;
use crate::io::Clock;
use crate::io::os::OsClock;

/// What etcdctl says wherever no answer came.
const TOO_LATE: &str = "context deadline exceeded";

/// Why a command failed: what to say and, by [`Failure::exit`], which code to end with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// The command line is not understood.
    Usage(String),
    /// The words are understood and do not make a command.
    BadArguments(String),
    /// Something that exists in etcdctl, or in another combination, but not here.
    Feature(String),
    /// What was read from standard input, or is there already, makes no sense here.
    Input(String),
    /// Nobody has seen the request.
    NotSent { endpoint: String, why: String },
    /// The request left and no answer came.
    NoAnswer { endpoint: String, why: String, write: bool },
    /// The server refused; `code` is the first word of its error line.
    Fault { code: String, text: String },
    /// The peer says things that the protocol does not know.
    Protocol(String),
    /// The command worked and what it found is bad news.
    Unhealthy,
    /// A watch was ended by the server, which has been said.
    WatchCanceled,
    /// What etcdctl takes for a bad connection.
    Connection(String),
    /// How a command ended that was run.
    Command { code: u8, text: String },
    /// Everything has been said already.
    Told,
}

impl Failure {
    /// From an error line `CODE text`, which for some codes continues with a bound that etcd's clients do
    /// not expect.
    fn fault(endpoint: &str, line: &str) -> Failure {
        let (code, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = match (code, text.split_once(' ')) {
            ("COMPACTED" | "FUTURE", Some((bound, text))) if bound.parse::<u64>().is_ok() => text,
            _ => text,
        };
        let text = if text.is_empty() { format!("{endpoint}: {line}") } else { text.to_owned() };
        Failure::Fault { code: code.into(), text }
    }

    /// Why nobody has answered, if that is what happened.
    fn cause(&self) -> Option<String> {
        match self {
            Failure::NotSent { endpoint, why } => Some(format!("cannot reach {endpoint}: {why}")),
            Failure::NoAnswer { endpoint, why, .. } => Some(format!("no answer from {endpoint}: {why}")),
            _ => None,
        }
    }

    /// etcdctl's codes.
    fn exit(&self) -> u8 {
        match self {
            Failure::BadArguments(_) => 128,
            Failure::Feature(_) => 4,
            Failure::Connection(_) => 2,
            Failure::WatchCanceled => watch::EXIT_CANCELED,
            Failure::Input(_) => watch::EXIT_INPUT,
            Failure::Command { code, .. } => *code,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text)
            | Failure::BadArguments(text)
            | Failure::Feature(text)
            | Failure::Connection(text)
            | Failure::Fault { text, .. }
            | Failure::Protocol(text)
            | Failure::Command { text, .. }
            | Failure::Input(text) => f.write_str(text),
            Failure::NotSent { .. } | Failure::NoAnswer { .. } => {
                write!(f, "{TOO_LATE}: {}", self.cause().unwrap_or_default())?;
                match self {
                    Failure::NoAnswer { write: true, .. } => {
                        f.write_str("; the write may or may not have happened: read before repeating it")
                    }
                    _ => Ok(()),
                }
            }
            Failure::Unhealthy => f.write_str("unhealthy cluster"),
            Failure::WatchCanceled => f.write_str("watch is canceled by the server"),
            Failure::Told => f.write_str("failed"),
        }
    }
}

impl From<Unsupported> for Failure {
    fn from(text: Unsupported) -> Failure {
        Failure::Feature(text)
    }
}

/// Runs one command; the exit code. `program` is the name that was typed.
pub fn run(program: &str, words: &[OsString], environment: &Environment, console: &mut Console) -> u8 {
    let (options, command) = match args::read(program, words, environment) {
        Ok(Ok(read)) => read,
        Ok(Err(Help(text))) => {
            console.print(text.as_bytes());
            return 0;
        }
        Err(failure) => return complain(&failure, console),
    };
    let client = Client { program, options };
    match client.execute(&command, console) {
        Ok(()) => 0,
        Err(failure) => complain(&failure, console),
    }
}

fn complain(failure: &Failure, console: &mut Console) -> u8 {
    if *failure != Failure::Told {
        console.complain(&format!("Error: {failure}"));
    }
    failure.exit()
}

struct Client<'a> {
    program: &'a str,
    options: Options,
}

impl Client<'_> {
    fn execute(&self, command: &Command, console: &mut Console) -> Result<(), Failure> {
        let Options { format, hex, .. } = self.options;
        match command {
            Command::Put(put) => {
                let words = keys::put(put, read_value)?;
                let (header, reply) = self.ask(&Question::write(words))?;
                let (_, previous) = known(reply::put(&reply), "PUT")?;
                console.print(&output::put(&header, previous.as_ref(), format, hex)?);
            }
            Command::Get(get) => {
                let words = keys::get(get, format)?;
                let (header, reply) = self.ask(&Question::read(words))?;
                let range = known(reply::range(&reply), "RANGE")?;
                let values_only = get.print_value_only == Some(true);
                console.print(&output::get(&header, &range, format, hex, values_only)?);
            }
            Command::Del(del) => {
                let words = keys::del(del)?;
                let (header, reply) = self.ask(&Question::write(words))?;
                let (deleted, previous) = known(reply::delete(&reply), "DEL")?;
                console.print(&output::del(&header, deleted, &previous, format, hex)?);
            }
            Command::Txn(txn) => {
                output::refuse_txn_format(format)?;
                let txn = txn::read(txn, &mut std::io::stdin().lock(), console)?;
                let (header, reply) = self.ask(&txn.question())?;
                let (revision, succeeded, done) =
                    known(reply::txn(&reply, &txn.success.kinds, &txn.failure.kinds), "TXN")?;
                let header = Header { revision, ..header };
                console.print(&output::txn(&header, succeeded, &done, format, hex)?);
            }
            Command::Member(Member::List(_)) => {
                let (header, members) = self.members()?;
                console.print(&output::members(&header, &members, format, hex)?);
            }
            Command::Member(change) => return self.change_members(change, console),
            Command::Compaction(compaction) => return self.compact(compaction, console),
            Command::Lease(lease) => return self.lease(lease, console),
            Command::Alarm(alarm) => return self.alarm(alarm, console),
            Command::Check(check) => return self.check(check, console),
            Command::Defrag(defrag) => return self.defrag(defrag, console),
            Command::Lock(lock) => return self.lock(lock, console),
            Command::Elect(elect) => return self.elect(elect, console),
            Command::MoveLeader(id) => return self.move_leader(id, console),
            Command::Watch(watch) => return self.watch(watch, console),
            Command::Endpoint(endpoint) => return self.endpoint(endpoint, console),
            Command::MakeMirror(mirror) => return self.make_mirror(mirror, console),
            Command::Completion(completion) => console.print(&completion.script(self.program)?),
            Command::Version(_) => console.print(version::text(Role::Client, self.program).as_bytes()),
        }
        Ok(())
    }

    fn patience(&self) -> Patience {
        Patience {
            dial_timeout: self.options.dial_timeout,
            deadline: OsClock.now() + self.options.command_timeout,
            rounds: true,
        }
    }

    fn ask(&self, question: &Question) -> Result<(Header, Value), Failure> {
        ask(&self.options.endpoints, question, self.patience())
    }

    fn members(&self) -> Result<(Header, Vec<crate::api::Member>), Failure> {
        let (header, reply) = self.ask(&Question::read(words(&["MEMBER", "LIST"])))?;
        Ok((header, known(reply::members(&reply), "MEMBER LIST")?))
    }

    /// Those that were named, or those of all members.
    fn endpoints(&self, cluster: Option<bool>) -> Result<Vec<String>, Failure> {
        if cluster != Some(true) {
            return Ok(self.options.endpoints.clone());
        }
        let failed =
            |why| Failure::Usage(format!("failed to fetch endpoints from etcd cluster member list: {why}"));
        let (_, members) = self.members().map_err(failed)?;
        Ok(members.into_iter().flat_map(|member| member.client_urls).collect())
    }

    fn endpoint(
        &self,
        Endpoint { cluster, command }: &Endpoint,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let endpoints = self.endpoints(*cluster)?;
        match command {
            EndpointCommand::Status(_) => self.status(&endpoints, console),
            EndpointCommand::Hashkv(asked) => self.hash_kv(&endpoints, asked, console),
            EndpointCommand::Health(_) => self.health(&endpoints, console),
        }
    }

    /// Asks one server once: this command is about now, not about what will be in a while.
    fn ask_now(&self, endpoint: &String, question: &Question) -> Result<(Header, Value), Failure> {
        let patience = Patience { rounds: false, ..self.patience() };
        ask(std::slice::from_ref(endpoint), question, patience)
    }

    fn status(&self, endpoints: &[String], console: &mut Console) -> Result<(), Failure> {
        let mut found = Vec::new();
        for endpoint in endpoints {
            let status =
                self.ask_now(endpoint, &Question::read(words(&["STATUS"]))).and_then(|(header, reply)| {
                    let mut status = known(reply::status(&reply), "STATUS")?;
                    status.version = version::of_server(self.program, &status.version);
                    Ok(EndpointStatus { endpoint: endpoint.clone(), header, status })
                });
            match status {
                Ok(status) => found.push(status),
                Err(failure) => {
                    console.complain(&format!("Failed to get the status of endpoint {endpoint} ({failure})"));
                }
            }
        }
        console.print(&output::endpoint_status(&found, self.options.format)?);
        if found.len() == endpoints.len() { Ok(()) } else { Err(Failure::Told) }
    }

    /// A server is healthy when a linearizable read through it succeeds, whatever it finds: that takes a
    /// leader and a quorum behind it. And when no alarm stands.
    fn health(&self, endpoints: &[String], console: &mut Console) -> Result<(), Failure> {
        let question = Question::read(words(&["RANGE", "health", "KEYS"]));
        let found: Vec<EndpointHealth> = endpoints
            .iter()
            .map(|endpoint| {
                let began = OsClock.now();
                let error = match self.ask_now(endpoint, &question) {
                    Ok(_) => self.active_alarms(endpoint),
                    // In etcdctl's words; what is behind them, which etcdctl logs, is a line before.
                    Err(failure) => match failure.cause() {
                        Some(cause) => {
                            console.complain(&format!("Warning: {cause}"));
                            TOO_LATE.into()
                        }
                        None => failure.to_string(),
                    },
                };
                let took = go::duration(OsClock.now().since(began));
                EndpointHealth { endpoint: endpoint.clone(), took, error }
            })
            .collect();
        let (out, err) = output::endpoint_health(&found, self.options.format)?;
        console.print(&out);
        if found.iter().all(|health| health.error.is_empty()) {
            return Ok(());
        }
        let _ = console.err.write_all(&err);
        Err(Failure::Unhealthy)
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn known<T>(reply: Option<T>, command: &str) -> Result<T, Failure> {
    reply.ok_or_else(|| Failure::Protocol(format!("the answer to {command} has an unknown shape")))
}

/// The value of a `put` that has none on its command line.
fn read_value() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut value);
    read.map_err(|error| Failure::Usage(format!("reading the value from standard input: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_line_is_told_without_its_code() {
        for (line, text) in [
            (
                "COMPACTED 7 etcdserver: mvcc: required revision has been compacted",
                "etcdserver: mvcc: required revision has been compacted",
            ),
            ("NOKEY etcdserver: key not found", "etcdserver: key not found"),
            ("ERR", "e:1: ERR"),
        ] {
            assert_eq!(Failure::fault("e:1", line).to_string(), text);
        }
    }
}
