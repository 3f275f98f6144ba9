//! `compaction`.

use super::args::Compaction;
use super::session::Question;
use super::{Client, Failure, known, reply};
use crate::cli::Console;

impl Client<'_> {
    pub(super) fn compact(&self, compaction: &Compaction, console: &mut Console) -> Result<(), Failure> {
        let [word] = compaction.words.as_slice() else {
            return Err(Failure::BadArguments("compaction command needs 1 argument".into()));
        };
        let text = word.to_string_lossy();
        // Go's words, because etcdctl prints them.
        let revision: i64 = text
            .parse()
            .map_err(|_| Failure::Usage(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
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
}
