//! The client's half of RESP over one blocking connection. A server's bytes are as untrusted as a client's:
//! lengths are bounded, nothing is allocated from a length alone, and nesting is bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::base::limits;
use crate::base::time::{MS, Mono, Nanos};
use crate::io::Clock;
use crate::io::os::OsClock;

/// One reply or part of it. A RESP3 map is an array of keys and values in turn, as in RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
}

/// Arrays within arrays: no reply to this client goes beyond six.
const DEPTH_MAX: usize = 16;
/// A line of the protocol itself: a length, a number, an error text.
const LINE_BYTES_MAX: usize = limits::INLINE_BYTES_MAX;
/// One string. Values are bounded by the request limit, and so is what a server stores.
const BULK_BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
const READ_BYTES: usize = 64 << 10;

/// A request as an array of bulk strings, at the end of `out`.
pub fn put_request(words: &[Vec<u8>], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// One connection and the time until which it may take.
pub struct Connection {
    stream: TcpStream,
    deadline: Mono,
    input: Vec<u8>,
    /// How much of `input` has been consumed.
    used: usize,
}

impl Connection {
    /// Connects within `dial_timeout` and never after `deadline`.
    pub fn open(address: SocketAddr, dial_timeout: Nanos, deadline: Mono) -> io::Result<Connection> {
        let timeout = left(deadline)?.min(Duration::from_nanos(dial_timeout.max(MS)));
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, deadline, input: Vec::new(), used: 0 })
    }

    /// From now on it may take until `deadline`.
    pub fn set_deadline(&mut self, deadline: Mono) {
        self.deadline = deadline;
    }

    /// Waits until something has come that has not been consumed.
    pub fn wait_for_bytes(&mut self) -> io::Result<()> {
        while self.used == self.input.len() {
            self.fill()?;
        }
        Ok(())
    }

    pub fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(left(self.deadline)?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(expiry(error)),
            }
        }
        Ok(())
    }

    /// The next reply. An error of kind `InvalidData` means that the bytes are not RESP.
    pub fn receive(&mut self) -> io::Result<Value> {
        /// An array whose elements are still coming.
        struct Open {
            missing: usize,
            values: Vec<Value>,
        }
        let mut stack: Vec<Open> = Vec::new();
        loop {
            let mut value = match self.receive_part()? {
                Part::Whole(value) => value,
                Part::Array(0) => Value::Array(Vec::new()),
                Part::Array(missing) => {
                    if stack.len() == DEPTH_MAX {
                        return Err(invalid(format!("a reply nested deeper than {DEPTH_MAX}")));
                    }
                    stack.push(Open { missing, values: Vec::new() });
                    continue;
                }
            };
            // A value may complete its array, and that one the next.
            loop {
                let Some(mut open) = stack.pop() else { return Ok(value) };
                open.values.push(value);
                open.missing -= 1;
                if open.missing > 0 {
                    stack.push(open);
                    break;
                }
                value = Value::Array(open.values);
            }
        }
    }

    fn receive_part(&mut self) -> io::Result<Part> {
        let line = self.line()?;
        let Some((&kind, rest)) = line.split_first() else { return Err(invalid("an empty line".into())) };
        let text = String::from_utf8_lossy(rest).into_owned();
        let number = || text.parse::<i64>().map_err(|_| invalid(format!("{text:?} where a number is due")));
        Ok(match kind {
            b'+' => Part::Whole(Value::Simple(text)),
            b'-' => Part::Whole(Value::Error(text)),
            b':' => Part::Whole(Value::Integer(number()?)),
            b'_' => Part::Whole(Value::Null),
            b'#' => Part::Whole(Value::Integer(i64::from(text == "t"))),
            b'$' | b'=' => match number()? {
                -1 => Part::Whole(Value::Null),
                length => Part::Whole(Value::Bulk(self.bulk(length)?)),
            },
            b'*' | b'~' | b'>' | b'%' => match number()? {
                -1 => Part::Whole(Value::Null),
                count => {
                    let count = usize::try_from(count)
                        .ok()
                        .and_then(|n| n.checked_mul(1 + usize::from(kind == b'%')));
                    Part::Array(count.ok_or_else(|| invalid(format!("an array of {text} elements")))?)
                }
            },
            _ => return Err(invalid(format!("{:?} is not a reply", String::from_utf8_lossy(&line)))),
        })
    }

    /// The next line without its CRLF.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let rest = &self.input[self.used..];
            if let Some(at) = rest[searched..].windows(2).position(|pair| pair == b"\r\n") {
                let line = rest[..searched + at].to_vec();
                self.used += line.len() + 2;
                return Ok(line);
            }
            searched = rest.len().saturating_sub(1);
            if searched > LINE_BYTES_MAX {
                return Err(invalid(format!("a line longer than {LINE_BYTES_MAX} bytes")));
            }
            self.fill()?;
        }
    }

    fn bulk(&mut self, length: i64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= BULK_BYTES_MAX);
        let length = length.ok_or_else(|| invalid("a string longer than any value can be".into()))?;
        while self.input.len() - self.used < length + 2 {
            self.fill()?;
        }
        let bytes = self.input[self.used..self.used + length].to_vec();
        if &self.input[self.used + length..self.used + length + 2] != b"\r\n" {
            return Err(invalid("a string that does not end where it said".into()));
        }
        self.used += length + 2;
        Ok(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.used >= READ_BYTES {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        let old = self.input.len();
        self.input.resize(old + READ_BYTES, 0);
        let read = self.stream.read(&mut self.input[old..]);
        self.input.truncate(old + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(expiry(error)),
            _ => Ok(()),
        }
    }
}

