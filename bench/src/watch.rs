//! What watchers cost: puts with nobody watching, with ten thousand who watch other keys, and with ten thousand of whom one
//! is told of each put; and how long it takes until one event has come to ten thousand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::cluster::Client;
use crate::etcd::{self, EtcdClient, runtime};
use crate::load::{Outcome, Plan, Wire};
use crate::report::Figures;
use crate::{Result, Scale, resp};

const WATCHERS: u64 = 10_000;

/// They share connections, as those of one client do.
const CONNECTIONS: u64 = 100;

const REQUEST: Duration = Duration::from_secs(30);

/// How often one event is sent to all.
const FAN_OUTS: usize = 30;

/// Keys that nobody puts.
const OTHERS: u64 = 1 << 40;

/// Connections with watches, which are read until this is dropped.
pub struct Watching {
    told: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Watching {
    /// Each of so many watches the key that `key_of` makes of its number.
    pub fn start(watchers: u64, wire: Wire, port: u16, key_of: impl Fn(u64) -> [u8; 8]) -> Result<Watching> {
        let (told, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut watching = Watching { told, over, reader: None, tasks: Vec::new() };
        let keys_of = |connection| {
            let numbers = (0..watchers).filter(move |number| number % CONNECTIONS == connection);
            numbers.map(|number| key_of(number).to_vec()).collect::<Vec<_>>()
        };
        if wire == Wire::Etcd {
            for connection in 0..CONNECTIONS {
                watching.tasks.push(over_grpc(port, keys_of(connection), &watching.told)?);
            }
            return Ok(watching);
        }
        let streams: Result<Vec<_>> =
            (0..CONNECTIONS).map(|connection| over_resp(port, keys_of(connection))).collect();
        let (streams, count, end) = (streams?, Arc::clone(&watching.told), Arc::clone(&watching.over));
        watching.reader = Some(std::thread::spawn(move || {
            if let Err(e) = read_all(streams, &count, &end) {
                eprintln!("  note: the watchers' reader broke off: {e}");
            }
        }));
        Ok(watching)
    }

    fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn over_grpc(port: u16, keys: Vec<Vec<u8>>, told: &Arc<AtomicU64>) -> Result<tokio::task::JoinHandle<()>> {
    let mut client = EtcdClient::new(port);
    let (sender, mut answers) = runtime().block_on(etcd::watch(&mut client, keys))?;
    let told = Arc::clone(told);
    Ok(runtime().spawn(async move {
        while let Ok(Some(answer)) = answers.message().await {
            told.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
        }
        drop(sender);
    }))
}

fn over_resp(port: u16, keys: Vec<Vec<u8>>) -> Result<mio::net::TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(REQUEST))?;
    let asked: Vec<u8> = keys.iter().flat_map(|key| resp::request(&[b"WATCH", key])).collect();
    stream.write_all(&asked)?;
    let mut answered = 0;
    let mut chunk = [0; 4096];
    while answered < keys.len() {
        let read = stream.read(&mut chunk)?;
        if read == 0 || chunk[..read].contains(&b'-') {
            return Err("a watch was refused".into());
        }
        answered += chunk[..read].iter().filter(|byte| **byte == b'\n').count();
    }
    stream.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(stream))
}

/// Counts pushes by the line that each begins with. It may come in two pieces: the last of a piece is kept, too short to
/// be found twice.
fn read_all(mut streams: Vec<mio::net::TcpStream>, told: &AtomicU64, over: &AtomicBool) -> Result<()> {
    const WORD: &[u8] = b"\r\nwatch\r\n";
    let mut poll = Poll::new()?;
    for (number, stream) in streams.iter_mut().enumerate() {
        poll.registry().register(stream, Token(number), Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(256);
    let mut kept: Vec<Vec<u8>> = vec![Vec::new(); streams.len()];
    let mut chunk = vec![0; 256 << 10];
    while !over.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(Duration::from_millis(50)))?;
        for event in &events {
            let at = event.token().0;
            loop {
                match streams[at].read(&mut chunk) {
                    Ok(0) => return Err("the server closed a connection".into()),
                    Ok(read) => {
                        let kept = &mut kept[at];
                        kept.extend_from_slice(&chunk[..read]);
                        let found = kept.windows(WORD.len()).filter(|window| *window == WORD).count();
                        told.fetch_add(found as u64, Ordering::Relaxed);
                        let rest = kept.len().saturating_sub(WORD.len() - 1);
                        kept.drain(..rest);
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
    Ok(())
}

/// Of the rates each is the better of two: the arms are held against each other.
pub fn measure(put: &Plan, scale: &Scale, name: &'static str, figures: &mut Figures) -> Result<()> {
    let shared = put.wire == Wire::Etcd;
    let connections = if shared { 100 } else { 1_000 };
    let put = Plan { connections, clients: 1_000, key_count: WATCHERS, ..put.clone() };
    const ARMS: [&str; 3] = [
        "put, nobody watches: rate",
        "put, 10,000 watch other keys: rate",
        "put, 10,000 watch these keys: rate",
    ];
    let mut rates = [0.0_f64; 3];
    for arm in [0, 1, 2, 2, 1, 0] {
        std::thread::sleep(scale.pause);
        let watching = match arm {
            0 => None,
            1 => {
                Some(Watching::start(WATCHERS, put.wire, put.port, |number| (number + OTHERS).to_be_bytes())?)
            }
            _ => Some(Watching::start(WATCHERS, put.wire, put.port, u64::to_be_bytes)?),
        };
        let done = put.run()?;
        rates[arm] = rates[arm].max(done.rate());
        figures.errors("puts that are watched", name, done.errors);
        if let Some(watching) = watching.filter(|_| arm == 2) {
            let behind = Instant::now();
            while watching.told() < done.ops && behind.elapsed() < REQUEST {
                std::thread::sleep(Duration::from_millis(1));
            }
            if watching.told() < done.ops {
                figures.note(format!("{name}: {} of {} puts were told", watching.told(), done.ops));
            }
        }
    }
    for (arm, rate) in ARMS.into_iter().zip(rates) {
        figures.add(arm, name, rate);
    }
    fan_out(&put, name, figures)
}

/// One key, all watch it: from the put until the last of them was told, in the middle.
fn fan_out(put: &Plan, name: &'static str, figures: &mut Figures) -> Result<()> {
    let key = OTHERS.to_be_bytes();
    let watching = Watching::start(WATCHERS, put.wire, put.port, |_| key)?;
    let mut client = Client::new(put.wire, put.port);
    let (mut to_last, mut to_answer) = (Outcome::new(), Outcome::new());
    for number in 1..=FAN_OUTS as u64 {
        std::thread::sleep(Duration::from_millis(20));
        let since = Instant::now();
        client.put(&key, &put.value(), REQUEST)?;
        let answered = since.elapsed();
        while watching.told() < number * WATCHERS {
            if since.elapsed() > REQUEST {
                return Err("not all watchers were told".into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        to_last.success(since.elapsed(), 1);
        to_answer.success(answered, 1);
    }
    let [last, answer] = [to_last, to_answer].map(|outcome| outcome.quantile_ms(0.5));
    figures.add("one event to 10,000 watchers: from the put to the last", name, last);
    figures.add("one event to 10,000 watchers: from the put to its answer", name, answer);
    Ok(())
}
