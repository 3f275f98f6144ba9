//! `make-mirror`: keeps the keys of another cluster as they are here.
//!
//! First what there is is copied as of one revision, page by page; then a watch follows from the revision behind it, over any loss of a
//! connection and at any endpoint. What one revision did becomes one transaction there, if the destination takes so
//! much at once; so whoever reads the mirror sees what was there at some revision.
//!
//! The answer to a transaction may be lost. It is sent again then, which does no harm as such: to put what is there already
//! changes nothing. But the first one may still be under way in a member that stands still, and come after what was
//! mirrored later. So each compares its keys with the newest revision that was known of the destination when it was first
//! sent, and is done only if nobody has written them since. If somebody has, it is made anew with what is known by then:
//! the mirror wins over other writers.
//!
//! Left out: leases, as in etcdctl, because their time goes on elsewhere: keys are put without. Keys that are at the destination alone
//! stay. A transaction that comes late, all of whose keys were deleted by later ones, is not told from a new one: it takes a
//! member that stood still over all of that.

use std::os::unix::ffi::OsStrExt;

use super::args::MakeMirror;
use super::reply::{self, Kind};
use super::session::{Line, Patience, Question};
use super::watch::{self, Listener, Watched};
use super::{Client, Failure, known, words};
use crate::api::{Event, EventKind, Header, request::prefix_end};
use crate::base::Revision;
use crate::base::time::{Mono, Nanos, SECOND};
use crate::cli::{Console, go};
use crate::io::Clock;
use crate::io::os::OsClock;

/// Between two lines that tell how many keys were mirrored: etcdctl's.
const TELL_EVERY: Nanos = 30 * SECOND;

/// What a page of the copy should hold. The first one may be larger: nobody knows yet how large values are.
const PAGE_BYTES: usize = 512 << 10;

/// A change of one key at the destination.
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

impl Op {
    fn key(&self) -> &[u8] {
        match self {
            Op::Put(key, _) | Op::Delete(key) => key,
        }
    }
}

struct Mirror<'a, 'c, 'o> {
    client: &'a Client<'a>,
    console: &'c mut Console<'o>,
    source: Line,
    destination: Line,
    /// The newest revision of the destination that is known.
    destination_revision: Revision,
    prefix: Vec<u8>,
    prefix_there: Vec<u8>,
    ops_max: usize,
    /// Everything up to this revision of the source is at the destination; 0 = not even the copy.
    done: Revision,
    mirrored: u64,
    tell_at: Mono,
}

impl Client<'_> {
    pub(super) fn make_mirror(&self, args: &MakeMirror, console: &mut Console) -> Result<(), Failure> {
        args.missing.refuse()?;
        let bad = |text: String| Err(Failure::BadArguments(text));
        let [destination] = &args.words[..] else {
            return bad("make-mirror takes one destination argument".into());
        };
        let prefix_there = args.dest_prefix.as_ref().map_or(&b""[..], |prefix| prefix.as_bytes());
        if args.no_dest_prefix == Some(true) && !prefix_there.is_empty() {
            return bad(
                "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one".into()
            );
        }
        let Ok(from) = Revision::try_from(args.rev) else {
            return bad(format!("--rev must not be negative, found {}", args.rev));
        };
        let destination = destination.to_string_lossy();
        let prefix = args.prefix.as_bytes().to_vec();
        let prefix_there = match args.no_dest_prefix {
            Some(true) => Vec::new(),
            _ if prefix_there.is_empty() => prefix.clone(),
            _ => prefix_there.to_vec(),
        };
        let mut mirror = Mirror {
            client: self,
            console,
            source: Line::new(self.options.endpoints.clone()),
            destination: Line::new(destination.split(',').map(|item| item.trim().to_owned()).collect()),
            destination_revision: 0,
            prefix,
            prefix_there,
            ops_max: args.max_txn_ops as usize,
            done: 0,
            mirrored: 0,
            tell_at: OsClock.now() + TELL_EVERY,
        };
        mirror.meet()?;
        // Before revision 2 there is nothing.
        let next = if from <= 1 { mirror.copy()? + 1 } else { from };
        mirror.done = next - 1;
        mirror.follow(next)
    }
}