enum Part {
    Whole(Value),
    Array(usize),
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A socket whose timeout has run out says "try again"; say what it means.
fn expiry(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

fn left(deadline: Mono) -> io::Result<Duration> {
    match deadline.since(OsClock.now()) {
        0 => Err(ErrorKind::TimedOut.into()),
        nanos => Ok(Duration::from_nanos(nanos)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::base::time::SECOND;

    /// What the client makes of bytes that a server sends before it closes.
    fn receive(bytes: &[u8]) -> io::Result<Value> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let deadline = OsClock.now() + 10 * SECOND;
        let mut connection = Connection::open(listener.local_addr().unwrap(), SECOND, deadline).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(bytes).unwrap();
        drop(server);
        connection.receive()
    }

    #[test]
    fn replies() {
        use Value::{Array, Bulk, Error, Integer, Null, Simple};
        assert_eq!(receive(b"+OK\r\n").unwrap(), Simple("OK".into()));
        assert_eq!(receive(b"-ERR no\r\n").unwrap(), Error("ERR no".into()));
        assert_eq!(receive(b"$4\r\na\r\nb\r\n").unwrap(), Bulk(b"a\r\nb".to_vec()));
        assert_eq!(receive(b"$-1\r\n").unwrap(), Null);
        assert_eq!(
            receive(b"*3\r\n*2\r\n:1\r\n*0\r\n%1\r\n+a\r\n_\r\n:-7\r\n").unwrap(),
            Array(vec![
                Array(vec![Integer(1), Array(vec![])]),
                Array(vec![Simple("a".into()), Null]),
                Integer(-7)
            ])
        );
        let big = vec![b'x'; 300_000];
        let mut wire = Vec::new();
        put_request(&[big.clone(), b"y".to_vec()], &mut wire);
        assert_eq!(receive(&wire).unwrap(), Array(vec![Bulk(big), Bulk(b"y".to_vec())]));
    }

    #[test]
    fn bytes_that_are_no_reply() {
        let nested = "*1\r\n".repeat(DEPTH_MAX + 1);
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$999999999999\r\n",
            b"$1\r\nabc\r\n",
            b"*-2\r\n",
            nested.as_bytes(),
        ] {
            let error = receive(bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{:?}: {error}", String::from_utf8_lossy(bytes));
        }
        for cut in [&b""[..], b"+OK", b"$3\r\nab", b"*2\r\n:1\r\n", b"%9223372036854775807\r\n"] {
            assert_eq!(receive(cut).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }
}
