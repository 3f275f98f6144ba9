//! The threads that may wait for a disk. They own no protocol state: work goes in as values, results come out
//! as values, and the loop is woken only when it sleeps.
//!
//! - The *log writer*: batches of the log, one sync each. Nothing else shares its thread, because every
//!   acknowledged write waits for it.
//! - The *housekeeper*: checkpoints of the tree, segments made ready or given back, old entries read back,
//!   snapshots installed. In order, one at a time.
//! - The *resolver*: what peers' names mean. Only where a peer has one; a member whose peers have plain addresses has
//!   no such thread. A name service that is away keeps its caller for many seconds, and with the
//!   housekeeper in its hands the log would get no new segments and all writes would stand still. Nobody waits for this
//!   thread, not even the end of the process.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use log::warn;
use mio::Waker;

use crate::base::time::Nanos;
use crate::base::{Error, MemberId, Mono, Result};
use crate::io::Disk;
use crate::node::{Batch, Done, Job, LogWriter, Written};

/// What the housekeeper is asked.
pub(super) enum Work<D: Disk> {
    Job(Job<D>),
    /// How many bytes are free where the data lives.
    FreeBytes {
        dirs: Vec<PathBuf>,
    },
}

/// A peer's `host:port` that is not an IP address.
struct Name {
    peer: MemberId,
    host: String,
}

/// What comes back from the threads.
pub(super) enum Finished {
    Written(Result<Written>),
    /// With the time that it took, where it was a checkpoint.
    Job {
        done: Result<Done>,
        checkpoint: Option<Nanos>,
    },
    /// What a name means; nothing where the lookup failed.
    Resolved {
        peer: MemberId,
        host: String,
        addresses: Vec<SocketAddr>,
    },
    /// The least of the directories; None where it could not be told.
    FreeBytes(Option<u64>),
}

pub(super) struct Workers<D: Disk> {
    log_writer: Sender<Vec<Batch>>,
    housekeeper: Sender<Work<D>>,
    /// None until there is a name to look up.
    resolver: Option<Sender<Name>>,
    /// For threads that are started later.
    results: Sender<Finished>,
    finished: Receiver<Finished>,
    doorbell: Doorbell,
    /// Those that write to files.
    threads: Vec<JoinHandle<()>>,
}

/// Wakes the loop, but only if it sleeps or is about to.
#[derive(Clone)]
struct Doorbell {
    asleep: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Doorbell {
    fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A wake-up that fails leaves the loop to its next timeout; there is nobody to tell.
            let _ = self.waker.wake();
        }
    }
}

impl<D: Disk> Workers<D> {
    /// `now` is for what is told of how long things take.
    pub(super) fn start(
        disk: D,
        mut writer: LogWriter<D>,
        waker: Arc<Waker>,
        now: fn() -> Mono,
    ) -> Result<Workers<D>> {
        writer.time_syncs(now);
        let doorbell = Doorbell { asleep: Arc::new(AtomicBool::new(false)), waker };
        let (results, finished) = channel();
        let (log_writer, batches) = channel();
        let (housekeeper, work) = channel();
        let (bell, out) = (doorbell.clone(), results.clone());
        let log_thread = spawn("log-writer", move || write_log(writer, &batches, &out, &bell))?;
        let (bell, out) = (doorbell.clone(), results.clone());
        let housekeeping = spawn("housekeeper", move || keep_house(&disk, now, &work, &out, &bell))?;
        let threads = vec![log_thread, housekeeping];
        Ok(Workers { log_writer, housekeeper, resolver: None, results, finished, doorbell, threads })
    }

