//! Frames between members.
//!
//! A connection between two members carries frames in both directions, back to back:
//!
//! ```text
//!  0        4      5          8        12
//!  +--------+------+----------+--------+------------------+
//!  | length | kind | 0, 0, 0  |  crc   | body             |
//!  +--------+------+----------+--------+------------------+
//!    u32      u8     reserved   u32      length bytes
//! ```
//!
//! Integers are little-endian. The checksum (CRC-32/IEEE) covers the first 8 bytes and the body: TCP's own
//! 16 bits let about one damaged segment in 65,536 through, and an entry that was damaged on its way would be
//! made durable under a fresh, valid checksum of the log. Inside a body, a blob is a u32 length and its bytes.
//!
//! Somebody who is to join a running cluster sends `AskMembers` instead of a greeting, and gets `Members`.
//!
//! The first frame of each direction is `Hello` (from who dials) and `Welcome` or `Refused` (the answer).
//! Both begin with the version of everything that follows, so that members of different releases can tell
//! each other what is wrong. Until these are through, [`HELLO_BYTES_MAX`] bounds what a stranger can make us
//! hold; after that [`limits::FRAME_BYTES_MAX`].
//!
//! Decoding is the gate of the consensus core: what comes out has been checked for everything that can be
//! seen without knowing the state (lengths, kinds, gaps in the entries, terms that fall), and the payloads of
//! entries are slices of the received buffer. A fault here means that the other side is broken or is no
//! member: the connection is closed, and nothing of the frame has been acted on.
//!
//! Left out: compression (members share a network), authentication (that is TLS's task), and negotiation of
//! features (a later version of this protocol will bring it with itself: version 1 knows none).

mod call;
mod members;
mod message;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};

use crate::api::{Code, Fault, Member, PeerCall};
use crate::base::codec::Short;
use crate::base::crc::{crc32, crc32_from};
use crate::base::time::Nanos;
use crate::base::{ClusterId, MemberId, Reader, Writer, limits};
use crate::raft::types::Message;

pub use call::encode_call;
pub use message::encode_message;

/// The version that this program speaks.
pub const VERSION: u16 = 1;

/// The largest body before the greeting is through.
pub const HELLO_BYTES_MAX: usize = 4096;

/// Length, kind, reserved, checksum.
pub const HEAD_BYTES: usize = 12;

/// A refusal is cut here: it is a line for a log.
const WHY_BYTES_MAX: usize = 1024;

const KIND_HELLO: u8 = 1;
const KIND_WELCOME: u8 = 2;
const KIND_REFUSED: u8 = 3;
const KIND_RAFT: u8 = 4;
const KIND_CALL: u8 = 5;
const KIND_ASK_MEMBERS: u8 = 6;
const KIND_MEMBERS: u8 = 7;

/// The refusal of a member that was removed; it stops when it reads this.
pub const WHY_REMOVED: &str = "the member has been permanently removed from the cluster";

/// What one member tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The dialling member says who it is and whom it wants.
    Hello(Hello),
    /// The other one is who was wanted, and will listen.
    Welcome(Hello),
    /// It will not, and closes the connection. One line for the log of the one who dialled.
    Refused {
        why: String,
    },
    Raft(Message),
    Call(PeerCall),
    /// Instead of a greeting, from somebody who is to join and knows neither the cluster's id nor its own.
    AskMembers,
    Members {
        cluster: ClusterId,
        members: Vec<Member>,
    },
}

/// Who greets whom. The receiver checks all of it against its own: a wrong cluster or member means that
/// an address has been given to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u16,
    pub cluster: ClusterId,
    pub from: MemberId,
    pub to: MemberId,
    /// For how long the sender promises to elect nobody when it hears from a leader. A leader must know before it
    /// counts the first answer: settings differ between members while an operator changes them.
    pub promise: Nanos,
}

