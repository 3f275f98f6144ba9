//! Numbers that are mostly small: seven bits to a byte, the lowest first, the top bit set in all bytes but the last.
//! A number has one encoding: no byte at the end is zero, apart from zero itself.

use bytes::BufMut;

use super::record::Malformed;
use crate::base::Reader;

/// The longest encoding.
pub const VARINT_BYTES_MAX: usize = 10;

pub fn put(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

pub fn take(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let mut number = 0u64;
    for shift in (0..).step_by(7).take(VARINT_BYTES_MAX) {
        let byte = reader.u8()?;
        let bits = u64::from(byte & 0x7f);
        number |= bits << shift;
        if byte < 0x80 {
            return if number >> shift == bits && (bits > 0 || shift == 0) {
                Ok(number)
            } else {
                Err(Malformed("a number that is not in its shortest form".into()))
            };
        }
    }
    Err(Malformed(format!("a number of more than {VARINT_BYTES_MAX} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, number);
        out
    }

    #[test]
    fn the_encoding_never_changes() {
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [0x7f]);
        assert_eq!(encoded(300), [0xac, 0x02]);
        assert_eq!(encoded(u64::MAX).len(), VARINT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn numbers_come_back(number in any::<u64>(), shift in 0u32..64) {
            let number = number >> shift;
            let bytes = encoded(number);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(take(&mut reader), Ok(number));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn a_number_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = take(&mut reader) {
                prop_assert_eq!(&encoded(number)[..], &bytes[..bytes.len() - reader.left()]);
            }
        }
    }
}
