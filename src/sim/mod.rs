//! Whole clusters in one thread: the shipped node, log, tree, store and peer codec on simulated disks, networks
//! and clocks. A run is a function of its plan: the same plan gives the same events, to the last one.
//!
//! ```text
//!   seed --> generate --> plan (text) --> world --------------------> check, finish
//!                           ^               | heap of (time, event)      histories, files,
//!                           |               |                            convergence
//!                         shrink            +--> machine: disk, clock, process (node, log writer, jobs)
//!                                           +--> net, transport: links, connections, pieces of streams
//!                                           +--> clients: ask, wait, give up; write down what they saw
//!                                           +--> watchers: clients that watch, slowly, and go on elsewhere
//!                                           +--> wire: clients of both kinds that speak gRPC in bytes
//!                                           +--> faults: what the plan's lines do
//!                                           +--> operator: who belongs to the cluster, and who leads it
//!                                           +--> watch, roster, forks, lease_watch: what must hold at every event
//! ```
//!
//! # How to think about it
//!
//! *A plan, not dice.* The generator turns a seed into lines of text first: what happens when, or at which moment
//! of the protocol. A failing plan is a file that can be read, edited, made smaller, and kept (`sim/regress`).
//!
//! *Streams.* Every link, disk, clock, client and node has dice of its own ([`stream`]), so a line that is taken out
//! of a plan changes what it did, and little else.
//!
//! *The shell is played, not imitated.* [`process`] does with a node what `net::event_loop` does: events in, one turn,
//! messages and answers out; batches to a log writer and jobs to a housekeeper, whose calls end later. A call's
//! effect on the disk comes when it ends; if the process ends first, it comes in part, up to any of its operations.
//!
//! *The network is TCP's*: a connection delays, ends, or loses its last piece, but does not reorder. Some seeds are
//! crueller and treat each frame by itself; the core must stand both.
//!
//! *Some clients speak in bytes* ([`wire`]): in one seed of five, HTTP/2 made by `h2`'s client goes over a stream in pieces to
//! the gRPC adapter that ships, which asks the node. What the client understands is compared with what the node said, and is
//! what all judges judge. All others hand the node their requests as they are.
//!
//! *Disks lose what was not synced* in every way that `io::sim` knows, and fail on command. Damage at rest goes to
//! a minority of the members at most, and of a log only where a later group proves that it had been durable. A
//! member that finds damage must repair itself from the others.
//!
//! *Members come and go.* Beside the first members there are spare machines. The operator adds members on them, as
//! voters or as learners that it promotes, removes whoever the plan says (the leader, one that is down, one that
//! cannot hear of it), moves them to other URLs, and has leadership handed over. It asks as any client does, several
//! orders at once, and may be refused; it never asks for what would leave some outcome of what is in doubt without a
//! majority of good disks. A machine serves one member in its life: with a lost disk it is replaced by another one,
//! and one whose member was removed is started again with its old disk, and must disturb nobody.
//!
//! *After the faults* a core of the cluster is healed, everybody else is gone for good, and the core must be back
//! within bounds and stay quiet ([`liveness`]).
//!
//! # What is checked
//!
//! During the run, at every turn, message and answer: [`watch`], [`states`], [`forks`], [`lease_watch`] and [`room_watch`] have the list
//! (V01 to V25, V30 to V33, V40 to V42, S1, L6), and [`wire`] has W1 to W3 and L17. At the end: what the clients and the operator were told ([`check`], three judges; [`operator`], V22 and V23), equal
//! content everywhere, every byte of every file (V13, V15).
//! An assertion of the node that fails is caught and is a failure with its place as a name.
//!
//! # What is left out
//!
//! - The event loop itself, its sockets and the line protocol: `tests/` drive these with real processes. Of gRPC: messages
//!   longer than a member takes, TLS, and clients that break HTTP/2 (`tests/hostile.rs`, and the fuzz targets).
//! - Threads: the log writer, the housekeeper and the loop take turns here. Their calls overlap in time, but two
//!   calls that both end are executed one after the other.
//! - A disk that lies about syncs of the log. Nothing can tell such a lie from a write that was torn.
//! - Byzantine members, and damage to a majority.
//! - A wrong state (`corrupt-state`) while members come and go: a voter that was just added has no state yet, and bears
//!   nobody out; and a doubt that only an operator can settle (counted as `undecided`) ends a run without its live phase.
//! - An emptied disk while members come and go: the machine is gone for good, as an added member may not come back so.
//! - Joint changes of the membership: the node begins none (`raft_shuffle` and the explorer have them). A machine that
//!   joins anew under the URL that a removed member had.

pub mod check;
pub mod explore;
pub mod history;

mod alarms;
mod clients;
mod clock;
mod faults;
mod finish;
mod forks;
pub mod generate;
mod lease_load;
mod lease_watch;
mod liveness;
mod lock_load;
mod machine;
mod net;
mod observers;
mod operator;
pub mod options;
pub mod plan;
pub mod planted;
pub mod probes;
mod process;
mod readback;
pub mod report;
mod room_watch;
mod roster;
pub mod run;
pub mod shrink;
mod states;
mod stream;
mod trace;
mod transport;
mod txns;
mod watch;
mod watchers;
mod wire;
mod words;
mod world;

/// Every simulated cluster is this one.
const CLUSTER: u64 = 77;

/// Where its members keep their files.
const DATA_DIR: &str = "/data/member";
