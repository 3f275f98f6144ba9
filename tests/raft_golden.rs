//! Conversations between cores, as plain text under `golden/raft`. A file is a sequence of blocks: comments that
//! tell the story, commands, `----`, and everything that then happened. `UPDATE=1 cargo test --test tests
//! raft_golden` rewrites what happened; read the diff, and commit it only if you understand it.
//!
//! Entries are written `index@term`, with `=payload` where there is one.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use pawl::base::time::MS;
use pawl::base::{EntryId, MemberId, Mono};
use pawl::raft::{
    Change, Config, Entry, EntryKind, HardState, Membership, Memory, Message, MessageBody, PeerStanding, Role,
};

use crate::raft_world::{Image, Member, Turn};

struct Stage {
    members: Vec<Member>,
    membership: Membership,
    config: Config,
    now: Mono,
    /// Under way, in the order of sending.
    flying: Vec<Message>,
    /// Members whose disk does not complete writes by itself.
    held: Vec<MemberId>,
    roles: Vec<Role>,
    out: String,
}

fn name(id: MemberId) -> String {
    if id == 0 { "nobody".into() } else { format!("n{id}") }
}

fn id(word: &str) -> MemberId {
    word.strip_prefix('n')
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("a member: {word}"))
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("a number: {word}"))
}

fn milliseconds(word: &str) -> u64 {
    number(word.strip_suffix("ms").expect("milliseconds")) * MS
}

fn show(entries: &[Entry]) -> String {
    let words: Vec<String> = entries
        .iter()
        .map(|entry| match (entry.kind, std::str::from_utf8(&entry.payload)) {
            (EntryKind::Membership, _) => {
                let (membership, _) = Membership::decode(&entry.payload).expect("it is sound");
                format!("{}={}", entry.id, show_membership(&membership))
            }
            (_, Ok("")) => entry.id.to_string(),
            (_, payload) => format!("{}={}", entry.id, payload.unwrap()),
        })
        .collect();
    format!("[{}]", words.join(" "))
}

/// `{voters}`, `{voters | outgoing}` when joint, `+{learners}`.
fn show_membership(membership: &Membership) -> String {
    let names = |ids: &[MemberId]| ids.iter().map(|&id| name(id)).collect::<Vec<_>>().join(" ");
    let mut text = format!("{{{}", names(&membership.voters));
    if membership.is_joint() {
        write!(text, " | {}", names(&membership.outgoing)).unwrap();
    }
    text.push('}');
    if !membership.learners.is_empty() {
        write!(text, "+{{{}}}", names(&membership.learners)).unwrap();
    }
    text
}

fn tell(message: &Message) -> String {
    let said = match &message.body {
        MessageBody::PreVote { last } => format!("would you vote for me? last {last}"),
        MessageBody::PreVoteReply { granted: true } => "I would".into(),
        MessageBody::PreVoteReply { granted: false } => "I would not".into(),
        MessageBody::Vote { last, transfer: false } => format!("vote for me, last {last}"),
        MessageBody::Vote { last, transfer: true } => {
            format!("vote for me, the leader wants it, last {last}")
        }
        MessageBody::VoteReply { granted: true } => "you have my vote".into(),
        MessageBody::VoteReply { granted: false } => "no vote".into(),
        MessageBody::Append { previous, entries, commit, round } => {
            let round = if *round == 0 { "no answer".into() } else { format!("round {round}") };
            let what = if entries.is_empty() { "nothing".into() } else { show(entries) };
            format!("append {what} after {previous}, commit {commit}, {round}")
        }
        MessageBody::AppendAccepted { matched, round } => format!("matched {matched}, round {round}"),
        MessageBody::AppendRejected { previous, hint, last, round } => {
            format!("no entry {previous}, perhaps {hint}, last {last}, round {round}")
        }
        MessageBody::TimeoutNow => "take over".into(),
        MessageBody::Inquire { .. } => "which term is yours? I lost my memory".into(),
        MessageBody::Inquired { memory, last, .. } => {
            let memory = match memory {
                Memory::Whole => "",
                Memory::Lost => ", and I lost my memory",
                Memory::Fresh => ", and I am new here",
            };
            format!("this one is mine{memory}, last {last}")
        }
        MessageBody::Forgot => "I lost my memory, lead on in a later term".into(),
    };
    format!("{} -> {} (term {}) {said}", name(message.from), name(message.to), message.term)
}

