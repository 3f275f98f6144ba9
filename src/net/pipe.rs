//! One TCP connection's bytes, both ways: what was read and not yet understood, what was said and not yet
//! sent. Sockets are edge-triggered, so what was seen ready is remembered until it would block.
//!
//! The system calls are made past the C library, which brackets each with a point at which the thread could be cancelled.

use std::net::Shutdown;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// The loop reads through one buffer of this size, so that ten thousand silent connections hold none.
pub(super) const READ_BYTES: usize = 256 << 10;

/// An emptied buffer that has grown beyond this is given back.
const KEEP_BYTES: usize = 16 << 10;

/// Between members: a silent connection is probed after this, and this often.
const PROBE_AFTER: Duration = Duration::from_secs(2);
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Between members: a connection on which nothing is acknowledged for so long is over.
const SILENCE_MAX_MS: u32 = 5_000;

pub(super) struct Pipe {
    pub(super) stream: TcpStream,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    readable: bool,
    /// The poll has said that the other side will send no more.
    read_closed: bool,
    writable: bool,
    output_ended: bool,
    /// The other side will send no more.
    pub(super) ended: bool,
    /// Nothing more can be sent or received.
    pub(super) broken: bool,
    /// Since somebody last asked.
    traffic: Traffic,
}

/// Bytes that went through a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

impl Pipe {
    pub(super) fn new(stream: TcpStream) -> Pipe {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Pipe {
            stream,
            input,
            output,
            readable: false,
            read_closed: false,
            writable: true,
            output_ended: false,
            ended: false,
            broken: false,
            traffic: Traffic::default(),
        }
    }

    /// What went through since the last call.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// A connection between members: small messages leave at once, and a machine that fell silent is noticed. Otherwise
    /// only the kernel would, after a quarter of an hour. A failure here makes either only later.
    pub(super) fn between_members(stream: TcpStream) -> Pipe {
        use rustix::net::sockopt;
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let _ = sockopt::set_tcp_keepidle(&stream, PROBE_AFTER);
        let _ = sockopt::set_tcp_keepintvl(&stream, PROBE_EVERY);
        // Counts for probes too, whatever their number.
        let _ = sockopt::set_tcp_user_timeout(&stream, SILENCE_MAX_MS);
        Pipe::new(stream)
    }

    /// A socket that is still connecting takes no bytes: the first writable event says when.
    pub(super) fn wait_until_writable(&mut self) {
        self.writable = false;
    }

    pub(super) fn on_event(&mut self, event: &mio::event::Event) {
        self.read_closed |= event.is_read_closed();
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
    }

    /// As if the poll had said so.
    #[cfg(test)]
    pub(super) fn assume_readable(&mut self) {
        self.readable = true;
    }

    /// Whether a read may yield something.
    pub(super) fn is_readable(&self) -> bool {
        self.readable && !self.ended && !self.broken
    }

    /// One read. How many bytes came.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        loop {
            match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count) {
                Ok(0) => {
                    self.ended = true;
                    return 0;
                }
                Ok(count) => {
                    // A short read has emptied the socket: the next byte makes a new event. But an end that came with the last
                    // bytes has had its event.
                    self.readable = count == buffer.len() || self.read_closed;
                    self.input.extend_from_slice(&buffer[..count]);
                    self.traffic.received_bytes += count as u64;
                    return count;
                }
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return 0;
                }
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.broken = true;
                    return 0;
                }
            }
        }
    }

    /// No more will be sent. The other side may still send.
    pub(super) fn end_output(&mut self) {
        if !self.output_ended {
            self.output_ended = true;
            // Refused only where the connection is gone already.
            self.broken |= self.stream.shutdown(Shutdown::Write).is_err();
        }
    }

    /// Sends as much as the socket takes. True if some of it is left.
    pub(super) fn flush(&mut self) -> bool {
        self.send(SendFlags::empty())
    }

    /// The same for the last that is sent: the end of it travels in the same packet, so that whoever has read it
    /// knows. [`end_output`](Self::end_output) must follow when nothing is left.
    pub(super) fn flush_last(&mut self) -> bool {
        self.send(SendFlags::MORE)
    }

    fn send(&mut self, flags: SendFlags) -> bool {
        while !self.output.is_empty() && self.writable && !self.broken {
            match rustix::net::send(&self.stream, &self.output, flags | SendFlags::NOSIGNAL) {
                Ok(0) => self.broken = true,
                Ok(count) => {
                    self.output.advance(count);
                    self.traffic.sent_bytes += count as u64;
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => self.broken = true,
            }
        }
        if self.output.is_empty() && self.output.capacity() > KEEP_BYTES {
            self.output = BytesMut::new();
        }
        if self.input.is_empty() && self.input.capacity() > KEEP_BYTES {
            self.input = BytesMut::new();
        }
        !self.output.is_empty()
    }
}
