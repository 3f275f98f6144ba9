//! Planted bugs: historical mistakes of stores like this one, one line each, that exist only where the program is
//! built with `--cfg planted`. They test the testers: `make planted` switches each on and demands that the
//! simulator or a named test finds it (`sim::planted` has the list, `sim/planted.md` what came of it).
//!
//! A place that can go wrong asks [`on`] with the bug's name. In every ordinary build the answer is the constant
//! `false`, and the compiler removes the question.

/// Whether this bug is switched on.
#[cfg(not(planted))]
#[inline(always)]
pub const fn on(_name: &str) -> bool {
    false
}

#[cfg(planted)]
pub use switch::{VARIABLE, on, switch_on};

#[cfg(planted)]
mod switch {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// Names the bug that is on, for processes that are started with it.
    pub const VARIABLE: &str = "PAWL_PLANTED";

    /// The hash of the bug's name. One build serves all bugs; one process has one of them at most.
    static ON: AtomicU64 = AtomicU64::new(UNREAD);

    /// Nobody has looked at the environment yet. No name has this hash (FNV-1a's of the empty string is another).
    const UNREAD: u64 = 0;

    /// Whether this bug is switched on: by [`switch_on`], else by the environment.
    #[inline]
    pub fn on(name: &str) -> bool {
        let on = ON.load(Relaxed);
        if on == UNREAD {
            switch_on(&std::env::var(VARIABLE).unwrap_or_default());
            return ON.load(Relaxed) == hash(name);
        }
        on == hash(name)
    }

    /// Switches one bug on, and any other off. The empty name is none.
    pub fn switch_on(name: &str) {
        ON.store(hash(name), Relaxed);
    }

    /// FNV-1a. Names are constants, so most of these are computed by the compiler.
    #[inline(always)]
    const fn hash(name: &str) -> u64 {
        let (bytes, mut hash, mut at) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325_u64, 0);
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        hash
    }
}
