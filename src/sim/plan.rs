//! A plan: everything that will be done to a cluster, written down before it runs.
//!
//! The generator writes one from a seed; a person may edit it; the shrinker takes lines away. So a plan is text:
//!
//! ```text
//! pawl plan 1
//! seed=17 members=3 clients=6 ops=2000 keys=8 ...
//! t=4.2s power-cut 2 profile=posix-worst restart=800ms
//! t=4.5s add-learner 4
//! t=5.01s disk 2 fail-sync wal
//! t=6s together promote 4 remove 1
//! when leader-elected nth=3 kill subject restart=500ms
//! ```
//!
//! A line is a time (since the start, by the true clock) or a *moment* of the protocol, and what happens then.
//! `nth` counts occurrences of the moment from 1. `subject` and `other` are the members that the moment is
//! about. What cannot be done when its time comes (a power cut of a member that is down) is passed over, so
//! any subset of lines is a plan.

use std::fmt;

use super::options::Options;
use super::words::{Words, span};
use crate::base::time::Nanos;

/// What a run does, from its first to its last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub options: Options,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub trigger: Trigger,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    At(Nanos),
    When { moment: Moment, nth: u64 },
}

/// Arrows of the protocol that a fault may wait for. Each has a subject, and most have another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// A member begins to lead.
    LeaderElected,
    /// A leader stops leading.
    SteppedDown,
    /// A candidate (subject) asks another member for its vote.
    Campaign,
    /// A voter (subject) grants its vote to a candidate.
    VoteGranted,
    /// A leader (subject) sends entries to a follower.
    AppendSent,
    /// A follower (subject) tells the leader that entries are durable.
    AppendAccepted,
    /// A member (subject) passes a client's write on to the leader.
    ProposeSent,
    /// A member (subject) asks the leader for a read index.
    ReadIndexSent,
    /// A leader (subject) begins to send a snapshot.
    SnapshotBegins,
    /// A follower (subject) has installed the leader's snapshot.
    SnapshotInstalled,
    /// The log writer begins a group.
    LogWrite,
    /// A job of the housekeeper begins: a checkpoint, a segment, a step of a snapshot.
    JobBegins,
    /// A member answers a client.
    Answered,
    /// A member is up again.
    Restarted,
    /// A member gives up: a disk failed it.
    Stopped,
    /// A leader (subject) writes a change of the membership that concerns the other.
    ChangeBegins,
    /// A member (subject) is the first to apply a change that concerns the other.
    ChangeApplied,
    /// A leader (subject) tells another member to take over.
    HandOver,
    /// A process ends because its member was removed.
    Left,
}

const MOMENTS: [(&str, Moment); 19] = [
    ("leader-elected", Moment::LeaderElected),
    ("stepped-down", Moment::SteppedDown),
    ("campaign", Moment::Campaign),
    ("vote-granted", Moment::VoteGranted),
    ("append-sent", Moment::AppendSent),
    ("append-accepted", Moment::AppendAccepted),
    ("propose-sent", Moment::ProposeSent),
    ("read-index-sent", Moment::ReadIndexSent),
    ("snapshot-begins", Moment::SnapshotBegins),
    ("snapshot-installed", Moment::SnapshotInstalled),
    ("log-write", Moment::LogWrite),
    ("job-begins", Moment::JobBegins),
    ("answered", Moment::Answered),
    ("restarted", Moment::Restarted),
    ("stopped", Moment::Stopped),
    ("change-begins", Moment::ChangeBegins),
    ("change-applied", Moment::ChangeApplied),
    ("hand-over", Moment::HandOver),
    ("left", Moment::Left),
];

impl Moment {
    pub fn all() -> impl Iterator<Item = Moment> {
        MOMENTS.into_iter().map(|(_, moment)| moment)
    }
}

/// A member, by number or by its part in what just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Member(u64),
    Leader,
    Subject,
    Other,
}

/// What survives a power cut of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    PosixWorst,
    Ext4Ordered,
    Prefix,
    All,
    None,
}

pub const SURVIVALS: [(&str, Survival); 5] = [
    ("posix-worst", Survival::PosixWorst),
    ("ext4-ordered", Survival::Ext4Ordered),
    ("prefix", Survival::Prefix),
    ("all", Survival::All),
    ("none", Survival::None),
];

