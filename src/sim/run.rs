//! One plan from beginning to end, in a box: an assertion that fails inside is a result like any other.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::plan::Plan;
use super::probes::probes;
use super::report::{Failure, Outcome};
use super::stream::mix;
use super::trace::{Sink, Trace};
use super::world::{START, World};

/// How a run is looked at.
#[derive(Default)]
pub struct View {
    /// Every line of the log goes there.
    pub sink: Option<Sink>,
    /// The last lines of the log are kept for the report.
    pub keep: bool,
    /// The run ends behind this event; 0: it runs to its end.
    pub until_event: u64,
}

thread_local! {
    /// Where and why the last assertion failed in this thread.
    static PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Has panics of this process noted instead of printed, where they can be caught.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        let why = info.payload_as_str().unwrap_or("no reason given").to_string();
        PANIC.with(|panic| *panic.borrow_mut() = Some((place, why)));
    }));
}

/// Runs a plan.
pub fn run(plan: &Plan, view: View) -> Outcome {
    let View { sink, keep, until_event } = view;
    let mut world = World::new(plan, Trace::new(plan.options.seed, keep, sink));
    if until_event > 0 {
        world.until_event = until_event;
    }
    let ended = catch_unwind(AssertUnwindSafe(|| play(&mut world)));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        let noted = PANIC.with(|panic| panic.borrow_mut().take());
        let (place, why) = noted.unwrap_or_else(|| (String::new(), text.unwrap_or_default()));
        let at = world.now.since(START);
        world.failure = Some(Failure { id: format!("panic {place}"), what: why, at });
    }
    let World { mut tally, watch, trace, clients, wires, leases, room, failure, now, .. } = world;
    tally.elections = watch.elections;
    tally.claims = watch.claims;
    tally.ops = clients.answered() as u64;
    tally.unknown = clients.history.ops.len() as u64 - tally.ops;
    tally.compactions = clients.compactions() as u64;
    tally.unread = clients.history.unread.len() as u64;
    tally.events = trace.events();
    tally.probes = probes(&clients.history);
    tally.probes.extend(clients.maintained);
    tally.probes.extend(wires.cells);
    tally.probes.extend(leases.cells());
    tally.probes.extend(room.cells());
    tally.nanos = now.since(START);
    let hash = mix(trace.hash(), tally.ops);
    Outcome { tally, hash, failure, lines: trace.last_lines() }
}

fn play(world: &mut World) {
    let faults = world.options.faults;
    world.run(START + faults);
    if world.options.calm > 0 && world.sound() {
        world.live();
    }
    world.finish();
}
