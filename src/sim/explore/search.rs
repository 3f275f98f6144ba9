//! Breadth first through all worlds that a setup allows.
//!
//! A state is remembered as a fingerprint, and as the step that led to it from another one: sixteen bytes. The
//! world itself is made again by repeating the steps from the start. Neighbours in the order of the search have
//! most of their path in common, so the worlds along the last path are kept, and little is repeated.

use super::world::{Event, Setup, World};
use crate::base::MemberId;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Report {
    pub states: u64,
    pub steps: u64,
    /// The longest shortest path.
    pub depth: u32,
    /// Every reachable state was seen.
    pub complete: bool,
    pub violation: Option<Violation>,
}

/// A shortest way to something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    pub what: String,
    pub path: Vec<String>,
}

/// How a state was reached: from which one, by which of its events.
#[derive(Clone, Copy)]
struct Origin {
    parent: u32,
    event: u16,
    depth: u16,
}

/// A set of fingerprints in one array, half empty, each at or behind its place.
struct Seen {
    slots: Vec<u64>,
    count: usize,
}

impl Seen {
    fn new() -> Seen {
        Seen { slots: vec![0; 1 << 16], count: 0 }
    }

    /// False: it was there.
    fn insert(&mut self, fingerprint: u64) -> bool {
        // 0 marks a free slot.
        let fingerprint = fingerprint.max(1);
        if self.count * 2 >= self.slots.len() {
            let twice = vec![0; self.slots.len() * 2];
            let old = std::mem::replace(&mut self.slots, twice);
            old.into_iter().filter(|slot| *slot != 0).for_each(|slot| {
                let place = self.place(slot);
                self.slots[place] = slot;
            });
        }
        let place = self.place(fingerprint);
        if self.slots[place] == fingerprint {
            return false;
        }
        self.slots[place] = fingerprint;
        self.count += 1;
        true
    }

    fn place(&self, fingerprint: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = fingerprint as usize & mask;
        while self.slots[place] != 0 && self.slots[place] != fingerprint {
            place = (place + 1) & mask;
        }
        place
    }
}

struct Search<'a> {
    setup: &'a Setup,
    origins: Vec<Origin>,
    /// The worlds along the path to the state that was looked at last.
    path: Vec<(u32, World)>,
}

/// Searches until everything was seen, something is wrong, or `states_max` states are known.
pub fn search(setup: &Setup, states_max: u64) -> Report {
    let mut report = Report { states: 0, steps: 0, depth: 0, complete: false, violation: None };
    let start = match setup.start() {
        Ok(start) => start,
        Err(what) => {
            report.violation = Some(Violation { what, path: Vec::new() });
            return report;
        }
    };
    let namings = namings(setup);
    let mut seen = Seen::new();
    seen.insert(start.fingerprint(&namings));
    let mut search =
        Search { setup, origins: vec![Origin { parent: 0, event: 0, depth: 0 }], path: vec![(0, start)] };
    let mut next = 0;
    while next < search.origins.len() {
        let depth = search.origins[next].depth;
        report.depth = u32::from(depth);
        let world = search.world(next as u32).clone();
        for (number, event) in world.events(setup).into_iter().enumerate() {
            report.steps += 1;
            let mut after = world.clone();
            if let Err(what) = after.happen(setup, event) {
                report.violation = Some(Violation { what, path: search.tell(next as u32, event) });
                report.states = search.origins.len() as u64;
                return report;
            }
            if seen.insert(after.fingerprint(&namings)) {
                let event = u16::try_from(number).expect("a world has fewer events");
                search.origins.push(Origin { parent: next as u32, event, depth: depth + 1 });
            }
        }
        next += 1;
        if search.origins.len() as u64 >= states_max {
            break;
        }
    }
    report.states = search.origins.len() as u64;
    report.complete = next == search.origins.len();
    report
}

impl Search<'_> {
    /// The states from the start to this one.
    fn line(&self, state: u32) -> Vec<u32> {
        let mut line = vec![state];
        let mut at = state;
        while at != 0 {
            at = self.origins[at as usize].parent;
            line.push(at);
        }
        line.reverse();
        line
    }

    fn world(&mut self, state: u32) -> &World {
        let line = self.line(state);
        let common = self.path.iter().zip(&line).take_while(|((kept, _), state)| kept == *state).count();
        self.path.truncate(common);
        for &state in &line[common..] {
            let mut world = self.path.last().expect("the start is on every path").1.clone();
            let event = world.events(self.setup)[usize::from(self.origins[state as usize].event)];
            world.happen(self.setup, event).expect("this step was taken before");
            self.path.push((state, world));
        }
        &self.path.last().expect("the path holds the state").1
    }

    /// The steps to a state, and one more.
    fn tell(&mut self, state: u32, last: Event) -> Vec<String> {
        let line = self.line(state);
        let mut told = Vec::new();
        for pair in line.windows(2) {
            let event = usize::from(self.origins[pair[1] as usize].event);
            let setup = self.setup;
            let world = self.world(pair[0]);
            told.push(world.describe(world.events(setup)[event]));
        }
        told.push(self.world(state).describe(last));
        told
    }
}

/// All ways to rename members that the setup cannot tell apart: voters that neither lead at the start nor are named
/// by a change.
fn namings(setup: &Setup) -> Vec<Vec<MemberId>> {
    let named = |id: MemberId| setup.changes.iter().flat_map(|set| *set).any(|change| change.member() == id);
    let alike: Vec<MemberId> = (1..=setup.voters).filter(|&id| id != setup.leader && !named(id)).collect();
    let mut namings = Vec::new();
    permute(&alike, &mut Vec::new(), &mut |order| {
        let mut to: Vec<MemberId> = (0..=setup.members()).collect();
        for (from, name) in alike.iter().zip(order) {
            to[*from as usize] = *name;
        }
        namings.push(to);
    });
    namings
}

fn permute(rest: &[MemberId], order: &mut Vec<MemberId>, each: &mut impl FnMut(&[MemberId])) {
    if rest.is_empty() {
        return each(order);
    }
    for (position, &id) in rest.iter().enumerate() {
        let mut others = rest.to_vec();
        others.remove(position);
        order.push(id);
        permute(&others, order, each);
        order.pop();
    }
}
