//! Hashes of the history: of the same revision, and with the same end of history, there is one, whoever tells it.

use std::collections::BTreeMap;

use super::super::history::{Answer, Op, Outcome};
use super::{Rule, Violation};
use crate::base::Revision;

pub(super) fn check(ops: &[Op]) -> Result<(), Violation> {
    let mut told: BTreeMap<(Revision, Revision), (u32, &Op)> = BTreeMap::new();
    for op in ops {
        let Outcome::Answered { answer: Answer::HashKv { hash, revision, compact_revision }, .. } =
            &op.outcome
        else {
            continue;
        };
        let (before, by) = *told.entry((*revision, *compact_revision)).or_insert((*hash, op));
        if before != *hash {
            let what = format!("revision {revision} has two hashes, {before:08x} and {hash:08x}");
            return Err(Violation::new(Rule::SameHash, what, &[by, op]));
        }
    }
    Ok(())
}
