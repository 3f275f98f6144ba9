//! `compaction`, `defrag` and `alarm`.

use super::args::{Alarm, Compaction, Defrag, HashKv};
use super::session::Question;
use super::{Client, Failure, known, reply, words};
use crate::cli::output::EndpointHash;
use crate::cli::{Console, go, output};

impl Client<'_> {
    pub(super) fn compact(&self, compaction: &Compaction, console: &mut Console) -> Result<(), Failure> {
        let [word] = compaction.words.as_slice() else {
            return Err(Failure::BadArguments("compaction command needs 1 argument".into()));
        };
        let revision = go::parse_int(&word.to_string_lossy(), 10).map_err(Failure::Usage)?;
        if revision < 0 {
            // The protocol has no negative numbers. To etcd it is a revision like any other, and long gone.
            return Err(Failure::Usage("etcdserver: mvcc: required revision has been compacted".into()));
        }
        let mut words = vec![b"COMPACT".to_vec(), revision.to_string().into_bytes()];
        if compaction.physical == Some(true) {
            words.push(b"PHYSICAL".to_vec());
        }
        let (_, reply) = self.ask(&Question::write(words))?;
        known(reply::ok(&reply), "COMPACT")?;
        console.print(format!("compacted revision {revision}\n").as_bytes());
        Ok(())
    }

    pub(super) fn defrag(&self, defrag: &Defrag, console: &mut Console) -> Result<(), Failure> {
        let mut failed = false;
        for endpoint in self.endpoints(defrag.cluster)? {
            let asked = self.ask_now(&endpoint, &Question::read(words(&["DEFRAG"])));
            match asked.and_then(|(_, reply)| known(reply::ok(&reply), "DEFRAG")) {
                Ok(()) => {
                    let line = format!("Finished defragmenting etcd member[{endpoint}]\n");
                    console.print(line.as_bytes());
                }
                Err(failure) => {
                    console.complain(&format!("Failed to defragment etcd member[{endpoint}] ({failure})"));
                    failed = true;
                }
            }
        }
        if failed { Err(Failure::Told) } else { Ok(()) }
    }

    pub(super) fn hash_kv(
        &self,
        endpoints: &[String],
        asked: &HashKv,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let revision = asked.rev.max(0).to_string();
        let question = Question::read(words(&["HASHKV", "REV", &revision]));
        let mut found = Vec::new();
        let mut last_failure = None;
        for endpoint in endpoints {
            let told = self.ask_now(endpoint, &question).and_then(|(header, reply)| {
                let (hash, compact_revision) = known(reply::hash_kv(&reply), "HASHKV")?;
                Ok(EndpointHash { endpoint: endpoint.clone(), header, hash, compact_revision })
            });
            match told {
                Ok(told) => found.push(told),
                Err(failure) => {
                    console.complain(&format!("Failed to get the hash of endpoint {endpoint} ({failure})"));
                    last_failure = Some(failure);
                }
            }
        }
        console.print(&output::endpoint_hashes(&found, self.options.format)?);
        last_failure.map_or(Ok(()), Err)
    }

    /// What etcdctl calls a server's error where alarms stand; empty if none do.
    pub(super) fn active_alarms(&self, endpoint: &String) -> String {
        let asked = self.ask_now(endpoint, &Question::read(words(&["ALARM", "LIST"])));
        match asked.and_then(|(_, reply)| known(reply::alarms(&reply), "ALARM")) {
            Ok(alarms) if alarms.is_empty() => String::new(),
            Ok(alarms) => {
                let words: String = alarms.iter().map(|alarm| format!("{} ", alarm.kind.word())).collect();
                format!("Active Alarm(s): {words}")
            }
            Err(_) => "Unable to fetch the alarm list".into(),
        }
    }

    pub(super) fn alarm(&self, alarm: &Alarm, console: &mut Console) -> Result<(), Failure> {
        let (verb, given, ended) = match alarm {
            Alarm::List(given) => ("LIST", given, false),
            Alarm::Disarm(given) => ("DISARM", given, true),
        };
        if !given.words.is_empty() {
            let verb = verb.to_lowercase();
            return Err(Failure::BadArguments(format!("alarm {verb} command accepts no arguments")));
        }
        // Ending what has ended changes nothing.
        let (header, reply) = self.ask(&Question::read(words(&["ALARM", verb])))?;
        let alarms = known(reply::alarms(&reply), "ALARM")?;
        console.print(&output::alarms(&header, &alarms, ended, self.options.format)?);
        Ok(())
    }
}
