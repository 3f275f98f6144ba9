//! The listening sockets: taking connections, and no longer taking them.

use std::io::ErrorKind;

use log::warn;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::base::Mono;
use crate::base::time::{MS, Nanos};

/// Connections taken from one listener in one turn.
const CLIENTS_MAX: usize = 512;

/// The same for members. So few that one which has just come is heard before a crowd behind it takes its place
/// (`EventLoop::make_room_for_members`): it needs a turn or two for its greeting.
const MEMBERS_MAX: usize = 16;

/// No more connections for this long after the process ran out of file descriptors.
const ACCEPT_PAUSE: Nanos = 100 * MS;

/// A new connection, by the kind of listener that it came from.
pub(super) enum Accepted {
    Client(TcpStream),
    Member(TcpStream),
}

pub(super) struct Listeners {
    for_clients: Vec<TcpListener>,
    for_members: Vec<TcpListener>,
    /// A connection may be waiting.
    ready: bool,
    /// Not before this, after accepting failed.
    after: Mono,
}

impl Listeners {
    /// Watches them under `first_token` and the tokens that follow.
    pub(super) fn register(
        mut for_clients: Vec<TcpListener>,
        mut for_members: Vec<TcpListener>,
        registry: &Registry,
        first_token: usize,
    ) -> std::io::Result<Listeners> {
        for (number, listener) in for_clients.iter_mut().chain(&mut for_members).enumerate() {
            registry.register(listener, Token(first_token + number), Interest::READABLE)?;
        }
        Ok(Listeners { for_clients, for_members, ready: true, after: Mono(0) })
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
        let clients = self.for_clients.iter().map(|one| (one, Accepted::Client as fn(_) -> _, CLIENTS_MAX));
        let members = self.for_members.iter().map(|one| (one, Accepted::Member as fn(_) -> _, MEMBERS_MAX));
        for (listener, kind, most) in clients.chain(members) {
            match take(listener, kind, most, &mut accepted) {
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
        for listener in std::mem::take(&mut self.for_clients) {
            // Whatever ends this, the socket is closed.
            while let Ok(false) = take(&listener, Accepted::Client, CLIENTS_MAX, &mut accepted) {}
        }
        accepted
    }
}

/// True if the listener's queue is empty now.
fn take(
    listener: &TcpListener,
    kind: fn(TcpStream) -> Accepted,
    most: usize,
    accepted: &mut Vec<Accepted>,
) -> std::io::Result<bool> {
    for _ in 0..most {
        match listener.accept() {
            Ok((stream, _)) => accepted.push(kind(stream)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}