impl Stage {
    fn new() -> Stage {
        Stage {
            members: Vec::new(),
            membership: Membership::default(),
            config: Config::new(1, 1),
            now: Mono(1_000 * MS),
            flying: Vec::new(),
            held: Vec::new(),
            roles: Vec::new(),
            out: String::new(),
        }
    }

    fn member(&mut self, id: MemberId) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    fn line(&mut self, text: impl AsRef<str>) {
        writeln!(self.out, "{}", text.as_ref()).unwrap();
    }

    fn command(&mut self, line: &str) {
        let line = line.split('#').next().unwrap().trim();
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let quiet = words.last() == Some(&"quietly");
        if quiet {
            words.pop();
        }
        let length = self.out.len();
        self.act(words[0], &words[1..]);
        if quiet {
            self.out.truncate(length);
        }
    }

    fn act(&mut self, verb: &str, words: &[&str]) {
        let first = words.first().copied().unwrap_or("");
        match verb {
            // cluster 3 [learners=1] [prevote=off] [leases=off] [memory=BYTES]: members, none started
            "cluster" => self.cluster(words),
            // log n1 term=3 vote=n2 1 1 2: what is on its disk; the terms of its entries from index 1
            "log" => self.log(id(first), &words[1..]),
            // start [n1]: this one, or all that are down
            "start" if words.is_empty() => {
                let ids: Vec<MemberId> = (1..=self.members.len() as u64).collect();
                for id in ids {
                    if self.member(id).raft.is_none() {
                        self.start(id);
                    }
                }
            }
            "start" => self.start(id(first)),
            // crash n1 [2]: stops; of what was not synced the first 2 records survive
            "crash" => {
                let keep = words.get(1).map_or(0, |word| number(word));
                self.member(id(first)).crash(keep as usize);
                self.held.retain(|held| *held != id(first));
            }
            // timeout n1: time passes until n1 has something to do, and only n1 does it
            "timeout" => {
                let (at, who) = (self.member(id(first)).raft().0.deadline(), id(first));
                assert!(at != Mono::NEVER, "{first} waits for nothing");
                self.now = self.now.max(at);
                let now = self.now;
                self.member(who).tick(now);
                self.turns(who);
            }
            // wait 300ms [n1 n2]: time passes, and these (or all) do what falls due
            "wait" => self.wait(first, &words[1..]),
            // pass 300ms: time passes, and nobody does anything
            "pass" => self.now = self.now + milliseconds(first),
            // live 300ms [n3 n4]: time passes and messages arrive; those to and from n3 and n4 are lost
            "live" => self.live(first, &words[1..]),
            // deliver [n1 [n2]]: what is under way now (from n1, to n2) arrives
            "deliver" => self.deliver(words),
            // deliver-last n1 n2: the last message from n1 to n2 overtakes the others
            "deliver-last" => {
                let (from, to) = (id(first), id(words[1]));
                let position = self.flying.iter().rposition(|m| m.from == from && m.to == to);
                let message = self.flying.remove(position.expect("a message is under way"));
                self.arrive(message);
            }
            // repeat n1 n2: what is under way from n1 to n2 will arrive twice
            "repeat" => {
                let again: Vec<Message> =
                    self.flying.iter().filter(|m| selected(m, words)).cloned().collect();
                self.flying.extend(again);
            }
            // drop [n1 [n2]]: what is under way is lost
            "drop" => {
                let lost: Vec<Message> = self.flying.iter().filter(|m| selected(m, words)).cloned().collect();
                self.flying.retain(|m| !selected(m, words));
                for message in lost {
                    self.line(format!("lost: {}", tell(&message)));
                }
            }
            // settle [n3]: messages arrive until there are none; those to and from n3 are lost
            "settle" => self.settle(words),
            // elect n1: its time comes, and everything settles; says nothing
            "elect" => {
                let length = self.out.len();
                self.act("timeout", &[first]);
                self.settle(&[]);
                self.out.truncate(length);
                let role = self.member(id(first)).raft().0.role();
                assert!(role == Role::Leader, "{first} was not elected: {role:?}");
            }
            // hold n1: its disk completes nothing until `sync n1`
            "hold" => self.held.push(id(first)),
            // sync n1 [n]: completes all writes (up to number n); `release n1` also ends the hold
            "sync" => {
                let up_to = words.get(1).map_or(u64::MAX, |word| number(word));
                self.sync(id(first), up_to);
                self.turns(id(first));
            }
            "unhold" => {
                self.held.retain(|held| *held != id(first));
                self.turns(id(first));
            }
            // propose n1 a b: one proposal with each of these payloads
            "propose" => {
                let payloads =
                    words[1..].iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
                let now = self.now;
                let (raft, log) = self.member(id(first)).raft();
                if let Err(refused) = raft.propose(payloads, now, log) {
                    self.line(format!("{first} refuses: {refused:?}"));
                }
                self.turns(id(first));
            }
            // read n1 7: which index must be applied for read 7?
            "read" => {
                let now = self.now;
                if let Err(refused) = self.member(id(first)).raft().0.read_index(number(words[1]), now) {
                    self.line(format!("{first} refuses: {refused:?}"));
                }
                self.turns(id(first));
            }
            // transfer n1 [n2]: n1 hands over to n2, or to the best
            "transfer" => {
                let (to, now) = (words.get(1).map_or(0, |word| id(word)), self.now);
                if let Err(refused) = self.member(id(first)).raft().0.transfer(to, now) {
                    self.line(format!("{first} refuses: {refused:?}"));
                }
                self.turns(id(first));
            }
            // change n1 add n4 [remove n1] [learner n5] [promote n5] [update n2]: a change, of all of these at once
            "change" => {
                let changes: Vec<Change> =
                    words[1..].chunks(2).map(|pair| change(pair[0], id(pair[1]))).collect();
                let now = self.now;
                let (raft, _) = self.member(id(first)).raft();
                if let Err(refused) = raft.change_membership(&changes, b"", now) {
                    self.line(format!("{first} refuses: {refused:?}"));
                }
                self.turns(id(first));
            }
            // join n4: a member that was added to the running cluster and holds nothing
            "join" => {
                assert_eq!(id(first), self.members.len() as MemberId + 1, "members are numbered in order");
                self.members.push(Member::new(id(first), Membership::default()));
                self.roles.push(Role::Follower);
                self.start(id(first));
            }
            // forget n2: its disk is lost; it knows that when it starts. `fresh`: it may be its first start
            "forget" => {
                let membership = self.membership.clone();
                let member = self.member(id(first));
                let life = member.life;
                *member = Member::new(id(first), membership);
                member.life = life;
                member.memory = if words.contains(&"fresh") { Memory::Fresh } else { Memory::Lost };
            }
            // remember n2: if it holds everything again, it is told
            "remember" => {
                let member = self.member(id(first));
                let applied = member.applied.term;
                let raft = member.raft.as_mut().expect("it runs");
                let whole = raft.holds_all_again(applied);
                if whole {
                    raft.recovered();
                }
                self.line(format!("{first} {}", if whole { "is whole" } else { "lacks something" }));
            }
            // recovery n2: how far it is
            "recovery" => {
                let recovering = self.member(id(first)).raft().0.recovering();
                self.line(format!("{first}: {recovering:?}"));
            }
            // members: who is in the cluster, as each member's log says; `settled` where that is not committed
            "members" => self.tell_members(),
            // lost n1 n2: n1's connection to n2 ends
            "lost" => {
                let now = self.now;
                self.member(id(first)).raft().0.peer_lost(id(words[1]), now);
                self.turns(id(first));
            }
            // promise n1 n2 100: n1 learns for how many milliseconds n2 elects nobody
            "promise" => {
                let lease = number(words[2]) * MS;
                self.member(id(first)).raft().0.set_promise(id(words[1]), lease);
                self.turns(id(first));
            }
            // release n1 3: its log forgets entries up to 3
            "release" => {
                let member = self.member(id(first));
                member.take_checkpoint();
                member.log.release(number(words[1]));
                member.durable.release(number(words[1]));
            }
            // snapshot n1 n2: n1's state is installed at n2; both are told
            "snapshot" => self.snapshot(id(first), id(words[1])),
            // snapshot-failed n1 n2: the stream from n1 to n2 broke
            "snapshot-failed" => {
                self.member(id(first)).raft().0.report_snapshot(id(words[1]), Err(()));
                self.turns(id(first));
            }
            // say n1 n2 TERM take over: a message out of nowhere (take-over, vote, prevote)
            "say" => self.say(id(first), id(words[1]), words),
            "status" => self.status(),
            _ => panic!("no such command: {verb}"),
        }
    }

