//! Finds whole requests at the front of the input: RESP arrays of bulk strings, or lines typed by a person.
//!
//! The parser remembers how far it has come, so that bytes which arrive one at a time cost no more than all
//! at once, and keeps nothing of its own but the positions of the words: a request's bytes stay in the input
//! buffer until it is whole, and then leave it as one shared slice. Every length is compared with its bound
//! before anything is done with it:
//!
//! - a request above `hold_bytes_max` is too large for this server. Its bytes are thrown away as they arrive
//!   and it is refused in its place in the order of replies; the connection goes on.
//! - a request above [`SKIP_BYTES_MAX`] is too large for every setting of this server. That is no request but
//!   noise, and ends the connection.
//!
//! There is no nesting in requests, so there is nothing to recurse into.

use bytes::{Buf, Bytes, BytesMut};

use super::typed;
use crate::api::{Code, Fault};
use crate::base::limits;

/// What a request may claim without ending the connection.
pub const SKIP_BYTES_MAX: usize = limits::REQUEST_BYTES_LIMIT + limits::REQUEST_OVERHEAD_BYTES;

/// Room for the words of ordinary requests is kept from one to the next; what a huge one needed is given back.
const WORDS_KEPT: usize = 256;

/// Where a word lies in its request.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub start: u32,
    pub end: u32,
}

/// The words of one request.
#[derive(Debug)]
pub struct Words {
    frame: Bytes,
    places: Vec<Place>,
    /// Typed as a line, not sent as an array.
    pub typed: bool,
}

impl Words {
    pub fn count(&self) -> usize {
        self.places.len()
    }

    pub fn get(&self, word: usize) -> &[u8] {
        let Place { start, end } = self.places[word];
        &self.frame[start as usize..end as usize]
    }

    /// A word as a slice that shares the received buffer.
    pub fn share(&self, word: usize) -> Bytes {
        let Place { start, end } = self.places[word];
        self.frame.slice(start as usize..end as usize)
    }

    /// True if word `word` is `token`, whatever its case. `token` is in capitals.
    pub fn is(&self, word: usize, token: &str) -> bool {
        self.get(word).eq_ignore_ascii_case(token.as_bytes())
    }
}

/// What was found at the front of the input.
#[derive(Debug)]
pub enum Step {
    NeedMore,
    Request(Words),
    /// A request that cannot be understood or is too large. It has been consumed; the connection goes on.
    Refused(Fault),
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Parser {
    hold_bytes_max: usize,
    stage: Stage,
    /// Bytes at the front of the input that are parsed (of a line: that hold no line feed).
    at: usize,
    words_left: usize,
    places: Vec<Place>,
    /// Bytes thrown away so far, of a request that is too large to be held.
    skipped: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Between two requests.
    Start,
    /// Within an array, before the `$` of a word.
    Length,
    /// Within an array, before so many bytes of a word and its CR LF.
    Word(usize),
    /// Within a line.
    Line,
}

impl Parser {
    /// `request_bytes_max`: keys and values of one request together; words and framing come on top.
    pub fn new(request_bytes_max: usize) -> Parser {
        Parser {
            hold_bytes_max: request_bytes_max
                .saturating_add(limits::REQUEST_OVERHEAD_BYTES)
                .min(SKIP_BYTES_MAX),
            stage: Stage::Start,
            at: 0,
            words_left: 0,
            places: Vec::new(),
            skipped: None,
        }
    }

    /// Takes the next request from the front of the input. An Err ends the connection.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Step, Fault> {
        loop {
            match self.stage {
                Stage::Start => match input.first() {
                    None => return Ok(Step::NeedMore),
                    Some(b'*') => {
                        let Some((words, used)) =
                            length(&input[1..], limits::WORDS_MAX, "words in a request")?
                        else {
                            return Ok(Step::NeedMore);
                        };
                        if words == 0 {
                            // Redis answers nothing to an empty array, and so do we.
                            input.advance(1 + used);
                            continue;
                        }
                        (self.at, self.words_left, self.stage) = (1 + used, words, Stage::Length);
                    }
                    Some(_) => self.stage = Stage::Line,
                },
                Stage::Length => {
                    let rest = &input[self.at..];
                    match rest.first() {
                        None => return Ok(Step::NeedMore),
                        Some(b'$') => {}
                        Some(&other) => return Err(unexpected("'$' and the length of a word", other)),
                    }
                    let Some((word_bytes, used)) = length(&rest[1..], SKIP_BYTES_MAX, "bytes in a word")?
                    else {
                        return Ok(Step::NeedMore);
                    };
                    self.at += 1 + used;
                    self.stage = Stage::Word(word_bytes);
                    self.weigh(word_bytes, input)?;
                }
                Stage::Word(word_bytes) => {
                    let whole = match self.skipped {
                        None => self.take_word(word_bytes, input)?,
                        Some(_) => self.skip_word(word_bytes, input)?,
                    };
                    if !whole {
                        return Ok(Step::NeedMore);
                    }
                    self.words_left -= 1;
                    if self.words_left == 0 {
                        return Ok(self.finish_array(input));
                    }
                    self.stage = Stage::Length;
                }
                Stage::Line => match self.line(input)? {
                    Some(Step::NeedMore) => return Ok(Step::NeedMore),
                    Some(step) => return Ok(step),
                    None => {}
                },
            }
        }
    }

