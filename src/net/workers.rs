//! The threads that may wait for a disk. They own no protocol state: work goes in as values, results come out
//! as values, and the loop is woken only when it sleeps.
//!
//! - The *log writer*: batches of the log, one sync each. Nothing else shares its thread, because every
//!   acknowledged write waits for it.
//! - The *housekeeper*: checkpoints of the tree, segments made ready or given back, old entries read back,
//!   snapshots installed, names resolved. In order, one at a time.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use mio::Waker;

use crate::base::{Error, MemberId, Result};
use crate::io::Disk;
use crate::node::{Batch, Done, Job, LogWriter, Written};

/// What the housekeeper is asked.
pub(super) enum Work<D: Disk> {
    Job(Job<D>),
    /// A peer's `host:port` that is not an IP address.
    Resolve {
        peer: MemberId,
        host: String,
    },
    /// How many bytes are free where the data lives.
    FreeBytes {
        dirs: Vec<PathBuf>,
    },
}

/// What comes back from either thread.
pub(super) enum Finished {
    Written(Result<Written>),
    Job(Result<Done>),
    Resolved {
        peer: MemberId,
        addresses: Vec<SocketAddr>,
    },
    /// The least of the directories; None where it could not be told.
    FreeBytes(Option<u64>),
}

pub(super) struct Workers<D: Disk> {
    log_writer: Sender<Vec<Batch>>,
    housekeeper: Sender<Work<D>>,
    finished: Receiver<Finished>,
    doorbell: Doorbell,
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
    pub(super) fn start(disk: D, writer: LogWriter<D>, waker: Arc<Waker>) -> Result<Workers<D>> {
        let doorbell = Doorbell { asleep: Arc::new(AtomicBool::new(false)), waker };
        let (results, finished) = channel();
        let (log_writer, batches) = channel();
        let (housekeeper, work) = channel();
        let (bell, out) = (doorbell.clone(), results.clone());
        let log_thread = spawn("log-writer", move || write_log(writer, &batches, &out, &bell))?;
        let bell = doorbell.clone();
        let housekeeping = spawn("housekeeper", move || keep_house(&disk, &work, &results, &bell))?;
        let threads = vec![log_thread, housekeeping];
        Ok(Workers { log_writer, housekeeper, finished, doorbell, threads })
    }

    /// Ends the threads; when this returns nothing writes to the files any more.
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

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
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

fn keep_house<D: Disk>(disk: &D, work: &Receiver<Work<D>>, results: &Sender<Finished>, doorbell: &Doorbell) {
    while let Ok(work) = work.recv() {
        let finished = match work {
            Work::Job(job) => Finished::Job(job.run()),
            Work::Resolve { peer, host } => {
                let addresses = host.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
                Finished::Resolved { peer, addresses }
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
