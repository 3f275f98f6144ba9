//! The client's command line: etcdctl's words, parsed by clap (its conventions are etcdctl's: two dashes,
//! one-letter forms, global flags anywhere, unique beginnings of command names).

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::Failure;
use super::check::Check;
use crate::base::time::{Nanos, SECOND};
use crate::cli::go;
use crate::cli::output::Format;
use crate::cli::values::Environment;

#[derive(Debug, Parser)]
#[command(
    name = "pawlctl",
    about = "Talks to a Pawl server",
    infer_subcommands = true,
    disable_version_flag = true
)]
#[command(disable_help_subcommand = false, arg_required_else_help = true)]
pub struct Line {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Servers to ask, tried in turn [default: 127.0.0.1:2379]
    #[arg(long, global = true, value_name = "HOST:PORT,...")]
    endpoints: Vec<String>,
    /// Time for one command [default: 5s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    command_timeout: Option<Nanos>,
    /// Time to connect to one server [default: 2s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    dial_timeout: Option<Nanos>,
    /// simple, json, fields or table [default: simple]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    write_out: Option<String>,
    /// Print keys and values as \xHH
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    hex: Option<bool>,
    #[command(flatten)]
    tolerated: Tolerated,
    #[command(flatten)]
    missing: Missing,
}

/// Flags of etcdctl that change nothing here.
#[derive(Debug, Args)]
struct Tolerated {
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    debug: Option<String>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    insecure_transport: Option<String>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    insecure_discovery: Option<String>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    insecure_skip_tls_verify: Option<String>,
    #[arg(long, global = true, hide = true)]
    keepalive_time: Option<String>,
    #[arg(long, global = true, hide = true)]
    keepalive_timeout: Option<String>,
    #[arg(long, global = true, hide = true)]
    max_request_bytes: Option<String>,
    #[arg(long, global = true, hide = true)]
    max_recv_bytes: Option<String>,
}

/// Flags of etcdctl that ask for what is not there yet. To go on without them could send a secret in the
/// clear or ask the wrong server.
#[derive(Debug, Args)]
struct Missing {
    #[arg(long, global = true, hide = true)]
    cacert: Option<String>,
    #[arg(long, global = true, hide = true)]
    cert: Option<String>,
    #[arg(long, global = true, hide = true)]
    key: Option<String>,
    #[arg(long, global = true, hide = true)]
    user: Option<String>,
    #[arg(long, global = true, hide = true)]
    password: Option<String>,
    #[arg(short, long, global = true, hide = true)]
    discovery_srv: Option<String>,
    #[arg(long, global = true, hide = true)]
    discovery_srv_name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sets a key; the value comes from standard input if it is not given
    Put(Put),
    /// Reads a key or a range of keys
    Get(Get),
    /// Deletes a key or a range of keys
    Del(Del),
    /// Does several requests in one transaction; it is read from standard input
    #[command(long_about = TXN)]
    Txn(Txn),
    /// Ends the history before a revision: what can only be seen there goes
    Compaction(Compaction),
    /// Prints every change of a key or a range of keys, or runs a command for it
    Watch(Watch),
    /// Grants, renews, ends and shows leases
    #[command(subcommand, infer_subcommands = true, arg_required_else_help = true)]
    Lease(Lease),
    /// Shows or ends alarms: while one stands, writes are refused
    #[command(subcommand, infer_subcommands = true, arg_required_else_help = true)]
    Alarm(Alarm),
    /// Loads the cluster, and judges how it carries that
    #[command(subcommand, infer_subcommands = true, arg_required_else_help = true)]
    Check(Check),
    /// Gives free room of each server's file back to its file system
    Defrag(Defrag),
    /// Holds a lock while a command runs, or until it is interrupted
    #[command(long_about = LOCK)]
    Lock(Lock),
    /// Takes part in an election, or shows who leads
    #[command(long_about = ELECT)]
    Elect(Elect),
    /// Reads and changes the cluster's members
    #[command(subcommand, infer_subcommands = true, arg_required_else_help = true)]
    Member(Member),
    /// Hands leadership to another member, whose ID is in hex
    MoveLeader(MemberId),
    /// Asks servers about themselves
    // No `help` below it, or `endpoint he` would be ambiguous.
    #[command(infer_subcommands = true, arg_required_else_help = true, disable_help_subcommand = true)]
    Endpoint(Endpoint),
    /// Keeps the keys of another cluster as they are here
    #[command(long_about = MIRROR)]
    MakeMirror(MakeMirror),
    /// Prints a script with which a shell completes commands and flags
    #[command(long_about = COMPLETION)]
    Completion(Completion),
    /// Prints the version of this client
    Version(Rest),
}