    /// Gives the room for positions back, for the next request.
    pub fn recycle(&mut self, words: Words) {
        self.places = words.places;
        self.places.clear();
        if self.places.capacity() > WORDS_KEPT {
            self.places = Vec::new();
        }
    }

    /// Decides what becomes of a request whose next word has `word_bytes`.
    fn weigh(&mut self, word_bytes: usize, input: &mut BytesMut) -> Result<(), Fault> {
        let request_bytes = self.skipped.unwrap_or(0) + self.at + word_bytes + 2;
        if request_bytes > SKIP_BYTES_MAX {
            return Err(Fault::new(
                Code::Err,
                format!("protocol error: a request of more than {SKIP_BYTES_MAX} bytes"),
            ));
        }
        if self.skipped.is_some() || request_bytes > self.hold_bytes_max {
            input.advance(self.at);
            self.skipped = Some(self.skipped.unwrap_or(0) + self.at);
            self.at = 0;
            self.places = Vec::new();
        }
        Ok(())
    }

    fn take_word(&mut self, word_bytes: usize, input: &BytesMut) -> Result<bool, Fault> {
        let end = self.at + word_bytes;
        if input.len() < end + 2 {
            return Ok(false);
        }
        expect_line_end(&input[end..])?;
        let place = |at: usize| u32::try_from(at).expect("a request is held below 4 GiB");
        self.places.push(Place { start: place(self.at), end: place(end) });
        self.at = end + 2;
        Ok(true)
    }

    fn skip_word(&mut self, word_bytes: usize, input: &mut BytesMut) -> Result<bool, Fault> {
        let now = word_bytes.min(input.len());
        input.advance(now);
        self.skipped = Some(self.skipped.unwrap_or(0) + now);
        self.stage = Stage::Word(word_bytes - now);
        if now < word_bytes || input.len() < 2 {
            return Ok(false);
        }
        expect_line_end(input)?;
        input.advance(2);
        Ok(true)
    }

    fn finish_array(&mut self, input: &mut BytesMut) -> Step {
        self.stage = Stage::Start;
        let request_bytes = std::mem::take(&mut self.at);
        if self.skipped.take().is_some() {
            return Step::Refused(Fault::too_large());
        }
        let frame = input.split_to(request_bytes).freeze();
        Step::Request(Words { frame, places: std::mem::take(&mut self.places), typed: false })
    }

    /// One typed line. None: it was blank.
    fn line(&mut self, input: &mut BytesMut) -> Result<Option<Step>, Fault> {
        let Some(found) = input[self.at..].iter().position(|&byte| byte == b'\n') else {
            self.at = input.len();
            if self.at > limits::INLINE_BYTES_MAX {
                return Err(too_long_a_line());
            }
            return Ok(Some(Step::NeedMore));
        };
        let line_bytes = self.at + found;
        if line_bytes > limits::INLINE_BYTES_MAX {
            return Err(too_long_a_line());
        }
        let mut line = input.split_to(line_bytes + 1);
        line.truncate(if line[..line_bytes].ends_with(b"\r") { line_bytes - 1 } else { line_bytes });
        (self.at, self.stage) = (0, Stage::Start);
        typed::refuse_foreign(&line)?;
        Ok(match typed::split(&mut line, &mut self.places) {
            Err(fault) => {
                self.places.clear();
                Some(Step::Refused(fault))
            }
            Ok(()) if self.places.is_empty() => None,
            Ok(()) => {
                let places = std::mem::take(&mut self.places);
                Some(Step::Request(Words { frame: line.freeze(), places, typed: true }))
            }
        })
    }
}

/// Digits, CR LF: the number and how many bytes it took; None until it is whole. One spelling per number: no
/// sign, no leading zero. Ends at the first digit that goes beyond `most`, so a length has few bytes.
fn length(bytes: &[u8], most: usize, what: &str) -> Result<Option<(usize, usize)>, Fault> {
    let mut number = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at == 0 || number > 0 => {
                number = number * 10 + usize::from(byte - b'0');
                if number > most {
                    return Err(Fault::new(Code::Err, format!("protocol error: more than {most} {what}")));
                }
            }
            b'\r' if at > 0 => {
                return match bytes.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((number, at + 2))),
                    Some(&other) => Err(unexpected("LF behind CR", other)),
                };
            }
            other => return Err(unexpected("a decimal length and CR LF", other)),
        }
    }
    Ok(None)
}

fn expect_line_end(bytes: &[u8]) -> Result<(), Fault> {
    match bytes {
        [b'\r', b'\n', ..] => Ok(()),
        [b'\r', other, ..] | [other, ..] => {
            Err(unexpected("CR LF behind a word of the length given", *other))
        }
        [] => unreachable!("called with two bytes at least"),
    }
}

fn unexpected(expected: &str, found: u8) -> Fault {
    Fault::new(Code::Err, format!("protocol error: expected {expected}, found byte 0x{found:02x}"))
}

fn too_long_a_line() -> Fault {
    let most = limits::INLINE_BYTES_MAX;
    Fault::new(
        Code::Err,
        format!("protocol error: a line of more than {most} bytes; send a RESP array instead"),
    )
}
