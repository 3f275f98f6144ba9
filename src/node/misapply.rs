//! A wrong apply on command: how the simulator finds out whether members notice that they differ.

use super::Node;
use crate::api::Command;
use crate::base::Index;
use crate::io::Disk;

/// Only in a build with the simulator.
#[derive(Debug, Default)]
pub(super) struct Misapply {
    armed: bool,
    at: Option<Index>,
}

impl<D: Disk> Node<D> {
    /// One bit of the next value that is put will not be what the log says.
    pub fn misapply_next_put(&mut self) {
        self.misapply.armed = true;
    }

    /// The entry that was applied wrongly in this life.
    pub fn misapplied_at(&self) -> Option<Index> {
        self.misapply.at
    }

    pub(super) fn misapply(&mut self, index: Index, command: &mut Command) {
        if let Command::Put(put) = command
            && self.misapply.armed
            && !(put.value.is_empty() || put.ignore_value || put.ignore_lease || put.lease != 0)
        {
            let mut value = put.value.to_vec();
            value[0] ^= 1;
            put.value = value.into();
            self.misapply = Misapply { armed: false, at: Some(index) };
        }
    }
}
