//! The planted bugs: what each is, where it stands, and who must find it. `base::planted` says how they are switched
//! on; `make planted` does it one by one, and writes what came of it to `sim/planted.md`.

use super::generate::{Load, generate};
use super::report::Failure;
use super::run::{View, run};

/// Runs seeds from 1 on, with whatever bug is switched on, until one fails or `more` says no: how many were run, and
/// what failed.
pub fn seeds_to_detection(mut more: impl FnMut() -> bool) -> (u64, Option<Failure>) {
    let mut seed = 0;
    while more() {
        seed += 1;
        let outcome = run(&generate(seed, Load::Mixed), View::default());
        if outcome.failure.is_some() {
            return (seed, outcome.failure);
        }
    }
    (seed, None)
}

/// A historical mistake, one line of code.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// The name at its place: `planted::on(name)`.
    pub name: &'static str,
    pub what: &'static str,
    /// Tests by the beginning of their names, the most telling first; each that runs seeds takes `SEEDS`.
    pub finders: &'static [&'static str],
}

const fn bug(name: &'static str, what: &'static str, finders: &'static [&'static str]) -> Bug {
    Bug { name, what, finders }
}

const CLUSTER: &str = "cluster_sim::";
const PLANS: &str = "cluster_sim::plans_that_failed_once_pass";
const ROOM: &str = "cluster_sim::every_kind_of_answer_about_room";
const ALARMS: &str = "cluster_sim::alarms_of_clients";
const RETENTION: &str = "cluster_sim::history_is_compacted_by_itself";
const SHUFFLE: &str = "raft_shuffle::";
const GOLDEN: &str = "raft_golden::";
const WAL_CRASH: &str = "wal_crash::";
const WAL_UNIT: &str = "wal::";
const RAFT_UNIT: &str = "raft::";
const NODE_UNIT: &str = "node::";
const NODE_RULES: &str = "node::rule_tests::";
const NODE_REPAIR: &str = "node::repair::";
const TREE_CRASH: &str = "btree_crash::";
const TREE_MODEL: &str = "btree_model::";
const TREE_UNIT: &str = "btree::";
const STORE: &str = "store::";
const API_UNIT: &str = "api::";
const WATCHES: &str = "node::watches::";
const WATCH_REAL: &str = "watch::a_range_is_not_interrupted";
const LINE: &str = "line::";
const GRPC: &str = "grpc::";
const GRPC_SIM: &str = "cluster_grpc::";
const LEASES: &str = "cluster_leases::";
const LOCKS: &str = "cluster_locks::";

