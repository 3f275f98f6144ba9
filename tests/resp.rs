//! A client of the line protocol for tests: blocking, RESP2, every wait bounded. Written apart from the
//! product's own encoder, so that the two do not share a mistake.

use std::io::{Error, ErrorKind, Read, Result, Write};
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
    stream: TcpStream,
    input: Vec<u8>,
    taken: usize,
}

impl Client {
    /// A connection to a server on loopback; every later wait is bounded by `patience`.
    pub fn connect(port: u16, patience: Duration) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client { stream, input: Vec::new(), taken: 0 })
    }

    /// Sends one command as an array of bulk strings and waits for its reply.
    pub fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    pub fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<()> {
        self.send_raw(&encode(words))
    }

    /// Sends all commands at once, then reads as many replies.
    pub fn pipeline<W: AsRef<[u8]>>(&mut self, commands: &[Vec<W>]) -> Result<Vec<Reply>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.receive()).collect()
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn receive(&mut self) -> Result<Reply> {
        loop {
            let mut at = self.taken;
            if let Some(reply) = parse(&self.input, &mut at)? {
                self.taken = at;
                if self.taken == self.input.len() {
                    self.input.clear();
                    self.taken = 0;
                }
                return Ok(reply);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        self.input.drain(..std::mem::take(&mut self.taken));
        self.input.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    /// Everything until the server closes the connection.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        let mut rest = self.input.split_off(std::mem::take(&mut self.taken));
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

/// One reply from `input[*at..]`; None until it is whole. Only a server that lies about lengths gets an error.
fn parse(input: &[u8], at: &mut usize) -> Result<Option<Reply>> {
    let Some(length) = input[*at..].windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&input[*at..*at + length]).into_owned();
    *at += length + 2;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| strange(&line))?;
    let number = || rest.parse::<i64>().map_err(|_| strange(&line));
    Ok(Some(match kind {
        "+" => Reply::Simple(rest.into()),
        "-" => Reply::Error(rest.into()),
        ":" => Reply::Integer(number()?),
        "$" | "*" if number()? < 0 => Reply::Null,
        "$" => {
            let length = usize::try_from(number()?).expect("not negative");
            let Some(bytes) = input.get(*at..*at + length + 2) else { return Ok(None) };
            if !bytes.ends_with(b"\r\n") {
                return Err(strange(&line));
            }
            *at += length + 2;
            Reply::Bulk(bytes[..length].to_vec())
        }
        "*" => {
            let mut items = Vec::new();
            for _ in 0..number()? {
                match parse(input, at)? {
                    Some(item) => items.push(item),
                    None => return Ok(None),
                }
            }
            Reply::Array(items)
        }
        _ => return Err(strange(&line)),
    }))
}

fn strange(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not RESP2: {line:?}"))
}
