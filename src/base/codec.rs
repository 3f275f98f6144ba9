//! Little-endian reading and writing of byte slices. The reader checks every length against what is
//! there before it is used, so hostile bytes end in an error and never in a panic or an allocation.

use bytes::{BufMut, Bytes, BytesMut};

/// What was wanted did not fit in what was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    pub wanted_bytes: usize,
    pub left_bytes: usize,
}

/// Takes values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Short> {
        if count > self.rest.len() {
            return Err(Short { wanted_bytes: count, left_bytes: self.rest.len() });
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Short> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A u32 length, then that many bytes.
    pub fn blob(&mut self) -> Result<&'a [u8], Short> {
        let length = self.u32()? as usize;
        self.bytes(length)
    }
}

/// Takes values from the front of a shared buffer; blobs are slices of it, not copies.
#[derive(Clone, Debug)]
pub struct SharedReader {
    rest: Bytes,
}

impl SharedReader {
    pub fn new(bytes: Bytes) -> SharedReader {
        SharedReader { rest: bytes }
    }

    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn bytes(&mut self, count: usize) -> Result<Bytes, Short> {
        if count > self.rest.len() {
            return Err(Short { wanted_bytes: count, left_bytes: self.rest.len() });
        }
        Ok(self.rest.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Short> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn blob(&mut self) -> Result<Bytes, Short> {
        let length = self.u32()? as usize;
        self.bytes(length)
    }
}

/// Puts values at the end of a buffer.
pub trait Writer {
    fn put_blob(&mut self, bytes: &[u8]);
}

impl Writer for BytesMut {
    /// A u32 length, then the bytes.
    fn put_blob(&mut self, bytes: &[u8]) {
        self.put_u32_le(u32::try_from(bytes.len()).expect("a blob is below 4 GiB"));
        self.put_slice(bytes);
    }
}

impl Writer for Vec<u8> {
    fn put_blob(&mut self, bytes: &[u8]) {
        self.put_u32_le(u32::try_from(bytes.len()).expect("a blob is below 4 GiB"));
        self.put_slice(bytes);
    }
}

/// RFC 4648 §4, with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (word >> (18 - 6 * place)) & 63;
            out.push(if place > chunk.len() { '=' } else { ALPHABET[index as usize].into() });
        }
    }
    out
}

/// What is in base64, padded; line ends within are passed over, as Go's reader does.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut digits, mut padding) = (0u32, 0, 0);
    for byte in text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            // Two digits at least are in front of it.
            b'=' if digits >= 2 => 0,
            _ => return None,
        };
        padding += usize::from(byte == b'=');
        // Nothing follows the padding.
        if padding > 0 && byte != b'=' {
            return None;
        }
        word = word << 6 | u32::from(value);
        digits += 1;
        if digits == 4 {
            out.extend_from_slice(&word.to_be_bytes()[1..4 - padding]);
            (word, digits) = (0, 0);
        }
    }
    (digits == 0).then_some(out)
}

/// A JSON string, quotes included. What a browser could take for markup, or JavaScript for the end of a line, is escaped
/// too: so Go writes it, and with it etcdctl.
pub fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_both_ways() {
        for length in 0..50u8 {
            let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(83) ^ 0xa5).collect();
            assert_eq!(from_base64(&base64(&bytes)), Some(bytes));
        }
        assert_eq!(from_base64("Zm\r\n9v\n"), Some(b"foo".to_vec()));
        for bad in [
            "Z", "Zg", "Zg=", "Zg===", "=", "Zm9v=", "Zg==Zg==", "Zg=v", "Zm9-", "Zm9_", "Zm 9v", "====",
            "Zm9vZ",
        ] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0x7f, 1]);
        assert_eq!(reader.blob(), Err(Short { wanted_bytes: 0x7fff_ffff, left_bytes: 1 }));
    }

    #[test]
    fn what_was_written_is_read() {
        let mut out = BytesMut::new();
        out.put_u8(7);
        out.put_u64_le(u64::MAX - 1);
        out.put_blob(b"abc");
        let mut plain = Reader::new(&out);
        assert_eq!((plain.u8(), plain.u64(), plain.blob()), (Ok(7), Ok(u64::MAX - 1), Ok(&b"abc"[..])));
        let mut shared = SharedReader::new(out.freeze());
        assert_eq!((shared.u8(), shared.u64()), (Ok(7), Ok(u64::MAX - 1)));
        assert_eq!(shared.blob(), Ok(Bytes::from_static(b"abc")));
        assert_eq!(shared.left(), 0);
    }

    /// RFC 4648 §10.
    #[test]
    fn base64_is_the_standard_one() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(b"a\x01\n\"\xc3\xa9\xff"), "YQEKIsOp/w==");
    }

    #[test]
    fn json_strings_are_gos() {
        let text = "a<b>&\"\n\r\t\\\u{0}\u{1f}\u{7f}\u{2028}é";
        let string = "\"a\\u003cb\\u003e\\u0026\\\"\\n\\r\\t\\\\\\u0000\\u001f\u{7f}\\u2028é\"";
        assert_eq!(json_string(text), string);
        assert_eq!(serde_json::from_str::<String>(string).unwrap(), text);
    }
}