/// What is done to a disk. `file` is a part of the path: `wal`, `tree`, or empty for every file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskTrouble {
    /// The next call of this kind fails with EIO, `skip` calls later.
    FailSync {
        file: String,
        skip: u64,
    },
    FailWrite {
        file: String,
        skip: u64,
    },
    FailRead {
        file: String,
        skip: u64,
    },
    /// No room beyond `spare_bytes`, for a while.
    Full {
        spare_bytes: u64,
        length: Nanos,
    },
    /// Every operation takes this much longer, for a while.
    Slow {
        delay: Nanos,
        length: Nanos,
    },
    /// The medium loses or changes bytes at rest. `place` is where, in thousandths of the bytes in question.
    Damage {
        file: String,
        kind: Rot,
        place: u64,
    },
    /// The next write of the tree never reaches the medium, though its sync says so.
    LoseWrite {
        skip: u64,
    },
    /// The next write of the tree lands somewhere else on the medium.
    Misdirect {
        skip: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    Flip,
    Zero,
    Garbage,
    Misplaced,
}

pub const ROTS: [(&str, Rot); 4] =
    [("flip", Rot::Flip), ("zero", Rot::Zero), ("garbage", Rot::Garbage), ("misplaced", Rot::Misplaced)];

/// What the operator may ask of the cluster, about a machine. Additions are of spares alone, and a machine serves one
/// member in its life: what was removed comes back, if at all, with its old disk, and must not be listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    AddVoter,
    AddLearner,
    Promote,
    Remove,
    /// It gets another peer URL.
    Update,
    /// It shall lead.
    Transfer,
}

pub const STEPS: [Step; 6] =
    [Step::AddVoter, Step::AddLearner, Step::Promote, Step::Remove, Step::Update, Step::Transfer];

/// The word for several steps in one.
pub const TOGETHER: &str = "together";

impl Step {
    fn parse(word: &str) -> Result<Step, String> {
        STEPS.into_iter().find(|step| step.name() == word).ok_or_else(|| format!("`{word}` cannot be done"))
    }

    /// The word in a plan, and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Step::AddVoter => "add",
            Step::AddLearner => "add-learner",
            Step::Promote => "promote",
            Step::Remove => "remove",
            Step::Update => "update",
            Step::Transfer => "transfer",
        }
    }

    pub fn adds(self) -> bool {
        matches!(self, Step::AddVoter | Step::AddLearner)
    }

    pub fn changes_voters(self) -> bool {
        !matches!(self, Step::Update | Step::Transfer)
    }
}

/// Directed links: from any of the one side to any of the other, and back if `both`. Member 0 stands for
/// all clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    pub from: Vec<u64>,
    pub to: Vec<u64>,
    pub both: bool,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The machine loses power, in the middle of whatever it writes; it is back after `restart`.
    PowerCut {
        who: Who,
        survival: Survival,
        restart: Nanos,
    },
    /// The process dies; the machine, and with it the page cache, lives on.
    Kill {
        who: Who,
        restart: Nanos,
    },
    /// A clean stop, as by SIGTERM.
    Stop {
        who: Who,
        restart: Nanos,
    },
    /// The process stands still, as under SIGSTOP, and does not know. `mid_turn`: between the reading of its
    /// clock and the sending of what it then decided. `clock_stops`: its machine is suspended, clock and all.
    Pause {
        who: Who,
        length: Nanos,
        mid_turn: bool,
        clock_stops: bool,
    },
    /// All that was on the disk is gone, and the member is never started again: it may not vote twice.
    LoseDisk {
        who: Who,
    },
    Disk {
        who: Who,
        trouble: DiskTrouble,
    },
    /// The member applies its next put wrongly.
    CorruptState {
        who: Who,
    },
    /// The member's clock runs this much too fast (or slow) from here on, in millionths.
    Drift {
        who: Who,
        ppm: i64,
    },
    /// Nothing passes these links, for a while.
    Cut {
        links: Links,
        length: Nanos,
    },
    /// These links take this much longer, for a while.
    Lag {
        links: Links,
        delay: Nanos,
        length: Nanos,
    },
    /// The connections over these links are reset, in the middle of a frame.
    Reset {
        links: Links,
    },
    /// The operator asks for this, several times if it is refused.
    Order {
        step: Step,
        who: Who,
    },
    /// For all of these in one step.
    Together {
        steps: Vec<(Step, Who)>,
    },
}

const HEAD: &str = "pawl plan 1";

