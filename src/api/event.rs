//! What watchers are told: one change of one key, made once and shared by all that want to know of it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::KeyValue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// What the change made of the key. Of a delete: its key and mod revision, and nothing else.
    pub kv: KeyValue,
    /// What was there before, where it was asked for and there was something.
    pub previous: Option<KeyValue>,
    pub encoded: Encodings,
}

impl Event {
    pub fn new(kind: EventKind, kv: KeyValue, previous: Option<KeyValue>) -> Arc<Event> {
        Arc::new(Event { kind, kv, previous, encoded: Encodings::default() })
    }

    /// About how much memory it takes up.
    pub fn size_bytes(&self) -> usize {
        self.kv.size_bytes() + self.previous.as_ref().map_or(0, KeyValue::size_bytes)
    }
}

/// Wire forms of an event. Ten thousand watchers of a key are sent the same bytes, so an adapter that has made them
/// leaves them here. Each form has a number, which no other adapter uses.
#[derive(Debug, Default)]
pub struct Encodings([OnceLock<Bytes>; ENCODINGS]);

/// etcd's message of an event. The line protocol has the forms before it.
pub const FORM_PROTOBUF: usize = 3;

/// How many forms there are.
const ENCODINGS: usize = 4;

impl Encodings {
    /// The form of this number; made by `make` the first time.
    pub fn get(&self, form: usize, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.0[form].get_or_init(make)
    }
}

/// Whether forms were made already says nothing of the event.
impl PartialEq for Encodings {
    fn eq(&self, _: &Encodings) -> bool {
        true
    }
}

impl Eq for Encodings {}