const LOCK: &str = "Waits for the lock NAME and holds it, on a lease that is renewed meanwhile: while COMMAND runs, or, without \
one, after printing its key, until it is interrupted. What is held is then given back.

COMMAND finds the lock's key in ETCD_LOCK_KEY, and the fencing revision in ETCD_LOCK_REV: it is higher for each owner than for \
the one before. Its exit code is passed on. Flags stand before it.";

const ELECT: &str = "Waits until PROPOSAL leads the election NAME, prints its key and value, and leads on a lease that is \
renewed until it is interrupted. With -l, prints who leads, and again whenever that is seen to change, until it is interrupted.";

const MIRROR: &str = "Copies all keys, or those with a prefix, to another cluster, whose endpoints are DEST, and then does \
there what is done here, until it is interrupted; every 30 seconds it prints how many keys it has mirrored. What one transaction did \
here is done in one there, if it fits.

Leases are not mirrored: keys are put without. Keys that are at the destination alone stay. The keys at the destination are the \
mirror's: what others write to them is written over by their next change here.";

const COMPLETION: &str = "Prints a script with which a shell completes the commands and flags of this program, under the name by which \
it was called.

    source <(pawlctl completion bash)                                        in ~/.bashrc
    pawlctl completion zsh > \"${fpath[1]}/_pawlctl\"                          once
    pawlctl completion fish > ~/.config/fish/completions/pawlctl.fish        once";

const TXN: &str = "Does several requests in one transaction.

It is read from standard input: compares, a blank line, the requests that are done if all compares hold, a blank line,
the requests that are done if not, a blank line.

    mod(\"key\") > \"0\"          mod, create (m, c), version (ver), value (val), lease in hex; = != < >

    put key \"a value\"          put, get and del with their flags

    put key created
    get other --prefix
";

#[derive(Debug, Args)]
pub struct Txn {
    #[arg(hide = true)]
    pub words: Vec<OsString>,
    /// Say what is read next
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub interactive: Option<bool>,
}

/// One line of a transaction.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, infer_subcommands = true, disable_help_flag = true)]
#[command(disable_help_subcommand = true)]
pub enum TxnRequest {
    Put(Put),
    Get(Get),
    Del(Del),
}

impl TxnRequest {
    pub fn read(words: Vec<OsString>) -> Option<TxnRequest> {
        TxnRequest::try_parse_from(words).ok()
    }
}

/// Words that etcdctl accepts and passes over.
#[derive(Debug, Args)]
pub struct Rest {
    #[arg(hide = true)]
    rest: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Put {
    /// Behind `--` they may begin with a dash
    #[arg(value_name = "KEY [VALUE]")]
    pub words: Vec<OsString>,
    /// Lease to attach, in hex
    #[arg(long, default_value = "0", value_name = "ID")]
    pub lease: String,
    /// Print what was there before
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub prev_kv: Option<bool>,
    /// Keep the value that is there
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub ignore_value: Option<bool>,
    /// Keep the lease that is attached
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub ignore_lease: Option<bool>,
}

/// Which keys: `key`, `key end`, `key --prefix`, `key --from-key`.
#[derive(Debug, Args)]
pub struct Keys {
    /// The end is not included
    #[arg(value_name = "KEY [END]")]
    pub words: Vec<OsString>,
    /// All keys that begin so
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub prefix: Option<bool>,
    /// All keys at or after this one
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub from_key: Option<bool>,
}

#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    pub keys: Keys,
    /// l: linearizable; s: serializable, from this server alone and possibly stale
    #[arg(long, default_value = "l", value_name = "l|s")]
    pub consistency: String,
    /// ASCEND or DESCEND
    #[arg(long, default_value = "", value_name = "ORDER")]
    pub order: String,
    /// CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(long, default_value = "", value_name = "FIELD")]
    pub sort_by: String,
    /// At most so many keys; 0 = all
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub limit: i64,
    /// As of this revision; 0 = now
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub rev: i64,
    /// Without values
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub keys_only: Option<bool>,
    /// Only how many; needs -w fields
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub count_only: Option<bool>,
    /// Without keys; needs -w simple
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub print_value_only: Option<bool>,
}

#[derive(Debug, Args)]
pub struct Del {
    #[command(flatten)]
    pub keys: Keys,
    /// Print what was deleted
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub prev_kv: Option<bool>,
    /// Accepted: a range is always deleted at once
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    range: Option<String>,
}

#[derive(Debug, Args)]
pub struct Compaction {
    /// The first that can still be read
    #[arg(value_name = "REVISION")]
    pub words: Vec<OsString>,
    /// Wait until the room of what goes is free
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub physical: Option<bool>,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// The end is not included
    #[arg(value_name = "KEY [END]")]
    pub words: Vec<OsString>,
    /// Run for each event, which ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE
    /// tell it
    #[arg(last = true, value_name = "COMMAND ARGUMENTS")]
    pub command: Vec<OsString>,
    /// Read `watch KEY ...` and `progress` from standard input, line by line
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub interactive: Option<bool>,
    /// All keys that begin so
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub prefix: Option<bool>,
    /// From this revision on; 0 = from now on
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub rev: i64,
    /// Print what was there before
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub prev_kv: Option<bool>,
    /// Print from time to time up to which revision nothing happened
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub progress_notify: Option<bool>,
}

#[derive(Debug, Args)]
pub struct Completion {
    #[arg(value_name = "bash|fish|zsh")]
    words: Vec<OsString>,
}

impl Completion {
    /// The script. `program` is the name that was typed.
    pub fn script(&self, program: &str) -> Result<Vec<u8>, Failure> {
        let shell = match &self.words[..] {
            [word] if word == "bash" => Shell::Bash,
            [word] if word == "fish" => Shell::Fish,
            [word] if word == "zsh" => Shell::Zsh,
            words => {
                let found: Vec<String> =
                    words.iter().map(|word| go::quote(word.as_encoded_bytes())).collect();
                return Err(Failure::BadArguments(format!(
                    "completion takes one of bash, fish and zsh, found [{}]",
                    found.join(" ")
                )));
            }
        };
        // A shell completes the words of a command by its name, and `pawld ctl` is none.
        let name = if program.contains(' ') { "pawlctl" } else { program };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut shown(&Line::command()), name, &mut script);
        Ok(script)
    }
}

