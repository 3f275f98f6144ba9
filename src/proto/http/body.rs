//! What follows a head: so many bytes, or chunks (RFC 9112 §7.1).

use bytes::{Buf, BytesMut};

use super::head::{Length, Refusal, refuse};

/// Of the line in front of a chunk, its extensions included. Nobody sends any.
const SIZE_LINE_BYTES_MAX: usize = 256;

/// Of all fields behind the last chunk. They are passed over.
const TRAILER_BYTES_MAX: usize = 8 << 10;

/// A body as it arrives.
#[derive(Debug)]
pub(super) struct Body {
    part: Part,
    /// How much may still come.
    left_max: u64,
}

#[derive(Debug)]
enum Part {
    /// So much is still to come, and then the request is whole.
    Bytes(u64),
    ChunkSize,
    /// So much of a chunk.
    Chunk(u64),
    ChunkEnd,
    /// Of the fields behind the last chunk so much has come.
    Trailer(usize),
}

impl Body {
    /// A body longer than `max` bytes is refused: at once if it says so itself.
    pub(super) fn new(length: Length, max: u64) -> Result<Body, Refusal> {
        let part = match length {
            Length::Bytes(bytes) if bytes > max => return Err(too_large()),
            Length::Bytes(bytes) => Part::Bytes(bytes),
            Length::Chunked => Part::ChunkSize,
        };
        Ok(Body { part, left_max: max })
    }

    /// Takes what has arrived off the front of `input`, and hands the bytes of the body to `sink`. True behind the end.
    pub(super) fn take(
        &mut self,
        input: &mut BytesMut,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, Refusal> {
        loop {
            match &mut self.part {
                Part::Bytes(left) => {
                    take_some(left, input, sink);
                    return Ok(*left == 0);
                }
                Part::Chunk(left) => {
                    take_some(left, input, sink);
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.part = Part::ChunkEnd;
                }
                Part::ChunkSize => {
                    let Some(line) = take_line(input, SIZE_LINE_BYTES_MAX)? else { return Ok(false) };
                    let bytes = chunk_size(&line)?;
                    self.left_max = self.left_max.checked_sub(bytes).ok_or_else(too_large)?;
                    self.part = if bytes == 0 { Part::Trailer(0) } else { Part::Chunk(bytes) };
                }
                Part::ChunkEnd => match &input[..] {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.part = Part::ChunkSize;
                    }
                    [] | [b'\r'] => return Ok(false),
                    _ => return Err(refuse(400, "a chunk is longer than it says")),
                },
                Part::Trailer(bytes) => {
                    let rest = TRAILER_BYTES_MAX - *bytes;
                    let Some(line) = take_line(input, rest)? else { return Ok(false) };
                    if line.is_empty() {
                        return Ok(true);
                    }
                    *bytes += line.len();
                }
            }
        }
    }
}

const fn too_large() -> Refusal {
    refuse(413, "the body of the request is too large")
}

fn take_some(left: &mut u64, input: &mut BytesMut, sink: &mut dyn FnMut(&[u8])) {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    sink(&input[..count]);
    input.advance(count);
    *left -= count as u64;
}

/// A line without its end, which is CRLF. None while it has none and may still be as short as it must.
fn take_line(input: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, Refusal> {
    let window = &input[..input.len().min(bytes_max + 2)];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(at) if at > 0 && input[at - 1] == b'\r' => {
            let mut line = input.split_to(at + 1);
            line.truncate(at - 1);
            Ok(Some(line))
        }
        Some(_) => Err(refuse(400, "a line ends with CR and LF")),
        None if window.len() == bytes_max + 2 => Err(refuse(400, "a line of a chunk is too long")),
        None => Ok(None),
    }
}

/// Only hexadecimal digits, and then perhaps extensions: what one reader takes for a sign or a space, another
/// one does not.
fn chunk_size(line: &[u8]) -> Result<u64, Refusal> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let number = std::str::from_utf8(digits).ok().filter(|_| valid);
    number
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(refuse(400, "the size of a chunk is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, and what is left behind it. None: more must come.
    type Outcome = Result<Option<(Vec<u8>, Vec<u8>)>, u16>;

    /// The same however it arrives.
    fn read(length: Length, max: u64, wire: &[u8]) -> Outcome {
        let by = |piece: usize| {
            let mut body = Body::new(length, max).map_err(|refusal| refusal.status)?;
            let (mut input, mut whole) = (BytesMut::new(), Vec::new());
            for (at, part) in wire.chunks(piece).enumerate() {
                input.extend_from_slice(part);
                let done = body.take(&mut input, &mut |bytes| whole.extend_from_slice(bytes));
                if done.map_err(|refusal| refusal.status)? {
                    input.extend_from_slice(&wire[wire.len().min((at + 1) * piece)..]);
                    return Ok(Some((whole, input.to_vec())));
                }
            }
            Ok(None)
        };
        let at_once = by(wire.len().max(1));
        for piece in 1..wire.len() {
            assert_eq!(by(piece), at_once, "{} in pieces of {piece}", wire.escape_ascii());
        }
        at_once
    }

    fn whole(body: &[u8], rest: &[u8]) -> Outcome {
        Ok(Some((body.to_vec(), rest.to_vec())))
    }

    #[test]
    fn so_many_bytes_and_no_more() {
        assert_eq!(read(Length::Bytes(3), 3, b"abcGET"), whole(b"abc", b"GET"));
        assert_eq!(read(Length::Bytes(3), 9, b"ab"), Ok(None));
        assert_eq!(read(Length::Bytes(4), 3, b"abcd"), Err(413));
        assert_eq!(read(Length::Bytes(u64::MAX), 3, b"a"), Err(413));
    }

    #[test]
    fn chunks() {
        assert_eq!(
            read(Length::Chunked, 9, b"3\r\nabc\r\n02;x=y\r\nde\r\n0\r\n\r\nGET"),
            whole(b"abcde", b"GET")
        );
        assert_eq!(read(Length::Chunked, 9, b"0\r\nA: b\r\nC: d\r\n\r\n"), whole(b"", b""));
        assert_eq!(read(Length::Chunked, 9, b"3\r\nabc\r\n0\r\n"), Ok(None));
        assert_eq!(read(Length::Chunked, 9, b"A\r\n0123456789\r\n"), Err(413));
        assert_eq!(read(Length::Chunked, 9, b"5\r\nabcde\r\n5\r\n"), Err(413));
    }

    #[test]
    fn chunks_that_can_be_read_in_two_ways_are_not_read() {
        for bad in [
            &b"\r\n"[..],
            b"3\nabc\n0\n\n",
            b"+3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b"-1\r\n",
            b"g\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n\n",
            b"10000000000000000\r\n",
            b"0\r\nA: b\nC: d\r\n\r\n",
        ] {
            assert_eq!(read(Length::Chunked, 1 << 20, bad), Err(400), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_frames_chunks_is_bounded() {
        let long = [b"3;", &[b'x'; SIZE_LINE_BYTES_MAX][..], b"\r\n"].concat();
        assert_eq!(read(Length::Chunked, 9, &long), Err(400));
        let mut body = Body::new(Length::Chunked, 9).unwrap();
        let mut input = BytesMut::from(&b"0\r\n"[..]);
        for _ in 0..=TRAILER_BYTES_MAX / 3 {
            input.extend_from_slice(b"a:b\r\n");
        }
        assert_eq!(body.take(&mut input, &mut |_| {}).map_err(|refusal| refusal.status), Err(400));
    }
}