/// All of them, by the way that a write takes.
pub const BUGS: &[Bug] = &[
    // The log.
    bug("wal-ack-before-sync", "a batch is answered before it is synced", &[WAL_CRASH, CLUSTER]),
    bug("wal-write-after-failed-sync", "the log goes on after a failed sync", &[WAL_CRASH, WAL_UNIT]),
    bug("wal-segment-name-not-synced", "a new segment's name is not synced", &[WAL_CRASH, CLUSTER]),
    bug("wal-cut-not-written", "what a new leader replaces is not cut on disk", &[WAL_CRASH, CLUSTER]),
    bug("wal-cut-at-first-bad-crc", "acknowledged damage is taken for a torn tail", &[WAL_CRASH]),
    bug("wal-synced-bytes-ignored", "a damaged first group is taken for a torn tail", &[WAL_CRASH, WAL_UNIT]),
    bug(
        "wal-stale-record-parses",
        "a record need be neither of the chain nor of the opening",
        &[WAL_CRASH, WAL_UNIT],
    ),
    bug("wal-payload-unchecked", "the checksum of a payload is not looked at", &[WAL_CRASH, WAL_UNIT]),
    bug("wal-old-completion-counts", "an old write's end places a newer entry", &[WAL_UNIT, CLUSTER]),
    bug(
        "wal-release-one-too-many",
        "a segment is removed that is still needed",
        &[WAL_CRASH, WAL_UNIT, CLUSTER],
    ),
    bug(
        "wal-reset-keeps-entries",
        "replay keeps entries that a snapshot replaced",
        &[WAL_UNIT, WAL_CRASH, CLUSTER],
    ),
    bug("wal-tail-not-settled", "opening builds on a tail that is not durable", &[WAL_CRASH, WAL_UNIT]),
    // The tree.
    bug("tree-meta-before-pages", "the meta slot is written before its pages are synced", &[TREE_CRASH]),
    bug("tree-meta-not-synced", "a checkpoint ends before its meta slot is durable", &[TREE_CRASH]),
    bug("tree-fallback-pages-freed", "pages of the older meta slot are handed out", &[TREE_UNIT, TREE_CRASH]),
    bug("tree-pinned-page-freed", "a page that an older pin sees is handed out", &[TREE_UNIT, TREE_MODEL]),
    bug(
        "tree-held-page-freed-at-once",
        "a page of the last checkpoint is handed out",
        &[TREE_CRASH, TREE_UNIT],
    ),
    bug("tree-checksum-unchecked", "a page's checksum is not looked at", &[TREE_CRASH]),
    bug("tree-lost-write-unseen", "a link does not say which checkpoint's page it means", &[TREE_CRASH]),
    bug("tree-name-not-settled", "opening relies on a name that is not durable", &[PLANS]),
    bug("tree-counts-not-kept", "the sums along a path are not kept", &[TREE_MODEL, STORE]),
    bug("tree-split-keeps-count", "a split leaves the whole sum on its left half", &[TREE_MODEL, STORE]),
    bug("tree-chain-page-leaks", "a replaced long value leaves a page behind", &[TREE_MODEL, TREE_CRASH]),
    bug(
        "tree-seek-stays-at-the-edge",
        "a cursor looks for a key before a page in that page",
        &[TREE_UNIT, STORE],
    ),
    // The store.
    bug("store-version-survives-delete", "a key that was deleted goes on with its version", &[STORE]),
    bug("store-deleted-still-counts", "a key that was deleted is still counted", &[STORE]),
    bug("store-empty-delete-is-a-revision", "deleting nothing makes a revision", &[STORE]),
    bug("store-failed-put-is-a-revision", "a put that fails makes a revision", &[STORE]),
    bug("store-kept-value-is-lost", "KEEPVALUE writes the empty value", &[STORE]),
    bug("store-count-stops-at-limit", "the count knows only what the limit let through", &[STORE]),
    bug("store-filter-excludes-its-bound", "MAXMOD and MAXCREATE leave their bound out", &[STORE]),
    bug("store-one-beyond-the-limit", "one key more than the limit is sent", &[STORE]),
    bug("store-skip-is-too-short", "a change's links do not go back as far as they should", &[STORE]),
    bug("store-old-read-misses-its-revision", "a read at a revision sees the one before", &[STORE]),
    bug("store-range-goes-on-with-the-latest", "a later part of a range reads a later revision", &[STORE]),
    bug(
        "store-range-part-repeats-a-key",
        "a part of a range begins with the last key of the part before",
        &[STORE],
    ),
    bug(
        "store-range-forgets-what-was-left",
        "keys of a batch that did not fit in a part are not in the next one either",
        &[STORE, CLUSTER],
    ),
    bug(
        "store-applied-in-another-commit",
        "the applied index is not committed with the data",
        &[STORE, CLUSTER],
    ),
    // Transactions.
    bug(
        "store-failed-txn-leaves-its-first-put",
        "a transaction that cannot be done leaves its first put behind",
        &[STORE, CLUSTER],
    ),
    bug(
        "store-txn-without-a-write-is-a-revision",
        "a transaction that writes nothing makes a revision",
        &[STORE],
    ),
    bug("store-sub-revision-stays", "the changes of one revision are not numbered", &[STORE]),
    bug("store-txn-reads-what-was-before", "a read does not see the writes before it", &[STORE, CLUSTER]),
    bug(
        "store-nested-compare-looks-too-late",
        "a nested compare sees what was written before it",
        &[STORE, CLUSTER],
    ),
    bug("store-compare-of-nothing-holds", "a compare of a key that is not there holds", &[STORE, CLUSTER]),
    bug(
        "store-compare-of-a-span-looks-at-one",
        "a compare of a span looks at its first key",
        &[STORE, CLUSTER],
    ),
    bug(
        "store-what-was-there-has-no-bound",
        "what a delete is to show of what was there may be as large as the store",
        &[STORE],
    ),
    bug("node-reading-txn-asks-nobody", "a transaction that reads is answered from any state", &[CLUSTER]),
    bug(
        "api-nested-puts-are-unseen",
        "what a nested transaction changes is not looked at",
        &[API_UNIT, CLUSTER],
    ),
    bug("api-txn-needs-no-room", "a transaction may put where there is no room", &[API_UNIT]),
    // Compaction.
    bug("store-compacted-is-answered", "a read before the compact revision is answered", &[STORE, CLUSTER]),
    bug(
        "store-sweep-goes-too-far",
        "the sweep takes what is seen at the compact revision",
        &[STORE, CLUSTER],
    ),
    bug(
        "store-sweep-takes-a-living-key",
        "the cell of a deleted key goes, though the key lives again",
        &[STORE, CLUSTER],
    ),
    bug(
        "store-sweep-is-done-when-it-begins",
        "a restart does not know how far the sweep had come",
        &[STORE, CLUSTER],
    ),
    bug(
        "store-reborn-on-its-old-line",
        "a put links to a deletion that other members have swept",
        &[STORE, CLUSTER],
    ),
    bug("store-digest-sees-garbage", "the content hash sees what is to be swept", &[STORE, CLUSTER]),
    bug("snapshot-forgets-the-sweep", "who takes a snapshot does not sweep the rest", &[STORE, CLUSTER]),
    // The quota.
    bug("store-put-despite-the-alarm", "puts go on though there is no room", &[STORE, CLUSTER]),
    bug("node-spins-for-who-has-gone", "answers that nobody waits for make turn after turn", &[NODE_RULES]),
    bug(
        "node-damaged-leader-keeps-streams",
        "a leader whose tree is damaged wants turn after turn for a state that it sends no more",
        &[NODE_REPAIR],
    ),
    bug(
        "node-damaged-leader-stays",
        "a leader whose tree is damaged does not stop where nobody takes over",
        &[NODE_REPAIR],
    ),
    bug("node-quota-alarm-stays", "the alarm does not end when there is room", &[ROOM]),
    bug(
        "snapshot-forgets-the-alarm",
        "who takes a snapshot admits puts though there is no room",
        &[STORE, CLUSTER],
    ),
    // Alarms of clients.
    bug(
        "store-write-to-a-corrupt-cluster",
        "writes go on though a client said that the state is wrong",
        &[STORE, ALARMS],
    ),
    bug("store-restart-forgets-alarms", "after a restart no alarm of a client stands", &[STORE, ALARMS]),
    bug(
        "node-refused-end-is-forgotten",
        "a lease whose end an alarm refused does not end any more",
        &[NODE_UNIT, ALARMS],
    ),
    // Compactions that nobody asks for.
    bug(
        "node-young-history-is-compacted",
        "what is to be kept is compacted by itself",
        &[NODE_UNIT, CLUSTER],
    ),
    bug("node-lost-compaction-is-awaited", "nothing is compacted by itself a second time", &[RETENTION]),
    // Snapshots.
    bug(
        "snapshot-without-deleted-keys",
        "a snapshot leaves out the keys that were deleted",
        &[STORE, CLUSTER],
    ),
    bug(
        "snapshot-revision-goes-back",
        "an installed store is one revision behind its content",
        &[STORE, CLUSTER],
    ),
    bug("snapshot-complete-too-early", "an incomplete checkpoint counts as the complete one", &[STORE]),
    bug("raft-snapshot-over-a-good-log", "a snapshot resets a log that holds more", &[GOLDEN]),
    bug("node-snapshot-jobs-by-stream", "a job belongs to any stream of its number", &[PLANS]),
    bug("node-sends-again-after-a-snapshot", "writes that a snapshot may hold are sent again", &[PLANS]),
    // Consensus.
    bug("raft-vote-before-durable", "a vote leaves before it is durable", &[SHUFFLE, GOLDEN]),
    bug("raft-vote-for-shorter-log", "a vote does not ask whose log is longer", &[SHUFFLE, GOLDEN]),
    bug("raft-two-votes-in-a-term", "a vote does not ask whether one was given", &[SHUFFLE, GOLDEN]),
    bug("raft-figure-8-commit", "entries of an earlier term are committed by counting", &[SHUFFLE, GOLDEN]),
    bug(
        "raft-leader-counts-itself-early",
        "a leader counts its entries before they are durable",
        &[SHUFFLE, GOLDEN],
    ),
    bug(
        "raft-old-write-proves-new-entry",
        "an old write's end acknowledges what replaced it",
        &[RAFT_UNIT, SHUFFLE],
    ),
    bug(
        "raft-stale-append-cuts",
        "an overtaken append cuts off what a later one brought",
        &[SHUFFLE, GOLDEN],
    ),
    bug(
        "raft-commit-beyond-what-matches",
        "a follower commits what the leader never sent",
        &[SHUFFLE, GOLDEN],
    ),
    bug(
        "raft-heartbeat-claims-too-much",
        "a heartbeat's answer claims what is not durable",
        &[SHUFFLE, GOLDEN],
    ),
    bug("node-claims-leave-early", "messages do not wait for the write that they rest on", &[CLUSTER]),
    bug("node-log-released-before-the-tree", "the log is released before the tree is durable", &[CLUSTER]),
    // Leases and reads.
    bug(
        "raft-vote-despite-lease",
        "a vote is given while the leader may rest on a promise",
        &[SHUFFLE, GOLDEN],
    ),
    bug("raft-vote-right-after-restart", "a restart forgets the promise", &[SHUFFLE, GOLDEN]),
    bug("raft-lease-beyond-promise", "a leader trusts its own lease, not what others promise", &[GOLDEN]),
    bug(
        "node-old-promise-forgotten",
        "a start with other settings forgets what it had promised",
        &[NODE_UNIT],
    ),
    bug("raft-vote-without-memory", "a member that lost its log elects", &[GOLDEN]),
    bug(
        "raft-lease-kept-in-transfer",
        "a leader serves by its lease while another is elected",
        &[SHUFFLE, GOLDEN],
    ),
    bug(
        "raft-lease-from-the-answer",
        "a lease counts from the answer, not from the question",
        &[SHUFFLE, GOLDEN],
    ),
    bug("raft-read-before-noop", "a new leader serves reads before its first commit", &[SHUFFLE, GOLDEN]),
    bug(
        "raft-read-confirmed-by-an-old-round",
        "answers to earlier messages confirm a read",
        &[SHUFFLE, GOLDEN],
    ),
    bug(
        "node-read-before-applied",
        "a read does not wait for its index to be applied",
        &[CLUSTER, NODE_UNIT],
    ),
    bug(
        "node-any-answer-confirms-a-read",
        "an old attempt's answer confirms a later read",
        &[NODE_UNIT, CLUSTER],
    ),
    // Leases that keys are attached to.
    bug(
        "store-put-leaves-the-key-attached",
        "a key that is put again without its lease stays attached",
        &[STORE, LEASES],
    ),
    bug(
        "store-txn-knows-no-lease",
        "a put in a transaction is told that its lease is not there",
        &[STORE, LEASES],
    ),
    bug("store-revoke-in-many-revisions", "the keys of a lease go one revision after the other", &[STORE]),
    bug(
        "store-lease-entry-of-an-old-term-counts",
        "the word of a leader that was replaced ends leases",
        &[STORE],
    ),
    bug(
        "store-lease-of-another-generation-ends",
        "a lease that had the same id before is meant, and this one ends",
        &[STORE],
    ),
    bug("snapshot-without-leases", "a snapshot leaves out which leases there are", &[STORE]),
    bug("node-renewed-lease-is-dropped", "a lease that was renewed never ends", &[NODE_UNIT, LEASES]),
    bug("node-leases-trust-the-clock", "a lease ends though this clock may be fast", &[NODE_UNIT, LEASES]),
    bug("node-what-is-left-is-not-noted", "the next leader begins each lease anew", &[NODE_UNIT]),
    bug(
        "node-new-leader-forgets-what-is-left",
        "a new leader does not look at what was noted",
        &[NODE_UNIT, LEASES],
    ),
    bug(
        "node-renewal-leaves-the-checkpoint",
        "a renewal leaves in the log that less is left",
        &[NODE_UNIT, LEASES],
    ),
    bug(
        "node-lease-renewed-by-a-former-leader",
        "a renewal is answered before it is known who leads",
        &[LEASES],
    ),
    bug(
        "node-leader-goes-on-with-its-old-clock",
        "who leads again ends what was renewed under others",
        &[LEASES],
    ),
    // Locks.
    bug("node-lock-granted-to-all", "a lock is granted whoever was there before", &[NODE_UNIT, LOCKS]),
    bug("node-lock-granted-unconfirmed", "a lock is granted by what was once so", &[NODE_UNIT, LOCKS]),
    bug(
        "node-lock-granted-on-a-key-that-is-gone",
        "a lock is granted though the lease has ended",
        &[NODE_UNIT, LOCKS],
    ),
    bug(
        "node-lock-sleeps-when-a-lease-ends",
        "who waits is not told that the owner's lease has ended",
        &[NODE_UNIT, LOCKS],
    ),
    bug("node-lock-left-behind", "a connection that ends leaves its place in the queue", &[NODE_UNIT]),
    bug(
        "node-lock-takes-anothers-place-back",
        "who waits no longer takes the place of a later request back",
        &[NODE_UNIT],
    ),
    // Room that is given back.
    bug(
        "node-room-is-never-given-back",
        "free room goes back only when somebody asks for it",
        &[NODE_UNIT, ROOM],
    ),
    bug(
        "node-defrag-is-answered-before-the-cut",
        "who asks for room is answered while the file is still long",
        &[NODE_UNIT],
    ),
    // Changes of the membership.
    bug(
        "raft-membership-counts-when-committed",
        "a membership counts when it is committed",
        &[SHUFFLE, GOLDEN],
    ),
    bug("raft-replaced-membership-kept", "a membership outlives its entry", &[SHUFFLE, RAFT_UNIT]),
    bug(
        "raft-snapshot-keeps-old-membership",
        "a snapshot leaves the membership as it was",
        &[SHUFFLE, GOLDEN],
    ),
    bug("raft-learner-counts", "a learner counts in quorums", &[SHUFFLE, GOLDEN]),
    bug("raft-change-before-own-commit", "a new leader changes the membership at once", &[SHUFFLE, GOLDEN]),
    bug("raft-two-changes-at-once", "a change begins before the last one is committed", &[SHUFFLE, GOLDEN]),
    bug(
        "raft-joint-left-too-early",
        "a joint membership is left before its entry is committed",
        &[GOLDEN, SHUFFLE],
    ),
    bug(
        "raft-joint-commits-by-its-new-half",
        "the new half of a joint membership commits alone",
        &[RAFT_UNIT, GOLDEN, SHUFFLE],
    ),
    bug(
        "raft-joint-elects-by-its-new-half",
        "the new half of a joint membership elects alone",
        &[RAFT_UNIT, GOLDEN, SHUFFLE],
    ),
    bug(
        "node-joint-change-told-too-early",
        "several changes are acknowledged while those removed still vote",
        &[CLUSTER],
    ),
    bug("raft-promote-without-catch-up", "a learner that lags is promoted", &[GOLDEN, SHUFFLE]),
    bug("node-expects-the-last-addition-only", "of several new members one is spoken to", &[PLANS]),
    bug("node-follower-expects-nobody", "a follower learns of a member by applying it", &[PLANS, CLUSTER]),
    bug("node-candidate-is-a-stranger", "who lags knows no way to answer a candidate", &[PLANS]),
    bug("node-hears-no-name-twice", "an introduction that came too early is not heard later", &[PLANS]),
    bug("node-blank-refuses-the-first-state", "a blank member needs no state at index 0", &[PLANS]),
    // Writes on their way.
    bug("store-apply-differs-at-a-member", "one member counts versions in another way", &[CLUSTER]),
    bug(
        "node-differing-state-is-overlooked",
        "another state hash is taken for the own one",
        &[NODE_UNIT, CLUSTER],
    ),
    bug("node-unknown-told-as-refused", "a write that may have happened is told as refused", &[CLUSTER]),
    bug("node-sends-again-in-the-same-term", "writes are sent twice within a term", &[CLUSTER, NODE_UNIT]),
    bug("node-late-refusal-counts", "a refusal of an old call takes back the new one", &[NODE_UNIT, CLUSTER]),
    bug("node-refused-is-sent-at-once", "what was refused is sent again without a pause", &[NODE_UNIT]),
    bug("node-proposal-taken-twice", "a frame that comes twice proposes twice", &[CLUSTER]),
    // What watchers are told.
    bug("watch-begins-too-early", "a watch is told what was before its first revision", &[WATCHES, CLUSTER]),
    bug(
        "watch-event-lost-where-it-has-caught-up",
        "who catches up with the others misses one revision",
        &[WATCHES, CLUSTER],
    ),
    bug("watch-release-tells-again", "who was held up is told the last revision again", &[WATCHES, CLUSTER]),
    bug("watch-parked-misses-one", "who takes nothing goes on behind what it missed", &[WATCHES, CLUSTER]),
    bug("watch-revision-in-pieces", "each change of a revision is told for itself", &[WATCHES, CLUSTER]),
    bug(
        "watch-goes-on-with-half-a-revision",
        "what is swept between two turns is left out of its revision",
        &[WATCHES, CLUSTER],
    ),
    bug("watch-filter-of-what-was-before", "a filter looks at what was there before", &[WATCHES, CLUSTER]),
    bug("watch-prefix-without-its-first-key", "a span begins behind its first key", &[WATCHES, CLUSTER]),
    bug(
        "watch-progress-of-the-store",
        "progress is told up to what is still to be told",
        &[WATCHES, CLUSTER],
    ),
    bug("watch-progress-of-who-lags", "who has not caught up is told of progress", &[WATCHES, CLUSTER]),
    bug("watch-compacted-is-passed-over", "a watch goes on behind a compaction", &[WATCHES, CLUSTER]),
    bug(
        "watch-observer-sleeps-when-a-leader-goes",
        "who observes an election is not told of the next in line",
        &[WATCHES, LOCKS],
    ),
    bug(
        "watch-observer-looks-at-now",
        "who observes an election and lags is told of who leads now",
        &[WATCHES, LOCKS],
    ),
    bug("watch-of-who-left-is-silent", "a member that must not answer does not end its watches", &[CLUSTER]),
    bug("watch-goes-on-without-a-leader", "a member that nobody leads goes on with its watches", &[CLUSTER]),
    bug("watch-pushes-between-parts", "pushes do not wait for the end of a range", &[WATCH_REAL]),
    bug("watch-ends-between-parts", "the end of a watch does not wait for that of a range", &[LINE]),
    // gRPC.
    bug(
        "node-range-told-of-a-later-revision",
        "a range that takes several turns is told with the revision of its end",
        &[GRPC_SIM, PLANS],
    ),
    bug("grpc-status-within-a-message", "a status cuts what is half sent", &[GRPC, GRPC_SIM, PLANS]),
    bug("grpc-done-told-as-refused", "what happened and has no room for its answer is refused", &[GRPC_SIM]),
    bug(
        "grpc-held-stream-is-never-released",
        "a stream that was held is told nothing more",
        &[GRPC, GRPC_SIM],
    ),
    bug(
        "grpc-answer-is-held-half-way",
        "of a range's answer the rest is held, which must come before any of it is read",
        &[GRPC, GRPC_SIM],
    ),
    bug(
        "grpc-cancelled-watch-is-not-confirmed",
        "the end of a watch that had not begun is not told",
        &[GRPC, GRPC_SIM],
    ),
    bug("grpc-first-fragment-is-lost", "of a revision in several messages the last one is sent", &[GRPC]),
];