/// A command without what its help does not show: what is refused, or does nothing, is not to be offered.
fn shown(command: &clap::Command) -> clap::Command {
    let mut out = clap::Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().map(shown));
    if let Some(about) = command.get_about() {
        out = out.about(about.clone());
    }
    out
}

/// Words of a transaction in the line protocol are bounded, and each operation has seven.
const MIRROR_OPS_MAX: i64 = 8_192;

#[derive(Debug, Args)]
pub struct MakeMirror {
    /// The endpoints of the other cluster
    #[arg(value_name = "DEST")]
    pub words: Vec<OsString>,
    /// Only keys that begin so
    #[arg(long, default_value = "", value_name = "PREFIX")]
    pub prefix: OsString,
    /// What they begin with at the destination; the same if it is not given, or empty
    #[arg(long, value_name = "PREFIX")]
    pub dest_prefix: Option<OsString>,
    /// Take the prefix away at the destination
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub no_dest_prefix: Option<bool>,
    /// Copy nothing, and do from this revision on what is done here; 0 = copy first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub rev: i64,
    /// So many operations in one transaction
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=MIRROR_OPS_MAX))]
    pub max_txn_ops: u32,
    #[command(flatten)]
    pub missing: MissingThere,
}

/// The same as [`Missing`], of the destination.
#[derive(Debug, Args)]
pub struct MissingThere {
    #[arg(long, hide = true)]
    dest_cacert: Option<String>,
    #[arg(long, hide = true)]
    dest_cert: Option<String>,
    #[arg(long, hide = true)]
    dest_key: Option<String>,
    #[arg(long, hide = true)]
    dest_user: Option<String>,
    #[arg(long, hide = true)]
    dest_password: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    dest_insecure_transport: Option<String>,
}

