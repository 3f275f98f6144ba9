//! What those were told who observe elections, against the model: who led when they began, and from there on every leader and
//! every value of it, at the revision in which it came to be so.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::history::{Observed, ShownKv, ToldOfLeader};
use super::watches::Case;
use super::{Rule, Violation};
use crate::api::{KeyValue, Span, lock};
use crate::base::Revision;

/// Who led from each revision on at which something happened under the name.
type Leaders<'m> = BTreeMap<Revision, Option<&'m KeyValue>>;

impl Case<'_> {
    /// How many leaders were told.
    pub(super) fn check_observers(&self, all: &[Observed]) -> Result<usize, Violation> {
        let mut leaders: BTreeMap<Bytes, Leaders<'_>> = BTreeMap::new();
        let mut told = 0;
        for observed in all {
            let of_name =
                leaders.entry(observed.name.clone()).or_insert_with(|| self.leaders(&observed.name));
            told += self.check_observer(observed, of_name).map_err(|(rule, what)| {
                let Observed { client, connection, name, .. } = observed;
                let what =
                    format!("client {client} conn {connection} observes {}: {what}", name.escape_ascii());
                Violation::new(rule, what, &[])
            })?;
        }
        Ok(told)
    }

    fn leaders(&self, name: &[u8]) -> Leaders<'_> {
        let span = Span::Prefix(lock::lock_prefix(name));
        let changed: BTreeSet<Revision> = self.model.changes(&span).map(|(at, ..)| at).collect();
        let first = |at| self.model.span(&span, at).into_iter().min_by_key(|kv| kv.create_revision);
        changed.into_iter().map(|at| (at, first(at))).collect()
    }

    fn check_observer(&self, observed: &Observed, leaders: &Leaders<'_>) -> Result<usize, (Rule, String)> {
        let wrong = |what: String| Err((Rule::Observers, what));
        let Some((begun, leader)) = &observed.begun else {
            return if observed.told.is_empty() { Ok(0) } else { wrong("told before it began".into()) };
        };
        let span = Span::Prefix(lock::lock_prefix(&observed.name));
        if (self.in_doubt)(&span, *begun) {
            return Ok(0);
        }
        if *begun < observed.known {
            let what = format!("it begins at {begun}, but {} was known before", observed.known);
            return Err((Rule::RealTime, what));
        }
        if *begun > self.last {
            return wrong(format!("it begins at {begun}, but {} is the last", self.last));
        }
        let mut led = leaders.range(..=begun).next_back().and_then(|(_, leader)| *leader);
        if leader.as_ref() != led {
            return wrong(format!(
                "at {begun} it is told of {}, not of {}",
                shown(leader.as_ref()),
                shown(led)
            ));
        }
        let mut later = leaders.range(begun + 1..).filter_map(|(&revision, &leader)| {
            let news = leader.filter(|_| leader != led);
            led = leader;
            Some((revision, news?))
        });
        let (mut next, mut due, mut count, mut ended) = (begun + 1, later.next(), 0, false);
        for told in &observed.told {
            if ended {
                return wrong(format!("told {told:?} when it had ended"));
            }
            match told {
                ToldOfLeader::Leads { revision, .. } | ToldOfLeader::Progress { revision }
                    if (self.in_doubt)(&span, *revision) =>
                {
                    break;
                }
                ToldOfLeader::Leads { revision, leader } => {
                    let expected = due.map(|(revision, leader)| (revision, leader.clone()));
                    if expected.as_ref() != Some(&(*revision, leader.clone())) {
                        let due = due.map_or("nothing".into(), |(at, kv)| format!("{} at {at}", ShownKv(kv)));
                        return wrong(format!("told of {} at {revision}, expected {due}", ShownKv(leader)));
                    }
                    (next, due, count) = (revision + 1, later.next(), count + 1);
                }
                ToldOfLeader::Progress { revision } => {
                    if let Some((at, kv)) = due.filter(|(at, _)| at <= revision) {
                        return wrong(format!("progress up to {revision} before {} at {at}", ShownKv(kv)));
                    }
                    if *revision > self.last || revision + 1 < next {
                        return wrong(format!("progress up to {revision}, {next} is next"));
                    }
                    next = revision + 1;
                }
                ToldOfLeader::Ended { compacted } => {
                    let asked = self.ends.as_ref().is_none_or(|ends| ends.contains(compacted));
                    if *compacted > 0 && (next >= *compacted || !asked) {
                        return wrong(format!(
                            "ended at {next}, for what is before {compacted} was compacted"
                        ));
                    }
                    ended = true;
                }
            }
        }
        Ok(count)
    }
}

fn shown(leader: Option<&KeyValue>) -> String {
    leader.map_or("nobody".into(), |kv| ShownKv(kv).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::super::tests::{broken, history, kv, told};
    use super::*;
    use crate::sim::history::History;

    /// The history of the other tests has no elections: what nobody fights for nobody leads.
    fn observed(change: impl FnOnce(&mut Observed)) -> History {
        let mut history = history(told());
        let mut observed = Observed {
            client: 1,
            connection: 1,
            name: "n".into(),
            known: 2,
            begun: Some((3, None)),
            told: vec![ToldOfLeader::Progress { revision: 5 }],
        };
        change(&mut observed);
        history.observed.push(observed);
        history
    }

    #[test]
    fn who_is_told_of_nobody_where_nobody_leads_is_told_the_truth() {
        assert!(check(&observed(|_| {})).is_ok());
        assert!(check(&observed(|observed| observed.begun = None)).is_err(), "told before it began");
    }

    #[test]
    fn lies_to_observers_are_named() {
        let lie = |change: fn(&mut Observed)| broken(&observed(change));
        let leads = |revision| ToldOfLeader::Leads { revision, leader: kv("n/1", "x", 4, 4, 1) };
        assert_eq!(
            lie(|one| one.begun = Some((3, Some(kv("n/1", "x", 2, 2, 1))))),
            Some(Rule::Observers),
            "a leader from nowhere"
        );
        assert_eq!(lie(|one| one.known = 4), Some(Rule::RealTime));
        assert_eq!(lie(|one| one.begun = Some((99, None))), Some(Rule::Observers));
        assert_eq!(lie(|one| one.told.push(ToldOfLeader::Progress { revision: 4 })), Some(Rule::Observers));
        assert_eq!(lie(|one| one.told.push(ToldOfLeader::Progress { revision: 99 })), Some(Rule::Observers));
        let mut history = observed(|_| {});
        history.observed[0].told.push(leads(6));
        assert_eq!(broken(&history), Some(Rule::Observers));
        history.observed[0].told[1] = ToldOfLeader::Ended { compacted: 0 };
        history.observed[0].told.push(leads(6));
        assert_eq!(broken(&history), Some(Rule::Observers), "behind its end");
    }
}
