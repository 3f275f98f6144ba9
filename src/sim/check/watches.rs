//! What watches were told, against the model: every revision that changed something that a watch wanted, once, whole, in
//! order, and nothing else. Over all connections on which it went on, as if there had been one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::history::{Piece, ShownKv, Told, Watched};
use super::model::Model;
use super::{Rule, Violation};
use crate::api::{Event, EventKind, KeyValue, Span, Watch};
use crate::base::Revision;

/// What one revision did to the keys of a watch, by key.
type Expected<'m> = Vec<(EventKind, KeyValue, Option<&'m KeyValue>)>;

pub(super) struct Case<'a> {
    pub model: &'a Model,
    /// The last revision that there was.
    pub last: Revision,
    pub in_doubt: &'a dyn Fn(&Span, Revision) -> bool,
    /// Where the history may have ended; None: anywhere.
    pub ends: Option<BTreeSet<Revision>>,
}

impl Case<'_> {
    /// How many revisions were told.
    pub fn check(&self, all: &[Watched]) -> Result<usize, Violation> {
        let mut told = 0;
        for watched in all {
            let expected = self.expected(&watched.watch);
            for piece in &watched.pieces {
                told += self.check_piece(watched, piece, &expected)?;
            }
        }
        Ok(told)
    }

    fn expected(&self, watch: &Watch) -> BTreeMap<Revision, Expected<'_>> {
        let mut expected: BTreeMap<Revision, Expected> = BTreeMap::new();
        for (revision, key, after, before) in self.model.changes(&watch.span) {
            let event = match after {
                Some(_) if watch.no_put => continue,
                None if watch.no_delete => continue,
                Some(kv) => (EventKind::Put, kv.clone(), before),
                None => {
                    let key = key.clone();
                    let gone = KeyValue { key, mod_revision: revision, ..KeyValue::default() };
                    (EventKind::Delete, gone, before)
                }
            };
            expected.entry(revision).or_default().push(event);
        }
        expected
    }

    fn check_piece(
        &self,
        watched: &Watched,
        piece: &Piece,
        expected: &BTreeMap<Revision, Expected>,
    ) -> Result<usize, Violation> {
        let broken = |rule, what: String| {
            let (client, watch, connection) = (watched.client, &watched.watch, piece.connection);
            let from = piece.asked;
            let what = format!("client {client} conn {connection}, {watch:?}, asked for {from}: {what}");
            Err(Violation::new(rule, what, &[]))
        };
        let Some(begun) = piece.begun else {
            let silent = piece.told.is_empty();
            return if silent { Ok(0) } else { broken(Rule::WatchOrder, "told before it began".into()) };
        };
        // Everything below is told, or not asked for.
        let mut next = if piece.asked > 0 { piece.asked } else { begun + 1 };
        let (mut count, mut ended) = (0, false);
        for told in &piece.told {
            if ended {
                return broken(Rule::WatchEnd, format!("told {told:?} when it had ended"));
            }
            let upto = match told {
                Told::Events { revision, .. } | Told::Progress { revision } => *revision,
                Told::Ended { compacted } => {
                    let asked = self.ends.as_ref().is_none_or(|ends| ends.contains(compacted));
                    if *compacted > 0 && (next >= *compacted || !asked) {
                        let what = format!("ended at {next}, for what is before {compacted} was compacted");
                        return broken(Rule::WatchEnd, what);
                    }
                    ended = true;
                    continue;
                }
            };
            if (self.in_doubt)(&watched.watch.span, upto) {
                break;
            }
            if upto > self.last {
                return broken(Rule::WatchRight, format!("told of {upto}, but {} is the last", self.last));
            }
            let events = match told {
                Told::Events { events, .. } => Some(events),
                _ => None,
            };
            // Progress may repeat what is known, and tell nobody of less.
            if upto < next && (events.is_some() || upto + 1 < next) {
                return broken(Rule::WatchOrder, format!("told of {upto} where {next} was the next"));
            }
            let missed = expected.range(next..upto + u64::from(events.is_none())).next();
            if let Some((revision, _)) = missed {
                let (rule, by) = match events {
                    Some(_) => (Rule::WatchComplete, "events of"),
                    None => (Rule::WatchProgress, "progress up to"),
                };
                return broken(rule, format!("{by} {upto} came before those of {revision}"));
            }
            if let Some(events) = events {
                count += 1;
                if let Some(what) = self.mismatch(&watched.watch, events, upto, expected.get(&upto)) {
                    return broken(Rule::WatchRight, format!("revision {upto}: {what}"));
                }
            }
            next = upto + 1;
        }
        Ok(count)
    }

    /// What is wrong with the events of a revision. Their order is the order in which it happened: nobody promises it.
    fn mismatch(
        &self,
        watch: &Watch,
        events: &[Arc<Event>],
        revision: Revision,
        expected: Option<&Expected>,
    ) -> Option<String> {
        let Some(expected) = expected else { return Some("it changed nothing here".into()) };
        if events.len() != expected.len() {
            return Some(format!("{} events in one piece, expected {}", events.len(), expected.len()));
        }
        let mut events: Vec<&Event> = events.iter().map(|event| &**event).collect();
        events.sort_by(|a, b| a.kv.key.cmp(&b.kv.key));
        let wrong = events.into_iter().zip(expected).find(|(event, (kind, kv, before))| {
            // What was there before a change at the end of the history, or before it, may be gone.
            let forgotten = event.previous.is_none() && self.may_be_compacted(revision);
            let before = before.filter(|_| watch.prev_kv && !forgotten);
            (event.kind, &event.kv, event.previous.as_ref()) != (*kind, kv, before)
        });
        wrong.map(|(event, (kind, kv, before))| {
            let before_it = |kv: Option<&KeyValue>| kv.map_or("nothing".into(), |kv| ShownKv(kv).to_string());
            format!(
                "{:?} {} (before: {}), expected {kind:?} {} (before: {})",
                event.kind,
                ShownKv(&event.kv),
                before_it(event.previous.as_ref()),
                ShownKv(kv),
                before_it(before.filter(|_| watch.prev_kv)),
            )
        })
    }

    fn may_be_compacted(&self, revision: Revision) -> bool {
        self.ends.as_ref().is_none_or(|ends| ends.range(revision..).next().is_some())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::check;
    use super::super::tests::{broken, history, kv, told};
    use super::*;
    use crate::api::{Compact, Request};
    use crate::base::Mono;
    use crate::sim::history::{History, Moment, Op, Outcome};

    // The history of the other tests, watched.

    fn events(revision: Revision, events: Vec<Arc<Event>>) -> Told {
        Told::Events { revision, events }
    }

    fn was_put(kv: KeyValue, before: Option<KeyValue>) -> Arc<Event> {
        Event::new(EventKind::Put, kv, before)
    }

    fn was_deleted(key: &'static str, modified: Revision, before: Option<KeyValue>) -> Arc<Event> {
        let kv = KeyValue { key: key.into(), mod_revision: modified, ..KeyValue::default() };
        Event::new(EventKind::Delete, kv, before)
    }

    /// Everything from 3 on, with what was there before: over two connections.
    fn watched() -> Watched {
        let watch = Watch { revision: 3, prev_kv: true, ..Watch::new(Span::Prefix(Bytes::new())) };
        let first = vec![
            events(3, vec![was_put(kv("b", "2", 3, 3, 1), None)]),
            events(4, vec![was_put(kv("a", "3", 2, 4, 2), Some(kv("a", "1", 2, 2, 1)))]),
            Told::Progress { revision: 4 },
        ];
        let second = vec![
            events(5, vec![was_deleted("b", 5, Some(kv("b", "2", 3, 3, 1)))]),
            events(6, vec![was_put(kv("b", "4", 6, 6, 1), None)]),
            events(7, vec![was_put(kv("a", "5", 2, 7, 3), Some(kv("a", "3", 2, 4, 2)))]),
            Told::Progress { revision: 7 },
        ];
        let piece = |connection, asked, begun, told| Piece { connection, asked, begun: Some(begun), told };
        Watched { client: 1, watch, pieces: vec![piece(1, 3, 7, first), piece(2, 5, 4, second)] }
    }

    fn with_watch(change: impl FnOnce(&mut Watched)) -> History {
        let mut watched = watched();
        change(&mut watched);
        let mut history = history(told());
        history.watched.push(watched);
        history
    }

    #[test]
    fn a_watch_that_was_told_everything_passes() {
        let told = |history: &History| check(history).map(|summary| summary.told);
        assert_eq!(told(&with_watch(|_| {})), Ok(5));
        let without = |watched: &mut Watched| {
            watched.watch.no_put = true;
            for piece in &mut watched.pieces {
                piece
                    .told
                    .retain(|told| matches!(told, Told::Events { revision: 5, .. } | Told::Progress { .. }));
            }
        };
        assert_eq!(told(&with_watch(without)), Ok(1));
        // From now on, and never told that it began.
        let from_now = |watched: &mut Watched| {
            watched.watch.revision = 0;
            watched.pieces[0] = Piece { connection: 1, asked: 0, begun: None, told: Vec::new() };
            watched.pieces[1].asked = 0;
        };
        assert_eq!(told(&with_watch(from_now)), Ok(3));
    }

    /// Somebody asked for an end at 5, and does not know what came of it.
    fn compacted(change: impl FnOnce(&mut Watched)) -> History {
        let mut history = with_watch(change);
        let request = Request::Compact(Compact { revision: 5, physical: false });
        let invoked = Moment::new(Mono(1));
        let ops = &mut history.ops;
        let number = ops.len();
        ops.push(Op { number, client: 9, connection: 9, request, invoked, outcome: Outcome::Unknown });
        history
    }

    #[test]
    fn a_watch_ends_where_what_it_wants_was_compacted() {
        let judged = |first: Vec<Told>| {
            broken(&compacted(|watched| {
                watched.pieces[0].told = first;
                watched.pieces.truncate(1);
            }))
        };
        let put_b = || events(3, vec![was_put(kv("b", "2", 3, 3, 1), None)]);
        let put_a = |before| events(4, vec![was_put(kv("a", "3", 2, 4, 2), before)]);
        assert_eq!(judged(vec![Told::Ended { compacted: 5 }]), None);
        assert_eq!(judged(vec![put_b(), Told::Ended { compacted: 5 }]), None);
        assert_eq!(
            judged(vec![put_b(), put_a(None), Told::Ended { compacted: 5 }]),
            Some(Rule::WatchEnd),
            "all before 5 was told"
        );
        assert_eq!(judged(vec![Told::Ended { compacted: 4 }]), Some(Rule::WatchEnd), "nobody asked for that");
        // What was there before may be gone at an end, but is nothing else; behind it it must be there.
        let gone = was_deleted("b", 5, None);
        assert_eq!(judged(vec![put_b(), put_a(None), events(5, vec![gone])]), None);
        let other = Some(kv("a", "0", 2, 2, 1));
        assert_eq!(judged(vec![put_b(), put_a(other)]), Some(Rule::WatchRight));
        let behind = events(7, vec![was_put(kv("a", "5", 2, 7, 3), None)]);
        let from_7 = compacted(|watched| {
            watched.pieces.truncate(1);
            watched.pieces[0].asked = 7;
            watched.pieces[0].told = vec![behind];
        });
        assert_eq!(broken(&from_7), Some(Rule::WatchRight));
    }

    #[test]
    fn lies_to_watches_are_named() {
        let lie =
            |change: fn(&mut Vec<Told>)| broken(&with_watch(|watched| change(&mut watched.pieces[1].told)));
        assert_eq!(lie(|told| told.swap(0, 1)), Some(Rule::WatchComplete));
        assert_eq!(lie(|told| told.insert(1, told[0].clone())), Some(Rule::WatchOrder), "twice");
        assert_eq!(lie(|told| drop(told.remove(0))), Some(Rule::WatchComplete), "the first is missing");
        assert_eq!(lie(|told| drop(told.remove(1))), Some(Rule::WatchComplete));
        assert_eq!(
            lie(|told| drop(told.remove(2))),
            Some(Rule::WatchProgress),
            "the last is missing, and denied"
        );
        assert_eq!(lie(|told| told.insert(0, Told::Progress { revision: 5 })), Some(Rule::WatchProgress));
        assert_eq!(lie(|told| told.insert(3, Told::Progress { revision: 4 })), Some(Rule::WatchOrder));
        assert_eq!(
            lie(|told| told.push(Told::Progress { revision: 8 })),
            Some(Rule::WatchRight),
            "the future"
        );
        assert_eq!(
            lie(|told| told.push(Told::Ended { compacted: 7 })),
            Some(Rule::WatchEnd),
            "it had all that"
        );
        assert_eq!(
            lie(|told| told.insert(0, Told::Ended { compacted: 0 })),
            Some(Rule::WatchEnd),
            "it goes on"
        );
        let other = |told: &mut Vec<Told>, event| told[0] = events(5, vec![event]);
        assert_eq!(lie(|told| told[0] = events(5, vec![])), Some(Rule::WatchRight));
        assert_eq!(
            broken(&with_watch(|watched| other(&mut watched.pieces[1].told, was_deleted("b", 5, None)))),
            Some(Rule::WatchRight),
            "what was there before is missing"
        );
        let wrong = was_put(kv("b", "9", 6, 6, 1), None);
        assert_eq!(
            broken(&with_watch(|watched| watched.pieces[1].told[1] = events(6, vec![wrong]))),
            Some(Rule::WatchRight)
        );
        let twice = |told: &mut Vec<Told>| {
            let Told::Events { events, .. } = &mut told[0] else { panic!("events") };
            events.push(events[0].clone());
        };
        assert_eq!(lie(twice), Some(Rule::WatchRight));
        let early = with_watch(|watched| watched.pieces[0].asked = 4);
        assert_eq!(broken(&early), Some(Rule::WatchOrder), "before what was asked for");
        let gap = with_watch(|watched| watched.pieces[1].asked = 4);
        assert_eq!(broken(&gap), Some(Rule::WatchComplete), "it asked for more than it was told");
        let unasked = with_watch(|watched| watched.pieces[1].begun = None);
        assert_eq!(broken(&unasked), Some(Rule::WatchOrder));
        let filtered = with_watch(|watched| watched.watch.no_delete = true);
        assert_eq!(broken(&filtered), Some(Rule::WatchRight), "it wanted no deletes");
    }
}