impl MissingThere {
    pub fn refuse(&self) -> Result<(), Failure> {
        let MissingThere { dest_cacert, dest_cert, dest_key, dest_user, dest_password, .. } = self;
        // As etcdctl has it, the destination is spoken to in the clear unless this says no.
        let secure =
            self.dest_insecure_transport.as_deref().is_some_and(|word| go::parse_bool(word) == Some(false));
        let tls = secure || dest_cacert.is_some() || dest_cert.is_some() || dest_key.is_some();
        not_yet(tls, dest_user.is_some() || dest_password.is_some(), false)
    }
}

#[derive(Debug, Subcommand)]
pub enum Alarm {
    /// Lists the alarms that stand
    List(NoWords),
    /// Ends all alarms
    Disarm(NoWords),
}

/// Words that etcdctl refuses.
#[derive(Debug, Args)]
pub struct NoWords {
    #[arg(hide = true)]
    pub words: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Defrag {
    /// Ask every member of the cluster
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub cluster: Option<bool>,
    #[command(flatten)]
    rest: Rest,
}

#[derive(Debug, Subcommand)]
pub enum Lease {
    /// A new lease of so many seconds
    Grant(LeaseWords),
    /// Ends a lease and deletes its keys
    Revoke(LeaseWords),
    /// How long a lease has left
    Timetolive(LeaseTimeToLive),
    /// Lists the leases
    List(Rest),
    /// Renews a lease until it is gone
    KeepAlive(LeaseKeepAlive),
}

#[derive(Debug, Args)]
pub struct LeaseWords {
    /// A TTL in seconds, or the ID of a lease in hex
    #[arg(value_name = "TTL|ID")]
    pub words: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct LeaseTimeToLive {
    /// In hex, as `lease list` prints it
    #[arg(value_name = "ID")]
    pub words: Vec<OsString>,
    /// Print the keys that are attached
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub keys: Option<bool>,
}

#[derive(Debug, Args)]
pub struct LeaseKeepAlive {
    /// In hex, as `lease list` prints it
    #[arg(value_name = "ID")]
    pub words: Vec<OsString>,
    /// Renew once
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub once: Option<bool>,
}

#[derive(Debug, Args)]
pub struct Lock {
    /// Seconds after which the lock is lost if it cannot be renewed
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=9_000_000_000))]
    pub ttl: Option<u64>,
    pub name: Option<OsString>,
    /// Is run while the lock is held
    #[arg(trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Elect {
    /// Print who leads, and do not take part
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub listen: Option<bool>,
    /// Seconds after which leadership is lost if it cannot be renewed
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=9_000_000_000))]
    pub ttl: Option<u64>,
    #[arg(value_name = "NAME|PROPOSAL")]
    pub words: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub enum Member {
    /// Lists the members
    List(Rest),
    /// Adds a member; prints the settings with which to start it
    Add(MemberAdd),
    /// Removes a member for good
    Remove(MemberId),
    /// Replaces the peer URLs of a member
    Update(MemberUpdate),
    /// Makes a voter of a learner that has caught up
    Promote(MemberId),
    /// Adds, removes and promotes members in one step: all of it happens, or none
    Change(MemberChange),
}

#[derive(Debug, Args)]
pub struct MemberChange {
    /// A new voter, and where the other members will reach it
    #[arg(long, value_name = "URL,...")]
    pub add: Vec<String>,
    /// A new learner
    #[arg(long, value_name = "URL,...")]
    pub add_learner: Vec<String>,
    /// In hex, as `member list` prints it
    #[arg(long, value_name = "ID")]
    pub remove: Vec<OsString>,
    /// A learner that has caught up
    #[arg(long, value_name = "ID")]
    pub promote: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct MemberAdd {
    #[arg(value_name = "NAME")]
    pub words: Vec<OsString>,
    /// Where the other members will reach it
    #[arg(long, default_value = "", value_name = "URL,...")]
    pub peer_urls: String,
    /// It gets the data and has no vote, until it is promoted
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub learner: Option<bool>,
}

#[derive(Debug, Args)]
pub struct MemberId {
    /// In hex, as `member list` prints it
    #[arg(value_name = "ID")]
    pub words: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct MemberUpdate {
    /// In hex, as `member list` prints it
    #[arg(value_name = "ID")]
    pub words: Vec<OsString>,
    /// Where the other members will reach it
    #[arg(long, default_value = "", value_name = "URL,...")]
    pub peer_urls: String,
}

#[derive(Debug, Args)]
pub struct Endpoint {
    /// Ask every member of the cluster
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, value_name = "BOOL")]
    pub cluster: Option<bool>,
    #[command(subcommand)]
    pub command: EndpointCommand,
}