impl Hello {
    pub fn new(cluster: ClusterId, from: MemberId, to: MemberId, promise: Nanos) -> Hello {
        Hello { version: VERSION, cluster, from, to, promise }
    }
}

/// Appends one frame. Entries and payloads are copied into `out`; to send what is borrowed, see
/// [`encode_message`] and [`encode_call`].
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Hello(hello) => framed(KIND_HELLO, out, |out| put_hello(hello, out)),
        Frame::Welcome(hello) => framed(KIND_WELCOME, out, |out| put_hello(hello, out)),
        Frame::Refused { why } => framed(KIND_REFUSED, out, |out| {
            let mut end = why.len().min(WHY_BYTES_MAX);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            let line: String = why[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            out.put_blob(line.as_bytes());
        }),
        Frame::Raft(message) => encode_message(message, out),
        Frame::Call(call) => encode_call(call, out),
        Frame::AskMembers => framed(KIND_ASK_MEMBERS, out, |out| out.put_u16_le(VERSION)),
        Frame::Members { cluster, members } => framed(KIND_MEMBERS, out, |out| {
            out.put_u16_le(VERSION);
            out.put_u64_le(*cluster);
            members::put(members, out);
        }),
    }
}

/// Takes one frame from the front of `input`; None until it is whole. Payloads are slices of the buffer.
pub fn decode(input: &mut BytesMut) -> Result<Option<Frame>, Fault> {
    decode_bounded(input, limits::FRAME_BYTES_MAX)
}

/// [`decode`] for a connection whose greeting is not through: frames above [`HELLO_BYTES_MAX`] are refused by
/// their first four bytes.
pub fn decode_greeting(input: &mut BytesMut) -> Result<Option<Frame>, Fault> {
    decode_bounded(input, HELLO_BYTES_MAX)
}

fn decode_bounded(input: &mut BytesMut, body_bytes_max: usize) -> Result<Option<Frame>, Fault> {
    let Some(&length) = input.first_chunk::<4>() else { return Ok(None) };
    let body_bytes = u32::from_le_bytes(length) as usize;
    if body_bytes > body_bytes_max {
        return Err(malformed(format!(
            "a frame of {body_bytes} bytes, of which {body_bytes_max} are allowed"
        )));
    }
    if input.len() < HEAD_BYTES + body_bytes {
        return Ok(None);
    }
    let frame = input.split_to(HEAD_BYTES + body_bytes).freeze();
    let mut head = Reader::new(&frame[4..HEAD_BYTES]);
    let (kind, reserved, expected) = (head.u8()?, head.array::<3>()?, head.u32()?);
    let body = frame.slice(HEAD_BYTES..);
    let found = crc32_from(crc32(&frame[..8]), &body);
    if found != expected {
        return Err(malformed(format!(
            "a frame of kind {kind} and {body_bytes} bytes: checksum {found:08x}, its head says {expected:08x}"
        )));
    }
    if reserved != [0; 3] {
        return Err(malformed(format!("reserved bytes {reserved:?}; version {VERSION} sends zeros")));
    }
    let mut reader = Body::new(&body);
    let decoded = match kind {
        KIND_HELLO => Frame::Hello(take_hello(&mut reader)?),
        KIND_WELCOME => Frame::Welcome(take_hello(&mut reader)?),
        KIND_REFUSED => Frame::Refused { why: take_why(&mut reader)? },
        KIND_RAFT => Frame::Raft(message::take(&mut reader)?),
        KIND_CALL => Frame::Call(call::take(&mut reader)?),
        KIND_ASK_MEMBERS => {
            take_version(&mut reader)?;
            Frame::AskMembers
        }
        KIND_MEMBERS => {
            take_version(&mut reader)?;
            Frame::Members { cluster: reader.u64()?, members: members::take(&mut reader)? }
        }
        other => {
            return Err(malformed(format!("frame kind {other}, which version {VERSION} does not know")));
        }
    };
    if reader.left() > 0 {
        return Err(malformed(format!("{} bytes behind the end of a frame of kind {kind}", reader.left())));
    }
    Ok(Some(decoded))
}

