//! Where a reply of the line protocol ends, and whether it is an error: all that a generator of load wants to know of it.
//!
//! A reply comes in pieces of any length, and a large one is looked at once: what was passed is not looked at again.

use std::io::{Error, ErrorKind, Result};

/// What of a reply has come.
#[derive(Debug, Default)]
pub struct Replies {
    /// Items that are still to come.
    items: usize,
    /// Bytes of a string that are still to come, with the end of its line.
    bytes: usize,
    begun: bool,
    /// The first word of an error.
    error: Option<String>,
    integers: Integers,
}

/// The first integers of a reply: of a put its revision; of a push the watch's id and the revision.
pub type Integers = [Option<i64>; 2];

/// One that has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done(Integers),
    /// The code, for instance `TIMEOUT`.
    Refused(String),
}

/// A length line has few digits, an error a sentence.
const LINE_BYTES_MAX: usize = 64 << 10;

impl Replies {
    /// Goes on at `at` of `input`, and moves it. None: more must come. An error of kind `InvalidData`: that is no reply.
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Reply>> {
        loop {
            let bytes = self.bytes.min(input.len() - *at);
            *at += bytes;
            self.bytes -= bytes;
            if self.bytes > 0 {
                return Ok(None);
            }
            if self.begun && self.items == 0 {
                let whole = std::mem::take(self);
                return Ok(Some(whole.error.map_or(Reply::Done(whole.integers), Reply::Refused)));
            }
            let rest = &input[*at..];
            let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                if rest.len() > LINE_BYTES_MAX {
                    return Err(invalid("a line without an end", rest));
                }
                return Ok(None);
            };
            self.take_line(&rest[..end])?;
            *at += end + 2;
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<()> {
        if !self.begun {
            (self.begun, self.items) = (true, 1);
        }
        self.items -= 1;
        let Some((kind, rest)) = line.split_first() else { return Err(invalid("an empty line", line)) };
        match kind {
            b'+' | b'_' | b'#' | b',' => {}
            b':' => {
                let number = std::str::from_utf8(rest).ok().and_then(|digits| digits.parse().ok());
                let number: i64 = number.ok_or_else(|| invalid("a number", rest))?;
                if let Some(free) = self.integers.iter_mut().find(|integer| integer.is_none()) {
                    *free = Some(number);
                }
            }
            b'-' => {
                let word = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
                self.error.get_or_insert_with(|| String::from_utf8_lossy(word).into_owned());
            }
            b'$' | b'=' => self.bytes = length(rest)?.map_or(0, |bytes| bytes + 2),
            b'*' | b'~' | b'>' => self.items += length(rest)?.unwrap_or(0),
            b'%' => self.items += 2 * length(rest)?.unwrap_or(0),
            _ => return Err(invalid("a line that begins no reply", line)),
        }
        Ok(())
    }
}

/// None: -1, which stands for nothing.
fn length(digits: &[u8]) -> Result<Option<usize>> {
    if digits == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(digits).ok();
    match text.and_then(|text| text.parse::<u32>().ok()) {
        Some(length) => Ok(Some(length as usize)),
        None => Err(invalid("a length", digits)),
    }
}

fn invalid(what: &str, found: &[u8]) -> Error {
    let found = String::from_utf8_lossy(&found[..found.len().min(40)]);
    Error::new(
        ErrorKind::InvalidData,
        format!("the server's words are not of the line protocol: {what}: {found:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_may_come_in_any_pieces() {
        let all = b"+OK\r\n:7\r\n$3\r\na\r\n\r\n*2\r\n$-1\r\n%1\r\n+k\r\n:1\r\n-TIMEOUT too late\r\n*0\r\n$0\r\n\r\n*-1\r\n";
        let done = |integers| Reply::Done(integers);
        let none = [None; 2];
        let [seven, one] = [7, 1].map(|number| [Some(number), None]);
        let refused = Reply::Refused("TIMEOUT".into());
        let expected: Vec<Reply> =
            vec![done(none), done(seven), done(none), done(one), refused, done(none), done(none), done(none)];
        for step in 1..all.len() {
            let (mut replies, mut at, mut seen) = (Replies::default(), 0, Vec::new());
            for end in (step..all.len()).step_by(step).chain([all.len()]) {
                while let Some(reply) = replies.next(&all[..end], &mut at).unwrap() {
                    seen.push(reply);
                }
            }
            assert_eq!((&seen, at), (&expected, all.len()), "in pieces of {step}");
        }
    }

    #[test]
    fn a_push_has_its_revision_in_front() {
        let push = b">4\r\n$5\r\nwatch\r\n:1\r\n:42\r\n*1\r\n*3\r\n$3\r\nPUT\r\n*2\r\n$1\r\nk\r\n:9\r\n_\r\n";
        let reply = Replies::default().next(push, &mut 0).unwrap();
        assert_eq!(reply, Some(Reply::Done([Some(1), Some(42)])));
    }

    #[test]
    fn an_error_within_a_reply_is_one() {
        let (mut replies, mut at) = (Replies::default(), 0);
        let reply = replies.next(b"*2\r\n-NOKEY no\r\n:1\r\n", &mut at).unwrap();
        assert_eq!(reply, Some(Reply::Refused("NOKEY".into())));
    }

    #[test]
    fn other_words_are_an_error() {
        for words in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"$x\r\n", b"*99999999999\r\n"] {
            let error = Replies::default().next(words, &mut 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{words:?}");
        }
        let endless = vec![b'+'; LINE_BYTES_MAX + 2];
        assert!(Replies::default().next(&endless, &mut 0).is_err());
    }
}