#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// Does each server answer a linearizable read?
    Health(Rest),
    /// What each server says of itself
    Status(Rest),
    /// The hash of each server's history: equal where the same was done
    Hashkv(HashKv),
}

#[derive(Debug, Args)]
pub struct HashKv {
    /// Up to this revision; 0 = now
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub rev: i64,
}

/// What etcdctl has and this client has not yet.
const NOT_YET: &[&str] = &["auth", "downgrade", "role", "snapshot", "user"];

/// How to reach servers and print answers: flags, then `PAWLCTL_X`, then `ETCDCTL_X`, then defaults.
#[derive(Debug)]
pub struct Options {
    pub endpoints: Vec<String>,
    pub command_timeout: Nanos,
    pub dial_timeout: Nanos,
    pub format: Format,
    pub hex: bool,
    /// `WATCH_KEY` and `WATCH_RANGE_END`: what to watch where no word says so. The key is empty if there is only an end.
    pub watched: Vec<OsString>,
}

/// Text for standard output instead of a command: help.
pub struct Help(pub String);

/// Reads `words` (without the program's name).
pub fn read(
    program: &str,
    words: &[OsString],
    environment: &Environment,
) -> Result<Result<(Options, Command), Help>, Failure> {
    let mut command = Line::command().bin_name(program.to_owned());
    if is_etcdctl(program) {
        // There flags of ours may stand anywhere, and those of the command behind `--`.
        let anywhere = |lock: clap::Command| lock.mut_arg("command", |arg| arg.trailing_var_arg(false));
        command = command.mut_subcommand("lock", anywhere);
    }
    let argv = std::iter::once(OsString::from(program)).chain(words.iter().cloned());
    let line =
        command.try_get_matches_from(argv).and_then(|mut matches| Line::from_arg_matches_mut(&mut matches));
    match line {
        Ok(Line { command: Command::Watch(watch), .. })
            if watch.command.is_empty() && words.last().is_some_and(|word| word == "--") =>
        {
            let text = "bad number of arguments (found separator --, but no commands)";
            Err(Failure::BadArguments(text.into()))
        }
        Ok(Line { globals, command }) => Ok(Ok((globals.options(environment)?, command))),
        Err(error) => explain(program, error).map(Err),
    }
}

/// Whether what differs on purpose from etcdctl shall not differ.
pub fn is_etcdctl(program: &str) -> bool {
    program.starts_with("etcd")
}

/// clap's findings in etcdctl's terms: help is no error, and an error is one line.
fn explain(program: &str, error: clap::Error) -> Result<Help, Failure> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let hint = |kind| context(kind).map_or(String::new(), |near| format!("; did you mean {near}?"));
    let line = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Ok(Help(format!("{}\n", error.to_string().trim_end())));
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            if !word.is_empty() && NOT_YET.iter().any(|known| known.starts_with(&word)) {
                return Err(Failure::Feature(format!("the command {word} is not available yet")));
            }
            format!("unknown command {word:?} for {program:?}{}", hint(ContextKind::SuggestedSubcommand))
        }
        ErrorKind::UnknownArgument => {
            let word = context(ContextKind::InvalidArg).unwrap_or_default();
            match word.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
                Some(rest) => {
                    format!("unknown shorthand flag: '{}' in {word}", rest.chars().next().unwrap_or('-'))
                }
                None => format!("unknown flag: {word}{}", hint(ContextKind::SuggestedArg)),
            }
        }
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    Err(Failure::Usage(line))
}

