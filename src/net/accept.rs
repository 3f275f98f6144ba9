//! The listening sockets: taking connections, and no longer taking them.

use std::io::ErrorKind;
use std::net::SocketAddr;

use log::warn;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::base::Mono;
use crate::base::time::{MS, Nanos};
use crate::proto::http::Scope;

/// Connections taken from one listener in one turn: a crowd that comes at once is let in little by little, and who is here
/// already is served meanwhile: to take one, read its greeting and answer it takes some fifty microseconds. Of members, one that has just come must be heard before a crowd behind it takes its place
/// (`EventLoop::make_room_for_members`): it needs a turn or two for its greeting.
const TURN_MAX: usize = 4;

/// Connections that are complete and were not taken yet, at most; the kernel allows 4,096 where nobody has told it otherwise.
/// Whoever dials behind these dials again after 1 s, 3 s and 7 s: all clients of a member that has just ended come at once.
const BACKLOG: i32 = 65_535;

/// No more connections for this long after the process ran out of file descriptors.
const ACCEPT_PAUSE: Nanos = 100 * MS;

/// A new connection, by the kind of listener that it came from.
pub(super) enum Accepted {
    Client(TcpStream),
    /// From a listener that speaks HTTP alone.
    Http(TcpStream, Scope),
    Member(TcpStream),
}

/// Binds a listening socket.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // It listens already, with a shorter queue.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Listening sockets by what comes to them.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) for_clients: Vec<TcpListener>,
    pub(super) for_http: Vec<(TcpListener, Scope)>,
    pub(super) for_members: Vec<TcpListener>,
}

pub(super) struct Listeners {
    for_clients: Vec<TcpListener>,
    for_http: Vec<(TcpListener, Scope)>,
    for_members: Vec<TcpListener>,
    /// A connection may be waiting.
    ready: bool,
    /// Not before this, after accepting failed.
    after: Mono,
}

impl Listeners {
    /// Watches them under `first_token` and the tokens that follow.
    pub(super) fn register(
        mut sockets: Sockets,
        registry: &Registry,
        first_token: usize,
    ) -> std::io::Result<Listeners> {
        let Sockets { for_clients, for_http, for_members } = &mut sockets;
        let http = for_http.iter_mut().map(|(listener, _)| listener);
        for (number, listener) in for_clients.iter_mut().chain(http).chain(for_members).enumerate() {
            registry.register(listener, Token(first_token + number), Interest::READABLE)?;
        }
        let Sockets { for_clients, for_http, for_members } = sockets;
        Ok(Listeners { for_clients, for_http, for_members, ready: true, after: Mono(0) })
    }

    pub(super) fn on_event(&mut self) {
        self.ready = true;
    }

    /// When [`accept`](Self::accept) should run again.
    pub(super) fn deadline(&self) -> Mono {
        if self.ready { self.after } else { Mono::NEVER }
    }

    /// The connections that wait, as many as one turn should take.
    pub(super) fn accept(&mut self, now: Mono) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        if !self.ready || now < self.after {
            return accepted;
        }
        self.ready = false;
        let clients = self.for_clients.iter().map(|one| (one, Accepted::Client as fn(_) -> _));
        let http = self.for_http.iter().map(|(one, scope)| (one, http(*scope)));
        let members = self.for_members.iter().map(|one| (one, Accepted::Member as fn(_) -> _));
        for (listener, kind) in clients.chain(http).chain(members) {
            match take(listener, kind, &mut accepted) {
                Ok(true) => {}
                // More may wait behind the budget of a turn.
                Ok(false) => self.ready = true,
                Err(e) => {
                    // Out of descriptors, or the caller hung up: the rest stays in the queue of the listener.
                    warn!("cannot accept a connection: {e}");
                    self.ready = true;
                    self.after = now + ACCEPT_PAUSE;
                }
            }
        }
        accepted
    }

    /// Takes no clients any more: who dials now is refused, and looks for another member. The connections
    /// that were complete already: they may have brought requests.
    pub(super) fn close_to_clients(&mut self) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        let clients = std::mem::take(&mut self.for_clients).into_iter();
        let clients = clients.map(|listener| (listener, Accepted::Client as fn(_) -> _));
        let monitors = std::mem::take(&mut self.for_http).into_iter();
        let monitors = monitors.map(|(listener, scope)| (listener, http(scope)));
        for (listener, kind) in clients.chain(monitors) {
            // Whatever ends this, the socket is closed.
            while let Ok(false) = take(&listener, kind, &mut accepted) {}
        }
        accepted
    }
}

fn http(scope: Scope) -> fn(TcpStream) -> Accepted {
    match scope {
        Scope::Clients => |stream| Accepted::Http(stream, Scope::Clients),
        Scope::Monitoring => |stream| Accepted::Http(stream, Scope::Monitoring),
    }
}

/// True if the listener's queue is empty now.
fn take(
    listener: &TcpListener,
    kind: fn(TcpStream) -> Accepted,
    accepted: &mut Vec<Accepted>,
) -> std::io::Result<bool> {
    for _ in 0..TURN_MAX {
        match listener.accept() {
            Ok((stream, _)) => accepted.push(kind(stream)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the kernel's queue is what is tested")]
    fn a_crowd_that_comes_at_once_need_not_dial_again() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let crowd = allowed.trim().parse::<usize>().unwrap().min(800);
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody takes them. One too many would wait for as long as this lets it.
        let dial = |_| TcpStream::connect_timeout(&address, Duration::from_secs(20));
        let dialled: Vec<_> = (0..crowd).map(dial).collect::<Result<_, _>>().unwrap();
        assert_eq!(dialled.len(), crowd);
    }
}
