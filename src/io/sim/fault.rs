//! Trouble on command.

use std::io::Error;
use std::path::Path;

pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;
pub const EROFS: i32 = 30;

/// The kinds of operation that a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open,
    Create,
    Read,
    Write,
    SetLen,
    Allocate,
    Sync,
    Rename,
    Remove,
    SyncDir,
}

/// Which calls fail, and how. A write that fails leaves the first half of its bytes in the file; a sync that
/// fails has Linux semantics (see the module's text); every other failed call has done nothing.
#[derive(Clone, Debug)]
pub struct Fault {
    pub call: Call,
    /// The path contains this; empty for every file.
    pub name: String,
    /// How many matching calls succeed first.
    pub skip: u64,
    /// How many fail then.
    pub times: u64,
    pub errno: i32,
}

impl Fault {
    /// The next matching call fails with EIO, once.
    pub fn once(call: Call, name: &str) -> Fault {
        Fault { call, name: name.to_string(), skip: 0, times: 1, errno: EIO }
    }

    /// The `nth` matching call (from 0) is the first to fail.
    pub fn after(self, nth: u64) -> Fault {
        Fault { skip: nth, ..self }
    }

    /// From then on every matching call fails.
    pub fn for_ever(self) -> Fault {
        Fault { times: u64::MAX, ..self }
    }

    pub fn errno(self, errno: i32) -> Fault {
        Fault { errno, ..self }
    }

    /// The error, if this call is to fail; counts it.
    pub(super) fn strike(&mut self, call: Call, path: &Path) -> Option<Error> {
        if call != self.call || self.times == 0 || !path.to_string_lossy().contains(&self.name) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(Error::from_raw_os_error(self.errno))
    }
}

/// One write that the medium does not take as it was meant, while its call and its sync say Ok.
#[derive(Clone, Debug)]
pub struct Mangle {
    /// The path contains this.
    pub name: String,
    /// How many matching writes are done well first.
    pub skip: u64,
    /// Where in the file the bytes land instead; None: nowhere.
    pub elsewhere: Option<u64>,
    struck: bool,
}

impl Mangle {
    pub fn new(name: &str, skip: u64, elsewhere: Option<u64>) -> Mangle {
        Mangle { name: name.to_string(), skip, elsewhere, struck: false }
    }

    /// Still to come.
    pub(super) fn is_due(&self) -> bool {
        !self.struck
    }

    /// What becomes of this write, if it is the one; counts it.
    pub(super) fn strike(&mut self, path: &Path) -> Option<Option<u64>> {
        if self.struck || !path.to_string_lossy().contains(&self.name) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.struck = true;
        Some(self.elsewhere)
    }
}

/// Damage at rest: it hits the medium and the page cache alike, and no call reports it.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// One bit (0 is the lowest) of the byte at the offset.
    Flip { bit: u8 },
    /// A run of zeroes.
    Zero { len: usize },
    /// A run of bytes made from the seed.
    Garbage { len: usize, seed: u64 },
    /// A run copied from another place in the same file: a misdirected write, or a stale page.
    Copy { from: u64, len: usize },
}