impl Plan {
    /// Reads the text form.
    ///
    /// # Errors
    /// The number of the line that makes no sense, and why.
    pub fn parse(text: &str) -> Result<Plan, String> {
        let mut options = Options::default();
        let mut entries = Vec::new();
        let mut headed = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if !headed {
                if line != HEAD {
                    return Err(format!("line {number}: a plan begins with `{HEAD}`"));
                }
                headed = true;
                continue;
            }
            let parsed = if line.starts_with("t=") || line.starts_with("when ") {
                Entry::parse(line).map(|entry| entries.push(entry))
            } else {
                options.read(line)
            };
            parsed.map_err(|why| format!("line {number}: {why}"))?;
        }
        options.check()?;
        Ok(Plan { options, entries })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        write!(f, "{}", self.options)?;
        for entry in &self.entries {
            writeln!(f, "{entry}")?;
        }
        Ok(())
    }
}

impl Entry {
    fn parse(line: &str) -> Result<Entry, String> {
        let mut words = Words::new(line);
        let trigger = match words.take("t") {
            Some(text) => Trigger::At(super::words::parse_span(&text)?),
            None => {
                words.expect("when")?;
                let moment = words.one_of(&MOMENTS)?;
                Trigger::When { moment, nth: words.number("nth", 1)? }
            }
        };
        let action = Action::parse(&mut words)?;
        words.end()?;
        Ok(Entry { trigger, action })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trigger {
            Trigger::At(at) => write!(f, "t={} ", span(at))?,
            Trigger::When { moment, nth } => write!(f, "when {moment} nth={nth} ")?,
        }
        write!(f, "{}", self.action)
    }
}