impl Globals {
    fn options(self, environment: &Environment) -> Result<Options, Failure> {
        let variable = |name: &str| {
            ["PAWLCTL_", "ETCDCTL_"].iter().map(|prefix| format!("{prefix}{name}")).find_map(|name| {
                environment.get(&name).filter(|value| !value.is_empty()).map(|value| (name, value))
            })
        };
        let said = |name: &str| variable(name).map(|(_, value)| value.as_str());
        self.missing.refuse(said)?;
        let in_the_clear = self.tolerated.insecure_transport.as_deref().or(said("INSECURE_TRANSPORT"));
        not_yet(in_the_clear.is_some_and(|word| go::parse_bool(word) == Some(false)), false, false)?;
        if said("API") == Some("2") {
            return Err(Failure::Feature(
                "the API of version 2, which ETCDCTL_API asks for, is not here".into(),
            ));
        }
        let time = |given: Option<Nanos>, name: &str, default: Nanos| match (given, variable(name)) {
            (Some(given), _) => Ok(given),
            (None, Some((name, text))) => {
                duration(text).map_err(|why| Failure::Usage(format!("{name}: {why}")))
            }
            (None, None) => Ok(default),
        };
        let endpoints = match (self.endpoints.is_empty(), variable("ENDPOINTS")) {
            (false, _) => self.endpoints,
            (true, Some((_, text))) => vec![text.clone()],
            (true, None) => vec!["127.0.0.1:2379".into()],
        };
        let endpoints =
            endpoints.iter().flat_map(|list| list.split(',')).map(|item| item.trim().to_owned()).collect();
        let format = self.write_out.or(variable("WRITE_OUT").map(|(_, text)| text.clone()));
        let hex = match (self.hex, variable("HEX")) {
            (Some(hex), _) => hex,
            (None, Some((name, text))) => {
                boolean(text).map_err(|why| Failure::Usage(format!("{name}: {why}")))?
            }
            (None, None) => false,
        };
        Ok(Options {
            endpoints,
            command_timeout: time(self.command_timeout, "COMMAND_TIMEOUT", 5 * SECOND)?,
            dial_timeout: time(self.dial_timeout, "DIAL_TIMEOUT", 2 * SECOND)?,
            format: format
                .map_or(Ok(Format::Simple), |word| Format::parse(&word).map_err(Failure::Feature))?,
            hex,
            watched: match (said("WATCH_KEY"), said("WATCH_RANGE_END")) {
                (None, None) => Vec::new(),
                (key, end) => {
                    std::iter::once(key.unwrap_or_default()).chain(end).map(OsString::from).collect()
                }
            },
        })
    }
}

impl Missing {
    /// `said`: the value of a variable.
    fn refuse<'a>(&self, said: impl Fn(&str) -> Option<&'a str>) -> Result<(), Failure> {
        let Missing { cacert, cert, key, user, password, discovery_srv, discovery_srv_name } = self;
        let asked = |flag: &Option<String>, name: &str| flag.is_some() || said(name).is_some();
        not_yet(
            asked(cacert, "CACERT") || asked(cert, "CERT") || asked(key, "KEY"),
            asked(user, "USER") || asked(password, "PASSWORD"),
            asked(discovery_srv, "DISCOVERY_SRV") || asked(discovery_srv_name, "DISCOVERY_SRV_NAME"),
        )
    }
}

/// Refuses the first that is asked for.
fn not_yet(tls: bool, authentication: bool, discovery: bool) -> Result<(), Failure> {
    for (asked, missing) in
        [(tls, "TLS is"), (authentication, "authentication is"), (discovery, "discovery by DNS is")]
    {
        if asked {
            return Err(Failure::Feature(format!("{missing} not available yet")));
        }
    }
    Ok(())
}

fn duration(text: &str) -> Result<Nanos, String> {
    go::parse_duration(text).ok_or_else(|| format!("expected a duration such as 5s or 300ms, found {text:?}"))
}

