//! Which of many spans hold a key: a balanced search tree (AVL) of spans by where they begin, in which each knows how
//! far the spans of its subtree reach. A subtree that reaches no further than the key has nothing to say, so a question
//! costs a path down for each span that it finds, and one for itself.
//!
//! Functions recurse along a path, and no path is longer than one and a half times the logarithm of what there is.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::Seat;
use crate::base::planted;

/// A place in the list of nodes; nowhere if there is none.
type Place = u32;
const NOWHERE: Place = Place::MAX;

#[derive(Debug)]
struct Node {
    from: Bytes,
    /// Not included; None = no end.
    to: Option<Bytes>,
    /// Whose span it is.
    seats: BTreeSet<Seat>,
    left: Place,
    right: Place,
    height: u8,
    /// The furthest end in the subtree.
    reach: Option<Bytes>,
}

/// Spans, each with the watchers that were added under it.
#[derive(Debug)]
pub(super) struct Spans {
    nodes: Vec<Node>,
    free: Vec<Place>,
    top: Place,
}

impl Default for Spans {
    fn default() -> Spans {
        Spans { nodes: Vec::new(), free: Vec::new(), top: NOWHERE }
    }
}

/// No end is behind all ends.
fn compare_ends(a: Option<&Bytes>, b: Option<&Bytes>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

impl Spans {
    pub(super) fn insert(&mut self, from: &Bytes, to: Option<&Bytes>, seat: Seat) {
        self.top = self.insert_below(self.top, from, to, seat);
    }

    /// It must be there.
    pub(super) fn remove(&mut self, from: &Bytes, to: Option<&Bytes>, seat: Seat) {
        self.top = self.remove_below(self.top, from, to, seat);
    }

    /// Adds the watchers of all spans that hold the key.
    pub(super) fn find(&self, key: &[u8], found: &mut Vec<Seat>) {
        self.find_below(self.top, key, found);
    }

    /// Anybody who is in here.
    pub(super) fn any(&self) -> Option<Seat> {
        self.nodes.get(self.top as usize).and_then(|node| node.seats.first().copied())
    }

    fn find_below(&self, at: Place, key: &[u8], found: &mut Vec<Seat>) {
        let Some(node) = self.nodes.get(at as usize) else { return };
        let ends_before = |end: &Option<Bytes>| end.as_ref().is_some_and(|end| *end <= key);
        if ends_before(&node.reach) {
            return;
        }
        self.find_below(node.left, key, found);
        let begun = if planted::on("watch-prefix-without-its-first-key") {
            node.from < key
        } else {
            node.from <= key
        };
        if begun {
            if !ends_before(&node.to) {
                found.extend(&node.seats);
            }
            self.find_below(node.right, key, found);
        }
    }

    fn insert_below(&mut self, at: Place, from: &Bytes, to: Option<&Bytes>, seat: Seat) -> Place {
        if at == NOWHERE {
            return self.add(from, to, seat);
        }
        let Node { left, right, .. } = self.nodes[at as usize];
        match self.compare(at, from, to) {
            Ordering::Less => self.nodes[at as usize].left = self.insert_below(left, from, to, seat),
            Ordering::Greater => self.nodes[at as usize].right = self.insert_below(right, from, to, seat),
            Ordering::Equal => {
                self.nodes[at as usize].seats.insert(seat);
                return at;
            }
        }
        self.balanced(at)
    }

    fn add(&mut self, from: &Bytes, to: Option<&Bytes>, seat: Seat) -> Place {
        let node = Node {
            from: from.clone(),
            to: to.cloned(),
            seats: BTreeSet::from([seat]),
            left: NOWHERE,
            right: NOWHERE,
            height: 1,
            reach: to.cloned(),
        };
        if let Some(place) = self.free.pop() {
            self.nodes[place as usize] = node;
            return place;
        }
        self.nodes.push(node);
        Place::try_from(self.nodes.len() - 1).expect("there are fewer spans than watches")
    }

    fn remove_below(&mut self, at: Place, from: &Bytes, to: Option<&Bytes>, seat: Seat) -> Place {
        assert!(at != NOWHERE, "a span that is removed was added");
        let Node { left, right, .. } = self.nodes[at as usize];
        match self.compare(at, from, to) {
            Ordering::Less => self.nodes[at as usize].left = self.remove_below(left, from, to, seat),
            Ordering::Greater => self.nodes[at as usize].right = self.remove_below(right, from, to, seat),
            Ordering::Equal => {
                let node = &mut self.nodes[at as usize];
                assert!(node.seats.remove(&seat), "a watcher that is removed was added");
                if !node.seats.is_empty() {
                    return at;
                }
                (node.from, node.to, node.reach) = (Bytes::new(), None, None);
                self.free.push(at);
                return self.joined(left, right);
            }
        }
        self.balanced(at)
    }

    /// One subtree of two whose parent is gone.
    fn joined(&mut self, left: Place, right: Place) -> Place {
        if right == NOWHERE {
            return left;
        }
        let (first, rest) = self.without_first(right);
        (self.nodes[first as usize].left, self.nodes[first as usize].right) = (left, rest);
        self.balanced(first)
    }

    /// The first node of a subtree, and the subtree without it.
    fn without_first(&mut self, at: Place) -> (Place, Place) {
        let Node { left, right, .. } = self.nodes[at as usize];
        if left == NOWHERE {
            return (at, right);
        }
        let (first, rest) = self.without_first(left);
        self.nodes[at as usize].left = rest;
        (first, self.balanced(at))
    }

    /// Where a span belongs, seen from a node.
    fn compare(&self, at: Place, from: &Bytes, to: Option<&Bytes>) -> Ordering {
        let node = &self.nodes[at as usize];
        from.cmp(&node.from).then_with(|| compare_ends(to, node.to.as_ref()))
    }

    fn height(&self, at: Place) -> u8 {
        self.nodes.get(at as usize).map_or(0, |node| node.height)
    }

    /// Brings a node up to date whose children have changed by one level at most; the top of its subtree.
    fn balanced(&mut self, at: Place) -> Place {
        let Node { left, right, .. } = self.nodes[at as usize];
        if self.height(left) > self.height(right) + 1 {
            let inner = self.nodes[left as usize].right;
            if self.height(inner) > self.height(self.nodes[left as usize].left) {
                self.nodes[at as usize].left = self.turned_left(left);
            }
            return self.turned_right(at);
        }
        if self.height(right) > self.height(left) + 1 {
            let inner = self.nodes[right as usize].left;
            if self.height(inner) > self.height(self.nodes[right as usize].right) {
                self.nodes[at as usize].right = self.turned_right(right);
            }
            return self.turned_left(at);
        }
        self.refresh(at);
        at
    }

    /// Its left child takes a node's place.
    fn turned_right(&mut self, at: Place) -> Place {
        let child = self.nodes[at as usize].left;
        self.nodes[at as usize].left = self.nodes[child as usize].right;
        self.nodes[child as usize].right = at;
        self.refresh(at);
        self.refresh(child);
        child
    }

    fn turned_left(&mut self, at: Place) -> Place {
        let child = self.nodes[at as usize].right;
        self.nodes[at as usize].right = self.nodes[child as usize].left;
        self.nodes[child as usize].left = at;
        self.refresh(at);
        self.refresh(child);
        child
    }

    fn refresh(&mut self, at: Place) {
        let Node { left, right, .. } = self.nodes[at as usize];
        let mut furthest = &self.nodes[at as usize].to;
        for child in [left, right] {
            if let Some(child) = self.nodes.get(child as usize)
                && compare_ends(child.reach.as_ref(), furthest.as_ref()).is_gt()
            {
                furthest = &child.reach;
            }
        }
        let (reach, height) = (furthest.clone(), 1 + self.height(left).max(self.height(right)));
        let node = &mut self.nodes[at as usize];
        (node.reach, node.height) = (reach, height);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Spans {
        /// Checks a subtree: order, balance, reach. Its height, and how many nodes it has.
        fn check(&self, at: Place) -> (u8, usize) {
            let Some(node) = self.nodes.get(at as usize) else { return (0, 0) };
            let (left, right) = (self.check(node.left), self.check(node.right));
            assert!(left.0.abs_diff(right.0) <= 1, "it is balanced");
            assert_eq!(node.height, 1 + left.0.max(right.0));
            assert!(!node.seats.is_empty());
            let mut furthest = node.to.clone();
            for (child, side) in [(node.left, Ordering::Less), (node.right, Ordering::Greater)] {
                if let Some(child) = self.nodes.get(child as usize) {
                    assert_eq!(self.compare(at, &child.from, child.to.as_ref()), side);
                    if compare_ends(child.reach.as_ref(), furthest.as_ref()).is_gt() {
                        furthest = child.reach.clone();
                    }
                }
            }
            assert_eq!(node.reach, furthest);
            (node.height, 1 + left.1 + right.1)
        }
    }

    type Span = (Bytes, Option<Bytes>);

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(0u8..4, 0..4).prop_map(Bytes::from)
    }

    fn span() -> impl Strategy<Value = Span> {
        (key(), proptest::option::weighted(0.8, key()))
    }

    proptest! {
        #[test]
        fn it_finds_what_looking_at_all_spans_finds(
            steps in proptest::collection::vec((span(), any::<bool>(), any::<usize>()), 1..200),
            keys in proptest::collection::vec(key(), 20),
        ) {
            let mut spans = Spans::default();
            let mut all: Vec<(Span, Seat)> = Vec::new();
            for (slot, (span, adds, which)) in (0..).zip(steps) {
                if adds || all.is_empty() {
                    let seat = (u64::from(slot) % 3, slot);
                    spans.insert(&span.0, span.1.as_ref(), seat);
                    all.push((span, seat));
                } else {
                    let ((from, to), seat) = all.swap_remove(which % all.len());
                    spans.remove(&from, to.as_ref(), seat);
                }
                spans.check(spans.top);
                prop_assert_eq!(spans.any().is_none(), all.is_empty());
            }
            for key in &keys {
                let mut found = Vec::new();
                spans.find(key, &mut found);
                found.sort_unstable();
                let holds = |(from, to): &Span| from <= key && to.as_ref().is_none_or(|to| key < to);
                let mut wanted: Vec<Seat> =
                    all.iter().filter(|(span, _)| holds(span)).map(|(_, seat)| *seat).collect();
                wanted.sort_unstable();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn spans_in_a_row_make_no_list() {
        let mut spans = Spans::default();
        let key = |number: u32| Bytes::from(number.to_be_bytes().to_vec());
        for number in 0..10_000 {
            spans.insert(&key(number), Some(&key(number + 1)), (7, number));
        }
        let (height, count) = spans.check(spans.top);
        assert_eq!(count, 10_000);
        assert!(height <= 20, "it is {height} high");
        let mut found = Vec::new();
        spans.find(&key(77), &mut found);
        assert_eq!(found, [(7, 77)]);
        for number in 0..10_000 {
            spans.remove(&key(number), Some(&key(number + 1)), (7, number));
        }
        assert_eq!(spans.any(), None);
    }
}