    fn cluster(&mut self, words: &[&str]) {
        *self = Stage { out: std::mem::take(&mut self.out), ..Stage::new() };
        let voters: Vec<MemberId> = (1..=number(words[0])).collect();
        let mut learners = Vec::new();
        for word in &words[1..] {
            match word.split_once('=').expect("an option") {
                ("learners", count) => {
                    learners = (1..=number(count)).map(|n| n + voters.len() as u64).collect();
                }
                ("prevote", value) => self.config.pre_vote = value == "on",
                ("leases", value) => self.config.lease_reads = value == "on",
                ("memory", bytes) => self.config.memory_bytes_max = number(bytes) as usize,
                ("lag", entries) => self.config.promote_lag_max = number(entries),
                ("window", messages) => self.config.inflight_messages_max = number(messages) as usize,
                (other, _) => panic!("no such option: {other}"),
            }
        }
        self.membership = Membership { voters, learners, ..Membership::default() };
        let membership = &self.membership;
        self.members = membership.all().iter().map(|&id| Member::new(id, membership.clone())).collect();
        self.roles = vec![Role::Follower; self.members.len()];
    }

    fn log(&mut self, id_: MemberId, words: &[&str]) {
        let mut image = Image::default();
        for word in words {
            match word.split_once('=') {
                Some(("term", term)) => image.hard_state.term = number(term),
                Some(("vote", vote)) => image.hard_state.vote = id(vote),
                Some(_) => panic!("no such option: {word}"),
                None => {
                    let id = EntryId::new(number(word), image.last().index + 1);
                    let payload = Bytes::from(format!("{}{}", (b'a' + id.term as u8 - 1) as char, id.index));
                    image.entries.push(Entry { id, kind: EntryKind::Normal, payload });
                }
            }
        }
        let term = image.hard_state.term.max(image.last().term);
        image.hard_state = HardState { term, ..image.hard_state };
        self.member(id_).durable = image;
    }