fn name_of<T: PartialEq>(names: &'static [(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, named)| named == value).expect("every value is named").0
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&MOMENTS, self))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Member(id) => write!(f, "{id}"),
            Who::Leader => f.write_str("leader"),
            Who::Subject => f.write_str("subject"),
            Who::Other => f.write_str("other"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Who {
    fn parse(words: &mut Words) -> Result<Who, String> {
        let word = words.next("a member")?;
        Ok(match word.as_str() {
            "leader" => Who::Leader,
            "subject" => Who::Subject,
            "other" => Who::Other,
            number => Who::Member(number.parse().map_err(|_| format!("`{number}` is not a member"))?),
        })
    }
}

impl Links {
    fn parse(words: &mut Words) -> Result<Links, String> {
        let word = words.next("links, as in 1,2>3 or 1|2,3")?;
        let both = word.contains('|');
        let (from, to) = word.split_once(['>', '|']).ok_or(format!("`{word}` has neither > nor |"))?;
        let side = |text: &str| -> Result<Vec<u64>, String> {
            let member = |name: &str| match name {
                "c" => Ok(0),
                number => number.parse().map_err(|_| format!("`{number}` is not a member")),
            };
            text.split(',').map(member).collect()
        };
        Ok(Links { from: side(from)?, to: side(to)?, both })
    }

    /// Every directed link once.
    pub fn pairs(&self) -> Vec<(u64, u64)> {
        let mut pairs = Vec::new();
        for &from in &self.from {
            for &to in self.to.iter().filter(|to| **to != from) {
                pairs.push((from, to));
                if self.both {
                    pairs.push((to, from));
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
}

impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |members: &[u64]| {
            let name = |id: &u64| if *id == 0 { "c".to_string() } else { id.to_string() };
            members.iter().map(name).collect::<Vec<_>>().join(",")
        };
        let arrow = if self.both { '|' } else { '>' };
        write!(f, "{}{arrow}{}", side(&self.from), side(&self.to))
    }
}

impl Action {
    /// What the ledger counts it as.
    pub fn class(&self) -> &'static str {
        match self {
            Action::PowerCut { .. } => "power-cut",
            Action::Kill { .. } => "kill",
            Action::Stop { .. } => "stop",
            Action::Pause { .. } => "pause",
            Action::LoseDisk { .. } => "lose-disk",
            Action::Disk { trouble, .. } => match trouble {
                DiskTrouble::FailSync { .. } => "fail-sync",
                DiskTrouble::FailWrite { .. } => "fail-write",
                DiskTrouble::FailRead { .. } => "fail-read",
                DiskTrouble::Full { .. } => "full",
                DiskTrouble::Slow { .. } => "slow-disk",
                DiskTrouble::Damage { .. } => "damage",
                DiskTrouble::LoseWrite { .. } => "lose-write",
                DiskTrouble::Misdirect { .. } => "misdirect",
            },
            Action::CorruptState { .. } => "corrupt-state",
            Action::Drift { .. } => "drift",
            Action::Cut { .. } => "cut",
            Action::Lag { .. } => "lag",
            Action::Reset { .. } => "reset",
            Action::Order { step, .. } => step.name(),
            Action::Together { .. } => TOGETHER,
        }
    }

    fn parse(words: &mut Words) -> Result<Action, String> {
        let verb = words.next("what is to be done")?;
        Ok(match verb.as_str() {
            "power-cut" => Action::PowerCut {
                who: Who::parse(words)?,
                survival: words.named("profile", &SURVIVALS, Survival::PosixWorst)?,
                restart: words.span("restart")?,
            },
            "kill" => Action::Kill { who: Who::parse(words)?, restart: words.span("restart")? },
            "stop" => Action::Stop { who: Who::parse(words)?, restart: words.span("restart")? },
            "pause" => Action::Pause {
                who: Who::parse(words)?,
                length: words.span("for")?,
                mid_turn: words.flag("mid-turn"),
                clock_stops: words.flag("clock-stops"),
            },
            "lose-disk" => Action::LoseDisk { who: Who::parse(words)? },
            "disk" => Action::Disk { who: Who::parse(words)?, trouble: DiskTrouble::parse(words)? },
            "corrupt-state" => Action::CorruptState { who: Who::parse(words)? },
            "drift" => {
                let who = Who::parse(words)?;
                let ppm = words.take("ppm").ok_or("ppm= is missing")?;
                Action::Drift { who, ppm: ppm.parse().map_err(|_| format!("`{ppm}` is not a number"))? }
            }
            "cut" => Action::Cut { links: Links::parse(words)?, length: words.span("for")? },
            "lag" => Action::Lag {
                links: Links::parse(words)?,
                delay: words.span("delay")?,
                length: words.span("for")?,
            },
            "reset" => Action::Reset { links: Links::parse(words)? },
            TOGETHER => {
                let mut steps = Vec::new();
                while words.has_next() {
                    let step = Step::parse(&words.next("a change")?)?;
                    if !step.changes_voters() {
                        return Err(format!("`{step}` is done alone"));
                    }
                    steps.push((step, Who::parse(words)?));
                }
                if steps.len() < 2 {
                    return Err("fewer than two changes".into());
                }
                Action::Together { steps }
            }
            other => Action::Order { step: Step::parse(other)?, who: Who::parse(words)? },
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::PowerCut { who, survival, restart } => {
                let profile = name_of(&SURVIVALS, survival);
                write!(f, "power-cut {who} profile={profile} restart={}", span(*restart))
            }
            Action::Kill { who, restart } => write!(f, "kill {who} restart={}", span(*restart)),
            Action::Stop { who, restart } => write!(f, "stop {who} restart={}", span(*restart)),
            Action::Pause { who, length, mid_turn, clock_stops } => {
                write!(f, "pause {who} for={}", span(*length))?;
                f.write_str(if *mid_turn { " mid-turn" } else { "" })?;
                f.write_str(if *clock_stops { " clock-stops" } else { "" })
            }
            Action::LoseDisk { who } => write!(f, "lose-disk {who}"),
            Action::Disk { who, trouble } => write!(f, "disk {who} {trouble}"),
            Action::CorruptState { who } => write!(f, "corrupt-state {who}"),
            Action::Drift { who, ppm } => write!(f, "drift {who} ppm={ppm}"),
            Action::Cut { links, length } => write!(f, "cut {links} for={}", span(*length)),
            Action::Lag { links, delay, length } => {
                write!(f, "lag {links} delay={} for={}", span(*delay), span(*length))
            }
            Action::Reset { links } => write!(f, "reset {links}"),
            Action::Order { step, who } => write!(f, "{step} {who}"),
            Action::Together { steps } => {
                f.write_str(TOGETHER)?;
                steps.iter().try_for_each(|(step, who)| write!(f, " {step} {who}"))
            }
        }
    }
}

/// `*` stands for every file.
fn file_word(words: &mut Words) -> Result<String, String> {
    let word = words.next("a part of a file's path")?;
    Ok(if word == "*" { String::new() } else { word })
}

fn file_name(file: &str) -> &str {
    if file.is_empty() { "*" } else { file }
}

impl DiskTrouble {
    fn parse(words: &mut Words) -> Result<DiskTrouble, String> {
        let verb = words.next("what the disk does")?;
        Ok(match verb.as_str() {
            "fail-sync" => DiskTrouble::FailSync { file: file_word(words)?, skip: words.number("skip", 0)? },
            "fail-write" => {
                DiskTrouble::FailWrite { file: file_word(words)?, skip: words.number("skip", 0)? }
            }
            "fail-read" => DiskTrouble::FailRead { file: file_word(words)?, skip: words.number("skip", 0)? },
            "full" => {
                DiskTrouble::Full { spare_bytes: words.number("spare", 0)?, length: words.span("for")? }
            }
            "slow" => DiskTrouble::Slow { delay: words.span("delay")?, length: words.span("for")? },
            "damage" => DiskTrouble::Damage {
                file: file_word(words)?,
                kind: words.named("kind", &ROTS, Rot::Flip)?,
                place: words.number("place", 0)?,
            },
            "lose-write" => DiskTrouble::LoseWrite { skip: words.number("skip", 0)? },
            "misdirect" => DiskTrouble::Misdirect { skip: words.number("skip", 0)? },
            other => return Err(format!("a disk cannot `{other}`")),
        })
    }
}

impl fmt::Display for DiskTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskTrouble::FailSync { file, skip } => write!(f, "fail-sync {} skip={skip}", file_name(file)),
            DiskTrouble::FailWrite { file, skip } => write!(f, "fail-write {} skip={skip}", file_name(file)),
            DiskTrouble::FailRead { file, skip } => write!(f, "fail-read {} skip={skip}", file_name(file)),
            DiskTrouble::Full { spare_bytes, length } => {
                write!(f, "full spare={spare_bytes} for={}", span(*length))
            }
            DiskTrouble::Slow { delay, length } => {
                write!(f, "slow delay={} for={}", span(*delay), span(*length))
            }
            DiskTrouble::Damage { file, kind, place } => {
                write!(f, "damage {} kind={} place={place}", file_name(file), name_of(&ROTS, kind))
            }
            DiskTrouble::LoseWrite { skip } => write!(f, "lose-write skip={skip}"),
            DiskTrouble::Misdirect { skip } => write!(f, "misdirect skip={skip}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pawl plan 1
seed=17 members=5
t=4.2s power-cut 2 profile=prefix restart=800ms  # in the middle of something
t=5.01s disk 2 fail-sync wal skip=0
t=0s disk 1 damage * kind=misplaced place=500
when leader-elected nth=3 kill subject restart=500ms
when snapshot-begins nth=1 pause other for=1.5s mid-turn
t=1s cut 1,2|3,c for=2s
t=1.000001s lag 1>2 delay=20ms for=3s
t=9s drift 3 ppm=-20000
t=9.5s add-learner 6
when change-begins nth=2 remove subject
t=9s corrupt-state leader
t=9.6s together promote 6 remove leader
";

    #[test]
    fn a_plan_comes_back_as_it_was_written() {
        let plan = Plan::parse(TEXT).unwrap();
        assert_eq!((plan.options.seed, plan.options.members, plan.entries.len()), (17, 5, 12));
        assert_eq!(Plan::parse(&plan.to_string()).unwrap(), plan);
        assert!(plan.to_string().contains("t=1s cut 1,2|3,c for=2s\n"), "{plan}");
        let links = Links { from: vec![1, 2], to: vec![2, 3], both: true };
        assert_eq!(links.pairs(), [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)]);
    }

    #[test]
    fn nonsense_is_named_with_its_line() {
        for (line, part) in [
            ("t=1s explode 2", "line 2: `explode` cannot be done"),
            ("t=1s kill 2 restart=1s extra", "line 2: nothing is known of `extra`"),
            ("t=1 kill 2 restart=1s", "line 2: `1` is not a length of time"),
            ("t=1s together remove 2", "line 2: fewer than two changes"),
            ("t=1s together remove 2 transfer 3", "line 2: `transfer` is done alone"),
            ("t=1s cut 1-2 for=1s", "line 2: `1-2` has neither > nor |"),
            ("seed=x", "line 2: seed: `x` is not a number"),
            ("speed=1", "line 2: there is no option `speed`"),
        ] {
            let why = Plan::parse(&format!("pawl plan 1\n{line}\n")).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        assert!(Plan::parse("t=1s kill 1 restart=1s").unwrap_err().contains("begins with"));
    }
}