fn boolean(text: &str) -> Result<bool, String> {
    go::parse_bool(text).ok_or_else(|| format!("expected true or false, found {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str, environment: &[(&str, &str)]) -> Result<(Options, Command), String> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        match read("etcdctl", &words, &environment) {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(Help(text))) => Err(text),
            Err(failure) => Err(format!("{} {}", failure.exit(), failure)),
        }
    }

    #[test]
    fn clap_agrees_with_itself() {
        Line::command().debug_assert();
    }

    #[test]
    fn endpoints_from_everywhere() {
        let endpoints = |words, env: &[(&str, &str)]| parse(words, env).unwrap().0.endpoints;
        assert_eq!(endpoints("get a", &[]), ["127.0.0.1:2379"]);
        assert_eq!(endpoints("--endpoints=a:1,b:2 get a", &[]), ["a:1", "b:2"]);
        assert_eq!(endpoints("get a --endpoints a:1 --endpoints http://b:2", &[]), ["a:1", "http://b:2"]);
        assert_eq!(endpoints("--endpoints a:1 get a --endpoints b:2", &[]), ["b:2"]); // the nearer one
        let both = [("ETCDCTL_ENDPOINTS", "e:1"), ("PAWLCTL_ENDPOINTS", "p:1,p:2")];
        assert_eq!(endpoints("get a", &both), ["p:1", "p:2"]);
        assert_eq!(endpoints("get a", &both[..1]), ["e:1"]);
        assert_eq!(endpoints("get a --endpoints f:1", &both), ["f:1"]);
    }

    #[test]
    fn timeouts_and_formats() {
        let (options, _) = parse("put a b --command-timeout=1m30s -w json --hex --debug", &[]).unwrap();
        assert_eq!((options.command_timeout, options.dial_timeout), (90 * SECOND, 2 * SECOND));
        assert!(options.format == Format::Json && options.hex);
        let (options, _) = parse("get a", &[("ETCDCTL_DIAL_TIMEOUT", "1s"), ("ETCDCTL_API", "3")]).unwrap();
        assert_eq!(options.dial_timeout, SECOND);
        assert!(
            parse("get a", &[("PAWLCTL_DIAL_TIMEOUT", "1")]).unwrap_err().contains("PAWLCTL_DIAL_TIMEOUT")
        );
        assert_eq!(parse("get a -w xml", &[]).unwrap_err(), "4 unsupported output format");
    }

    #[test]
    fn booleans_and_beginnings() {
        let Command::Get(get) = parse("ge --prefix=true --keys-only=0 --print-value-only k", &[]).unwrap().1
        else {
            panic!("ge is get");
        };
        assert_eq!(
            (get.keys.prefix, get.keys_only, get.print_value_only),
            (Some(true), Some(false), Some(true))
        );
        assert!(matches!(parse("mem l", &[]).unwrap().1, Command::Member(Member::List(_))));
        let Command::Endpoint(endpoint) = parse("endp he --cluster", &[]).unwrap().1 else {
            panic!("endpoint")
        };
        assert!(endpoint.cluster == Some(true) && matches!(endpoint.command, EndpointCommand::Health(_)));
        let Command::Put(put) = parse("put -- -a --prefix", &[]).unwrap().1 else { panic!("put") };
        assert_eq!(put.words, ["-a", "--prefix"]);
    }

    #[test]
    fn complaints_are_one_line() {
        for (words, line) in [
            ("bogus", "1 unknown command \"bogus\" for \"etcdctl\""),
            ("pit a b", "1 unknown command \"pit\" for \"etcdctl\"; did you mean put?"),
            ("user add a", "4 the command user is not available yet"),
            (
                "make-mirror a --max-txn-ops 0",
                "1 invalid value '0' for '--max-txn-ops <MAX_TXN_OPS>': 0 is not in 1..=8192",
            ),
            ("member add x --peer-url=y", "1 unknown flag: --peer-url; did you mean --peer-urls?"),
            ("get a --bogus", "1 unknown flag: --bogus"),
            ("get a --prefxi", "1 unknown flag: --prefxi; did you mean --prefix?"),
            ("get a --limit=x", "1 invalid value 'x' for '--limit <LIMIT>': invalid digit found in string"),
            (
                "get a --prefix=maybe",
                "1 invalid value 'maybe' for '--prefix[=<BOOL>]': expected true or false, found \"maybe\"",
            ),
            ("get a --cacert ca.pem", "4 TLS is not available yet"),
            ("get a --user root:secret", "4 authentication is not available yet"),
        ] {
            assert_eq!(parse(words, &[]).unwrap_err(), line, "{words}");
        }
        for (name, value, line) in [
            ("ETCDCTL_CACERT", "ca.pem", "4 TLS is not available yet"),
            ("ETCDCTL_INSECURE_TRANSPORT", "false", "4 TLS is not available yet"),
            ("PAWLCTL_USER", "root:secret", "4 authentication is not available yet"),
            ("ETCDCTL_DISCOVERY_SRV", "a.example", "4 discovery by DNS is not available yet"),
            ("ETCDCTL_API", "2", "4 the API of version 2, which ETCDCTL_API asks for, is not here"),
        ] {
            assert_eq!(parse("get a", &[(name, value)]).unwrap_err(), line, "{name}");
        }
        for words in ["", "help", "get --help", "member", "endpoint", "-h"] {
            assert!(parse(words, &[]).unwrap_err().contains("Usage: etcdctl"), "{words:?}");
        }
    }
}
