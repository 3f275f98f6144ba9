//! What stands where a runtime would: a list of those that can go on. `h2` wakes a connection when a stream has given it
//! something to do, and a stream when something arrived for it or room was made; each is looked at again only then, so an
//! event costs the same however many streams there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

use crate::api::Lane;

/// Who was woken on one connection.
#[derive(Debug, Default)]
pub struct Woken {
    connection: AtomicBool,
    streams: Mutex<Vec<Lane>>,
}

impl Woken {
    /// The connection was woken since this was last asked.
    pub fn take_connection(&self) -> bool {
        self.connection.swap(false, Ordering::Relaxed)
    }

    /// Moves those that were woken behind the ones in `list`.
    pub fn take_streams(&self, list: &mut Vec<Lane>) {
        list.append(&mut self.streams.lock());
    }
}

struct OfConnection(Arc<Woken>);

impl Wake for OfConnection {
    fn wake(self: Arc<Self>) {
        self.0.connection.store(true, Ordering::Relaxed);
    }
}

pub fn of_connection(woken: &Arc<Woken>) -> Waker {
    Waker::from(Arc::new(OfConnection(Arc::clone(woken))))
}

/// One stream's. It is in the list once until it is cleared.
pub struct Flag {
    lane: Lane,
    is_set: AtomicBool,
    woken: Arc<Woken>,
}

impl Flag {
    pub fn new(lane: Lane, woken: &Arc<Woken>) -> Arc<Flag> {
        Arc::new(Flag { lane, is_set: AtomicBool::new(false), woken: Arc::clone(woken) })
    }

    pub fn clear(&self) {
        self.is_set.store(false, Ordering::Relaxed);
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_set.swap(true, Ordering::Relaxed) {
            self.woken.streams.lock().push(self.lane);
        }
    }
}
