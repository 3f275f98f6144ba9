//! Who watches a key: one look-up for those that watch it alone, one question to the spans.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Seat;
use super::spans::Spans;
use crate::api::Span;

/// What a watcher looks at. It lives long, so it keeps bytes of its own and not the buffer in which they came.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Key(Bytes),
    /// The end is not included; None = no end.
    Span(Bytes, Option<Bytes>),
}

impl Target {
    pub(super) fn of(span: &Span) -> Target {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        match span {
            Span::Key(key) => Target::Key(copy(key)),
            span => {
                let (from, to) = span.bounds();
                Target::Span(copy(&from), to.as_ref().map(copy))
            }
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Target::Key(key) => key.len(),
            Target::Span(from, to) => from.len() + to.as_ref().map_or(0, Bytes::len),
        }
    }

    /// Whether a key lies before the target, in it, or behind it.
    pub(super) fn position_of(&self, key: &[u8]) -> std::cmp::Ordering {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self {
            Target::Key(own) => key.cmp(own),
            Target::Span(from, _) if key < &from[..] => Less,
            Target::Span(_, Some(to)) if key >= &to[..] => Greater,
            Target::Span(..) => Equal,
        }
    }
}

/// Watchers by what they watch.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, BTreeSet<Seat>>,
    spans: Spans,
    len: usize,
}

impl Index {
    pub(super) fn insert(&mut self, target: &Target, seat: Seat) {
        self.len += 1;
        match target {
            Target::Key(key) => {
                self.keys.entry(key.clone()).or_default().insert(seat);
            }
            Target::Span(from, to) => self.spans.insert(from, to.as_ref(), seat),
        }
    }

    /// It must be there.
    pub(super) fn remove(&mut self, target: &Target, seat: Seat) {
        self.len -= 1;
        match target {
            Target::Key(key) => {
                let seats = self.keys.get_mut(key).expect("what is removed was added");
                seats.remove(&seat);
                if seats.is_empty() {
                    self.keys.remove(key);
                }
            }
            Target::Span(from, to) => self.spans.remove(from, to.as_ref(), seat),
        }
    }

    /// Adds all who watch the key, each of them once.
    pub(super) fn find(&self, key: &[u8], found: &mut Vec<Seat>) {
        if let Some(seats) = self.keys.get(key) {
            found.extend(seats);
        }
        self.spans.find(key, found);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Anybody who is in here.
    pub(super) fn any(&self) -> Option<Seat> {
        let of_keys = self.keys.first_key_value().and_then(|(_, seats)| seats.first().copied());
        of_keys.or_else(|| self.spans.any())
    }
}
