//! One connection of a generator: bytes that wait to be sent, and what has come.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mio::{Interest, Registry, Token};

use super::replies::{Replies, Reply};

const READ_BYTES: usize = 64 << 10;

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    stream: mio::net::TcpStream,
    /// Bytes that are still to send, from `written` on.
    pub(super) output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    /// Of `input`, what was taken.
    used: usize,
    replies: Replies,
    /// Nothing more comes or goes.
    pub(super) lost: bool,
}

impl Connection {
    /// Connects, and is told of readiness under `token`.
    pub(super) fn open(address: SocketAddr, registry: &Registry, token: usize) -> Result<Connection> {
        let named = |e: Error| Error::new(e.kind(), format!("{address}: {e}"));
        let stream = TcpStream::connect_timeout(&address, DIAL_TIMEOUT).map_err(named)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection {
            stream,
            output: Vec::new(),
            written: 0,
            input: Vec::new(),
            used: 0,
            replies: Replies::default(),
            lost: false,
        })
    }

    /// Sends as much as the socket takes.
    pub(super) fn flush(&mut self) {
        while self.written < self.output.len() && !self.lost {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => self.lost = true,
                Ok(count) => self.written += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.lost = true,
            }
        }
        self.output.clear();
        self.written = 0;
    }

    /// Reads once what the socket has, in `chunk`. True: there may be more.
    pub(super) fn fill(&mut self, chunk: &mut [u8]) -> bool {
        loop {
            match self.stream.read(chunk) {
                Ok(0) => self.lost = true,
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    return count == chunk.len();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.lost = true,
            }
            return false;
        }
    }

    /// The next reply or push of what has come.
    pub(super) fn next_reply(&mut self) -> Result<Option<Reply>> {
        let reply = self.replies.next(&self.input, &mut self.used)?;
        if reply.is_none() {
            self.input.drain(..self.used);
            self.used = 0;
        }
        Ok(reply)
    }
}

/// Room for [`Connection::fill`].
pub(super) fn chunk() -> Vec<u8> {
    vec![0; READ_BYTES]
}
