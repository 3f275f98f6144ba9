//! A proxy in front of every member's peer port, and what can be done to the links that lead through it. Members
//! speak on the connections that they dialled, so a connection through the proxy is a link in one direction; who
//! dialled it is said by its first frame.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use pawl::proto::peer::{self, Frame};
use socket2::SockRef;

use crate::harness::{Cluster, Member, free_port, pause};

/// How long a pump waits for bytes before it looks at its link again.
const LOOK: Duration = Duration::from_millis(5);

/// What passes over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Link {
    #[default]
    Up,
    /// Connections are reset, new ones too.
    Refused,
    /// Nothing passes and nobody is told. What was under way arrives when the link is up again, as it does when TCP
    /// sends it anew.
    Silent,
    /// Whatever was read at once arrives so many milliseconds later.
    Slow(u64),
    /// Every connection is reset behind so many bytes, wherever in a frame that is.
    Torn(usize),
}

/// The links between the members of a cluster. Those that are not named are up.
#[derive(Default)]
pub struct Links {
    /// Ids of the members, once they are known.
    ids: Mutex<Vec<u64>>,
    /// By the places of who speaks and who listens.
    links: Mutex<BTreeMap<(usize, usize), Link>>,
    over: AtomicBool,
}

impl Links {
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.links.lock().unwrap().insert((from, to), link);
    }

    /// All that go out from a member, and all that come in.
    pub fn set_around(&self, member: usize, link: Link) {
        for other in (0..3).filter(|&other| other != member) {
            self.set(member, other, link);
            self.set(other, member, link);
        }
    }

    pub fn heal(&self) {
        self.links.lock().unwrap().clear();
    }

    fn link(&self, from: Option<u64>, to: usize) -> Link {
        let place = self.ids.lock().unwrap().iter().position(|id| Some(*id) == from);
        let Some(place) = place else { return Link::Up };
        self.links.lock().unwrap().get(&(place, to)).copied().unwrap_or_default()
    }
}

/// A running cluster whose members reach each other through proxies. They end when this is dropped.
pub struct Proxies(pub Arc<Links>);

impl Drop for Proxies {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Proxies {
    /// Puts a proxy before each member of a cluster that is prepared, and starts it.
    pub fn start(cluster: &mut Cluster) -> Proxies {
        let links = Arc::new(Links::default());
        let proxies = Proxies(links.clone());
        let ports: Vec<(u16, u16)> =
            cluster.members.iter().map(|member| (member.peer_port, free_port())).collect();
        for (to, &(real, public)) in ports.iter().enumerate() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, public)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let links = links.clone();
            thread::spawn(move || accept(&listener, to, real, &links));
        }
        for arg in cluster.members.iter_mut().flat_map(|member| &mut member.args) {
            if !arg.starts_with("--listen-peer-urls=") {
                for (real, public) in &ports {
                    *arg = arg.replace(&format!(":{real}"), &format!(":{public}"));
                }
            }
        }
        cluster.start_all();
        cluster.leader();
        *links.ids.lock().unwrap() = cluster.members.iter().map(Member::id).collect();
        proxies
    }
}

/// One connection through the proxy.
struct Connection {
    dialler: TcpStream,
    listener: TcpStream,
    links: Arc<Links>,
    to: usize,
    /// Who dialled, once it has said so.
    from: Mutex<Option<u64>>,
    over: AtomicBool,
}

fn accept(listener: &TcpListener, to: usize, real: u16, links: &Arc<Links>) {
    while !links.over.load(Ordering::Relaxed) {
        let Ok((dialler, _)) = listener.accept() else {
            pause(2);
            continue;
        };
        // A member that is down refuses: so does the proxy, by a reset.
        let Ok(target) = TcpStream::connect((Ipv4Addr::LOCALHOST, real)) else {
            let _ = SockRef::from(&dialler).set_linger(Some(Duration::ZERO));
            continue;
        };
        for stream in [&dialler, &target] {
            stream.set_nonblocking(false).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(LOOK)).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        let connection = Arc::new(Connection {
            dialler,
            listener: target,
            links: links.clone(),
            to,
            from: Mutex::new(None),
            over: AtomicBool::new(false),
        });
        let back = connection.clone();
        thread::spawn(move || connection.pump(&connection.dialler, &connection.listener, true));
        thread::spawn(move || back.pump(&back.listener, &back.dialler, false));
    }
}

impl Connection {
    /// Carries bytes one way until either side or the link ends that; then both sides are closed by the last owner.
    fn pump(&self, from: &TcpStream, to: &TcpStream, greets: bool) {
        let mut greeting = greets.then(BytesMut::new);
        let _ = self.carry(from, to, &mut greeting);
        self.over.store(true, Ordering::Relaxed);
    }

    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, greeting: &mut Option<BytesMut>) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut passed = 0;
        while self.passes()? {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(e) => return Err(e),
            };
            if let Some(bytes) = greeting {
                bytes.extend_from_slice(&buffer[..count]);
                if let Ok(Some(Frame::Hello(hello))) = peer::decode_greeting(bytes) {
                    *self.from.lock().unwrap() = Some(hello.from);
                    *greeting = None;
                }
            }
            // The link may have changed while nothing was said.
            if !self.passes()? {
                return Ok(());
            }
            let mut bytes = &buffer[..count];
            match self.link() {
                Link::Slow(ms) => pause(ms),
                Link::Torn(after) if passed + count > after => bytes = &bytes[..after.saturating_sub(passed)],
                _ => {}
            }
            to.write_all(bytes)?;
            passed += count;
            if bytes.len() < count {
                return self.reset();
            }
        }
        Ok(())
    }

    fn link(&self) -> Link {
        self.links.link(*self.from.lock().unwrap(), self.to)
    }

    /// Waits while the link is silent. False when the connection is over; an error when it is refused.
    fn passes(&self) -> Result<bool> {
        loop {
            if self.over.load(Ordering::Relaxed) || self.links.over.load(Ordering::Relaxed) {
                return Ok(false);
            }
            match self.link() {
                Link::Silent => pause(2),
                Link::Refused => return self.reset().map(|()| false),
                _ => return Ok(true),
            }
        }
    }

    /// Closing will send a reset to either side, at once and in front of what is still to be sent.
    fn reset(&self) -> Result<()> {
        for stream in [&self.dialler, &self.listener] {
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }
}