impl Mirror<'_, '_, '_> {
    fn patience(&self) -> Patience {
        self.client.patience()
    }

    fn ask_source(&mut self, words: Vec<Vec<u8>>) -> Result<(Header, crate::cli::resp::Value), Failure> {
        let patience = self.patience();
        self.source.ask(&Question::read(words), patience)
    }

    /// Asks both who they are. That two clusters have the same id is possible, because it is made of names and URLs: then their
    /// revisions tell.
    fn meet(&mut self) -> Result<(), Failure> {
        let look = || words(&["RANGE", "health", "KEYS"]);
        let (before, _) = self.ask_source(look())?;
        let patience = self.patience();
        let there = self.destination.ask(&Question::read(look()), patience);
        let (there, _) = there.map_err(|why| self.failed(why))?;
        self.destination_revision = there.revision;
        let (after, _) = self.ask_source(look())?;
        let overlap =
            self.prefix.starts_with(&self.prefix_there) || self.prefix_there.starts_with(&self.prefix);
        let same = (there.cluster, there.term) == (before.cluster, before.term)
            && (before.revision..=after.revision).contains(&there.revision);
        if same && overlap {
            return Err(Failure::BadArguments(format!(
                "the destination is the cluster that is mirrored ({:x}, revision {}), and keys behind {} would be mirrored \
                 again when they get there: name another one, or another --dest-prefix",
                there.cluster,
                there.revision,
                go::quote(&self.prefix_there)
            )));
        }
        Ok(())
    }

    /// Copies all keys as of one revision, which it returns.
    fn copy(&mut self) -> Result<Revision, Failure> {
        let mut words = words(&["RANGE"]);
        words.extend([self.prefix.clone(), b"PREFIX".to_vec()]);
        let (mut at, mut limit) = (None, self.ops_max);
        loop {
            words.extend([b"LIMIT".to_vec(), limit.to_string().into_bytes()]);
            let page = match (self.ask_source(std::mem::take(&mut words)), at) {
                (Err(Failure::Fault { code, .. }), Some(at)) if code == "COMPACTED" => {
                    return Err(self.compacted_while_copied(at));
                }
                (answer, _) => known(reply::range(&answer?.1), "RANGE")?,
            };
            let at = *at.get_or_insert(page.revision);
            let bytes: usize = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            let mut ops = Vec::with_capacity(page.kvs.len());
            for kv in &page.kvs {
                ops.push(Op::Put(self.key_there(&kv.key)?, kv.value.to_vec()));
            }
            self.write(&ops)?;
            self.mirrored += ops.len() as u64;
            self.tell(OsClock.now());
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(at) };
            limit = (page.kvs.len() * PAGE_BYTES / bytes.max(1)).clamp(1, self.ops_max);
            words.extend([b"RANGE".to_vec(), [&last.key[..], &[0]].concat()]);
            match prefix_end(&self.prefix) {
                Some(end) => words.extend([b"TO".to_vec(), end.to_vec()]),
                None => words.push(b"FROM".to_vec()),
            }
            words.extend([b"REV".to_vec(), at.to_string().into_bytes()]);
        }
    }

    fn compacted_while_copied(&mut self, at: Revision) -> Failure {
        let bound = self.ask_source(words(&["STATUS"])).ok().and_then(|(_, reply)| reply::status(&reply));
        let bound =
            bound.map_or(String::new(), |status| format!(" (up to revision {})", status.compact_revision));
        Failure::Usage(format!(
            "the source was compacted{bound} while it was copied as of revision {at}, and {} keys were: begin again with \
             an empty destination, and compact less often meanwhile",
            self.mirrored
        ))
    }

    fn follow(self, next: Revision) -> Result<(), Failure> {
        let words = vec![b"WATCH".to_vec(), self.prefix.clone(), b"PREFIX".to_vec()];
        watch::follow(self.client, words, next, self)
    }

    fn key_there(&self, key: &[u8]) -> Result<Vec<u8>, Failure> {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            let (key, prefix) = (go::quote(key), go::quote(&self.prefix));
            return Err(Failure::Protocol(format!(
                "the source told of {key}, asked for what begins with {prefix}"
            )));
        };
        let key_there = [&self.prefix_there, rest].concat();
        if key_there.is_empty() {
            let why = format!("the key {} would have no name at the destination", go::quote(key));
            return Err(Failure::Usage(format!(
                "{why}: it has nothing behind the prefix; choose a --dest-prefix"
            )));
        }
        Ok(key_there)
    }

    /// One transaction, or several where the destination does not take as much in one.
    fn write(&mut self, ops: &[Op]) -> Result<(), Failure> {
        if ops.is_empty() {
            return Ok(());
        }
        match self.write_at_once(ops) {
            Err(Failure::Fault { code, .. })
                if ops.len() > 1 && matches!(code.as_str(), "TOOLARGE" | "TOOMANYOPS") =>
            {
                let (first, second) = ops.split_at(ops.len() / 2);
                self.write(first)?;
                self.write(second)
            }
            Err(why @ Failure::Usage(_)) => Err(why),
            done => done.map_err(|why| self.failed(why)),
        }
    }

    fn write_at_once(&mut self, ops: &[Op]) -> Result<(), Failure> {
        let kinds: Vec<Kind> =
            ops.iter().map(|op| if matches!(op, Op::Put(..)) { Kind::Put } else { Kind::Del }).collect();
        loop {
            let patience = self.patience();
            let question = Question::read(transaction(ops, self.destination_revision));
            let (header, reply) = self.destination.ask(&question, patience)?;
            let (_, succeeded, _) = known(reply::txn(&reply, &kinds, &[]), "TXN")?;
            self.destination_revision = header.revision;
            if succeeded {
                return Ok(());
            }
        }
    }

    /// What the destination did not do, and how to go on.
    fn failed(&self, why: Failure) -> Failure {
        Failure::Usage(match self.done {
            0 if self.mirrored == 0 => format!("the destination: {why}"),
            0 => format!("the destination: {why}; {} keys were copied, not all: begin again", self.mirrored),
            done => format!(
                "the destination: {why}; it has everything up to revision {done} of the source: go on with --rev {}",
                done + 1
            ),
        })
    }

    fn tell(&mut self, now: Mono) {
        if now >= self.tell_at {
            self.console.print(format!("{}\n", self.mirrored).as_bytes());
            self.tell_at = now + TELL_EVERY;
        }
    }
}