    fn start(&mut self, id: MemberId) {
        let config = Config { id, seed: id, ..self.config.clone() };
        let now = self.now;
        self.member(id).start(config, now);
        self.roles[id as usize - 1] = Role::Follower;
        self.turns(id);
    }

    fn wait(&mut self, time: &str, only: &[&str]) {
        let end = self.now + milliseconds(time);
        loop {
            let due = self
                .members
                .iter()
                .filter(|member| only.is_empty() || only.iter().any(|word| id(word) == member.id))
                .filter_map(|member| Some((member.raft.as_ref()?.deadline().max(self.now), member.id)))
                .min();
            match due {
                Some((at, id)) if at <= end => {
                    self.now = at;
                    self.member(id).tick(at);
                    self.turns(id);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn live(&mut self, time: &str, without: &[&str]) {
        for _ in 0..milliseconds(time) / MS {
            self.wait("1ms", &[]);
            self.settle(without);
        }
    }

    fn deliver(&mut self, words: &[&str]) {
        let now: Vec<Message> = self.flying.iter().filter(|m| selected(m, words)).cloned().collect();
        self.flying.retain(|m| !selected(m, words));
        for message in now {
            self.arrive(message);
        }
    }

    fn settle(&mut self, without: &[&str]) {
        let apart = |at: MemberId| without.iter().any(|word| id(word) == at);
        for _ in 0..1_000 {
            self.flying.retain(|m| !apart(m.from) && !apart(m.to));
            if self.flying.is_empty() {
                return;
            }
            let message = self.flying.remove(0);
            self.arrive(message);
        }
        panic!("it never settles");
    }

    fn arrive(&mut self, message: Message) {
        let (to, now) = (message.to, self.now);
        if self.members.get(to as usize - 1).is_some_and(|member| member.raft.is_some()) {
            self.member(to).step(message, now);
            self.turns(to);
        }
    }

    fn sync(&mut self, id: MemberId, up_to: u64) {
        let last = self.member(id).writes.iter().map(|write| write.number).filter(|n| *n <= up_to).max();
        if let Some(last) = last {
            let freed = self.member(id).persist(last);
            self.send(freed);
            self.note_role(id);
        }
    }

    fn turns(&mut self, id: MemberId) {
        self.note_role(id);
        while let Some(turn) = self.member(id).turn() {
            self.carry_out(id, turn);
            self.note_role(id);
            if !self.held.contains(&id) {
                self.sync(id, u64::MAX);
            }
        }
        if !self.held.contains(&id) && !self.member(id).writes.is_empty() {
            self.sync(id, u64::MAX);
            self.turns(id);
        }
    }

    fn note_role(&mut self, id: MemberId) {
        let standing = self.member(id).raft().0.standing();
        let role = self.member(id).raft().0.role();
        if std::mem::replace(&mut self.roles[id as usize - 1], role) != role {
            let what = match role {
                Role::Follower => "follows",
                Role::PreCandidate => "asks around",
                Role::Candidate => "campaigns",
                Role::Leader => "leads",
            };
            self.line(format!("{} {what} in term {}", name(id), standing.term));
        }
    }

    fn carry_out(&mut self, id: MemberId, turn: Turn) {
        let who = name(id);
        if let Some(write) = &turn.write {
            let mut text = format!("{who} writes");
            if let Some(HardState { term, vote }) = write.hard_state {
                write!(text, " term {term} vote {}", name(vote)).unwrap();
            }
            if !write.entries.is_empty() {
                write!(text, " {}", show(&write.entries)).unwrap();
            }
            let note = if self.held.contains(&id) {
                format!(" (write {}, not synced)", write.number)
            } else {
                String::new()
            };
            self.line(text + &note);
        }
        if !turn.committed.is_empty() {
            self.line(format!("{who} applies {}", show(&turn.committed)));
        }
        for read in turn.reads {
            match read.index {
                Some(index) => self.line(format!("{who} serves read {} at {index}", read.id)),
                None => self.line(format!("{who} fails read {}", read.id)),
            }
        }
        for (to, index) in turn.snapshots {
            self.line(format!("{who} wants a snapshot for {} at {index} or later", name(to)));
        }
        self.send(turn.sent);
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.line(tell(&message));
            self.flying.push(message);
        }
    }

    fn snapshot(&mut self, from: MemberId, to: MemberId) {
        let (at, membership) = (self.member(from).applied, self.member(from).membership.clone());
        let outcome = match self.member(to).install(at, membership) {
            Some(freed) => {
                self.line(format!("{} installs the state of {at}", name(to)));
                self.send(freed);
                Ok(at)
            }
            None => {
                self.line(format!("{} does not want the state of {at}", name(to)));
                Err(())
            }
        };
        self.turns(to);
        self.member(from).raft().0.report_snapshot(to, outcome);
        self.turns(from);
    }

    fn say(&mut self, from: MemberId, to: MemberId, words: &[&str]) {
        let body = match words[3] {
            "take-over" => MessageBody::TimeoutNow,
            "vote" => {
                MessageBody::Vote { last: EntryId::new(number(words[5]), number(words[4])), transfer: false }
            }
            "rejected" => MessageBody::AppendRejected {
                previous: number(words[4]),
                hint: EntryId::ZERO,
                last: 0,
                round: number(words[5]),
            },
            "matched" => MessageBody::AppendAccepted { matched: number(words[4]), round: number(words[5]) },
            other => panic!("no such message: {other}"),
        };
        self.arrive(Message { from, to, term: number(words[2]), body });
    }

    fn tell_members(&mut self) {
        for position in 0..self.members.len() {
            let member = &self.members[position];
            let Some(raft) = &member.raft else { continue };
            let mut text = format!("{} knows {}", name(member.id), show_membership(raft.membership()));
            if raft.settled_membership() != raft.membership() {
                write!(text, ", settled {}", show_membership(raft.settled_membership())).unwrap();
            }
            self.line(text);
        }
    }

    fn status(&mut self) {
        for position in 0..self.members.len() {
            let member = &self.members[position];
            let who = name(member.id);
            let Some(raft) = &member.raft else {
                self.line(format!("{who} is down"));
                continue;
            };
            let standing = raft.standing();
            let mut text = format!(
                "{who} {:?} term {} leader {} last {} commit {}",
                raft.role(),
                standing.term,
                name(standing.leader),
                raft.last(),
                standing.commit
            );
            if standing.lease_until > self.now {
                write!(text, " lease {} ms", standing.lease_until.since(self.now) / MS).unwrap();
            }
            for peer in raft.peers() {
                text.push_str(&show_peer(&peer));
            }
            self.line(text);
        }
    }
}

fn change(verb: &str, member: MemberId) -> Change {
    match verb {
        "add" => Change::AddVoter(member),
        "learner" => Change::AddLearner(member),
        "promote" => Change::Promote(member),
        "remove" => Change::Remove(member),
        "update" => Change::Update(member),
        _ => panic!("no such change: {verb}"),
    }
}

fn show_peer(peer: &PeerStanding) -> String {
    format!("; {} {:?} matched {}", name(peer.id), peer.state, peer.matched)
}

fn selected(message: &Message, words: &[&str]) -> bool {
    words.first().is_none_or(|from| id(from) == message.from)
        && words.get(1).is_none_or(|to| id(to) == message.to)
}

/// Runs a conversation and writes it down again, with what happened now.
fn perform(script: &str) -> String {
    let mut stage = Stage::new();
    let mut written = String::new();
    let mut lines = script.lines().peekable();
    let mut commands: Vec<&str> = Vec::new();
    while let Some(line) = lines.next() {
        if line == "----" {
            while lines.peek().is_some_and(|line| !line.is_empty()) {
                lines.next();
            }
            for command in commands.drain(..) {
                stage.command(command);
            }
            written.push_str("----\n");
            written.push_str(&std::mem::take(&mut stage.out));
            continue;
        }
        written.push_str(line);
        written.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            commands.push(line);
        }
    }
    assert!(commands.is_empty(), "the last commands are not followed by ----");
    written
}

#[expect(clippy::disallowed_methods, reason = "golden files are files of the source tree")]
fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft").join(file);
    let script = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
    let written = perform(&script);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &written).unwrap();
        return;
    }
    for (number, (found, expected)) in written.lines().zip(script.lines()).enumerate() {
        assert!(found == expected, "{file}, line {}:\n found    {found}\n expected {expected}", number + 1);
    }
    assert!(written == script, "{file} ends otherwise");
}

macro_rules! conversations {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(concat!(stringify!($name), ".txt"));
        })*

        /// A conversation that nobody runs proves nothing.
        #[test]
        fn every_file_is_run() {
            let known = [$(concat!(stringify!($name), ".txt")),*];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft");
            for file in std::fs::read_dir(folder).unwrap() {
                let file = file.unwrap().file_name().into_string().unwrap();
                assert!(known.contains(&file.as_str()), "{file} is not run");
            }
        }
    };
}

conversations! {
    election pre_vote divergence durability snapshot transfer lease reads
    membership joint learner removal
    recovery
}
