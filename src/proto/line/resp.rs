//! Writes RESP values. Integers are formatted on the stack, and each element goes out in one or two copies.

use bytes::{BufMut, BytesMut};

use crate::api::Fault;

/// The dialect that replies are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Resp2,
    Resp3,
}

/// Appends values to a buffer.
pub struct Resp<'a> {
    out: &'a mut BytesMut,
    dialect: Dialect,
}

/// Type byte, sign, 20 digits, CR LF.
const HEAD_BYTES_MAX: usize = 24;

impl<'a> Resp<'a> {
    pub fn new(out: &'a mut BytesMut, dialect: Dialect) -> Resp<'a> {
        Resp { out, dialect }
    }

    /// `+text`; the text is ours and has no line ends.
    pub fn simple(&mut self, text: &str) {
        self.out.reserve(text.len() + 3);
        self.out.put_u8(b'+');
        self.out.put_slice(text.as_bytes());
        self.out.put_slice(b"\r\n");
    }

    /// `-CODE text`. One line whatever the text holds: a control byte in it would let a key speak as the server.
    pub fn error(&mut self, fault: &Fault) {
        self.out.put_u8(b'-');
        self.out.put_slice(fault.code.word().as_bytes());
        self.out.put_u8(b' ');
        for &byte in fault.text.as_bytes() {
            self.out.put_u8(if byte.is_ascii_control() { b'?' } else { byte });
        }
        self.out.put_slice(b"\r\n");
    }

    pub fn integer(&mut self, number: u64) {
        self.head(b':', number);
    }

    /// A number that may be negative (a lease).
    pub fn signed(&mut self, number: i64) {
        if number < 0 {
            self.out.put_slice(b":-");
            let mut line = [0; HEAD_BYTES_MAX];
            let line = head(b'0', number.unsigned_abs(), &mut line);
            self.out.put_slice(&line[1..]);
        } else {
            self.head(b':', number.unsigned_abs());
        }
    }

    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + HEAD_BYTES_MAX + 2);
        self.head(b'$', bytes.len() as u64);
        self.out.put_slice(bytes);
        self.out.put_slice(b"\r\n");
    }

    pub fn text(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }

    /// A 64-bit id in decimal, as a string: half of all ids do not fit the signed integers of RESP.
    pub fn id(&mut self, id: u64) {
        let mut line = [0; HEAD_BYTES_MAX];
        let line = head(b'0', id, &mut line);
        self.bulk(&line[1..line.len() - 2]);
    }

    pub fn null(&mut self) {
        self.out.put_slice(match self.dialect {
            Dialect::Resp2 => b"$-1\r\n",
            Dialect::Resp3 => b"_\r\n",
        });
    }

    /// An error's absence is a truth too: RESP2 has no booleans, so 1 and 0 there.
    pub fn boolean(&mut self, truth: bool) {
        self.out.put_slice(match (self.dialect, truth) {
            (Dialect::Resp2, true) => b":1\r\n",
            (Dialect::Resp2, false) => b":0\r\n",
            (Dialect::Resp3, true) => b"#t\r\n",
            (Dialect::Resp3, false) => b"#f\r\n",
        });
    }

    /// `count` values follow.
    pub fn array(&mut self, count: usize) {
        self.head(b'*', count as u64);
    }

    /// `count` values follow that answer no request; in RESP2 an array like others.
    pub fn push(&mut self, count: usize) {
        self.head(if self.dialect == Dialect::Resp3 { b'>' } else { b'*' }, count as u64);
    }

    /// `pairs` times a name and a value follow; in RESP2 that is a flat array.
    pub fn map(&mut self, pairs: usize) {
        match self.dialect {
            Dialect::Resp2 => self.head(b'*', 2 * pairs as u64),
            Dialect::Resp3 => self.head(b'%', pairs as u64),
        }
    }

    /// Bytes as they are: values that were written before, or no RESP at all (the answers to ZooKeeper's four-letter words).
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    fn head(&mut self, kind: u8, number: u64) {
        let mut line = [0; HEAD_BYTES_MAX];
        let line = head(kind, number, &mut line);
        self.out.put_slice(line);
    }
}

/// Kind, decimal digits, CR LF, written from the end of `line`.
fn head(kind: u8, mut number: u64, line: &mut [u8; HEAD_BYTES_MAX]) -> &[u8] {
    line[HEAD_BYTES_MAX - 2..].copy_from_slice(b"\r\n");
    let mut at = HEAD_BYTES_MAX - 2;
    loop {
        at -= 1;
        line[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    at -= 1;
    line[at] = kind;
    &line[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    fn written(dialect: Dialect, write: impl FnOnce(&mut Resp<'_>)) -> String {
        let mut out = BytesMut::new();
        write(&mut Resp::new(&mut out, dialect));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn values_in_both_dialects() {
        use Dialect::{Resp2, Resp3};
        for number in [0, 9, 10, 99, 12345, u64::MAX] {
            assert_eq!(written(Resp2, |resp| resp.integer(number)), format!(":{number}\r\n"));
            assert_eq!(
                written(Resp2, |resp| resp.id(number)),
                format!("${}\r\n{number}\r\n", number.to_string().len())
            );
        }
        for number in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(written(Resp2, |resp| resp.signed(number)), format!(":{number}\r\n"));
        }
        assert_eq!(written(Resp2, |resp| resp.bulk(b"")), "$0\r\n\r\n");
        assert_eq!(written(Resp2, |resp| resp.bulk(b"a\r\nb")), "$4\r\na\r\nb\r\n");
        assert_eq!(written(Resp2, |resp| resp.null()), "$-1\r\n");
        assert_eq!(written(Resp3, |resp| resp.null()), "_\r\n");
        assert_eq!(written(Resp2, |resp| resp.map(3)), "*6\r\n");
        assert_eq!(written(Resp3, |resp| resp.map(3)), "%3\r\n");
        assert_eq!(written(Resp2, |resp| resp.boolean(true)), ":1\r\n");
        assert_eq!(written(Resp3, |resp| resp.boolean(false)), "#f\r\n");
    }

    #[test]
    fn an_error_is_one_line() {
        let fault = Fault::new(Code::NoKey, "a\r\n+OK\x1b[31mb");
        assert_eq!(written(Dialect::Resp2, |resp| resp.error(&fault)), "-NOKEY a??+OK?[31mb\r\n");
    }
}
