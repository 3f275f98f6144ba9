//! The one table of commands. It parses options, counts words, writes the usage lines of errors, and answers
//! `COMMAND DOCS`, from which `redis-cli` takes its hints: what a client is shown is what is accepted.

use self::Argument::{
    Any, Choice, Either, Flag, Many, Maybe, Number, OneOf, Section, Span, Texts, Token, Word,
};
use self::Group::{Cluster, Leases, Locks, Session, Watch};
use self::Kind::{Integer, Key, Pattern, Text};

/// What a command is about; the groups of `HELP` in `redis-cli`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Keys,
    Watch,
    Leases,
    Locks,
    Cluster,
    Session,
}

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Group::Keys => "keys",
            Watch => "watch",
            Leases => "leases",
            Locks => "locks",
            Cluster => "cluster",
            Session => "session",
        }
    }
}

/// Which code runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Put,
    Get,
    Range,
    Del,
    Set,
    Txn,
    Compact,
    Defrag,
    HashKv,
    AlarmList,
    AlarmDisarm,
    Exists,
    DbSize,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseList,
    LeaseRevoke,
    LeaseTtl,
    Lock,
    Unlock,
    ElectionCampaign,
    ElectionLeader,
    ElectionObserve,
    ElectionProclaim,
    ElectionResign,
    Status,
    MemberAdd,
    MemberChange,
    MemberList,
    MemberPromote,
    MemberRemove,
    MemberUpdate,
    MoveLeader,
    Watch,
    Unwatch,
    WatchProgress,
    Subscribe,
    Unsubscribe,
    PSubscribe,
    PUnsubscribe,
    Info,
    Ping,
    Echo,
    Hello,
    Header,
    Quit,
    Reset,
    Select,
    ConfigGet,
    ClientSetName,
    ClientSetInfo,
    ClientGetName,
    ClientId,
    Command,
    CommandCount,
    CommandDocs,
    CommandInfo,
    CommandList,
    /// The subcommand decides.
    Container,
}

/// The options that commands take. The number is the option's place in `Given`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opt {
    Lease,
    Prev,
    KeepValue,
    KeepLease,
    Rev,
    Serializable,
    Limit,
    Show,
    Order,
    By,
    MinMod,
    MaxMod,
    MinCreate,
    MaxCreate,
    Id,
    Keys,
    Learner,
    Physical,
    NoPut,
    NoDelete,
    Progress,
    Wait,
}

/// Options there are.
pub const OPTIONS: usize = Opt::Wait as usize + 1;

/// The type of a word, as `COMMAND DOCS` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Key,
    Text,
    Integer,
    Pattern,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Key => "key",
            Text => "string",
            Integer => "integer",
            Pattern => "pattern",
        }
    }
}