/// Done only if none of its keys was written behind `known`.
fn transaction(ops: &[Op], known: Revision) -> Vec<Vec<u8>> {
    let mut words = words(&["TXN", "IF"]);
    let behind = (known + 1).to_string().into_bytes();
    for op in ops {
        words.extend([b"MOD".to_vec(), op.key().to_vec(), b"<".to_vec(), behind.clone()]);
    }
    words.push(b"THEN".to_vec());
    for op in ops {
        match op {
            Op::Put(key, value) => words.extend([b"PUT".to_vec(), key.clone(), value.clone()]),
            Op::Delete(key) => words.extend([b"DEL".to_vec(), key.clone()]),
        }
    }
    words.push(b"END".to_vec());
    words
}

impl Listener for Mirror<'_, '_, '_> {
    /// So that a mirror which has had nothing to do for long knows up to where that is, and does not ask for what was compacted.
    const SIGN: &'static str = "WATCHPROGRESS";

    fn told(&mut self, _: &Watched, header: &Header, events: &[Event]) -> Result<(), Failure> {
        let mut ops = Vec::with_capacity(events.len());
        for event in events {
            let key = self.key_there(&event.kv.key)?;
            ops.push(match event.kind {
                EventKind::Put => Op::Put(key, event.kv.value.to_vec()),
                EventKind::Delete => Op::Delete(key),
            });
        }
        for batch in ops.chunks(self.ops_max) {
            self.write(batch)?;
        }
        self.mirrored += ops.len() as u64;
        self.done = self.done.max(header.revision);
        Ok(())
    }

    fn progress(&mut self, header: &Header) -> Result<(), Failure> {
        self.done = self.done.max(header.revision);
        Ok(())
    }

    fn canceled(&mut self, _: &Header, text: &str, compacted: Revision) -> Failure {
        let next = self.done + 1;
        Failure::Usage(match compacted {
            0 => format!("the source: {text}; go on with --rev {next}"),
            bound => format!(
                "the source was compacted up to revision {bound}, and the mirror has what came before revision {next}: what \
                 was deleted between them cannot be known. Begin again with an empty destination, or go on with --rev \
                 {bound} if keys that are gone may stay there"
            ),
        })
    }

    fn complain(&mut self, line: &str) {
        self.console.complain(line);
    }

    fn due(&self) -> Mono {
        self.tell_at
    }

    fn tick(&mut self, now: Mono) -> bool {
        self.tell(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_done_only_where_nobody_has_written() {
        let ops = [Op::Put(b"a".to_vec(), b"PUT".to_vec()), Op::Delete(b"THEN".to_vec())];
        let words = transaction(&ops, 7);
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert_eq!(words.join(" "), "TXN IF MOD a < 8 MOD THEN < 8 THEN PUT a PUT DEL THEN END");
    }
}