    /// Ends the threads; when this returns nothing writes to the files any more. A lookup that hangs is left behind: it
    /// touches nothing, and its thread ends when it finds that nobody listens.
    pub(super) fn end(self) {
        let Workers { log_writer, housekeeper, finished, threads, .. } = self;
        drop((log_writer, housekeeper, finished));
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    pub(super) fn write(&self, batches: Vec<Batch>) {
        self.log_writer.send(batches).expect("the log writer ends only after the loop");
    }

    pub(super) fn ask(&self, work: Work<D>) {
        self.housekeeper.send(work).expect("the housekeeper ends only after the loop");
    }

    /// Looks up what a peer's `host:port` means. The answer always comes, though perhaps late and empty.
    pub(super) fn resolve(&mut self, peer: MemberId, host: String) {
        if self.resolver.is_none() {
            let (resolver, names) = channel();
            let (bell, out) = (self.doorbell.clone(), self.results.clone());
            match spawn("resolver", move || resolve_names(&names, &out, &bell)) {
                // Not among those that the end waits for.
                Ok(_) => self.resolver = Some(resolver),
                Err(error) => warn!("{error}"),
            }
        }
        let name = Name { peer, host };
        let unsent = match &self.resolver {
            Some(resolver) => resolver.send(name).err().map(|refused| refused.0),
            None => Some(name),
        };
        if let Some(Name { peer, host }) = unsent {
            // As if the name service had failed: whoever asked asks again later.
            self.resolver = None;
            let failed = Finished::Resolved { peer, host, addresses: Vec::new() };
            self.results.send(failed).expect("this struct holds the receiver");
            self.doorbell.ring();
        }
    }

    pub(super) fn next(&self) -> Option<Finished> {
        self.finished.try_recv().ok()
    }

    /// Called before the loop sleeps: results from here on ring the bell. What came just before must be
    /// looked for once more after this.
    pub(super) fn going_to_sleep(&self) {
        self.doorbell.asleep.store(true, Ordering::SeqCst);
    }

    pub(super) fn woke(&self) {
        self.doorbell.asleep.store(false, Ordering::SeqCst);
    }
}

pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let spawned = thread::Builder::new().name(name.into()).spawn(body);
    spawned.map_err(|e| Error::io("cannot start the thread", name.as_ref(), e))
}

fn write_log<D: Disk>(
    mut writer: LogWriter<D>,
    queue: &Receiver<Vec<Batch>>,
    results: &Sender<Finished>,
    doorbell: &Doorbell,
) {
    loop {
        // The seal is written when nobody waits for the log; its failure is told like any other.
        let batches = match queue.try_recv() {
            Err(TryRecvError::Empty) => match writer.seal() {
                Ok(()) => queue.recv().ok(),
                Err(e) => {
                    let _ = results.send(Finished::Written(Err(e)));
                    return doorbell.ring();
                }
            },
            other => other.ok(),
        };
        let Some(batches) = batches else { return }; // The loop has ended.
        if results.send(Finished::Written(writer.write(batches))).is_err() {
            return;
        }
        doorbell.ring();
    }
}

fn keep_house<D: Disk>(
    disk: &D,
    now: fn() -> Mono,
    work: &Receiver<Work<D>>,
    results: &Sender<Finished>,
    doorbell: &Doorbell,
) {
    while let Ok(work) = work.recv() {
        let finished = match work {
            Work::Job(job) => {
                let is_checkpoint = matches!(job, Job::Checkpoint(_));
                let begun_at = now();
                let done = job.run(&|| doorbell.ring());
                Finished::Job { done, checkpoint: is_checkpoint.then(|| now().since(begun_at)) }
            }
            Work::FreeBytes { dirs } => {
                Finished::FreeBytes(dirs.iter().filter_map(|dir| disk.free_bytes(dir).ok()).min())
            }
        };
        if results.send(finished).is_err() {
            return; // The loop has ended.
        }
        doorbell.ring();
    }
}

fn resolve_names(names: &Receiver<Name>, results: &Sender<Finished>, doorbell: &Doorbell) {
    while let Ok(Name { peer, host }) = names.recv() {
        let addresses = host.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
        if results.send(Finished::Resolved { peer, host, addresses }).is_err() {
            return; // The loop has ended.
        }
        doorbell.ring();
    }
}