fn put_hello(hello: &Hello, out: &mut BytesMut) {
    out.put_u16_le(hello.version);
    out.put_u64_le(hello.cluster);
    out.put_u64_le(hello.from);
    out.put_u64_le(hello.to);
    out.put_u64_le(hello.promise);
}

fn take_hello(body: &mut Body<'_>) -> Result<Hello, Fault> {
    let version = take_version(body)?;
    Ok(Hello { version, cluster: body.u64()?, from: body.u64()?, to: body.u64()?, promise: body.u64()? })
}

fn take_version(body: &mut Body<'_>) -> Result<u16, Fault> {
    let version = body.u16()?;
    if version != VERSION {
        return Err(malformed(format!(
            "version {version} of the protocol between members; this program speaks {VERSION}: \
             upgrade the older member"
        )));
    }
    Ok(version)
}

/// It will stand in a log: one line, and no terminal is told anything by it.
fn take_why(body: &mut Body<'_>) -> Result<String, Fault> {
    let why = body.plain_blob()?;
    match std::str::from_utf8(why) {
        Ok(line) if why.len() <= WHY_BYTES_MAX && !line.contains(char::is_control) => Ok(line.to_string()),
        _ => Err(malformed(format!("a refusal whose {} bytes are no line of text", why.len()))),
    }
}

/// Writes a head, the body, and then what of the head depends on the body.
fn framed(kind: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&[0, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0]);
    body(out);
    let body_bytes = out.len() - start - HEAD_BYTES;
    assert!(
        body_bytes <= limits::FRAME_BYTES_MAX,
        "a frame of {body_bytes} bytes would be refused by its receiver: whoever builds batches must cut them"
    );
    let length = u32::try_from(body_bytes).expect("checked against a bound below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    let crc = crc32_from(crc32(&out[start..start + 8]), &out[start + HEAD_BYTES..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

fn malformed(what: String) -> Fault {
    Fault::new(Code::Err, format!("peer protocol: {what}"))
}

impl From<Short> for Fault {
    fn from(short: Short) -> Fault {
        malformed(format!("a field of {} bytes where {} are left", short.wanted_bytes, short.left_bytes))
    }
}

/// Reads one body. Numbers are read in place; blobs become slices that share the received buffer.
struct Body<'a> {
    shared: &'a Bytes,
    reader: Reader<'a>,
}

impl<'a> Body<'a> {
    fn new(shared: &'a Bytes) -> Body<'a> {
        Body { shared, reader: Reader::new(shared) }
    }

    fn left(&self) -> usize {
        self.reader.left()
    }

    fn u8(&mut self) -> Result<u8, Short> {
        self.reader.u8()
    }

    fn u16(&mut self) -> Result<u16, Short> {
        self.reader.u16()
    }

    fn u64(&mut self) -> Result<u64, Short> {
        self.reader.u64()
    }

    fn bool(&mut self) -> Result<bool, Fault> {
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(malformed(format!("{other} where 0 or 1 must stand"))),
        }
    }

    fn plain_blob(&mut self) -> Result<&'a [u8], Short> {
        self.reader.blob()
    }

    fn blob(&mut self) -> Result<Bytes, Short> {
        let blob = self.reader.blob()?;
        Ok(if blob.is_empty() { Bytes::new() } else { self.shared.slice_ref(blob) })
    }

    /// A count of things that take at least `bytes_each`: what cannot be there is refused before a vector is
    /// made for it.
    fn count(&mut self, bytes_each: usize) -> Result<usize, Fault> {
        let count = self.reader.u32()? as usize;
        if count > self.reader.left() / bytes_each {
            return Err(malformed(format!(
                "a count of {count} where the {} bytes left hold {} at most",
                self.reader.left(),
                self.reader.left() / bytes_each
            )));
        }
        Ok(count)
    }
}
