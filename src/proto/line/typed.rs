//! Lines typed by a person: words parted by blanks, quoted as `redis-cli` reads them.
//!
//! Within `"..."`: `\n \r \t \b \a`, `\xHH`, and a backslash before anything else means that byte. Within
//! `'...'`: only `\'`. A closing quote must end its word. Outside quotes every byte means itself.

use super::frame::Place;
use crate::api::{Code, Fault};
use crate::proto::sniff;

/// Refuses what no person types into this port: control bytes (a binary protocol that lost its way), and
/// HTTP. A browser can be made to send any body to any port; it cannot be made to leave these out.
pub fn refuse_foreign(line: &[u8]) -> Result<(), Fault> {
    if let Some(&byte) = line.iter().find(|&&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(Fault::new(
            Code::Err,
            format!(
                "protocol error: control byte 0x{byte:02x} in a typed line; write it as \"\\x{byte:02x}\""
            ),
        ));
    }
    let starts = |word: &[u8]| line.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    if sniff::is_http1_request_line(line) || starts(b"POST ") || starts(b"Host:") {
        return Err(Fault::new(Code::Err, "protocol error: this is HTTP; this connection speaks RESP"));
    }
    Ok(())
}

/// Splits a line into words and takes quotes and escapes out, in place: what they stand for is never longer.
pub fn split(line: &mut [u8], places: &mut Vec<Place>) -> Result<(), Fault> {
    let mut cursor = Cursor { line, read: 0, write: 0 };
    loop {
        cursor.skip_blanks();
        if cursor.peek().is_none() {
            return Ok(());
        }
        let start = cursor.write;
        cursor.word()?;
        let place = |at: usize| u32::try_from(at).expect("a typed line is short");
        places.push(Place { start: place(start), end: place(cursor.write) });
    }
}

struct Cursor<'a> {
    line: &'a mut [u8],
    read: usize,
    /// Never ahead of `read`.
    write: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.read).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.read += 1;
        Some(byte)
    }

    fn put(&mut self, byte: u8) {
        self.line[self.write] = byte;
        self.write += 1;
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.read += 1;
        }
    }

    fn word(&mut self) -> Result<(), Fault> {
        loop {
            match self.peek() {
                None | Some(b' ' | b'\t') => return Ok(()),
                Some(quote @ (b'"' | b'\'')) => {
                    self.read += 1;
                    self.quoted(quote)?;
                    if !matches!(self.peek(), None | Some(b' ' | b'\t')) {
                        return Err(unbalanced());
                    }
                }
                Some(byte) => {
                    self.read += 1;
                    self.put(byte);
                }
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<(), Fault> {
        loop {
            let byte = match self.take() {
                None => return Err(unbalanced()),
                Some(byte) if byte == quote => return Ok(()),
                Some(b'\\') if quote == b'"' => self.escape()?,
                Some(b'\\') if self.peek() == Some(b'\'') => {
                    self.read += 1;
                    b'\''
                }
                Some(byte) => byte,
            };
            self.put(byte);
        }
    }

    fn escape(&mut self) -> Result<u8, Fault> {
        Ok(match self.take().ok_or_else(unbalanced)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 0x08,
            b'a' => 0x07,
            b'x' => match self.line.get(self.read..self.read + 2).and_then(hex) {
                Some(byte) => {
                    self.read += 2;
                    byte
                }
                None => b'x',
            },
            other => other,
        })
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    let mut value = 0;
    for &digit in digits {
        value = value * 16 + char::from(digit).to_digit(16)?;
    }
    u8::try_from(value).ok()
}

fn unbalanced() -> Fault {
    Fault::new(Code::Err, "unbalanced quotes in request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
        let mut bytes = line.as_bytes().to_vec();
        let mut places = Vec::new();
        split(&mut bytes, &mut places).map_err(|fault| fault.text)?;
        Ok(places.iter().map(|place| bytes[place.start as usize..place.end as usize].to_vec()).collect())
    }

    #[test]
    fn words_as_redis_cli_reads_them() {
        for (line, expected) in [
            ("", vec![]),
            (" \t ", vec![]),
            ("PUT a b", vec![&b"PUT"[..], b"a", b"b"]),
            ("  a\tb  ", vec![b"a", b"b"]),
            (r#""a b" c"#, vec![b"a b", b"c"]),
            (r#""""#, vec![b""]),
            ("''", vec![b""]),
            (r#"x"y z" w"#, vec![b"xy z", b"w"]),
            (r#""\x00\xff\n\r\t\b\a\\\"""#, vec![b"\x00\xff\n\r\t\x08\x07\\\""]),
            (r#""\xZ1\q\x4""#, vec![b"xZ1qx4"]),
            (r#"'it\'s \n' 'a"b'"#, vec![b"it's \\n", b"a\"b"]),
            ("caf\u{e9}", vec!["caf\u{e9}".as_bytes()]),
            (r"a\nb", vec![b"a\\nb"]),
        ] {
            let expected: Vec<Vec<u8>> = expected.into_iter().map(<[u8]>::to_vec).collect();
            assert_eq!(words(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn quotes_that_do_not_close() {
        for line in ["\"", "'", "a \"b", "'a", r#""a\"#, r#""a\""#, r#""a"b"#, "'a'b", r"'a\'"] {
            assert_eq!(words(line), Err("unbalanced quotes in request".into()), "{line}");
        }
    }

    #[test]
    fn what_nobody_types() {
        for line in [
            &b"a\0b"[..],
            b"\x16\x03\x01",
            b"a\x7f",
            b"a\rb",
            b"GET / HTTP/1.1",
            b"post / anything",
            b"Host: example.org",
        ] {
            assert!(refuse_foreign(line).is_err(), "{}", line.escape_ascii());
        }
        for line in [&b"GET / HTTP/1"[..], b"POSTAGE", b"a\tb", "\u{e9}".as_bytes()] {
            assert_eq!(refuse_foreign(line), Ok(()));
        }
    }
}
