//! A clean stop. Nobody's request fails by it, as long as another member can lead:
//!
//! 1. The signal. No new clients: who dials is refused and looks elsewhere. Leadership is handed over; requests
//!    are taken as ever, and writes wait until there is another leader.
//! 2. Another member leads. Requests still are taken, and forwarded, but every connection is ended at a
//!    moment when nothing is owed on it: with the answer to its last request, in the same packet, goes a
//!    goodbye, which is the error `SHUTDOWN`, and the end of what this side sends. A connection
//!    that is silent gets the goodbye after [`SILENCE`]. Where a protocol can say so (gRPC's GOAWAY), a client is told at
//!    once that it should go elsewhere with its next request, and goes by itself.
//! 3. What clients send now is read and thrown away, until they close ([`LINGER`]). Closing at once would answer
//!    it with a reset, which takes away what they have not read yet.
//! 4. The last checkpoint, and the end.
//!
//! What a client sees: a pool that looks at a connection before it uses it finds the goodbye, and takes another one.
//! A client that sends without looking, or at that very moment, reads the goodbye as the answer to its
//! request, and it is the truth: nothing happened, ask another member. A closed connection alone
//! would leave it in doubt, for a member that was killed closes its connections too.
//!
//! One request to stop may arrive as several signals: `timeout`, and supervisors that signal a whole group, send it to
//! the process and to its group; a wrapper passes on the ctrl-C that the terminal has sent already. So what
//! comes within [`REPEAT`] is the same request. A later signal is somebody's wish not to wait: it ends the process at
//! once, without the rest of this list.
//!
//! A stop has bounds: what the cluster has not answered [`PATIENCE`] after the hand-over is answered here, with
//! what is known of it.

use std::io::Read;

use log::{info, warn};

use super::event_loop::EventLoop;
use super::workers::Work;
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Mono, Result};
use crate::io::{Clock, Disk};
use crate::node::Job;

/// How often connections are looked at while the member stops.
pub(super) const LOOK: Nanos = 10 * MS;

/// A connection on which nothing is asked for so long after the hand-over is told goodbye. For as long, requests
/// that other members forwarded to their former leader are refused instead of lost.
const SILENCE: Nanos = 200 * MS;

/// For so long after the goodbye a client may take to close its side.
const LINGER: Nanos = 300 * MS;

/// For so long after the hand-over requests may wait for the rest of the cluster.
const PATIENCE: Nanos = 2 * SECOND;

/// Everything behind the last answers: clients that do not read them are not waited for.
const END: Nanos = PATIENCE + SECOND;

/// Signals within this after the first are the same request.
const REPEAT: Nanos = SECOND;

/// How far a clean stop has come.
#[derive(Default)]
pub(super) struct Stopping {
    /// When a signal first asked for it; None = none did, the member was removed.
    asked_at: Option<Mono>,
    /// When leadership was with another member; None = not yet.
    handed_over_at: Option<Mono>,
    /// Waiting requests have been answered with what is known.
    gave_up: bool,
    look_at: Mono,
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Stop,
    /// What was asked already.
    Same,
    EndAtOnce,
}

impl Stopping {
    /// A signal to a member that is stopping.
    fn on_signal(&mut self, now: Mono) -> Asks {
        let first = *self.asked_at.get_or_insert(now);
        if now.since(first) < REPEAT { Asks::Same } else { Asks::EndAtOnce }
    }
}

impl<D: Disk, C: Clock> EventLoop<D, C> {
    pub(super) fn on_signal(&mut self) {
        let mut bytes = [0; 16];
        while let Ok(count) = self.shell.signals.read(&mut bytes)
            && count > 0
        {
            let now = self.shell.clock.now();
            match self.stopping.as_mut().map_or(Asks::Stop, |stopping| stopping.on_signal(now)) {
                Asks::Stop => {
                    info!(
                        "a signal to stop: handing over leadership; another signal, a second from now or later, \
                         ends the process at once"
                    );
                    self.begin_stop(now);
                    self.stopping.as_mut().expect("it has just begun").asked_at = Some(now);
                    self.shell.node.stop(now);
                }
                Asks::Same => info!("the same signal again: stopping already"),
                Asks::EndAtOnce => {
                    warn!("another signal to stop: ending at once");
                    std::process::exit(1);
                }
            }
        }
    }

    fn begin_stop(&mut self, now: Mono) {
        for accepted in self.listeners.close_to_clients() {
            self.add(accepted, now);
        }
        self.stopping = Some(Stopping::default());
    }

