//! Every bound in one place, with the relations between them checked when the code is compiled.

/// The largest request that `--max-request-bytes` may allow: log records and tree values are sized for it.
pub const REQUEST_BYTES_LIMIT: usize = 64 << 20;

/// The default of `--max-request-bytes` (etcd's).
pub const REQUEST_BYTES_DEFAULT: usize = 1_572_864;

/// What a request may hold beside its keys and values (words of the grammar, lengths, headers).
pub const REQUEST_OVERHEAD_BYTES: usize = 64 << 10;

/// The longest key. etcd bounds keys by the request limit alone; so do we, but a key must fit in a tree
/// page's overflow chain beside its value: one bound for both.
pub const KEY_BYTES_MAX: usize = REQUEST_BYTES_LIMIT;

/// The largest payload of one log entry: a request and its envelope.
pub const ENTRY_BYTES_MAX: usize = REQUEST_BYTES_LIMIT + REQUEST_OVERHEAD_BYTES;

/// The largest frame between members. Batches are cut well below it; it bounds what a length prefix may claim.
pub const FRAME_BYTES_MAX: usize = ENTRY_BYTES_MAX + (1 << 20);

/// Entries of one append message are cut at this many payload bytes (one entry is always sent).
pub const APPEND_BYTES_MAX: usize = 1 << 20;

/// Words in one line-protocol request.
pub const WORDS_MAX: usize = 1 << 16;

/// An inline request: a line typed by a person.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// Levels of transactions within transactions, the outermost included. etcd allows as many as `--max-txn-ops`; here the
/// stack decides, because those who walk a transaction call themselves.
pub const TXN_DEPTH_MAX: usize = 16;

/// Members in one cluster, learners included.
pub const MEMBERS_MAX: usize = 32;

const _: () = assert!(APPEND_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_DEFAULT <= REQUEST_BYTES_LIMIT);
const _: () = assert!(ENTRY_BYTES_MAX + 4096 < FRAME_BYTES_MAX);
// Lengths are u32 on disk and on the wire.
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
