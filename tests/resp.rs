//! A client of the line protocol for tests: blocking, RESP2 (and what RESP3 has more), every wait bounded. Written apart from the
//! product's own encoder, so that the two do not share a mistake.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply as the wire has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    /// The whole line, code first.
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Reply>),
}

impl Reply {
    pub fn integer(&self) -> i64 {
        match self {
            Reply::Integer(number) => *number,
            other => panic!("expected an integer, got {other:?}"),
        }
    }

    pub fn bulk(&self) -> &[u8] {
        match self {
            Reply::Bulk(bytes) => bytes,
            other => panic!("expected a bulk string, got {other:?}"),
        }
    }

    pub fn array(&self) -> &[Reply] {
        match self {
            Reply::Array(items) => items,
            other => panic!("expected an array, got {other:?}"),
        }
    }

    /// A map in RESP2 is an array of names and values in turn.
    pub fn field(&self, name: &str) -> &Reply {
        let pair = self.array().chunks(2).find(|pair| pair[0].text() == name);
        pair.map(|pair| &pair[1]).unwrap_or_else(|| panic!("no field {name} in {self:?}"))
    }

    /// A name or a line of text.
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) | Reply::Error(text) => text.clone(),
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("expected text, got {other:?}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// The first word of an error, or nothing.
    pub fn code(&self) -> Option<&str> {
        match self {
            Reply::Error(line) => line.split(' ').next(),
            _ => None,
        }
    }
}

/// One key as `RANGE` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub created: u64,
    pub modified: u64,
    pub version: u64,
}

/// The answer to `RANGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    pub revision: u64,
    pub count: u64,
    pub kvs: Vec<KeyValue>,
}

impl RangeReply {
    pub fn parse(reply: &Reply) -> RangeReply {
        let kv = |kv: &Reply| {
            let words = kv.array();
            assert_eq!(words.len(), 6, "a kv has six parts: {kv:?}");
            KeyValue {
                key: words[0].bulk().to_vec(),
                value: if words[1] == Reply::Null { Vec::new() } else { words[1].bulk().to_vec() },
                created: unsigned(&words[2]),
                modified: unsigned(&words[3]),
                version: unsigned(&words[4]),
            }
        };
        RangeReply {
            revision: unsigned(reply.field("revision")),
            count: unsigned(reply.field("count")),
            kvs: reply.field("kvs").array().iter().map(kv).collect(),
        }
    }
}

pub fn unsigned(reply: &Reply) -> u64 {
    u64::try_from(reply.integer()).expect("revisions and counts are not negative")
}

/// One connection. After an error of any call it must be dropped: what arrives next is anybody's guess.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// A connection to a server on loopback; every later wait is bounded by `patience`.
    pub fn connect(port: u16, patience: Duration) -> Result<Client> {
        Client::connect_to(([127, 0, 0, 1], port).into(), patience)
    }

    pub fn connect_to(address: SocketAddr, patience: Duration) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client { stream: BufReader::with_capacity(64 << 10, stream) })
    }

    /// Sends one command as an array of bulk strings and waits for its reply.
    pub fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Reply> {
        self.send_raw(&encode(words))?;
        self.receive()
    }

    /// Sends all commands at once, then reads as many replies.
    pub fn pipeline<W: AsRef<[u8]>>(&mut self, commands: &[Vec<W>]) -> Result<Vec<Reply>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.receive()).collect()
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next reply. Only a server that lies about lengths gets an error other than a lost connection.
    pub fn receive(&mut self) -> Result<Reply> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let (kind, rest) = line
            .strip_suffix("\r\n")
            .and_then(|line| line.split_at_checked(1))
            .ok_or_else(|| strange(&line))?;
        let number = || rest.parse::<i64>().map_err(|_| strange(&line));
        Ok(match kind {
            "+" => Reply::Simple(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Integer(number()?),
            "$" | "*" if number()? < 0 => Reply::Null,
            "$" => {
                let mut bytes = vec![0; usize::try_from(number()?).expect("not negative") + 2];
                self.stream.read_exact(&mut bytes)?;
                if !bytes.ends_with(b"\r\n") {
                    return Err(strange(&line));
                }
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            "*" | ">" => Reply::Array((0..number()?).map(|_| self.receive()).collect::<Result<_>>()?),
            // RESP3: a map is as many pairs, and as an array in RESP2.
            "%" => Reply::Array((0..2 * number()?).map(|_| self.receive()).collect::<Result<_>>()?),
            "_" => Reply::Null,
            "#" => Reply::Integer(i64::from(rest == "t")),
            _ => return Err(strange(&line)),
        })
    }

    /// Whether something came that was not asked for, or the end: a pool that looks takes another connection then.
    pub fn is_stale(&self) -> bool {
        let socket = self.stream.get_ref();
        socket.set_nonblocking(true).unwrap();
        let found = socket.peek(&mut [0]);
        socket.set_nonblocking(false).unwrap();
        !self.stream.buffer().is_empty() || !found.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    /// Everything until the server closes the connection.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }
}

pub fn encode<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn strange(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not RESP2: {line:?}"))
}