    /// A member that was removed has nothing left to do here.
    fn stop_if_removed(&mut self, now: Mono) {
        // A leader goes on until it has handed over.
        let gone = self.shell.node.is_removed() && !self.shell.node.leads();
        if (gone || self.shell.peers.told_removed()) && self.stopping.is_none() {
            info!("this member was removed from the cluster: stopping for good");
            self.begin_stop(now);
            self.shell.node.leave(now);
        }
    }

    /// Whether connections are being ended.
    pub(super) fn is_parting(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.handed_over_at.is_some())
    }

    /// Says goodbye behind the answers that are about to be sent, if they are the last ones owed. True if there
    /// are more requests to decode instead.
    pub(super) fn part_behind_answers(&mut self, slot: usize, now: Mono) -> bool {
        match self.clients.at(slot) {
            Some(client) if !client.pipe.output.is_empty() => self.part_if_quiet(slot, now),
            _ => false,
        }
    }

    fn part_if_quiet(&mut self, slot: usize, now: Mono) -> bool {
        let Some(client) = self.clients.at(slot) else { return false };
        if !client.is_quiet() {
            return false;
        }
        // The next request may have come since the last event: look once more, and it is answered too.
        if client.pipe.read(&mut self.buffer) > 0 {
            self.busy_clients.go_on(slot);
            return true;
        }
        client.say_goodbye(&self.shell.spoken, now);
        false
    }

    /// One step further in a clean stop. True when the process may end.
    pub(super) fn advance_stop(&mut self, now: Mono) -> Result<bool> {
        self.stop_if_removed(now);
        let Some(stopping) = &mut self.stopping else { return Ok(false) };
        let since = match stopping.handed_over_at {
            Some(since) => since,
            None if self.shell.node.handed_over(now) => *stopping.handed_over_at.insert(now),
            None => return Ok(false),
        };
        if now >= since + PATIENCE && !stopping.gave_up {
            stopping.gave_up = true;
            self.shell.node.give_up();
        }
        if now >= stopping.look_at {
            stopping.look_at = now + LOOK;
            self.look_at_clients(since, now);
        }
        let settled = self.shell.node.may_exit(now) && self.clients.len() == 0 && now >= since + SILENCE;
        if !settled && now < since + END {
            return Ok(false);
        }
        self.last_checkpoint()
    }

    fn look_at_clients(&mut self, since: Mono, now: Mono) {
        for slot in self.clients.used() {
            if now >= since + SILENCE {
                self.part_if_quiet(slot, now);
            }
            let Some(client) = self.clients.at(slot) else { continue };
            client.prepare_to_part();
            if now >= since + PATIENCE {
                client.say_goodbye(&self.shell.spoken, now);
            }
            client.end_lingering(now, LINGER);
            self.clients.mark(slot);
        }
    }

    /// True when it is durable, or cannot be.
    fn last_checkpoint(&mut self) -> Result<bool> {
        if self.shell.node.checkpoint_running() {
            return Ok(false);
        }
        let Some(checkpoint) = self.shell.node.final_checkpoint()? else { return Ok(true) };
        self.shell.workers.ask(Work::Job(Job::Checkpoint(checkpoint)));
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_repeated_at_once_asks_for_nothing_new() {
        let mut stopping = Stopping { asked_at: Some(Mono(5 * SECOND)), ..Stopping::default() };
        let later = |ms: u64| Mono(5 * SECOND) + ms * MS;
        for ms in [0, 1, 400, 999] {
            assert_eq!(stopping.on_signal(later(ms)), Asks::Same, "after {ms} ms");
        }
        // Counted from the first: repeats do not put it off.
        for ms in [1_000, 1_001, 60_000] {
            assert_eq!(stopping.on_signal(later(ms)), Asks::EndAtOnce, "after {ms} ms");
        }
    }

    /// The supervisor of a member that was removed stops it while it is stopping by itself.
    #[test]
    fn the_first_signal_to_a_member_that_leaves_forces_nothing() {
        let mut stopping = Stopping::default();
        assert_eq!(stopping.on_signal(Mono(9 * SECOND)), Asks::Same);
        assert_eq!(stopping.on_signal(Mono(9 * SECOND) + MS), Asks::Same);
        assert_eq!(stopping.on_signal(Mono(11 * SECOND)), Asks::EndAtOnce);
    }
}