/// One argument. The positional ones come first, in their order; options follow in any order.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// `name`
    Word(&'static str, Kind),
    /// `[name]`
    Maybe(&'static str, Kind),
    /// `name [name ...]`
    Many(&'static str, Kind),
    /// `[name ...]`
    Any(&'static str, Kind),
    /// `key [TO end | PREFIX | FROM]`
    Span,
    /// `A|B`: one of these words.
    OneOf(&'static str, &'static [&'static str]),
    /// `[TOKEN]`
    Flag(Opt, &'static str),
    /// `[TOKEN name]`, a number.
    Number(Opt, &'static str, &'static str),
    /// `[A|B]`
    Either(Opt, &'static [&'static str]),
    /// `[TOKEN A|B]`
    Choice(Opt, &'static str, &'static [&'static str]),
    /// `[TOKEN name ...]`, texts; read by the command's own code.
    Texts(&'static str, &'static [&'static str]),
    /// `[TOKEN name ...]`, a list of things that have a grammar of their own.
    Section(&'static str, &'static str),
    /// `TOKEN`
    Token(&'static str),
}

/// Where keys stand, as `COMMAND` tells it to proxies: first, last (-1: to the end), step.
#[derive(Clone, Copy, Debug)]
pub struct Keys(pub i64, pub i64, pub i64);

const NO_KEY: Keys = Keys(0, 0, 0);
const ONE_KEY: Keys = Keys(1, 1, 1);
const ALL_KEYS: Keys = Keys(1, -1, 1);

/// One command, or one subcommand.
#[derive(Debug)]
pub struct Spec {
    /// In capitals; a subcommand's without its container's.
    pub name: &'static str,
    pub run: Run,
    pub group: Group,
    pub summary: &'static str,
    /// `write`, `readonly`, `fast`, ... as Redis names them.
    pub flags: &'static [&'static str],
    pub keys: Keys,
    pub arguments: &'static [Argument],
    pub subcommands: &'static [Spec],
}

const READ: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write", "fast"];
const LOCAL: &[&str] = &["noscript", "loading", "stale", "fast"];

const fn data(
    name: &'static str,
    run: Run,
    flags: &'static [&'static str],
    keys: Keys,
    arguments: &'static [Argument],
    summary: &'static str,
) -> Spec {
    Spec { name, run, group: Group::Keys, summary, flags, keys, arguments, subcommands: &[] }
}

const fn other(
    name: &'static str,
    run: Run,
    group: Group,
    arguments: &'static [Argument],
    summary: &'static str,
) -> Spec {
    Spec { name, run, group, summary, flags: LOCAL, keys: NO_KEY, arguments, subcommands: &[] }
}

const fn container(
    name: &'static str,
    run: Run,
    group: Group,
    summary: &'static str,
    subcommands: &'static [Spec],
) -> Spec {
    Spec { name, run, group, summary, flags: LOCAL, keys: NO_KEY, arguments: &[], subcommands }
}

/// Sorted by name.
pub static COMMANDS: &[Spec] = &[
    container(
        "ALARM",
        Run::Container,
        Cluster,
        "Alarms: while one stands, writes are refused.",
        &[
            other("DISARM", Run::AlarmDisarm, Cluster, &[], "Ends all alarms, and answers which there were."),
            other("LIST", Run::AlarmList, Cluster, &[], "The alarms that stand."),
        ],
    ),
    container(
        "CLIENT",
        Run::Container,
        Session,
        "Names this connection.",
        &[
            other("GETNAME", Run::ClientGetName, Session, &[], "The name of this connection, or null."),
            other("ID", Run::ClientId, Session, &[], "The number of this connection."),
            other(
                "SETINFO",
                Run::ClientSetInfo,
                Session,
                &[Word("attribute", Text), Word("value", Text)],
                "Accepted from client libraries, which send it unasked; not used.",
            ),
            other("SETNAME", Run::ClientSetName, Session, &[Word("name", Text)], "Names this connection."),
        ],
    ),
    container(
        "COMMAND",
        Run::Command,
        Session,
        "All commands, as Redis describes its own.",
        &[
            other("COUNT", Run::CommandCount, Session, &[], "How many commands there are."),
            other("DOCS", Run::CommandDocs, Session, &[Any("command", Text)], "Summaries and arguments."),
            other(
                "INFO",
                Run::CommandInfo,
                Session,
                &[Any("command", Text)],
                "Words, flags and key positions.",
            ),
            other("LIST", Run::CommandList, Session, &[], "The names of all commands."),
        ],
    ),
    data(
        "COMPACT",
        Run::Compact,
        WRITE,
        NO_KEY,
        &[Word("revision", Integer), Flag(Opt::Physical, "PHYSICAL")],
        "Ends the history before a revision; with PHYSICAL, answers when the room is free here.",
    ),
    container(
        "CONFIG",
        Run::Container,
        Session,
        "Reads the settings of this member.",
        &[other(
            "GET",
            Run::ConfigGet,
            Session,
            &[Many("pattern", Pattern)],
            "The flags in effect whose names match; * and ? are wild.",
        )],
    ),
    data("DBSIZE", Run::DbSize, READ, NO_KEY, &[], "How many keys there are."),
    other("DEFRAG", Run::Defrag, Cluster, &[], "Gives free room of this member back to the file system now."),
    data(
        "DEL",
        Run::Del,
        WRITE,
        ONE_KEY,
        &[Span, Flag(Opt::Prev, "PREV")],
        "Deletes a key, or all keys of a span.",
    ),
    other("ECHO", Run::Echo, Session, &[Word("message", Text)], "Answers the message."),
    container(
        "ELECTION",
        Run::Container,
        Locks,
        "One leader at a time, by a key that goes with a lease.",
        &[
            other(
                "CAMPAIGN",
                Run::ElectionCampaign,
                Locks,
                &[
                    Word("name", Text),
                    Word("value", Text),
                    Token("LEASE"),
                    Word("id", Integer),
                    Number(Opt::Wait, "WAIT", "ms"),
                ],
                "Waits for leadership; answers its key and fencing revision.",
            ),
            other(
                "LEADER",
                Run::ElectionLeader,
                Locks,
                &[Word("name", Text)],
                "The leader's key and value, or null.",
            ),
            other(
                "OBSERVE",
                Run::ElectionObserve,
                Locks,
                &[Word("name", Text), Number(Opt::Id, "ID", "id")],
                "Tells who leads, now and whenever that changes; answers an id as WATCH does.",
            ),
            other(
                "PROCLAIM",
                Run::ElectionProclaim,
                Locks,
                &[Word("key", Key), Word("value", Text)],
                "Gives the key that CAMPAIGN answered another value.",
            ),
            other(
                "RESIGN",
                Run::ElectionResign,
                Locks,
                &[Word("key", Key)],
                "Gives leadership up, or the wait for it.",
            ),
        ],
    ),
    data(
        "EXISTS",
        Run::Exists,
        READ,
        ALL_KEYS,
        &[Many("key", Key)],
        "How many of these keys there are; each is a read of its own.",
    ),
    data(
        "GET",
        Run::Get,
        READ,
        ONE_KEY,
        &[Word("key", Key), Number(Opt::Rev, "REV", "revision"), Flag(Opt::Serializable, "SERIALIZABLE")],
        "The value of a key, or null.",
    ),
    other(
        "HASHKV",
        Run::HashKv,
        Cluster,
        &[Number(Opt::Rev, "REV", "revision")],
        "The hash of this member's history up to a revision, which is etcd's.",
    ),
    other(
        "HEADER",
        Run::Header,
        Session,
        &[OneOf("switch", &["ON", "OFF"])],
        "With ON, replies come as [[cluster, member, revision, term], reply].",
    ),
    other(
        "HELLO",
        Run::Hello,
        Session,
        &[Maybe("protover", Integer), Texts("AUTH", &["user", "password"]), Texts("SETNAME", &["name"])],
        "Chooses RESP2 or RESP3, and says who answers.",
    ),
    other("INFO", Run::Info, Cluster, &[Any("section", Text)], "The state of this member as text."),
    container(
        "LEASE",
        Run::Container,
        Leases,
        "Keys that go away when nobody renews their lease.",
        &[
            other(
                "GRANT",
                Run::LeaseGrant,
                Leases,
                &[Word("ttl", Integer), Number(Opt::Id, "ID", "id")],
                "A new lease of so many seconds; answers its id and TTL.",
            ),
            other(
                "KEEPALIVE",
                Run::LeaseKeepAlive,
                Leases,
                &[Many("id", Integer)],
                "Begins the time of leases anew; answers the TTL of each, 0 if it is gone.",
            ),
            other("LIST", Run::LeaseList, Leases, &[], "The ids of all leases."),
            other(
                "REVOKE",
                Run::LeaseRevoke,
                Leases,
                &[Word("id", Integer)],
                "Ends a lease and deletes its keys.",
            ),
            other(
                "TTL",
                Run::LeaseTtl,
                Leases,
                &[Word("id", Integer), Flag(Opt::Keys, "KEYS")],
                "How long a lease has left, and which keys it has.",
            ),
        ],
    ),
    other(
        "LOCK",
        Run::Lock,
        Locks,
        &[Word("name", Text), Token("LEASE"), Word("id", Integer), Number(Opt::Wait, "WAIT", "ms")],
        "Waits for a lock; answers its key and fencing revision.",
    ),
    container(
        "MEMBER",
        Run::Container,
        Cluster,
        "The members of the cluster.",
        &[
            other(
                "ADD",
                Run::MemberAdd,
                Cluster,
                &[Many("url", Text), Flag(Opt::Learner, "LEARNER")],
                "Adds a member that is reached under these URLs by the others.",
            ),
            other(
                "CHANGE",
                Run::MemberChange,
                Cluster,
                &[Many("change", Text)],
                "Several changes in one step: each is ADD url [url ...] [LEARNER], REMOVE id or PROMOTE id.",
            ),
            other(
                "LIST",
                Run::MemberList,
                Cluster,
                &[Flag(Opt::Serializable, "SERIALIZABLE")],
                "The members of the cluster.",
            ),
            other(
                "PROMOTE",
                Run::MemberPromote,
                Cluster,
                &[Word("id", Integer)],
                "Makes a voter of a learner that has caught up.",
            ),
            other("REMOVE", Run::MemberRemove, Cluster, &[Word("id", Integer)], "Removes a member for good."),
            other(
                "UPDATE",
                Run::MemberUpdate,
                Cluster,
                &[Word("id", Integer), Many("url", Text)],
                "Replaces the URLs under which the others reach a member.",
            ),
        ],
    ),
    other(
        "MOVELEADER",
        Run::MoveLeader,
        Cluster,
        &[Word("id", Integer)],
        "Hands leadership to this member; only the leader takes it.",
    ),
    other("PING", Run::Ping, Session, &[Maybe("message", Text)], "PONG, or the message."),
    other(
        "PSUBSCRIBE",
        Run::PSubscribe,
        Watch,
        &[Many("pattern", Pattern)],
        "Watches keys by their beginnings (prefix*), as Redis publishes messages.",
    ),
    other(
        "PUNSUBSCRIBE",
        Run::PUnsubscribe,
        Watch,
        &[Any("pattern", Pattern)],
        "Ends PSUBSCRIBE, of these patterns or of all.",
    ),
    data(
        "PUT",
        Run::Put,
        WRITE,
        ONE_KEY,
        &[
            Word("key", Key),
            Word("value", Text),
            Number(Opt::Lease, "LEASE", "id"),
            Flag(Opt::Prev, "PREV"),
            Flag(Opt::KeepValue, "KEEPVALUE"),
            Flag(Opt::KeepLease, "KEEPLEASE"),
        ],
        "Sets a key and answers the revision.",
    ),
    other("QUIT", Run::Quit, Session, &[], "Closes the connection once all is answered."),
    data(
        "RANGE",
        Run::Range,
        READ,
        ONE_KEY,
        &[
            Span,
            Number(Opt::Limit, "LIMIT", "count"),
            Number(Opt::Rev, "REV", "revision"),
            Flag(Opt::Serializable, "SERIALIZABLE"),
            Either(Opt::Show, SHOW),
            Either(Opt::Order, ORDER),
            Choice(Opt::By, "BY", BY),
            Number(Opt::MinMod, "MINMOD", "revision"),
            Number(Opt::MaxMod, "MAXMOD", "revision"),
            Number(Opt::MinCreate, "MINCREATE", "revision"),
            Number(Opt::MaxCreate, "MAXCREATE", "revision"),
        ],
        "Keys and values of a span.",
    ),
    other(
        "RESET",
        Run::Reset,
        Session,
        &[],
        "Undoes HELLO, HEADER and CLIENT SETNAME, and ends all watches.",
    ),
    other("SELECT", Run::Select, Session, &[Word("index", Integer)], "There is one database; 0 is accepted."),
    data(
        "SET",
        Run::Set,
        WRITE,
        ONE_KEY,
        &[Word("key", Key), Word("value", Text)],
        "Redis's spelling of PUT; answers OK.",
    ),
    other("STATUS", Run::Status, Cluster, &[], "The state of this member."),
    other(
        "SUBSCRIBE",
        Run::Subscribe,
        Watch,
        &[Many("key", Key)],
        "Watches keys, as Redis publishes messages: each event is one JSON text.",
    ),
    data(
        "TXN",
        Run::Txn,
        WRITE,
        NO_KEY,
        &[Section("IF", "compare"), Section("THEN", "operation"), Section("ELSE", "operation"), Token("END")],
        "A transaction: if all compares hold, does the first operations, else the others.",
    ),
    other(
        "UNLOCK",
        Run::Unlock,
        Locks,
        &[Word("key", Key)],
        "Gives a lock back, by the key that LOCK answered.",
    ),
    other(
        "UNSUBSCRIBE",
        Run::Unsubscribe,
        Watch,
        &[Any("key", Key)],
        "Ends SUBSCRIBE, of these keys or of all.",
    ),
    other("UNWATCH", Run::Unwatch, Watch, &[Word("id", Integer)], "Ends a watch."),
    other(
        "WATCH",
        Run::Watch,
        Watch,
        &[
            Span,
            Number(Opt::Rev, "REV", "revision"),
            Flag(Opt::Prev, "PREV"),
            Flag(Opt::NoPut, "NOPUT"),
            Flag(Opt::NoDelete, "NODELETE"),
            Flag(Opt::Progress, "PROGRESS"),
            Number(Opt::Id, "ID", "id"),
        ],
        "Tells every change of a span, from a revision on; answers the watch's id.",
    ),
    other(
        "WATCHPROGRESS",
        Run::WatchProgress,
        Watch,
        &[],
        "Asks how far all watches here were told everything.",
    ),
];

/// The values of `Opt::Show`, `Opt::Order`, `Opt::By`; a `Given` holds the position.
pub const SHOW: &[&str] = &["KEYS", "COUNT"];
pub const ORDER: &[&str] = &["ASC", "DESC"];
pub const BY: &[&str] = &["KEY", "VERSION", "CREATE", "MOD", "VALUE"];

/// Commands that the protocol has and this version does not, or that clients of Redis try; with what to say.
/// Sorted by name.
pub static ABSENT: &[(&str, &str)] = &[
    ("AUTH", "authentication is not in this version of Pawl: every client may do everything"),
    ("DISCARD", NO_MULTI),
    ("EXEC", NO_MULTI),
    ("MGET", "not in this version of Pawl: send several GET in one go, or RANGE"),
    ("MULTI", NO_MULTI),
    ("SNAPSHOT", NOT_YET),
];

const NOT_YET: &str = "not in this version of Pawl yet";
const NO_MULTI: &str = "there is no MULTI: a transaction is one TXN command";

/// A name in capitals as one number, so that looking a command up compares integers. None: no command's name
/// is that long, or has a zero byte (which the number could not tell from the end).
const fn packed(name: &[u8]) -> Option<u128> {
    if name.len() > 16 {
        return None;
    }
    let mut number = 0;
    let mut at = 0;
    while at < 16 {
        number <<= 8;
        if at < name.len() {
            if name[at] == 0 {
                return None;
            }
            number |= name[at].to_ascii_uppercase() as u128;
        }
        at += 1;
    }
    Some(number)
}

static PACKED: [u128; COMMANDS.len()] = {
    let mut numbers = [0; COMMANDS.len()];
    let mut at = 0;
    while at < COMMANDS.len() {
        numbers[at] = match packed(COMMANDS[at].name.as_bytes()) {
            Some(number) => number,
            None => panic!("a command's name has 16 bytes at most"),
        };
        assert!(at == 0 || numbers[at - 1] < numbers[at], "COMMANDS is sorted by name");
        at += 1;
    }
    numbers
};

/// The command of that name, whatever its case.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    let number = packed(name)?;
    PACKED.binary_search(&number).ok().map(|at| &COMMANDS[at])
}

/// The subcommand of that name, whatever its case.
pub fn find_sub(container: &'static Spec, name: &[u8]) -> Option<&'static Spec> {
    container.subcommands.iter().find(|sub| name.eq_ignore_ascii_case(sub.name.as_bytes()))
}

/// What to say of a command that is known to be absent.
pub fn absent(name: &[u8]) -> Option<(&'static str, &'static str)> {
    ABSENT.iter().copied().find(|(absent, _)| name.eq_ignore_ascii_case(absent.as_bytes()))
}

impl Spec {
    /// Fewest and most words after the name; None: as many as a request may have.
    pub fn words(&self) -> (usize, Option<usize>) {
        let (mut least, mut most) = (0, Some(0));
        for argument in self.arguments {
            let (fewest, greatest) = match argument {
                Word(..) | OneOf(..) | Token(..) => (1, Some(1)),
                Maybe(..) | Flag(..) | Either(..) => (0, Some(1)),
                Many(..) => (1, None),
                Any(..) | Section(..) => (0, None),
                Span => (1, Some(3)),
                Number(..) | Choice(..) => (0, Some(2)),
                Texts(_, names) => (0, Some(1 + names.len())),
            };
            least += fewest;
            most = most.zip(greatest).map(|(most, greatest)| most + greatest);
        }
        if !self.subcommands.is_empty() {
            return (usize::from(self.run == Run::Container), None);
        }
        (least, most)
    }

    /// As Redis counts: with the name; negative where it is a minimum.
    pub fn arity(&self, depth: usize) -> i64 {
        let (least, most) = self.words();
        let words = i64::try_from(least + depth).expect("a few words");
        if most == Some(least) { words } else { -words }
    }

    /// The grammar in one line: `GET key [REV revision] [SERIALIZABLE]`. `container`: of a subcommand.
    pub fn usage(&self, container: Option<&Spec>) -> String {
        let mut usage = container.map_or(String::new(), |container| format!("{} ", container.name));
        usage.push_str(self.name);
        if !self.subcommands.is_empty() {
            let names: Vec<&str> = self.subcommands.iter().map(|sub| sub.name).collect();
            usage.push_str(&format!(" {}", names.join("|")));
        }
        for argument in self.arguments {
            usage.push(' ');
            usage.push_str(&match *argument {
                Word(name, _) => name.to_string(),
                Maybe(name, _) => format!("[{name}]"),
                Many(name, _) => format!("{name} [{name} ...]"),
                Any(name, _) => format!("[{name} ...]"),
                Span => "key [TO end|PREFIX|FROM]".to_string(),
                OneOf(_, tokens) => tokens.join("|"),
                Flag(_, token) => format!("[{token}]"),
                Number(_, token, name) => format!("[{token} {name}]"),
                Either(_, tokens) => format!("[{}]", tokens.join("|")),
                Choice(_, token, tokens) => format!("[{token} {}]", tokens.join("|")),
                Texts(token, names) => format!("[{token} {}]", names.join(" ")),
                Section(token, name) => format!("[{token} {name} ...]"),
                Token(token) => token.to_string(),
            });
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        for spec in COMMANDS {
            assert!(std::ptr::eq(find(spec.name.to_ascii_lowercase().as_bytes()).unwrap(), spec));
            assert!(spec.subcommands.is_sorted_by_key(|sub| sub.name));
        }
        for absent in [&b""[..], b"PU", b"PUTT", b"PUT\0", b"AVERYLONGCOMMANDNAME"] {
            assert!(find(absent).is_none(), "{}", absent.escape_ascii());
        }
        assert!(ABSENT.is_sorted_by_key(|(name, _)| *name));
        assert!(ABSENT.iter().all(|(name, _)| find(name.as_bytes()).is_none()));
    }

    #[test]
    fn positional_arguments_come_first() {
        for spec in COMMANDS.iter().flat_map(|spec| spec.subcommands.iter().chain([spec])) {
            let optional = |argument: &Argument| {
                matches!(argument, Flag(..) | Number(..) | Either(..) | Choice(..) | Texts(..))
            };
            assert!(spec.arguments.is_sorted_by_key(optional), "{}", spec.name);
        }
    }

    /// What users read is what is parsed.
    #[test]
    fn the_document_shows_every_usage_line() {
        let document = include_str!("../../../docs/protocol.md");
        let shows = |line: &str| document.lines().any(|shown| shown == line);
        for spec in COMMANDS {
            for sub in spec.subcommands {
                assert!(shows(&sub.usage(Some(spec))), "{}", sub.usage(Some(spec)));
            }
            assert!(!spec.subcommands.is_empty() || shows(&spec.usage(None)), "{}", spec.usage(None));
        }
        for (name, _) in ABSENT {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn usage_and_arity() {
        let get = find(b"get").unwrap();
        assert_eq!(get.usage(None), "GET key [REV revision] [SERIALIZABLE]");
        assert_eq!(get.arity(1), -2);
        assert_eq!(find(b"SET").unwrap().arity(1), 3);
        assert_eq!(find(b"EXISTS").unwrap().usage(None), "EXISTS key [key ...]");
        let config = find(b"CONFIG").unwrap();
        assert_eq!(find_sub(config, b"get").unwrap().usage(Some(config)), "CONFIG GET pattern [pattern ...]");
        assert_eq!(config.arity(1), -2);
    }
}
